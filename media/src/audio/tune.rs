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

/// Plays the melody over and over.
#[derive(Debug, Clone, Default)]
pub struct Tune {
    note: usize,
    at: u32,
    phase: f32,
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
        let sounding = length.saturating_sub(BREATH);
        let value = pitch.map_or(0.0, |semitones| {
            let hz = 220.0 * 2.0_f32.powf(f32::from(semitones) / 12.0);
            self.phase = (self.phase + hz / sample::count(u64::from(SAMPLE_RATE_HZ))) % 1.0;
            let angle = self.phase * std::f32::consts::TAU;
            let timbre = angle.sin() + 0.4 * (2.0 * angle).sin() + 0.2 * (3.0 * angle).sin();
            0.22 * timbre * envelope(self.at, sounding)
        });
        self.at += 1;
        if self.at >= length {
            (self.note, self.at, self.phase) = ((self.note + 1) % MELODY.len(), 0, 0.0);
        }
        sample::to_i16(value)
    }
}

/// Fast in, slow decay, out before the breath.
fn envelope(at: u32, sounding: u32) -> f32 {
    let seconds = |samples: u32| sample::count(u64::from(samples)) / sample::count(u64::from(SAMPLE_RATE_HZ));
    let attack = (seconds(at) / 0.01).min(1.0);
    let release = (seconds(sounding.saturating_sub(at)) / 0.02).min(1.0);
    attack * release * (-1.5 * seconds(at)).exp()
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
