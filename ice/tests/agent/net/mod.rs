//! A small network in virtual time: agents, NATs, a STUN and TURN server, one latency everywhere.
//!
//! `10.x.0.0/16` is the LAN behind NAT `x`; every other address is public. The same seed gives the same bytes.

#![expect(unreachable_pub, reason = "a module of one test")]

pub mod server;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ice::{
    Agent, Component, Config, Event, Input, LocalDescription, Output, PeerId, RelayCredentials, RemoteDescription,
    Role, Secret, Server, ServerTransport, SocketId, StreamId, TcpId,
};
use server::TurnServer;

pub const SERVER: &str = "203.0.113.10:3478";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How a NAT treats flows (RFC 4787 §4, §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Endpoint-independent mapping, address and port dependent filtering.
    Home,
    /// Mapping and filtering per destination.
    Symmetric,
}

#[derive(Debug)]
struct Nat {
    kind: Kind,
    public: IpAddr,
    /// (inside, destination of a symmetric NAT) to outside port.
    mappings: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    allowed: BTreeMap<u16, Vec<SocketAddr>>,
    next_port: u16,
}

#[derive(Debug)]
pub struct Host {
    pub agent: Agent,
    pub ip: IpAddr,
    sockets: BTreeMap<SocketId, SocketAddr>,
    pub streams: BTreeMap<StreamId, bool>,
    pub listeners: BTreeMap<TcpId, SocketAddr>,
    /// Connections between agents: local end, and the other side's host and stream once it is open.
    pub links: BTreeMap<StreamId, Link>,
    next_accepted: u32,
    next_port: u16,
    pub events: Vec<(Duration, Event)>,
    pub data: Vec<(Duration, Option<PeerId>, Component, Vec<u8>)>,
    deadline: Option<Instant>,
    pub sent: usize,
}

/// One end of a TCP connection between two agents.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub other: Option<(usize, StreamId)>,
}

#[derive(Debug)]
enum Delivery {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    StreamOpened {
        host: usize,
        id: StreamId,
        to: SocketAddr,
    },
    StreamClosed {
        host: usize,
        id: StreamId,
        cause: &'static str,
    },
    ToServer {
        host: usize,
        id: StreamId,
        bytes: Vec<u8>,
    },
    FromServer {
        host: usize,
        id: StreamId,
        bytes: Vec<u8>,
    },
    /// Between two agents: a connection attempt arrives, is answered, carries bytes, ends.
    Connect {
        from: (usize, StreamId, SocketAddr),
        to: SocketAddr,
    },
    PeerBytes {
        host: usize,
        id: StreamId,
        bytes: Vec<u8>,
    },
}

pub struct Net {
    pub start: Instant,
    pub now: Instant,
    pub latency: Duration,
    queue: BTreeMap<(Instant, u64), Delivery>,
    sequence: u64,
    pub hosts: Vec<Host>,
    nats: BTreeMap<u8, Nat>,
    pub server: TurnServer,
    /// Packets between these two addresses are lost, in either direction.
    pub blocked: Vec<(IpAddr, IpAddr)>,
    /// The same, for datagrams only.
    pub udp_blocked: Vec<(IpAddr, IpAddr)>,
    /// Firewalls that let TCP connections in only if they answer one that goes out.
    pub stateful: Vec<IpAddr>,
    /// Everything that was sent, for comparison of runs.
    pub trace: Vec<u8>,
    pub wakeups: usize,
}

