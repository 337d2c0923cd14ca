//! Our half: sockets, candidates and what is sent through them. All peers share it.
//!
//! ```text
//!   interface ── Socket (per component) ──┬── host candidate
//!                                         ├── reflexive candidate (what a server saw)
//!                                         └── Relay over UDP ── relayed candidate      see relay.rs, gather.rs
//!   server ───── stream (TCP, TLS) ────────── Relay ─────────── relayed candidate
//!   interface ── Endpoint (per component and direction) ─────── host candidate over TCP      see tcp.rs
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha20Rng;

use crate::candidate::{Candidate, CandidateTransport, CandidateType, Component};
use crate::check::CheckFailure;
use crate::checklist::{Readiness, is_link_local};
use crate::config::{Config, Secret, Server, ServerId, ServerTransport};
use crate::description::LocalDescription;
use crate::event::{Event, Output, PeerId, ServerOutcome, SocketId, StreamId, TcpId};
use crate::foundation::{Foundations, Likeness};
use crate::gather::{Attempt, Gathering};
use crate::pair::{Base, LocalCandidate, Pair, RelayId};
use crate::policy::Policy;
use crate::priority;
use crate::relay::Relay;
use crate::sounding::Soundings;
use crate::stun::TransactionId;
use crate::tcp::Endpoint;

/// Addresses gathered on, ten interfaces with both families: each costs a socket per component and a question to every
/// server.
pub(crate) const INTERFACES_MAX: usize = 20;

/// Ports of a configured range that are tried before a socket is given up.
const BIND_TRIES_MAX: u32 = 32;

/// Binding indications keep the NATs open until the session has concluded (RFC 8445 §5.1.1.4, §11).
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(15);

/// `a=ice-options`: RFC 8445 §10, and renomination of standby pairs.
const OPTIONS: &[&str] = &["ice2", "renomination"];

/// ice-ufrag and ice-pwd of one generation (RFC 8839 §5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub ufrag: String,
    pub pwd: Secret,
}

impl Credentials {
    /// 48 and 144 random bits; RFC 8445 §5.3 asks for 24 and 128.
    pub(crate) fn random(rng: &mut ChaCha20Rng) -> Self {
        Self { ufrag: ice_chars(rng, 8), pwd: Secret::new(ice_chars(rng, 24)) }
    }
}

fn ice_chars(rng: &mut ChaCha20Rng, count: usize) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let pick = |_| ALPHABET.get(rng.random_range(0..ALPHABET.len())).copied().map_or('0', char::from);
    (0..count).map(pick).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SocketState {
    Opening { tries: u32 },
    Open { local: SocketAddr },
    Failed { cause: String },
}

/// One UDP socket on one interface for one component.
#[derive(Debug)]
pub(crate) struct Socket {
    pub component: Component,
    /// Place of the interface in the configuration: its preference.
    pub index: usize,
    pub ip: IpAddr,
    pub state: SocketState,
    /// Closed as soon as it carries no relay either.
    pub is_wanted: bool,
    /// For a relay only: the server has another allocation on the other port (437, RFC 8656 §7.4).
    pub spare_for: Option<ServerId>,
    /// The session before an ICE restart still needs it.
    pub is_kept: bool,
    /// What a STUN server saw of it first.
    pub seen: Option<(ServerId, SocketAddr)>,
}

impl Socket {
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self.state {
            SocketState::Open { local } => Some(local),
            SocketState::Opening { .. } | SocketState::Failed { .. } => None,
        }
    }
}

