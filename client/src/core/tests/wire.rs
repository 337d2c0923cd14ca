//! A network without obstacles: every datagram and every byte arrives after the same time, in order.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::edge::{Edge, Leaves};
use crate::api::{
    AccountConfig, AccountId, AutoAnswer, CallChange, CallId, CallState, Command, DialOptions, EndReason, EngineChange,
    EventBody, MediaSource, TransportChoice,
};
use crate::core::{Core, CoreConfig, Input, ListenerId, Output, SocketId, StreamError, StreamId};

pub(super) const LATENCY: Duration = Duration::from_millis(10);
/// The account every phone of the tests has.
pub(super) const ACCOUNT: AccountId = AccountId(1);
const ACCEPTED: u64 = 1 << 63;
/// Where deliveries to the servers go.
const EDGE: usize = usize::MAX;

/// What is on its way to a phone.
enum Delivery {
    Datagram {
        socket: SocketId,
        from: SocketAddr,
        payload: Vec<u8>,
    },
    SocketOpened {
        id: SocketId,
        local: SocketAddr,
    },
    StreamOpened {
        id: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
    },
    Listening {
        id: ListenerId,
        local: SocketAddr,
    },
    StreamAccepted {
        listener: ListenerId,
        id: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
    },
    StreamData {
        id: StreamId,
        bytes: Vec<u8>,
    },
    StreamClosed {
        id: StreamId,
        cause: StreamError,
    },
    Resolved {
        id: crate::core::ResolveId,
        answer: crate::core::Answer,
    },
    EdgeDatagram {
        to: SocketAddr,
        from: SocketAddr,
        payload: Vec<u8>,
    },
    EdgeAccepted {
        stream: u64,
        local: SocketAddr,
        remote: SocketAddr,
        tls: bool,
    },
    EdgeData {
        stream: u64,
        bytes: Vec<u8>,
    },
    EdgeClosed {
        stream: u64,
    },
    /// To a host that is no phone.
    Scripted {
        to: SocketAddr,
        from: SocketAddr,
        payload: Vec<u8>,
    },
}

pub(super) struct Phone {
    pub(super) core: Core,
    pub(super) ip: IpAddr,
    pub(super) events: Vec<(Duration, EventBody)>,
    pub(super) heard: Vec<(Duration, CallId, f64)>,
    sockets: BTreeMap<SocketId, SocketAddr>,
    streams: BTreeMap<StreamId, (usize, StreamId)>,
    pub(super) listening: BTreeMap<ListenerId, SocketAddr>,
    next_port: u16,
    wake: Option<Instant>,
    /// Every output as text: two runs of one seed must give the same.
    pub(super) log: Vec<String>,
}

pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) phones: Vec<Phone>,
    queue: BTreeMap<(Instant, u64), (usize, Delivery)>,
    sequence: u64,
    /// The servers, if there are any.
    pub(super) edge: Option<Edge>,
    /// Streams to the edge: whose they are.
    edge_streams: BTreeMap<u64, (usize, StreamId)>,
    /// No phone can connect to another one.
    pub(super) is_isolating: bool,
    /// Datagrams to addresses that no phone has.
    pub(super) scripted: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// The first datagrams that phones sent: from, to, content.
    pub(super) sent: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Datagrams between phones that are not delivered while this says so.
    pub(super) lost: fn(&[u8]) -> bool,
}

#[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
fn epoch() -> Instant {
    Instant::now()
}

impl World {
    pub(super) fn new(phones: u8) -> Self {
        let start = epoch();
        let make = |number: u8| {
            let config = CoreConfig {
                user_agent: "icephone/test".to_owned(),
                unix_time: Duration::from_secs(super::edge::UNIX),
            };
            let ip = IpAddr::from([192, 0, 2, number]);
            let mut core = Core::new(start, config, [number; 32]);
            core.handle_input(start, Input::Interfaces(vec![ip]));
            Phone {
                core,
                ip,
                events: Vec::new(),
                heard: Vec::new(),
                sockets: BTreeMap::new(),
                streams: BTreeMap::new(),
                listening: BTreeMap::new(),
                next_port: 40_000,
                wake: None,
                log: Vec::new(),
            }
        };
        let phones = (1..=phones).map(make).collect();
        Self {
            start,
            now: start,
            phones,
            queue: BTreeMap::new(),
            sequence: 0,
            edge: None,
            edge_streams: BTreeMap::new(),
            is_isolating: false,
            scripted: VecDeque::new(),
            sent: Vec::new(),
            lost: |_| false,
        }
    }