impl Net {
    #[expect(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing; tests only add to it")]
    pub fn new() -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            latency: ms(10),
            queue: BTreeMap::new(),
            sequence: 0,
            hosts: Vec::new(),
            nats: BTreeMap::new(),
            server: TurnServer::new(addr(SERVER)),
            blocked: Vec::new(),
            udp_blocked: Vec::new(),
            stateful: Vec::new(),
            trace: Vec::new(),
            wakeups: 0,
        }
    }

    pub fn nat(&mut self, lan: u8, kind: Kind) {
        let public = IpAddr::from([198, 51, 100, lan]);
        let nat = Nat { kind, public, mappings: BTreeMap::new(), allowed: BTreeMap::new(), next_port: 40_000 };
        self.nats.insert(lan, nat);
    }

    /// Nothing was sent for long: only mappings that keepalives refresh are left.
    pub fn nat_forgets_filters(&mut self) {
        for nat in self.nats.values_mut() {
            nat.allowed.values_mut().for_each(|to| to.retain(|addr| addr.to_string() == SERVER));
        }
    }

    /// All mappings are gone, and the ports that were used stay unused.
    pub fn nat_reboots(&mut self) {
        for nat in self.nats.values_mut() {
            nat.mappings.clear();
            nat.allowed.clear();
        }
    }

    pub fn host(&mut self, ip: &str, mut config: Config, seed: u8) -> usize {
        let ip: IpAddr = ip.parse().unwrap();
        if config.interfaces.is_empty() {
            config.interfaces = vec![ip];
        }
        let agent = Agent::new(self.now, config, [seed; 32]);
        self.hosts.push(Host {
            agent,
            ip,
            sockets: BTreeMap::new(),
            streams: BTreeMap::new(),
            listeners: BTreeMap::new(),
            links: BTreeMap::new(),
            next_accepted: 1 << 31,
            next_port: 5000,
            events: Vec::new(),
            data: Vec::new(),
            deadline: None,
            sent: 0,
        });
        self.hosts.len() - 1
    }

    pub fn open_sockets(&self, host: usize) -> usize {
        self.hosts[host].sockets.len()
    }

    pub fn only_socket(&self, host: usize) -> SocketId {
        *self.hosts[host].sockets.keys().next().unwrap()
    }

    /// Calls the agent and carries out what it wants.
    pub fn with<T>(&mut self, host: usize, act: impl FnOnce(&mut Agent, Instant) -> T) -> T {
        let result = act(&mut self.hosts[host].agent, self.now);
        self.drain(host);
        result
    }

    fn drain(&mut self, host: usize) {
        let (mut answers, mut listens) = (VecDeque::new(), VecDeque::new());
        loop {
            match self.hosts[host].agent.poll_output() {
                Output::OpenSocket { id, bind } => {
                    let h = &mut self.hosts[host];
                    h.next_port += 1;
                    let port = if bind.port() == 0 { h.next_port } else { bind.port() };
                    let local = SocketAddr::new(bind.ip(), port);
                    h.sockets.insert(id, local);
                    answers.push_back((id, local));
                }
                Output::CloseSocket(id) => {
                    assert!(self.hosts[host].sockets.remove(&id).is_some(), "closed twice: {id}");
                }
                Output::Listen { id, bind } => listens.push_back((id, bind)),
                Output::CloseListener(id) => {
                    assert!(self.hosts[host].listeners.remove(&id).is_some(), "closed twice: {id:?}");
                }
                Output::OpenStream { id, from: Some(from), to, .. } => self.connect_peer(host, id, from, to),
                Output::OpenStream { id, to, tls, .. } => self.open_stream(host, id, to, tls.is_some()),
                Output::CloseStream(id) => {
                    self.hosts[host].streams.remove(&id);
                    self.server.stream_closed(host, id);
                    self.close_link(host, id);
                }
                Output::Transmit { socket, to, payload } => {
                    let h = &mut self.hosts[host];
                    h.sent += 1;
                    let from = h.sockets[&socket];
                    self.send(from, to, payload);
                }
                Output::StreamSend { id, payload } if self.hosts[host].links.contains_key(&id) => {
                    if let Some((other, id)) = self.hosts[host].links[&id].other {
                        self.schedule(self.latency, Delivery::PeerBytes { host: other, id, bytes: payload });
                    }
                }
                Output::StreamSend { id, payload } => {
                    self.schedule(self.latency, Delivery::ToServer { host, id, bytes: payload });
                }
                Output::Data { peer, component, payload } => {
                    let at = self.now - self.start;
                    self.hosts[host].data.push((at, peer, component, payload));
                }
                Output::Event(event) => {
                    let at = self.now - self.start;
                    self.hosts[host].events.push((at, event));
                }
                Output::Timeout(at) => {
                    self.hosts[host].deadline = at;
                    assert!(at.is_none_or(|at| at > self.now), "a deadline in the past spins");
                    let input = match (answers.pop_front(), listens.pop_front()) {
                        (Some((id, local)), later) => {
                            listens.extend(later);
                            Input::SocketOpened { id, local }
                        }
                        (None, Some((id, bind))) => Input::Listening { id, local: self.listen(host, id, bind) },
                        (None, None) => return,
                    };
                    self.hosts[host].agent.handle_input(self.now, input);
                }
            }
        }
    }

    fn open_stream(&mut self, host: usize, id: StreamId, to: SocketAddr, is_tls: bool) {
        if !self.server.accepts(to, is_tls) {
            self.schedule(self.latency * 2, Delivery::StreamClosed { host, id, cause: "connection refused" });
            return;
        }
        self.hosts[host].streams.insert(id, is_tls);
        self.schedule(self.latency * if is_tls { 4 } else { 2 }, Delivery::StreamOpened { host, id, to });
        if self.server.closes_plain && !is_tls {
            self.schedule(self.latency * 3, Delivery::StreamClosed { host, id, cause: "closed by peer" });
        }
    }

    fn listen(&mut self, host: usize, id: TcpId, bind: SocketAddr) -> SocketAddr {
        let h = &mut self.hosts[host];
        h.next_port += 1;
        let local = SocketAddr::new(bind.ip(), h.next_port);
        h.listeners.insert(id, local);
        local
    }

    /// Like `send`, but with an answer: connections pass NATs outwards only.
    fn connect_peer(&mut self, host: usize, id: StreamId, from: SocketAddr, to: SocketAddr) {
        let h = &mut self.hosts[host];
        h.next_port += 1;
        let local = if from.port() == 0 { SocketAddr::new(from.ip(), h.next_port) } else { from };
        h.links.insert(id, Link { local, remote: to, other: None });
        let (inside, target) = (Self::lan(local.ip()), Self::lan(to.ip()));
        let is_blocked = self.blocked.iter().any(|b| *b == (local.ip(), to.ip()) || *b == (to.ip(), local.ip()));
        let source = match (inside, target) {
            (a, b) if a == b => local,
            (_, Some(_)) => return,
            (Some(lan), None) => match self.nats.get_mut(&lan) {
                Some(nat) => nat.out(local, to),
                None => return,
            },
            (None, None) => local,
        };
        if !is_blocked {
            self.schedule(self.latency, Delivery::Connect { from: (host, id, source), to });
        }
    }

    /// A SYN arrives: the listener's host accepts, or the other side is refused.
    fn connected(&mut self, (host, id, source): (usize, StreamId, SocketAddr), to: SocketAddr) {
        let found = self.hosts.iter().enumerate().find_map(|(index, h)| {
            h.listeners.iter().find(|(_, local)| **local == to).map(|(listener, _)| (index, *listener))
        });
        if self.hosts[host].links.get(&id).is_none_or(|link| link.other.is_some()) {
            return; // given up, or both opened at once
        }
        if let Some((other, crossed)) = self.crossing(to, source) {
            return self.crossed((host, id, to), (other, crossed, source));
        }
        if self.stateful.contains(&to.ip()) {
            return; // the firewall knows of nothing that this could answer
        }
        let Some((other, listener)) = found else {
            self.hosts[host].links.remove(&id);
            return self.schedule(self.latency, Delivery::StreamClosed { host, id, cause: "connection refused" });
        };
        let h = &mut self.hosts[other];
        let accepted = StreamId(h.next_accepted);
        h.next_accepted += 1;
        h.links.insert(accepted, Link { local: to, remote: source, other: Some((host, id)) });
        let Some(link) = self.hosts[host].links.get_mut(&id) else { return };
        link.other = Some((other, accepted));
        self.schedule(self.latency, Delivery::StreamOpened { host, id, to });
        self.input(other, Input::StreamAccepted { listener, id: accepted, local: to, remote: source });
    }

    /// The other side has sent its own SYN on the same pair of ends.
    fn crossing(&self, local: SocketAddr, remote: SocketAddr) -> Option<(usize, StreamId)> {
        let of = |h: &Host| {
            let mut links = h.links.iter();
            links.find(|(_, l)| l.local == local && l.remote == remote && l.other.is_none()).map(|(id, _)| *id)
        };
        self.hosts.iter().enumerate().find_map(|(host, h)| of(h).map(|id| (host, id)))
    }

    fn crossed(&mut self, a: (usize, StreamId, SocketAddr), b: (usize, StreamId, SocketAddr)) {
        for ((host, id, to), other) in [(a, (b.0, b.1)), (b, (a.0, a.1))] {
            self.hosts[host].links.get_mut(&id).unwrap().other = Some(other);
            self.schedule(self.latency, Delivery::StreamOpened { host, id, to });
        }
    }

    fn close_link(&mut self, host: usize, id: StreamId) {
        if let Some((host, id)) = self.hosts[host].links.remove(&id).and_then(|link| link.other) {
            self.schedule(self.latency, Delivery::StreamClosed { host, id, cause: "closed by the other side" });
        }
    }

    /// Ends all TCP connections between agents, as a firewall that lost its state does.
    pub fn reset_links(&mut self) {
        for host in 0..self.hosts.len() {
            for id in std::mem::take(&mut self.hosts[host].links).into_keys() {
                self.input(host, Input::StreamClosed { id, cause: "connection reset".to_owned() });
            }
        }
    }

    fn schedule(&mut self, after: Duration, delivery: Delivery) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), delivery);
    }

    fn lan(ip: IpAddr) -> Option<u8> {
        match ip {
            IpAddr::V4(v4) if v4.octets()[0] == 10 => Some(v4.octets()[1]),
            _ => None,
        }
    }

    /// One packet on its way out, translated where there is a NAT.
    fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        self.trace.extend_from_slice(&payload);
        let ends = (from.ip(), to.ip());
        if self.blocked.iter().chain(&self.udp_blocked).any(|b| *b == ends || (b.1, b.0) == ends) {
            return;
        }
        let (inside, target) = (Self::lan(from.ip()), Self::lan(to.ip()));
        let source = match (inside, target) {
            (a, b) if a == b => from,
            (Some(lan), None) if self.nats.get(&lan).is_some_and(|nat| nat.public == to.ip()) => return, // no hairpinning
            (_, Some(_)) => return, // a private address elsewhere
            (Some(lan), None) => match self.nats.get_mut(&lan) {
                Some(nat) => nat.out(from, to),
                None => return,
            },
            (None, None) => from,
        };
        self.schedule(self.latency, Delivery::Datagram { from: source, to, payload });
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Datagram { from, to, payload } => self.deliver_datagram(from, to, &payload),
            Delivery::Connect { from, to } => self.connected(from, to),
            Delivery::PeerBytes { host, id, bytes } => {
                if self.hosts[host].links.contains_key(&id) {
                    self.input(host, Input::StreamData { id, bytes: &bytes });
                }
            }
            Delivery::StreamOpened { host, id, to } => {
                if let Some(local) = self.hosts[host].links.get(&id).map(|link| link.local) {
                    self.input(host, Input::StreamOpened { id, local, remote: to });
                }
                if self.hosts[host].streams.contains_key(&id) {
                    let local = SocketAddr::new(self.hosts[host].ip, 6000);
                    self.input(host, Input::StreamOpened { id, local, remote: to });
                }
            }
            Delivery::StreamClosed { host, id, cause } => {
                self.hosts[host].streams.remove(&id);
                self.hosts[host].links.remove(&id);
                self.input(host, Input::StreamClosed { id, cause: cause.to_owned() });
            }
            Delivery::ToServer { host, id, bytes } => {
                let Some(is_tls) = self.hosts[host].streams.get(&id).copied() else { return };
                let mapped = SocketAddr::new(self.hosts[host].ip, 6000);
                for answer in self.server.stream(host, id, is_tls, mapped, &bytes) {
                    self.carry(answer);
                }
            }
            Delivery::FromServer { host, id, bytes } => {
                if self.hosts[host].streams.contains_key(&id) {
                    self.input(host, Input::StreamData { id, bytes: &bytes });
                }
            }
        }
    }

    fn carry(&mut self, answer: server::Answer) {
        match answer {
            server::Answer::Datagram { from, to, payload } => self.send(from, to, payload),
            server::Answer::Stream { host, id, bytes } => {
                self.schedule(self.latency, Delivery::FromServer { host, id, bytes });
            }
        }
    }

    fn deliver_datagram(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        if to.ip() == self.server.addr.ip() {
            for answer in self.server.datagram(from, to, payload) {
                self.carry(answer);
            }
            return;
        }
        let to = match self.nats.values().find(|nat| nat.public == to.ip()) {
            Some(nat) => match nat.inward(from, to.port()) {
                Some(inside) => inside,
                None => return,
            },
            None => to,
        };
        let found =
            self.hosts.iter().enumerate().find_map(|(index, host)| {
                host.sockets.iter().find(|(_, local)| **local == to).map(|(id, _)| (index, *id))
            });
        if let Some((host, socket)) = found {
            self.input(host, Input::Datagram { socket, from, payload });
        }
    }

    pub fn input(&mut self, host: usize, input: Input<'_>) {
        self.hosts[host].agent.handle_input(self.now, input);
        self.drain(host);
    }

    /// Runs until this time has passed.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let delivery = self.queue.keys().next().copied();
            let deadlines = self.hosts.iter().enumerate().filter_map(|(i, h)| Some((h.deadline?, i)));
            let deadline = deadlines.min();
            let at = [delivery.map(|(at, _)| at), deadline.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(at) = at.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            match (delivery, deadline) {
                (Some(key), _) if key.0 == at => {
                    let delivery = self.queue.remove(&key).unwrap();
                    self.deliver(delivery);
                }
                (_, Some((_, host))) => {
                    self.wakeups += 1;
                    self.input(host, Input::Timeout);
                }
                (_, None) => break,
            }
        }
        self.now = end;
    }

    /// Gathers and returns what goes into SDP.
    pub fn gather(&mut self, host: usize) -> LocalDescription {
        self.with(host, Agent::gather);
        self.run(ms(600));
        self.gathered(host)
    }

    /// The last `Gathered`.
    pub fn gathered(&self, host: usize) -> LocalDescription {
        let mut events = self.hosts[host].events.iter().rev();
        let found = events.find_map(|(_, event)| match event {
            Event::Gathered { local, .. } => Some(local.clone()),
            _ => None,
        });
        found.expect("gathered")
    }

    /// Offer and answer at once: each side knows the other.
    pub fn connect(&mut self, caller: usize, callee: usize, is_mux: bool) -> (PeerId, PeerId) {
        let (offer, answer) = (self.gathered(caller), self.gathered(callee));
        let at_callee = self.with(callee, |agent, now| agent.add_remote(now, remote(&offer, is_mux), Role::Controlled));
        let at_caller =
            self.with(caller, |agent, now| agent.add_remote(now, remote(&answer, is_mux), Role::Controlling));
        self.with(caller, |agent, now| agent.choose(now, at_caller)).unwrap();
        (at_caller, at_callee)
    }

    pub fn events(&self, host: usize) -> impl Iterator<Item = &Event> {
        self.hosts[host].events.iter().map(|(_, event)| event)
    }

    /// Kinds of events in order, without those of gathering.
    pub fn log(&self, host: usize) -> Vec<String> {
        self.hosts[host].events.iter().filter_map(|(_, event)| brief(event)).collect()
    }
}

