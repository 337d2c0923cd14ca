//! INVITE server transaction, RFC 3261 §17.2.1 (Figure 7) with the Accepted state of RFC 6026 §7.1.
//!
//! ```text
//!   INVITE ──▶ Proceeding ── 300-699 ──▶ Completed ──ACK──▶ Confirmed ──I──▶ Terminated
//!    (100)          │                       └──H──▶ TimedOut
//!                   └── 2xx ──▶ Accepted ──L──▶ Terminated   the user agent repeats the 2xx, ACK goes up to it
//! ```

use std::collections::VecDeque;
use std::time::Instant;

use super::timers::{PATIENCE, Resend, T2, T4, earliest, unless_reliable};
use super::{Output, Verdict};

#[derive(Debug)]
enum State {
    Proceeding { last: Vec<u8> },
    Completed { response: Vec<u8>, resend: Option<Resend>, fail_at: Instant },
    Confirmed { end_at: Instant },
    Accepted { end_at: Instant },
    Terminated,
}

/// The machine; messages are made and read by its owner.
#[derive(Debug)]
pub struct ServerInvite {
    state: State,
    reliable: bool,
    outputs: VecDeque<Output>,
}

impl ServerInvite {
    /// Sends `trying` (100) at once: whoever answers may take longer than the 200 ms of RFC 3261 §17.2.1.
    pub fn new(trying: Vec<u8>, reliable: bool) -> Self {
        let outputs = VecDeque::from([Output::Transmit(trying.clone())]);
        Self { state: State::Proceeding { last: trying }, reliable, outputs }
    }

    /// Sends a response of the user agent; further 2xx in Accepted are its repetitions (RFC 6026 §7.1).
    pub fn respond(&mut self, now: Instant, status: u16, response: Vec<u8>) {
        match (&mut self.state, status) {
            (State::Proceeding { last }, 100..=199) => last.clone_from(&response),
            (State::Proceeding { .. }, 200..=299) => self.state = State::Accepted { end_at: now + PATIENCE },
            (State::Proceeding { .. }, _) => {
                let resend = (!self.reliable).then(|| Resend::new(now, Some(T2)));
                let fail_at = now + PATIENCE;
                self.state = State::Completed { response: response.clone(), resend, fail_at };
            }
            (State::Accepted { .. }, 200..=299) => {}
            (State::Completed { .. } | State::Confirmed { .. } | State::Accepted { .. } | State::Terminated, _) => {
                return;
            }
        }
        self.outputs.push_back(Output::Transmit(response));
    }

    /// The INVITE came again.
    pub fn handle_retransmission(&mut self) {
        match &self.state {
            State::Proceeding { last: bytes } | State::Completed { response: bytes, .. } => {
                self.outputs.push_back(Output::Transmit(bytes.clone()));
            }
            State::Confirmed { .. } | State::Accepted { .. } | State::Terminated => {}
        }
    }

    /// An ACK: to a refusal it ends here, to a 2xx it goes up.
    pub fn handle_ack(&mut self, now: Instant) -> Verdict {
        match &self.state {
            State::Completed { .. } => {
                self.state = State::Confirmed { end_at: now + unless_reliable(self.reliable, T4) };
                Verdict::Absorbed
            }
            State::Accepted { .. } => Verdict::Pass,
            State::Proceeding { .. } | State::Confirmed { .. } | State::Terminated => Verdict::Absorbed,
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Completed { fail_at, .. } if now >= *fail_at => {
                self.outputs.push_back(Output::TimedOut);
                self.state = State::Terminated;
            }
            State::Completed { response, resend: Some(resend), .. } => {
                if resend.is_due(now) {
                    self.outputs.push_back(Output::Transmit(response.clone()));
                }
            }
            State::Confirmed { end_at } | State::Accepted { end_at } if now >= *end_at => {
                self.state = State::Terminated;
            }
            State::Proceeding { .. }
            | State::Completed { .. }
            | State::Confirmed { .. }
            | State::Accepted { .. }
            | State::Terminated => {}
        }
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadline()))
    }

    /// Not finally answered: CANCEL has an effect (RFC 3261 §9.2).
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Proceeding { .. })
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Proceeding { .. } | State::Terminated => None,
            State::Completed { resend, fail_at, .. } => earliest(resend.map(|r| r.at), Some(*fail_at)),
            State::Confirmed { end_at } | State::Accepted { end_at } => Some(*end_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{epoch, run_out};
    use super::*;

    fn drain(tx: &mut ServerInvite) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Output::Transmit(bytes) = tx.poll_output() {
            sent.push(bytes);
        }
        sent
    }

    #[test]
    fn a_refusal_is_repeated_until_its_ack_comes() {
        let mut tx = ServerInvite::new(b"100".to_vec(), false);
        tx.respond(epoch(), 486, b"486".to_vec());
        assert_eq!(drain(&mut tx), [b"100", b"486"]);
        tx.handle_timeout(epoch() + super::super::timers::T1);
        assert_eq!(drain(&mut tx), [b"486"]);
        assert_eq!(tx.handle_ack(epoch()), Verdict::Absorbed);
        tx.handle_timeout(epoch() + T4);
        assert!(tx.is_terminated());
    }

    #[test]
    fn a_refusal_without_ack_times_out_after_32_seconds() {
        let mut tx = ServerInvite::new(Vec::new(), false);
        tx.respond(epoch(), 486, b"486".to_vec());
        let log = run_out(&mut tx);
        assert_eq!(log.last(), Some(&(PATIENCE, Output::TimedOut)));
    }

    #[test]
    fn a_repeated_invite_gets_the_latest_answer_again_until_the_2xx() {
        let mut tx = ServerInvite::new(b"100".to_vec(), false);
        tx.respond(epoch(), 183, b"183".to_vec());
        drain(&mut tx);
        tx.handle_retransmission();
        assert_eq!(drain(&mut tx), [b"183"]);
        tx.respond(epoch(), 200, b"200".to_vec());
        tx.handle_retransmission();
        assert_eq!(drain(&mut tx), [b"200"], "RFC 6026: repetitions are absorbed in Accepted");
        assert_eq!(tx.handle_ack(epoch()), Verdict::Pass);
    }
}
