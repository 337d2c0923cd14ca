//! Sound cards through cpal: any rate and channel count outside, 48 kHz mono inside.
//!
//! A callback's size is never trusted (ask for 480 frames, get 320 or 24): samples go one by one through the ring.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, Device, SampleFormat, StreamConfig};

use super::device::{DeviceError, DeviceInfo, DeviceOptions, Devices};
use super::rate::Converter;
use super::ring::{self, Capture, Playback};
use crate::sample;

/// The rate inside.
const RATE: u32 = 48_000;
/// Frames asked for per callback: 10 ms. The default of some hosts is 2 s.
const PERIOD_FRAMES: u32 = 480;
/// How long a card may take to open.
const OPEN_LIMIT: Duration = Duration::from_secs(3);
/// ALSA's null device is in every list, and is no card.
const NOTHING: &str = "Discard all samples";
/// Troubles kept for the loop; more of the same say nothing new.
const FAULTS_MAX: usize = 8;

/// Opens the cards that `options` name.
///
/// # Errors
///
/// [`DeviceError`] if neither direction opens, or one that was asked for by name does not.
pub(super) fn open(options: &DeviceOptions) -> Result<Devices, DeviceError> {
    let host = cpal::default_host();
    let (faults, heard) = sync_channel(FAULTS_MAX);
    let input = if options.output_only { None } else { find(&host, options.input.as_deref(), "input")? };
    let output = find(&host, options.output.as_deref(), "output")?;
    let mut devices =
        Devices { microphone: None, loudspeaker: None, description: String::new(), faults: heard, streams: Vec::new() };
    let mut names = Vec::new();
    let mut failure = DeviceError::Unusable { cause: "none was found".to_owned() };
    if let Some(device) = output {
        match open_output(&device, &faults) {
            Ok((writer, stream, rate)) => {
                devices.loudspeaker = Some(writer);
                devices.streams.push(stream);
                names.push(format!("{} ({rate} Hz)", name_of(&device)));
            }
            Err(cause) => failure = refused("output", &device, options.output.as_ref(), &cause)?,
        }
    }
    if let Some(device) = input {
        match open_input(&device, &faults, Arc::clone(&options.wake)) {
            Ok((reader, stream, rate)) => {
                devices.microphone = Some(reader);
                devices.streams.push(stream);
                names.push(format!("{} ({rate} Hz)", name_of(&device)));
            }
            Err(cause) => failure = refused("input", &device, options.input.as_ref(), &cause)?,
        }
    }
    if devices.streams.is_empty() {
        return Err(failure);
    }
    names.dedup();
    devices.description = names.join(", ");
    Ok(devices)
}

/// A card asked for by name must open; the default one may fail, then the call runs without it.
fn refused(
    direction: &'static str,
    device: &Device,
    asked: Option<&String>,
    cause: &cpal::Error,
) -> Result<DeviceError, DeviceError> {
    let error = DeviceError::Refused { direction, name: name_of(device), cause: cause.to_string() };
    if asked.is_some() { Err(error) } else { Ok(DeviceError::Unusable { cause: cause.to_string() }) }
}

/// All cards, the default ones first.
///
/// # Errors
///
/// [`DeviceError::None`] if there is no sound system.
pub(super) fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
    let host = cpal::default_host();
    let default_input = host.default_input_device().map(|device| name_of(&device));
    let default_output = host.default_output_device().map(|device| name_of(&device));
    let mut cards: Vec<DeviceInfo> = Vec::new();
    for device in host.devices().map_err(|_| DeviceError::None)? {
        let name = name_of(&device);
        let default = [&default_input, &default_output].into_iter().flatten().any(|one| *one == name);
        let (input, output) = (device.supports_input(), device.supports_output());
        if (input || output) && !name.starts_with(NOTHING) && !cards.iter().any(|card| card.name == name) {
            cards.push(DeviceInfo { name, input, output, default });
        }
    }
    cards.sort_by_key(|card| !card.default);
    if cards.is_empty() { Err(DeviceError::None) } else { Ok(cards) }
}

fn find(host: &cpal::Host, name: Option<&str>, direction: &'static str) -> Result<Option<Device>, DeviceError> {
    let input = direction == "input";
    let Some(wanted) = name else {
        // Enumeration opens every card there is; the default one needs none of it.
        return Ok(if input { host.default_input_device() } else { host.default_output_device() });
    };
    let unknown = || DeviceError::Unknown { direction, name: wanted.to_owned() };
    let lower = wanted.to_lowercase();
    let mut found = host.devices().map_err(|_| unknown())?.filter(|device| {
        let fits = name_of(device).to_lowercase().contains(&lower);
        fits && if input { device.supports_input() } else { device.supports_output() }
    });
    found.next().map(Some).ok_or_else(unknown)
}

fn name_of(device: &Device) -> String {
    device.description().map_or_else(|_| "sound card".to_owned(), |description| description.name().to_owned())
}

