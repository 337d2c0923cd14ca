//! One remote synchronisation source: its statistics, its timeline, its playout.

use std::time::Instant;

use crate::SAMPLE_RATE_HZ;
use crate::config::Codec;
use crate::dtmf;
use crate::jitter::{Content, Inserted, Packet};
use crate::playout::Playout;
use crate::rtp;
use crate::rtp::receiver::{Order, Receiver};

/// A source we hear, or heard.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) receiver: Receiver,
    pub(super) playout: Playout,
    pub(super) events: dtmf::Receiver,
    pub(super) codec: Codec,
    pub(super) last_packet: Instant,
    late: u64,
    timeline: Timeline,
}

/// Counters that outlive a stream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) lost: u64,
    pub(super) late: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) concealed: u64,
    pub(super) recovered: u64,
    pub(super) undecodable: u64,
}

impl Totals {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            late: self.late + other.late,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            concealed: self.concealed + other.concealed,
            recovered: self.recovered + other.recovered,
            undecodable: self.undecodable + other.undecodable,
        }
    }
}

impl Stream {
    pub(super) fn new(now: Instant, packet: &rtp::packet::Packet<'_>, codec: Codec) -> Self {
        Self {
            receiver: Receiver::new(packet.sequence, codec.clock_hz()),
            playout: Playout::default(),
            events: dtmf::Receiver::default(),
            codec,
            last_packet: now,
            late: 0,
            timeline: Timeline { sequence: 0, timestamp: packet.timestamp, time: 0, clock_hz: codec.clock_hz() },
        }
    }

    /// A packet of sound. `arrival` in samples. Whether it was the first copy.
    pub(super) fn sound(&mut self, arrival: i64, packet: &rtp::packet::Packet<'_>, codec: Codec) -> bool {
        let Some(sequence) = self.place(packet.sequence) else { return false };
        self.codec = codec;
        let clock_hz = codec.clock_hz();
        let time = self.timeline.locate(sequence, packet.timestamp, clock_hz);
        let ratio = i64::from(SAMPLE_RATE_HZ / clock_hz);
        self.receiver.measure(arrival / ratio, time / ratio, clock_hz);
        let content = Content::Sound { codec, payload: packet.payload.to_vec() };
        self.play(Packet { sequence, time, arrival, marker: packet.marker, content });
        true
    }

    /// A packet that takes a sequence number and has no sound. Whether it was the first copy.
    pub(super) fn gap(&mut self, arrival: i64, packet: &rtp::packet::Packet<'_>) -> bool {
        let Some(sequence) = self.place(packet.sequence) else { return false };
        let time = self.timeline.time;
        self.play(Packet { sequence, time, arrival, marker: packet.marker, content: Content::Gap });
        true
    }

    pub(super) fn totals(&self) -> Totals {
        let played = self.playout.counters;
        Totals {
            lost: self.receiver.lost(),
            late: self.late + played.dropped,
            duplicated: self.receiver.duplicated,
            reordered: self.receiver.reordered,
            concealed: played.concealed,
            recovered: played.recovered,
            undecodable: played.undecodable,
        }
    }

    fn place(&mut self, sequence: u16) -> Option<i64> {
        match self.receiver.accept(sequence) {
            (extended, Order::Newest | Order::Reordered) => Some(extended),
            (extended, Order::Restarted) => {
                self.playout.restart();
                self.timeline.sequence = extended;
                Some(extended)
            }
            (_, Order::Duplicate | Order::Suspect) => None,
        }
    }

    fn play(&mut self, packet: Packet) {
        if self.playout.insert(packet) == Inserted::Late {
            self.late += 1;
        }
    }
}

/// From RTP timestamps, which wrap and whose unit may change, to media time in samples at 48 kHz.
#[derive(Debug)]
struct Timeline {
    sequence: i64,
    timestamp: u32,
    time: i64,
    clock_hz: u32,
}

impl Timeline {
    fn locate(&mut self, sequence: i64, timestamp: u32, clock_hz: u32) -> i64 {
        let time = if clock_hz == self.clock_hz {
            let distance = timestamp.wrapping_sub(self.timestamp).cast_signed();
            self.time + i64::from(distance) * i64::from(SAMPLE_RATE_HZ / clock_hz.max(1))
        } else {
            // Timestamps in different units cannot be compared (RFC 7160 §3); frames of 20 ms are assumed between.
            self.time + (sequence - self.sequence) * 960
        };
        if sequence >= self.sequence || clock_hz != self.clock_hz {
            *self = Self { sequence, timestamp, time, clock_hz };
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_time_runs_on_over_wraps_reordering_and_a_change_of_clock() {
        let mut timeline = Timeline { sequence: 10, timestamp: u32::MAX - 959, time: 0, clock_hz: 48_000 };
        assert_eq!(timeline.locate(11, 0, 48_000), 960);
        assert_eq!(timeline.locate(13, 1_920, 48_000), 2_880);
        assert_eq!(timeline.locate(12, 960, 48_000), 1_920);
        assert_eq!(timeline.locate(14, 777, 8_000), 3_840);
        assert_eq!(timeline.locate(15, 937, 8_000), 4_800);
    }
}
