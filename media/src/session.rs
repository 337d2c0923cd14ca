//! The facade of the crate: packets and frames in, packets, frames and facts out, RFC 3550 §5 to §8.
//!
//! ```text
//!  new ──▶ Waiting ──start_sending, start_receiving, first packet──▶ Running ──stop (BYE)──▶ Stopped
//!           no timer                              tick every 20 ms: start + n × 20 ms          no timer
//! ```
//!
//! Before the 200 nobody's microphone is sent: the owner chooses what early media is (`set_source`) and when it flows
//! (`start_sending`, `stop_sending`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::{Codec, Config, Formats, Protection};
use crate::error::MediaError;
use crate::srtp::sdes::MasterKey;
use crate::stats::Stats;
use crate::{Frame, Source};

/// Digits that may wait to be sent: a long card number, and an end to what a script can pile up.
pub const DIGITS_MAX: usize = 64;

/// Component of the media stream, as ICE numbers them (RFC 8445 §5.1.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// 1: RTP, and RTCP when muxed.
    Rtp = 1,
    /// 2: RTCP when not muxed.
    Rtcp = 2,
}

/// What the owner brings.
#[derive(Debug)]
pub enum Input<'a> {
    /// A packet that the demultiplexer found to be neither STUN nor anything else.
    Packet {
        /// Where it arrived.
        component: Component,
        /// As received.
        payload: &'a [u8],
    },
    /// A frame of the device; used while the source is [`Source::Microphone`].
    Microphone(&'a Frame),
    /// The time of the last [`Output::Timeout`] has come.
    Timeout,
}

/// What the session wants done. Drained until [`Output::Timeout`].
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send on the selected path of the component.
    Packet {
        /// RTCP comes with `Rtp` while muxed.
        component: Component,
        /// Protected if keys are set.
        payload: Vec<u8>,
    },
    /// Play this frame: once per tick from the first packet or `start_receiving` on.
    Play(Box<Frame>),
    /// What was said in the tick of the `Play` before it, with [`Config::tap`] only.
    Said(Box<Frame>),
    /// A fact.
    Event(Event),
    /// Nothing more; give [`Input::Timeout`] at this moment. `None`: nothing will happen by itself.
    Timeout(Option<Instant>),
}

/// Facts about the media of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first RTP packet went out.
    FirstSent,
    /// The first RTP packet that could be read came in.
    FirstReceived {
        /// Its codec.
        codec: Codec,
    },
    /// The peer sends another codec from now on.
    CodecChanged {
        /// The new one.
        codec: Codec,
    },
    /// The first packet under this one of the remote keys (index in the list last given) came in.
    KeyConfirmed {
        /// Position in the list last given to `set_remote_keys` or [`Protection::Sdes`].
        index: usize,
    },
    /// The peer pressed a key; told once per press.
    Dtmf {
        /// `0-9`, `*`, `#`, `A-D`.
        digit: char,
    },
    /// All digits given to `send_dtmf` have been sent.
    DtmfSent,
    /// A [`Source::Samples`] without repetition has been said to its end.
    SourceEnded,
    /// The peer sent RTCP BYE.
    RemoteBye,
    /// Our SSRC was taken by the peer, so we took another (RFC 3550 §8.2).
    SsrcChanged {
        /// Ours from now on.
        ssrc: u32,
    },
}

/// One media stream of one call.
#[derive(Debug)]
pub struct Session {
    config: Config,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session that waits: no timer runs, nothing is sent.
    ///
    /// # Errors
    ///
    /// [`MediaError::Opus`] if the encoder settings are refused, [`MediaError::Key`] if a key does not fit its suite.
    pub fn new(_now: Instant, config: Config, _seed: [u8; 32]) -> Result<Self, MediaError> {
        Ok(Self { config, outputs: VecDeque::new() })
    }

    /// Takes an input. Nothing can fail here: bad packets are counted and dropped.
    pub fn handle_input(&mut self, _now: Instant, _input: Input<'_>) {}

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Timeout(None))
    }

    /// Sends from now on what the source says, one packet per 20 ms, the first at once.
    pub fn start_sending(&mut self, _now: Instant) {}

    /// Sends no more RTP (early media ended, or hold). RTCP goes on.
    pub fn stop_sending(&mut self) {}

    /// Plays from now on, silence until the first packet.
    pub fn start_receiving(&mut self, _now: Instant) {}

    /// Plays silence from now on, whatever comes (hold). What comes is still counted.
    pub fn stop_receiving(&mut self) {}

    /// Takes the outcome of another offer and answer.
    ///
    /// # Errors
    ///
    /// [`MediaError::Opus`] if an encoder cannot be made; then nothing has changed.
    pub fn set_formats(&mut self, formats: Formats) -> Result<(), MediaError> {
        self.config.formats = formats;
        Ok(())
    }

    /// RTP and RTCP on one component, or on two.
    pub fn set_mux(&mut self, mux: bool) {
        self.config.mux = mux;
    }

    /// Takes what protects our packets from now on. The same key again changes nothing: index and rollover go on.
    ///
    /// # Errors
    ///
    /// [`MediaError::Key`] if the key does not fit its suite; then nothing has changed.
    pub fn set_local_key(&mut self, _key: Option<MasterKey>) -> Result<(), MediaError> {
        Ok(())
    }

    /// Takes the peer's keys. A key that was there before keeps its rollover counter. Keys that are no longer listed
    /// are still tried until the first packet under a new one; packets sent before that one are accepted a little longer.
    ///
    /// # Errors
    ///
    /// [`MediaError::Key`] if a key does not fit its suite; then nothing has changed.
    pub fn set_remote_keys(&mut self, _now: Instant, _keys: Vec<MasterKey>) -> Result<(), MediaError> {
        Ok(())
    }

    /// Says something else from now on, from its beginning.
    pub fn set_source(&mut self, source: Source) {
        self.config.source = source;
    }

    /// Says silence instead of the source, which goes on meanwhile.
    pub fn set_muted(&mut self, _muted: bool) {}

    /// Sends digits as telephone-events, each 100 ms long (RFC 4733 §2.5). Audio pauses meanwhile.
    ///
    /// # Errors
    ///
    /// [`MediaError::NoTelephoneEvent`], [`MediaError::NotADigit`], [`MediaError::TooManyDigits`]; then none is sent.
    pub fn send_dtmf(&mut self, _digits: &str) -> Result<(), MediaError> {
        Err(MediaError::NoTelephoneEvent)
    }

    /// The path of received packets changed: delays jump now, and that is no reason to hurry.
    pub fn path_changed(&mut self, _now: Instant) {}

    /// A round trip measured by ICE, shown until RTCP has a fresher one.
    pub fn set_ice_rtt(&mut self, _now: Instant, _rtt: Duration) {}

    /// Ends the session: RTCP BYE goes out, nothing is played or sent any more.
    pub fn stop(&mut self, _now: Instant) {}

    /// Our synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.config.ssrc.unwrap_or(0)
    }

    /// Figures up to `now`.
    pub fn stats(&self, _now: Instant) -> Stats {
        Stats::new(self.config.formats.send.codec)
    }

    /// Whether packets are protected.
    pub fn is_protected(&self) -> bool {
        self.config.protection != Protection::Clear
    }
}
