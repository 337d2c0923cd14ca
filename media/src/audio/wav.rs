//! WAV files (RIFF/WAVE, PCM and float): read at any rate and channel count, written at 48 kHz in 16 bits.

use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

use crate::codec::resample;
use crate::{Frame, SAMPLE_RATE_HZ, sample};

/// Longest recording that is read: it is held in memory.
const SAMPLES_MAX: usize = 48_000 * 60 * 60; // an hour at 48 kHz: 345 MB on the way in as floats

/// Why a file cannot be read or written: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum WavError {
    /// Not there, or not readable.
    #[error("cannot read {path}: {cause}; check the path and its permissions")]
    Open {
        /// The file.
        path: PathBuf,
        /// From the system.
        cause: std::io::Error,
    },
    /// Not a WAV file that we understand.
    #[error(
        "{path} is no WAV file with PCM or float samples: {cause}; convert it, for example: ffmpeg -i IN -c:a pcm_s16le OUT.wav"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Cannot be made or written to: no permission, no space.
    #[error("cannot write {path}: {cause}; check permissions and free space")]
    Write {
        /// The file.
        path: PathBuf,
        /// From the system.
        cause: String,
    },
}

/// Reads a file as 48 kHz mono; several channels are averaged.
///
/// # Errors
///
/// [`WavError::Open`], [`WavError::Format`].
pub fn read(path: &Path) -> Result<Vec<i16>, WavError> {
    let file = std::fs::File::open(path).map_err(|cause| WavError::Open { path: path.to_owned(), cause })?;
    read_from(std::io::BufReader::new(file)).map_err(|cause| WavError::Format { path: path.to_owned(), cause })
}

/// Reads as [`read`], from anything.
///
/// # Errors
///
/// What is wrong, in words.
pub fn read_from(source: impl Read) -> Result<Vec<i16>, String> {
    let mut reader = WavReader::new(source).map_err(|error| error.to_string())?;
    let spec = reader.spec();
    let channels = usize::from(spec.channels.max(1));
    let values: Result<Vec<f32>, hound::Error> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().take(SAMPLES_MAX * channels).collect(),
        SampleFormat::Int => {
            let scale = 1.0 / 2.0_f32.powi(i32::from(spec.bits_per_sample.clamp(1, 32)) - 1);
            let samples = reader.samples::<i32>().take(SAMPLES_MAX * channels);
            samples.map(|value| value.map(|value| sample::signed(i64::from(value)) * scale)).collect()
        }
    };
    let values = values.map_err(|error| error.to_string())?;
    let mono: Vec<f32> =
        values.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / sample::len(channels)).collect();
    resample::to_48_khz(&mono, spec.sample_rate).ok_or_else(|| format!("a rate of {} Hz", spec.sample_rate))
}

/// Writes 48 kHz, 16 bits, one or two channels.
pub struct Writer<W: Write + Seek> {
    path: PathBuf,
    writer: WavWriter<W>,
}

impl<W: Write + Seek> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Writer<std::io::BufWriter<std::fs::File>> {
    /// Makes the file, in place of one that is there.
    ///
    /// # Errors
    ///
    /// [`WavError::Write`].
    pub fn create(path: &Path, channels: Channels) -> Result<Self, WavError> {
        let refused = |cause: String| WavError::Write { path: path.to_owned(), cause };
        let file = std::fs::File::create(path).map_err(|error| refused(error.to_string()))?;
        Self::new(path, std::io::BufWriter::new(file), channels)
    }
}

/// What a recording holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// The peer.
    Mono,
    /// Left me, right the peer.
    Stereo,
}