    pub(super) fn command(&mut self, phone: usize, command: Command) {
        let now = self.now;
        self.phones[phone].core.handle_input(now, Input::Command(command));
        self.drain(phone);
    }

    /// The host gets other addresses.
    pub(super) fn interfaces(&mut self, phone: usize, addresses: Vec<IpAddr>) {
        let now = self.now;
        self.phones[phone].core.handle_input(now, Input::Interfaces(addresses));
        self.drain(phone);
    }

    /// Its old addresses are gone: nothing reaches the sockets bound to them.
    pub(super) fn forget_sockets(&mut self, phone: usize) {
        self.phones[phone].sockets.clear();
    }

    /// Adds the account of a phone and waits until it listens.
    pub(super) fn add(&mut self, phone: usize, config: AccountConfig) {
        self.command(phone, Command::AddAccount { account: ACCOUNT, config: Box::new(config) });
        self.run_for(Duration::from_millis(50));
    }

    pub(super) fn dial(&mut self, phone: usize, call: CallId, to: &str, source: MediaSource) {
        let options = Box::new(DialOptions { source: Some(source), ..DialOptions::default() });
        self.command(phone, Command::Dial { call, account: ACCOUNT, to: to.to_owned(), options });
    }

    fn send(&mut self, to: usize, delivery: Delivery) {
        self.sequence += 1;
        self.queue.insert((self.now + LATENCY, self.sequence), (to, delivery));
    }

    fn at_once(&mut self, to: usize, delivery: Delivery) {
        self.sequence += 1;
        self.queue.insert((self.now, self.sequence), (to, delivery));
    }

    /// A datagram from a host that is no phone.
    pub(super) fn inject(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        if let Some((phone, socket)) = self.owner(to) {
            self.send(phone, Delivery::Datagram { socket, from, payload });
        }
    }

    /// A datagram as if somebody had sent it, to a phone or to the edge.
    pub(super) fn forge(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        if self.edge.as_ref().is_some_and(|edge| edge.has(to)) {
            return self.send(EDGE, Delivery::EdgeDatagram { to, from, payload });
        }
        self.inject(from, to, payload);
    }

    fn owner(&self, address: SocketAddr) -> Option<(usize, SocketId)> {
        let of = |phone: &Phone| phone.sockets.iter().find(|(_, local)| **local == address).map(|(id, _)| *id);
        self.phones.iter().enumerate().find_map(|(at, phone)| of(phone).map(|id| (at, id)))
    }

