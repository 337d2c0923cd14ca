//! Host candidates over TCP (RFC 6544): endpoints, and the connections that carry checks and media.
//!
//! ```text
//!   Endpoint active  ───────────── connects to passive ones, from a port of the moment; 9 in its line (RFC 6544 §4.5)
//!   Endpoint passive ── listener ─ accepts; never starts a check (RFC 6544 §6.2)
//!   Endpoint so ─────── listener ─ accepts, and connects from the listener's port
//!
//!   check due ──▶ Connecting ──opened──▶ Open ◀──accepted── a stranger, until its first authentic check
//!                     └── refused, 8 s ──┬─────┘ closed
//!                                        └──▶ its pair has failed
//! ```
//! An endpoint is to the rest of the agent what a socket is: a packet to an address goes out on the connection to that
//! address, in a frame of RFC 4571 §2. Which candidates pair is said in `checklist.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::candidate::{CandidateTransport, CandidateType, Component, TcpType};
use crate::check::CheckFailure;
use crate::event::{Output, StreamId, TcpId};
use crate::framing::{self, Deframer};
use crate::local::{Address, Half, News};
use crate::pair::Base;
use crate::priority;

/// A connection that does not open, or comes in and shows no authentic check, is given up: dropped SYNs say nothing for
/// minutes, and each connection holds a descriptor.
const SETTLE_LIMIT: Duration = Duration::from_secs(8);

/// Connections of ours to one address at once: it was named by a stranger (RFC 6544 §12).
const CONNECTS_PER_ADDRESS_MAX: usize = 5;

/// Connections of one agent at once, ours and those of others: pairs of a few interfaces, and one for each fork.
const CONNECTIONS_MAX: usize = 64;

/// Checks that wait for a connection to open: one, its nomination, and answers.
const PENDING_MAX: usize = 4;

/// Ports of a configured range that are tried before a listener is given up.
const LISTEN_TRIES_MAX: u32 = 32;

/// What is cut from a stream at once.
const PIECE_BYTES: usize = 32 * 1024;

/// The port in the line of an active candidate: discard (RFC 6544 §4.5).
const ACTIVE_PORT: u16 = 9;

/// Every interface gets one of each.
const KINDS: [TcpType; 3] = [TcpType::Active, TcpType::Passive, TcpType::SimultaneousOpen];

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Opening { tries: u32 },
    Ready { local: SocketAddr },
    Failed { cause: String },
}

/// One TCP candidate's place on one interface.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub component: Component,
    pub ip: IpAddr,
    kind: TcpType,
    state: State,
    connections: BTreeMap<SocketAddr, Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: StreamId,
    /// Our end, once it is open.
    local: Option<SocketAddr>,
    /// Given up then.
    settle_by: Option<Instant>,
    is_ours: bool,
    pending: Vec<Vec<u8>>,
    deframer: Deframer,
}

impl Endpoint {
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self.state {
            State::Ready { local } => Some(local),
            State::Opening { .. } | State::Failed { .. } => None,
        }
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening { .. })
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed { cause } => Some(cause),
            State::Opening { .. } | State::Ready { .. } => None,
        }
    }

    fn listens(&self) -> bool {
        self.kind != TcpType::Active
    }
}

impl Half {
    /// Opens the endpoints that are missing. Active ones need nothing from outside.
    pub(crate) fn open_endpoints(&mut self) {
        if !self.uses_tcp || !self.policy.allows(CandidateType::Host, None) {
            return;
        }
        for (index, ip) in self.interfaces.clone().into_iter().enumerate() {
            for component in self.components.clone() {
                for kind in KINDS {
                    let is_it = |e: &Endpoint| e.ip == ip && e.component == component && e.kind == kind;
                    let known = self.endpoints.iter().find(|(_, e)| is_it(e) && e.failure().is_none());
                    match known.map(|(id, _)| *id) {
                        Some(id) => self.add_tcp_candidate(id, index),
                        None => self.open_endpoint(component, ip, kind, index),
                    }
                }
            }
        }
    }