/// What came up in our half and concerns the peers.
#[derive(Debug)]
pub(crate) enum News {
    /// A new candidate: pair it.
    Candidate,
    /// A packet from a peer through a relay.
    Packet { base: Base, from: SocketAddr, payload: Vec<u8> },
    /// Pairs on this base have failed.
    BaseLost(Base),
    /// The TCP connection of a pair has ended or was never there.
    Disconnected { base: Base, remote: SocketAddr, cause: CheckFailure },
    /// No path in time.
    SessionFailed(PeerId),
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub(crate) struct Half {
    pub interfaces: Vec<IpAddr>,
    pub servers: Vec<Server>,
    pub policy: Policy,
    pub credentials: Credentials,
    /// Components that are still needed.
    pub components: Vec<Component>,
    pub mux: bool,
    pub(crate) sockets: BTreeMap<SocketId, Socket>,
    pub(crate) relays: BTreeMap<RelayId, Relay>,
    /// Host candidates over TCP are wanted.
    pub(crate) uses_tcp: bool,
    pub(crate) endpoints: BTreeMap<TcpId, Endpoint>,
    pub(crate) candidates: Vec<LocalCandidate>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) gathering: Option<Gathering>,
    pub(crate) gathered_in: Option<Duration>,
    pub(crate) probes: BTreeMap<ServerId, (ServerOutcome, Duration)>,
    /// Questions to servers about what has changed.
    pub(crate) soundings: Soundings,
    /// Questions to servers that never answered.
    pub(crate) hopes: BTreeMap<TransactionId, SocketId>,
    /// No path works: servers are asked again and again.
    pub(crate) is_repairing: bool,
    pub(crate) retry_at: Option<Instant>,
    /// A server has just seen us at another address than before.
    pub(crate) rebound: bool,
    pub(crate) news: VecDeque<News>,
    pub(crate) out: VecDeque<Output>,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) keepalive_at: Option<Instant>,
    pub(crate) closing: Option<Instant>,
    pub(crate) is_closed: bool,
    /// Media goes to a peer without ICE.
    pub(crate) is_plain: bool,
    /// Bases of the default destinations in the description that was given out.
    pub(crate) told_defaults: BTreeMap<Component, Base>,
    pacing: Duration,
    port_range: Option<RangeInclusive<u16>>,
    foundations: Foundations,
    next_socket: u32,
    pub(crate) next_endpoint: u32,
    pub(crate) next_stream: u32,
    pub(crate) next_relay: u32,
}

