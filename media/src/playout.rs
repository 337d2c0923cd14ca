//! From packets to frames: decodes what is due, restores or makes up what is missing, and steers the delay
//! (RFC 3550 §6.4.4; what a path change does to playout is RFC 8445 §12.2's "jitter" remark made concrete).
//!
//! ```text
//!                   first packet has the target delay
//!   Waiting (silence) ─────────────▶ Playing ◀──────────────────────────────┐
//!                                      │ next packet missing                 │ it comes, or a later one is due
//!                                      ▼                                     │
//!             none later: Stretch ── made-up sound, nothing is given up ─────┤ the delay has grown
//!             later ones: Recover (redundancy), Conceal ── given up ─────────┘ the delay stays
//! ```
//!
//! A packet that comes late during `Stretch` is still played: a slower path costs a moment of made-up sound, never a
//! frame. A frame is given up only when a later one is due and the target delay has been waited for.

use crate::codec::{Decoder, opus};
use crate::config::Codec;
use crate::jitter::{Buffer, Content, Inserted, MS, Packet};
use crate::scale::{self, Loudness};
use crate::{FRAME_SAMPLES, Frame, SILENCE, sample};

/// A frame as a time.
const FRAME: i64 = 20 * MS;
/// Delay that is not worth correcting in a quiet place.
const TOLERANCE: i64 = 10 * MS;
/// Delay that is not worth cutting into sound for: sound begins with the target delay and less than a frame more, and
/// a call whose network is steady is never cut.
const CUT_TOLERANCE: i64 = 20 * MS;
/// Missing target delay at which sound nevertheless goes on after an interruption.
const SLACK: i64 = 5 * MS;
/// Packets missing in a row beyond which nothing is made up for them.
const MISSING_MAX: i64 = 50; // one second: longer is an outage, not a loss
/// Delay above which packets are dropped to catch up, after an outage whose packets come in a burst.
const DELAY_MAX: i64 = 600 * MS; // no conversation survives more
/// Made-up frames that keep their level; then they fade.
const FULL_FRAMES: u32 = 3;
/// Made-up frames after which there is silence.
const FADED_FRAMES: u32 = 10;
/// A delay that stays too long for this long, without any quiet place, is shortened by cutting periods.
const PATIENCE: i64 = 1_500 * MS;
/// At most one period in this time.
const CUT_INTERVAL: i64 = 100 * MS;
/// Quiet sound cut or doubled at a time: 10 ms.
const PIECE: usize = 480;
/// Samples over which sound begins after silence.
const FADE_IN: usize = 240;
/// Sound remembered to continue from it without a codec's help: 40 ms.
const HISTORY: usize = 1_920;

/// What has been done to the sound so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames made up.
    pub concealed: u64,
    /// Frames restored from redundancy.
    pub recovered: u64,
    /// Packets dropped to catch up after an outage.
    pub dropped: u64,
    /// Packets that could not be decoded.
    pub undecodable: u64,
}

/// The playing end of one stream.
#[derive(Debug, Default)]
pub struct Playout {
    buffer: Buffer,
    decoder: Option<Decoder>,
    /// Decoded and not yet played.
    sound: Vec<i16>,
    /// The last of what was put into `sound`.
    history: Vec<i16>,
    expected: Option<Expected>,
    /// Samples made up while waiting for the expected packet.
    stretched: i64,
    /// Frames made up in a row.
    made_up: u32,
    /// The sender is in a pause that it announced (event, comfort noise): nothing is missing.
    in_gap: bool,
    loudness: Loudness,
    excess_since: Option<i64>,
    cut_at: i64,
    /// Counts what happened.
    pub counters: Counters,
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    sequence: i64,
    time: i64,
    /// Duration of the packet before, taken for that of a missing one.
    duration: usize,
}

/// What fills the next samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Silence,
    Decode,
    Skip,
    Stretch,
    Recover,
    Conceal,
    Jump,
}

impl Playout {
    /// Takes a packet; `Late` and `Duplicate` ones are gone.
    pub fn insert(&mut self, packet: Packet) -> Inserted {
        let inserted = self.buffer.insert(packet, self.expected.map(|expected| expected.sequence));
        if inserted == Inserted::Restarted {
            (self.expected, self.stretched) = (None, 0);
        }
        inserted
    }

