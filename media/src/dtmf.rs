//! Telephone keys as RTP events, both directions (RFC 4733 §2).
//!
//! ```text
//!  tick      0      1      2      3      4       5       6     7…9
//!  packet    M      ·      ·      ·      E       E       E     sound
//!  duration  1      2      3      4      5       5       5     frames: 100 ms in all
//! ```
//!
//! The timestamp of all seven is that of the event's start. A receiver needs one of them to know the key, and knows by
//! the timestamp that it has heard of it before.

use std::collections::VecDeque;

use crate::error::MediaError;
use crate::session::DIGITS_MAX;

/// Frames of 20 ms that a key sounds: 100 ms, above the 40 ms every receiver detects (RFC 4733 §2.3.5).
const SOUND_FRAMES: u16 = 5;
/// The packet with the E bit is sent three times (RFC 4733 §2.5.1.4).
const END_REPEATS: u16 = 3;
/// Ticks per digit: sound, repeats of the end, and a pause that separates equal keys.
const DIGIT_FRAMES: u16 = 10;
/// Usual level, 10 dB below the reference (RFC 4733 §2.3.4).
const VOLUME: u8 = 10;
/// Event starts remembered: as many keys as can be on their way while packets overtake each other.
const STARTS_MAX: usize = 16; // 3 s of keys pressed as fast as we send them

/// Keys in the order of their event codes 0 to 15 (RFC 4733 §3.2).
const KEYS: &str = "0123456789*#ABCD";

/// What to send in this tick instead of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPacket {
    /// First packet of the event.
    pub marker: bool,
    /// The payload.
    pub payload: [u8; 4],
}

/// Digits waiting and the one being sent.
#[derive(Debug, Default)]
pub struct Sender {
    waiting: VecDeque<u8>,
    current: Option<(u8, u16)>,
}

/// One tick of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// No digit: sound.
    Sound,
    /// Between digits: sound.
    Pause,
    /// An event packet instead of sound.
    Event(EventPacket),
    /// The last digit's pause is over: sound, and all digits are sent.
    Finished,
}

impl Sender {
    /// Queues digits.
    ///
    /// # Errors
    ///
    /// [`MediaError::NotADigit`] or [`MediaError::TooManyDigits`]; then none is queued.
    pub fn push(&mut self, digits: &str) -> Result<(), MediaError> {
        let mut codes = Vec::new();
        for digit in digits.chars() {
            let position = KEYS.find(digit.to_ascii_uppercase()).and_then(|position| u8::try_from(position).ok());
            codes.push(position.ok_or(MediaError::NotADigit(digit))?);
        }
        if self.waiting.len() + codes.len() > DIGITS_MAX {
            return Err(MediaError::TooManyDigits(DIGITS_MAX));
        }
        self.waiting.extend(codes);
        Ok(())
    }

    /// Moves on by one frame. `frame_units` is a frame in the clock of the event.
    pub fn tick(&mut self, frame_units: u16) -> Tick {
        let Some((code, frame)) = self.current.or_else(|| self.waiting.pop_front().map(|code| (code, 0))) else {
            return Tick::Sound;
        };
        self.current = (frame + 1 < DIGIT_FRAMES).then_some((code, frame + 1));
        if frame < SOUND_FRAMES + END_REPEATS - 1 {
            let sounded = (frame + 1).min(SOUND_FRAMES);
            let end = if sounded == SOUND_FRAMES { 0x80 } else { 0 };
            let [high, low] = sounded.saturating_mul(frame_units).to_be_bytes();
            return Tick::Event(EventPacket { marker: frame == 0, payload: [code, end | VOLUME, high, low] });
        }
        if self.current.is_none() && self.waiting.is_empty() { Tick::Finished } else { Tick::Pause }
    }
}

/// Hears keys, each once.
#[derive(Debug, Default)]
pub struct Receiver {
    /// Timestamp of the start, event code, and the longest duration heard of it.
    starts: VecDeque<(u32, u8, u16)>,
}

