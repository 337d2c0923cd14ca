//! The stream we send: sequence number, timestamp, counters for sender reports (RFC 3550 §5.1, §6.4.1).

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng as _;

use super::packet::Packet;

/// State of one outgoing synchronisation source.
#[derive(Debug)]
pub struct Sender {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    packets: u32,
    payload_bytes: u32,
    after_silence: bool,
}

impl Sender {
    /// Sequence number below 2^15, so that no packet lost at the start can hide a rollover from SRTP (RFC 4568 §6.4);
    /// timestamp and SSRC are random (RFC 3550 §5.1).
    pub fn new(ssrc: Option<u32>, rng: &mut ChaCha20Rng) -> Self {
        let ssrc = ssrc.unwrap_or_else(|| rng.next_u32());
        let [high, low, ..] = rng.next_u32().to_be_bytes();
        let sequence = u16::from_be_bytes([high, low]) & 0x7fff;
        Self { ssrc, sequence, timestamp: rng.next_u32(), packets: 0, payload_bytes: 0, after_silence: true }
    }

    /// Our synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Timestamp of the frame now in hand.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// Packets and payload bytes, as a sender report counts them: modulo 2^32.
    pub fn counts(&self) -> (u32, u32) {
        (self.packets, self.payload_bytes)
    }

    /// Moves to the next frame, whether or not this one was sent.
    pub fn advance(&mut self, clock_units: u32) {
        self.timestamp = self.timestamp.wrapping_add(clock_units);
    }

    /// The next sound packet will carry the marker bit (RFC 3551 §4.1).
    pub fn mark_next(&mut self) {
        self.after_silence = true;
    }

    /// One packet of sound at the current timestamp.
    pub fn sound(&mut self, payload_type: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let marker = std::mem::take(&mut self.after_silence);
        self.write(marker, payload_type, self.timestamp, payload)
    }

    /// One packet of a telephone-event, whose timestamp is that of the event's start (RFC 4733 §2.2).
    pub fn event(&mut self, marker: bool, payload_type: u8, timestamp: u32, payload: &[u8]) -> Option<Vec<u8>> {
        self.after_silence = true;
        self.write(marker, payload_type, timestamp, payload)
    }

    fn write(&mut self, marker: bool, payload_type: u8, timestamp: u32, payload: &[u8]) -> Option<Vec<u8>> {
        let packet = Packet { marker, payload_type, sequence: self.sequence, timestamp, ssrc: self.ssrc, payload };
        let bytes = packet.to_bytes()?;
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.payload_bytes = self.payload_bytes.wrapping_add(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng as _;

    #[test]
    fn the_first_sequence_number_is_below_32768_whatever_the_seed() {
        for seed in 0..200 {
            assert!(Sender::new(None, &mut ChaCha20Rng::seed_from_u64(seed)).sequence < 0x8000, "seed {seed}");
        }
    }

    #[test]
    fn only_the_first_packet_after_silence_is_marked_and_numbers_run_on() {
        let mut sender = Sender::new(Some(9), &mut ChaCha20Rng::seed_from_u64(1));
        let read = |sender: &mut Sender| {
            let bytes = sender.sound(111, &[1]).unwrap();
            sender.advance(960);
            let packet = Packet::parse(&bytes).unwrap();
            (packet.marker, packet.sequence, packet.timestamp)
        };
        let (marker, sequence, timestamp) = read(&mut sender);
        assert!(marker);
        assert_eq!(read(&mut sender), (false, sequence + 1, timestamp.wrapping_add(960)));
        sender.mark_next();
        assert_eq!(read(&mut sender), (true, sequence + 2, timestamp.wrapping_add(1920)));
        assert_eq!(sender.counts(), (3, 3));
    }
}
