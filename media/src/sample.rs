//! Casts between sample formats and numbers, in one place because Rust has no checked form of them.
#![expect(clippy::as_conversions, reason = "float casts saturate and have no From; each function says its range")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "as above")]

use std::time::Duration;

/// Full scale `[-1, 1]` to `i16`, saturating.
pub fn to_i16(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16
}

/// A value in units of `i16` to `i16`, rounded, saturating.
pub fn round_i16(value: f32) -> i16 {
    value.round() as i16
}

/// `i16` to full scale `[-1, 1)`.
pub fn to_f32(sample: i16) -> f32 {
    f32::from(sample) / 32_768.0
}

/// Milliseconds with their fraction.
pub fn ms(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1_000.0
}

/// A count as a float; exact up to 2^24.
pub fn count(value: u64) -> f32 {
    value as f32
}

/// A length as a float; exact up to 2^24.
pub fn len(value: usize) -> f32 {
    value as f32
}

/// A signed number of samples as a float; exact up to 2^24.
pub fn signed(value: i64) -> f32 {
    value as f32
}

/// A float to the nearest unsigned number; negative and NaN give 0.
pub fn round_u32(value: f32) -> u32 {
    value.round() as u32
}

/// A float to the nearest length; negative and NaN give 0.
pub fn round_usize(value: f32) -> usize {
    value.round() as usize
}

/// Root mean square in dB relative to full scale (a square wave at full scale is 0 dB), at least -96.
pub fn level_dbfs(samples: &[i16]) -> f32 {
    let squares: i64 = samples.iter().map(|sample| i64::from(*sample) * i64::from(*sample)).sum();
    if squares == 0 {
        return -96.0;
    }
    let mean = squares as f32 / len(samples.len());
    (10.0 * (mean / (32_768.0 * 32_768.0)).log10()).max(-96.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_saturate_instead_of_wrapping() {
        assert_eq!((to_i16(2.0), to_i16(-2.0), to_i16(f32::NAN), round_i16(1e9)), (32_767, -32_768, 0, 32_767));
        assert_eq!((round_u32(-1.0), round_usize(1.6)), (0, 2));
    }

    #[test]
    fn a_full_scale_square_has_zero_dbfs_and_silence_minus_96() {
        assert!(level_dbfs(&[-32_768; 100]).abs() < 0.001);
        assert!((level_dbfs(&[16_384; 100]) + 6.02).abs() < 0.01);
        assert_eq!((level_dbfs(&[0; 100]), level_dbfs(&[])), (-96.0, -96.0));
    }
}
