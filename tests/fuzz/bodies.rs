//! What is done with bytes of a stranger: each function takes any bytes and panics where a promise of `ice` is broken.

#![allow(dead_code, reason = "each target uses one function")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ice::stun::{Builder, Class, Key, Message, wire};
use ice::turn::channel;
use ice::{
    Agent, Candidate, Component, Config, Input, Output, PeerId, RelayCredentials, RemoteDescription, Role, Secret,
    Server, ServerTransport, SocketId, StreamId, TcpId,
};

/// Nothing reads beyond the message, whatever its lengths say, in all three dialects.
pub fn stun(data: &[u8]) {
    let key = Key::short_term(b"password");
    for wire in [&wire::RFC8489, &wire::MS_ICE2, &wire::MS_ICE] {
        let Ok(message) = Message::parse_as(wire, data) else { continue };
        assert!(message.as_bytes().len() <= data.len());
        let _ = message.verify_as(wire, &key);
        let _ = (message.fingerprint(), message.integrity(), message.unknown_required());
        let _ = (message.xor_mapped_address(), message.mapped_address(), message.error_code());
        let _ = (message.username(), message.password_algorithms(), message.lifetime(), message.alternate_server());
        let count = message.attributes().count();
        assert!(count <= data.len() / 4, "{count} attributes in {} bytes", data.len());
        let answer = Builder::answer_as(wire, Class::Success, &message).fingerprint().build();
        let read = Message::parse_as(wire, &answer).expect("what is built can be read");
        assert_eq!(read.transaction_id(), message.transaction_id());
    }
}

/// What is cut from a stream is the same however the stream is cut, and channel data is written as it was read.
pub fn channel(data: &[u8]) {
    if let Some((number, payload)) = channel::decode(data) {
        let again = channel::encode(number, payload, false).expect("short enough to be read");
        assert_eq!(data.get(..again.len()), Some(again.as_slice()));
    }
    let cut = usize::from(data.first().copied().unwrap_or(0)).max(1);
    let messages = |cut: usize| {
        let (mut deframer, mut found) = (ice::turn::framing::Deframer::default(), Vec::new());
        for piece in data.chunks(cut) {
            if deframer.push(piece).is_err() {
                return found;
            }
            while let Ok(Some(message)) = deframer.next_message() {
                found.push(message);
            }
        }
        found
    };
    assert_eq!(messages(cut), messages(60_000));
    let frames = |cut: usize| {
        let (mut deframer, mut found) = (ice::framing::Deframer::default(), Vec::new());
        for piece in data.chunks(cut) {
            deframer.push(piece).expect("everything was taken");
            found.extend(std::iter::from_fn(|| deframer.next_packet()));
        }
        found
    };
    assert_eq!(frames(cut), frames(60_000));
}

/// A line that is read is written so that it reads the same.
pub fn candidate(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines() {
        let Ok(candidate) = line.parse::<Candidate>() else { continue };
        let written = candidate.to_string();
        assert_eq!(written.parse::<Candidate>().as_ref(), Ok(&candidate), "{written}");
        let _ = candidate.to_microsoft_line().parse::<Candidate>().expect("the other form is read too");
    }
}

/// An agent in the hands of a stranger: it never panics, never spins, holds a bounded number of sockets and streams, and closes.
pub fn scenario(data: &[u8]) {
    let mut world = World::new();
    let mut rest = data;
    for _ in 0..STEPS_MAX {
        let Some((step, after)) = rest.split_first() else { break };
        rest = world.step(*step, after);
    }
    world.close();
}

/// Steps of one scenario: longer ones find nothing that shorter ones do not.
const STEPS_MAX: usize = 400;
/// Outputs of one input; more would be a loop.
const OUTPUTS_MAX: usize = 5_000;