impl Nat {
    fn out(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let key = match self.kind {
            Kind::Home => (from, None),
            Kind::Symmetric => (from, Some(to)),
        };
        let port = *self.mappings.entry(key).or_insert_with(|| {
            self.next_port += 1;
            self.next_port
        });
        self.allowed.entry(port).or_default().push(to);
        SocketAddr::new(self.public, port)
    }

    fn inward(&self, from: SocketAddr, port: u16) -> Option<SocketAddr> {
        let is_allowed = self.allowed.get(&port).is_some_and(|to| to.contains(&from));
        let inside = self.mappings.iter().find(|(_, mapped)| **mapped == port).map(|((inside, _), _)| *inside);
        inside.filter(|_| is_allowed)
    }
}

/// What the other side reads from our SDP.
pub fn remote(local: &LocalDescription, is_mux: bool) -> RemoteDescription {
    RemoteDescription {
        ufrag: local.ufrag.clone(),
        pwd: local.pwd.clone(),
        candidates: local.candidates.iter().map(|c| c.to_string().parse().unwrap()).collect(),
        lite: false,
        ice2: true,
        renomination: local.options.contains(&"renomination"),
        pacing: Some(local.pacing),
        rtcp_mux: is_mux,
    }
}

pub fn turn(transport: ServerTransport) -> Server {
    let credentials = RelayCredentials { username: "ann".to_owned(), password: Secret::new("secret") };
    Server {
        name: "turn.example.test".to_owned(),
        addr: addr(SERVER),
        transport,
        credentials: Some(credentials),
        wait: true,
    }
}

