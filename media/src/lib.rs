//! What flows in a call: sound in frames of 20 ms, Opus or G.711, RTP, SRTP, RTCP, as a sans-IO [`Session`].
//!
//! ```text
//!            said                                                            heard
//!  Source ──▶ frame ──▶ codec ──▶ rtp::Sender ──┐          ┌── rtp::Receiver ◀── srtp::Inbound ◀── packet
//!  (microphone, tune,    (or dtmf::Sender)      │          │     per SSRC          (several keys)
//!   samples, echo, …)                           ▼          ▼
//!                                     srtp::Outbound   jitter::Buffer ──▶ playout::Playout ──▶ frame ──▶ Play
//!                                               │                          (decode, FEC, conceal,
//!                                               ▼                           stretch, fade)
//!                                        Output::Packet            rtcp::Schedule ──▶ SR/RR + SDES (+ BYE)
//! ```
//!
//! The life of a frame: every 20 ms of the time given as `now` the session plays one frame (decoded, concealed or
//! silent) and, while sending, takes one frame from its [`Source`], encodes, protects and emits it. No clock, no
//! socket, no sound card: the owner carries packets, and the driver carries frames to and from a device.
//!
//! Reading order: [`session`], [`config`], [`rtp`], [`jitter`], [`playout`], [`scale`], [`codec`], [`srtp`], [`rtcp`], [`dtmf`],
//! [`stats`], [`audio`].
//!
//! Sound is 48 kHz, mono, `i16` everywhere ([`Frame`]); codecs with another rate convert at their edge.

#![warn(missing_docs)]

use std::time::Duration;

pub mod audio;
pub mod codec;
pub mod config;
pub mod dtmf;
pub mod error;
pub mod jitter;
pub mod playout;
pub mod rtcp;
pub mod rtp;
pub mod sample;
pub mod scale;
pub mod session;
pub mod srtp;
pub mod stats;

#[cfg(test)]
mod testing;

pub use audio::source::Source;
pub use config::{Codec, Config, Format, Formats, NtpTime, Protection, TelephoneEvent};
pub use error::MediaError;
pub use session::{Component, Event, Input, Output, Session};
pub use stats::Stats;

/// Samples per second of all sound inside the program.
pub const SAMPLE_RATE_HZ: u32 = 48_000;

/// Samples of one frame: 20 ms at 48 kHz.
pub const FRAME_SAMPLES: usize = 960;

/// Duration of one frame, and the period of the session's tick.
pub const FRAME: Duration = Duration::from_millis(20);

/// 20 ms of mono sound at 48 kHz.
pub type Frame = [i16; FRAME_SAMPLES];

/// A frame in which nothing is heard.
pub const SILENCE: Frame = [0; FRAME_SAMPLES];
