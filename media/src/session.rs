//! The facade of the crate: packets and frames in, packets, frames and facts out, RFC 3550 §5 to §8.
//!
//! ```text
//!  new ──▶ Waiting ──start_sending, start_receiving, first packet──▶ Running ──stop (BYE)──▶ Stopped
//!           no timer                              tick every 20 ms: start + n × 20 ms          no timer
//! ```
//!
//! Before the 200 nobody's microphone is sent: the owner chooses what early media is (`set_source`) and when it flows
//! (`start_sending`, `stop_sending`).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::audio::source::Playing;
use crate::codec::Encoder;
use crate::config::{Codec, Config, Formats, NtpTime, OpusSettings, Protection};
use crate::dtmf;
use crate::error::MediaError;
use crate::rtcp::schedule::Schedule;
use crate::rtp::sender::Sender;
use crate::srtp::context::{Inbound, Outbound};
use crate::srtp::sdes::MasterKey;
use crate::stats::{Level, Rtt, RttOrigin, Stats};
use crate::{FRAME, Frame, Source};

mod receive;
mod report;
mod stream;
mod tick;

use stream::Stream;

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
#[derive(Debug, Clone, Copy)]
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
#[expect(clippy::struct_excessive_bools, reason = "switches of the owner, each independent of the others")]
pub struct Session {
    formats: Formats,
    mux: bool,
    cname: String,
    wall: (Instant, NtpTime),
    opus: OpusSettings,
    tap: bool,
    rng: ChaCha20Rng,
    outputs: VecDeque<Output>,
    /// Where sample times begin.
    epoch: Instant,
    phase: Phase,
    sending: bool,
    playing: bool,
    held: bool,
    muted: bool,
    source: Playing,
    encoder: Encoder,
    sender: Sender,
    digits: dtmf::Sender,
    event_start: u32,
    last_sent: Option<Instant>,
    protected: bool,
    outbound: Option<Outbound>,
    inbound: Inbound,
    streams: BTreeMap<u32, Stream>,
    schedule: Option<Schedule>,
    remote: Remote,
    counters: Counters,
    level_out: Level,
    level_in: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    /// The next tick is at `start + ticks * 20 ms`: no drift, whatever the timer does.
    Running {
        start: Instant,
        ticks: u32,
    },
    Stopped,
}

/// What the peer's reports say about us.
#[derive(Debug, Default)]
struct Remote {
    loss_percent: Option<f32>,
    jitter_ms: Option<f32>,
    rtcp_rtt: Option<(Instant, Duration)>,
    ice_rtt: Option<(Instant, Duration)>,
}

/// Counters of the session itself, and of streams that are gone.
#[derive(Debug, Default)]
struct Counters {
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    rejected: u64,
    replayed: u64,
    unreadable: u64,
    collisions: u32,
    heard_sound: bool,
    gone: stream::Totals,
}

