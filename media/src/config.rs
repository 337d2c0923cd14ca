//! What a session needs to know: payload formats as negotiated, keys, names, its source of sound.

use std::time::{Duration, Instant};

use crate::audio::source::Source;
use crate::srtp::sdes::MasterKey;

/// Audio codecs this phone speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// RFC 6716 §2, always `opus/48000/2` in SDP (RFC 7587 §4.1).
    Opus,
    /// G.711 µ-law, static payload type 0 (RFC 3551 §6).
    Pcmu,
    /// G.711 A-law, static payload type 8 (RFC 3551 §6).
    Pcma,
}

impl Codec {
    /// Units of the RTP timestamp per second.
    pub fn clock_hz(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// Encoding name of `a=rtpmap`, as written by us.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// `a=rtpmap` value behind the payload number, for example `opus/48000/2`.
    pub fn rtpmap(self) -> &'static str {
        match self {
            Self::Opus => "opus/48000/2",
            Self::Pcmu => "PCMU/8000",
            Self::Pcma => "PCMA/8000",
        }
    }
}

/// A codec and the payload type number under which one side wants to receive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// 0..=127; never 64..=95, which RTCP occupies on a muxed port (RFC 5761 §4).
    pub payload_type: u8,
    /// What the number means.
    pub codec: Codec,
}

/// `telephone-event` under its payload number (RFC 4733 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// 96..=127.
    pub payload_type: u8,
    /// 48000 or 8000: the clock of durations.
    pub clock_hz: u32,
}

/// The outcome of offer and answer. A payload number always belongs to its receiver (RFC 3264 §5.1): `send` uses the
/// peer's numbers, `receive` ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formats {
    /// What is sent.
    pub send: Format,
    /// Digits that the peer takes; `None` if it announced no telephone-event in the clock of `send`, and no other.
    pub send_event: Option<TelephoneEvent>,
    /// Everything that the peer may send at any moment.
    pub receive: Vec<Format>,
    /// Digits under our numbers.
    pub receive_events: Vec<TelephoneEvent>,
}

impl Formats {
    /// Opus as 111 with digits as 110 both ways, PCMU and PCMA understood: for tests, and before an answer is known.
    pub fn opus() -> Self {
        let opus = Format { payload_type: 111, codec: Codec::Opus };
        let event = TelephoneEvent { payload_type: 110, clock_hz: 48_000 };
        Self {
            send: opus,
            send_event: Some(event),
            receive: vec![
                opus,
                Format { payload_type: 0, codec: Codec::Pcmu },
                Format { payload_type: 8, codec: Codec::Pcma },
            ],
            receive_events: vec![event, TelephoneEvent { payload_type: 101, clock_hz: 8_000 }],
        }
    }

    /// G.711 under its static number both ways, digits as 101.
    pub fn g711(codec: Codec) -> Self {
        let payload_type = if codec == Codec::Pcma { 8 } else { 0 };
        let event = TelephoneEvent { payload_type: 101, clock_hz: 8_000 };
        Self { send: Format { payload_type, codec }, send_event: Some(event), ..Self::opus() }
    }
}

/// Whether packets are protected, and with which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Plain RTP and RTCP.
    Clear,
    /// SRTP with keys from `a=crypto` (RFC 4568 §6).
    Sdes {
        /// Protects what we send.
        local: MasterKey,
        /// Keys of the peer, or of several forks; empty until an answer brings one. Nothing is played before.
        remote: Vec<MasterKey>,
    },
}

/// Settings of the Opus encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusSettings {
    /// 0..=10.
    pub complexity: u8,
    /// Bits per second, 6000..=510000.
    pub bitrate: u32,
    /// In-band FEC: a coarse copy of each frame travels in the next packet, sized by the loss the peer reports.
    pub fec: bool,
    /// Send nothing during silence.
    pub dtx: bool,
}

impl Default for OpusSettings {
    fn default() -> Self {
        Self { complexity: 5, bitrate: 32_000, fec: true, dtx: false }
    }
}

/// Wall clock in NTP format: seconds since 1900 in the upper 32 bits, the fraction in the lower (RFC 3550 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// Seconds between 1900 and 1970.
    const UNIX_EPOCH_S: u64 = 2_208_988_800;

    /// From the time since 1970.
    pub fn from_unix(since_1970: Duration) -> Self {
        Self(Self::UNIX_EPOCH_S.wrapping_add(since_1970.as_secs()) << 32 | u64::from(fraction(since_1970)))
    }

    /// This moment plus `elapsed`.
    #[must_use]
    pub fn plus(self, elapsed: Duration) -> Self {
        Self(self.0.wrapping_add(elapsed.as_secs() << 32).wrapping_add(u64::from(fraction(elapsed))))
    }

    /// The middle 32 bits: 16 of the seconds, 16 of the fraction, as LSR wants them (RFC 3550 §6.4.1).
    pub fn middle(self) -> u32 {
        u32::try_from(self.0 >> 16 & 0xffff_ffff).unwrap_or(0)
    }
}

/// The part below a second in units of 2^-32 s.
fn fraction(of: Duration) -> u32 {
    u32::try_from((u64::from(of.subsec_nanos()) << 32) / 1_000_000_000).unwrap_or(u32::MAX)
}

/// Everything a [`crate::Session`] is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Negotiated payload formats; replaced later by [`crate::Session::set_formats`].
    pub formats: Formats,
    /// Clear or SDES.
    pub protection: Protection,
    /// RTP and RTCP share component 1 (RFC 5761 §5.1.1); replaced later by [`crate::Session::set_mux`].
    pub mux: bool,
    /// Canonical name in RTCP SDES, the same for all streams of a call and not a personal one (RFC 7022 §4.2).
    pub cname: String,
    /// Our synchronisation source; drawn from the seed if `None`.
    pub ssrc: Option<u32>,
    /// What is said.
    pub source: Source,
    /// The wall clock at a moment, for sender reports.
    pub wall: (Instant, NtpTime),
    /// Encoder settings.
    pub opus: OpusSettings,
    /// Emit [`crate::Output::Said`] beside each [`crate::Output::Play`], for recordings of both sides.
    pub tap: bool,
}

impl Config {
    /// Opus in the clear on a muxed component with the tune as source: the shortest useful session.
    pub fn new(now: Instant) -> Self {
        Self {
            formats: Formats::opus(),
            protection: Protection::Clear,
            mux: true,
            cname: "icephone".to_owned(),
            ssrc: None,
            source: Source::Tune,
            wall: (now, NtpTime(0)),
            opus: OpusSettings::default(),
            tap: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_time_counts_from_1900_and_its_middle_has_16_bits_of_each_part() {
        let half_past = NtpTime::from_unix(Duration::from_millis(500));
        assert_eq!(half_past.0, 2_208_988_800 << 32 | 0x8000_0000);
        assert_eq!(half_past.middle(), 0x7e80_8000);
        assert_eq!(half_past.plus(Duration::from_millis(1500)).0, 2_208_988_802 << 32);
    }
}