struct World {
    agent: Agent,
    now: Instant,
    sockets: BTreeMap<SocketId, SocketAddr>,
    listeners: BTreeMap<TcpId, SocketAddr>,
    streams: Vec<StreamId>,
    accepted: u32,
    next_port: u16,
    peers: Vec<PeerId>,
    sent: Vec<Vec<u8>>,
    deadline: Option<Instant>,
    is_closed: bool,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing; time is added up from here")]
    fn new() -> Self {
        let now = Instant::now();
        let credentials = RelayCredentials { username: "ann".to_owned(), password: Secret::new("secret") };
        let server = |transport| Server {
            name: "turn.example.test".to_owned(),
            addr: addr("203.0.113.10:3478"),
            transport,
            credentials: Some(credentials.clone()),
            wait: true,
        };
        let config = Config {
            interfaces: vec![addr("192.0.2.1:0").ip(), addr("[2001:db8::1]:0").ip()],
            servers: vec![server(ServerTransport::Udp), server(ServerTransport::Tcp)],
            ..Config::default()
        };
        let mut world = Self {
            agent: Agent::new(now, config, [7; 32]),
            now,
            sockets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            streams: Vec::new(),
            accepted: 1 << 31,
            next_port: 5000,
            peers: Vec::new(),
            sent: Vec::new(),
            deadline: None,
            is_closed: false,
        };
        world.agent.gather(now);
        world.drain();
        world
    }

