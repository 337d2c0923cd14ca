//! Relays of our half: a TURN allocation over one of our sockets, or over a stream of its own.
//!
//! ```text
//!   UDP:       ──▶ Running                                    ──▶ relayed ──▶ freed
//!   TCP:       ──▶ Connecting ──opened──▶ Running ──▶ …            │
//!                                  └── closed or silent for 500 ms: the same port again with TLS
//!   TLS:       ──▶ Connecting ──opened──▶ Running ──▶ …
//! ```
//! Some edges speak TLS on the port that they announce for TCP; finding out costs one wait, and the owner is told
//! ([`ServerProbed`](crate::Event::ServerProbed)) so that the next call begins with TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng;

use crate::candidate::Component;
use crate::checklist::Readiness;
use crate::config::{ServerId, ServerTransport};
use crate::event::{Event, Output, ServerCause, SocketId, StreamId};
use crate::local::{Half, News};
use crate::pair::{Base, RelayId};
use crate::stun::Family;
use crate::turn::{self, Allocation, SendError};

/// A plain TCP stream that says nothing for this long is tried with TLS.
const SILENCE: Duration = Duration::from_millis(500);

/// A stream that does not open is given up: a firewall that drops SYNs says nothing for minutes.
const CONNECT_LIMIT: Duration = Duration::from_secs(8);

/// After `close`, what is still not freed is left to the server's own expiry.
pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Addresses that one allocation is asked to permit: those of an honest description's candidates.
const PERMISSIONS_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Socket(SocketId),
    Stream { id: StreamId, transport: ServerTransport, since: Instant, is_open: bool, is_heard: bool },
}

/// One allocation and how it is reached.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub(crate) struct Relay {
    pub server: ServerId,
    pub component: Component,
    /// Our address there, once allocated.
    pub relayed: Option<SocketAddr>,
    via: Via,
    allocation: Option<Allocation>,
    allocation_at: Option<Instant>,
    permissions: BTreeMap<IpAddr, Readiness>,
    is_freeing: bool,
    /// The server does not renew it any more.
    pub is_ending: bool,
    /// It does not answer: the next gathering asks for another one. This one may come back.
    pub is_suspect: bool,
    /// The session before an ICE restart still uses it; another one takes its place.
    pub is_retired: bool,
    /// Our end of its stream.
    pub local: Option<IpAddr>,
    /// The stream has ended by itself: there is nothing to close.
    is_stream_gone: bool,
}

impl Relay {
    pub(crate) fn transport(&self) -> ServerTransport {
        match self.via {
            Via::Socket(_) => ServerTransport::Udp,
            Via::Stream { transport, .. } => transport,
        }
    }

    pub(crate) fn socket(&self) -> Option<SocketId> {
        match self.via {
            Via::Socket(id) => Some(id),
            Via::Stream { .. } => None,
        }
    }

    pub(crate) fn stream(&self) -> Option<StreamId> {
        match self.via {
            Via::Socket(_) => None,
            Via::Stream { id, .. } => Some(id),
        }
    }

    pub(crate) fn permission(&self, peer: IpAddr) -> Readiness {
        if self.is_freeing {
            return Readiness::Refused;
        }
        match self.permissions.get(&peer) {
            Some(readiness) => *readiness,
            None if self.permissions.len() >= PERMISSIONS_MAX => Readiness::Refused,
            None => Readiness::Pending,
        }
    }

    /// When a plain stream has been silent for too long, or has not opened.
    fn stream_deadline(&self) -> Option<Instant> {
        match self.via {
            Via::Stream { since, is_open: false, .. } => Some(since + CONNECT_LIMIT),
            Via::Stream { since, transport: ServerTransport::Tcp, is_heard: false, .. } => Some(since + SILENCE),
            Via::Stream { .. } | Via::Socket(_) => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        [self.allocation_at, self.stream_deadline()].into_iter().flatten().min()
    }
}

impl Half {
    /// Asks a server for a relay: from this socket, or over a stream of its own.
    pub(crate) fn open_relay(
        &mut self,
        now: Instant,
        server: ServerId,
        component: Component,
        socket: Option<SocketId>,
    ) -> RelayId {
        let id = RelayId(self.next_relay);
        self.next_relay += 1;
        let transport = self.servers.get(server.0).map_or(ServerTransport::Udp, |s| s.transport);
        let via = match socket {
            Some(socket) => Via::Socket(socket),
            None => self.open_stream(now, server, transport, None),
        };
        self.relays.insert(
            id,
            Relay {
                server,
                component,
                relayed: None,
                via,
                allocation: None,
                allocation_at: None,
                permissions: BTreeMap::new(),
                is_freeing: false,
                is_ending: false,
                is_suspect: false,
                is_retired: false,
                local: None,
                is_stream_gone: false,
            },
        );
        if socket.is_some() {
            self.start_allocation(now, id);
        }
        id
    }