    fn drain(&mut self, at: usize) {
        loop {
            let output = self.phones[at].core.poll_output();
            if !matches!(output, Output::Timeout(_) | Output::Play { .. }) {
                let line = format!("{:?} {output:?}", self.now - self.start);
                self.phones[at].log.push(line);
            }
            match output {
                Output::OpenSocket { id, bind, .. } => self.open_socket(at, id, bind),
                Output::CloseSocket(id) => drop(self.phones[at].sockets.remove(&id)),
                Output::Transmit { socket, to, payload } => self.transmit(at, socket, to, payload),
                Output::OpenStream { id, to, tls, .. } => self.open_stream(at, id, to, tls.is_some()),
                Output::StreamSend { id, payload } => {
                    if let Some(stream) = self.edge_stream(at, id) {
                        self.send(EDGE, Delivery::EdgeData { stream, bytes: payload });
                    } else if let Some((to, remote)) = self.phones[at].streams.get(&id).copied() {
                        self.send(to, Delivery::StreamData { id: remote, bytes: payload });
                    }
                }
                Output::CloseStream(id) => {
                    if let Some(stream) = self.edge_stream(at, id) {
                        self.edge_streams.remove(&stream);
                        self.send(EDGE, Delivery::EdgeClosed { stream });
                    } else if let Some((to, remote)) = self.phones[at].streams.remove(&id) {
                        self.send(to, Delivery::StreamClosed { id: remote, cause: StreamError::Closed });
                    }
                }
                Output::Listen { id, bind, .. } => self.listen(at, id, bind),
                Output::CloseListener(id) => drop(self.phones[at].listening.remove(&id)),
                Output::Resolve { id, name, kind } => {
                    let answer = super::edge::resolve(&name, kind);
                    self.send(at, Delivery::Resolved { id, answer });
                }
                Output::Play { call, frame } => {
                    let power = frame.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / 960.0;
                    let when = self.now - self.start;
                    self.phones[at].heard.push((when, call, power.sqrt()));
                }
                Output::Event(event) => {
                    let when = self.now - self.start;
                    self.phones[at].events.push((when, event));
                }
                Output::Timeout(wake) => {
                    self.phones[at].wake = wake;
                    return;
                }
            }
        }
    }

    fn listen(&mut self, at: usize, id: ListenerId, bind: SocketAddr) {
        let phone = &mut self.phones[at];
        let port = if bind.port() == 0 { phone.next_port } else { bind.port() };
        phone.next_port += 1;
        let local = SocketAddr::new(bind.ip(), port);
        phone.listening.insert(id, local);
        self.at_once(at, Delivery::Listening { id, local });
    }

    fn open_socket(&mut self, at: usize, id: SocketId, bind: SocketAddr) {
        let phone = &mut self.phones[at];
        let ip = if bind.ip().is_unspecified() { phone.ip } else { bind.ip() };
        let port = if bind.port() == 0 { phone.next_port } else { bind.port() };
        phone.next_port += 1;
        let local = SocketAddr::new(ip, port);
        phone.sockets.insert(id, local);
        self.at_once(at, Delivery::SocketOpened { id, local });
    }

    fn transmit(&mut self, at: usize, socket: SocketId, to: SocketAddr, payload: Vec<u8>) {
        let Some(from) = self.phones[at].sockets.get(&socket).copied() else { return };
        if self.sent.len() < 1000 {
            self.sent.push((from, to, payload.clone()));
        }
        if (self.lost)(&payload) {
            return;
        }
        if self.edge.as_ref().is_some_and(|edge| edge.has(to)) {
            return self.send(EDGE, Delivery::EdgeDatagram { to, from, payload });
        }
        match self.owner(to) {
            Some((phone, socket)) => self.send(phone, Delivery::Datagram { socket, from, payload }),
            None => self.send(at, Delivery::Scripted { to, from, payload }),
        }
    }

    fn edge_stream(&self, at: usize, id: StreamId) -> Option<u64> {
        self.edge_streams.iter().find(|(_, of)| **of == (at, id)).map(|(stream, _)| *stream)
    }

    /// Carries what the servers want to send.
    pub(super) fn drain_edge(&mut self) {
        let now = self.now;
        let Some(edge) = &mut self.edge else { return };
        for leaves in edge.drain(now) {
            match leaves {
                Leaves::Datagram { from, to, bytes: payload } => match self.owner(to) {
                    Some((phone, socket)) => self.send(phone, Delivery::Datagram { socket, from, payload }),
                    None => self.send(EDGE, Delivery::EdgeDatagram { to, from, payload }),
                },
                Leaves::Stream { stream, bytes } => {
                    if let Some((phone, id)) = self.edge_streams.get(&stream).copied() {
                        self.send(phone, Delivery::StreamData { id, bytes });
                    }
                }
                Leaves::Close { stream } => {
                    if let Some((phone, id)) = self.edge_streams.remove(&stream) {
                        self.send(phone, Delivery::StreamClosed { id, cause: StreamError::Closed });
                    }
                }
            }
        }
    }

