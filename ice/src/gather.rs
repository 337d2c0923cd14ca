//! Gathering: every server is asked from every socket at once, and the slowest one does not hold up the rest
//! (RFC 8445 §5.1.1).
//!
//! ```text
//!   socket opened ──▶ Attempt Reflexive (Binding)  per STUN server; per TURN server where no Allocate asks first
//!                 └─▶ Attempt Relay over UDP       first interface at once, further ones 100 ms later each
//!   gather()      ──▶ Attempt Relay over TCP/TLS   one per server and component
//!
//!   Planned ──pacing──▶ Running ──▶ Succeeded | Failed(cause)
//! ```
//! An Allocate also tells the reflexive address, so that a TURN server is asked for both with one request; if it refuses
//! or is slow, the Binding follows. The first relayed address of a server and component wins, others are given back.
//!
//! `Gathered` comes when every server that is waited for has answered or failed for each component, or at the limit, which
//! is twice as far away while a server that has answered is asked for the second time. What
//! comes later is used, though not told to the peer. Where another server has answered the same question over the same
//! transport, a silent one is waited for only a few times as long as that took: its relay would be a second of a kind.
//! Where only streams are answered, UDP is probably blocked: it is waited for a little longer, as its path would be better.

use std::time::{Duration, Instant};

use crate::candidate::Component;
use crate::checklist::is_link_local;
use crate::config::{Config, Server, ServerId, ServerTransport};

use crate::event::{Event, Input, ServerCause, SocketId};
use crate::local::{Half, KEEPALIVE, SocketState};
use crate::pair::RelayId;
use crate::policy::PACING_LEAST;
use crate::relay::Relay;
use crate::stun::{Builder, Class, Due, Message, Method, Timing, Transaction, TransactionId};
use crate::turn::RelayCause;

/// Between the interfaces that ask one server for a relay.
const STAGGER: Duration = Duration::from_millis(100);

/// An Allocate is four packets, of which none may be lost before the offer leaves: unless it has been answered by then, a
/// Binding asks for the reflexive address too.
const BINDING_DELAY: Duration = Duration::from_millis(50);

/// Other interfaces get as long again as the first answer of every server took, but at least this.
const GRACE_LEAST: Duration = Duration::from_millis(20);

/// A server is late when another one took a quarter of the time to answer the same over the same transport …
const LATE_FACTOR: u32 = 4;

/// … but at least this: a busy machine or a queue on the line is not yet a dead server.
const LATE_LEAST: Duration = Duration::from_millis(150);

/// … or twice that for UDP while only streams are answered: the second try of a lost question comes after the limit anyway.
const LATE_BEHIND_STREAMS: Duration = Duration::from_millis(300);

/// Attempts of one gathering: interfaces times servers times components stays far below.
const ATTEMPTS_MAX: usize = 200;

/// The time between `gather` and `Gathered`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gathering {
    pub started: Instant,
    pub limit_at: Instant,
    /// Late servers are waited for up to the limit.
    pub waits_for_all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Reflexive {
        socket: SocketId,
    },
    /// Over UDP from this socket, or over a stream of its own.
    Relay {
        socket: Option<SocketId>,
    },
}

#[derive(Debug)]
pub(crate) enum AttemptState {
    Planned { at: Instant },
    Binding(Transaction),
    Relay(RelayId),
    Succeeded { at: Instant },
    Failed(ServerCause),
}

/// One question to one server.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub server: ServerId,
    pub component: Component,
    pub goal: Goal,
    pub state: AttemptState,
    pub started: Option<Instant>,
}

impl Attempt {
    pub(crate) fn is_relay(&self) -> bool {
        matches!(self.goal, Goal::Relay { .. })
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, AttemptState::Planned { .. } | AttemptState::Binding(_) | AttemptState::Relay(_))
    }

    fn goal_socket(&self) -> Option<SocketId> {
        match self.goal {
            Goal::Reflexive { socket } => Some(socket),
            Goal::Relay { socket } => socket,
        }
    }
}

