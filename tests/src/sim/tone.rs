//! How loud one pitch is in a piece of sound (Goertzel's algorithm).

/// Amplitude of the component at `hz` in 48 kHz samples, in units of a sample.
pub fn level_at(samples: &[i16], hz: f32) -> f32 {
    if samples.is_empty() {
        return 0.0;
    }
    let omega = std::f64::consts::TAU * f64::from(hz) / 48_000.0;
    let coefficient = 2.0 * omega.cos();
    let (mut previous, mut before) = (0.0_f64, 0.0_f64);
    for sample in samples {
        let next = f64::from(*sample) + coefficient * previous - before;
        (before, previous) = (previous, next);
    }
    let power = previous * previous + before * before - coefficient * previous * before;
    (2.0 * power.max(0.0).sqrt() / samples.len() as f64) as f32
}

#[cfg(test)]
mod tone_tests {
    use super::*;

    #[test]
    fn a_tone_is_found_at_its_pitch_with_its_amplitude() {
        let tone: Vec<i16> = (0..48_000)
            .map(|n| (8000.0 * (std::f64::consts::TAU * 440.0 * f64::from(n) / 48_000.0).sin()) as i16)
            .collect();
        assert!((level_at(&tone, 440.0) - 8000.0).abs() < 10.0);
        assert!(level_at(&tone, 1000.0) < 10.0);
        assert_eq!(level_at(&[], 440.0), 0.0);
    }
}