    /// Everything known about the sequence is void: the sender began anew.
    pub fn restart(&mut self) {
        self.buffer = Buffer::default();
        (self.expected, self.stretched, self.in_gap) = (None, 0, false);
    }

    /// See [`Buffer::path_changed`].
    pub fn path_changed(&mut self, now: i64) {
        self.buffer.path_changed(now);
    }

    /// Delay of what is played at `now`, and what it should be, in samples; `None` while waiting.
    pub fn delay(&self, now: i64) -> Option<(i64, i64)> {
        let expected = self.expected?;
        let stored = i64::try_from(self.sound.len()).unwrap_or(0);
        Some((self.buffer.delay(now + stored, expected.time).max(0), self.buffer.target()))
    }

    /// Whether nothing will be heard until another packet comes.
    pub fn is_silent(&self) -> bool {
        self.buffer.first().is_none() && (self.expected.is_none() || self.made_up >= FADED_FRAMES)
    }

    /// The frame to be played at `now`, in samples at 48 kHz.
    pub fn pull(&mut self, now: i64) -> Frame {
        self.catch_up(now);
        self.fill(now);
        if self.adapt(now) {
            self.fill(now);
        }
        let mut frame = SILENCE;
        for (to, from) in frame.iter_mut().zip(self.sound.drain(..FRAME_SAMPLES.min(self.sound.len()))) {
            *to = from;
        }
        self.loudness.hear(&frame);
        frame
    }

    fn fill(&mut self, now: i64) {
        // Every plan adds sound or consumes a packet, of which there is a bounded number.
        while self.sound.len() < FRAME_SAMPLES {
            let at = now + i64::try_from(self.sound.len()).unwrap_or(0);
            let before = self.sound.len();
            match self.plan(at) {
                Plan::Silence => self.sound.resize(before + FRAME_SAMPLES, 0),
                Plan::Decode => self.decode(),
                Plan::Skip => self.skip(),
                Plan::Stretch => {
                    self.stretched += FRAME;
                    self.make_up(FRAME_SAMPLES);
                }
                Plan::Recover => self.recover(),
                Plan::Conceal => {
                    let duration = self.expected.map_or(FRAME_SAMPLES, |expected| expected.duration);
                    self.pass_one();
                    self.make_up(duration);
                }
                Plan::Jump => self.jump(),
            }
            self.remember(before);
        }
    }

    fn plan(&self, at: i64) -> Plan {
        let Some(first) = self.buffer.first() else {
            return if self.expected.is_some() { Plan::Stretch } else { Plan::Silence };
        };
        let target = self.buffer.target();
        let delay = self.buffer.delay(at, first.time);
        let Some(expected) = self.expected else {
            let is_sound = first.content != Content::Gap;
            return if !is_sound {
                Plan::Skip
            } else if delay >= target {
                Plan::Decode
            } else {
                Plan::Silence
            };
        };
        let missing = first.sequence - expected.sequence;
        if missing <= 0 {
            let interrupted = self.stretched > 0 || first.time > expected.time + TOLERANCE;
            return if first.content == Content::Gap {
                Plan::Skip
            } else if interrupted && delay + SLACK < target {
                Plan::Stretch
            } else {
                Plan::Decode
            };
        }
        if missing > MISSING_MAX {
            return Plan::Jump;
        }
        if self.buffer.delay(at, expected.time) + SLACK < target {
            return Plan::Stretch; // the missing one may still come
        }
        // What was made up while waiting counts for the missing ones, to the nearest packet.
        let duration = i64::try_from(expected.duration).unwrap_or(FRAME);
        if missing * duration > self.stretched + duration / 2 {
            return if missing == 1 && self.stretched == 0 && self.is_recoverable(first) {
                Plan::Recover
            } else {
                Plan::Conceal
            };
        }
        if delay + SLACK < target && first.content != Content::Gap { Plan::Stretch } else { Plan::Jump }
    }