impl Half {
    pub(crate) fn new(config: &Config, mut rng: ChaCha20Rng) -> Self {
        let credentials = Credentials::random(&mut rng);
        let components = if config.rtcp { Component::ALL.to_vec() } else { vec![Component::Rtp] };
        Self {
            interfaces: usable_interfaces(&config.interfaces),
            servers: config.servers.clone(),
            policy: config.policy,
            credentials,
            components,
            mux: !config.rtcp,
            sockets: BTreeMap::new(),
            relays: BTreeMap::new(),
            uses_tcp: config.tcp,
            endpoints: BTreeMap::new(),
            candidates: Vec::new(),
            attempts: Vec::new(),
            gathering: None,
            gathered_in: None,
            probes: BTreeMap::new(),
            soundings: Soundings::new(),
            hopes: BTreeMap::new(),
            is_repairing: false,
            retry_at: None,
            rebound: false,
            news: VecDeque::new(),
            out: VecDeque::new(),
            rng,
            keepalive_at: None,
            closing: None,
            is_closed: false,
            is_plain: false,
            told_defaults: BTreeMap::new(),
            pacing: config.pacing,
            port_range: config.port_range.clone(),
            foundations: Foundations::default(),
            next_socket: 0,
            next_endpoint: 0,
            next_stream: 0,
            next_relay: 0,
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    /// Sends from a base; through a relay if it is one.
    pub(crate) fn transmit(&mut self, now: Instant, base: Base, to: SocketAddr, payload: Vec<u8>) {
        match base {
            Base::Socket(socket) => {
                if self.sockets.get(&socket).and_then(Socket::local).is_some() {
                    self.out.push_back(Output::Transmit { socket, to, payload });
                }
            }
            Base::Relay(relay) => self.relay_send(now, relay, to, &payload),
            Base::Tcp(endpoint) => self.tcp_send(now, endpoint, to, &payload),
        }
    }

    /// The component that a base belongs to, if checks may use it: the policy may keep it out.
    pub(crate) fn component_of(&self, base: Base) -> Option<Component> {
        match base {
            Base::Socket(id) => self.sockets.get(&id).filter(|s| s.local().is_some()).map(|s| s.component),
            Base::Relay(id) => self.relays.get(&id).filter(|r| r.relayed.is_some()).map(|r| r.component),
            Base::Tcp(id) => self.endpoints.get(&id).filter(|e| e.local().is_some()).map(|e| e.component),
        }
    }

    /// A relay that the server will not renew: what is on it goes on for a while, nothing new begins there.
    pub(crate) fn is_ending(&self, base: Base) -> bool {
        match base {
            Base::Relay(id) => self.relays.get(&id).is_some_and(|relay| relay.is_ending),
            Base::Socket(_) | Base::Tcp(_) => false,
        }
    }

    /// Candidates to pair from: what the policy allows.
    pub(crate) fn local_candidates(&self) -> &[LocalCandidate] {
        &self.candidates
    }

    /// The best candidate of a base: what a peer-reflexive pair is formed with.
    pub(crate) fn candidate_of(&self, base: Base) -> Option<&LocalCandidate> {
        self.candidates.iter().filter(|c| c.base == base).max_by_key(|c| c.candidate.priority)
    }

    /// Whether a check of this pair can go out: relays need the peer's permission first.
    pub(crate) fn readiness(&self, pair: &Pair) -> Readiness {
        match pair.base() {
            // The check itself connects.
            Base::Socket(_) | Base::Tcp(_) => Readiness::Ready,
            Base::Relay(id) => match self.relays.get(&id) {
                Some(relay) => relay.permission(pair.remote.addr.ip()),
                None => Readiness::Refused,
            },
        }
    }

    /// Opens the sockets that are missing.
    pub(crate) fn open_sockets(&mut self) {
        if !self.policy.uses_udp() {
            return;
        }
        for (index, ip) in self.interfaces.clone().into_iter().enumerate() {
            for component in self.components.clone() {
                let same = |s: &Socket| s.is_wanted && s.ip == ip && s.component == component;
                let known =
                    self.sockets.values_mut().find(|s| same(s) && !matches!(s.state, SocketState::Failed { .. }));
                if let Some(socket) = known {
                    socket.index = index;
                    continue;
                }
                let id = SocketId(self.next_socket);
                self.next_socket += 1;
                let state = SocketState::Opening { tries: 1 };
                let socket = Socket {
                    component,
                    index,
                    ip,
                    state,
                    is_wanted: true,
                    spare_for: None,
                    is_kept: false,
                    seen: None,
                };
                self.sockets.insert(id, socket);
                let bind = self.bind_addr(ip);
                self.out.push_back(Output::OpenSocket { id, bind });
            }
        }
    }

    /// Another port on the interface of `socket`, for a relay that this one cannot have.
    pub(crate) fn open_spare(&mut self, socket: SocketId, server: ServerId) {
        let Some((component, index, ip)) =
            self.sockets.get(&socket).filter(|s| s.spare_for.is_none()).map(|s| (s.component, s.index, s.ip))
        else {
            return;
        };
        let id = SocketId(self.next_socket);
        self.next_socket += 1;
        let state = SocketState::Opening { tries: 1 };
        self.sockets.insert(
            id,
            Socket {
                component,
                index,
                ip,
                state,
                is_wanted: false,
                spare_for: Some(server),
                is_kept: false,
                seen: None,
            },
        );
        let bind = self.bind_addr(ip);
        self.out.push_back(Output::OpenSocket { id, bind });
    }

    /// A random port of the range; two agents on one host would otherwise race for the same ones in the same order.
    pub(crate) fn bind_addr(&mut self, ip: IpAddr) -> SocketAddr {
        let port = match self.port_range.clone() {
            Some(range) if !range.is_empty() => self.rng.random_range(range),
            Some(_) | None => 0,
        };
        SocketAddr::new(ip, port)
    }

    pub(crate) fn has_port_range(&self) -> bool {
        self.port_range.as_ref().is_some_and(|range| !range.is_empty())
    }

    /// Takes the answer to `OpenSocket`.
    pub(crate) fn socket_opened(&mut self, id: SocketId, local: SocketAddr) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if !matches!(socket.state, SocketState::Opening { .. }) {
            return;
        }
        socket.state = SocketState::Open { local };
        let (component, index, is_wanted) = (socket.component, socket.index, socket.is_wanted);
        if is_wanted && self.policy.allows(CandidateType::Host, None) {
            let addr = Address { addr: local, base: Base::Socket(id), base_addr: local, related: None };
            let preference = priority::local_preference(index, None);
            self.add_host_candidate(component, CandidateTransport::Udp, addr, preference);
        }
        self.sweep();
    }

    /// Takes a failure to bind (the next port of the range is tried), or the loss of a socket.
    pub(crate) fn socket_failed(&mut self, now: Instant, id: SocketId, cause: &str) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let ip = socket.ip;
        if let SocketState::Opening { tries } = &mut socket.state
            && *tries < BIND_TRIES_MAX
            && self.port_range.is_some()
        {
            *tries += 1;
            let bind = self.bind_addr(ip);
            self.out.push_back(Output::OpenSocket { id, bind });
            return;
        }
        let was_open = socket.local().is_some();
        socket.state = SocketState::Failed { cause: cause.to_owned() };
        self.fail_attempts_on(now, id, cause);
        self.candidates.retain(|c| c.base != Base::Socket(id));
        if was_open {
            self.news.push_back(News::BaseLost(Base::Socket(id)));
        }
    }

