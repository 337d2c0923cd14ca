//! The adaptive jitter buffer: puts packets in order and decides how much later than the fastest packet sound is played
//! (RFC 3550 §6.4.4 names the problem, the method is ours).
//!
//! All times are in samples at 48 kHz. A packet's *transit* is its arrival minus its media time; the smallest of the
//! last five seconds is the *base*. What is due at a moment `at` with media time `time` has the *delay*
//! `at - time - base`: a packet is in time exactly if its transit exceeds the base by no more than that.
//!
//! ```text
//!  transit − base        target = the largest of the last 256 packets but one in a hundred, + 20 ms
//!   40 ms │    ·  ·             20 ms ≤ target ≤ 400 ms
//!         │ ·   ·    ·  ·
//!    0 ms └──────────────▶ packets
//! ```
//!
//! [`crate::playout`] steers the delay towards the target: up by making sound up while it waits for a packet, down and
//! up by cutting or doubling quiet places.

use std::collections::{BTreeMap, VecDeque};

use crate::config::Codec;

/// Samples of a millisecond.
pub const MS: i64 = 48;
/// Packets held: more than the longest delay needs with packets of 2.5 ms, a bound on memory for any sender.
const PACKETS_MAX: usize = 256; // 1.5 kB each at most
/// Transits remembered: five seconds of packets, so that the delay is down again within ten.
const TRANSITS_MAX: usize = 256; // one sort of this many numbers per packet
/// Smallest target: one frame, so that a lost packet's redundancy in the next one is there when it is needed.
const TARGET_MIN: i64 = 20 * MS;
/// Largest target: beyond it people talk into each other.
const TARGET_MAX: i64 = 400 * MS; // ITU-T G.114 calls 400 ms unacceptable in general
/// Room for what the window has not seen.
const MARGIN: i64 = 20 * MS;
/// A transit that jumps by more is a sender that set its clock anew, not a slow network.
const CLOCK_JUMP: i64 = 3_000 * MS;
/// Inside a pause of the sender, a smaller jump suffices.
const PAUSE_JUMP: i64 = 200 * MS;
/// For so long delay gained by a path change is only given back in quiet places.
const PATH_PATIENCE: i64 = 60_000 * MS;

/// Packets that may have come by the new path before we are told of it: two seconds.
const PATH_NEWS: usize = 100;

/// What a packet brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Encoded sound.
    Sound {
        /// Its codec.
        codec: Codec,
        /// Never empty.
        payload: Vec<u8>,
    },
    /// A sequence number without sound: telephone-event, comfort noise, a payload type we do not know.
    Gap,
}

/// A received packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Extended sequence number.
    pub sequence: i64,
    /// Media time of its first sample.
    pub time: i64,
    /// When it came.
    pub arrival: i64,
    /// First after silence.
    pub marker: bool,
    /// Sound or none.
    pub content: Content,
}

/// What became of an inserted packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// Waits for its moment.
    Stored,
    /// Its moment has passed.
    Late,
    /// Already there.
    Duplicate,
    /// Stored, and everything before it was given up: the sender's clock jumped.
    Restarted,
}

/// Packets in order, and the measure of their delays.
#[derive(Debug, Default)]
pub struct Buffer {
    packets: BTreeMap<i64, Packet>,
    transits: VecDeque<i64>,
    base: i64,
    target: i64,
    unmeasured: u32,
    path: Option<PathChange>,
}

#[derive(Debug, Clone, Copy)]
struct PathChange {
    at: i64,
    /// Base of the slowest path left behind.
    base: i64,
}

impl Buffer {
    /// Stores a packet unless its moment has passed: `expected` is the sequence number played next.
    pub fn insert(&mut self, packet: Packet, expected: Option<i64>) -> Inserted {
        let transit = packet.arrival - packet.time;
        let jump = self.transits.back().map_or(0, |last| (transit - last).abs());
        let in_pause = packet.marker && self.packets.is_empty() && jump > PAUSE_JUMP;
        let restarts = jump > CLOCK_JUMP && packet.content != Content::Gap;
        if restarts {
            self.packets.clear();
        }
        if restarts || in_pause {
            self.transits.clear();
        }
        let is_late = !restarts && expected.is_some_and(|expected| packet.sequence < expected);
        if !is_late && self.packets.contains_key(&packet.sequence) {
            return Inserted::Duplicate;
        }
        if packet.content != Content::Gap {
            self.measure(transit);
        }
        if is_late {
            return Inserted::Late;
        }
        self.packets.insert(packet.sequence, packet);
        if self.packets.len() > PACKETS_MAX {
            self.packets.pop_first();
        }
        if restarts { Inserted::Restarted } else { Inserted::Stored }
    }

    /// The packet with the smallest sequence number.
    pub fn first(&self) -> Option<&Packet> {
        self.packets.first_key_value().map(|(_, packet)| packet)
    }

    /// Takes the packet with the smallest sequence number out.
    pub fn take_first(&mut self) -> Option<Packet> {
        self.packets.pop_first().map(|(_, packet)| packet)
    }

    /// Delay of media time `time` if it is played at `at`.
    pub fn delay(&self, at: i64, time: i64) -> i64 {
        at - time - self.base
    }

    /// What the delay should be.
    pub fn target(&self) -> i64 {
        self.target.clamp(TARGET_MIN, TARGET_MAX)
    }

