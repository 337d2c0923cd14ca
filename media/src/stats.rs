//! What a call's media looks like in figures.

use std::time::Duration;

use crate::config::Codec;

/// Who measured a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RttOrigin {
    /// LSR and DLSR of the peer's reports (RFC 3550 §6.4.1).
    Rtcp,
    /// The last connectivity or consent check, given by the owner.
    Ice,
}

/// A round trip time and its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rtt {
    /// Time there and back.
    pub value: Duration,
    /// Who measured it.
    pub origin: RttOrigin,
}

/// A snapshot of the session's counters. Counters start at the session's start and never decrease, except `lost`, from
/// which late arrivals are taken back.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Codec being sent.
    pub codec: Codec,
    /// Codec last received.
    pub remote_codec: Option<Codec>,
    /// RTP packets sent.
    pub sent: u64,
    /// Payload bytes sent.
    pub sent_bytes: u64,
    /// RTP packets accepted, duplicates included.
    pub received: u64,
    /// Payload bytes received.
    pub received_bytes: u64,
    /// Packets expected by sequence number that never came (RFC 3550 §A.3).
    pub lost: u64,
    /// Packets that came after their moment of playing.
    pub late: u64,
    /// Packets that came twice.
    pub duplicated: u64,
    /// Packets that came after one sent later.
    pub reordered: u64,
    /// Packets that failed authentication, or that no key fits.
    pub rejected: u64,
    /// Packets with a payload type that was not negotiated, or that cannot be read.
    pub unreadable: u64,
    /// Frames of 20 ms made up because nothing was there.
    pub concealed: u64,
    /// Lost frames restored from the redundancy in the next packet.
    pub recovered: u64,
    /// Loss of the last seconds as we receive, 0..=100.
    pub loss_percent: f32,
    /// Loss the peer reports, 0..=100.
    pub remote_loss_percent: Option<f32>,
    /// Interarrival jitter as we receive (RFC 3550 §A.8).
    pub jitter_ms: f32,
    /// Jitter the peer reports.
    pub remote_jitter_ms: Option<f32>,
    /// How much later a frame is played than the fastest packet of the last seconds would have allowed.
    pub delay_ms: f32,
    /// What `delay_ms` is being steered to.
    pub target_delay_ms: f32,
    /// The best known round trip.
    pub rtt: Option<Rtt>,
    /// Level of what is said, RMS dB relative to full scale, -96 for silence.
    pub level_out_dbfs: f32,
    /// Level of what is heard, RMS dB relative to full scale, -96 for silence.
    pub level_in_dbfs: f32,
    /// Estimated quality of what is heard, 1.0..=4.5 (ITU-T G.107); `None` before the first packet.
    pub mos: Option<f32>,
}

impl Stats {
    /// Nothing sent, nothing received.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            remote_codec: None,
            sent: 0,
            sent_bytes: 0,
            received: 0,
            received_bytes: 0,
            lost: 0,
            late: 0,
            duplicated: 0,
            reordered: 0,
            rejected: 0,
            unreadable: 0,
            concealed: 0,
            recovered: 0,
            loss_percent: 0.0,
            remote_loss_percent: None,
            jitter_ms: 0.0,
            remote_jitter_ms: None,
            delay_ms: 0.0,
            target_delay_ms: 0.0,
            rtt: None,
            level_out_dbfs: -96.0,
            level_in_dbfs: -96.0,
            mos: None,
        }
    }
}