    fn open_endpoint(&mut self, component: Component, ip: IpAddr, kind: TcpType, index: usize) {
        let id = TcpId(self.next_endpoint);
        self.next_endpoint += 1;
        let state = match kind {
            TcpType::Active => State::Ready { local: SocketAddr::new(ip, ACTIVE_PORT) },
            TcpType::Passive | TcpType::SimultaneousOpen => State::Opening { tries: 1 },
        };
        self.endpoints.insert(id, Endpoint { component, ip, kind, state, connections: BTreeMap::new() });
        if kind == TcpType::Active {
            self.add_tcp_candidate(id, index);
        } else {
            let bind = self.bind_addr(ip);
            self.out.push_back(Output::Listen { id, bind });
        }
    }

    /// Takes the answer to `Listen`.
    pub(crate) fn listening(&mut self, id: TcpId, local: SocketAddr) {
        let Some(endpoint) = self.endpoints.get_mut(&id).filter(|e| e.is_opening()) else {
            return self.out.push_back(Output::CloseListener(id)); // given up meanwhile
        };
        endpoint.state = State::Ready { local };
        let ip = endpoint.ip;
        if let Some(index) = self.interfaces.iter().position(|known| *known == ip) {
            self.add_tcp_candidate(id, index);
        }
    }

    /// Takes a failure to listen: the next port of the range is tried.
    pub(crate) fn listen_failed(&mut self, id: TcpId, cause: &str) {
        let has_range = self.has_port_range();
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let ip = endpoint.ip;
        match &mut endpoint.state {
            State::Opening { tries } if *tries < LISTEN_TRIES_MAX && has_range => {
                *tries += 1;
                let bind = self.bind_addr(ip);
                self.out.push_back(Output::Listen { id, bind });
            }
            State::Opening { .. } | State::Ready { .. } | State::Failed { .. } => {
                endpoint.state = State::Failed { cause: cause.to_owned() };
                self.candidates.retain(|c| c.base != Base::Tcp(id));
            }
        }
    }

    fn add_tcp_candidate(&mut self, id: TcpId, index: usize) {
        if self.candidates.iter().any(|c| c.base == Base::Tcp(id)) {
            return;
        }
        let Some((component, kind, local)) =
            self.endpoints.get(&id).and_then(|e| Some((e.component, e.kind, e.local()?)))
        else {
            return;
        };
        let addr = Address { addr: local, base: Base::Tcp(id), base_addr: local, related: None };
        let preference = priority::tcp_local_preference(kind, index);
        let transport = CandidateTransport::Tcp(kind);
        self.add_host_candidate(component, transport, addr, preference);
    }

    /// Sends on the connection to `to`; without one an active end connects first.
    pub(crate) fn tcp_send(&mut self, now: Instant, id: TcpId, to: SocketAddr, payload: &[u8]) {
        let Some(frame) = framing::frame(payload) else { return };
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        match endpoint.connections.get_mut(&to) {
            Some(connection) if connection.local.is_some() => {
                self.out.push_back(Output::StreamSend { id: connection.stream, payload: frame });
            }
            Some(connection) if connection.pending.len() < PENDING_MAX => connection.pending.push(frame),
            Some(_) => {}
            None => self.connect(now, id, to, frame),
        }
    }