impl Receiver {
    /// Takes an event payload; gives the key if this is the first packet of its event.
    pub fn receive(&mut self, timestamp: u32, payload: &[u8]) -> Option<char> {
        let (&[code, _, high, low], _) = payload.split_first_chunk::<4>()?;
        let digit = KEYS.chars().nth(usize::from(code))?; // events above 15 are tones of no interest here
        let duration = u16::from_be_bytes([high, low]);
        if let Some(start) = self.starts.iter_mut().find(|start| start.0 == timestamp) {
            start.2 = start.2.max(duration);
            return None;
        }
        // A key held longer than the duration field can say goes on in a new segment that starts where the full one
        // ended (RFC 4733 §2.5.1.3).
        let continues = self.starts.iter().any(|(start, held, longest)| {
            *held == code && *longest > 0xf000 && timestamp.wrapping_sub(*start) <= u32::from(*longest) + 1_920
        });
        if self.starts.len() == STARTS_MAX {
            self.starts.pop_front();
        }
        self.starts.push_back((timestamp, code, duration));
        (!continues).then_some(digit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(digits: &str, count: usize) -> Vec<Tick> {
        let mut sender = Sender::default();
        sender.push(digits).unwrap();
        (0..count).map(|_| sender.tick(960)).collect()
    }

    #[test]
    fn a_digit_is_seven_packets_with_growing_duration_and_three_ends() {
        let sent = ticks("#", 11);
        let event = |marker, end: u8, frames: u16| {
            let [high, low] = (frames * 960).to_be_bytes();
            Tick::Event(EventPacket { marker, payload: [11, end | VOLUME, high, low] })
        };
        let mut want = vec![event(true, 0, 1), event(false, 0, 2), event(false, 0, 3), event(false, 0, 4)];
        want.extend([event(false, 0x80, 5); 3]);
        want.extend([Tick::Pause, Tick::Pause, Tick::Finished, Tick::Sound]);
        assert_eq!(sent, want);
    }

    #[test]
    fn keys_have_the_codes_of_the_registry_and_others_are_refused() {
        let mut sender = Sender::default();
        assert_eq!(sender.push("12x"), Err(MediaError::NotADigit('x')));
        assert_eq!(sender.tick(960), Tick::Sound); // nothing of a refused string is sent
        assert_eq!(sender.push(&"1".repeat(65)), Err(MediaError::TooManyDigits(64)));
        for (key, code) in [("0", 0), ("9", 9), ("*", 10), ("#", 11), ("a", 12), ("D", 15)] {
            let Some(Tick::Event(packet)) = ticks(key, 1).pop() else { panic!("case: {key}") };
            assert_eq!(packet.payload[0], code, "case: {key}");
        }
    }

    #[test]
    fn a_key_is_heard_once_from_any_one_of_its_packets_in_any_order() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.receive(960, &[5, 0x8a, 0x12, 0xc0]), Some('5'));
        assert_eq!(receiver.receive(960, &[5, 0x0a, 0x03, 0xc0]), None);
        assert_eq!(receiver.receive(10_560, &[5, 0x0a, 0x03, 0xc0]), Some('5'));
        assert_eq!(receiver.receive(960, &[5, 0x8a, 0x12, 0xc0]), None);
        assert_eq!(receiver.receive(20_000, &[16, 0, 0, 0]), None);
        assert_eq!(receiver.receive(20_000, &[1, 0]), None);
    }

    #[test]
    fn a_long_press_in_two_segments_is_one_key() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.receive(1_000, &[1, 10, 0, 160]), Some('1'));
        assert_eq!(receiver.receive(1_000, &[1, 10, 0xff, 0xff]), None);
        assert_eq!(receiver.receive(1_000 + 0xffff, &[1, 10, 0, 160]), None);
    }
}
