//! What happens every 20 ms: one frame is heard, one is said.

use std::time::Instant;

use super::{Component, Event, Output, Phase, Session};
use crate::dtmf::Tick;
use crate::{FRAME, Frame, SILENCE};

/// Frames made up for in one go after a stall of the loop; what is older was silence for the peer already.
const CATCH_UP_MAX: u32 = 3; // a burst of more would only be thrown away by the peer's jitter buffer

impl Session {
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Phase::Running { start, ticks } = self.phase {
            let at = start + FRAME * ticks;
            if at > now {
                break;
            }
            self.phase = Phase::Running { start, ticks: ticks.saturating_add(1) };
            if now.saturating_duration_since(at) < FRAME * CATCH_UP_MAX {
                self.tick(at);
            } else {
                self.sender.advance(self.frame_units());
                self.sender.mark_next();
            }
        }
        self.report_if_due(now);
    }

    fn tick(&mut self, at: Instant) {
        let heard = self.hear(at);
        // A recording is not said to nobody: its first word is for the peer.
        let waits = !self.sending && self.source.is_recording();
        let (mut said, ended) = if waits { (SILENCE, false) } else { self.source.frame(&heard) };
        if self.muted {
            said = SILENCE;
        }
        self.level_in.hear(&heard);
        self.level_out.hear(&said);
        if self.sending {
            self.transmit(at, &said);
        }
        self.sender.advance(self.frame_units());
        if self.playing {
            self.outputs.push_back(Output::Play(Box::new(heard)));
        }
        if self.tap {
            self.outputs.push_back(Output::Said(Box::new(said)));
        }
        if ended {
            self.event(Event::SourceEnded);
        }
    }

    /// All remote sources mixed: one in a call, several while forks sound at once.
    fn hear(&mut self, at: Instant) -> Frame {
        let now = self.samples(at);
        let mut mixed = SILENCE;
        for stream in self.streams.values_mut() {
            stream.receiver.remember(at);
            let frame = stream.playout.pull(now);
            for (sum, value) in mixed.iter_mut().zip(frame) {
                *sum = sum.saturating_add(value);
            }
        }
        if self.held || !self.playing { SILENCE } else { mixed }
    }

    fn transmit(&mut self, at: Instant, said: &Frame) {
        let packet = match self.digit_packet() {
            Some(packet) => Some(packet),
            None => {
                if let Some(payload) = self.encoder.encode(said) {
                    self.sender.sound(self.formats.send.payload_type, &payload)
                } else {
                    self.sender.mark_next();
                    None
                }
            }
        };
        let Some(plain) = packet else { return };
        self.counters.sent_bytes += u64::try_from(plain.len().saturating_sub(12)).unwrap_or(0);
        let payload = match &mut self.outbound {
            Some(outbound) => outbound.protect_rtp(&plain),
            None => Some(plain),
        };
        let Some(payload) = payload else { return };
        self.counters.sent += 1;
        if self.last_sent.replace(at).is_none() {
            self.event(Event::FirstSent);
        }
        self.outputs.push_back(Output::Packet { component: Component::Rtp, payload });
    }

    /// The packet of a digit, if one is being sent.
    fn digit_packet(&mut self) -> Option<Vec<u8>> {
        let event = self.formats.send_event?;
        match self.digits.tick(u16::try_from(event.clock_hz / 50).unwrap_or(160)) {
            Tick::Sound | Tick::Pause => None,
            Tick::Finished => {
                self.event(Event::DtmfSent);
                None
            }
            Tick::Event(packet) => {
                if packet.marker {
                    self.event_start = self.sender.timestamp();
                }
                self.sender.event(packet.marker, event.payload_type, self.event_start, &packet.payload)
            }
        }
    }

    /// A frame in the clock of what is sent.
    fn frame_units(&self) -> u32 {
        self.formats.send.codec.clock_hz() / 50
    }
}