    /// What a server saw of a socket (RFC 8445 §5.1.1.2).
    pub(crate) fn add_reflexive(&mut self, id: SocketId, server: ServerId, mapped: SocketAddr) {
        self.remember_seen(id, server, mapped);
        let Some(socket) = self.sockets.get(&id).filter(|s| s.is_wanted) else { return };
        let (Some(local), component, index) = (socket.local(), socket.component, socket.index) else { return };
        let kind = CandidateType::ServerReflexive;
        let is_redundant = self.candidates.iter().any(|c| c.base == Base::Socket(id) && c.candidate.addr == mapped);
        if is_redundant || !self.policy.allows(kind, None) || mapped.is_ipv4() != local.is_ipv4() {
            return; // RFC 8445 §5.1.3; the policy has been applied before: without hosts a srflx equal to its base stays
        }
        let server = self.servers.get(server.0).map(|s| (s.addr.ip(), s.transport));
        let transport = CandidateTransport::Udp;
        let foundation = self.foundations.get(Likeness { kind, transport, base: local.ip(), server });
        let related = if self.policy.hides_related() { Candidate::hidden_related(local) } else { local };
        let addr = Address { addr: mapped, base: Base::Socket(id), base_addr: local, related: Some(related) };
        let preference = priority::local_preference(index, None);
        self.add_candidate((component, kind, transport), addr, foundation, preference, None);
    }

    /// The address that a relay gave us; `mapped` is ours as the relay saw it.
    pub(crate) fn add_relayed(&mut self, id: RelayId, relayed: SocketAddr, mapped: SocketAddr) {
        let Some(relay) = self.relays.get(&id) else { return };
        let (component, server, transport) = (relay.component, relay.server, relay.transport());
        let kind = CandidateType::Relayed;
        if !self.policy.allows(kind, Some(transport)) || self.candidates.iter().any(|c| c.base == Base::Relay(id)) {
            return;
        }
        let server_ip = self.servers.get(server.0).map(|s| (s.addr.ip(), transport));
        let what = (component, kind, CandidateTransport::Udp);
        let foundation =
            self.foundations.get(Likeness { kind, transport: what.2, base: relayed.ip(), server: server_ip });
        let raddr = if self.policy.hides_related() { Candidate::hidden_related(relayed) } else { mapped };
        let addr = Address { addr: relayed, base: Base::Relay(id), base_addr: relayed, related: Some(raddr) };
        let preference = priority::local_preference(server.0, Some(transport));
        self.add_candidate(what, addr, foundation, preference, Some(transport));
    }

    /// A candidate on an interface itself.
    pub(crate) fn add_host_candidate(
        &mut self,
        component: Component,
        transport: CandidateTransport,
        at: Address,
        local_preference: u16,
    ) {
        let kind = CandidateType::Host;
        let likeness = Likeness { kind, transport, base: at.base_addr.ip(), server: None };
        let foundation = self.foundations.get(likeness);
        self.add_candidate((component, kind, transport), at, foundation, local_preference, None);
    }

    fn add_candidate(
        &mut self,
        (component, kind, transport): (Component, CandidateType, CandidateTransport),
        at: Address,
        foundation: String,
        local_preference: u16,
        relay: Option<ServerTransport>,
    ) {
        let priority = priority::candidate_priority(kind, transport, local_preference, component);
        let candidate =
            Candidate { foundation, component, transport, priority, addr: at.addr, kind, related: at.related };
        tracing::debug!(%candidate, "local candidate");
        if self.gathering.is_none() && self.gathered_in.is_some() {
            self.event(Event::LateCandidate { candidate: candidate.clone() });
        }
        self.candidates.push(LocalCandidate {
            candidate,
            base: at.base,
            base_addr: at.base_addr,
            relay,
            local_preference,
        });
        self.news.push_back(News::Candidate);
    }

