//! The stream a peer sends: sequence validation, loss, jitter, and the facts a report block needs
//! (RFC 3550 §6.4.1, §A.1, §A.3, §A.8).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::sample;

/// A jump forward by more is a restart of the sender (RFC 3550 §A.1).
const DROPOUT_MAX: i64 = 3_000; // the RFC's value: one minute of packets
/// Sequence numbers remembered to tell a duplicate from a late packet.
const WINDOW: i64 = 128;
/// Loss is shown for the last seconds: that many samples of the counters, one per second.
const HISTORY_MAX: usize = 6; // five seconds between the oldest and the newest

/// What a sequence number says about its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The newest so far, directly or after a gap.
    Newest,
    /// Older than the newest, first time seen.
    Reordered,
    /// Seen before, or too old to know.
    Duplicate,
    /// The sender began anew somewhere else; everything remembered has been forgotten.
    Restarted,
    /// Far away once: believed when the next one follows it.
    Suspect,
}

/// Counters of one synchronisation source.
#[derive(Debug)]
pub struct Receiver {
    /// Extended sequence numbers: the 16 bits of the packet plus 65536 per wrap, starting one wrap up so that packets
    /// from before the first one stay positive.
    first: i64,
    newest: i64,
    /// Bit n: `newest - n` was received.
    seen: u128,
    suspect: Option<u16>,
    received: i64,
    prior: Totals,
    transit: Option<i64>,
    /// Sixteenfold, in timestamp units, as in the RFC's integer form.
    jitter: i64,
    clock_hz: u32,
    last_report: Option<(u32, Instant)>,
    history: VecDeque<(Instant, Totals)>,
    /// Packets that came twice.
    pub duplicated: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    expected: i64,
    received: i64,
}

/// What a report block says about this source, in the units of the wire (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reception {
    /// Loss since the previous report in 1/256.
    pub fraction_lost: u8,
    /// Since the start, in the 24-bit two's complement of the wire.
    pub cumulative_lost: u32,
    /// Wraps in the upper 16 bits.
    pub extended_sequence: u32,
    /// Timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time, 0 before any.
    pub last_sr: u32,
    /// Since then, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

impl Receiver {
    /// Starts with the first packet's number, which `accept` is then called with, too.
    pub fn new(sequence: u16, clock_hz: u32) -> Self {
        let first = i64::from(sequence) + 65_536;
        Self {
            first,
            newest: first - 1,
            seen: 0,
            suspect: None,
            received: 0,
            prior: Totals::default(),
            transit: None,
            jitter: 0,
            clock_hz,
            last_report: None,
            history: VecDeque::new(),
            duplicated: 0,
            reordered: 0,
        }
    }

    /// Counts a packet; gives its extended sequence number and its place.
    pub fn accept(&mut self, sequence: u16) -> (i64, Order) {
        let extended = self.extend(sequence);
        let ahead = extended - self.newest;
        if !(-WINDOW..=DROPOUT_MAX).contains(&ahead) {
            if self.suspect.take() != Some(sequence) {
                self.suspect = Some(sequence.wrapping_add(1));
                return (extended, Order::Suspect);
            }
            let (duplicated, reordered) = (self.duplicated, self.reordered);
            *self = Self { duplicated, reordered, last_report: self.last_report, ..Self::new(sequence, self.clock_hz) };
            let (extended, _) = self.accept(sequence);
            return (extended, Order::Restarted);
        }
        self.suspect = None;
        if ahead > 0 {
            self.seen = u32::try_from(ahead).ok().and_then(|by| self.seen.checked_shl(by)).unwrap_or(0) | 1;
            self.newest = extended;
            self.received += 1;
            return (extended, Order::Newest);
        }
        let bit = u32::try_from(-ahead).ok().and_then(|by| 1_u128.checked_shl(by)).unwrap_or(0);
        if bit == 0 || self.seen & bit != 0 {
            self.duplicated += 1;
            return (extended, Order::Duplicate);
        }
        self.seen |= bit;
        self.received += 1;
        self.reordered += 1;
        self.first = self.first.min(extended);
        (extended, Order::Reordered)
    }

    /// Interarrival jitter (RFC 3550 §A.8). `arrival` and `timestamp` in units of `clock_hz`.
    pub fn measure(&mut self, arrival: i64, timestamp: i64, clock_hz: u32) {
        if clock_hz != self.clock_hz {
            (self.clock_hz, self.jitter, self.transit) = (clock_hz, 0, None); // another unit: RFC 7160 §4.1
        }
        let transit = arrival - timestamp;
        if let Some(previous) = self.transit.replace(transit) {
            let distance = (transit - previous).abs().min(i64::from(clock_hz) * 10);
            self.jitter += distance - ((self.jitter + 8) >> 4);
        }
    }

    /// Remembers a sender report for LSR and DLSR.
    pub fn sender_report(&mut self, now: Instant, middle: u32) {
        self.last_report = Some((middle, now));
    }

    /// The report block, and the start of the next interval.
    pub fn report(&mut self, now: Instant) -> Reception {
        let totals = self.totals();
        let expected = totals.expected - self.prior.expected;
        let lost = expected - (totals.received - self.prior.received);
        self.prior = totals;
        let fraction = if expected > 0 && lost > 0 { (lost << 8) / expected } else { 0 };
        let cumulative = (totals.expected - totals.received).clamp(-0x80_0000, 0x7f_ffff);
        let (last_sr, since) =
            self.last_report.map_or((0, Duration::ZERO), |(middle, at)| (middle, now.saturating_duration_since(at)));
        Reception {
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: u32::try_from(cumulative & 0xff_ffff).unwrap_or(0),
            extended_sequence: u32::try_from((self.newest - 65_536) & 0xffff_ffff).unwrap_or(0),
            jitter: u32::try_from(self.jitter >> 4).unwrap_or(u32::MAX),
            last_sr,
            delay_since_last_sr: u32::try_from(since.as_nanos() * 65_536 / 1_000_000_000).unwrap_or(u32::MAX),
        }
    }

