//! Streams: set-up over the simulated network, TLS as one more round trip with a verdict, data in order, end.
//!
//! ```text
//!   client  OpenStream ─ Syn ▶ … ◀ SynAck ─ [Hello ▶ … ◀ Welcome] ─ StreamOpened
//!   server              accepted on Syn (plain) or on Hello (TLS)
//! ```
//!
//! Segments cross links in order and are never lost there (a lost one is late, see [`super::link`]), but edges may drop
//! them: a Syn is resent after 1, 3 and 7 seconds and given up after 15.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::clock::secs;
use super::host::{StreamEnd, Tls};
use super::packet::{Packet, Segment};

/// Ids of accepted streams start here, so that they never meet the program's own.
pub const ACCEPTED_FROM: u64 = 1 << 32;

/// When a Syn is sent again, counted from the first; RFC 6298 §2.1 and §5.5.
pub const SYN_AT: [Duration; 3] = [secs(1), secs(3), secs(7)];
pub const SYN_GIVE_UP: Duration = secs(15);

/// Bytes per data segment, as an Ethernet carries them.
const SEGMENT_BYTES: usize = 1400;

/// A connection is known by its two ends.
pub type Ends = (SocketAddr, SocketAddr);

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Connecting {
        tls: Option<Vec<String>>,
    },
    Handshaking {
        wanted: Vec<String>,
    },
    /// Accepted, but the first bytes decide between TLS and plain.
    Undecided {
        listener: u64,
    },
    Open,
}

#[derive(Debug)]
struct Stream {
    id: u64,
    state: State,
}

#[derive(Debug)]
struct Listener {
    id: u64,
    tls: Tls,
}

#[derive(Debug, Default)]
pub struct Streams {
    listeners: BTreeMap<SocketAddr, Listener>,
    streams: BTreeMap<Ends, Stream>,
    ends: BTreeMap<u64, Ends>,
    accepted: u64,
}

/// What a host must do after a step: packets to send, and inputs for its program.
#[derive(Debug, Default)]
pub struct Step {
    pub send: Vec<Packet>,
    pub tell: Vec<Told>,
}

#[derive(Debug)]
pub enum Told {
    Opened { id: u64, local: SocketAddr, remote: SocketAddr },
    Accepted { listener: u64, id: u64, local: SocketAddr, remote: SocketAddr, tls: bool },
    Data { id: u64, bytes: Vec<u8> },
    Closed { id: u64, cause: StreamEnd },
}

impl Streams {
    pub fn listen(&mut self, id: u64, local: SocketAddr, tls: Tls) {
        self.listeners.insert(local, Listener { id, tls });
    }

