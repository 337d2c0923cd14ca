//! Opus with in-band FEC (RFC 6716 §2.1.7), mono at 48 kHz, packets as in RFC 7587 §4.

use std::fmt;

use opus::{Application, Bitrate, Channels};

use crate::config::OpusSettings;
use crate::error::MediaError;
use crate::{Frame, SAMPLE_RATE_HZ, sample};

/// Longest duration of a packet in samples: 120 ms (RFC 6716 §3.2.5).
const PACKET_SAMPLES_MAX: usize = 5_760; // what one packet can make us decode
/// Largest payload produced; libopus never exceeds 1275 bytes a frame (RFC 6716 §3.2.1).
const PAYLOAD_BYTES_MAX: usize = 1_275; // the format's own limit
/// The loss figure libopus gets is capped: beyond it redundancy eats the voice itself.
const LOSS_PERCENT_MAX: f32 = 30.0; // the encoder's bandwidth decisions degrade above

/// Frames to payloads.
pub struct Encoder {
    encoder: opus::Encoder,
    loss_percent: i32,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("loss_percent", &self.loss_percent).finish_non_exhaustive()
    }
}

impl Encoder {
    /// # Errors
    ///
    /// [`MediaError::Opus`] names the setting that libopus refused.
    pub fn new(settings: OpusSettings) -> Result<Self, MediaError> {
        let refused =
            |what: String| move |error: opus::Error| MediaError::Opus { what, cause: error.description().to_owned() };
        let mut encoder = opus::Encoder::new(SAMPLE_RATE_HZ, Channels::Mono, Application::Voip)
            .map_err(refused("an encoder".to_owned()))?;
        let bitrate = i32::try_from(settings.bitrate).unwrap_or(i32::MAX);
        encoder
            .set_complexity(i32::from(settings.complexity))
            .map_err(refused(format!("complexity {}", settings.complexity)))?;
        encoder.set_bitrate(Bitrate::Bits(bitrate)).map_err(refused(format!("bitrate {bitrate}")))?;
        encoder.set_inband_fec(settings.fec).map_err(refused("in-band FEC".to_owned()))?;
        encoder.set_dtx(settings.dtx).map_err(refused("DTX".to_owned()))?;
        Ok(Self { encoder, loss_percent: 0 })
    }

    /// One payload. `None` for a frame that DTX leaves out (RFC 7587 §3.1.3), or if libopus fails.
    pub fn encode(&mut self, frame: &Frame) -> Option<Vec<u8>> {
        let payload = self.encoder.encode_vec(frame, PAYLOAD_BYTES_MAX).ok()?;
        (payload.len() > 2).then_some(payload)
    }

    /// Sizes the redundancy. libopus is only told when the figure changes.
    pub fn set_loss_percent(&mut self, loss_percent: f32) {
        let loss_percent = i32::from(sample::round_i16(loss_percent.clamp(0.0, LOSS_PERCENT_MAX)));
        if loss_percent != self.loss_percent && self.encoder.set_packet_loss_perc(loss_percent).is_ok() {
            self.loss_percent = loss_percent;
        }
    }
}

/// Payloads to samples.
pub struct Decoder {
    decoder: opus::Decoder,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// # Errors
    ///
    /// [`MediaError::Opus`] if there is no memory.
    pub fn new() -> Result<Self, MediaError> {
        let decoder = opus::Decoder::new(SAMPLE_RATE_HZ, Channels::Mono).map_err(|error| MediaError::Opus {
            what: "a decoder".to_owned(),
            cause: error.description().to_owned(),
        })?;
        Ok(Self { decoder })
    }

    /// Appends the samples of a packet; gives their number.
    pub fn decode(&mut self, payload: &[u8], sound: &mut Vec<i16>) -> Option<usize> {
        if payload.is_empty() {
            return None; // libopus would take it for a lost packet
        }
        self.append(payload, PACKET_SAMPLES_MAX, false, sound)
    }

    /// Appends the frame lost before `next`, from the coarse copy in it; without one libopus conceals.
    pub fn recover(&mut self, next: &[u8], samples: usize, sound: &mut Vec<i16>) -> Option<usize> {
        self.append(next, samples.min(PACKET_SAMPLES_MAX), true, sound)
    }

    /// Appends sound made up from what was heard before; `samples` is the duration of a packet.
    pub fn conceal(&mut self, samples: usize, sound: &mut Vec<i16>) -> Option<usize> {
        self.append(&[], samples.min(PACKET_SAMPLES_MAX), false, sound)
    }

