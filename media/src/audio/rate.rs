//! One sample in, one sample out, at two rates: between a card that does not do 48 kHz and the inside.

use std::collections::VecDeque;

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler};

/// Input frames per turn of the resampler: 10 ms at 48 kHz, the most that the conversion delays sound by itself.
const CHUNK_FRAMES: usize = 480;

/// Converts a mono stream from one rate to another; equal rates pass through.
pub(super) struct Converter {
    resampler: Option<Fft<f32>>,
    waiting: Vec<f32>,
    turn: Vec<f32>,
    ready: VecDeque<f32>,
}

impl std::fmt::Debug for Converter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Converter({} ready)", self.ready.len())
    }
}

impl Converter {
    /// From `from` Hz to `to` Hz.
    pub(super) fn new(from: u32, to: u32) -> Self {
        let (from, to) = (usize::try_from(from).unwrap_or(1).max(1), usize::try_from(to).unwrap_or(1).max(1));
        let resampler =
            if from == to { None } else { Fft::<f32>::new(from, to, CHUNK_FRAMES, 1, FixedSync::Both).ok() };
        let room = resampler.as_ref().map_or(0, Resampler::output_frames_max);
        Self { resampler, waiting: Vec::new(), turn: vec![0.0; room], ready: VecDeque::new() }
    }

    /// Takes one sample.
    pub(super) fn push(&mut self, sample: f32) {
        let Some(resampler) = &mut self.resampler else {
            self.ready.push_back(sample);
            return;
        };
        self.waiting.push(sample);
        let needed = resampler.input_frames_next();
        if self.waiting.len() < needed {
            return;
        }
        let room = self.turn.len();
        let Ok(input) = InterleavedSlice::new(&self.waiting, 1, needed) else { return };
        let Ok(mut output) = InterleavedSlice::new_mut(&mut self.turn, 1, room) else { return };
        let made = resampler.process_into_buffer(&input, &mut output, None).map_or(0, |(_, made)| made);
        self.waiting.clear();
        self.ready.extend(self.turn.iter().take(made));
    }

    /// Gives one sample, if one is there.
    pub(super) fn pop(&mut self) -> Option<f32> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod rate_tests {
    use super::*;

    /// Dominant frequency by counting upward zero crossings.
    fn frequency(samples: &[f32], rate: f32) -> f32 {
        let rises = samples.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
        f32::from(u16::try_from(rises).unwrap()) * rate / f32::from(u16::try_from(samples.len()).unwrap())
    }

    #[test]
    fn a_tone_keeps_its_pitch_and_length_at_every_rate() {
        for (from, to) in [(44_100u32, 48_000u32), (48_000, 44_100), (8_000, 48_000), (48_000, 48_000)] {
            let mut converter = Converter::new(from, to);
            let step = 440.0 * std::f32::consts::TAU / f32::from(u16::try_from(from).unwrap());
            let mut out = Vec::new();
            for n in 0..from {
                converter.push((f32::from(u16::try_from(n).unwrap()) * step).sin());
                out.extend(std::iter::from_fn(|| converter.pop()));
            }
            let length = f32::from(u16::try_from(out.len()).unwrap()) / f32::from(u16::try_from(to).unwrap());
            assert!((0.95..1.0001).contains(&length), "{from} to {to}: {length} s");
            let settled = &out[out.len() / 4..];
            let pitch = frequency(settled, f32::from(u16::try_from(to).unwrap()));
            assert!((pitch - 440.0).abs() < 4.0, "{from} to {to}: {pitch} Hz");
        }
    }
}