    fn open_stream(&mut self, at: usize, id: StreamId, to: SocketAddr, tls: bool) {
        if self.edge.is_some() && Edge::listens(to) {
            self.sequence += 1;
            let stream = self.sequence;
            let local = SocketAddr::new(self.phones[at].ip, self.phones[at].next_port);
            self.phones[at].next_port += 1;
            self.edge_streams.insert(stream, (at, id));
            self.send(EDGE, Delivery::EdgeAccepted { stream, local: to, remote: local, tls });
            return self.send(at, Delivery::StreamOpened { id, local, remote: to });
        }
        if self.is_isolating {
            return self.send(at, Delivery::StreamClosed { id, cause: StreamError::Refused });
        }
        let of = |phone: &Phone| phone.listening.iter().find(|(_, local)| **local == to).map(|(id, _)| *id);
        let found = self.phones.iter().enumerate().find_map(|(at, phone)| of(phone).map(|id| (at, id)));
        let Some((other, listener)) = found else {
            self.send(at, Delivery::StreamClosed { id, cause: StreamError::Refused });
            return;
        };
        self.sequence += 1;
        let accepted = StreamId(ACCEPTED | self.sequence);
        let local = SocketAddr::new(self.phones[at].ip, self.phones[at].next_port);
        self.phones[at].next_port += 1;
        self.phones[at].streams.insert(id, (other, accepted));
        self.phones[other].streams.insert(accepted, (at, id));
        self.send(at, Delivery::StreamOpened { id, local, remote: to });
        self.send(other, Delivery::StreamAccepted { listener, id: accepted, local: to, remote: local });
    }

    fn deliver_to_edge(&mut self, delivery: Delivery) {
        let (now, Some(edge)) = (self.now, &mut self.edge) else { return };
        match delivery {
            Delivery::EdgeDatagram { to, from, payload } => edge.datagram(now, to, from, &payload),
            Delivery::EdgeAccepted { stream, local, remote, tls } => edge.accept(now, stream, local, remote, tls),
            Delivery::EdgeData { stream, bytes } => edge.stream(now, stream, &bytes),
            Delivery::EdgeClosed { stream } => edge.closed(now, stream),
            _ => panic!("not for the edge"),
        }
        self.drain_edge();
    }

    fn deliver(&mut self, at: usize, delivery: Delivery) {
        if at == EDGE {
            return self.deliver_to_edge(delivery);
        }
        let now = self.now;
        let core = &mut self.phones[at].core;
        match delivery {
            Delivery::Datagram { socket, from, payload } => {
                core.handle_input(now, Input::Datagram { socket, from, payload: &payload });
            }
            Delivery::SocketOpened { id, local } => core.handle_input(now, Input::SocketOpened { id, local }),
            Delivery::StreamOpened { id, local, remote } => {
                core.handle_input(now, Input::StreamOpened { id, local, remote });
            }
            Delivery::Listening { id, local } => core.handle_input(now, Input::Listening { id, local }),
            Delivery::StreamAccepted { listener, id, local, remote } => {
                core.handle_input(now, Input::StreamAccepted { listener, id, local, remote });
            }
            Delivery::StreamData { id, bytes } => core.handle_input(now, Input::StreamData { id, bytes: &bytes }),
            Delivery::StreamClosed { id, cause } => core.handle_input(now, Input::StreamClosed { id, cause }),
            Delivery::Resolved { id, answer } => core.handle_input(now, Input::Resolved { id, answer }),
            Delivery::Scripted { to, from, payload } => self.scripted.push_back((to, from, payload)),
            _ => panic!("for the edge"),
        }
        self.drain(at);
    }

