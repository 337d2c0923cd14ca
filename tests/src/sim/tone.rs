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

/// Number of different pieces of [`counting`].
const COUNTS: usize = 12;
/// 20 ms of 48 kHz mono.
const PIECE: usize = 960;

fn count_hz(count: usize) -> f32 {
    500.0 + 250.0 * count as f32
}

/// Sound in which each 20 ms have a pitch of their own, in turn and without any quiet place: a piece that is missing or
/// doubled shows.
pub fn counting() -> std::sync::Arc<[i16]> {
    let mut phase = 0.0_f32;
    let sample = |at: usize| {
        phase += std::f32::consts::TAU * count_hz(at / PIECE % COUNTS) / 48_000.0;
        (phase.sin() * 9000.0) as i16
    };
    (0..COUNTS * PIECE).map(sample).collect()
}

/// The pieces of a counting tone in the order heard, at the best alignment.
pub fn count(heard: &[i16]) -> Vec<usize> {
    let read = |offset: usize, pieces: usize| -> Vec<usize> {
        let middles = heard[offset..].chunks_exact(PIECE).take(pieces).map(|piece| &piece[180..780]);
        let loudest = |piece: &[i16]| {
            let levels = (0..COUNTS).map(|count| (count, level_at(piece, count_hz(count))));
            levels.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(count, _)| count)
        };
        middles.map(loudest).collect()
    };
    let steps = |numbers: &[usize]| numbers.windows(2).filter(|pair| follows(pair[0], pair[1])).count();
    let best = (0..PIECE).step_by(120).max_by_key(|offset| steps(&read(*offset, 40))).expect("offsets");
    read(best, usize::MAX)
}

/// Whether `next` is the piece after `before`.
pub fn follows(before: usize, next: usize) -> bool {
    (before + 1) % COUNTS == next
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

    #[test]
    fn a_missing_and_a_doubled_piece_show_in_a_counting_tone() {
        let whole: Vec<i16> = counting().repeat(6);
        let breaks = |sound: &[i16]| count(sound).windows(2).filter(|pair| !follows(pair[0], pair[1])).count();
        assert_eq!(breaks(&whole), 0);
        assert_eq!(breaks(&[&whole[..PIECE * 40], &whole[PIECE * 41..]].concat()), 1);
        assert_eq!(breaks(&[&whole[..PIECE * 40], &whole[PIECE * 39..]].concat()), 1);
    }
}
