//! Sources of sound that run inside the session, in its time: bots and simulations need no device.

use std::sync::Arc;

/// What is said into the call.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Nothing: silence is encoded and sent.
    Silence,
    /// Frames given as [`crate::Input::Microphone`]; silence where none is there in time.
    Microphone,
    /// The built-in melody, over and over.
    Tune,
    /// A sine.
    Tone {
        /// Frequency, 1..=20000 Hz.
        hz: f32,
    },
    /// A recording.
    Samples {
        /// 48 kHz mono.
        samples: Arc<[i16]>,
        /// From the start again at the end; else silence and [`crate::Event::SourceEnded`].
        repeat: bool,
    },
    /// What is heard from the peer, one tick later.
    Echo,
    /// The European ringback tone: 425 Hz, 1 s on, 4 s off (ITU-T E.180).
    Ringback,
}
