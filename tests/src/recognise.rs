//! Is this recording of that sentence? Log-mel spectra, correlated window by window.
//!
//! The reference is cut into windows of one second. Each finds its best alignment anywhere in the recording, so that delay,
//! gaps and drift do not matter; the verdict is the median of the windows' correlations. What is compared is how each band
//! changes over the window (its mean is taken away), because the mean colour of one voice is the same in all sentences.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// Samples per second of both signals.
pub const RATE: usize = 48_000;

const HOP: usize = RATE / 100;
const FRAME: usize = 2048;
const BANDS: usize = 32;
/// Frames per window: one second.
const WINDOW: usize = 100;
/// A new window starts each half second.
const WINDOW_HOP: usize = 50;
/// Bands from here to there, in Hz: what a voice uses and every codec carries.
const LOWEST_HZ: f64 = 150.0;
const HIGHEST_HZ: f64 = 3800.0;
/// Below the loudest cell by more than this many decades is silence.
const DECADES: f64 = 3.5;

/// One row per 10 ms, one column per band, in decades.
type Spectrum = Vec<[f64; BANDS]>;

/// The median over the reference's windows of the best correlation in the recording, `-1.0..=1.0`.
/// 0 if the reference is shorter than a second, or the recording is.
pub fn similarity(reference: &[i16], recording: &[i16]) -> f64 {
    let (reference, recording) = (log_mel(reference), log_mel(recording));
    let mut best: Vec<f64> = speech_windows(&reference).map(|window| best_alignment(window, &recording)).collect();
    best.sort_by(f64::total_cmp);
    best.get(best.len() / 2).copied().unwrap_or(0.0)
}

/// Windows at least half of which is not silence.
fn speech_windows(spectrum: &Spectrum) -> impl Iterator<Item = &[[f64; BANDS]]> {
    let floor = spectrum.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let loud = move |row: &[f64; BANDS]| row.iter().copied().fold(floor, f64::max) > floor + 1.0;
    let starts = (0..spectrum.len().saturating_sub(WINDOW - 1)).step_by(WINDOW_HOP);
    let windows = starts.filter_map(|start| spectrum.get(start..start + WINDOW));
    windows.filter(move |window| window.iter().filter(|row| loud(row)).count() * 2 >= WINDOW)
}

fn best_alignment(window: &[[f64; BANDS]], recording: &Spectrum) -> f64 {
    let wanted = centred(window);
    let windows = recording.windows(WINDOW).map(|candidate| correlation(&wanted, &centred(candidate)));
    windows.fold(0.0, f64::max)
}

/// The window with each band's mean taken away, scaled to length 1.
fn centred(window: &[[f64; BANDS]]) -> Vec<f64> {
    let mut means = [0.0; BANDS];
    for row in window {
        for (mean, value) in means.iter_mut().zip(row) {
            *mean += value / 100.0;
        }
    }
    let mut flat: Vec<f64> = window.iter().flat_map(|row| row.iter().zip(&means).map(|(v, m)| v - m)).collect();
    let length = flat.iter().map(|v| v * v).sum::<f64>().sqrt();
    if length > 1e-9 {
        flat.iter_mut().for_each(|v| *v /= length);
    }
    flat
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn mel(hz: f64) -> f64 {
    2595.0 * (1.0 + hz / 700.0).log10()
}

/// Energies of triangular bands, evenly spaced on the mel scale, as decades above the floor.
fn log_mel(samples: &[i16]) -> Spectrum {
    let fft = FftPlanner::new().plan_fft_forward(FRAME);
    let edges: Vec<f64> = (0..BANDS + 2)
        .map(|n| {
            let at = mel(LOWEST_HZ) + (mel(HIGHEST_HZ) - mel(LOWEST_HZ)) * n as f64 / (BANDS + 1) as f64;
            700.0 * (10f64.powf(at / 2595.0) - 1.0) * FRAME as f64 / RATE as f64
        })
        .collect();
    let hann = |n: usize| 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / FRAME as f64).cos();
    let mut spectrum: Spectrum = Vec::new();
    for start in (0..samples.len().saturating_sub(FRAME - 1)).step_by(HOP) {
        let frame = samples[start..start + FRAME].iter().enumerate();
        let mut buffer: Vec<Complex<f64>> = frame.map(|(n, s)| Complex::new(f64::from(*s) * hann(n), 0.0)).collect();
        fft.process(&mut buffer);
        let mut row = [0.0; BANDS];
        for (band, energy) in row.iter_mut().enumerate() {
            let (low, middle, high) = (edges[band], edges[band + 1], edges[band + 2]);
            for (bin, value) in buffer.iter().enumerate().take(high.ceil() as usize).skip(low.floor() as usize) {
                let at = bin as f64;
                let weight = ((at - low) / (middle - low)).min((high - at) / (high - middle)).max(0.0);
                *energy += weight * value.norm_sqr();
            }
        }
        spectrum.push(row);
    }
    let peak = spectrum.iter().flatten().copied().fold(1.0, f64::max);
    for value in spectrum.iter_mut().flatten() {
        *value = (*value / peak).max(10f64.powf(-DECADES)).log10();
    }
    spectrum
}

#[cfg(test)]
mod recognise_tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    /// Syllables of three partials whose pitches and lengths come from the seed: as different as two sentences.
    fn sentence(seed: u64) -> Vec<i16> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut samples = Vec::new();
        while samples.len() < RATE * 4 {
            let length = rng.random_range(RATE / 12..RATE / 4);
            let partials: Vec<f64> = (0..3).map(|_| rng.random_range(200.0..3500.0)).collect();
            samples.extend((0..length).map(|n| {
                let envelope = (std::f64::consts::PI * n as f64 / length as f64).sin();
                let wave = |hz: &f64| (std::f64::consts::TAU * hz * n as f64 / RATE as f64).sin();
                (partials.iter().map(wave).sum::<f64>() * envelope * 6000.0) as i16
            }));
            samples.extend(std::iter::repeat_n(0, rng.random_range(RATE / 50..RATE / 8)));
        }
        samples
    }

    #[test]
    fn a_late_quiet_and_noisy_recording_is_recognised_and_another_sentence_is_not() {
        let (said, other) = (sentence(1), sentence(2));
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut recording = vec![0i16; RATE * 3 / 4];
        recording.extend(said.iter().map(|s| s / 4 + rng.random_range(-20..20)));
        let (same, different) = (similarity(&said, &recording), similarity(&other, &recording));
        assert!(same >= 0.9, "{same}");
        assert!(different < 0.5, "{different}");
        assert!(similarity(&said, &vec![0; RATE * 5]) < 0.1, "silence is no sentence");
    }
}