    /// The path changed: packets may now come much earlier or later.
    pub fn path_changed(&mut self, now: i64) {
        if !self.transits.is_empty() {
            // The slowest of the paths used lately: the call may come back to it.
            let known = self.path.filter(|path| now - path.at < PATH_PATIENCE).map_or(self.base, |path| path.base);
            // The peer may have changed over before we heard of it, so that the newest packets are of the new path.
            let older = self.transits.len() - PATH_NEWS.min(self.transits.len() / 2);
            let before = self.transits.iter().take(older).min().copied().unwrap_or(self.base);
            self.path = Some(PathChange { at: now, base: known.max(self.base).max(before) });
        }
    }

    /// Delay that a faster path has left over. It is only given back where nobody hears it: a call that moves to a
    /// better path, and perhaps back, loses no sound.
    pub fn path_allowance(&self, now: i64) -> i64 {
        self.path.filter(|path| now - path.at < PATH_PATIENCE).map_or(0, |path| (path.base - self.base).max(0))
    }

    fn measure(&mut self, transit: i64) {
        if self.transits.len() == TRANSITS_MAX {
            self.transits.pop_front();
        }
        self.transits.push_back(transit);
        // The figures move slowly: they are taken anew with every eighth packet, and with each that exceeds them.
        self.unmeasured += 1;
        let is_usual = (self.base..=self.base + self.target - MARGIN).contains(&transit);
        if is_usual && self.unmeasured < 8 && self.transits.len() > 8 {
            return;
        }
        self.unmeasured = 0;
        let mut sorted: Vec<i64> = self.transits.iter().copied().collect();
        sorted.sort_unstable();
        let outliers = sorted.len() / 100;
        let slowest = sorted.iter().rev().nth(outliers).copied().unwrap_or(transit);
        self.base = sorted.first().copied().unwrap_or(transit);
        self.target = slowest - self.base + MARGIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: i64, delayed_ms: i64) -> Packet {
        let time = sequence * 960;
        let content = Content::Sound { codec: Codec::Opus, payload: vec![1] };
        Packet { sequence, time, arrival: 50_000 + time + delayed_ms * MS, marker: false, content }
    }

    #[test]
    fn packets_leave_in_order_once() {
        let mut buffer = Buffer::default();
        for (sequence, want) in
            [(3, Inserted::Stored), (1, Inserted::Stored), (3, Inserted::Duplicate), (0, Inserted::Late)]
        {
            assert_eq!(buffer.insert(packet(sequence, 0), Some(1)), want, "case: {sequence}");
        }
        let order: Vec<i64> = std::iter::from_fn(|| buffer.take_first()).map(|packet| packet.sequence).collect();
        assert_eq!(order, [1, 3]);
    }

    #[test]
    fn the_target_covers_all_but_one_in_a_hundred_and_comes_back_after_five_seconds() {
        let mut buffer = Buffer::default();
        for sequence in 0..256 {
            buffer.insert(packet(sequence, if sequence == 100 { 300 } else { sequence * 7 % 41 }), None);
            buffer.take_first();
        }
        assert_eq!(buffer.target(), 60 * MS);
        for sequence in 256..520 {
            buffer.insert(packet(sequence, 0), None);
            buffer.take_first();
        }
        assert_eq!(buffer.target(), 20 * MS);
    }

    #[test]
    fn a_faster_path_is_seen_as_delay_gained_and_the_slower_one_takes_it_back() {
        let mut buffer = Buffer::default();
        (0..50).for_each(|sequence| _ = buffer.insert(packet(sequence, 60), None));
        let now = 50 * 960 + 50_000;
        buffer.path_changed(now);
        assert_eq!(buffer.path_allowance(now), 0);
        (50..60).for_each(|sequence| _ = buffer.insert(packet(sequence, 1), None));
        assert_eq!(buffer.path_allowance(now), 59 * MS);
        assert_eq!(buffer.path_allowance(now + PATH_PATIENCE), 0);
    }

    #[test]
    fn a_sender_that_sets_its_clock_anew_is_followed_at_once() {
        let mut buffer = Buffer::default();
        (0..5).for_each(|sequence| _ = buffer.insert(packet(sequence, 0), None));
        assert_eq!(buffer.insert(packet(5, 10_000), Some(3)), Inserted::Restarted);
        assert_eq!(buffer.first().map(|packet| packet.sequence), Some(5));
        assert_eq!(buffer.target(), 20 * MS);
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_leaves_in_order_and_once(arrivals in proptest::collection::vec((0_i64..400, 0_i64..500), 1..300)) {
            let mut buffer = Buffer::default();
            let mut expected = None;
            let mut last = -1;
            for (sequence, delayed_ms) in arrivals {
                buffer.insert(packet(sequence, delayed_ms), expected);
                if delayed_ms % 3 == 0 && let Some(taken) = buffer.take_first() {
                    proptest::prop_assert!(taken.sequence > last, "{} after {last}", taken.sequence);
                    last = taken.sequence;
                    expected = Some(last + 1);
                }
            }
        }
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut buffer = Buffer::default();
        (0..10_000).for_each(|sequence| _ = buffer.insert(packet(sequence, 0), None));
        assert_eq!((buffer.packets.len(), buffer.transits.len()), (PACKETS_MAX, TRANSITS_MAX));
    }
}
