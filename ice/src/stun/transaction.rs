//! One client transaction: retransmission over UDP, one wait over TCP and TLS. RFC 8489 §6.2.
//!
//! ```text
//!   new ──▶ Send ──RTO──▶ Send ──2·RTO──▶ … Rc sends … ──Rm·RTO──▶ Expired
//! ```
//! The owner removes the transaction when its answer has come; nothing here parses.

use std::time::{Duration, Instant};

use super::message::TransactionId;

/// RFC 8489 §6.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// First wait; doubles with each send.
    pub rto: Duration,
    /// Rc: how often the request is sent at most. 1 on reliable transports.
    pub sends_max: u32,
    /// How long to wait after the last send.
    pub last_wait: Duration,
}

impl Timing {
    /// UDP: RTO 500 ms, Rc 7, Rm 16: sends at 0, 0.5, 1.5 … 31.5 s, gives up after 39.5 s.
    pub const UDP: Self = Self { rto: Duration::from_millis(500), sends_max: 7, last_wait: Duration::from_secs(8) };
    /// TCP and TLS: Ti = 39.5 s (RFC 8489 §6.2.2).
    pub const RELIABLE: Self =
        Self { rto: Duration::from_millis(500), sends_max: 1, last_wait: Duration::from_millis(39_500) };

    /// UDP with a measured or computed RTO (RFC 8445 §14.3).
    pub fn udp(rto: Duration) -> Self {
        Self { rto, last_wait: rto.saturating_mul(16), ..Self::UDP }
    }
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Due<'a> {
    Send(&'a [u8]),
    /// No answer came in time: the transaction has failed.
    Expired,
}

#[derive(Debug, Clone)]
pub struct Transaction {
    id: TransactionId,
    request: Vec<u8>,
    timing: Timing,
    sends: u32,
    started: Instant,
    last_sent: Instant,
    /// Next send or expiry.
    at: Instant,
}

impl Transaction {
    /// The first send is due at once.
    pub fn new(now: Instant, id: TransactionId, request: Vec<u8>, timing: Timing) -> Self {
        Self { id, request, timing, sends: 0, started: now, last_sent: now, at: now }
    }

    /// Takes what is due at `now`; call again until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Due<'_>> {
        if now < self.at {
            return None;
        }
        if self.sends >= self.timing.sends_max {
            return Some(Due::Expired);
        }
        let doubled = self.timing.rto.saturating_mul(1_u32.checked_shl(self.sends).unwrap_or(u32::MAX));
        self.sends += 1;
        self.last_sent = now;
        self.at = now + if self.sends >= self.timing.sends_max { self.timing.last_wait } else { doubled };
        Some(Due::Send(&self.request))
    }

    /// When [`Self::poll`] has something.
    pub fn deadline(&self) -> Instant {
        self.at
    }

    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// How often the request was sent so far.
    pub fn sends(&self) -> u32 {
        self.sends
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// Round trip time if the answer came at `now`: only certain when the request was sent once (Karn's rule),
    /// else counted from the last send, as an upper bound is of no use for path choice.
    pub fn rtt(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_sent)
    }

    /// Stops sending but goes on waiting for an answer until `until` (RFC 8445 §7.2.5.1: a cancelled check).
    pub fn cancel(&mut self, until: Instant) {
        self.sends = self.timing.sends_max;
        self.at = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mut transaction: Transaction, start: Instant) -> Vec<u128> {
        let mut log = Vec::new();
        loop {
            let now = transaction.deadline();
            log.push((now - start).as_millis());
            if transaction.poll(now) == Some(Due::Expired) {
                return log;
            }
        }
    }

    #[test]
    fn an_unanswered_udp_request_goes_out_seven_times_and_expires_after_39_5_seconds() {
        let start = crate::epoch();
        let log = run(Transaction::new(start, TransactionId::new([0; 12]), vec![1], Timing::UDP), start);
        assert_eq!(log, [0, 500, 1500, 3500, 7500, 15_500, 31_500, 39_500]);
    }

    #[test]
    fn a_request_on_a_stream_goes_out_once_and_expires_after_39_5_seconds() {
        let start = crate::epoch();
        let log = run(Transaction::new(start, TransactionId::new([0; 12]), vec![1], Timing::RELIABLE), start);
        assert_eq!(log, [0, 39_500]);
    }
}
