//! When to report: the timer rules of RFC 3550 §6.3 with the interval of §6.2 and §6.3.1.
//!
//! ```text
//!  interval = max(5 s (first 2.5 s), members × average size ÷ RTCP bandwidth) × random(0.5, 1.5) ÷ (e − 3/2)
//! ```

use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng as _;

use crate::sample;

/// Smallest interval (RFC 3550 §6.2).
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// Compensates for the reconsideration of the timer (RFC 3550 §6.3.1).
const COMPENSATION: f32 = 1.218_28;
/// Five percent of a telephone call's 64 kbit/s, in bytes per second (RFC 3550 §6.2).
const BANDWIDTH: f32 = 400.0;
/// UDP and IPv4 headers count (RFC 3550 §6.2).
const HEADER_BYTES: f32 = 28.0;

/// The report timer.
#[derive(Debug)]
pub struct Schedule {
    /// Members of the session, ourselves included.
    members: u32,
    average_bytes: f32,
    previous: Instant,
    next: Instant,
    is_first: bool,
}

impl Schedule {
    /// Starts the timer. Two members are assumed: it is a call.
    pub fn new(now: Instant, rng: &mut ChaCha20Rng) -> Self {
        let average_bytes = 100.0 + HEADER_BYTES;
        let mut schedule = Self { members: 2, average_bytes, previous: now, next: now, is_first: true };
        schedule.next = now + schedule.interval(rng);
        schedule
    }

    /// When to call [`Self::is_due`].
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// At the deadline: the interval is drawn again, and a report is due only if that one is over, too
    /// (reconsideration, RFC 3550 §6.3.6).
    pub fn is_due(&mut self, now: Instant, rng: &mut ChaCha20Rng) -> bool {
        if now < self.next {
            return false;
        }
        let again = self.previous + self.interval(rng);
        if again > now {
            self.next = again;
            return false;
        }
        true
    }

    /// A report of that many bytes was sent.
    pub fn sent(&mut self, now: Instant, bytes: usize, rng: &mut ChaCha20Rng) {
        self.count(bytes);
        (self.is_first, self.previous) = (false, now);
        self.next = now + self.interval(rng);
    }

    /// A report of that many bytes came (RFC 3550 §6.3.3).
    pub fn received(&mut self, bytes: usize) {
        self.count(bytes);
    }

    /// Sources are known beside our own.
    pub fn set_members(&mut self, others: usize) {
        self.members = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1).max(2);
    }

    fn count(&mut self, bytes: usize) {
        self.average_bytes += (sample::len(bytes) + HEADER_BYTES - self.average_bytes) / 16.0;
    }

    fn interval(&self, rng: &mut ChaCha20Rng) -> Duration {
        let shortest = if self.is_first { INTERVAL_MIN / 2 } else { INTERVAL_MIN };
        let by_bandwidth = self.average_bytes * sample::count(u64::from(self.members)) / BANDWIDTH;
        let random = 0.5 + sample::count(u64::from(rng.next_u32() >> 8)) / 16_777_216.0;
        Duration::from_secs_f32((shortest.as_secs_f32().max(by_bandwidth) * random / COMPENSATION).clamp(0.1, 600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng as _;

    #[test]
    fn reports_of_a_call_are_five_seconds_apart_on_average_and_the_first_comes_in_half() {
        let (mut first, mut all, mut count) = (Duration::ZERO, Duration::ZERO, 0);
        for seed in 0..300 {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let start = crate::testing::epoch();
            let mut schedule = Schedule::new(start, &mut rng);
            let mut last = start;
            for report in 0..20 {
                while !schedule.is_due(schedule.deadline(), &mut rng) {}
                let now = schedule.deadline();
                let since = now - last;
                let range = if report == 0 { 1.0..3.1 } else { 2.0..6.2 };
                assert!(range.contains(&since.as_secs_f32()), "seed {seed} report {report}: {since:?}");
                if report == 0 {
                    first += since;
                } else {
                    (all, count) = (all + since, count + 1);
                }
                schedule.sent(now, 80, &mut rng);
                last = now;
            }
        }
        let (first, mean) = ((first / 300).as_secs_f32(), (all / count).as_secs_f32());
        assert!((2.2..2.8).contains(&first) && (4.5..5.5).contains(&mean), "{first} {mean}");
    }

    #[test]
    fn many_members_share_the_bandwidth() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut schedule = Schedule::new(crate::testing::epoch(), &mut rng);
        schedule.set_members(99);
        assert!(schedule.interval(&mut rng) > Duration::from_secs(12));
    }
}