    fn connect(&mut self, now: Instant, id: TcpId, to: SocketAddr, first: Vec<u8>) {
        let all = || self.endpoints.values().flat_map(|e| &e.connections);
        let to_address = all().filter(|(remote, c)| remote.ip() == to.ip() && c.is_ours).count();
        let is_full = all().count() >= CONNECTIONS_MAX || to_address >= CONNECTS_PER_ADDRESS_MAX;
        let stream = StreamId(self.next_stream);
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let from = match (endpoint.kind, endpoint.local()) {
            (TcpType::Active, _) => Some(SocketAddr::new(endpoint.ip, 0)),
            (TcpType::SimultaneousOpen, local) => local,
            (TcpType::Passive, _) => None,
        };
        let Some(from) = from.filter(|_| !is_full) else {
            let cause = if is_full { CheckFailure::TooManyConnections } else { CheckFailure::BaseLost };
            return self.news.push_back(News::Disconnected { base: Base::Tcp(id), remote: to, cause });
        };
        self.next_stream += 1;
        let connection = Connection {
            stream,
            local: None,
            settle_by: Some(now + SETTLE_LIMIT),
            is_ours: true,
            pending: vec![first],
            deframer: Deframer::default(),
        };
        endpoint.connections.insert(to, connection);
        self.out.push_back(Output::OpenStream { id: stream, from: Some(from), to, tls: None });
    }

    /// A connection came in at a listener.
    pub(crate) fn stream_accepted(
        &mut self,
        now: Instant,
        id: TcpId,
        stream: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        let count = self.endpoints.values().map(|e| e.connections.len()).sum::<usize>();
        let endpoint = self.endpoints.get_mut(&id).filter(|e| e.listens() && count < CONNECTIONS_MAX);
        let Some(endpoint) = endpoint else { return self.out.push_back(Output::CloseStream(stream)) };
        let pending = match endpoint.connections.remove(&remote) {
            Some(known) if known.local.is_some() => {
                endpoint.connections.insert(remote, known);
                return self.out.push_back(Output::CloseStream(stream));
            }
            // Both opened at once, and the other side's came first: what waited goes out on it.
            Some(crossed) => {
                self.out.push_back(Output::CloseStream(crossed.stream));
                crossed.pending
            }
            None => Vec::new(),
        };
        for payload in pending {
            self.out.push_back(Output::StreamSend { id: stream, payload });
        }
        let connection = Connection {
            stream,
            local: Some(local),
            settle_by: Some(now + SETTLE_LIMIT),
            is_ours: false,
            pending: Vec::new(),
            deframer: Deframer::default(),
        };
        endpoint.connections.insert(remote, connection);
    }

    fn connection_of(&mut self, stream: StreamId) -> Option<(TcpId, SocketAddr, &mut Connection)> {
        self.endpoints.iter_mut().find_map(|(id, endpoint)| {
            let found = endpoint.connections.iter_mut().find(|(_, c)| c.stream == stream);
            found.map(|(remote, connection)| (*id, *remote, connection))
        })
    }

    /// Says whether the stream is one of a candidate.
    pub(crate) fn tcp_opened(&mut self, stream: StreamId, local: SocketAddr) -> bool {
        let Some((_, _, connection)) = self.connection_of(stream) else { return false };
        connection.local = Some(local);
        connection.settle_by = None;
        for payload in std::mem::take(&mut connection.pending) {
            self.out.push_back(Output::StreamSend { id: stream, payload });
        }
        true
    }

    /// Bytes of a peer. Says whether the stream is one of a candidate.
    pub(crate) fn tcp_data(&mut self, stream: StreamId, bytes: &[u8]) -> bool {
        let Some((id, remote, connection)) = self.connection_of(stream) else { return false };
        let (mut packets, mut is_broken) = (Vec::new(), false);
        for piece in bytes.chunks(PIECE_BYTES) {
            is_broken |= connection.deframer.push(piece).is_err();
            packets.extend(std::iter::from_fn(|| connection.deframer.next_packet()));
        }
        for payload in packets {
            self.news.push_back(News::Packet { base: Base::Tcp(id), from: remote, payload });
        }
        if is_broken {
            self.out.push_back(Output::CloseStream(stream));
            self.tcp_closed(stream, "it carries no frames of RFC 4571 §2");
        }
        true
    }

