//! Packets from the peer: told apart, unprotected, sorted by source and payload type.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Component, Event, Session, Stream};
use crate::config::Codec;
use crate::rtcp::packet::Heard;
use crate::rtp::packet::{self, Packet};
use crate::rtp::sender::Sender;
use crate::srtp::context::{Accepted, Rejection};

/// Sources heard at once: a peer and its forks. Another one takes the place of the longest silent.
const STREAMS_MAX: usize = 4; // each holds a decoder and up to 256 packets
/// A source that sent more recently keeps its place.
const STREAM_IDLE: Duration = Duration::from_millis(500);
/// Times we yield our SSRC; what still carries it then is our own packets coming back.
const COLLISIONS_MAX: u32 = 4; // two honest peers collide once in four billion calls

/// Comfort noise has its own static payload type (RFC 3389 §4) and is silence to us.
const COMFORT_NOISE: u8 = 13;

/// What a payload type means to us.
enum Meaning {
    Sound(Codec),
    Digit,
    Nothing,
}

impl Session {
    pub(super) fn receive(&mut self, now: Instant, component: Component, payload: &[u8]) {
        let is_rtcp = component == Component::Rtcp || packet::is_rtcp(payload);
        let Some(plain) = self.unprotect(now, is_rtcp, payload) else { return };
        if is_rtcp {
            match Heard::parse(&plain) {
                Some(heard) => self.heard_report(now, &heard, payload.len()),
                None => self.counters.unreadable += 1,
            }
            return;
        }
        match Packet::parse(&plain) {
            Some(packet) => self.receive_rtp(now, &packet),
            None => self.counters.unreadable += 1,
        }
    }

    fn unprotect(&mut self, now: Instant, is_rtcp: bool, payload: &[u8]) -> Option<Bytes> {
        if !self.protected {
            return Some(Bytes::copy_from_slice(payload));
        }
        let result =
            if is_rtcp { self.inbound.unprotect_rtcp(now, payload) } else { self.inbound.unprotect_rtp(now, payload) };
        match result {
            Ok(Accepted { plain, confirmed }) => {
                if let Some(index) = confirmed {
                    self.event(Event::KeyConfirmed { index });
                }
                Some(plain)
            }
            Err(Rejection::Replayed) => {
                self.counters.replayed += 1;
                None
            }
            Err(Rejection::Malformed | Rejection::Unauthentic) => {
                self.counters.rejected += 1;
                None
            }
        }
    }

    fn receive_rtp(&mut self, now: Instant, packet: &Packet<'_>) {
        if packet.ssrc == self.sender.ssrc() && !self.yield_ssrc(now) {
            return;
        }
        let arrival = self.samples(now);
        let meaning = self.meaning(packet.payload_type);
        if let Meaning::Sound(codec) = meaning
            && !packet.payload.is_empty()
            && !self.streams.contains_key(&packet.ssrc)
            && !self.admit(now, packet, codec)
        {
            self.counters.unreadable += 1;
            return;
        }
        self.counters.received += 1;
        self.counters.received_bytes += u64::try_from(packet.payload.len()).unwrap_or(0);
        let stream = self.streams.get_mut(&packet.ssrc);
        let is_known = stream.is_some();
        match (meaning, stream) {
            (Meaning::Sound(codec), Some(stream)) if !packet.payload.is_empty() => {
                stream.last_packet = now;
                let before = std::mem::replace(&mut stream.codec, codec);
                stream.sound(arrival, packet, codec);
                self.tell_codec(now, before, codec);
            }
            (Meaning::Sound(_) | Meaning::Nothing, stream) => {
                self.counters.unreadable += u64::from(packet.payload_type != COMFORT_NOISE);
                if let Some(stream) = stream {
                    stream.gap(arrival, packet);
                }
            }
            (Meaning::Digit, _) => self.receive_digit(now, packet, is_known),
        }
    }

    /// Digits may come before any sound, so they make their stream themselves.
    fn receive_digit(&mut self, now: Instant, packet: &Packet<'_>, is_known: bool) {
        let codec = self.formats.send.codec;
        if !is_known && !self.admit(now, packet, codec) {
            return;
        }
        let arrival = self.samples(now);
        let Some(stream) = self.streams.get_mut(&packet.ssrc) else { return };
        stream.last_packet = now;
        if stream.gap(arrival, packet)
            && let Some(digit) = stream.events.receive(packet.timestamp, packet.payload)
        {
            self.event(Event::Dtmf { digit });
        }
    }

    fn tell_codec(&mut self, now: Instant, before: Codec, codec: Codec) {
        if !std::mem::replace(&mut self.counters.heard_sound, true) {
            self.event(Event::FirstReceived { codec });
        } else if before != codec {
            self.event(Event::CodecChanged { codec });
        }
        if !self.held {
            self.playing = true;
        }
        self.run(now);
    }

    fn meaning(&self, payload_type: u8) -> Meaning {
        if let Some(format) = self.formats.receive.iter().find(|format| format.payload_type == payload_type) {
            return Meaning::Sound(format.codec);
        }
        let mut events = self.formats.receive_events.iter();
        if events.any(|event| event.payload_type == payload_type) { Meaning::Digit } else { Meaning::Nothing }
    }

    /// Makes a stream for a new source. Whether there was room.
    fn admit(&mut self, now: Instant, packet: &Packet<'_>, codec: Codec) -> bool {
        if self.streams.len() >= STREAMS_MAX {
            let idlest = self.streams.iter().min_by_key(|(_, stream)| stream.last_packet);
            let idlest = idlest.map(|(ssrc, stream)| (*ssrc, stream.last_packet));
            match idlest {
                Some((ssrc, since)) if now.saturating_duration_since(since) >= STREAM_IDLE => self.forget(ssrc),
                Some(_) | None => return false,
            }
        }
        self.streams.insert(packet.ssrc, Stream::new(now, packet, codec));
        if let Some(schedule) = &mut self.schedule {
            schedule.set_members(self.streams.len());
        }
        true
    }

    fn forget(&mut self, ssrc: u32) {
        if let Some(stream) = self.streams.remove(&ssrc) {
            self.counters.gone = self.counters.gone.plus(stream.totals());
        }
    }

    /// The peer uses our SSRC: BYE for it, and another one (RFC 3550 §8.2). Whether the packet may be the peer's.
    fn yield_ssrc(&mut self, now: Instant) -> bool {
        if self.counters.collisions >= COLLISIONS_MAX {
            return false;
        }
        self.counters.collisions += 1;
        self.send_report(now, true);
        self.sender = Sender::new(None, &mut self.rng);
        let ssrc = self.sender.ssrc();
        self.event(Event::SsrcChanged { ssrc });
        true
    }
}