/// 48 kHz if the card does it, else what it likes best.
fn choose(configs: impl Iterator<Item = cpal::SupportedStreamConfigRange>) -> Option<(StreamConfig, SampleFormat)> {
    let format_rank = |format: SampleFormat| match format {
        SampleFormat::I16 => 0,
        SampleFormat::F32 => 1,
        _ => 2,
    };
    configs
        .filter(|range| format_rank(range.sample_format()) < 2)
        .map(|range| {
            let rate = RATE.clamp(range.min_sample_rate(), range.max_sample_rate());
            let buffer_size = BufferSize::Fixed(PERIOD_FRAMES * rate / RATE);
            let config = StreamConfig { channels: range.channels(), sample_rate: rate, buffer_size };
            (config, range.sample_format())
        })
        .min_by_key(|(config, format)| (config.sample_rate != RATE, config.channels > 2, format_rank(*format)))
}

fn unsupported() -> cpal::Error {
    cpal::Error::with_message(cpal::ErrorKind::UnsupportedConfig, "it has no 16 bit or float format")
}

type Opened<T> = Result<(T, Box<dyn Send>, u32), cpal::Error>;

fn open_input(
    device: &Device,
    faults: &SyncSender<String>,
    wake: Arc<dyn Fn() + Send + Sync>,
) -> Opened<ring::FrameReader> {
    let (config, format) = choose(device.supported_input_configs()?).ok_or_else(unsupported)?;
    let (capture, reader) = ring::microphone();
    let mut inlet = Inlet { capture, converter: Converter::new(config.sample_rate, RATE), unread: 0, wake };
    let channels = usize::from(config.channels.max(1));
    let on_error = report("microphone", faults.clone());
    let stream = if format == SampleFormat::I16 {
        let callback = move |data: &[i16], _: &cpal::InputCallbackInfo| {
            inlet.take(data.chunks_exact(channels).map(|frame| mono(frame.iter().map(|s| sample::to_f32(*s)))));
        };
        device.build_input_stream(config, callback, on_error, Some(OPEN_LIMIT))?
    } else {
        let callback = move |data: &[f32], _: &cpal::InputCallbackInfo| {
            inlet.take(data.chunks_exact(channels).map(|frame| mono(frame.iter().copied())));
        };
        device.build_input_stream(config, callback, on_error, Some(OPEN_LIMIT))?
    };
    stream.play()?;
    Ok((reader, Box::new(stream), config.sample_rate))
}

fn open_output(device: &Device, faults: &SyncSender<String>) -> Opened<ring::FrameWriter> {
    let (config, format) = choose(device.supported_output_configs()?).ok_or_else(unsupported)?;
    let (writer, playback) = ring::loudspeaker();
    let mut outlet = Outlet { playback, converter: Converter::new(RATE, config.sample_rate) };
    let channels = usize::from(config.channels.max(1));
    let on_error = report("loudspeaker", faults.clone());
    let stream = if format == SampleFormat::I16 {
        let callback = move |data: &mut [i16], _: &cpal::OutputCallbackInfo| {
            outlet.fill(data.chunks_exact_mut(channels), |frame, value| frame.fill(sample::to_i16(value)));
        };
        device.build_output_stream(config, callback, on_error, Some(OPEN_LIMIT))?
    } else {
        let callback = move |data: &mut [f32], _: &cpal::OutputCallbackInfo| {
            outlet.fill(data.chunks_exact_mut(channels), <[f32]>::fill);
        };
        device.build_output_stream(config, callback, on_error, Some(OPEN_LIMIT))?
    };
    stream.play()?;
    Ok((writer, Box::new(stream), config.sample_rate))
}

struct Inlet {
    capture: Capture,
    converter: Converter,
    /// Samples since the loop was last woken.
    unread: usize,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Inlet {
    fn take(&mut self, samples: impl Iterator<Item = f32>) {
        for value in samples {
            self.converter.push(value);
        }
        while let Some(value) = self.converter.pop() {
            self.capture.push(sample::to_i16(value));
            self.unread += 1;
        }
        // Some hosts call back every half millisecond; the loop only wants to hear of whole frames.
        if self.unread >= ring::FRAME_SAMPLES {
            self.unread %= ring::FRAME_SAMPLES;
            (self.wake)();
        }
    }
}

struct Outlet {
    playback: Playback,
    converter: Converter,
}

impl Outlet {
    fn fill<'a, T: 'a>(&mut self, frames: impl Iterator<Item = &'a mut [T]>, mut put: impl FnMut(&mut [T], f32)) {
        self.playback.begin();
        for frame in frames {
            let value = loop {
                if let Some(value) = self.converter.pop() {
                    break value;
                }
                self.converter.push(sample::to_f32(self.playback.next_sample()));
            };
            put(frame, value);
        }
    }
}

fn mono(channels: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = sample::len(channels.len().max(1));
    channels.sum::<f32>() / count
}

/// Called from the card's thread, possibly many times a second: the first few reach the loop.
fn report(what: &'static str, faults: SyncSender<String>) -> impl FnMut(cpal::Error) + Send + 'static {
    move |error| {
        let text = match error.kind() {
            // The card caught up by itself, or goes on somewhere else.
            cpal::ErrorKind::Xrun | cpal::ErrorKind::DeviceChanged | cpal::ErrorKind::RealtimeDenied => return,
            cpal::ErrorKind::DeviceNotAvailable => format!("the {what} was unplugged"),
            _ => format!("the {what} stopped: {error}"),
        };
        let _ = faults.try_send(text);
    }
}
