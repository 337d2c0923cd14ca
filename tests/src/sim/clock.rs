//! Virtual time: an instant to start from, and elapsed time as text.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The instant every run starts at. One per process: only differences from it are ever seen.
pub fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock; nothing else reads it")]
    *EPOCH.get_or_init(Instant::now)
}

pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `+12.345s`, the form of the product's logs, so that both can be laid side by side.
pub fn elapsed(since: Instant, now: Instant) -> String {
    let elapsed = now.saturating_duration_since(since);
    format!("+{}.{:03}s", elapsed.as_secs(), elapsed.subsec_millis())
}