    fn is_recoverable(&self, next: &Packet) -> bool {
        let is_opus = self.decoder.as_ref().is_some_and(|decoder| decoder.is_for(Codec::Opus));
        match &next.content {
            Content::Sound { codec: Codec::Opus, payload } => is_opus && opus::has_redundancy(payload),
            Content::Sound { codec: Codec::Pcmu | Codec::Pcma, .. } | Content::Gap => false,
        }
    }

    fn decode(&mut self) {
        let Some(packet) = self.buffer.take_first() else { return };
        let Content::Sound { codec, payload } = packet.content else { return };
        if !self.decoder.as_ref().is_some_and(|decoder| decoder.is_for(codec)) {
            self.decoder = Decoder::new(codec).ok();
        }
        let before = self.sound.len();
        let decoded = self.decoder.as_mut().and_then(|decoder| decoder.decode(&payload, &mut self.sound));
        if decoded.is_none() {
            self.counters.undecodable += 1;
            self.sound.resize(before + FRAME_SAMPLES, 0);
        }
        let duration = Decoder::duration(codec, &payload).unwrap_or(FRAME_SAMPLES);
        if self.expected.is_some_and(|expected| packet.time > expected.time + TOLERANCE) {
            // The sender had made a pause, so nothing was missing while we waited.
            let waited = u64::try_from(self.stretched / FRAME).unwrap_or(0).min(u64::from(FADED_FRAMES));
            self.counters.concealed = self.counters.concealed.saturating_sub(waited);
        }
        self.join(before, codec);
        let time = packet.time + i64::try_from(duration).unwrap_or(0);
        self.expected = Some(Expected { sequence: packet.sequence + 1, time, duration });
        (self.stretched, self.made_up, self.in_gap) = (0, 0, false);
    }

    /// Makes the seam between made-up and real sound inaudible. Opus does it by itself unless there was silence.
    fn join(&mut self, before: usize, codec: Codec) {
        if self.made_up == 0 {
            return;
        }
        let made_up = if codec == Codec::Opus || self.made_up >= FADED_FRAMES {
            let is_from_silence = self.made_up >= FADED_FRAMES || self.in_gap;
            if !is_from_silence {
                return;
            }
            vec![0; FADE_IN]
        } else {
            let gain = gain_after(self.made_up);
            let continued = continue_wave(&self.history, FADE_IN);
            continued.into_iter().map(|value| sample::round_i16(f32::from(value) * gain)).collect()
        };
        if let Some(seam) = self.sound.get_mut(before..) {
            let mixed = scale::mix(&made_up, seam);
            for (to, from) in seam.iter_mut().zip(mixed) {
                *to = from;
            }
        }
    }

    fn skip(&mut self) {
        let Some(packet) = self.buffer.take_first() else { return };
        self.in_gap = true;
        if let Some(expected) = &mut self.expected {
            expected.sequence = packet.sequence + 1;
        }
    }

    fn recover(&mut self) {
        let Some(expected) = self.expected else { return };
        let Some(Content::Sound { payload, .. }) = self.buffer.first().map(|packet| &packet.content) else { return };
        let restored = match &mut self.decoder {
            Some(Decoder::Opus(decoder)) => decoder.recover(payload, expected.duration, &mut self.sound),
            Some(Decoder::G711(..)) | None => None,
        };
        self.pass_one();
        if restored.is_some() {
            self.counters.recovered += 1;
            self.made_up = 0;
        } else {
            self.make_up(expected.duration);
        }
    }

    /// Gives the expected packet up.
    fn pass_one(&mut self) {
        if let Some(expected) = &mut self.expected {
            expected.sequence += 1;
            expected.time += i64::try_from(expected.duration).unwrap_or(0);
        }
    }

    /// Goes to the first packet there is; what is missing before it has been made up for, or is too long.
    fn jump(&mut self) {
        if let (Some(first), Some(expected)) = (self.buffer.first(), &mut self.expected) {
            (expected.sequence, expected.time) = (first.sequence, first.time);
        }
        // Not an interruption any more: the next plan decodes.
        self.stretched = 0;
    }

