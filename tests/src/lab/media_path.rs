//! Where the media really went: RTP in a capture, plain or inside TURN, and the way it took at this end.
//!
//! RTP is known by its first two bytes (RFC 7983 §7, RFC 5761 §4), a relay's channel by the ChannelBind that opened it (RFC 8656 §12).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use ice::stun::{Message, Method};

use super::wire::{Micros, Packet, Payload};

/// How media leaves or reaches a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Direct,
    RelayUdp,
    RelayTcp,
    RelayTls,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::RelayUdp => "relay(udp)",
            Self::RelayTcp => "relay(tcp)",
            Self::RelayTls => "relay(tls)",
        })
    }
}

/// One RTP packet at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rtp {
    pub at: Micros,
    pub outgoing: bool,
    pub ssrc: u32,
    pub sequence: u16,
    pub way: Way,
    /// The far end as this end sees it; behind a relay of ours, who the relay speaks with.
    pub remote: SocketAddr,
}

/// Reads the media out of the packets of one host's line.
#[derive(Default)]
pub struct Reader {
    /// Who is behind a channel of a relay: by the two ends of the connection to it, ours first.
    channels: BTreeMap<(SocketAddr, SocketAddr, u16), SocketAddr>,
    /// What is left of a stream after its last whole frame.
    rests: BTreeMap<(SocketAddr, SocketAddr), Vec<u8>>,
    /// Connections that begin with a TLS handshake: what is in them nobody can read here.
    pub tls: std::collections::BTreeSet<(SocketAddr, SocketAddr)>,
}

/// Frames of a TURN connection over TCP that are waited for; a longer rest is no TURN.
const REST_BYTES_MAX: usize = 70_000;
const DNS: u16 = 53;
/// The first byte of a TLS handshake record, RFC 8446 §5.1.
const TLS_HANDSHAKE: u8 = 22;

impl Reader {
    /// Every RTP packet, in the order of the file.
    pub fn read(&mut self, packets: &[Packet]) -> Vec<Rtp> {
        packets.iter().flat_map(|packet| self.packet(packet)).collect()
    }

    fn packet(&mut self, packet: &Packet) -> Vec<Rtp> {
        match &packet.payload {
            Payload::Datagram(bytes) => self.frame(packet, bytes, Way::RelayUdp).into_iter().collect(),
            Payload::Stream(bytes) => self.stream(packet, bytes),
        }
    }

    fn stream(&mut self, packet: &Packet, bytes: &[u8]) -> Vec<Rtp> {
        let key = (packet.from, packet.to);
        if self.tls.contains(&key) {
            return Vec::new();
        }
        let fresh = !self.rests.contains_key(&key);
        if fresh && bytes.first() == Some(&TLS_HANDSHAKE) {
            self.tls.insert(key);
            return Vec::new();
        }
        let mut rest = self.rests.remove(&key).unwrap_or_default();
        rest.extend_from_slice(bytes);
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(length) = frame_length(&rest[at..]).filter(|length| at + length <= rest.len()) {
            found.extend(self.frame(packet, &rest[at..at + length], Way::RelayTcp));
            at += length;
        }
        let rest = rest.split_off(at);
        self.rests.insert(key, if rest.len() > REST_BYTES_MAX { Vec::new() } else { rest });
        found
    }

    /// `way` is the one that it is if the packet is inside TURN.
    fn frame(&mut self, packet: &Packet, bytes: &[u8], way: Way) -> Option<Rtp> {
        match bytes.first()? {
            0..=3 => self.stun(packet, bytes, way),
            64..=79 => {
                let channel = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
                let length = usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
                let key = self.channels.get(&(packet.from, packet.to, channel));
                let remote = *key.or_else(|| self.channels.get(&(packet.to, packet.from, channel)))?;
                rtp(packet, bytes.get(4..4 + length)?, way, remote)
            }
            // A question to a name server begins with a number by chance.
            128..=191 if way == Way::RelayUdp && packet.from.port() != DNS && packet.to.port() != DNS => {
                rtp(packet, bytes, Way::Direct, if packet.outgoing { packet.to } else { packet.from })
            }
            _ => None,
        }
    }

    fn stun(&mut self, packet: &Packet, bytes: &[u8], way: Way) -> Option<Rtp> {
        let message = Message::parse(bytes).ok()?;
        let peer = message.xor_peer_address()?;
        if message.method() == Method::CHANNEL_BIND {
            self.channels.insert((packet.from, packet.to, message.channel_number()?), peer);
            return None;
        }
        (message.method() == Method::SEND || message.method() == Method::DATA)
            .then(|| rtp(packet, message.data()?, way, peer))
            .flatten()
    }
}

/// STUN and ChannelData over a stream, RFC 8656 §12.5: the latter is padded.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
    Some(if *bytes.first()? < 64 { 20 + length } else { (4 + length).next_multiple_of(4) })
}

fn rtp(packet: &Packet, bytes: &[u8], way: Way, remote: SocketAddr) -> Option<Rtp> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    // RTCP's packet types are 192..=223, which is 64..=95 without the marker bit.
    if first >> 6 != 2 || (64..96).contains(&(second & 127)) || bytes.len() < 12 {
        return None;
    }
    let sequence = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ssrc = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
    Some(Rtp { at: packet.at, outgoing: packet.outgoing, ssrc, sequence, way, remote })
}
