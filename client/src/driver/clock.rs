//! The only clock of the workspace: every core is told the time, this file reads it (architecture §3 rule 3).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time now.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock now, as time since 1970-01-01 00:00 UTC. Zero if the clock stands before that.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn since_unix_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A seed from the operating system, for the cores' `ChaCha20` generators.
pub fn seed() -> [u8; 32] {
    rand::random()
}