impl Session {
    /// A session that waits: no timer runs, nothing is sent.
    ///
    /// # Errors
    ///
    /// [`MediaError::Opus`] if the encoder settings are refused, [`MediaError::Key`] if a key does not fit its suite.
    pub fn new(now: Instant, config: Config, seed: [u8; 32]) -> Result<Self, MediaError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut inbound = Inbound::default();
        let (protected, outbound) = match config.protection {
            Protection::Clear => (false, None),
            Protection::Sdes { local, remote } => {
                inbound.set_keys(remote)?;
                (true, Some(Outbound::new(local)?))
            }
        };
        Ok(Self {
            encoder: Encoder::new(config.formats.send.codec, config.opus)?,
            sender: Sender::new(config.ssrc, &mut rng),
            source: Playing::new(config.source),
            formats: config.formats,
            mux: config.mux,
            cname: config.cname,
            wall: config.wall,
            opus: config.opus,
            tap: config.tap,
            rng,
            outputs: VecDeque::new(),
            epoch: now,
            phase: Phase::Waiting,
            sending: false,
            playing: false,
            held: false,
            muted: false,
            digits: dtmf::Sender::default(),
            event_start: 0,
            last_sent: None,
            protected,
            outbound,
            inbound,
            streams: BTreeMap::new(),
            schedule: None,
            remote: Remote::default(),
            counters: Counters::default(),
            level_out: Level::default(),
            level_in: Level::default(),
        })
    }

    /// Takes an input. Nothing can fail here: bad packets are counted and dropped.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        if self.phase == Phase::Stopped {
            return;
        }
        match input {
            Input::Packet { component, payload } => self.receive(now, component, payload),
            Input::Microphone(frame) => self.source.push_microphone(frame),
            // Ticks only happen here: after a stalled loop the packets that waited in the socket are taken before the
            // frames that they belong to are played.
            Input::Timeout => self.handle_timeout(now),
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadline()))
    }

    /// Sends from now on what the source says, one packet per 20 ms, the first at once.
    pub fn start_sending(&mut self, now: Instant) {
        if !self.sending {
            self.sender.mark_next();
        }
        self.sending = true;
        // As long as nothing has been sent or heard, the clock may start anew, so that the first packet leaves at once.
        if let Phase::Running { .. } = self.phase
            && self.last_sent.is_none()
            && self.streams.is_empty()
        {
            self.phase = Phase::Running { start: now, ticks: 0 };
        }
        self.run(now);
    }

    /// Sends no more RTP (early media ended, or hold). RTCP goes on.
    pub fn stop_sending(&mut self) {
        self.sending = false;
    }

    /// Plays from now on, silence until the first packet.
    pub fn start_receiving(&mut self, now: Instant) {
        (self.playing, self.held) = (true, false);
        self.run(now);
    }

    /// Plays silence from now on, whatever comes (hold). What comes is still counted.
    pub fn stop_receiving(&mut self) {
        self.held = true;
    }

    /// Takes the outcome of another offer and answer.
    ///
    /// # Errors
    ///
    /// [`MediaError::Opus`] if an encoder cannot be made; then nothing has changed.
    pub fn set_formats(&mut self, formats: Formats) -> Result<(), MediaError> {
        if formats.send.codec != self.formats.send.codec {
            self.encoder = Encoder::new(formats.send.codec, self.opus)?;
            self.encoder.set_loss_percent(self.remote.loss_percent.unwrap_or(0.0));
            self.sender.mark_next();
        }
        self.formats = formats;
        Ok(())
    }

    /// RTP and RTCP on one component, or on two.
    pub fn set_mux(&mut self, mux: bool) {
        self.mux = mux;
    }

    /// Takes what protects our packets from now on; `None` sends in the clear. The same key again changes nothing:
    /// index and rollover go on.
    ///
    /// # Errors
    ///
    /// [`MediaError::Key`] if the key does not fit its suite; then nothing has changed.
    pub fn set_local_key(&mut self, key: Option<MasterKey>) -> Result<(), MediaError> {
        match key {
            Some(key) if self.outbound.as_ref().is_some_and(|outbound| *outbound.key() == key) => {}
            Some(key) => self.outbound = Some(Outbound::new(key)?),
            None => self.outbound = None,
        }
        self.protected = self.outbound.is_some();
        Ok(())
    }

    /// Takes the peer's keys. A key that was there before keeps its rollover counter. Keys that are no longer listed
    /// are still tried until the first packet under a new one; packets sent before that one are accepted half a second
    /// longer, because they may come by a slower path.
    ///
    /// # Errors
    ///
    /// [`MediaError::Key`] if a key does not fit its suite; then nothing has changed.
    pub fn set_remote_keys(&mut self, _now: Instant, keys: Vec<MasterKey>) -> Result<(), MediaError> {
        self.inbound.set_keys(keys)
    }

    /// Says something else from now on, from its beginning.
    pub fn set_source(&mut self, source: Source) {
        self.source = Playing::new(source);
    }

    /// Says silence instead of the source, which goes on meanwhile.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// Sends digits as telephone-events, each 100 ms long (RFC 4733 §2.5). Audio pauses meanwhile. They wait until
    /// sending has started.
    ///
    /// # Errors
    ///
    /// [`MediaError::NoTelephoneEvent`], [`MediaError::NotADigit`], [`MediaError::TooManyDigits`],
    /// [`MediaError::Stopped`]; then none is sent.
    pub fn send_dtmf(&mut self, digits: &str) -> Result<(), MediaError> {
        if self.phase == Phase::Stopped {
            return Err(MediaError::Stopped);
        }
        if self.formats.send_event.is_none() {
            return Err(MediaError::NoTelephoneEvent);
        }
        self.digits.push(digits)
    }

    /// The path of received packets changed: delays jump now, and that is no reason to hurry.
    pub fn path_changed(&mut self, now: Instant) {
        let now = self.samples(now);
        for stream in self.streams.values_mut() {
            stream.playout.path_changed(now);
        }
    }

    /// A round trip measured by ICE: shown while RTCP has none that is fresh.
    pub fn set_ice_rtt(&mut self, now: Instant, rtt: Duration) {
        self.remote.ice_rtt = Some((now, rtt));
    }

    /// Ends the session: RTCP BYE goes out, nothing is played or sent any more.
    pub fn stop(&mut self, now: Instant) {
        if let Phase::Running { .. } = self.phase {
            self.send_report(now, true);
            // First, because the path is torn down next.
            if let Some(bye) = self.outputs.pop_back() {
                self.outputs.push_front(bye);
            }
        }
        (self.phase, self.schedule, self.sending, self.playing) = (Phase::Stopped, None, false, false);
    }

    /// Our synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.sender.ssrc()
    }

    /// Whether what we send is protected.
    pub fn is_protected(&self) -> bool {
        self.protected
    }

    /// Whether RTP is being sent.
    pub fn is_sending(&self) -> bool {
        self.sending
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Starts the tick and the report timer, once.
    fn run(&mut self, now: Instant) {
        if self.phase == Phase::Waiting {
            self.phase = Phase::Running { start: now, ticks: 0 };
            self.schedule = Some(Schedule::new(now, &mut self.rng));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let Phase::Running { start, ticks } = self.phase else { return None };
        let tick = start + FRAME * ticks;
        Some(self.schedule.as_ref().map_or(tick, |schedule| schedule.deadline().min(tick)))
    }

    /// A moment in samples at 48 kHz since the session was made.
    fn samples(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.epoch).as_nanos() * 48 / 1_000_000).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests;