    /// Does what one byte says, with what follows it; returns what is left.
    fn step<'a>(&mut self, step: u8, rest: &'a [u8]) -> &'a [u8] {
        let (argument, after) = rest.split_first().map_or((0, rest), |(first, after)| (*first, after));
        let index = usize::from(argument);
        let length = usize::from(argument).min(after.len());
        let (payload, beyond) = after.split_at(length);
        match step % 12 {
            0 => self.datagram(index, payload),
            // A packet of ours comes back, damaged in one place: the integrity is then wrong, the rest is not.
            1 | 2 => {
                let Some(mut bytes) = self.sent.iter().rev().nth(index / 4).cloned() else { return after };
                if let Some(at) = bytes.get_mut(1).filter(|_| step % 12 == 1) {
                    *at ^= 1;
                }
                self.datagram(index, &bytes);
                return after;
            }
            3 => self.time(u64::from(argument) * 37),
            4 => self.remote(payload),
            6 => {
                if let Some(id) = self.streams.get(index % self.streams.len().max(1)).copied() {
                    self.input(Input::StreamData { id, bytes: payload });
                }
            }
            5 | 7 | 8 | 9 => {
                self.resource(step % 12, argument);
                return after;
            }
            10 => {
                let now = self.now;
                let interfaces = (argument % 2 == 1).then(|| vec![addr("192.0.2.7:0").ip()]);
                self.agent.restart(now, interfaces);
                self.drain();
                return after;
            }
            _ => {
                let (now, component) = (self.now, if argument % 2 == 0 { Component::Rtp } else { Component::Rtcp });
                let _ = self.agent.send(now, component, &[0x80, argument]);
                if let Some(peer) =
                    self.peers.get(index % self.peers.len().max(1)).copied().filter(|_| argument % 7 == 0)
                {
                    let _ = self.agent.choose(now, peer);
                }
                self.drain();
                return after;
            }
        }
        beyond
    }

    /// Streams and sockets come and go.
    fn resource(&mut self, step: u8, argument: u8) {
        let index = usize::from(argument);
        match step {
            5 => {
                if let Some(id) = self.streams.get(index % self.streams.len().max(1)).copied() {
                    let (local, remote) = (addr("192.0.2.1:7000"), addr("203.0.113.10:3478"));
                    self.input(Input::StreamOpened { id, local, remote });
                }
            }
            7 => {
                let count = self.streams.len().max(1);
                if let Some(id) = (index % count < self.streams.len()).then(|| self.streams.remove(index % count)) {
                    self.input(Input::StreamClosed { id, cause: "gone".to_owned() });
                }
            }
            8 => {
                if let Some((listener, local)) = self.listeners.iter().nth(index % 8).map(|(id, at)| (*id, *at)) {
                    let id = StreamId(self.accepted);
                    self.accepted += 1;
                    self.streams.push(id);
                    let remote = SocketAddr::new(addr("198.51.100.9:0").ip(), 1000 + u16::from(argument));
                    self.input(Input::StreamAccepted { listener, id, local, remote });
                }
            }
            _ => {
                if let Some(id) = self.sockets.keys().nth(index % 8).copied() {
                    self.sockets.remove(&id);
                    self.input(Input::SocketFailed { id, cause: "gone".to_owned() });
                }
            }
        }
    }

    fn datagram(&mut self, index: usize, payload: &[u8]) {
        let from = [addr("203.0.113.10:3478"), addr("198.51.100.9:4000"), addr("[2001:db8::9]:4000")];
        let Some(socket) = self.sockets.keys().nth(index % 4).copied() else { return };
        let from = from.into_iter().cycle().nth(index % 3).unwrap_or(addr("192.0.2.9:1"));
        self.input(Input::Datagram { socket, from, payload });
    }

    /// A description of lines that the bytes are, or a usual one.
    fn remote(&mut self, payload: &[u8]) {
        let usual = "1 1 UDP 2130706431 198.51.100.9 4000 typ host\n2 1 TCP 1067450367 198.51.100.9 4001 typ host tcptype passive\n\
                     3 2 UDP 16777214 203.0.113.10 50000 typ relay raddr 198.51.100.9 rport 4002";
        let text = std::str::from_utf8(payload).ok().filter(|text| text.contains("typ")).unwrap_or(usual);
        let flags = payload.first().copied().unwrap_or(0);
        let description = RemoteDescription {
            ufrag: format!("u{}", flags % 5),
            pwd: Secret::new("a password of the other side"),
            candidates: text.lines().filter_map(|line| line.parse().ok()).collect(),
            lite: flags & 8 != 0,
            ice2: flags & 16 == 0,
            renomination: flags & 32 == 0,
            pacing: None,
            rtcp_mux: flags & 64 != 0,
        };
        let now = self.now;
        if let Some(peer) = self.peers.last().copied().filter(|_| flags & 128 != 0) {
            let _ = self.agent.update_remote(now, peer, description);
        } else {
            let role = if flags & 4 == 0 { Role::Controlling } else { Role::Controlled };
            self.peers.push(self.agent.add_remote(now, description, role));
        }
        self.drain();
    }

    fn time(&mut self, passing_ms: u64) {
        let end = self.now + Duration::from_millis(passing_ms);
        let mut wakes = 0;
        while let Some(at) = self.deadline.filter(|at| *at <= end) {
            assert!(at > self.now, "a deadline in the past spins");
            self.now = at;
            self.input(Input::Timeout);
            wakes += 1;
            assert!(wakes < 20_000, "woken {wakes} times in {passing_ms} ms");
        }
        self.now = end;
    }

    fn input(&mut self, input: Input<'_>) {
        self.agent.handle_input(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            match self.agent.poll_output() {
                Output::OpenSocket { id, bind } => {
                    self.next_port = self.next_port.wrapping_add(1).max(1024);
                    let local = SocketAddr::new(bind.ip(), self.next_port);
                    self.sockets.insert(id, local);
                    self.agent.handle_input(self.now, Input::SocketOpened { id, local });
                }
                Output::Listen { id, bind } => {
                    self.next_port = self.next_port.wrapping_add(1).max(1024);
                    let local = SocketAddr::new(bind.ip(), self.next_port);
                    self.listeners.insert(id, local);
                    self.agent.handle_input(self.now, Input::Listening { id, local });
                }
                Output::CloseSocket(id) => drop(self.sockets.remove(&id)),
                Output::CloseListener(id) => drop(self.listeners.remove(&id)),
                Output::OpenStream { id, .. } => self.streams.push(id),
                Output::CloseStream(id) => self.streams.retain(|known| *known != id),
                Output::Transmit { payload, .. } | Output::StreamSend { payload, .. } => {
                    self.sent.push(payload);
                    if self.sent.len() > 64 {
                        self.sent.remove(0);
                    }
                }
                Output::Event(event) => self.is_closed |= matches!(event, ice::Event::Closed),
                Output::Data { .. } => {}
                Output::Timeout(at) => {
                    self.deadline = at;
                    assert!(self.sockets.len() <= 64 && self.streams.len() <= 128, "resources are bounded");
                    return;
                }
            }
        }
        panic!("more than {OUTPUTS_MAX} outputs of one input");
    }

    fn close(&mut self) {
        self.agent.close(self.now);
        self.drain();
        self.time(3000);
        assert!(self.is_closed, "closed within 2 s");
        assert_eq!((self.sockets.len(), self.listeners.len()), (0, 0), "nothing is left open");
    }
}
