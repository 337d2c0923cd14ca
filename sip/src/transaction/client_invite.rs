//! INVITE client transaction, RFC 3261 §17.1.1 (Figure 5) with the Accepted state of RFC 6026 §7.2.
//!
//! ```text
//!   INVITE ──▶ Calling ──1xx──▶ Proceeding
//!                 ├───── 2xx ─────┼──▶ Accepted ──M──▶ Terminated     each 2xx goes to the user agent, which ACKs it
//!                 └── 300-699 ────┴──▶ Completed ──D──▶ Terminated    the ACK is made here, and again for each repetition
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::timers::{PATIENCE, Resend, earliest, unless_reliable};
use super::{Output, Verdict};

#[derive(Debug)]
enum State {
    Calling {
        resend: Option<Resend>,
        fail_at: Instant,
    },
    /// `abandon_at` is set once CANCEL was sent: no final answer in 64·T1 means none comes (RFC 3261 §9.1).
    Proceeding {
        abandon_at: Option<Instant>,
    },
    Completed {
        ack: Vec<u8>,
        end_at: Instant,
    },
    Accepted {
        end_at: Instant,
    },
    Terminated,
}

/// The machine; messages are made and read by its owner.
#[derive(Debug)]
pub struct ClientInvite {
    state: State,
    request: Vec<u8>,
    reliable: bool,
    outputs: VecDeque<Output>,
}

impl ClientInvite {
    /// Sends `request` at once, and again on an unreliable transport.
    pub fn new(now: Instant, request: Vec<u8>, reliable: bool) -> Self {
        let resend = (!reliable).then(|| Resend::new(now, None));
        let outputs = VecDeque::from([Output::Transmit(request.clone())]);
        Self { state: State::Calling { resend, fail_at: now + PATIENCE }, request, reliable, outputs }
    }

    /// Takes a response; `make_ack` builds the ACK to a final answer that is not 2xx (RFC 3261 §17.1.1.3).
    pub fn handle_response(&mut self, now: Instant, status: u16, make_ack: impl FnOnce() -> Vec<u8>) -> Verdict {
        match (&self.state, status) {
            (State::Calling { .. }, 100..=199) => {
                self.state = State::Proceeding { abandon_at: None };
                Verdict::Pass
            }
            (State::Proceeding { .. }, 100..=199) | (State::Accepted { .. }, 200..=299) => Verdict::Pass,
            (State::Calling { .. } | State::Proceeding { .. }, 200..=299) => {
                self.state = State::Accepted { end_at: now + PATIENCE };
                Verdict::Pass
            }
            (State::Calling { .. } | State::Proceeding { .. }, _) => {
                let ack = make_ack();
                self.outputs.push_back(Output::Transmit(ack.clone()));
                self.state = State::Completed { ack, end_at: now + self.timer_d() };
                Verdict::Pass
            }
            (State::Completed { ack, .. }, 300..) => {
                self.outputs.push_back(Output::Transmit(ack.clone()));
                Verdict::Absorbed
            }
            (State::Completed { .. } | State::Accepted { .. } | State::Terminated, _) => Verdict::Absorbed,
        }
    }

    /// CANCEL went out: wait 64·T1 for the end, no longer.
    pub fn cancelled(&mut self, now: Instant) {
        if let State::Proceeding { abandon_at } = &mut self.state {
            *abandon_at = Some(now + PATIENCE);
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Calling { fail_at, .. } | State::Proceeding { abandon_at: Some(fail_at) } if now >= *fail_at => {
                self.outputs.push_back(Output::TimedOut);
                self.state = State::Terminated;
            }
            State::Calling { resend: Some(resend), .. } => {
                if resend.is_due(now) {
                    self.outputs.push_back(Output::Transmit(self.request.clone()));
                }
            }
            State::Completed { end_at, .. } | State::Accepted { end_at } if now >= *end_at => {
                self.state = State::Terminated;
            }
            State::Calling { .. }
            | State::Proceeding { .. }
            | State::Completed { .. }
            | State::Accepted { .. }
            | State::Terminated => {}
        }
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadline()))
    }

    /// A provisional answer has come and no final one: CANCEL may be sent (RFC 3261 §9.1).
    pub fn is_proceeding(&self) -> bool {
        matches!(self.state, State::Proceeding { .. })
    }

    /// No final answer yet.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Calling { .. } | State::Proceeding { .. })
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    fn timer_d(&self) -> Duration {
        unless_reliable(self.reliable, PATIENCE)
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Calling { resend, fail_at } => earliest(resend.map(|r| r.at), Some(*fail_at)),
            State::Proceeding { abandon_at } => *abandon_at,
            State::Completed { end_at, .. } | State::Accepted { end_at } => Some(*end_at),
            State::Terminated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{run_out, statuses_passed};
    use super::*;
    use crate::transaction::timers::T1;

    fn start() -> Instant {
        crate::transaction::tests::epoch()
    }

    #[test]
    fn an_unanswered_invite_goes_out_seven_times_without_a_cap_and_fails_after_32_seconds() {
        let mut tx = ClientInvite::new(start(), b"INVITE".to_vec(), false);
        let log = run_out(&mut tx);
        let sent: Vec<u128> =
            log.iter().filter(|(_, o)| matches!(o, Output::Transmit(_))).map(|(t, _)| t.as_millis()).collect();
        assert_eq!(sent, [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
        assert_eq!(log.last(), Some(&(64 * T1, Output::TimedOut)));
    }

    #[test]
    fn responses_move_the_machine_as_figure_5_and_rfc_6026_say() {
        let cases: [(&str, &[u16], &[u16], usize); 5] = [
            ("forks: every 2xx goes up", &[180, 200, 200], &[180, 200, 200], 0),
            ("a repeated refusal is acknowledged again and not reported", &[486, 486], &[486], 2),
            ("a late 1xx after the answer is absorbed", &[200, 183], &[200], 0),
            ("a refusal after a 2xx is absorbed", &[200, 487], &[200], 0),
            ("a 2xx after a refusal is absorbed", &[100, 487, 200], &[100, 487], 1),
        ];
        for (name, received, passed, acks) in cases {
            let mut tx = ClientInvite::new(start(), Vec::new(), false);
            assert_eq!(tx.poll_output(), Output::Transmit(Vec::new()));
            let got = statuses_passed(received, |s| tx.handle_response(start(), s, || b"ACK".to_vec()));
            assert_eq!(got, passed, "case: {name}");
            let mut sent = 0;
            while tx.poll_output() == Output::Transmit(b"ACK".to_vec()) {
                sent += 1;
            }
            assert_eq!(sent, acks, "case: {name}");
        }
    }

    #[test]
    fn after_cancel_an_invite_that_gets_no_final_answer_ends_after_32_seconds() {
        let mut tx = ClientInvite::new(start(), Vec::new(), true);
        tx.handle_response(start(), 180, Vec::new);
        tx.cancelled(start());
        while matches!(tx.poll_output(), Output::Transmit(_)) {}
        assert_eq!(tx.poll_output(), Output::Timeout(Some(start() + PATIENCE)));
        tx.handle_timeout(start() + PATIENCE);
        assert_eq!(tx.poll_output(), Output::TimedOut);
        assert!(tx.is_terminated());
    }

    #[test]
    fn a_reliable_transport_repeats_nothing_and_keeps_no_completed_state() {
        let mut tx = ClientInvite::new(start(), Vec::new(), true);
        tx.handle_response(start(), 404, || b"ACK".to_vec());
        tx.handle_timeout(start());
        assert!(tx.is_terminated());
    }
}
