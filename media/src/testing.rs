//! Two sessions and the lines between them, in virtual time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::{Component, Config, Event, Input, Output, Session, sample};

/// A fixed moment; tests add to it.
#[expect(clippy::disallowed_methods, reason = "the one moment that tests count from")]
pub(crate) fn epoch() -> Instant {
    Instant::now()
}

pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

pub(crate) fn secs(value: u64) -> Duration {
    Duration::from_secs(value)
}

/// Seeded numbers.
#[derive(Debug)]
pub(crate) struct Random(ChaCha20Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    /// 0.0..1.0
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / f64::from(u32::MAX)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.0.next_u32()).unwrap() % limit
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// When a packet sent now arrives; `None` if it is lost. The duration is the time since the start.
pub(crate) type Line = Box<dyn FnMut(Duration, &mut Random) -> Option<Duration>>;

pub(crate) fn constant(delay_ms: u64) -> Line {
    Box::new(move |_, _| Some(ms(delay_ms)))
}

pub(crate) fn lossy(delay_ms: u64, loss: f64) -> Line {
    Box::new(move |_, random| (random.unit() >= loss).then_some(ms(delay_ms)))
}

pub(crate) struct End {
    pub(crate) session: Session,
    pub(crate) heard: Vec<i16>,
    pub(crate) said: Vec<i16>,
    pub(crate) events: Vec<Event>,
    /// What was sent, with its component.
    pub(crate) sent: Vec<(Duration, Component, Vec<u8>)>,
    wake: Option<Instant>,
}

/// 0 talks to 1 over `lines[0]`, 1 to 0 over `lines[1]`.
pub(crate) struct Pair {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) ends: [End; 2],
    pub(crate) lines: [Line; 2],
    wire: BTreeMap<(Instant, u64), (usize, Component, Vec<u8>)>,
    count: u64,
    random: Random,
}

impl Pair {
    pub(crate) fn new(configure: impl Fn(usize, &mut Config), lines: [Line; 2], seed: u64) -> Self {
        let start = epoch();
        let ends = [0, 1].map(|side| {
            let mut config = Config::new(start);
            configure(side, &mut config);
            let mut bytes = [0; 32];
            Random::new(seed * 2 + u64::try_from(side).unwrap()).0.fill_bytes(&mut bytes);
            let session = Session::new(start, config, bytes).unwrap();
            End { session, heard: vec![], said: vec![], events: vec![], sent: vec![], wake: None }
        });
        Self { start, now: start, ends, lines, wire: BTreeMap::new(), count: 0, random: Random::new(seed) }
    }

    /// Both send and play, the second one 7 ms later, so that their ticks are not aligned.
    pub(crate) fn talking(configure: impl Fn(usize, &mut Config), lines: [Line; 2], seed: u64) -> Self {
        let mut pair = Self::new(configure, lines, seed);
        let now = pair.now;
        pair.ends[0].session.start_sending(now);
        pair.ends[0].session.start_receiving(now);
        pair.run_for(ms(7));
        let now = pair.now;
        pair.ends[1].session.start_sending(now);
        pair.ends[1].session.start_receiving(now);
        pair
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let wake = self.ends.iter().filter_map(|end| end.wake).min();
            let Some(next) = arrival.into_iter().chain(wake).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (side, component, payload)) = self.wire.pop_first().unwrap();
                self.ends[side].session.handle_input(next, Input::Packet { component, payload: &payload });
            } else {
                for side in 0..2 {
                    if self.ends[side].wake.is_some_and(|wake| wake <= next) {
                        self.ends[side].session.handle_input(next, Input::Timeout);
                    }
                }
            }
        }
        self.now = end;
    }

    fn drain(&mut self) {
        for side in 0..2 {
            loop {
                match self.ends[side].session.poll_output() {
                    Output::Packet { component, payload } => {
                        let since = self.now - self.start;
                        self.ends[side].sent.push((since, component, payload.clone()));
                        if let Some(delay) = (self.lines[side])(since, &mut self.random) {
                            self.wire.insert((self.now + delay, self.count), (1 - side, component, payload));
                            self.count += 1;
                        }
                    }
                    Output::Play(frame) => self.ends[side].heard.extend_from_slice(&*frame),
                    Output::Said(frame) => self.ends[side].said.extend_from_slice(&*frame),
                    Output::Event(event) => self.ends[side].events.push(event),
                    Output::Timeout(at) => {
                        self.ends[side].wake = at;
                        break;
                    }
                }
            }
        }
    }

    pub(crate) fn stats(&self, side: usize) -> crate::Stats {
        self.ends[side].session.stats(self.now)
    }

    pub(crate) fn digits(&self, side: usize) -> String {
        let digit = |event: &Event| if let Event::Dtmf { digit } = event { Some(*digit) } else { None };
        self.ends[side].events.iter().filter_map(digit).collect()
    }
}

/// Strength of a frequency in a piece of sound (Goertzel).
pub(crate) fn strength(sound: &[i16], hz: f32) -> f32 {
    let step = std::f32::consts::TAU * hz / 48_000.0;
    let (mut real, mut imaginary) = (0.0, 0.0);
    for (at, value) in sound.iter().enumerate() {
        let angle = step * sample::len(at);
        real += f32::from(*value) * angle.cos();
        imaginary += f32::from(*value) * angle.sin();
    }
    (real * real + imaginary * imaginary).sqrt() / sample::len(sound.len())
}

/// Number of different frames of [`counting`].
pub(crate) const COUNTS: usize = 12;

fn count_hz(count: usize) -> f32 {
    500.0 + 250.0 * sample::len(count)
}

/// Sound in which each 20 ms have a frequency of their own, in turn, without any quiet place.
pub(crate) fn counting(frames: usize) -> std::sync::Arc<[i16]> {
    let mut phase = 0.0_f32;
    (0..frames * 960)
        .map(|at| {
            phase += std::f32::consts::TAU * count_hz(at / 960 % COUNTS) / 48_000.0;
            sample::to_i16(phase.sin() * 0.3)
        })
        .collect()
}

/// Reads the numbers of a counting tone, in pieces of 20 ms at the best alignment.
pub(crate) fn count(heard: &[i16]) -> Vec<usize> {
    let read = |offset: usize, pieces: usize| -> Vec<usize> {
        let pieces = heard[offset..].chunks_exact(960).take(pieces).map(|piece| &piece[180..780]);
        pieces
            .map(|piece| {
                let strengths = (0..COUNTS).map(|count| strength(piece, count_hz(count)));
                strengths.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(count, _)| count)
            })
            .collect()
    };
    let steps = |numbers: &Vec<usize>| numbers.windows(2).filter(|pair| (pair[0] + 1) % COUNTS == pair[1]).count();
    let best = (0..960).step_by(120).max_by_key(|offset| steps(&read(*offset, 40))).unwrap();
    read(best, usize::MAX)
}