    /// The stream has ended, or could not be opened. Says whether it was one of a candidate.
    pub(crate) fn tcp_closed(&mut self, stream: StreamId, cause: &str) -> bool {
        let Some((id, remote, connection)) = self.connection_of(stream) else { return false };
        let failure =
            if connection.local.is_some() { CheckFailure::ConnectionLost } else { CheckFailure::NotConnected };
        tracing::debug!(%remote, cause, "TCP connection of a candidate ended");
        self.disconnect(id, remote, failure);
        true
    }

    fn disconnect(&mut self, id: TcpId, remote: SocketAddr, cause: CheckFailure) {
        let removed = self.endpoints.get_mut(&id).and_then(|e| e.connections.remove(&remote));
        if removed.is_some() {
            self.news.push_back(News::Disconnected { base: Base::Tcp(id), remote, cause });
        }
    }

    /// An authentic check has come on this connection: it may stay.
    pub(crate) fn prove_connection(&mut self, base: Base, remote: SocketAddr) {
        let Base::Tcp(id) = base else { return };
        let connection = self.endpoints.get_mut(&id).and_then(|e| e.connections.get_mut(&remote));
        if let Some(connection) = connection.filter(|c| c.local.is_some()) {
            connection.settle_by = None;
        }
    }

    /// Our end of the connection that a pair uses; a socket's is its address.
    pub(crate) fn sent_from(&self, base: Base, remote: SocketAddr) -> Option<SocketAddr> {
        match base {
            Base::Tcp(id) => self.endpoints.get(&id)?.connections.get(&remote)?.local,
            Base::Socket(_) | Base::Relay(_) => None,
        }
    }

    /// Gives up what did not settle.
    pub(crate) fn poll_connections(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (id, endpoint) in &self.endpoints {
            let late = endpoint.connections.iter().filter(|(_, c)| c.settle_by.is_some_and(|at| at <= now));
            due.extend(late.map(|(remote, c)| (*id, *remote, c.stream)));
        }
        for (id, remote, stream) in due {
            self.out.push_back(Output::CloseStream(stream));
            self.disconnect(id, remote, CheckFailure::NotConnected);
        }
    }

    pub(crate) fn next_connection_at(&self) -> Option<Instant> {
        let connections = self.endpoints.values().flat_map(|e| e.connections.values());
        connections.filter_map(|c| c.settle_by).min()
    }

    /// Closes endpoints that are not kept, and of the others the connections that no pair uses.
    pub(crate) fn retain_endpoints(&mut self, keep: &BTreeSet<Base>, links: &BTreeSet<(Base, SocketAddr)>) {
        let gone: Vec<TcpId> = self.endpoints.keys().copied().filter(|id| !keep.contains(&Base::Tcp(*id))).collect();
        for id in gone {
            self.close_endpoint(id);
        }
        for (id, endpoint) in &mut self.endpoints {
            let unused = endpoint.connections.extract_if(.., |remote, _| !links.contains(&(Base::Tcp(*id), *remote)));
            self.out.extend(unused.map(|(_, connection)| Output::CloseStream(connection.stream)));
        }
    }

    /// Closes the endpoints that this says of, with all that hangs on them.
    pub(crate) fn close_endpoints(&mut self, is_gone: impl Fn(&Endpoint) -> bool) {
        let gone: Vec<TcpId> = self.endpoints.iter().filter(|(_, e)| is_gone(e)).map(|(id, _)| *id).collect();
        for id in gone {
            self.close_endpoint(id);
            self.news.push_back(News::BaseLost(Base::Tcp(id)));
        }
    }

    fn close_endpoint(&mut self, id: TcpId) {
        let Some(endpoint) = self.endpoints.remove(&id) else { return };
        self.candidates.retain(|c| c.base != Base::Tcp(id));
        if endpoint.listens() && endpoint.local().is_some() {
            self.out.push_back(Output::CloseListener(id));
        }
        self.out.extend(endpoint.connections.into_values().map(|c| Output::CloseStream(c.stream)));
    }
}