impl Half {
    /// Starts gathering, or gathers again what is missing (ICE restart).
    pub(crate) fn start_gathering(&mut self, now: Instant, config: &Config) {
        self.gathering =
            Some(Gathering { started: now, limit_at: now + config.gather_limit, waits_for_all: config.waits_for_all });
        self.keepalive_at = Some(now + KEEPALIVE);
        self.attempts.clear();
        self.open_sockets();
        self.open_endpoints();
        let open: Vec<SocketId> =
            self.sockets.iter().filter(|(_, s)| s.is_wanted && s.local().is_some()).map(|(id, _)| *id).collect();
        for id in open {
            self.plan_for_socket(now, id);
        }
        self.plan_streams(now);
    }

    /// What a new socket is good for.
    pub(crate) fn plan_for_socket(&mut self, now: Instant, socket: SocketId) {
        let Some((component, index, local)) =
            self.sockets.get(&socket).and_then(|s| Some((s.component, s.index, s.local()?)))
        else {
            return;
        };
        for (server, config) in self.servers_with_ids() {
            let same_family = config.addr.is_ipv4() == local.is_ipv4() && !is_link_local(local.ip());
            if config.transport != ServerTransport::Udp || !same_family {
                continue;
            }
            let rank = self.interface_rank(index, local.is_ipv4());
            let has_relay = self.has_relay(server, component);
            let asks_relay = config.credentials.is_some() && !has_relay;
            if asks_relay {
                let at = now + STAGGER * rank;
                self.plan(server, component, Goal::Relay { socket: Some(socket) }, at);
            }
            if self.policy.uses_direct() {
                let is_asked_twice = asks_relay && rank == 0;
                let at = if is_asked_twice { now + BINDING_DELAY } else { now };
                self.plan(server, component, Goal::Reflexive { socket }, at);
            }
        }
    }

    fn plan_streams(&mut self, now: Instant) {
        for (server, config) in self.servers_with_ids() {
            if config.transport == ServerTransport::Udp || config.credentials.is_none() {
                continue;
            }
            for component in self.components.clone() {
                if !self.has_relay(server, component) {
                    self.plan(server, component, Goal::Relay { socket: None }, now);
                }
            }
        }
    }

    fn plan(&mut self, server: ServerId, component: Component, goal: Goal, at: Instant) {
        let is_it = |a: &&mut Attempt| a.server == server && a.component == component && a.goal == goal;
        if let Some(known) = self.attempts.iter_mut().find(is_it) {
            if let AttemptState::Planned { at: planned } = &mut known.state {
                *planned = at.min(*planned);
            }
        } else if self.attempts.len() < ATTEMPTS_MAX {
            self.attempts.push(Attempt { server, component, goal, state: AttemptState::Planned { at }, started: None });
        }
    }

    pub(crate) fn servers_with_ids(&self) -> Vec<(ServerId, Server)> {
        let allowed = |s: &&Server| s.transport != ServerTransport::Udp || self.policy.uses_udp();
        let all = self.servers.iter().enumerate().filter(|(_, s)| allowed(s));
        all.map(|(index, server)| (ServerId(index), server.clone())).collect()
    }