impl<W: Write + Seek> Writer<W> {
    /// Writes into anything; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`WavError::Write`].
    pub fn new(path: &Path, target: W, channels: Channels) -> Result<Self, WavError> {
        let channels = match channels {
            Channels::Mono => 1,
            Channels::Stereo => 2,
        };
        let spec =
            WavSpec { channels, sample_rate: SAMPLE_RATE_HZ, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let writer = WavWriter::new(target, spec)
            .map_err(|error| WavError::Write { path: path.to_owned(), cause: error.to_string() })?;
        Ok(Self { path: path.to_owned(), writer })
    }

    /// Appends a tick. `said` is left out in a mono recording.
    ///
    /// # Errors
    ///
    /// [`WavError::Write`], for example when the disk is full.
    pub fn write(&mut self, said: &Frame, heard: &Frame) -> Result<(), WavError> {
        let is_stereo = self.writer.spec().channels == 2;
        for (left, right) in said.iter().zip(heard) {
            let written = if is_stereo { self.writer.write_sample(*left) } else { Ok(()) };
            written.and_then(|()| self.writer.write_sample(*right)).map_err(|error| self.refused(&error))?;
        }
        Ok(())
    }

    /// Brings header and samples to the disk, so that the file is complete if the program ends now.
    ///
    /// # Errors
    ///
    /// [`WavError::Write`].
    pub fn flush(&mut self) -> Result<(), WavError> {
        self.writer.flush().map_err(|error| self.refused(&error))
    }

    /// Ends the recording.
    ///
    /// # Errors
    ///
    /// [`WavError::Write`].
    pub fn finish(self) -> Result<(), WavError> {
        let Self { path, writer } = self;
        writer.finalize().map_err(|error| WavError::Write { path, cause: error.to_string() })
    }

    fn refused(&self, error: &hound::Error) -> WavError {
        WavError::Write { path: self.path.clone(), cause: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tone::Sine;
    use std::io::Cursor;

    fn wav(spec: WavSpec, mut put: impl FnMut(&mut WavWriter<&mut Cursor<Vec<u8>>>)) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut file, spec).unwrap();
        put(&mut writer);
        writer.finalize().unwrap();
        file.into_inner()
    }

    #[test]
    fn files_of_every_depth_and_channel_count_are_read_at_their_level() {
        for (bits, format) in
            [(8, SampleFormat::Int), (16, SampleFormat::Int), (24, SampleFormat::Int), (32, SampleFormat::Float)]
        {
            let spec = WavSpec { channels: 2, sample_rate: 48_000, bits_per_sample: bits, sample_format: format };
            let bytes = wav(spec, |writer| {
                for _ in 0..2_000 {
                    if format == SampleFormat::Float {
                        writer.write_sample(0.25_f32).unwrap();
                    } else {
                        writer.write_sample(1_i32 << (bits - 3)).unwrap();
                    }
                }
            });
            assert_eq!(read_from(Cursor::new(bytes)).unwrap(), vec![8_192; 1_000], "case: {bits} bits");
        }
    }

    #[test]
    fn a_stereo_recording_has_me_on_the_left_and_the_peer_on_the_right() {
        let mut file = Cursor::new(Vec::new());
        let mut writer = Writer::new(Path::new("x.wav"), &mut file, Channels::Stereo).unwrap();
        writer.write(&[100; 960], &[300; 960]).unwrap();
        writer.finish().unwrap();
        let mut reader = WavReader::new(Cursor::new(file.get_ref().clone())).unwrap();
        assert_eq!((reader.spec().channels, reader.spec().sample_rate), (2, 48_000));
        assert_eq!(reader.samples::<i16>().take(2).collect::<Result<Vec<_>, _>>().unwrap(), [100, 300]);
        assert_eq!(read_from(Cursor::new(file.into_inner())).unwrap(), vec![200; 960]);
    }

    #[test]
    fn an_8_khz_file_plays_at_its_pitch() {
        let spec = WavSpec { channels: 1, sample_rate: 8_000, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let mut sine = Sine::new(6_000.0, -12.0); // 1 kHz when read at a sixth of the rate
        let bytes = wav(spec, |writer| (0..8_000).for_each(|_| writer.write_sample(sine.next_sample()).unwrap()));
        let sound = read_from(Cursor::new(bytes)).unwrap();
        let crossings = sound.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        assert_eq!(sound.len(), 48_000);
        assert!((998..=1_001).contains(&crossings), "{crossings}");
    }

    #[test]
    fn errors_name_the_file_and_a_remedy() {
        let missing = read(Path::new("/nonexistent/a.wav")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/a.wav") && missing.contains("check the path"), "{missing}");
        assert!(read_from(Cursor::new(b"RIFFnonsense".to_vec())).is_err());
        let unwritable = Writer::create(Path::new("/nonexistent/b.wav"), Channels::Mono).unwrap_err().to_string();
        assert!(unwritable.contains("/nonexistent/b.wav"), "{unwritable}");
    }
}
