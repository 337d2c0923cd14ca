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
/// The first byte of a TLS handshake record.
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

#[cfg(test)]
mod media_path_tests {
    use super::*;
    use ice::stun::{Attribute, Builder, Class, TransactionId};

    fn packet(payload: Payload, outgoing: bool, far: &str) -> Packet {
        let (near, far) = ("192.168.1.10:5000".parse().unwrap(), far.parse().unwrap());
        let (from, to) = if outgoing { (near, far) } else { (far, near) };
        Packet { at: 7, from, to, outgoing, payload }
    }

    fn rtp_bytes() -> Vec<u8> {
        [&[0x80, 96, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5][..], &[1; 20]].concat()
    }

    fn bind(channel: u16, peer: SocketAddr) -> Vec<u8> {
        let request = Builder::new(Class::Request, Method::CHANNEL_BIND, TransactionId::new([3; 12]));
        request.with(&Attribute::ChannelNumber(channel)).with(&Attribute::XorPeerAddress(peer)).build()
    }

    fn channel_data(channel: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        [&channel.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
    }

    #[test]
    fn plain_media_is_direct_and_control_and_names_are_no_media() {
        let far = "203.0.113.30:7000";
        let read = |bytes: Vec<u8>, far| Reader::default().read(&[packet(Payload::Datagram(bytes), true, far)]);
        let [seen] = read(rtp_bytes(), far)[..] else { panic!("one packet") };
        assert_eq!((seen.way, seen.remote, seen.ssrc, seen.sequence), (Way::Direct, far.parse().unwrap(), 5, 9));
        let mut control = rtp_bytes();
        control[1] = 200;
        assert_eq!(read(control, far), []);
        assert_eq!(read(rtp_bytes(), "203.0.113.10:53"), []);
    }

    #[test]
    fn media_in_a_channel_is_relayed_and_its_remote_is_the_peer() {
        let (relay, peer) = ("203.0.113.11:443", "203.0.113.30:7000".parse().unwrap());
        let frame = channel_data(0x4001, &rtp_bytes());
        for (stream, way) in [(false, Way::RelayUdp), (true, Way::RelayTcp)] {
            let payload = |bytes: Vec<u8>| if stream { Payload::Stream(bytes) } else { Payload::Datagram(bytes) };
            let mut reader = Reader::default();
            let packets = [
                packet(payload(bind(0x4001, peer)), true, relay),
                packet(payload(frame.clone()), true, relay),
                packet(payload(frame.clone()), false, relay),
                packet(payload(channel_data(0x4002, &rtp_bytes())), false, relay),
            ];
            let seen: Vec<_> = reader.read(&packets).iter().map(|rtp| (rtp.way, rtp.remote, rtp.outgoing)).collect();
            assert_eq!(seen, [(way, peer, true), (way, peer, false)], "a channel that nobody opened is not known");
        }
    }

    #[test]
    fn a_frame_in_pieces_is_whole_again_and_tls_is_not_looked_into() {
        let (relay, peer) = ("203.0.113.11:443", "203.0.113.30:7000".parse().unwrap());
        let bytes = [bind(0x4001, peer), channel_data(0x4001, &rtp_bytes())].concat();
        let mut reader = Reader::default();
        let pieces: Vec<_> =
            bytes.chunks(7).map(|piece| packet(Payload::Stream(piece.to_vec()), true, relay)).collect();
        assert_eq!(reader.read(&pieces).len(), 1);
        let hello = [&[TLS_HANDSHAKE, 3, 1, 0, 1][..], &rtp_bytes()].concat();
        let mut reader = Reader::default();
        assert_eq!(reader.read(&[packet(Payload::Stream(hello), true, relay)]), []);
        assert_eq!(reader.tls.len(), 1);
    }
}
