//! Between 8 kHz and 48 kHz in blocks of 10 ms, and from any rate for whole recordings, over `rubato`.

use std::fmt;

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use crate::{FRAME_SAMPLES, Frame, SAMPLE_RATE_HZ, sample};

/// 10 ms at 8 kHz: the greatest packet time that divides all usual ones.
const NARROW: usize = 80;
/// 10 ms at 48 kHz.
const WIDE: usize = 480;
const NARROW_HZ: usize = 8_000;
const WIDE_HZ: usize = 48_000;

/// From 48 kHz to 8 kHz, frame by frame. Delays by 5 ms.
pub struct Down {
    resampler: Option<Fft<f32>>,
    output: Vec<i16>,
}

/// From 8 kHz to 48 kHz, in any portions. Delays by 5 ms.
pub struct Up {
    resampler: Option<Fft<f32>>,
    /// Less than 10 ms that wait for more.
    waiting: Vec<f32>,
}

impl fmt::Debug for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Down").finish_non_exhaustive()
    }
}

impl fmt::Debug for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Up").finish_non_exhaustive()
    }
}

impl Default for Down {
    fn default() -> Self {
        Self::new()
    }
}

impl Down {
    /// Starts in silence.
    pub fn new() -> Self {
        Self { resampler: fixed(WIDE_HZ, NARROW_HZ, WIDE), output: Vec::with_capacity(2 * NARROW) }
    }

    /// 160 samples at 8 kHz.
    pub fn convert(&mut self, frame: &Frame) -> &[i16] {
        self.output.clear();
        for block in frame.chunks_exact(WIDE) {
            let block: Vec<f32> = block.iter().copied().map(sample::to_f32).collect();
            let mut narrow = [0.0; NARROW];
            convert_block(self.resampler.as_mut(), &block, &mut narrow);
            self.output.extend(narrow.into_iter().map(sample::to_i16));
        }
        &self.output
    }
}

impl Default for Up {
    fn default() -> Self {
        Self::new()
    }
}

impl Up {
    /// Starts in silence.
    pub fn new() -> Self {
        Self { resampler: fixed(NARROW_HZ, WIDE_HZ, NARROW), waiting: Vec::with_capacity(FRAME_SAMPLES) }
    }

    /// Appends six times as many samples, but for a remainder below 10 ms that is kept for the next call.
    pub fn convert(&mut self, samples: impl IntoIterator<Item = i16>, sound: &mut Vec<i16>) {
        self.waiting.extend(samples.into_iter().map(sample::to_f32));
        let whole = self.waiting.len() - self.waiting.len() % NARROW;
        for block in self.waiting.chunks_exact(NARROW) {
            let mut wide = [0.0; WIDE];
            convert_block(self.resampler.as_mut(), block, &mut wide);
            sound.extend(wide.into_iter().map(sample::to_i16));
        }
        self.waiting.drain(..whole);
    }
}

/// A whole recording at 48 kHz; `None` if the rate is not convertible (0, or absurd).
pub fn to_48_khz(samples: &[f32], rate_hz: u32) -> Option<Vec<i16>> {
    if rate_hz == SAMPLE_RATE_HZ || samples.is_empty() {
        return Some(samples.iter().copied().map(sample::to_i16).collect());
    }
    let rate = usize::try_from(rate_hz).ok().filter(|rate| (1_000..=768_000).contains(rate))?;
    let mut resampler = Fft::<f32>::new(rate, WIDE_HZ, 1_024, 1, FixedSync::Both).ok()?;
    let input = InterleavedSlice::new(samples, 1, samples.len()).ok()?;
    let mut output = vec![0.0; resampler.process_all_needed_output_len(samples.len())];
    let length = output.len();
    let mut adapter = InterleavedSlice::new_mut(&mut output, 1, length).ok()?;
    let (_, produced) = resampler.process_all_into_buffer(&input, &mut adapter, samples.len(), None).ok()?;
    // The library rounds a floating-point ratio up, which may give one sample more than there is sound for.
    let exact = (samples.len() * WIDE_HZ).div_ceil(rate).min(produced);
    Some(output.into_iter().take(exact).map(sample::to_i16).collect())
}

fn fixed(from_hz: usize, to_hz: usize, block: usize) -> Option<Fft<f32>> {
    let window = WindowFunction::BlackmanHarris2;
    Fft::new_custom(from_hz, to_hz, block, 1, 1, window, FixedSync::Both).ok()
}

/// Leaves silence if the library refuses, which it cannot with fixed rates and full blocks.
fn convert_block(resampler: Option<&mut Fft<f32>>, input: &[f32], output: &mut [f32]) {
    let frames = output.len();
    let adapters = (InterleavedSlice::new(input, 1, input.len()), InterleavedSlice::new_mut(output, 1, frames));
    if let (Some(resampler), (Ok(input), Ok(mut output))) = (resampler, adapters) {
        let converted = resampler.process_into_buffer(&input, &mut output, None);
        debug_assert!(converted.is_ok(), "fixed-rate block: {converted:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tone::Sine;

    #[test]
    fn a_tone_goes_down_to_8_khz_and_up_again_at_its_level() {
        let (mut down, mut up, mut sine) = (Down::new(), Up::new(), Sine::new(1_000.0, -12.0));
        let mut heard = Vec::new();
        for _ in 0..25 {
            let narrow = down.convert(&sine.frame()).to_vec();
            assert_eq!(narrow.len(), 160);
            up.convert(narrow, &mut heard);
        }
        assert_eq!(heard.len(), 25 * FRAME_SAMPLES);
        let level = sample::level_dbfs(&heard[4_800..]);
        assert!((level + 12.0).abs() < 0.3, "{level}");
        let crossings = heard[4_800..].windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        assert!((399..=401).contains(&crossings), "{crossings} in 0.4 s of 1 kHz");
    }

    #[test]
    fn odd_portions_lose_no_sample() {
        let mut up = Up::new();
        let mut sound = Vec::new();
        for portion in [1_usize, 79, 80, 33, 240, 47] {
            up.convert(vec![100; portion], &mut sound);
        }
        assert_eq!(sound.len(), 480 * 6);
    }

    #[test]
    fn recordings_of_any_rate_keep_their_duration_and_level() {
        for rate_hz in [8_000_u32, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000] {
            let step = 2_764.6 / sample::count(u64::from(rate_hz));
            let input: Vec<f32> = (0..rate_hz).map(|at| (sample::count(u64::from(at)) * step).sin() * 0.5).collect();
            let output = to_48_khz(&input, rate_hz).unwrap();
            assert_eq!(output.len(), 48_000, "case: {rate_hz}");
            let level = sample::level_dbfs(&output[4_800..43_200]);
            assert!((level + 9.03).abs() < 0.3, "case: {rate_hz}: {level}");
        }
        assert_eq!(to_48_khz(&[0.1], 3), None);
    }
}
