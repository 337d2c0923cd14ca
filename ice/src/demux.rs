//! What a received packet is, by its first bytes: RFC 7983 §7, and RTP against RTCP by RFC 5761 §4.

/// Kind of a packet on a media socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    Stun,
    Zrtp,
    Dtls,
    TurnChannel,
    Rtp,
    Rtcp,
    /// Empty or of no known protocol: dropped.
    Unknown,
}

/// Sorts one packet.
pub fn classify(packet: &[u8]) -> Packet {
    match packet.first() {
        Some(0..=3) => Packet::Stun,
        Some(16..=19) => Packet::Zrtp,
        Some(20..=63) => Packet::Dtls,
        Some(64..=79) => Packet::TurnChannel,
        Some(128..=191) if is_rtcp_type(packet.get(1).copied()) => Packet::Rtcp,
        Some(128..=191) => Packet::Rtp,
        Some(_) | None => Packet::Unknown,
    }
}

/// RTCP packet types are 192..=223; RTP payload types 64..=95, which would look the same under a marker bit,
/// are not used with multiplexing (RFC 5761 §4).
fn is_rtcp_type(second_byte: Option<u8>) -> bool {
    second_byte.is_some_and(|byte| (192..=223).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_first_byte_belongs_to_the_protocol_of_rfc_7983() {
        for first in 0..=255_u8 {
            let want = match first {
                0..=3 => Packet::Stun,
                16..=19 => Packet::Zrtp,
                20..=63 => Packet::Dtls,
                64..=79 => Packet::TurnChannel,
                128..=191 => Packet::Rtp,
                4..=15 | 80..=127 | 192..=255 => Packet::Unknown,
            };
            assert_eq!(classify(&[first, 0]), want, "first byte {first}");
        }
        assert_eq!(classify(&[]), Packet::Unknown);
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_its_packet_type() {
        let cases = [
            ("sender report", 200, Packet::Rtcp),
            ("XR", 207, Packet::Rtcp),
            ("Opus 111", 111, Packet::Rtp),
            ("Opus 111 with marker", 239, Packet::Rtp),
            ("PCMU with marker", 128, Packet::Rtp),
        ];
        for (name, second, want) in cases {
            assert_eq!(classify(&[0x80, second]), want, "case: {name}");
        }
    }
}
