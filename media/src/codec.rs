//! Codecs: [`opus`], [`g711`], and the [`resample`]r between 8 and 48 kHz. [`Encoder`] and [`Decoder`] are what the
//! session uses.

pub mod g711;
pub mod opus;
pub mod resample;

use crate::Frame;
use crate::config::{Codec, OpusSettings};
use crate::error::MediaError;

use g711::Law;
use resample::{Down, Up};

/// Frames to payloads.
#[derive(Debug)]
pub enum Encoder {
    /// Opus at 48 kHz.
    Opus(opus::Encoder),
    /// G.711 behind a resampler.
    G711(Law, Box<Down>),
}

impl Encoder {
    /// An encoder for the codec.
    ///
    /// # Errors
    ///
    /// [`MediaError::Opus`].
    pub fn new(codec: Codec, settings: OpusSettings) -> Result<Self, MediaError> {
        match codec {
            Codec::Opus => Ok(Self::Opus(opus::Encoder::new(settings)?)),
            Codec::Pcmu => Ok(Self::G711(Law::Mu, Box::default())),
            Codec::Pcma => Ok(Self::G711(Law::A, Box::default())),
        }
    }

    /// The payload of one frame; `None` if there is nothing to send (DTX).
    pub fn encode(&mut self, frame: &Frame) -> Option<Vec<u8>> {
        match self {
            Self::Opus(encoder) => encoder.encode(frame),
            Self::G711(law, down) => Some(down.convert(frame).iter().map(|sample| law.encode(*sample)).collect()),
        }
    }

    /// Tells the encoder what the network loses, 0..=100.
    pub fn set_loss_percent(&mut self, loss_percent: f32) {
        match self {
            Self::Opus(encoder) => encoder.set_loss_percent(loss_percent),
            Self::G711(..) => {}
        }
    }
}

/// Payloads to samples at 48 kHz.
#[derive(Debug)]
pub enum Decoder {
    /// Opus, which conceals by itself.
    Opus(opus::Decoder),
    /// G.711 behind a resampler.
    G711(Law, Box<Up>),
}

impl Decoder {
    /// A decoder for the codec.
    ///
    /// # Errors
    ///
    /// [`MediaError::Opus`].
    pub fn new(codec: Codec) -> Result<Self, MediaError> {
        match codec {
            Codec::Opus => Ok(Self::Opus(opus::Decoder::new()?)),
            Codec::Pcmu => Ok(Self::G711(Law::Mu, Box::default())),
            Codec::Pcma => Ok(Self::G711(Law::A, Box::default())),
        }
    }

    /// Whether it decodes this codec.
    pub fn is_for(&self, codec: Codec) -> bool {
        match self {
            Self::Opus(_) => codec == Codec::Opus,
            Self::G711(Law::Mu, _) => codec == Codec::Pcmu,
            Self::G711(Law::A, _) => codec == Codec::Pcma,
        }
    }

    /// Appends the samples of a payload; gives their number, `None` if it cannot be read.
    pub fn decode(&mut self, payload: &[u8], sound: &mut Vec<i16>) -> Option<usize> {
        match self {
            Self::Opus(decoder) => decoder.decode(payload, sound),
            Self::G711(law, up) => {
                if payload.is_empty() || payload.len() > g711::PAYLOAD_BYTES_MAX {
                    return None;
                }
                let before = sound.len();
                up.convert(payload.iter().map(|byte| law.decode(*byte)), sound);
                Some(sound.len() - before)
            }
        }
    }

    /// Duration of a payload in samples at 48 kHz, without decoding it.
    pub fn duration(codec: Codec, payload: &[u8]) -> Option<usize> {
        match codec {
            Codec::Opus => opus::duration(payload),
            Codec::Pcmu | Codec::Pcma => {
                (1..=g711::PAYLOAD_BYTES_MAX).contains(&payload.len()).then_some(payload.len() * 6)
            }
        }
    }
}