    /// One delivery or one time-out; false when `until` comes first.
    pub(super) fn step(&mut self, until: Instant) -> bool {
        let delivery = self.queue.keys().next().map(|(at, _)| *at);
        let edge = self.edge.as_ref().and_then(|edge| edge.wake);
        let wake = self.phones.iter().filter_map(|phone| phone.wake).chain(edge).min();
        let Some(next) = [delivery, wake].into_iter().flatten().min().filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = next.max(self.now);
        if delivery == Some(next) {
            let (_, (at, delivery)) = self.queue.pop_first().unwrap();
            self.deliver(at, delivery);
            return true;
        }
        if edge == Some(next) {
            self.edge.as_mut().unwrap().time(next);
            self.drain_edge();
            return true;
        }
        let at = self.phones.iter().position(|phone| phone.wake == Some(next)).unwrap();
        let now = self.now;
        self.phones[at].core.handle_input(now, Input::Timeout);
        self.drain(at);
        assert!(self.phones[at].wake.is_none_or(|wake| wake >= next), "time stands still");
        true
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(steps < 2_000_000, "the world does not come to rest");
        }
    }

    /// Runs until it is so, and says how long after the start that was.
    pub(super) fn run_until(&mut self, what: &str, limit: Duration, so: impl Fn(&World) -> bool) -> Duration {
        let until = self.now + limit;
        while !so(self) {
            assert!(self.step(until), "not within {limit:?}: {what}\n{}", self.story());
        }
        self.now - self.start
    }

    /// All events as text, for failed assertions.
    pub(super) fn story(&self) -> String {
        let mut lines = Vec::new();
        for (at, phone) in self.phones.iter().enumerate() {
            for (when, event) in &phone.events {
                let json = serde_json::to_string(event).unwrap();
                lines.push((
                    *when,
                    format!("{:>6} ms phone {at} {}", when.as_millis(), json.chars().take(400).collect::<String>()),
                ));
            }
        }
        lines.sort_by_key(|(when, _)| *when);
        lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
    }
}

impl Phone {
    /// What happened to one call.
    pub(super) fn changes(&self, call: CallId) -> impl Iterator<Item = &CallChange> {
        self.events.iter().filter_map(move |(_, event)| match event {
            EventBody::Call { call: of, change } if *of == call => Some(&**change),
            EventBody::Call { .. } | EventBody::Account { .. } | EventBody::Engine(_) => None,
        })
    }

    pub(super) fn sees(&self, call: CallId, what: impl Fn(&CallChange) -> bool) -> bool {
        self.changes(call).any(what)
    }

    pub(super) fn is(&self, call: CallId, wanted: CallState) -> bool {
        self.sees(call, |change| matches!(change, CallChange::State { state } if *state == wanted))
    }

    pub(super) fn ended(&self, call: CallId) -> Option<EndReason> {
        self.changes(call).find_map(|change| match change {
            CallChange::Ended { reason, .. } => Some(reason.clone()),
            _ => None,
        })
    }

    pub(super) fn stopped(&self) -> bool {
        self.events
            .iter()
            .any(|(_, event)| matches!(event, EventBody::Engine(change) if matches!(**change, EngineChange::Stopped)))
    }

    /// Mean loudness heard in a stretch of time.
    pub(super) fn loudness(&self, call: CallId, from: Duration, to: Duration) -> f64 {
        let frames: Vec<_> =
            self.heard.iter().filter(|(at, of, _)| *of == call && (from..to).contains(at)).map(|h| h.2).collect();
        let count = u32::try_from(frames.len().max(1)).unwrap();
        frames.iter().sum::<f64>() / f64::from(count)
    }
}

/// An account without a registrar that listens at `address`.
pub(super) fn listening(address: &str, transport: TransportChoice) -> AccountConfig {
    AccountConfig {
        aor: format!("sip:phone@{address}"),
        register: false,
        mras: false,
        listen: Some(address.parse().unwrap()),
        transport,
        source: MediaSource::Tone { hz: 700.0 },
        ..AccountConfig::default()
    }
}

/// The same, answering by itself.
pub(super) fn answering(address: &str, after_ms: u64, source: MediaSource) -> AccountConfig {
    let options = crate::api::AnswerOptions { source: Some(source) };
    AccountConfig { auto_answer: Some(AutoAnswer { after_ms, options }), ..listening(address, TransportChoice::Udp) }
}