pub fn stun() -> Server {
    Server { credentials: None, ..turn(ServerTransport::Udp) }
}

pub fn config(servers: Vec<Server>) -> Config {
    Config { servers, ..Config::default() }
}

fn brief(event: &Event) -> Option<String> {
    match event {
        Event::Gathered { .. } | Event::ServerProbed { .. } | Event::PairValid { .. } | Event::LateCandidate { .. } => {
            None
        }
        Event::RemoteReached { .. } => Some("reached".to_owned()),
        Event::PathChanged { component, path, cause, .. } => Some(format!("{component} {path} {cause:?}")),
        Event::Concluded { announce, .. } => Some(format!("concluded, announce {announce}")),
        Event::RemoteCandidates { verdict, .. } => Some(format!("{verdict:?}")),
        Event::Failed { .. } => Some("failed".to_owned()),
        Event::ConsentLost { component, .. } => Some(format!("{component} consent lost")),
        Event::RelayEnding { .. } => Some("relay ending".to_owned()),
        Event::PathDead { component, trouble, .. } => Some(format!("{component} dead: {trouble}")),
        Event::PathAlive { component, .. } => Some(format!("{component} alive")),
        Event::MediaGap { length, .. } => Some(format!("gap of {} s", length.as_secs())),
        Event::BetterPossible => Some("something better may be possible".to_owned()),
        Event::Closed => Some("closed".to_owned()),
    }
}
