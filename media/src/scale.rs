//! Changing the duration of sound where nobody hears it: cutting or doubling 10 ms of a quiet place, or cutting one
//! period of a steady sound. Both sides of a cut are faded into each other.

use crate::sample;

/// Samples over which two sides of a cut are mixed: 2 ms.
const FADE: usize = 96;
/// Step of the search, and length of the pieces that must all be quiet: 2.5 ms.
const STEP: usize = 120;
/// Shortest period that is cut: 2.5 ms, a voice of 400 Hz.
const PERIOD_MIN: usize = 120;
/// Longest period that is cut: 12.5 ms, a voice of 80 Hz.
const PERIOD_MAX: usize = 600; // longer ones do not fit into one frame with their comparison
/// Samples compared to find the period, and mixed over the cut: 5 ms.
const COMPARED: usize = 240;
/// Every fourth sample is enough to find a period.
const COARSE: usize = 4;
/// How alike two periods must be.
const ALIKE: f32 = 0.5;

/// Follows how loud the sound is when it is loud, to know what is quiet beside it.
#[derive(Debug, Default)]
pub struct Loudness {
    rms: f32,
}

impl Loudness {
    /// Hears a frame.
    pub fn hear(&mut self, sound: &[i16]) {
        let rms = rms(sound);
        // Up within a few frames, down over several seconds: a pause between words does not count.
        let weight = if rms > self.rms { 0.3 } else { 0.004 };
        self.rms += (rms - self.rms) * weight;
    }

    /// RMS below which a place is quiet: 26 dB below the loud parts, but at most -40 dBFS and at least the noise of an
    /// idle channel.
    pub fn quiet(&self) -> f32 {
        (self.rms * 0.05).clamp(10.0, 328.0)
    }
}

/// Cuts `length` samples at a quiet place. Whether there was one.
pub fn cut_quiet(sound: &mut Vec<i16>, length: usize, quiet: f32) -> bool {
    let Some(at) = find_quiet(sound, length + FADE, quiet) else { return false };
    let (left, right) = (sound.get(at..at + FADE).map(<[i16]>::to_vec), sound.get(at + length..at + length + FADE));
    let (Some(left), Some(right)) = (left, right.map(<[i16]>::to_vec)) else { return false };
    sound.splice(at..at + length + FADE, mix(&left, &right));
    true
}

/// Doubles `length` samples at a quiet place. Whether there was one.
pub fn double_quiet(sound: &mut Vec<i16>, length: usize, quiet: f32) -> bool {
    let Some(at) = find_quiet(sound, length + FADE, quiet) else { return false };
    let Some(place) = sound.get(at..at + length + FADE).map(<[i16]>::to_vec) else { return false };
    let (start, rest) = place.split_at(FADE.min(place.len()));
    let mut repeated = mix(place.get(length..).unwrap_or_default(), start);
    repeated.extend_from_slice(rest);
    let inserted_at = at + length;
    sound.splice(inserted_at..inserted_at + FADE, repeated);
    true
}

/// Cuts one period of a steady sound at the beginning; gives its length, 0 if the sound has none.
pub fn cut_period(sound: &mut Vec<i16>) -> usize {
    let Some(reference) = sound.get(..COMPARED).map(<[i16]>::to_vec) else { return 0 };
    let mut best = (ALIKE, 0);
    for period in (PERIOD_MIN..=PERIOD_MAX).step_by(COARSE / 2) {
        let Some(shifted) = sound.get(period..period + COMPARED) else { break };
        let alike = likeness(&reference, shifted);
        if alike > best.0 {
            best = (alike, period);
        }
    }
    let (_, period) = best;
    if let Some(shifted) = sound.get(period..period + COMPARED).filter(|_| period > 0) {
        let mixed = mix(&reference, shifted);
        sound.splice(..period + COMPARED, mixed);
    }
    period
}

/// The first place of `length` samples whose every 2.5 ms are quiet.
fn find_quiet(sound: &[i16], length: usize, quiet: f32) -> Option<usize> {
    let mut start = 0;
    let mut at = 0;
    while let Some(piece) = sound.get(at..at + STEP) {
        at += STEP;
        if rms(piece) > quiet {
            start = at;
        } else if at - start >= length {
            return Some(start);
        }
    }
    None
}

/// Normalised correlation, -1..=1.
pub fn likeness(one: &[i16], other: &[i16]) -> f32 {
    let (mut product, mut one_energy, mut other_energy) = (0.0_f32, 1.0_f32, 1.0_f32);
    for (a, b) in one.iter().step_by(COARSE).zip(other.iter().step_by(COARSE)) {
        let (a, b) = (f32::from(*a), f32::from(*b));
        product += a * b;
        one_energy += a * a;
        other_energy += b * b;
    }
    product / (one_energy * other_energy).sqrt()
}

/// From one sound into the other, linearly.
pub fn mix(from: &[i16], to: &[i16]) -> Vec<i16> {
    let length = sample::len(from.len().max(1));
    let pairs = from.iter().zip(to).enumerate();
    pairs
        .map(|(at, (from, to))| {
            let share = sample::len(at) / length;
            sample::round_i16(f32::from(*from) * (1.0 - share) + f32::from(*to) * share)
        })
        .collect()
}

fn rms(sound: &[i16]) -> f32 {
    let energy: f32 = sound.iter().map(|value| f32::from(*value) * f32::from(*value)).sum();
    (energy / sample::len(sound.len().max(1))).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tone::Sine;

    fn loud_quiet_loud() -> Vec<i16> {
        let tone = Sine::new(500.0, -12.0).frame();
        [&tone[..300], &[0; 700][..], &tone[..300]].concat()
    }

    #[test]
    fn a_pause_is_shortened_and_what_is_loud_stays_sample_for_sample() {
        let mut sound = loud_quiet_loud();
        assert!(cut_quiet(&mut sound, 480, 100.0));
        assert_eq!(sound.len(), 820);
        assert_eq!((&sound[..300], &sound[520..]), (&loud_quiet_loud()[..300], &loud_quiet_loud()[1_000..]));
    }

    #[test]
    fn a_pause_is_lengthened_and_what_is_loud_stays_sample_for_sample() {
        let mut sound = loud_quiet_loud();
        assert!(double_quiet(&mut sound, 480, 100.0));
        assert_eq!(sound.len(), 1_780);
        assert_eq!((&sound[..300], &sound[1_480..]), (&loud_quiet_loud()[..300], &loud_quiet_loud()[1_000..]));
    }

    #[test]
    fn a_steady_tone_has_no_quiet_place() {
        let mut sine = Sine::new(500.0, -12.0);
        let mut loudness = Loudness::default();
        (0..20).for_each(|_| loudness.hear(&sine.frame()));
        let mut sound = sine.frame().to_vec();
        assert!(!cut_quiet(&mut sound, 480, loudness.quiet()) && !double_quiet(&mut sound, 480, loudness.quiet()));
        assert_eq!(sound.len(), 960);
    }

    #[test]
    fn a_period_is_cut_without_a_step_in_the_wave() {
        let mut sound = Sine::new(300.0, -12.0).frame().to_vec();
        let steepest = sound.windows(2).map(|pair| (pair[1] - pair[0]).abs()).max().unwrap();
        let cut = cut_period(&mut sound);
        assert!(cut % 160 <= 4 || cut % 160 >= 156, "{cut} is a multiple of the period of 160");
        assert_eq!(sound.len(), 960 - cut);
        assert!(sound.windows(2).all(|pair| (pair[1] - pair[0]).abs() <= steepest * 5 / 4));
    }
}
