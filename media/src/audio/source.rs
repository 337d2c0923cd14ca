//! Sources of sound that run inside the session, in its time: bots and simulations need no device.

use std::collections::VecDeque;
use std::sync::Arc;

use super::tone::{Ringback, Sine};
use super::tune::Tune;
use crate::{FRAME_SAMPLES, Frame, SILENCE};

/// Frames of a microphone that may wait. A device delivers about when the tick comes: one frame of slack each way, and
/// one for a late loop. More would be delay that never goes away.
const MICROPHONE_MAX: usize = 3; // 60 ms
/// Level of [`Source::Tone`], RMS relative to full scale.
const TONE_DBFS: f32 = -12.0;

/// What is said into the call.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Nothing: silence is encoded and sent.
    Silence,
    /// Frames given as [`crate::Input::Microphone`]; silence where none is there in time.
    Microphone,
    /// The built-in melody, over and over.
    Tune,
    /// A sine at -12 dBFS RMS.
    Tone {
        /// Frequency, 1..=20000 Hz.
        hz: f32,
    },
    /// A recording.
    Samples {
        /// 48 kHz mono.
        samples: Arc<[i16]>,
        /// From the start again at the end; else silence and [`crate::Event::SourceEnded`].
        repeat: bool,
    },
    /// What is heard from the peer, in the same tick.
    Echo,
    /// The European ringback tone: 425 Hz, 1 s on, 4 s off (ITU-T E.180).
    Ringback,
}

/// A source while it plays.
#[derive(Debug)]
pub(crate) struct Playing {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Silence,
    Microphone(VecDeque<Frame>),
    Tune(Tune),
    Tone(Sine),
    Samples { samples: Arc<[i16]>, repeat: bool, at: usize, ended: bool },
    Echo,
    Ringback(Ringback),
}

impl Playing {
    pub(crate) fn new(source: Source) -> Self {
        let kind = match source {
            Source::Silence => Kind::Silence,
            Source::Microphone => Kind::Microphone(VecDeque::new()),
            Source::Tune => Kind::Tune(Tune::default()),
            Source::Tone { hz } => Kind::Tone(Sine::new(hz, TONE_DBFS)),
            Source::Samples { samples, repeat } => Kind::Samples { samples, repeat, at: 0, ended: false },
            Source::Echo => Kind::Echo,
            Source::Ringback => Kind::Ringback(Ringback::default()),
        };
        Self { kind }
    }

    /// A frame of the device. The oldest one goes if too many wait.
    pub(crate) fn push_microphone(&mut self, frame: &Frame) {
        if let Kind::Microphone(waiting) = &mut self.kind {
            if waiting.len() == MICROPHONE_MAX {
                waiting.pop_front();
            }
            waiting.push_back(*frame);
        }
    }

    /// It has a beginning and an end that somebody should hear.
    pub(crate) fn is_recording(&self) -> bool {
        matches!(self.kind, Kind::Samples { .. })
    }

    /// The next frame, and whether the source has just come to its end.
    pub(crate) fn frame(&mut self, heard: &Frame) -> (Frame, bool) {
        match &mut self.kind {
            Kind::Silence => (SILENCE, false),
            Kind::Microphone(waiting) => (waiting.pop_front().unwrap_or(SILENCE), false),
            Kind::Tune(tune) => (tune.frame(), false),
            Kind::Tone(sine) => (sine.frame(), false),
            Kind::Samples { samples, repeat, at, ended } => next_of_recording(samples, *repeat, at, ended),
            Kind::Echo => (*heard, false),
            Kind::Ringback(ringback) => (ringback.frame(), false),
        }
    }
}

fn next_of_recording(samples: &[i16], repeat: bool, at: &mut usize, ended: &mut bool) -> (Frame, bool) {
    let mut frame = SILENCE;
    let mut filled = 0;
    while filled < FRAME_SAMPLES && !samples.is_empty() {
        if *at >= samples.len() {
            if !repeat {
                break;
            }
            *at = 0;
        }
        let rest = samples.get(*at..).unwrap_or_default();
        let room = frame.get_mut(filled..).unwrap_or_default();
        let count = rest.len().min(room.len());
        for (to, from) in room.iter_mut().zip(rest) {
            *to = *from;
        }
        (filled, *at) = (filled + count, *at + count);
    }
    let is_over = *at >= samples.len() && (!repeat || samples.is_empty());
    let ends_now = is_over && !std::mem::replace(ended, is_over);
    (frame, ends_now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_said_once_to_its_last_sample_and_its_end_told_once() {
        let samples: Arc<[i16]> = (1..=1_000).collect();
        let mut playing = Playing::new(Source::Samples { samples, repeat: false });
        let (first, ended) = playing.frame(&SILENCE);
        assert_eq!((first[0], first[959], ended), (1, 960, false));
        let (second, ended) = playing.frame(&SILENCE);
        assert_eq!((second[0], second[39], second[40], ended), (961, 1_000, 0, true));
        assert_eq!(playing.frame(&SILENCE), (SILENCE, false));
    }

    #[test]
    fn a_repeated_recording_has_no_gap_at_its_seam() {
        let samples: Arc<[i16]> = (1..=7).collect();
        let mut playing = Playing::new(Source::Samples { samples, repeat: true });
        let sound: Vec<i16> = (0..3).flat_map(|_| playing.frame(&SILENCE).0).collect();
        assert!(sound.iter().enumerate().all(|(at, value)| usize::try_from(*value).unwrap() == at % 7 + 1));
        let empty = Source::Samples { samples: Arc::from([]), repeat: true };
        assert_eq!(Playing::new(empty).frame(&SILENCE), (SILENCE, true));
    }

    #[test]
    fn of_a_hasty_microphone_the_newest_frames_are_kept() {
        let mut playing = Playing::new(Source::Microphone);
        for value in 1..=5 {
            playing.push_microphone(&[value; FRAME_SAMPLES]);
        }
        let said: Vec<i16> = (0..4).map(|_| playing.frame(&SILENCE).0[0]).collect();
        assert_eq!(said, [3, 4, 5, 0]);
    }
}
