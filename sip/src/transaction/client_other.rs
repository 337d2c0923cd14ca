//! Non-INVITE client transaction, RFC 3261 §17.1.2 (Figure 6).
//!
//! ```text
//!   send ──▶ Trying ──1xx──▶ Proceeding     timer E resends, timer F gives up
//!               └──── 200-699 ────┴──▶ Completed ──K──▶ Terminated
//! ```

use std::collections::VecDeque;
use std::time::Instant;

use super::timers::{PATIENCE, Resend, T2, T4, earliest, unless_reliable};
use super::{Output, Verdict};

#[derive(Debug)]
enum State {
    Trying { resend: Option<Resend>, fail_at: Instant },
    Proceeding { resend: Option<Resend>, fail_at: Instant },
    Completed { end_at: Instant },
    Terminated,
}

/// The machine; messages are made and read by its owner.
#[derive(Debug)]
pub struct ClientOther {
    state: State,
    request: Vec<u8>,
    reliable: bool,
    outputs: VecDeque<Output>,
}

impl ClientOther {
    /// Sends `request` at once, and again on an unreliable transport.
    pub fn new(now: Instant, request: Vec<u8>, reliable: bool) -> Self {
        let resend = (!reliable).then(|| Resend::new(now, Some(T2)));
        let outputs = VecDeque::from([Output::Transmit(request.clone())]);
        Self { state: State::Trying { resend, fail_at: now + PATIENCE }, request, reliable, outputs }
    }

    pub fn handle_response(&mut self, now: Instant, status: u16) -> Verdict {
        match (&self.state, status) {
            (State::Trying { resend, fail_at } | State::Proceeding { resend, fail_at }, 100..=199) => {
                let (mut resend, fail_at) = (*resend, *fail_at);
                if let Some(resend) = &mut resend {
                    resend.slow_down();
                }
                self.state = State::Proceeding { resend, fail_at };
                Verdict::Pass
            }
            (State::Trying { .. } | State::Proceeding { .. }, _) => {
                self.state = State::Completed { end_at: now + unless_reliable(self.reliable, T4) };
                Verdict::Pass
            }
            (State::Completed { .. } | State::Terminated, _) => Verdict::Absorbed,
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Trying { fail_at, .. } | State::Proceeding { fail_at, .. } if now >= *fail_at => {
                self.outputs.push_back(Output::TimedOut);
                self.state = State::Terminated;
            }
            State::Trying { resend: Some(resend), .. } | State::Proceeding { resend: Some(resend), .. } => {
                if resend.is_due(now) {
                    self.outputs.push_back(Output::Transmit(self.request.clone()));
                }
            }
            State::Completed { end_at } if now >= *end_at => self.state = State::Terminated,
            State::Trying { .. } | State::Proceeding { .. } | State::Completed { .. } | State::Terminated => {}
        }
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadline()))
    }

    /// No final answer yet.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Trying { .. } | State::Proceeding { .. })
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Trying { resend, fail_at } | State::Proceeding { resend, fail_at } => {
                earliest(resend.map(|r| r.at), Some(*fail_at))
            }
            State::Completed { end_at } => Some(*end_at),
            State::Terminated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{epoch, run_out, statuses_passed};
    use super::*;

    fn sent_at(answer_with: Option<u16>) -> Vec<u128> {
        let mut tx = ClientOther::new(epoch(), b"REGISTER".to_vec(), false);
        if let Some(status) = answer_with {
            tx.handle_response(epoch(), status);
        }
        let log = run_out(&mut tx);
        assert_eq!(log.last(), Some(&(PATIENCE, Output::TimedOut)));
        log.iter().filter(|(_, o)| matches!(o, Output::Transmit(_))).map(|(t, _)| t.as_millis()).collect()
    }

    #[test]
    fn an_unanswered_request_goes_out_eleven_times_and_fails_after_32_seconds() {
        assert_eq!(sent_at(None), [0, 500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    }

    #[test]
    fn after_a_provisional_answer_the_request_is_repeated_every_t2() {
        assert_eq!(sent_at(Some(100)), [0, 500, 4500, 8500, 12_500, 16_500, 20_500, 24_500, 28_500]);
    }

    #[test]
    fn responses_move_the_machine_as_figure_6_says() {
        let cases: [(&str, &[u16], &[u16]); 3] = [
            ("a final answer is reported once", &[200, 200], &[200]),
            ("progress, then rejection", &[100, 403], &[100, 403]),
            ("a late 1xx is absorbed", &[503, 183], &[503]),
        ];
        for (name, received, passed) in cases {
            let mut tx = ClientOther::new(epoch(), Vec::new(), false);
            assert_eq!(statuses_passed(received, |s| tx.handle_response(epoch(), s)), passed, "case: {name}");
        }
    }
}
