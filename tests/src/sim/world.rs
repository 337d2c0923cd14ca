//! The world: realms joined by edges, hosts in them, and the loop over what will happen.
//!
//! A *realm* is a network in which addresses are unique: the Internet is the outermost one, every NAT has one inside.

mod faults;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::clock::{self, ms};
use super::firewall::Firewall;
use super::host::{Host, HostId, Input, Output, Program, Tls};
use super::link::{Line, Link};
use super::nat::{Behaviour, Nat};
use super::packet::{Body, Packet};
use super::queue::Queue;
use super::tcp::{SYN_AT, SYN_GIVE_UP, Step, Told};
use super::trace::Trace;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RealmId(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdgeId(usize);

/// The realm that everybody can reach.
pub const INTERNET: RealmId = RealmId(0);

/// Outputs of one drain, far above what a core makes of one input; beyond it the program spins.
const DRAIN_MAX: usize = 50_000;

/// Wake-ups at one instant before a program is said to spin.
const WAKES_MAX: u32 = 1_000;

#[derive(Debug, Clone, Copy)]
enum Member {
    Host(HostId),
    Edge(EdgeId),
}

#[derive(Debug, Default)]
struct Realm {
    members: BTreeMap<IpAddr, Member>,
    /// The edge that leads outwards; none in the Internet.
    gateway: Option<EdgeId>,
}

#[derive(Debug)]
struct Edge {
    outer: RealmId,
    inner: RealmId,
    nat: Nat,
    firewall: Firewall,
}

pub(super) enum Happening {
    /// A packet comes off a host's line into its realm.
    Enter(RealmId, Packet),
    Deliver(HostId, Packet),
    Wake(HostId),
    Retry(HostId, u64),
    GiveUp(HostId, u64),
    Act(Box<dyn FnOnce(&mut Sim)>),
}

/// What stands between a host and the Internet, outermost last, and the host's line.
#[derive(Debug, Clone)]
pub struct Place {
    nats: Vec<Behaviour>,
    firewall: Firewall,
    link: Link,
}

/// A host on the Internet itself, 5 ms from everybody's middle.
pub fn public() -> Place {
    behind([])
}

/// A host behind these NATs, its own first.
pub fn behind<const N: usize>(nats: [Behaviour; N]) -> Place {
    Place { nats: nats.to_vec(), firewall: Firewall::default(), link: Link::with_latency(ms(5)) }
}

impl Place {
    #[must_use]
    pub fn udp_blocked(mut self) -> Self {
        self.firewall.udp_blocked = true;
        self
    }

    #[must_use]
    pub fn tcp_only<const N: usize>(mut self, ports: [u16; N]) -> Self {
        self.firewall.tcp_ports = Some(ports.into());
        self
    }

    #[must_use]
    pub fn link(mut self, link: Link) -> Self {
        self.link = link;
        self
    }
}

pub struct Sim {
    pub now: Instant,
    start: Instant,
    rng: ChaCha20Rng,
    queue: Queue<Happening>,
    realms: Vec<Realm>,
    edges: Vec<Edge>,
    hosts: Vec<Host>,
    pub trace: Trace,
    last_wake: (Instant, u32),
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        let start = clock::epoch();
        Self {
            now: start,
            start,
            rng: ChaCha20Rng::seed_from_u64(seed),
            queue: Queue::default(),
            realms: vec![Realm::default()],
            edges: Vec::new(),
            hosts: Vec::new(),
            trace: Trace::new(start),
            last_wake: (start, 0),
        }
    }

    /// A seed for a program, drawn from the world's.
    pub fn seed(&mut self) -> [u8; 32] {
        self.rng.random()
    }

    fn fork_rng(&mut self) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.seed())
    }

    pub fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.start)
    }

    // ---- building ----

    /// Adds a host; its program is made of its address.
    pub fn host<P: Program>(&mut self, name: &str, place: &Place, make: impl FnOnce(IpAddr) -> P) -> HostId {
        let realm = self.realm_behind(place);
        let host = self.join(name, realm, place.link, make);
        if place.nats.is_empty() {
            self.hosts[host.0].firewall = place.firewall.clone();
        }
        host
    }

    /// Adds a host to the network that `neighbour` is in.
    pub fn neighbour<P: Program>(&mut self, name: &str, neighbour: HostId, make: impl FnOnce(IpAddr) -> P) -> HostId {
        let (realm, link) = (self.hosts[neighbour.0].realm, self.hosts[neighbour.0].up.link);
        self.join(name, realm, link, make)
    }

    fn join<P: Program>(&mut self, name: &str, realm: RealmId, link: Link, make: impl FnOnce(IpAddr) -> P) -> HostId {
        let address = self.free_address(realm);
        let lines = (Line::new(link, self.fork_rng()), Line::new(link, self.fork_rng()));
        let id = HostId(self.hosts.len());
        self.hosts.push(Host::new(name, realm, address, lines, Box::new(make(address))));
        self.realms[realm.0].members.insert(address, Member::Host(id));
        self.drain(id);
        id
    }

    fn realm_behind(&mut self, place: &Place) -> RealmId {
        let mut realm = INTERNET;
        for (index, behaviour) in place.nats.iter().enumerate().rev() {
            let external = self.free_address(realm);
            let nat = Nat::new(*behaviour, external, self.fork_rng());
            let (edge, inner) = (EdgeId(self.edges.len()), RealmId(self.realms.len()));
            let firewall = if index == 0 { place.firewall.clone() } else { Firewall::default() };
            self.edges.push(Edge { outer: realm, inner, nat, firewall });
            self.realms.push(Realm { members: BTreeMap::new(), gateway: Some(edge) });
            self.realms[realm.0].members.insert(external, Member::Edge(edge));
            realm = inner;
        }
        realm
    }

    /// 203.0.113.0/24 is the Internet, 10.n.0.0/24 what is inside.
    fn free_address(&self, realm: RealmId) -> IpAddr {
        let network = u8::try_from(realm.0).expect("fewer than 256 realms");
        let base = if realm == INTERNET { [203, 0, 113] } else { [10, network, 0] };
        let members = &self.realms[realm.0].members;
        let candidates = (10..=250).map(|n| IpAddr::V4(Ipv4Addr::new(base[0], base[1], base[2], n)));
        candidates.into_iter().find(|ip| !members.contains_key(ip)).expect("a free address in the realm")
    }

    // ---- looking and changing ----

    pub fn address(&self, host: HostId) -> IpAddr {
        self.hosts[host.0].addresses[0]
    }

    /// The program on a host, as what it is.
    pub fn program<P: Program>(&self, host: HostId) -> &P {
        let program: &dyn std::any::Any = self.hosts[host.0].program.as_ref();
        program.downcast_ref().expect("the host runs that program")
    }

    /// Lets the caller act on a program, then carries out what comes of it.
    pub fn with<P: Program, R>(&mut self, host: HostId, act: impl FnOnce(&mut P, Instant) -> R) -> R {
        let program: &mut dyn std::any::Any = self.hosts[host.0].program.as_mut();
        let result = act(program.downcast_mut().expect("the host runs that program"), self.now);
        self.drain(host);
        result
    }

    /// The NAT nearest to a host.
    pub fn nat(&mut self, host: HostId) -> &mut Nat {
        &mut self.gateway(host).nat
    }

    /// The firewall between a host and the Internet: on its edge, or its own where it has none.
    pub fn firewall(&mut self, host: HostId) -> &mut Firewall {
        match self.realms[self.hosts[host.0].realm.0].gateway {
            Some(edge) => &mut self.edges[edge.0].firewall,
            None => &mut self.hosts[host.0].firewall,
        }
    }

    /// The address under which the next realm outwards knows a host.
    pub fn outer_address(&self, host: HostId) -> IpAddr {
        let gateway = self.realms[self.hosts[host.0].realm.0].gateway;
        gateway.map_or(self.address(host), |edge| self.edges[edge.0].nat.external())
    }

    fn gateway(&mut self, host: HostId) -> &mut Edge {
        let edge = self.realms[self.hosts[host.0].realm.0].gateway.expect("the host is behind an edge");
        &mut self.edges[edge.0]
    }

    /// Both directions of a host's line.
    pub fn set_link(&mut self, host: HostId, link: Link) {
        let host = &mut self.hosts[host.0];
        host.up.link = link;
        host.down.link = link;
    }

    pub fn set_line_up(&mut self, host: HostId, up: bool) {
        let host = &mut self.hosts[host.0];
        host.up.up = up;
        host.down.up = up;
    }

    pub fn open_sockets(&self, host: HostId) -> usize {
        self.hosts[host.0].sockets.len()
    }

    pub fn open_streams(&self, host: HostId) -> usize {
        self.hosts[host.0].streams.len()
    }

    pub fn deadline(&self, host: HostId) -> Option<Instant> {
        self.hosts[host.0].deadline
    }

    /// Does something at a later time: a fault, a command.
    pub fn at(&mut self, after: Duration, act: impl FnOnce(&mut Self) + 'static) {
        self.queue.push(self.now + after, Happening::Act(Box::new(act)));
    }

    // ---- running ----

    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.queue.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = until;
    }

    /// Runs until `done` says so. The time it took, or the end of the trace when `limit` has passed.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> Result<Duration, String> {
        let (from, until) = (self.now, self.now + limit);
        loop {
            if done(self) {
                return Ok(self.now.saturating_duration_since(from));
            }
            if self.queue.next_at().is_none_or(|at| at > until) {
                self.now = until;
                return Err(format!("not within {limit:?}; the last of the trace:\n{}", self.trace.tail(200)));
            }
            self.step();
        }
    }

    fn step(&mut self) {
        let Some((at, happening)) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        let Some(happening) = self.keep_for_later(happening) else { return };
        match happening {
            Happening::Enter(realm, packet) => self.route(realm, packet, false),
            Happening::Deliver(host, packet) => self.deliver(host, packet),
            Happening::Wake(host) => self.wake(host, at),
            Happening::Retry(host, id) => {
                let step = self.hosts[host.0].streams.retry(id);
                self.carry_out(host, step);
            }
            Happening::GiveUp(host, id) => {
                let step = self.hosts[host.0].streams.give_up(id);
                self.carry_out(host, step);
            }
            Happening::Act(act) => act(self),
        }
    }

    fn wake(&mut self, host: HostId, at: Instant) {
        if self.hosts[host.0].deadline != Some(at) {
            return; // another deadline has taken its place
        }
        self.last_wake = if self.last_wake.0 == self.now { (self.now, self.last_wake.1 + 1) } else { (self.now, 0) };
        assert!(self.last_wake.1 < WAKES_MAX, "{} wakes without time passing", self.hosts[host.0].name);
        self.hosts[host.0].deadline = None;
        self.tell(host, Input::Timeout);
    }

    // ---- packets ----

    fn send(&mut self, host: HostId, packet: Packet) {
        let (now, realm) = (self.now, self.hosts[host.0].realm);
        if !self.hosts[host.0].addresses.contains(&packet.from.ip()) {
            self.trace.packet(now, "sent from an address that is gone", &packet);
            return;
        }
        if self.hosts[host.0].addresses.contains(&packet.to.ip()) {
            self.queue.push(now, Happening::Deliver(host, packet));
            return;
        }
        if !self.hosts[host.0].firewall.allows_out(&packet) {
            self.trace.packet(now, "blocked by the firewall", &packet);
            return;
        }
        let arrivals = self.hosts[host.0].up.carry(now, &packet);
        if arrivals.is_empty() {
            self.trace.packet(now, "lost on the way up", &packet);
        }
        for at in arrivals {
            self.queue.push(at, Happening::Enter(realm, packet.clone()));
        }
    }

    fn route(&mut self, realm: RealmId, packet: Packet, inwards: bool) {
        match self.realms[realm.0].members.get(&packet.to.ip()).copied() {
            Some(Member::Host(host)) => self.descend(host, packet),
            Some(Member::Edge(edge)) => self.enter_edge(edge, packet),
            None => match self.realms[realm.0].gateway {
                Some(edge) if !inwards => self.leave_edge(edge, packet),
                Some(_) | None => self.trace.packet(self.now, "no such address", &packet),
            },
        }
    }

    fn descend(&mut self, host: HostId, packet: Packet) {
        if !self.hosts[host.0].firewall.allows_in(&packet) {
            self.trace.packet(self.now, "blocked by the firewall", &packet);
            return;
        }
        let arrivals = self.hosts[host.0].down.carry(self.now, &packet);
        if arrivals.is_empty() {
            self.trace.packet(self.now, "lost on the way down", &packet);
        }
        for at in arrivals {
            self.queue.push(at, Happening::Deliver(host, packet.clone()));
        }
    }

    fn leave_edge(&mut self, id: EdgeId, packet: Packet) {
        let now = self.now;
        let edge = &mut self.edges[id.0];
        if !edge.firewall.allows_out(&packet) {
            self.trace.packet(now, "blocked by the firewall", &packet);
            return;
        }
        let hairpin = packet.to.ip() == edge.nat.external();
        if hairpin && !edge.nat.behaviour().hairpinning {
            self.trace.packet(now, "no hairpinning", &packet);
            return;
        }
        let (outer, translated) = (edge.outer, edge.nat.outbound(now, packet));
        if hairpin { self.enter_edge(id, translated) } else { self.route(outer, translated, false) }
    }

    fn enter_edge(&mut self, id: EdgeId, packet: Packet) {
        let now = self.now;
        let edge = &mut self.edges[id.0];
        if !edge.firewall.allows_in(&packet) {
            self.trace.packet(now, "blocked by the firewall", &packet);
            return;
        }
        match edge.nat.inbound(now, packet.clone()) {
            Ok(translated) => {
                let inner = edge.inner;
                self.route(inner, translated, true);
            }
            Err(cause) => self.trace.packet(now, &format!("dropped by the NAT ({cause:?})"), &packet),
        }
    }

    fn deliver(&mut self, host: HostId, packet: Packet) {
        self.trace.packet(self.now, &self.hosts[host.0].name, &packet);
        match packet.body {
            Body::Udp(payload) => {
                if let Some(socket) = self.hosts[host.0].bound.get(&packet.to).copied() {
                    self.tell(host, Input::Datagram { socket, from: packet.from, payload: &payload });
                }
            }
            Body::Tcp(segment) => {
                let step = self.hosts[host.0].streams.receive(Packet::tcp(packet.from, packet.to, segment));
                self.carry_out(host, step);
            }
        }
    }

    fn carry_out(&mut self, host: HostId, step: Step) {
        for packet in step.send {
            self.send(host, packet);
        }
        for told in step.tell {
            match told {
                Told::Opened { id, local, remote } => self.tell(host, Input::StreamOpened { id, local, remote }),
                Told::Accepted { listener, id, local, remote, tls } => {
                    self.tell(host, Input::StreamAccepted { listener, id, local, remote, tls });
                }
                Told::Data { id, bytes } => self.tell(host, Input::StreamData { id, bytes: &bytes }),
                Told::Closed { id, cause } => self.tell(host, Input::StreamClosed { id, cause }),
            }
        }
    }

    // ---- programs ----

    fn tell(&mut self, host: HostId, input: Input<'_>) {
        self.hosts[host.0].program.handle(self.now, input);
        self.drain(host);
    }

    fn drain(&mut self, host: HostId) {
        for _ in 0..DRAIN_MAX {
            let output = self.hosts[host.0].program.poll();
            if let Output::Timeout(at) = output {
                for fact in self.hosts[host.0].program.facts() {
                    let line = format!("{}: {fact}", self.hosts[host.0].name);
                    self.trace.fact(self.now, &line);
                }
                self.set_deadline(host, at);
                return;
            }
            self.perform(host, output);
        }
        panic!("{} has more than {DRAIN_MAX} outputs for one input", self.hosts[host.0].name);
    }

    fn set_deadline(&mut self, host: HostId, at: Option<Instant>) {
        let at = at.map(|at| at.max(self.now));
        if self.hosts[host.0].deadline != at {
            self.hosts[host.0].deadline = at;
            if let Some(at) = at {
                self.queue.push(at, Happening::Wake(host));
            }
        }
    }

    fn perform(&mut self, host: HostId, output: Output) {
        match output {
            Output::OpenSocket { id, bind } => match self.hosts[host.0].bind(id, bind) {
                Ok(local) => self.tell_later(host, move |sim| sim.tell(host, Input::SocketOpened { id, local })),
                Err(cause) => self.tell_later(host, move |sim| sim.tell(host, Input::SocketFailed { id, cause })),
            },
            Output::CloseSocket { id } => self.hosts[host.0].close_socket(id),
            Output::Listen { id, bind, tls } => self.listen(host, id, bind, tls),
            Output::CloseListener { id } => self.hosts[host.0].streams.close_listener(id),
            Output::OpenStream { id, from, to, tls } => self.open_stream(host, id, from, to, tls),
            Output::Transmit { socket, to, payload } => {
                if let Some(from) = self.hosts[host.0].sockets.get(&socket).copied() {
                    self.send(host, Packet::udp(from, to, payload));
                }
            }
            Output::StreamSend { id, bytes } => {
                let step = self.hosts[host.0].streams.send(id, &bytes);
                self.carry_out(host, step);
            }
            Output::CloseStream { id } => {
                let step = self.hosts[host.0].streams.close(id);
                self.carry_out(host, step);
            }
            Output::Timeout(_) => {}
        }
    }

    fn listen(&mut self, host: HostId, id: u64, bind: SocketAddr, tls: Tls) {
        let local = if bind.port() == 0 { self.free_stream_end(host, bind.ip()) } else { bind };
        self.hosts[host.0].streams.listen(id, local, tls);
        if bind.port() == 0 {
            self.tell_later(host, move |sim| sim.tell(host, Input::Listening { id, local }));
        }
    }

    fn free_stream_end(&mut self, host: HostId, ip: IpAddr) -> SocketAddr {
        loop {
            let local = SocketAddr::new(ip, self.hosts[host.0].ephemeral_port(ip));
            if !self.hosts[host.0].streams.uses(local) {
                return local;
            }
        }
    }

    fn open_stream(
        &mut self,
        host: HostId,
        id: u64,
        from: Option<SocketAddr>,
        to: SocketAddr,
        tls: Option<Vec<String>>,
    ) {
        let from = from.unwrap_or_else(|| SocketAddr::new(self.hosts[host.0].addresses[0], 0));
        let local = if from.port() == 0 { self.free_stream_end(host, from.ip()) } else { from };
        let step = self.hosts[host.0].streams.open(id, (local, to), tls);
        for after in SYN_AT {
            self.queue.push(self.now + after, Happening::Retry(host, id));
        }
        self.queue.push(self.now + SYN_GIVE_UP, Happening::GiveUp(host, id));
        self.carry_out(host, step);
    }

    /// Answers to requests come as inputs of their own, at the same instant but after the drain.
    fn tell_later(&mut self, _host: HostId, tell: impl FnOnce(&mut Self) + 'static) {
        self.queue.push(self.now, Happening::Act(Box::new(tell)));
    }
}
