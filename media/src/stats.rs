//! What a call's media looks like in figures.

use std::time::Duration;

use crate::config::Codec;
use crate::{Frame, sample};

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

/// A level meter with the inertia of an eye: most of a change shows within a quarter of a second.
#[derive(Debug, Default)]
pub(crate) struct Level {
    mean_square: f32,
}

impl Level {
    pub(crate) fn hear(&mut self, frame: &Frame) {
        let squares: f32 = frame.iter().map(|value| sample::to_f32(*value) * sample::to_f32(*value)).sum();
        self.mean_square += (squares / sample::len(frame.len()) - self.mean_square) * 0.2;
    }

    pub(crate) fn dbfs(&self) -> f32 {
        if self.mean_square > 0.0 { (10.0 * self.mean_square.log10()).max(-96.0) } else { -96.0 }
    }
}

/// Mean opinion score, 1.0..=4.5, by the E-model with all its parameters at their defaults but loss and delay
/// (ITU-T G.107 §7.4 delay, §7.5 equipment, Annex B score).
///
/// `loss_percent` is what remains after redundancy, `mouth_to_ear_ms` the network's one-way delay and the buffer's.
pub fn mos(codec: Codec, loss_percent: f32, mouth_to_ear_ms: f32) -> f32 {
    // Robustness against random loss with concealment: G.711 with Appendix I from G.113 Table I.4; Opus comparable to
    // the packet loss robustness measured for it (no value is standardised).
    let (equipment, robustness) = match codec {
        Codec::Opus => (0.0, 20.0),
        Codec::Pcmu | Codec::Pcma => (0.0, 25.1),
    };
    let impairment = equipment + (95.0 - equipment) * loss_percent / (loss_percent + robustness);
    let rating = 93.2 - delay_impairment(mouth_to_ear_ms) - impairment;
    if rating <= 0.0 {
        return 1.0;
    }
    (1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6).clamp(1.0, 4.5)
}

/// Idd of ITU-T G.107: nothing up to 100 ms.
fn delay_impairment(mouth_to_ear_ms: f32) -> f32 {
    if mouth_to_ear_ms <= 100.0 {
        return 0.0;
    }
    let x = (mouth_to_ear_ms / 100.0).log2();
    25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_that_of_the_e_model_tables() {
        let cases = [
            ("a perfect line", Codec::Pcmu, 0.0, 0.0, 4.41),
            ("150 ms are hardly noticed", Codec::Pcmu, 0.0, 150.0, 4.40),
            ("400 ms annoy", Codec::Pcmu, 0.0, 400.0, 3.61),
            ("5 % lost with concealment", Codec::Pcmu, 5.0, 0.0, 3.96),
            ("half lost", Codec::Opus, 50.0, 0.0, 1.30),
        ];
        for (name, codec, loss, delay, want) in cases {
            let got = mos(codec, loss, delay);
            assert!((got - want).abs() < 0.15, "case: {name}: {got}");
        }
    }

    #[test]
    fn more_loss_and_more_delay_never_sound_better() {
        let scores: Vec<f32> = (0..100).map(|loss| mos(Codec::Opus, sample::len(loss), 50.0)).collect();
        assert!(scores.windows(2).all(|pair| pair[1] <= pair[0]) && (1.0..=4.5).contains(&scores[99]));
        let scores: Vec<f32> = (0..100).map(|delay| mos(Codec::Opus, 0.0, sample::len(delay) * 10.0)).collect();
        assert!(scores.windows(2).all(|pair| pair[1] <= pair[0] + 0.01));
    }
}
