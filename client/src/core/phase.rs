//! The legal changes of a call's state, as one table.
//!
//! ```text
//!   Gathering ──▶ Inviting ──▶ Ringing ──▶ EarlyMedia ──▶ Talking ◀──▶ Held      outgoing; each of the middle ones may be skipped
//!       └───────────────────────▶ Ringing ──▶ EarlyMedia ──▶ Talking ◀──▶ Held    incoming
//!   from everywhere ──▶ Ending ──▶ Ended                                          or directly to Ended
//! ```

use crate::api::CallState;

/// From each state, those that may follow.
const LEGAL: [(CallState, &[CallState]); 8] = {
    use CallState::{EarlyMedia, Ended, Ending, Gathering, Held, Inviting, Ringing, Talking};
    [
        (Gathering, &[Inviting, Ringing, Ending, Ended]),
        (Inviting, &[Ringing, EarlyMedia, Talking, Ending, Ended]),
        (Ringing, &[EarlyMedia, Talking, Ending, Ended]),
        (EarlyMedia, &[Talking, Ending, Ended]),
        (Talking, &[Held, Ending, Ended]),
        (Held, &[Talking, Ending, Ended]),
        (Ending, &[Ended]),
        (Ended, &[]),
    ]
};

/// Whether a call in state `from` may go to `to`.
pub(crate) fn may_follow(from: CallState, to: CallState) -> bool {
    LEGAL.iter().any(|(state, next)| *state == from && next.contains(&to))
}

/// The state as a word in a sentence.
pub(crate) fn name(state: CallState) -> &'static str {
    match state {
        CallState::Gathering => "gathering",
        CallState::Inviting => "inviting",
        CallState::Ringing => "ringing",
        CallState::EarlyMedia => "in early media",
        CallState::Talking => "talking",
        CallState::Held => "on hold",
        CallState::Ending => "ending",
        CallState::Ended => "over",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_can_always_end_and_never_comes_back() {
        for (state, next) in LEGAL {
            if state != CallState::Ended {
                assert!(next.contains(&CallState::Ended), "{state:?}");
            }
            assert!(!next.contains(&state), "{state:?} follows itself");
        }
        assert!(!may_follow(CallState::Ended, CallState::Talking));
        assert!(!may_follow(CallState::EarlyMedia, CallState::Ringing), "a 180 after a 183 takes nothing back");
        assert!(!may_follow(CallState::Ending, CallState::Talking));
    }

    #[test]
    fn the_table_has_every_state_once() {
        let mut states: Vec<_> = LEGAL.iter().map(|(state, _)| name(*state)).collect();
        states.dedup();
        assert_eq!(states.len(), 8);
    }
}
