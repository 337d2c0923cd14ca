//! Non-INVITE server transaction, RFC 3261 §17.2.2 (Figure 8).
//!
//! ```text
//!   request ──▶ Trying ──1xx──▶ Proceeding     a repeated request gets the last response again
//!                  └──── 200-699 ────┴──▶ Completed ──J──▶ Terminated
//! ```

use std::collections::VecDeque;
use std::time::Instant;

use super::Output;
use super::timers::{PATIENCE, unless_reliable};

#[derive(Debug)]
enum State {
    Trying { end_at: Instant },
    Proceeding { last: Vec<u8>, end_at: Instant },
    Completed { response: Vec<u8>, end_at: Instant },
    Terminated,
}

/// The machine; messages are made and read by its owner.
#[derive(Debug)]
pub struct ServerOther {
    state: State,
    reliable: bool,
    outputs: VecDeque<Output>,
}

impl ServerOther {
    /// Whoever asked gives up after 64·T1 (Timer F): an owner that never answers leaves nothing behind.
    pub fn new(now: Instant, reliable: bool) -> Self {
        Self { state: State::Trying { end_at: now + PATIENCE }, reliable, outputs: VecDeque::new() }
    }

    pub fn respond(&mut self, now: Instant, status: u16, response: Vec<u8>) {
        match (&mut self.state, status) {
            (State::Trying { end_at } | State::Proceeding { end_at, .. }, 100..=199) => {
                self.state = State::Proceeding { last: response.clone(), end_at: *end_at };
            }
            (State::Trying { .. } | State::Proceeding { .. }, _) => {
                let end_at = now + unless_reliable(self.reliable, PATIENCE);
                self.state = State::Completed { response: response.clone(), end_at };
            }
            (State::Completed { .. } | State::Terminated, _) => return,
        }
        self.outputs.push_back(Output::Transmit(response));
    }

    /// The request came again.
    pub fn handle_retransmission(&mut self) {
        match &self.state {
            State::Proceeding { last: bytes, .. } | State::Completed { response: bytes, .. } => {
                self.outputs.push_back(Output::Transmit(bytes.clone()));
            }
            State::Trying { .. } | State::Terminated => {}
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Trying { end_at } | State::Proceeding { end_at, .. } | State::Completed { end_at, .. }
                if now >= *end_at =>
            {
                self.state = State::Terminated;
            }
            State::Trying { .. } | State::Proceeding { .. } | State::Completed { .. } | State::Terminated => {}
        }
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadline()))
    }

    /// Not finally answered.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Trying { .. } | State::Proceeding { .. })
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Trying { end_at } | State::Proceeding { end_at, .. } | State::Completed { end_at, .. } => {
                Some(*end_at)
            }
            State::Terminated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::epoch;
    use super::*;

    #[test]
    fn a_repeated_request_gets_the_same_answer_for_32_seconds() {
        let mut tx = ServerOther::new(epoch(), false);
        tx.handle_retransmission();
        assert_eq!(tx.poll_output(), Output::Timeout(Some(epoch() + PATIENCE)), "no answer yet, nothing to repeat");
        tx.respond(epoch(), 200, b"200".to_vec());
        tx.handle_retransmission();
        tx.respond(epoch(), 500, b"500".to_vec());
        assert_eq!(tx.poll_output(), Output::Transmit(b"200".to_vec()));
        assert_eq!(tx.poll_output(), Output::Transmit(b"200".to_vec()));
        assert_eq!(tx.poll_output(), Output::Timeout(Some(epoch() + PATIENCE)));
        tx.handle_timeout(epoch() + PATIENCE);
        assert!(tx.is_terminated());
    }
}