    fn open_stream(
        &mut self,
        now: Instant,
        server: ServerId,
        transport: ServerTransport,
        redirected: Option<SocketAddr>,
    ) -> Via {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        if let Some(config) = self.servers.get(server.0) {
            let tls = (transport == ServerTransport::Tls).then(|| config.name.clone());
            let to = redirected.unwrap_or(config.addr);
            self.out.push_back(Output::OpenStream { id, from: None, to, tls });
        }
        Via::Stream { id, transport, since: now, is_open: false, is_heard: false }
    }

    fn start_allocation(&mut self, now: Instant, id: RelayId) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let transport = relay.transport();
        let Some(server) = self.servers.get(relay.server.0) else { return };
        let Some(credentials) = server.credentials.clone() else { return };
        let family = Family::of(server.addr.ip());
        let config = turn::Config {
            name: server.name.clone(),
            family,
            ..turn::Config::new(server.addr, transport, credentials)
        };
        let mut allocation = Allocation::new(now, config, seed);
        for peer in relay.permissions.keys() {
            allocation.permit(now, *peer);
        }
        relay.allocation = Some(allocation);
        self.drain_relay(now, id);
    }

    /// Whether the server has given a first answer: the next one is on its way.
    pub(crate) fn is_challenged(&self, id: RelayId) -> bool {
        self.relays.get(&id).and_then(|r| r.allocation.as_ref()).is_some_and(Allocation::is_challenged)
    }