    /// Made-up sound in place of one packet, quieter the longer nothing has come.
    fn make_up(&mut self, length: usize) {
        let before = self.sound.len();
        let from = if self.in_gap && self.made_up > 0 { 0.0 } else { gain_after(self.made_up) };
        self.made_up = self.made_up.saturating_add(1);
        let to = if self.in_gap { 0.0 } else { gain_after(self.made_up) };
        if !self.in_gap && self.made_up <= FADED_FRAMES {
            self.counters.concealed += 1;
        }
        if from > 0.0 {
            let concealed = match &mut self.decoder {
                Some(Decoder::Opus(decoder)) => decoder.conceal(length, &mut self.sound),
                Some(Decoder::G711(..)) | None => None,
            };
            if concealed.is_none() {
                self.sound.extend(continue_wave(&self.history, length));
            }
        }
        self.sound.resize(before + length, 0);
        if let Some(frame) = self.sound.get_mut(before..).filter(|_| from < 1.0 || to < 1.0) {
            for (at, value) in frame.iter_mut().enumerate() {
                let gain = from + (to - from) * sample::len(at) / sample::len(length);
                *value = sample::round_i16(f32::from(*value) * gain);
            }
        }
    }

    fn remember(&mut self, before: usize) {
        self.history.extend_from_slice(self.sound.get(before..).unwrap_or_default());
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }

    /// Drops what is hopelessly old.
    fn catch_up(&mut self, now: i64) {
        let at = now + i64::try_from(self.sound.len()).unwrap_or(0);
        while self.expected.is_some()
            && self.buffer.first().is_some_and(|first| self.buffer.delay(at, first.time) > DELAY_MAX)
        {
            self.buffer.take_first();
            self.counters.dropped += 1;
            self.stretched = 0;
            if let (Some(first), Some(expected)) = (self.buffer.first(), &mut self.expected) {
                (expected.sequence, expected.time) = (first.sequence, first.time);
            }
        }
    }

    /// Brings the delay nearer to its target. Whether sound was cut, so that more has to be decoded.
    fn adapt(&mut self, now: i64) -> bool {
        let Some(expected) = self.expected.filter(|_| self.made_up == 0) else { return false };
        let at = now + i64::try_from(self.sound.len()).unwrap_or(0);
        let excess = self.buffer.delay(at, expected.time) - self.buffer.target();
        let quiet = self.loudness.quiet();
        if excess < -TOLERANCE {
            scale::double_quiet(&mut self.sound, PIECE, quiet);
            return false;
        }
        if excess <= TOLERANCE {
            self.excess_since = None;
            return false;
        }
        if scale::cut_quiet(&mut self.sound, PIECE, quiet) {
            return true;
        }
        if excess - self.buffer.path_allowance(now) <= CUT_TOLERANCE {
            self.excess_since = None;
            return false;
        }
        let since = *self.excess_since.get_or_insert(now);
        if now - since < PATIENCE || now - self.cut_at < CUT_INTERVAL {
            return false;
        }
        self.cut_at = now;
        scale::cut_period(&mut self.sound) > 0
    }
}

/// Level of made-up sound after that many frames of it.
fn gain_after(frames: u32) -> f32 {
    if frames <= FULL_FRAMES {
        return 1.0;
    }
    let left = FADED_FRAMES.saturating_sub(frames);
    sample::count(u64::from(left)) / sample::count(u64::from(FADED_FRAMES - FULL_FRAMES))
}

/// Repeats the last period of a wave (ITU-T G.711 Appendix I in its simplest form).
fn continue_wave(history: &[i16], length: usize) -> Vec<i16> {
    const COMPARED: usize = 480;
    let Some(reference) = history.len().checked_sub(COMPARED).and_then(|at| history.get(at..)) else {
        return vec![0; length];
    };
    let mut best = (0.0, 480);
    for period in (120..=720).step_by(6) {
        let Some(earlier) = history.len().checked_sub(COMPARED + period).and_then(|at| history.get(at..at + COMPARED))
        else {
            break;
        };
        let alike = scale::likeness(reference, earlier);
        if alike > best.0 {
            best = (alike, period);
        }
    }
    let period = history.get(history.len() - best.1..).unwrap_or_default();
    period.iter().copied().cycle().take(length).collect()
}

#[cfg(test)]
mod tests;
