//! TURN on a stream: STUN messages by their length, ChannelData padded to 4 bytes. RFC 8656 §3.1, §12.5.

/// One message is at most 64 KiB long, and as much is pushed at once.
const BUFFER_MAX: usize = 2 * 65_560;
/// What may be pushed at once if all messages were taken before.
pub const PUSH_MAX: usize = 65_536;

/// The stream does not speak TURN, or its owner does not read: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream carries neither STUN nor ChannelData")]
pub struct NotTurn;

/// Cuts a stream into messages.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    /// Start of what is not yet taken.
    taken: usize,
}

impl Deframer {
    /// Adds received bytes; then take messages until `Ok(None)`.
    ///
    /// # Errors
    ///
    /// [`NotTurn`] if more than two messages are left waiting.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), NotTurn> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.len() + bytes.len() > BUFFER_MAX {
            return Err(NotTurn);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole message, ChannelData without its padding.
    ///
    /// # Errors
    ///
    /// [`NotTurn`] if the next bytes begin neither a STUN message nor ChannelData.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, NotTurn> {
        let waiting = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((first, _)) = waiting.split_first() else { return Ok(None) };
        let header = match first {
            0..=3 => 20,
            64..=79 => 4,
            _ => return Err(NotTurn),
        };
        let Some([_, _, l0, l1]) = waiting.first_chunk() else { return Ok(None) };
        let length = header + usize::from(u16::from_be_bytes([*l0, *l1]));
        let padded = if header == 4 { length.next_multiple_of(4) } else { length };
        if waiting.len() < padded {
            return Ok(None);
        }
        let message = waiting.get(..length).map(<[u8]>::to_vec);
        self.taken += padded;
        Ok(message)
    }

    /// Whether what waits is the beginning of ChannelData.
    pub fn awaits_channel_data(&self) -> bool {
        self.buffer.get(self.taken).is_some_and(|first| (64..=79).contains(first))
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel;
    use super::*;
    use crate::stun::{Attribute, Builder, Class, Method, TransactionId};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_any_cutting_of_the_stream(
            payloads in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..12),
            cut in 1_usize..60,
        ) {
            let (mut stream, mut want) = (Vec::new(), Vec::new());
            for (is_channel, payload) in payloads {
                if is_channel {
                    stream.extend(channel::encode(0x4000, &payload, true).unwrap());
                    want.push(channel::encode(0x4000, &payload, false).unwrap());
                } else {
                    let message = Builder::new(Class::Indication, Method::DATA, TransactionId::new([1; 12]))
                        .with(&Attribute::Data(&payload)).build();
                    stream.extend_from_slice(&message);
                    want.push(message);
                }
            }
            let (mut deframer, mut got) = (Deframer::default(), Vec::new());
            for piece in stream.chunks(cut) {
                deframer.push(piece).unwrap();
                while let Some(message) = deframer.next_message().unwrap() {
                    got.push(message);
                }
            }
            prop_assert_eq!(got, want);
        }

        #[test]
        fn no_bytes_make_the_deframer_panic(noise in prop::collection::vec(any::<u8>(), 0..400), cut in 1_usize..60) {
            let mut deframer = Deframer::default();
            for piece in noise.chunks(cut) {
                if deframer.push(piece).is_err() {
                    break;
                }
                while let Ok(Some(_)) = deframer.next_message() {}
            }
        }
    }
}