    /// Asks for the peer's permission, once per address (RFC 8656 §9).
    pub(crate) fn permit(&mut self, now: Instant, id: RelayId, peer: IpAddr) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if relay.permissions.contains_key(&peer) || relay.permissions.len() >= PERMISSIONS_MAX {
            return;
        }
        relay.permissions.insert(peer, Readiness::Pending);
        if let Some(allocation) = &mut relay.allocation {
            allocation.permit(now, peer);
        }
        self.drain_relay(now, id);
    }

    /// Binds a channel for the pair in use (RFC 8656 §11).
    pub(crate) fn bind_channel(&mut self, now: Instant, base: Base, peer: SocketAddr) {
        let Base::Relay(id) = base else { return };
        if let Some(allocation) = self.relays.get_mut(&id).and_then(|r| r.allocation.as_mut()) {
            allocation.bind(now, peer);
            self.drain_relay(now, id);
        }
    }

    pub(crate) fn relay_send(&mut self, now: Instant, id: RelayId, to: SocketAddr, payload: &[u8]) {
        let Some(allocation) = self.relays.get_mut(&id).and_then(|r| r.allocation.as_mut()) else { return };
        match allocation.send(now, to, payload) {
            Ok(()) => self.drain_relay(now, id),
            // A lost permission comes back by itself; until then a packet is lost as on any path.
            Err(SendError::NotAllocated | SendError::NotPermitted(_) | SendError::TooLarge(_)) => {}
        }
    }

    /// A datagram of a relay's server. Says whether it was one.
    pub(crate) fn relay_datagram(&mut self, now: Instant, socket: SocketId, from: SocketAddr, payload: &[u8]) -> bool {
        let is_it = |r: &Relay| {
            let allocation = r.allocation.as_ref();
            r.socket() == Some(socket) && allocation.is_some_and(|a| a.server() == from && a.owns(payload))
        };
        let Some(id) = self.relays.iter().find(|(_, r)| is_it(r)).map(|(id, _)| *id) else { return false };
        self.feed(now, id, turn::Input::Packet(payload));
        true
    }

    pub(crate) fn stream_opened(&mut self, now: Instant, stream: StreamId, local: SocketAddr) {
        let Some(id) = self.relay_on_stream(stream) else {
            if !self.tcp_opened(stream, local) {
                self.out.push_back(Output::CloseStream(stream)); // given up while it was connecting
            }
            return;
        };
        let Some(relay) = self.relays.get_mut(&id) else { return };
        relay.local = Some(local.ip());
        if let Via::Stream { since, is_open, .. } = &mut relay.via {
            *is_open = true;
            *since = now;
        }
        if relay.allocation.is_some() {
            self.feed(now, id, turn::Input::StreamOpened);
        } else if relay.is_freeing {
            self.drop_relay(id);
        } else {
            self.start_allocation(now, id);
        }
    }

    pub(crate) fn stream_data(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) {
        let Some(id) = self.relay_on_stream(stream) else {
            self.tcp_data(stream, bytes);
            return;
        };
        if let Some(Via::Stream { is_heard, .. }) = self.relays.get_mut(&id).map(|r| &mut r.via) {
            *is_heard = true;
        }
        self.feed(now, id, turn::Input::Packet(bytes));
    }

    pub(crate) fn stream_closed(&mut self, now: Instant, stream: StreamId, cause: &str) {
        let Some(id) = self.relay_on_stream(stream) else {
            self.tcp_closed(stream, cause);
            return;
        };
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let Via::Stream { is_open, is_heard, transport, .. } = relay.via else { return };
        if is_open && !is_heard && transport == ServerTransport::Tcp && !relay.is_freeing {
            return self.retry_with_tls(now, id, false);
        }
        relay.is_stream_gone = true;
        if is_open {
            self.feed(now, id, turn::Input::StreamClosed(cause));
        }
        self.relay_failed(now, id, ServerCause::Stream(cause.to_owned()));
        self.drop_relay(id);
    }

    fn retry_with_tls(&mut self, now: Instant, id: RelayId, must_close: bool) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let (server, old) = (relay.server, relay.stream());
        relay.allocation = None;
        relay.allocation_at = None;
        if let (Some(old), true) = (old, must_close) {
            self.out.push_back(Output::CloseStream(old));
        }
        tracing::debug!(server = server.0, "plain TCP is closed or silent: TLS on the same port");
        let via = self.open_stream(now, server, ServerTransport::Tls, None);
        if let Some(relay) = self.relays.get_mut(&id) {
            relay.via = via;
        }
    }

    fn feed(&mut self, now: Instant, id: RelayId, input: turn::Input<'_>) {
        if let Some(allocation) = self.relays.get_mut(&id).and_then(|r| r.allocation.as_mut()) {
            allocation.handle_input(now, input);
            self.drain_relay(now, id);
        }
    }

    /// Carries out what the allocation wants.
    fn drain_relay(&mut self, now: Instant, id: RelayId) {
        loop {
            let Some(relay) = self.relays.get_mut(&id) else { return };
            let Some(allocation) = &mut relay.allocation else { return };
            match allocation.poll_output() {
                turn::Output::Transmit(payload) => {
                    let to = allocation.server();
                    self.out.push_back(match relay.via {
                        Via::Socket(socket) => Output::Transmit { socket, to, payload },
                        Via::Stream { id, .. } => Output::StreamSend { id, payload },
                    });
                }
                turn::Output::Event(event) => self.relay_event(now, id, event),
                turn::Output::Timeout(at) => {
                    relay.allocation_at = at;
                    return;
                }
            }
        }
    }

    fn relay_event(&mut self, now: Instant, id: RelayId, event: turn::Event) {
        match event {
            turn::Event::Allocated { relayed, mapped, .. } => self.allocated(now, id, relayed, mapped),
            turn::Event::Redirected { to } => self.redirected(now, id, to),
            turn::Event::Failed(error) => {
                self.relay_failed(now, id, ServerCause::Relay(error));
                self.forget_if_closed(id);
            }
            turn::Event::Ending(error) => {
                let Some(relay) = self.relays.get_mut(&id) else { return };
                relay.is_ending = true;
                let server = relay.server;
                tracing::debug!(%error, "relay is not renewed");
                self.event(Event::RelayEnding { server, cause: error });
            }
            turn::Event::Silent => self.suspect_relay(id, true),
            turn::Event::Alive => self.suspect_relay(id, false),
            turn::Event::Lost(error) => {
                tracing::debug!(%error, "relay lost");
                self.lose_relay(id);
            }
            turn::Event::PermissionReady(peer) => self.set_permission(id, peer, Readiness::Ready),
            turn::Event::PermissionFailed(peer, error) => {
                tracing::debug!(%peer, %error, "peer not permitted");
                self.set_permission(id, peer, Readiness::Refused);
            }
            turn::Event::ChannelReady(_) => {}
            turn::Event::ChannelFailed(peer, error) => tracing::debug!(%peer, %error, "no channel: Send goes on"),
            turn::Event::Data { peer, payload } => {
                self.news.push_back(News::Packet { base: Base::Relay(id), from: peer, payload });
            }
            turn::Event::Freed => self.drop_relay(id),
        }
    }

    /// Asks for a sign of life.
    pub(crate) fn verify_relay(&mut self, now: Instant, id: RelayId) {
        if let Some(allocation) = self.relays.get_mut(&id).and_then(|relay| relay.allocation.as_mut()) {
            allocation.verify(now);
            self.drain_relay(now, id);
        }
    }

    fn suspect_relay(&mut self, id: RelayId, is_suspect: bool) {
        if let Some(relay) = self.relays.get_mut(&id) {
            tracing::debug!(server = relay.server.0, is_suspect, "relay");
            relay.is_suspect = is_suspect;
        }
    }

    fn set_permission(&mut self, id: RelayId, peer: IpAddr, readiness: Readiness) {
        if let Some(relay) = self.relays.get_mut(&id) {
            relay.permissions.insert(peer, readiness);
        }
    }

    fn allocated(&mut self, now: Instant, id: RelayId, relayed: SocketAddr, mapped: SocketAddr) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        relay.relayed = Some(relayed);
        let (server, socket) = (relay.server, relay.socket());
        if let Some(socket) = socket {
            self.add_reflexive(socket, server, mapped);
        }
        self.add_relayed(id, relayed, mapped);
        self.relay_succeeded(now, id);
    }

    fn redirected(&mut self, now: Instant, id: RelayId, to: SocketAddr) {
        let Some(relay) = self.relays.get(&id) else { return };
        let (server, transport) = (relay.server, relay.transport());
        if let Some(stream) = relay.stream() {
            self.out.push_back(Output::CloseStream(stream));
            let via = self.open_stream(now, server, transport, Some(to));
            if let Some(relay) = self.relays.get_mut(&id) {
                relay.via = via;
            }
        }
    }

    /// A silent allocation over UDP may still be answered; the others are over.
    fn forget_if_closed(&mut self, id: RelayId) {
        let is_closed = |r: &Relay| r.allocation.as_ref().is_none_or(Allocation::is_closed);
        if self.relays.get(&id).is_some_and(is_closed) {
            self.drop_relay(id);
        }
    }

    /// Gives the address back to the server; the relay is gone when that is answered.
    pub(crate) fn free_relay(&mut self, now: Instant, id: RelayId) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        self.candidates.retain(|c| c.base != Base::Relay(id));
        relay.is_freeing = true;
        relay.relayed = None;
        match &mut relay.allocation {
            Some(allocation) => {
                allocation.free(now);
                self.drain_relay(now, id);
                self.forget_if_closed(id);
            }
            None => self.drop_relay(id),
        }
    }

    /// The allocation or what carried it is gone.
    pub(crate) fn lose_relay(&mut self, id: RelayId) {
        self.candidates.retain(|c| c.base != Base::Relay(id));
        self.news.push_back(News::BaseLost(Base::Relay(id)));
        self.drop_relay(id);
    }

    fn drop_relay(&mut self, id: RelayId) {
        let Some(relay) = self.relays.remove(&id) else { return };
        if let Some(socket) = relay.socket().and_then(|id| self.sockets.get_mut(&id)) {
            socket.spare_for = None;
        }
        if let (Some(stream), false) = (relay.stream(), relay.is_stream_gone) {
            self.out.push_back(Output::CloseStream(stream));
        }
        self.sweep();
    }

    /// What the relays have due.
    pub(crate) fn poll_relays(&mut self, now: Instant) {
        let due = |r: &Relay| r.deadline().is_some_and(|at| at <= now);
        let ids: Vec<RelayId> = self.relays.iter().filter(|(_, r)| due(r)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(relay) = self.relays.get(&id) else { continue };
            if relay.stream_deadline().is_some_and(|at| at <= now) {
                match relay.via {
                    Via::Stream { is_open: true, .. } if !relay.is_freeing => self.retry_with_tls(now, id, true),
                    Via::Stream { .. } | Via::Socket(_) => {
                        self.drop_relay(id);
                        let cause = format!("not open after {} s", CONNECT_LIMIT.as_secs());
                        self.relay_failed(now, id, ServerCause::Stream(cause));
                    }
                }
            } else {
                self.feed(now, id, turn::Input::Timeout);
            }
        }
    }

    pub(crate) fn next_relay_at(&self) -> Option<Instant> {
        self.relays.values().filter_map(Relay::deadline).min()
    }

    /// Frees everything; `Closed` follows when the servers have answered, at the latest after [`CLOSE_LIMIT`].
    pub(crate) fn close(&mut self, now: Instant) {
        if self.closing.is_some() || self.is_closed {
            return;
        }
        self.closing = Some(now + CLOSE_LIMIT);
        self.gathering = None;
        self.retain_bases(now, &BTreeSet::new(), &BTreeSet::new());
    }

    /// The time to wait for answers is over.
    pub(crate) fn check_closing(&mut self, now: Instant) {
        if self.closing.is_some_and(|at| at <= now) {
            for id in self.relays.keys().copied().collect::<Vec<_>>() {
                self.drop_relay(id);
            }
            self.sweep();
        }
    }
}