    pub fn close_listener(&mut self, id: u64) {
        self.listeners.retain(|_, listener| listener.id != id);
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    pub fn uses(&self, local: SocketAddr) -> bool {
        self.listeners.contains_key(&local) || self.streams.keys().any(|(own, _)| *own == local)
    }

    pub fn open(&mut self, id: u64, ends: Ends, tls: Option<Vec<String>>) -> Step {
        self.streams.insert(ends, Stream { id, state: State::Connecting { tls } });
        self.ends.insert(id, ends);
        Step { send: vec![Packet::tcp(ends.0, ends.1, Segment::Syn)], tell: Vec::new() }
    }

    /// Sends the Syn again, if it still waits for an answer.
    pub fn retry(&mut self, id: u64) -> Step {
        let waiting = self.ends.get(&id).filter(|ends| self.is_connecting(ends));
        let send = waiting.map(|(local, remote)| Packet::tcp(*local, *remote, Segment::Syn)).into_iter().collect();
        Step { send, tell: Vec::new() }
    }

    pub fn give_up(&mut self, id: u64) -> Step {
        match self.ends.get(&id).copied().filter(|ends| self.is_connecting(ends)) {
            Some(ends) => Step { send: Vec::new(), tell: self.end(ends, StreamEnd::TimedOut) },
            None => Step::default(),
        }
    }

    fn is_connecting(&self, ends: &Ends) -> bool {
        let unfinished = |s: &Stream| matches!(s.state, State::Connecting { .. } | State::Handshaking { .. });
        self.streams.get(ends).is_some_and(unfinished)
    }

    pub fn send(&mut self, id: u64, bytes: &[u8]) -> Step {
        let Some((local, remote)) = self.ends.get(&id).copied() else { return Step::default() };
        let packets =
            bytes.chunks(SEGMENT_BYTES).map(|chunk| Packet::tcp(local, remote, Segment::Data(chunk.to_vec())));
        Step { send: packets.collect(), tell: Vec::new() }
    }

    pub fn close(&mut self, id: u64) -> Step {
        let Some(ends) = self.ends.remove(&id) else { return Step::default() };
        self.streams.remove(&ends);
        Step { send: vec![Packet::tcp(ends.0, ends.1, Segment::Fin)], tell: Vec::new() }
    }

    /// The program has died: its streams are reset and nobody listens any more.
    pub fn kill(&mut self) -> Step {
        self.listeners.clear();
        self.ends.clear();
        let ends = std::mem::take(&mut self.streams).into_keys();
        Step { send: ends.map(|ends| Packet::tcp(ends.0, ends.1, Segment::Reset)).collect(), tell: Vec::new() }
    }

    /// Ends every stream of a local address that is gone.
    pub fn drop_local(&mut self, gone: std::net::IpAddr) -> Step {
        let lost: Vec<Ends> = self.streams.keys().filter(|(local, _)| local.ip() == gone).copied().collect();
        Step { send: Vec::new(), tell: lost.into_iter().flat_map(|ends| self.end(ends, StreamEnd::Reset)).collect() }
    }

    pub fn receive(&mut self, packet: Packet) -> Step {
        let ends = (packet.to, packet.from);
        let super::packet::Body::Tcp(segment) = packet.body else { return Step::default() };
        match segment {
            Segment::Syn => self.on_syn(ends),
            Segment::SynAck => self.on_syn_ack(ends),
            Segment::Hello(wanted) => self.on_hello(ends, &wanted),
            Segment::Welcome(names) => self.on_welcome(ends, names),
            Segment::Data(bytes) => self.on_data(ends, bytes),
            Segment::Fin => Step { send: Vec::new(), tell: self.end(ends, StreamEnd::Closed) },
            Segment::Reset => {
                let refused = matches!(self.streams.get(&ends), Some(Stream { state: State::Connecting { .. }, .. }));
                let cause = if refused { StreamEnd::Refused } else { StreamEnd::Reset };
                Step { send: Vec::new(), tell: self.end(ends, cause) }
            }
        }
    }

    fn on_syn(&mut self, ends: Ends) -> Step {
        let answer = |segment| vec![Packet::tcp(ends.0, ends.1, segment)];
        if self.streams.contains_key(&ends) {
            return Step { send: answer(Segment::SynAck), tell: Vec::new() };
        }
        let Some(listener) = self.listeners.get(&ends.0) else {
            return Step { send: answer(Segment::Reset), tell: Vec::new() };
        };
        let (listener, plain) = (listener.id, listener.tls == Tls::Plain);
        let id = ACCEPTED_FROM + self.accepted;
        self.accepted += 1;
        let state = if plain { State::Open } else { State::Undecided { listener } };
        self.streams.insert(ends, Stream { id, state });
        self.ends.insert(id, ends);
        let tell = if plain { vec![accepted(listener, id, ends, false)] } else { Vec::new() };
        Step { send: answer(Segment::SynAck), tell }
    }

    fn on_syn_ack(&mut self, ends: Ends) -> Step {
        let Some(stream) = self.streams.get_mut(&ends) else {
            return Step { send: vec![Packet::tcp(ends.0, ends.1, Segment::Reset)], tell: Vec::new() };
        };
        let State::Connecting { tls } = &stream.state else { return Step::default() };
        if let Some(wanted) = tls.clone() {
            stream.state = State::Handshaking { wanted: wanted.clone() };
            return Step { send: vec![Packet::tcp(ends.0, ends.1, Segment::Hello(wanted))], tell: Vec::new() };
        }
        stream.state = State::Open;
        Step { send: Vec::new(), tell: vec![Told::Opened { id: stream.id, local: ends.0, remote: ends.1 }] }
    }

    fn on_hello(&mut self, ends: Ends, wanted: &[String]) -> Step {
        let Some(stream) = self.streams.get_mut(&ends) else { return reset(ends) };
        let names = match self.listeners.get(&ends.0).map(|listener| &listener.tls) {
            Some(Tls::Only(names) | Tls::Both(names)) => Some(names.clone()),
            Some(Tls::Plain) | None => None,
        };
        let good = names.as_ref().is_some_and(|names| wanted.iter().any(|name| names.contains(name)));
        let mut step = Step { send: vec![Packet::tcp(ends.0, ends.1, Segment::Welcome(names))], tell: Vec::new() };
        match stream.state {
            State::Undecided { listener } if good => {
                stream.state = State::Open;
                step.tell.push(accepted(listener, stream.id, ends, true));
            }
            // The client will refuse the certificate; nothing was told to the program.
            State::Undecided { .. } => {
                let id = stream.id;
                self.streams.remove(&ends);
                self.ends.remove(&id);
            }
            State::Connecting { .. } | State::Handshaking { .. } | State::Open => {}
        }
        step
    }

    fn on_welcome(&mut self, ends: Ends, names: Option<Vec<String>>) -> Step {
        let Some(stream) = self.streams.get_mut(&ends) else { return reset(ends) };
        let State::Handshaking { wanted } = &stream.state else { return Step::default() };
        let verdict = match &names {
            Some(names) if wanted.iter().any(|name| names.contains(name)) => Ok(()),
            Some(names) => Err(format!("certificate for {} and not {}", names.join(", "), wanted.join(", "))),
            None => Err("the server does not speak TLS".to_owned()),
        };
        match verdict {
            Ok(()) => {
                stream.state = State::Open;
                Step { send: Vec::new(), tell: vec![Told::Opened { id: stream.id, local: ends.0, remote: ends.1 }] }
            }
            Err(cause) => {
                let send = vec![Packet::tcp(ends.0, ends.1, Segment::Fin)];
                Step { send, tell: self.end(ends, StreamEnd::Certificate(cause)) }
            }
        }
    }

    fn on_data(&mut self, ends: Ends, bytes: Vec<u8>) -> Step {
        let Some(stream) = self.streams.get_mut(&ends) else { return reset(ends) };
        let id = stream.id;
        match stream.state {
            State::Open => Step { send: Vec::new(), tell: vec![Told::Data { id, bytes }] },
            State::Undecided { listener } => {
                let both = matches!(self.listeners.get(&ends.0).map(|listener| &listener.tls), Some(Tls::Both(_)));
                if !both {
                    // A TLS listener that is spoken to in the clear hangs up.
                    self.streams.remove(&ends);
                    self.ends.remove(&id);
                    return reset(ends);
                }
                stream.state = State::Open;
                Step { send: Vec::new(), tell: vec![accepted(listener, id, ends, false), Told::Data { id, bytes }] }
            }
            State::Connecting { .. } | State::Handshaking { .. } => Step::default(),
        }
    }

    /// Removes a stream; the program is told unless it never knew of it.
    fn end(&mut self, ends: Ends, cause: StreamEnd) -> Vec<Told> {
        let Some(stream) = self.streams.remove(&ends) else { return Vec::new() };
        self.ends.remove(&stream.id);
        let unknown = matches!(stream.state, State::Undecided { .. });
        if unknown { Vec::new() } else { vec![Told::Closed { id: stream.id, cause }] }
    }
}

fn accepted(listener: u64, id: u64, (local, remote): Ends, tls: bool) -> Told {
    Told::Accepted { listener, id, local, remote, tls }
}

fn reset(ends: Ends) -> Step {
    Step { send: vec![Packet::tcp(ends.0, ends.1, Segment::Reset)], tell: Vec::new() }
}