    /// Takes a sample of the counters; called about once a second.
    pub fn remember(&mut self, now: Instant) {
        if self.history.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < Duration::from_secs(1)) {
            return;
        }
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back((now, self.totals()));
    }

    /// Packets lost since the start; late ones are not lost.
    pub fn lost(&self) -> u64 {
        let totals = self.totals();
        u64::try_from(totals.expected - totals.received).unwrap_or(0)
    }

    /// Packets received since the start, duplicates not counted.
    pub fn received(&self) -> u64 {
        u64::try_from(self.received).unwrap_or(0)
    }

    /// Loss over the last seconds, 0..=100.
    pub fn loss_percent(&self) -> f32 {
        let then = self.history.front().map(|(_, totals)| *totals).unwrap_or_default();
        let totals = self.totals();
        let expected = totals.expected - then.expected;
        let lost = expected - (totals.received - then.received);
        if expected <= 0 { 0.0 } else { (sample::signed(lost) * 100.0 / sample::signed(expected)).clamp(0.0, 100.0) }
    }

    /// Interarrival jitter in milliseconds.
    pub fn jitter_ms(&self) -> f32 {
        sample::signed(self.jitter) / 16.0 * 1_000.0 / sample::signed(i64::from(self.clock_hz))
    }

    fn totals(&self) -> Totals {
        Totals { expected: self.newest - self.first + 1, received: self.received }
    }

    /// The number nearest to the newest that has these 16 low bits.
    fn extend(&self, sequence: u16) -> i64 {
        let distance = (i64::from(sequence) - self.newest).rem_euclid(65_536);
        self.newest + if distance > 32_768 { distance - 65_536 } else { distance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_gaps_repeats_and_stragglers_get_their_place() {
        use Order::{Duplicate, Newest, Reordered};
        let mut receiver = Receiver::new(65_534, 48_000);
        let mut orders = Vec::new();
        for sequence in [65_534, 65_535, 0, 3, 1, 1, 2, 3] {
            orders.push(receiver.accept(sequence));
        }
        let start = 65_536 + 65_534;
        let want = [
            (start, Newest),
            (start + 1, Newest),
            (start + 2, Newest),
            (start + 5, Newest),
            (start + 3, Reordered),
            (start + 3, Duplicate),
            (start + 4, Reordered),
            (start + 5, Duplicate),
        ];
        assert_eq!(orders, want);
        assert_eq!((receiver.lost(), receiver.received(), receiver.duplicated, receiver.reordered), (0, 6, 2, 2));
    }

    #[test]
    fn a_sender_that_begins_anew_is_believed_at_its_second_packet() {
        let mut receiver = Receiver::new(10, 48_000);
        receiver.accept(10);
        assert_eq!(receiver.accept(20_000).1, Order::Suspect);
        assert_eq!(receiver.accept(20_001), (65_536 + 20_001, Order::Restarted));
        assert_eq!(receiver.accept(20_002).1, Order::Newest);
        assert_eq!(receiver.lost(), 0);
    }

    #[test]
    fn the_report_says_loss_of_the_interval_and_since_the_start() {
        let now = crate::testing::epoch();
        let mut receiver = Receiver::new(0, 48_000);
        for sequence in (0..100).filter(|sequence| sequence % 4 != 3) {
            receiver.accept(sequence);
        }
        receiver.accept(99);
        let first = receiver.report(now);
        assert_eq!((first.fraction_lost, first.cumulative_lost), (61, 24)); // 24 of 100: 24 * 256 / 100
        assert_eq!(first.extended_sequence, 99);
        for sequence in 100..200 {
            receiver.accept(sequence);
        }
        let second = receiver.report(now);
        assert_eq!((second.fraction_lost, second.cumulative_lost), (0, 24));
    }

    #[test]
    fn lsr_and_dlsr_are_those_of_the_last_sender_report() {
        let now = crate::testing::epoch();
        let mut receiver = Receiver::new(0, 48_000);
        assert_eq!((receiver.report(now).last_sr, receiver.report(now).delay_since_last_sr), (0, 0));
        receiver.sender_report(now, 0xaabb_ccdd);
        let later = receiver.report(now + Duration::from_millis(1_500));
        assert_eq!((later.last_sr, later.delay_since_last_sr), (0xaabb_ccdd, 98_304));
    }

    /// The program of the appendix, written as it stands there, on a sequence with known transit times.
    #[test]
    fn jitter_follows_the_formula_of_appendix_a_8() {
        let mut receiver = Receiver::new(0, 8_000);
        let (mut reference, mut transit) = (0.0_f64, None::<i64>);
        for index in 0_i64..500 {
            let (timestamp, wobble) = (index * 160, (index * 7_919) % 97);
            let arrival = timestamp + 400 + wobble;
            receiver.measure(arrival, timestamp, 8_000);
            if let Some(previous) = transit {
                let distance = ((arrival - timestamp) - previous).abs();
                reference += (f64::from(i32::try_from(distance).unwrap()) - reference) / 16.0;
            }
            transit = Some(arrival - timestamp);
        }
        let got = f64::from(receiver.jitter_ms());
        assert!((got - reference / 8.0).abs() < 0.1, "{got} against {}", reference / 8.0);
    }
}