    fn append(&mut self, payload: &[u8], samples: usize, fec: bool, sound: &mut Vec<i16>) -> Option<usize> {
        let before = sound.len();
        sound.resize(before + samples, 0);
        let decoded = sound.get_mut(before..).and_then(|room| self.decoder.decode(payload, room, fec).ok());
        sound.truncate(before + decoded.unwrap_or(0));
        decoded
    }
}

/// Duration of a packet in samples at 48 kHz; `None` if it is no Opus packet.
pub fn duration(payload: &[u8]) -> Option<usize> {
    let samples = opus::packet::get_nb_samples(payload, SAMPLE_RATE_HZ).ok()?;
    (1..=PACKET_SAMPLES_MAX).contains(&samples).then_some(samples)
}

/// Whether a packet carries a coarse copy of the frame before it: the LBRR flag behind the voice activity flags of a
/// SILK or hybrid frame (RFC 6716 §4.2.3). Read for packets of one frame, which is what telephones send.
pub fn has_redundancy(payload: &[u8]) -> bool {
    let [toc, first, ..] = payload else { return false };
    let (configuration, frames) = (toc >> 3, toc & 3);
    if configuration >= 16 || frames != 0 {
        return false; // CELT only, or several frames
    }
    // SILK frames of 40 and 60 ms have two and three voice activity flags.
    let voice_flags =
        if configuration < 12 { [1, 1, 2, 3].get(usize::from(configuration & 3)).copied().unwrap_or(1) } else { 1 };
    first >> (7 - voice_flags) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FRAME_SAMPLES;

    fn tone(frame: usize) -> Frame {
        let mut samples = [0; FRAME_SAMPLES];
        for (index, value) in samples.iter_mut().enumerate() {
            let at = sample::len(frame * FRAME_SAMPLES + index);
            let voice = (at * 0.026).sin() * 0.3 + (at * 0.052).sin() * 0.2 + (at * 0.13).sin() * 0.1;
            *value = sample::to_i16(voice * (0.6 + 0.4 * (at * 0.0008).sin()));
        }
        samples
    }

    #[test]
    fn at_32_kbit_a_second_of_sound_is_about_4_kilobytes() {
        let mut encoder = Encoder::new(OpusSettings::default()).unwrap();
        let bytes: usize = (0..50).filter_map(|frame| encoder.encode(&tone(frame))).map(|payload| payload.len()).sum();
        assert!((2_000..5_500).contains(&bytes), "{bytes}");
    }

    #[test]
    fn redundancy_appears_when_the_peer_reports_loss_and_restores_the_lost_frame() {
        let mut encoder = Encoder::new(OpusSettings { bitrate: 24_000, ..OpusSettings::default() }).unwrap();
        let without = (0..50).filter_map(|frame| encoder.encode(&tone(frame))).filter(|p| has_redundancy(p)).count();
        encoder.set_loss_percent(20.0);
        let payloads: Vec<_> = (50..100).filter_map(|frame| encoder.encode(&tone(frame))).collect();
        let with = payloads.iter().filter(|payload| has_redundancy(payload)).count();
        assert!(without == 0 && with > 30, "{without} {with}");

        let mut decoder = Decoder::new().unwrap();
        let mut sound = Vec::new();
        for payload in &payloads[..40] {
            decoder.decode(payload, &mut sound);
        }
        assert_eq!(decoder.recover(&payloads[41], FRAME_SAMPLES, &mut sound), Some(FRAME_SAMPLES));
        assert!(sample::level_dbfs(&sound[sound.len() - FRAME_SAMPLES..]) > -30.0);
    }

    #[test]
    fn settings_outside_their_range_are_refused_by_name() {
        let error = Encoder::new(OpusSettings { complexity: 11, ..OpusSettings::default() }).unwrap_err();
        assert!(error.to_string().contains("complexity 11"), "{error}");
    }

    #[test]
    fn any_bytes_are_decoded_or_refused() {
        let mut decoder = Decoder::new().unwrap();
        for seed in 0..2_000_u32 {
            let payload: Vec<u8> =
                (0..seed % 90).map(|at| (seed.wrapping_mul(2_654_435_761) >> (at % 24)).to_be_bytes()[3]).collect();
            let mut sound = Vec::new();
            if let Some(samples) = decoder.decode(&payload, &mut sound) {
                assert_eq!(samples, sound.len());
            }
            duration(&payload);
            has_redundancy(&payload);
        }
    }
}