    /// A peer-reflexive candidate of ours (RFC 8445 §7.2.5.3.1): only part of valid pairs, never paired itself.
    pub(crate) fn peer_reflexive(&mut self, of: &LocalCandidate, mapped: SocketAddr) -> Candidate {
        let kind = CandidateType::PeerReflexive;
        let transport = of.candidate.transport;
        let foundation = self.foundations.get(Likeness { kind, transport, base: of.base_addr.ip(), server: None });
        let related = if self.policy.hides_related() { Candidate::hidden_related(mapped) } else { of.base_addr };
        let component = of.candidate.component;
        let priority = of.check_priority();
        Candidate { foundation, component, transport, priority, addr: mapped, kind, related: Some(related) }
    }

    /// What goes into SDP now.
    pub(crate) fn description(&self) -> LocalDescription {
        let lasting = self.candidates.iter().filter(|c| !self.is_ending(c.base));
        let mut candidates: Vec<Candidate> = lasting.map(|c| c.candidate.clone()).collect();
        candidates.sort_by_key(|c| std::cmp::Reverse(c.priority));
        let defaults = self.components.iter().filter_map(|c| Some((*c, self.default_candidate(*c)?.candidate.addr)));
        LocalDescription {
            ufrag: self.credentials.ufrag.clone(),
            pwd: self.credentials.pwd.clone(),
            candidates,
            relays: self.candidates.iter().filter_map(|c| Some((c.candidate.addr, c.relay?))).collect(),
            defaults: defaults.collect(),
            pacing: self.pacing,
            options: OPTIONS,
        }
    }

    /// RFC 8445 §5.1.4: the one most likely to work without ICE. Relayed, then reflexive, then host; IPv4 first. A peer
    /// without ICE speaks UDP only.
    pub(crate) fn default_candidate(&self, component: Component) -> Option<&LocalCandidate> {
        let order = |c: &&LocalCandidate| {
            let kind = match c.candidate.kind {
                CandidateType::Relayed => 3,
                CandidateType::ServerReflexive | CandidateType::PeerReflexive => 2,
                CandidateType::Host => 1,
            };
            (kind, c.candidate.addr.is_ipv4(), c.candidate.priority)
        };
        let is_udp = |c: &&LocalCandidate| c.candidate.transport == CandidateTransport::Udp && !self.is_ending(c.base);
        self.candidates.iter().filter(|c| c.candidate.component == component).filter(is_udp).max_by_key(order)
    }

    /// New credentials, and candidates of what is still there; the rest is gathered again (RFC 8445 §9).
    pub(crate) fn restart(
        &mut self,
        now: Instant,
        interfaces: Option<Vec<IpAddr>>,
        config: &Config,
        keep: &BTreeSet<Base>,
    ) {
        self.credentials = Credentials::random(&mut self.rng);
        if let Some(interfaces) = interfaces {
            self.interfaces = usable_interfaces(&interfaces);
        }
        self.retire(now, keep);
        let sockets = &self.sockets;
        let is_on_live_socket = |id: SocketId| sockets.get(&id).is_some_and(|s| s.is_wanted);
        let relays = &self.relays;
        self.candidates.retain(|c| match c.base {
            Base::Socket(id) => c.candidate.kind == CandidateType::Host && is_on_live_socket(id),
            Base::Relay(id) => {
                relays.get(&id).is_some_and(|r| !r.is_retired && r.socket().is_none_or(is_on_live_socket))
            }
            Base::Tcp(_) => true,
        });
        let here = self.interfaces.clone();
        self.close_endpoints(|endpoint| !here.contains(&endpoint.ip));
        self.probes.clear();
        self.start_gathering(now, config);
        self.sweep();
    }

    /// Releases everything but these bases, and these connections of their endpoints.
    pub(crate) fn retain_bases(&mut self, now: Instant, keep: &BTreeSet<Base>, links: &BTreeSet<(Base, SocketAddr)>) {
        self.candidates.retain(|c| keep.contains(&c.base));
        self.attempts.clear();
        for (id, socket) in &mut self.sockets {
            (socket.is_wanted, socket.is_kept) = (keep.contains(&Base::Socket(*id)), false);
            socket.spare_for = None;
        }
        let unused: Vec<RelayId> = self.relays.keys().copied().filter(|id| !keep.contains(&Base::Relay(*id))).collect();
        for id in unused {
            self.free_relay(now, id);
        }
        self.keepalive_at = None;
        self.retain_endpoints(keep, links);
        self.sweep();
    }

