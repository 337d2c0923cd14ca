//! What is heard before a call is answered: our own ringing, and the ringback of peers that send none.
//!
//! Runs on the loop's time in frames of 20 ms, and only while there is a loudspeaker to hear it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use media::audio::tone::{Ringback, Sine};

use crate::api::{CallChange, CallId, CallState, Direction};
use crate::core::{FRAME_SAMPLES, Frame};

const FRAME: Duration = Duration::from_millis(20);
/// Behind by more than this, the ringing goes on from now.
const LATE_MAX: Duration = Duration::from_millis(100);
/// Frames of one note, of the two notes' warble, and of the warble with its pause: 60 ms, 1 s, 3 s.
const NOTE_FRAMES: u32 = 3;
const WARBLE_FRAMES: u32 = 50;
const PERIOD_FRAMES: u32 = 150;
/// Loud enough for the next room, not for the next house.
const LEVEL_DBFS: f32 = -18.0;

/// The tones of all calls that ring.
#[derive(Debug)]
pub struct Ringer {
    directions: BTreeMap<CallId, Direction>,
    ringing: BTreeMap<CallId, Direction>,
    ringback: Ringback,
    low: Sine,
    high: Sine,
    frames: u32,
    next_at: Option<Instant>,
}

impl Ringer {
    /// Nothing rings.
    pub fn new() -> Self {
        Self {
            directions: BTreeMap::new(),
            ringing: BTreeMap::new(),
            ringback: Ringback::default(),
            low: Sine::new(659.3, LEVEL_DBFS),
            high: Sine::new(784.0, LEVEL_DBFS),
            frames: 0,
            next_at: None,
        }
    }

    /// Follows the calls.
    pub fn follow(&mut self, now: Instant, call: CallId, change: &CallChange) {
        match change {
            CallChange::Created { direction, .. } => {
                self.directions.insert(call, *direction);
            }
            CallChange::State { state } => self.enter(now, call, *state),
            CallChange::Ended { .. } => {
                self.directions.remove(&call);
                self.ringing.remove(&call);
            }
            _ => {}
        }
        if self.ringing.is_empty() {
            self.next_at = None;
            self.frames = 0;
            self.ringback = Ringback::default();
        }
    }

    fn enter(&mut self, now: Instant, call: CallId, state: CallState) {
        let direction = self.directions.get(&call).copied();
        match (state, direction) {
            (CallState::Ringing, Some(direction)) => {
                self.ringing.insert(call, direction);
                self.next_at.get_or_insert(now);
            }
            // A path before the answer: the peer sends its own ringback, but our bell goes on.
            (CallState::EarlyMedia, Some(Direction::Incoming)) => {}
            _ => {
                self.ringing.remove(&call);
            }
        }
    }

    /// When the next frame is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_at
    }

    /// The next frame, if it is due, and the call it stands for.
    pub fn next_frame(&mut self, now: Instant) -> Option<(CallId, Frame)> {
        let due = self.next_at.filter(|at| *at <= now)?;
        let (call, direction) = self.ringing.iter().next().map(|(call, direction)| (*call, *direction))?;
        // A card that opens late does not get all at once what it has missed.
        let late = now.saturating_duration_since(due) > LATE_MAX;
        self.next_at = Some(if late { now + FRAME } else { due + FRAME });
        self.frames = (self.frames + 1) % PERIOD_FRAMES;
        let frame = match direction {
            Direction::Outgoing => self.ringback.frame(),
            Direction::Incoming if self.frames >= WARBLE_FRAMES => [0; FRAME_SAMPLES],
            Direction::Incoming if (self.frames / NOTE_FRAMES).is_multiple_of(2) => self.low.frame(),
            Direction::Incoming => self.high.frame(),
        };
        Some((call, frame))
    }
}

impl Default for Ringer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod ringer_tests {
    use super::*;
    use crate::api::AccountId;

    fn created(direction: Direction) -> CallChange {
        CallChange::Created { account: AccountId(1), direction, peer: "sip:a@b".to_owned() }
    }

    fn state(state: CallState) -> CallChange {
        CallChange::State { state }
    }

    #[test]
    fn the_bell_rings_until_the_answer_and_the_ringback_until_early_media() {
        let now = crate::driver::clock::now();
        let cases = [
            (Direction::Incoming, CallState::EarlyMedia, true),
            (Direction::Incoming, CallState::Talking, false),
            (Direction::Outgoing, CallState::EarlyMedia, false),
            (Direction::Outgoing, CallState::Talking, false),
        ];
        for (direction, then, rings) in cases {
            let mut ringer = Ringer::new();
            ringer.follow(now, CallId(1), &created(direction));
            assert_eq!(ringer.deadline(), None);
            ringer.follow(now, CallId(1), &state(CallState::Ringing));
            let loud = ringer.next_frame(now).is_some_and(|(_, frame)| frame.iter().any(|sample| *sample != 0));
            assert!(loud, "{direction:?}");
            assert_eq!(ringer.next_frame(now), None, "one frame in 20 ms");
            ringer.follow(now, CallId(1), &state(then));
            assert_eq!(ringer.deadline().is_some(), rings, "{direction:?} {then:?}");
        }
    }
}
