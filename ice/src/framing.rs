//! RFC 4571 §2: packets on a stream, each behind a 16-bit big-endian length. RFC 6544 §3 uses it for STUN and media.

/// A frame is at most 65,535 bytes long; what is buffered never exceeds one frame plus one read of the driver.
const BUFFER_MAX: usize = 2 * 65_537;

/// The frame around `packet`, or `None` if it is longer than the length field can say.
pub fn frame(packet: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(packet.len()).ok()?;
    let mut framed = Vec::with_capacity(packet.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(packet);
    Some(framed)
}

/// Cuts a stream into packets.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
}

impl Deframer {
    /// Adds received bytes; then take packets until `None`.
    ///
    /// # Errors
    ///
    /// [`Overflow`] if the owner did not take the packets: the stream is to be closed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        if self.buffer.len() + bytes.len() > BUFFER_MAX {
            return Err(Overflow);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole packet. Empty frames are legal and skipped.
    pub fn next_packet(&mut self) -> Option<Vec<u8>> {
        loop {
            let (length, rest) = self.buffer.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            let packet = rest.get(..length)?.to_vec();
            self.buffer.drain(..length + 2);
            if !packet.is_empty() {
                return Some(packet);
            }
        }
    }
}

/// More bytes than two frames were left waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {BUFFER_MAX} bytes of an RFC 4571 stream are waiting; close it")]
pub struct Overflow;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packets_survive_any_cutting_of_the_stream(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..12),
            cut in 1_usize..50,
        ) {
            let stream: Vec<u8> = packets.iter().flat_map(|packet| frame(packet).unwrap()).collect();
            let (mut deframer, mut received) = (Deframer::default(), Vec::new());
            for piece in stream.chunks(cut) {
                deframer.push(piece).unwrap();
                while let Some(packet) = deframer.next_packet() {
                    received.push(packet);
                }
            }
            prop_assert_eq!(received, packets);
        }
    }

    #[test]
    fn a_packet_longer_than_the_length_field_is_not_framed() {
        assert_eq!(frame(&vec![0; 65_536]), None);
        assert_eq!(frame(&vec![0; 65_535]).map(|framed| framed.len()), Some(65_537));
    }
}