    /// Component 2 is carried by component 1 from now on.
    pub(crate) fn drop_rtcp(&mut self, now: Instant) {
        if self.mux {
            return;
        }
        self.mux = true;
        self.components.retain(|c| *c == Component::Rtp);
        self.candidates.retain(|c| c.candidate.component == Component::Rtp);
        self.attempts.retain(|a| a.component == Component::Rtp);
        self.close_endpoints(|endpoint| endpoint.component == Component::Rtcp);
        for socket in self.sockets.values_mut().filter(|s| s.component == Component::Rtcp) {
            socket.is_wanted = false;
            socket.spare_for = None;
        }
        let relays = self.relays.iter().filter(|(_, r)| r.component == Component::Rtcp);
        for id in relays.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.free_relay(now, id);
        }
        self.sweep();
    }

    /// Closes sockets that nobody needs: no candidate, and no relay that is still being freed.
    pub(crate) fn sweep(&mut self) {
        let carrying: BTreeSet<SocketId> = self.relays.values().filter_map(Relay::socket).collect();
        let is_idle =
            |id: &SocketId, s: &Socket| !s.is_wanted && !s.is_kept && s.spare_for.is_none() && !carrying.contains(id);
        let idle = self.sockets.iter().filter(|(id, s)| is_idle(id, s));
        for id in idle.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.sockets.remove(&id);
            self.out.push_back(Output::CloseSocket(id));
        }
        if self.closing.is_some() && self.sockets.is_empty() && self.relays.is_empty() && !self.is_closed {
            self.is_closed = true;
            self.closing = None;
            self.event(Event::Closed);
        }
    }

    /// Whether a stream id is one of ours.
    pub(crate) fn relay_on_stream(&self, id: StreamId) -> Option<RelayId> {
        self.relays.iter().find(|(_, relay)| relay.stream() == Some(id)).map(|(id, _)| *id)
    }
}

/// Where a candidate is and where it sends from.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    pub addr: SocketAddr,
    pub base: Base,
    pub base_addr: SocketAddr,
    pub related: Option<SocketAddr>,
}

/// Without duplicates and addresses that cannot be bound; link-local ones last.
pub(crate) fn usable_interfaces(interfaces: &[IpAddr]) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    let mut usable: Vec<IpAddr> = interfaces
        .iter()
        .copied()
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !is_mapped(*ip) && seen.insert(*ip))
        .collect();
    usable.sort_by_key(|ip| is_link_local(*ip)); // stable: the caller's order is the preference
    interleaved(&usable).into_iter().take(INTERFACES_MAX).collect()
}

/// `::ffff:0:0/96` is no address of an interface and must not be a candidate (RFC 8445 §5.1.1.1).
fn is_mapped(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    }
}

/// The families in turn, so that a long list of one does not put off the other (RFC 8421 §4); the first address decides
/// which one begins.
fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let begins_ipv4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(|ip| ip.is_ipv4() == begins_ipv4);
    let pairs = (0..first.len().max(second.len())).map(|at| [first.get(at).copied(), second.get(at).copied()]);
    pairs.flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_alternate_link_local_ones_are_last_and_no_mapped_one_is_used() {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let cases: [(&str, &[&str], &[&str]); 4] = [
            ("one family", &["10.0.0.1", "10.0.0.2", "10.0.0.1"], &["10.0.0.1", "10.0.0.2"]),
            (
                "both",
                &["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", "fe80::1"],
                &["10.0.0.1", "2001:db8::1", "10.0.0.2", "fe80::1", "10.0.0.3"],
            ),
            (
                "IPv6 is preferred",
                &["2001:db8::1", "10.0.0.1", "2001:db8::2"],
                &["2001:db8::1", "10.0.0.1", "2001:db8::2"],
            ),
            ("no addresses of an interface", &["0.0.0.0", "::", "::ffff:10.0.0.1", "224.0.0.1", "ff02::1"], &[]),
        ];
        for (name, addresses, want) in cases {
            assert_eq!(usable_interfaces(&list(addresses)), list(want), "case: {name}");
        }
    }
}
