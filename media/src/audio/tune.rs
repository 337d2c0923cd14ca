//! The built-in melody: what a phone without microphone says. Plucked notes with pauses between the phrases, so that
//! level meters move, and a jitter buffer finds quiet places as in speech.

use crate::{FRAME_SAMPLES, Frame, SAMPLE_RATE_HZ, sample};

/// A note: semitones above A3 (`None` is a rest) and its length in eighths.
type Note = (Option<i8>, u32);

/// "Ode to Joy" (Beethoven, 1824), first two lines.
const MELODY: [Note; 34] = [
    (Some(7), 2),
    (Some(7), 2),
    (Some(8), 2),
    (Some(10), 2),
    (Some(10), 2),
    (Some(8), 2),
    (Some(7), 2),
    (Some(5), 2),
    (Some(3), 2),
    (Some(3), 2),
    (Some(5), 2),
    (Some(7), 2),
    (Some(7), 3),
    (Some(5), 1),
    (Some(5), 3),
    (None, 1),
    (Some(7), 2),
    (Some(7), 2),
    (Some(8), 2),
    (Some(10), 2),
    (Some(10), 2),
    (Some(8), 2),
    (Some(7), 2),
    (Some(5), 2),
    (Some(3), 2),
    (Some(3), 2),
    (Some(5), 2),
    (Some(7), 2),
    (Some(5), 3),
    (Some(3), 1),
    (Some(3), 3),
    (None, 1),
    (None, 2),
    (None, 2),
];
/// An eighth at 132 quarters a minute.
const EIGHTH: u32 = SAMPLE_RATE_HZ * 60 / 132 / 2;
/// Silence at the end of each note.
const BREATH: u32 = SAMPLE_RATE_HZ / 25;

/// From silence to full loudness, and back.
const ATTACK: u32 = SAMPLE_RATE_HZ / 100;
const RELEASE: u32 = SAMPLE_RATE_HZ / 50;

/// Plays the melody over and over.
#[derive(Debug, Clone, Default)]
pub struct Tune {
    note: usize,
    at: u32,
    string: Plucked,
}

impl Tune {
    /// The next 20 ms.
    pub fn frame(&mut self) -> Frame {
        let mut frame = [0; FRAME_SAMPLES];
        for value in &mut frame {
            *value = self.next_sample();
        }
        frame
    }

    fn next_sample(&mut self) -> i16 {
        let (pitch, eighths) = MELODY.get(self.note).copied().unwrap_or((None, 1));
        let length = eighths * EIGHTH;
        if self.at == 0 {
            self.string = pitch.map(Plucked::new).unwrap_or_default();
        }
        let value = 0.22 * self.string.next() * edges(self.at, length.saturating_sub(BREATH));
        self.at += 1;
        if self.at >= length {
            (self.note, self.at) = ((self.note + 1) % MELODY.len(), 0);
        }
        sample::to_i16(value)
    }
}

/// A string that sounds with two overtones and decays. A point that turns on a circle and one factor per sample, because a bot
/// with many calls would spend more on sines than on coding.
#[derive(Debug, Clone, Default)]
struct Plucked {
    /// Sine and cosine of the angle.
    point: (f32, f32),
    /// Sine and cosine of the angle between two samples.
    step: (f32, f32),
    loudness: f32,
    decay: f32,
}

impl Plucked {
    fn new(semitones: i8) -> Self {
        let rate = sample::count(u64::from(SAMPLE_RATE_HZ));
        let angle = std::f32::consts::TAU * 220.0 * 2.0_f32.powf(f32::from(semitones) / 12.0) / rate;
        let step = angle.sin_cos();
        Self { point: step, step, loudness: 1.0, decay: (-1.5 / rate).exp() }
    }

    fn next(&mut self) -> f32 {
        let (sin, cos) = self.point;
        // sin 2x = 2 sin x cos x, sin 3x = 3 sin x - 4 sin³ x.
        let timbre = sin + 0.8 * sin * cos + 0.2 * sin * (3.0 - 4.0 * sin * sin);
        let value = timbre * self.loudness;
        self.loudness *= self.decay;
        self.point = (sin * self.step.1 + cos * self.step.0, cos * self.step.1 - sin * self.step.0);
        value
    }
}

/// Fast in, and out before the breath: what is at the edges of a note is not heard as a click.
fn edges(at: u32, sounding: u32) -> f32 {
    let left = sounding.saturating_sub(at);
    if at >= ATTACK && left >= RELEASE {
        return 1.0;
    }
    let over =
        |samples: u32, whole: u32| (sample::count(u64::from(samples)) / sample::count(u64::from(whole))).min(1.0);
    over(at, ATTACK) * over(left, RELEASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tune_is_loud_enough_never_clips_and_has_pauses() {
        let mut tune = Tune::default();
        let frames: Vec<Frame> = (0..750).map(|_| tune.frame()).collect();
        let sound = frames.concat();
        let level = sample::level_dbfs(&sound);
        assert!((-26.0..-12.0).contains(&level), "{level}");
        assert!(sound.iter().all(|value| value.abs() < 32_000));
        let pauses = frames.iter().filter(|frame| sample::level_dbfs(*frame) < -60.0).count();
        assert!(pauses > 40, "{pauses} of 750 frames are quiet");
    }
}
