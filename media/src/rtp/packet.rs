//! Our view of an RTP packet (RFC 3550 §5.1). Header extensions are skipped (RFC 8285 §4): we negotiate none.

use rtp_types::{RtpPacket, RtpPacketBuilder};

/// A packet after SRTP, borrowed from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// First packet after silence (RFC 3551 §4.1).
    pub marker: bool,
    /// Meaning given by the receiver's SDP.
    pub payload_type: u8,
    /// Counts packets, wraps.
    pub sequence: u16,
    /// Counts samples in the clock of the payload type, wraps.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Without padding.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet; `None` if it is none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let packet = RtpPacket::parse(bytes).ok()?;
        let (offset, len) = (packet.payload_offset(), packet.payload_len());
        let (marker, payload_type) = (packet.marker_bit(), packet.payload_type());
        let (sequence, timestamp, ssrc) = (packet.sequence_number(), packet.timestamp(), packet.ssrc());
        let payload = bytes.get(offset..offset.checked_add(len)?)?;
        Some(Self { marker, payload_type, sequence, timestamp, ssrc, payload })
    }

    /// Writes the packet; `None` if the payload type exceeds 127.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        RtpPacketBuilder::<&[u8], &[u8]>::new()
            .marker_bit(self.marker)
            .payload_type(self.payload_type)
            .sequence_number(self.sequence)
            .timestamp(self.timestamp)
            .ssrc(self.ssrc)
            .payload(self.payload)
            .write_vec()
            .ok()
    }
}

/// Whether a packet on a muxed component is RTCP: the second byte is a packet type of 192..=223, which as an RTP
/// payload type would be 64..=95 (RFC 5761 §4).
pub fn is_rtcp(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|second| (192..=223).contains(second))
}

/// Bytes before the payload: fixed header, contributing sources, extension. `None` if the packet is too short for what
/// it announces, or no RTP of version 2. Works on protected packets, whose header is in the clear.
pub fn header_bytes(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first().filter(|first| *first >> 6 == 2)?;
    let mut length = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = bytes.get(length.checked_add(2)?..length.checked_add(4)?)?.first_chunk::<2>()?;
        length += 4 + 4 * usize::from(u16::from_be_bytes(*words));
    }
    (length <= bytes.len()).then_some(length)
}

/// Sequence number and SSRC of a packet that is at least a fixed header long.
pub fn identity(bytes: &[u8]) -> Option<(u16, u32)> {
    let sequence = bytes.get(2..4)?.first_chunk::<2>()?;
    let ssrc = bytes.get(8..12)?.first_chunk::<4>()?;
    Some((u16::from_be_bytes(*sequence), u32::from_be_bytes(*ssrc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Packet<'_> =
        Packet { marker: true, payload_type: 111, sequence: 7, timestamp: 960, ssrc: 0x0102_0304, payload: b"abc" };

    #[test]
    fn a_packet_is_written_as_section_5_1_draws_it_and_read_back() {
        let bytes = PLAIN.to_bytes().unwrap();
        assert_eq!(bytes, b"\x80\xef\x00\x07\x00\x00\x03\xc0\x01\x02\x03\x04abc");
        assert_eq!(Packet::parse(&bytes), Some(PLAIN));
        assert_eq!((header_bytes(&bytes), identity(&bytes)), (Some(12), Some((7, 0x0102_0304))));
    }

    #[test]
    fn extension_sources_and_padding_are_cut_off() {
        let bytes = b"\xb1\x6f\x00\x07\x00\x00\x03\xc0\x01\x02\x03\x04\x09\x09\x09\x09\xbe\xde\x00\x01\x10\xaa\x00\x00abc\x00\x00\x00\x00\x05";
        assert_eq!(Packet::parse(bytes).map(|packet| packet.payload), Some(b"abc".as_slice()));
        assert_eq!(header_bytes(bytes), Some(24));
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_its_second_byte() {
        for (second, want) in
            [(200, true), (203, true), (192, true), (223, true), (111, false), (239, false), (0, false)]
        {
            assert_eq!(is_rtcp(&[0x80, second]), want, "case: {second}");
        }
    }

    #[test]
    fn truncated_packets_are_refused() {
        let bytes = PLAIN.to_bytes().unwrap();
        for cut in 0..12 {
            assert!(Packet::parse(&bytes[..cut]).is_none() && header_bytes(&bytes[..cut]).is_none(), "case: {cut}");
        }
        assert_eq!(header_bytes(b"\x90\x6f\x00\x07\x00\x00\x03\xc0\x01\x02\x03\x04\xbe\xde\xff\xff"), None);
    }
}
