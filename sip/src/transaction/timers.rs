//! The timer table of RFC 3261 §17 (Table 4), with RFC 6026 §7.1's L and M.
//!
//! | Timer | Value | Meaning |
//! |---|---|---|
//! | A | T1, doubling | INVITE resend interval, UDP only |
//! | B | 64·T1 | INVITE client gives up |
//! | D | 32 s UDP, 0 else | wait for repeated final answers |
//! | E | T1 doubling to T2 | other requests' resend interval, UDP only |
//! | F | 64·T1 | other client gives up |
//! | G | T1 doubling to T2 | final answer to INVITE resent, UDP only |
//! | H | 64·T1 | wait for ACK |
//! | I | T4 UDP, 0 else | absorb repeated ACKs |
//! | J | 64·T1 UDP, 0 else | absorb repeated other requests |
//! | K | T4 UDP, 0 else | absorb repeated answers |
//! | L, M | 64·T1 | Accepted: forks and repeated 2xx |

use std::time::{Duration, Instant};

/// Estimate of the round trip, RFC 3261 §17.1.1.1.
pub const T1: Duration = Duration::from_millis(500);
/// Longest resend interval for other than INVITE, RFC 3261 §17.1.2.2.
pub const T2: Duration = Duration::from_secs(4);
/// Longest life of a message in the network, RFC 3261 §17.1.2.2.
pub const T4: Duration = Duration::from_secs(5);
/// Timers B, F, H, J, L and M: 32 s.
pub const PATIENCE: Duration = Duration::from_secs(32);

/// Zero on reliable transports, where nothing can be repeated.
pub(crate) fn unless_reliable(reliable: bool, wait: Duration) -> Duration {
    if reliable { Duration::ZERO } else { wait }
}

/// A message that is sent again at a doubling interval, up to `cap`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resend {
    pub(crate) at: Instant,
    interval: Duration,
    cap: Option<Duration>,
}

impl Resend {
    pub(crate) fn new(now: Instant, cap: Option<Duration>) -> Self {
        Self { at: now + T1, interval: T1, cap }
    }

    /// True when it is time; then the next time is set.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        let doubled = self.interval.saturating_mul(2);
        self.interval = self.cap.map_or(doubled, |cap| doubled.min(cap));
        self.at = now + self.interval;
        true
    }

    /// From its next expiry on the interval is T2 (RFC 3261 §17.1.2.2, Proceeding).
    pub(crate) fn slow_down(&mut self) {
        self.interval = T2;
    }
}

/// The earlier of two deadlines, where `None` is never.
pub(crate) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, None) => a,
        (None, b) => b,
    }
}