    /// How many better interfaces of the same family there are.
    fn interface_rank(&self, index: usize, is_ipv4: bool) -> u32 {
        let better = self.interfaces.iter().take(index).filter(|ip| ip.is_ipv4() == is_ipv4 && !is_link_local(**ip));
        u32::try_from(better.count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn has_relay(&self, server: ServerId, component: Component) -> bool {
        let is_it = |r: &Relay| r.server == server && r.component == component && r.relayed.is_some();
        self.relays.values().any(|r| is_it(r) && !r.is_ending && !r.is_retired)
    }

    /// Starts the next planned attempt over UDP, which is one transaction of the pacing (RFC 8445 §14.2). Says whether
    /// one was due.
    pub(crate) fn start_attempt(&mut self, now: Instant) -> bool {
        let due =
            |a: &Attempt| a.goal_socket().is_some() && matches!(a.state, AttemptState::Planned { at } if at <= now);
        let Some(at) = self.attempts.iter().position(due) else { return false };
        self.start_attempt_at(now, at);
        true
    }

    /// Streams have the congestion control of TCP: they need no pacing.
    pub(crate) fn start_streams(&mut self, now: Instant) {
        let due =
            |a: &Attempt| a.goal_socket().is_none() && matches!(a.state, AttemptState::Planned { at } if at <= now);
        while let Some(at) = self.attempts.iter().position(due) {
            self.start_attempt_at(now, at);
        }
    }

    fn start_attempt_at(&mut self, now: Instant, at: usize) {
        let Some((server, component, goal)) = self.attempts.get(at).map(|a| (a.server, a.component, a.goal)) else {
            return;
        };
        let state = match goal {
            Goal::Reflexive { socket } => self.ask_binding(now, server, socket),
            Goal::Relay { socket } => AttemptState::Relay(self.open_relay(now, server, component, socket)),
        };
        if let Some(attempt) = self.attempts.get_mut(at) {
            attempt.started = Some(now);
            attempt.state = state;
        }
        self.poll_bindings(now);
    }

    /// When the next planned attempt may start.
    pub(crate) fn next_attempt_at(&self) -> Option<Instant> {
        let planned = self.attempts.iter().filter_map(|a| match a.state {
            AttemptState::Planned { at } => Some(at),
            AttemptState::Binding(_)
            | AttemptState::Relay(_)
            | AttemptState::Succeeded { .. }
            | AttemptState::Failed(_) => None,
        });
        planned.min()
    }

    fn ask_binding(&mut self, now: Instant, server: ServerId, socket: SocketId) -> AttemptState {
        if self.servers.get(server.0).is_none() || !self.sockets.contains_key(&socket) {
            return AttemptState::Failed(ServerCause::NoInterface);
        }
        let id = TransactionId::random(&mut self.rng);
        let request = Builder::new(Class::Request, Method::BINDING, id).fingerprint().build();
        AttemptState::Binding(Transaction::new(now, id, request, Timing::UDP))
    }

    /// Sends what Binding transactions have due, and gives up the silent ones.
    pub(crate) fn poll_bindings(&mut self, now: Instant) {
        let mut sends = Vec::new();
        for attempt in &mut self.attempts {
            let Some(socket) = attempt.goal_socket() else { continue };
            let AttemptState::Binding(transaction) = &mut attempt.state else { continue };
            let waited = now.saturating_duration_since(transaction.started());
            let mut is_expired = false;
            while let Some(due) = transaction.poll(now) {
                match due {
                    Due::Send(bytes) => sends.push((socket, attempt.server, bytes.to_vec())),
                    Due::Expired => {
                        is_expired = true;
                        break;
                    }
                }
            }
            if is_expired {
                attempt.state = AttemptState::Failed(ServerCause::Silent(waited));
            }
        }
        for (socket, server, payload) in sends {
            if let Some(to) = self.servers.get(server.0).map(|s| s.addr) {
                self.transmit(now, crate::pair::Base::Socket(socket), to, payload);
            }
        }
    }

    pub(crate) fn next_binding_at(&self) -> Option<Instant> {
        let running = self.attempts.iter().filter_map(|a| match &a.state {
            AttemptState::Binding(transaction) => Some(transaction.deadline()),
            AttemptState::Planned { .. }
            | AttemptState::Relay(_)
            | AttemptState::Succeeded { .. }
            | AttemptState::Failed(_) => None,
        });
        running.min()
    }

    /// Takes a Binding response of a server. Says whether it was one.
    pub(crate) fn binding_response(&mut self, now: Instant, socket: SocketId, message: &Message<'_>) -> bool {
        let is_it = |a: &&mut Attempt| {
            a.goal_socket() == Some(socket)
                && matches!(&a.state, AttemptState::Binding(t) if t.id() == message.transaction_id())
        };
        let Some(attempt) = self.attempts.iter_mut().find(is_it) else { return false };
        let server = attempt.server;
        match (message.class(), message.xor_mapped_address().or_else(|| message.mapped_address())) {
            (Class::Success, Some(mapped)) => {
                attempt.state = AttemptState::Succeeded { at: now };
                self.add_reflexive(socket, server, mapped);
            }
            (Class::Error, _) => {
                let code = message.error_code().map_or(0, |(code, _)| code);
                attempt.state = AttemptState::Failed(ServerCause::Status(code));
            }
            (Class::Success | Class::Request | Class::Indication, _) => return false,
        }
        self.probe(now, server);
        true
    }

    /// A relay has its address: the attempt is over, and so are those of other interfaces.
    pub(crate) fn relay_succeeded(&mut self, now: Instant, id: RelayId) {
        let Some((server, component)) = self.relays.get(&id).map(|r| (r.server, r.component)) else { return };
        let socket = self.relays.get(&id).and_then(Relay::socket);
        // The Allocate has told the reflexive address.
        self.attempts.retain(|a| {
            let is_planned = matches!(a.state, AttemptState::Planned { .. });
            let is_told = socket.is_some() && a.server == server && a.goal_socket() == socket && !a.is_relay();
            !(is_planned && is_told)
        });
        let mut surplus = Vec::new();
        for attempt in
            self.attempts.iter_mut().filter(|a| a.server == server && a.component == component && a.is_relay())
        {
            match attempt.state {
                AttemptState::Relay(other) if other != id => surplus.push(other),
                AttemptState::Relay(_) => attempt.state = AttemptState::Succeeded { at: now },
                AttemptState::Planned { .. }
                | AttemptState::Binding(_)
                | AttemptState::Succeeded { .. }
                | AttemptState::Failed(_) => {}
            }
        }
        self.attempts.retain(|a| {
            let is_surplus = matches!(a.state, AttemptState::Relay(_) | AttemptState::Planned { .. });
            !(a.server == server && a.component == component && a.is_relay() && is_surplus)
        });
        for other in surplus {
            self.free_relay(now, other);
        }
        self.probe(now, server);
    }

    /// A relay could not be had: its server may still tell the reflexive address.
    pub(crate) fn relay_failed(&mut self, now: Instant, id: RelayId, cause: ServerCause) {
        let is_it = |a: &&mut Attempt| matches!(a.state, AttemptState::Relay(relay) if relay == id);
        let Some(attempt) = self.attempts.iter_mut().find(is_it) else { return };
        let (server, component, socket) = (attempt.server, attempt.component, attempt.goal_socket());
        let is_silent = matches!(&cause, ServerCause::Relay(e) if matches!(e.cause, RelayCause::Silent { .. }));
        let is_taken = matches!(&cause, ServerCause::Relay(e) if e.cause == RelayCause::Mismatch);
        tracing::debug!(server = server.0, %cause, "no relay");
        attempt.state = AttemptState::Failed(cause);
        if let (Some(socket), true) = (socket, is_taken) {
            self.open_spare(socket, server);
        }
        if let (Some(socket), true, false) = (socket, self.policy.uses_direct(), is_silent) {
            self.plan(server, component, Goal::Reflexive { socket }, now);
        }
        self.probe(now, server);
    }

    pub(crate) fn fail_attempts_on(&mut self, now: Instant, socket: SocketId, cause: &str) {
        let mut servers = Vec::new();
        for attempt in self.attempts.iter_mut().filter(|a| a.goal_socket() == Some(socket) && a.is_open()) {
            attempt.state = AttemptState::Failed(ServerCause::Socket(cause.to_owned()));
            servers.push(attempt.server);
        }
        let lost = self.relays.iter().filter(|(_, relay)| relay.socket() == Some(socket)).map(|(id, _)| *id);
        for id in lost.collect::<Vec<_>>() {
            self.lose_relay(id);
        }
        for server in servers {
            self.probe(now, server);
        }
    }

    /// Ends the gathering when there is nothing left to wait for.
    pub(crate) fn check_gathered(&mut self, now: Instant) {
        let Some(gathering) = self.gathering else { return };
        if now < self.limit_of(gathering) && !self.may_end(now, gathering) {
            return;
        }
        self.gathering = None;
        let took = now.saturating_duration_since(gathering.started);
        self.gathered_in = Some(took);
        let failures = self.failures(took);
        let local = self.description();
        let components = self.components.iter();
        self.told_defaults = components.filter_map(|c| Some((*c, self.default_candidate(*c)?.base))).collect();
        self.event(Event::Gathered { local, failures, took });
    }

    /// An Allocate is two round trips: where the first one was answered, the second gets as long again.
    fn limit_of(&self, gathering: Gathering) -> Instant {
        let is_halfway = |a: &Attempt| matches!(a.state, AttemptState::Relay(id) if self.is_challenged(id));
        let limit = gathering.limit_at.saturating_duration_since(gathering.started);
        if self.open_waited().any(is_halfway) { gathering.limit_at + limit } else { gathering.limit_at }
    }

    fn may_end(&self, now: Instant, gathering: Gathering) -> bool {
        !self.is_opening()
            && self.open_waited().all(|open| self.patience(gathering, open).is_some_and(|until| until <= now))
    }

    fn is_opening(&self) -> bool {
        self.sockets.values().any(|s| s.is_wanted && matches!(s.state, SocketState::Opening { .. }))
            || self.endpoints.values().any(crate::tcp::Endpoint::is_opening)
    }

    /// Attempts without an answer that `Gathered` waits for.
    fn open_waited(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|a| a.is_open() && self.servers.get(a.server.0).is_some_and(|s| s.wait))
    }

    /// Until when an open attempt is waited for because another one has shown how long an answer takes; `None`: up to the
    /// limit.
    fn patience(&self, gathering: Gathering, open: &Attempt) -> Option<Instant> {
        let is_stream = |id: ServerId| self.servers.get(id.0).is_some_and(|s| s.transport != ServerTransport::Udp);
        let answered = self.attempts.iter().filter(|a| a.component == open.component).filter_map(|a| match a.state {
            AttemptState::Succeeded { at } => Some((a, at)),
            AttemptState::Planned { .. }
            | AttemptState::Binding(_)
            | AttemptState::Relay(_)
            | AttemptState::Failed(_) => None,
        });
        let (own, others): (Vec<_>, Vec<_>) = answered.partition(|(a, _)| a.server == open.server);
        let took = |at: Instant| at.saturating_duration_since(gathering.started);
        let on_other_interface = own.iter().filter(|(a, _)| a.is_relay() == open.is_relay());
        if let Some(at) = on_other_interface.map(|(_, at)| *at).min() {
            return Some(at + took(at).max(GRACE_LEAST));
        }
        // An Allocate tells the reflexive address too.
        let is_alike =
            |a: &Attempt| is_stream(a.server) == is_stream(open.server) && (a.is_relay() || !open.is_relay());
        let slowest = |alike: bool| others.iter().filter(|(a, _)| is_alike(a) == alike).map(|(_, at)| took(*at)).max();
        let late = match (slowest(true), slowest(false)) {
            (Some(slowest), _) => (slowest * LATE_FACTOR).max(LATE_LEAST),
            (None, Some(slowest)) if !is_stream(open.server) => (slowest * LATE_FACTOR).max(LATE_BEHIND_STREAMS),
            (None, _) => return None,
        };
        (!gathering.waits_for_all).then(|| gathering.started + late)
    }

    pub(crate) fn next_gathering_at(&self) -> Option<Instant> {
        let gathering = self.gathering?;
        if self.is_opening() {
            return Some(gathering.limit_at);
        }
        let limit_at = self.limit_of(gathering);
        let patience: Option<Vec<Instant>> = self.open_waited().map(|open| self.patience(gathering, open)).collect();
        let all_late_at = patience.and_then(|until| until.into_iter().max());
        Some(all_late_at.map_or(limit_at, |at| at.min(limit_at)))
    }

    /// Keeps the NAT mappings towards the servers while there is no path yet (RFC 8445 §5.1.1.4).
    pub(crate) fn keep_alive(&mut self, now: Instant) {
        if self.keepalive_at.is_none_or(|at| at > now) {
            return;
        }
        self.keepalive_at = Some(now + KEEPALIVE);
        let mut targets: Vec<(SocketId, std::net::SocketAddr)> = Vec::new();
        // Allocations keep their own mapping alive.
        let is_reflexive = |a: &&Attempt| !a.is_relay() && matches!(a.state, AttemptState::Succeeded { .. });
        for attempt in self.attempts.iter().filter(is_reflexive) {
            if let (Some(socket), Some(server)) = (attempt.goal_socket(), self.servers.get(attempt.server.0))
                && !targets.contains(&(socket, server.addr))
            {
                targets.push((socket, server.addr));
            }
        }
        for (socket, to) in targets {
            let id = TransactionId::random(&mut self.rng);
            let indication = Builder::new(Class::Indication, Method::BINDING, id).fingerprint().build();
            self.transmit(now, crate::pair::Base::Socket(socket), to, indication);
        }
    }

    /// Sockets, streams and packets of servers; what is not ours is given back for the peers.
    pub(crate) fn handle_input<'a>(
        &mut self,
        now: Instant,
        input: Input<'a>,
    ) -> Option<(SocketId, std::net::SocketAddr, &'a [u8])> {
        match input {
            Input::Datagram { socket, from, payload } => {
                if !self.datagram_of_server(now, socket, from, payload) {
                    return Some((socket, from, payload));
                }
            }
            Input::SocketOpened { id, local } => {
                self.socket_opened(id, local);
                match self.sockets.get(&id).map(|s| (s.is_wanted, s.component, s.spare_for)) {
                    Some((true, ..)) => self.plan_for_socket(now, id),
                    Some((false, component, Some(server))) => {
                        self.plan(server, component, Goal::Relay { socket: Some(id) }, now);
                    }
                    Some((false, _, None)) | None => {}
                }
            }
            Input::SocketFailed { id, cause } => self.socket_failed(now, id, &cause),
            Input::StreamOpened { id, local, .. } => self.stream_opened(now, id, local),
            Input::StreamAccepted { listener, id, local, remote } => {
                self.stream_accepted(now, listener, id, local, remote);
            }
            Input::Listening { id, local } => self.listening(id, local),
            Input::ListenFailed { id, cause } => self.listen_failed(id, &cause),
            Input::StreamData { id, bytes } => self.stream_data(now, id, bytes),
            Input::StreamClosed { id, cause } => self.stream_closed(now, id, &cause),
            Input::SendFailed { .. } | Input::Timeout => {}
        }
        None
    }

    fn datagram_of_server(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: std::net::SocketAddr,
        payload: &[u8],
    ) -> bool {
        if let Ok(message) = Message::parse(payload)
            && matches!(message.class(), Class::Success | Class::Error)
            && (self.sounding_response(socket, &message)
                || self.hope_answered(socket, message.transaction_id())
                || self.binding_response(now, socket, &message))
        {
            return true;
        }
        self.relay_datagram(now, socket, from, payload)
    }
}

/// Gathering transactions start at least this far apart.
pub(crate) const PACING: Duration = PACING_LEAST;
