//! Sound cards as the engine sees them: two rings, and a list of what went wrong.
//!
//! With the feature `sound` the cards are cpal's; without it there are none, and calls run on the null device: they hear
//! nothing and send silence, on the session's own clock.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::ring::{FrameReader, FrameWriter};

/// Which cards, and whom to wake when the microphone has something.
#[derive(Clone)]
pub struct DeviceOptions {
    /// Part of an input's name; `None`: the default one.
    pub input: Option<String>,
    /// Part of an output's name; `None`: the default one.
    pub output: Option<String>,
    /// Leave the microphone closed: something else speaks.
    pub output_only: bool,
    /// Called from the card's thread; must not block.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for DeviceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceOptions({:?}, {:?})", self.input, self.output)
    }
}

/// Open sound cards; closed when dropped.
pub struct Devices {
    /// What the microphone hears; `None` if there is no input.
    pub microphone: Option<FrameReader>,
    /// What the loudspeaker plays; `None` if there is no output.
    pub loudspeaker: Option<FrameWriter>,
    /// `USB headset (48000 Hz)`, for people.
    pub description: String,
    /// Troubles of running streams, one sentence each.
    pub faults: Receiver<String>,
    /// Keeps the streams alive.
    #[cfg_attr(not(feature = "sound"), expect(dead_code, reason = "without cards there is nothing to keep"))]
    pub(crate) streams: Vec<Box<dyn Send>>,
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Devices({})", self.description)
    }
}

/// One sound card in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What `--input` and `--output` match a part of.
    pub name: String,
    /// It can record.
    pub input: bool,
    /// It can play.
    pub output: bool,
    /// The system uses it unless told otherwise.
    pub default: bool,
}

/// Why there is no sound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No card at all.
    #[error("no sound card was found")]
    None,
    /// The default card does not open: most likely there is none.
    #[error("no sound card can be used ({cause}): nothing is heard")]
    Unusable {
        /// The system's words.
        cause: String,
    },
    /// No card of that name.
    #[error("no sound {direction} is called {name:?}; `icephone devices` lists the names")]
    Unknown {
        /// `input` or `output`.
        direction: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The card does not open.
    #[error("sound {direction} {name:?} cannot be opened: {cause}")]
    Refused {
        /// `input` or `output`.
        direction: &'static str,
        /// The card.
        name: String,
        /// The system's words.
        cause: String,
    },
    /// Built without the feature.
    #[error("this icephone was built without sound cards (feature \"sound\")")]
    NotBuilt,
}

/// Opens the cards.
///
/// # Errors
///
/// [`DeviceError`]; the call goes on with the null device.
#[cfg(feature = "sound")]
pub fn open(options: &DeviceOptions) -> Result<Devices, DeviceError> {
    super::cpal::open(options)
}

/// Opens the cards.
///
/// # Errors
///
/// Always [`DeviceError::NotBuilt`].
#[cfg(not(feature = "sound"))]
pub fn open(_options: &DeviceOptions) -> Result<Devices, DeviceError> {
    Err(DeviceError::NotBuilt)
}

/// All cards, the default ones first.
///
/// # Errors
///
/// [`DeviceError::None`] if there is no sound system, [`DeviceError::NotBuilt`] without the feature.
#[cfg(feature = "sound")]
pub fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
    super::cpal::list()
}

/// All cards.
///
/// # Errors
///
/// Always [`DeviceError::NotBuilt`].
#[cfg(not(feature = "sound"))]
pub fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
    Err(DeviceError::NotBuilt)
}
