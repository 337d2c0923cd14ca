//! Packets of a capture file: addresses, ports and payloads, read without help, because a table of calls reads dozens of files.
//!
//! The "any interface" header of Linux, which knows what left and what came; IPv4 and IPv6; UDP, and TCP put in order.
//! Fragments are passed over.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Microseconds since 1970.
pub type Micros = u64;

/// `LINKTYPE_LINUX_SLL2`.
const LINUX_COOKED_2: u32 = 276;
/// The packet type of what this host sent.
const OUTGOING: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A piece of payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub at: Micros,
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// It left the host that the capture was made on.
    pub outgoing: bool,
    pub payload: Payload,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Datagram(Vec<u8>),
    /// The next bytes of a TCP stream, in order.
    Stream(Vec<u8>),
}

/// Reads a whole file.
///
/// # Errors
///
/// If it is no capture in the classic format, or of another kind of line.
pub fn read(path: &Path) -> Result<Vec<Packet>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    packets(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn packets(bytes: &[u8]) -> Result<Vec<Packet>, String> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let nanoseconds = match word(0) {
        Some(0xa1b2_c3d4) => false,
        Some(0xa1b2_3c4d) => true,
        _ => return Err("no capture in this machine's byte order".to_owned()),
    };
    if word(20) != Some(LINUX_COOKED_2) {
        return Err("not captured with tcpdump -i any -y LINUX_SLL2".to_owned());
    }
    let mut streams = Streams::default();
    let mut found = Vec::new();
    let mut at = 24;
    while let (Some(seconds), Some(fraction), Some(length)) = (word(at), word(at + 4), word(at + 8)) {
        let Some(frame) = bytes.get(at + 16..at + 16 + length as usize) else { break };
        let micros = u64::from(seconds) * 1_000_000 + u64::from(fraction) / if nanoseconds { 1000 } else { 1 };
        at += 16 + length as usize;
        let Some((ip, kind)) = frame.split_at_checked(20).map(|(header, ip)| (ip, header[10])) else { continue };
        if let Some(packet) = ip_packet(micros, kind == OUTGOING, ip, &mut streams) {
            found.push(packet);
        }
    }
    Ok(found)
}

struct Layer<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    rest: &'a [u8],
}

fn ip_layer(ip: &[u8]) -> Option<Layer<'_>> {
    match ip.first()? >> 4 {
        4 => layer_v4(ip),
        6 => layer_v6(ip),
        _ => None, // ARP and others
    }
}

fn layer_v4(ip: &[u8]) -> Option<Layer<'_>> {
    let length = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
    let fragment = u16::from_be_bytes(ip.get(6..8)?.try_into().ok()?) & 0x3fff;
    let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?)));
    let header = usize::from(ip.first()? & 15) * 4;
    let rest = ip.get(header..length.min(ip.len()))?;
    (fragment == 0).then_some(Layer { from: address(12)?, to: address(16)?, protocol: *ip.get(9)?, rest })
}

fn layer_v6(ip: &[u8]) -> Option<Layer<'_>> {
    let length = usize::from(u16::from_be_bytes(ip.get(4..6)?.try_into().ok()?));
    let address = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?)));
    let rest = ip.get(40..(40 + length).min(ip.len()))?;
    Some(Layer { from: address(8)?, to: address(24)?, protocol: *ip.get(6)?, rest })
}

fn ip_packet(at: Micros, outgoing: bool, ip: &[u8], streams: &mut Streams) -> Option<Packet> {
    let Layer { from, to, protocol, rest } = ip_layer(ip)?;
    let port = |at: usize| rest.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes);
    let (from, to) = (SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?));
    match protocol {
        UDP => Some(Packet { at, from, to, outgoing, payload: Payload::Datagram(rest.get(8..)?.to_vec()) }),
        TCP => {
            let sequence = u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?);
            let header = usize::from(rest.get(12)? >> 4) * 4;
            let starts = rest.get(13)? & 2 != 0;
            let bytes = streams.add(from, to, sequence, starts, rest.get(header..)?);
            (!bytes.is_empty()).then_some(Packet { at, from, to, outgoing, payload: Payload::Stream(bytes) })
        }
        _ => None,
    }
}

/// The directions of all TCP connections.
#[derive(Default)]
struct Streams {
    directions: BTreeMap<(SocketAddr, SocketAddr), Direction>,
}

struct Direction {
    next: u32,
    early: BTreeMap<u32, Vec<u8>>,
}

impl Streams {
    /// The bytes that are in order now.
    fn add(&mut self, from: SocketAddr, to: SocketAddr, sequence: u32, starts: bool, bytes: &[u8]) -> Vec<u8> {
        if starts {
            let direction = Direction { next: sequence.wrapping_add(1), early: BTreeMap::new() };
            self.directions.insert((from, to), direction);
            return Vec::new();
        }
        let new = || Direction { next: sequence, early: BTreeMap::new() };
        let direction = self.directions.entry((from, to)).or_insert_with(new);
        if !bytes.is_empty() {
            direction.early.insert(sequence, bytes.to_vec());
        }
        let mut ready = Vec::new();
        while let Some((sequence, bytes)) = direction.take_next() {
            // What was sent again may overlap what is known.
            let known = direction.next.wrapping_sub(sequence) as usize;
            if let Some(new) = bytes.get(known..) {
                direction.next = direction.next.wrapping_add(new.len() as u32);
                ready.extend_from_slice(new);
            }
        }
        ready
    }
}

impl Direction {
    /// A segment that begins at or before the next byte.
    fn take_next(&mut self) -> Option<(u32, Vec<u8>)> {
        let next = self.next;
        let sequence = *self.early.keys().find(|sequence| next.wrapping_sub(**sequence) < 1 << 31)?;
        self.early.remove_entry(&sequence)
    }
}

#[cfg(test)]
mod wire_tests {
    use super::*;

    fn segment(streams: &mut Streams, sequence: u32, bytes: &[u8]) -> Vec<u8> {
        let [from, to] = ["192.0.2.1:1000", "192.0.2.2:443"].map(|text| text.parse().unwrap());
        streams.add(from, to, sequence, bytes.is_empty(), bytes)
    }

    #[test]
    fn a_stream_is_in_order_whatever_order_its_segments_came_in() {
        let mut streams = Streams::default();
        assert!(segment(&mut streams, u32::MAX - 1, b"").is_empty());
        assert_eq!(segment(&mut streams, u32::MAX, b"ab"), b"ab");
        assert!(segment(&mut streams, 4, b"fg").is_empty(), "a gap");
        assert_eq!(segment(&mut streams, 0, b"bcde"), b"cdefg", "overlaps what is known, closes the gap");
        assert!(segment(&mut streams, 0, b"bcde").is_empty(), "sent again");
    }
}
