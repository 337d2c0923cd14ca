//! One allocation: made, kept, used, freed. RFC 8656 §7-§12.
//!
//! ```text
//!   new ──Allocate──▶ Allocating ──200──▶ Allocated ──free()──▶ Freeing ──200, 437, silence──▶ Closed
//!                      │  ▲ 401, 438: again with credentials       │ refresh, permissions, channels renewed in time
//!                      │  └ 300: again at the other server         └─ 437, 441, silence, stream closed ──▶ Closed (Lost)
//!                      └─ other errors ──▶ Closed (Failed);  silence ──▶ Failed, but a late answer still joins
//! ```
//!
//! The owner carries bytes to and from [`Allocation::server`], over one UDP socket or one stream, and drains
//! [`Allocation::poll_output`] after every call. The credentials given at construction serve to the end: a server
//! answers others with 441 (RFC 8656 §5).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use tracing::trace;

use super::auth::Session;
use super::channel::{self, Channels};
use super::error::{RelayCause, RelayError, ServerName};
use super::event::{Config, Event, Input, Output, SendError};
use super::exchange::{Exchange, Exchanges, Purpose, Reason, Step};
use super::framing::{self, Deframer, NotTurn};
use super::permission::Permissions;
use crate::config::ServerTransport;
use crate::stun::attribute::TRANSPORT_UDP;
use crate::stun::{Attribute, Builder, Class, Family, Message, Method, Timing, Transaction, TransactionId};

/// RFC 8656 §3.2: what a server grants unless it says otherwise.
const LIFETIME_DEFAULT: Duration = Duration::from_mins(10);
/// A refresh is due this long before the end; with shorter lifetimes at their half.
const REFRESH_MARGIN: Duration = Duration::from_mins(1);
/// And never earlier than this: a server that grants 0 s must not keep us busy.
const REFRESH_LEAST: Duration = Duration::from_millis(500);
/// NAT mappings of UDP live 30 s in bad cases; RFC 8445 §11 keeps ours alive every Tr = 15 s.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often one request may be answered with another nonce before the server counts as broken.
const ROUNDS_MAX: u8 = 4;
/// RFC 8656 §7.3 warns of redirection loops.
const REDIRECTS_MAX: usize = 3;
/// A datagram on UDP carries at most 65,507 bytes; Send indications add up to 52.
const PAYLOAD_MAX: usize = 65_000;
/// Data waiting for an owner that does not drain; then new data is dropped, as a socket would.
const OUTPUTS_MAX: usize = 1024;
/// Freeing must not hold up the end of a call: three sends, then the server's own expiry does it.
const FREE_TIMING: Timing = Timing { rto: Duration::from_millis(500), sends_max: 3, last_wait: Duration::from_secs(1) };
/// A sign of life is wanted within a second.
const VERIFY_TIMING: Timing =
    Timing { rto: Duration::from_millis(250), sends_max: 2, last_wait: Duration::from_millis(750) };
const VERIFY_LIMIT: Duration = Duration::from_secs(1);
/// How long a free waits for the answer to an Allocate that is still in flight.
const FREE_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
struct Lease {
    relayed: SocketAddr,
    expires_at: Instant,
    /// `None` while a Refresh is in flight.
    refresh_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Allocating,
    /// Redirected, and the stream to the next server is not open yet.
    AwaitingStream,
    /// Given up after silence; an answer to the last request is still accepted.
    Silent(Exchange),
    Allocated(Lease),
    Freeing,
    Closed,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Allocation {
    config: Config,
    state: State,
    rng: ChaCha20Rng,
    session: Option<Session>,
    exchanges: Exchanges,
    permissions: Permissions,
    channels: Channels,
    deframer: Deframer,
    /// Where the conversation was already; the last is the present server.
    servers: Vec<SocketAddr>,
    last_sent: Instant,
    /// The Refresh in flight is a question for a sign of life.
    is_verifying: bool,
    outputs: VecDeque<Output>,
}

impl Allocation {
    /// Asks at once; over TCP or TLS the stream is open already.
    pub fn new(now: Instant, config: Config, seed: [u8; 32]) -> Self {
        let servers = vec![config.server];
        let mut allocation = Self {
            config,
            state: State::Allocating,
            rng: ChaCha20Rng::from_seed(seed),
            session: None,
            exchanges: Exchanges::default(),
            permissions: Permissions::default(),
            channels: Channels::default(),
            deframer: Deframer::default(),
            servers,
            last_sent: now,
            is_verifying: false,
            outputs: VecDeque::new(),
        };
        allocation.start(now, Purpose::Allocate, 0);
        allocation
    }

    /// Where [`Output::Transmit`] goes.
    pub fn server(&self) -> SocketAddr {
        self.config.server
    }

    /// Our address on the server, while we have it.
    pub fn relayed(&self) -> Option<SocketAddr> {
        match &self.state {
            State::Allocated(lease) => Some(lease.relayed),
            State::Allocating | State::AwaitingStream | State::Silent(_) | State::Freeing | State::Closed => None,
        }
    }

    /// Whether the server has answered, though not yet with an address.
    pub fn is_challenged(&self) -> bool {
        matches!(self.state, State::Allocating) && self.session.is_some()
    }

    /// Whether nothing more will happen.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether a datagram from the server belongs to this allocation, and not to a Binding request of the owner on
    /// the same socket.
    pub fn owns(&self, packet: &[u8]) -> bool {
        if channel::decode(packet).is_some() {
            return true;
        }
        let Ok(message) = Message::parse(packet) else { return false };
        match message.class() {
            Class::Indication => message.method() == Method::DATA,
            Class::Success | Class::Error => self.purpose_of(message.transaction_id()).is_some(),
            Class::Request => false,
        }
    }

    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Packet(bytes) if self.config.transport == ServerTransport::Udp => self.handle_message(now, bytes),
            Input::Packet(bytes) => self.handle_stream(now, bytes),
            Input::StreamOpened => self.handle_stream_opened(now),
            Input::StreamClosed(cause) => self.handle_stream_closed(cause),
            Input::Timeout => {}
        }
        self.run_timers(now);
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.next_deadline().map(|(at, _)| at)))
    }

    /// When and why the allocation wants [`Input::Timeout`].
    pub fn next_deadline(&self) -> Option<(Instant, Reason)> {
        let mut earliest = self.exchanges.next_deadline();
        let mut add = |candidate: Option<(Instant, Reason)>| {
            if let Some(candidate) = candidate {
                earliest =
                    Some(earliest.map_or(candidate, |known| if candidate.0 < known.0 { candidate } else { known }));
            }
        };
        if let State::Allocated(lease) = &self.state {
            add(lease.refresh_at.map(|at| (at, Reason::Refresh)));
            add(Some((lease.expires_at, Reason::Expiry)));
            add(self.permissions.next_renewal().map(|(at, address)| (at, Reason::Permission(address))));
            add(self.channels.next_renewal().map(|(at, peer)| (at, Reason::Channel(peer))));
            add(self.keepalive_at().map(|at| (at, Reason::Keepalive)));
        }
        earliest
    }

    /// Is the server there, and does it know us still? A Refresh out of turn; [`Event::Alive`], [`Event::Silent`] after a
    /// second, or [`Event::Lost`] follows.
    pub fn verify(&mut self, now: Instant) {
        if self.relayed().is_some() && !self.is_verifying {
            self.is_verifying = true;
            self.start(now, Purpose::Refresh, 0);
            self.run_timers(now);
        }
    }

    /// Lets packets of `address` through, and keeps them passing. Wishes before the allocation are kept.
    pub fn permit(&mut self, now: Instant, address: IpAddr) {
        if self.permissions.want(address) && self.relayed().is_some() {
            self.start(now, Purpose::Permit(address), 0);
            self.run_timers(now);
        }
    }

    /// Binds a channel to `peer` (which permits its address as well) and keeps it bound. Worth it for a peer that
    /// gets media: 4 bytes per packet instead of 36 or more.
    pub fn bind(&mut self, now: Instant, peer: SocketAddr) {
        let purpose = Purpose::Bind(peer);
        if self.relayed().is_none() || self.exchanges.contains(purpose) || self.channels.bound(now, peer).is_some() {
            return;
        }
        if self.channels.reserve(now, peer).is_some() {
            self.start(now, purpose, 0);
            self.run_timers(now);
        }
    }

    /// Stops renewing the channel of `peer`; it runs out by itself, and its number is not reused too early.
    pub fn unbind(&mut self, peer: SocketAddr) {
        self.channels.release(peer);
    }

    /// Sends `payload` to `peer` from the relayed address: as ChannelData once its channel is bound.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent then.
    pub fn send(&mut self, now: Instant, peer: SocketAddr, payload: &[u8]) -> Result<(), SendError> {
        if self.relayed().is_none() {
            return Err(SendError::NotAllocated);
        }
        if payload.len() > PAYLOAD_MAX {
            return Err(SendError::TooLarge(payload.len()));
        }
        let is_stream = self.config.transport != ServerTransport::Udp;
        let framed = self.channels.bound(now, peer).and_then(|number| channel::encode(number, payload, is_stream));
        let bytes = match framed {
            Some(bytes) => bytes,
            None if !self.permissions.is_ready(peer.ip()) => return Err(SendError::NotPermitted(peer.ip())),
            None => Builder::new(Class::Indication, Method::SEND, TransactionId::random(&mut self.rng))
                .with(&Attribute::XorPeerAddress(peer))
                .with(&Attribute::Data(payload))
                .build(),
        };
        self.transmit(now, bytes);
        Ok(())
    }

    /// Gives the relayed address back; [`Event::Freed`] follows within 3 s at most.
    pub fn free(&mut self, now: Instant) {
        match &self.state {
            State::Allocated(_) => {
                self.exchanges.clear();
                self.state = State::Freeing;
                self.start(now, Purpose::Free, 0);
            }
            State::Allocating => match self.exchanges.get_mut(Purpose::Allocate) {
                // The server may have said yes already: then that is to be taken back.
                Some(exchange) if exchange.is_signed => {
                    exchange.transaction.cancel(now + FREE_GRACE);
                    self.state = State::Freeing;
                }
                Some(_) | None => self.close(Event::Freed),
            },
            State::AwaitingStream | State::Silent(_) => self.close(Event::Freed),
            State::Freeing | State::Closed => {}
        }
        self.run_timers(now);
    }

    // ---- requests ----

    fn start(&mut self, now: Instant, purpose: Purpose, rounds: u8) {
        let id = TransactionId::random(&mut self.rng);
        let request = self.make_request(purpose, id);
        let timing = match (purpose, self.config.transport) {
            (Purpose::Free, _) => FREE_TIMING,
            (Purpose::Refresh, _) if self.is_verifying => VERIFY_TIMING,
            (_, ServerTransport::Udp) => Timing::udp(self.config.rto),
            (_, ServerTransport::Tcp | ServerTransport::Tls) => Timing::RELIABLE,
        };
        let timing = match self.config.transport {
            ServerTransport::Udp => timing,
            // One send is enough on a stream; the wait is what the sends would have taken.
            ServerTransport::Tcp | ServerTransport::Tls => {
                let last_wait = match purpose {
                    Purpose::Free => FREE_GRACE,
                    Purpose::Refresh if self.is_verifying => VERIFY_LIMIT,
                    Purpose::Allocate | Purpose::Refresh | Purpose::Permit(_) | Purpose::Bind(_) => timing.last_wait,
                };
                Timing { sends_max: 1, last_wait, ..timing }
            }
        };
        let transaction = Transaction::new(now, id, request, timing);
        self.exchanges.insert(purpose, Exchange { transaction, rounds, is_signed: self.session.is_some() });
        self.run_exchanges(now);
    }

    fn make_request(&self, purpose: Purpose, id: TransactionId) -> Vec<u8> {
        let lifetime = self.config.lifetime.map(Attribute::Lifetime);
        let request = |method| Builder::new(Class::Request, method, id);
        let request = match purpose {
            Purpose::Allocate => {
                let family =
                    (self.config.family == Family::V6).then_some(Attribute::RequestedAddressFamily(Family::V6));
                request(Method::ALLOCATE)
                    .with(&Attribute::RequestedTransport(TRANSPORT_UDP))
                    .with_some(family)
                    .with_some(lifetime)
            }
            Purpose::Refresh => request(Method::REFRESH).with_some(lifetime),
            Purpose::Free => request(Method::REFRESH).with(&Attribute::Lifetime(Duration::ZERO)),
            Purpose::Permit(address) => {
                request(Method::CREATE_PERMISSION).with(&Attribute::XorPeerAddress(SocketAddr::new(address, 0)))
            }
            Purpose::Bind(peer) => request(Method::CHANNEL_BIND)
                .with_some(self.channels.number(peer).map(Attribute::ChannelNumber))
                .with(&Attribute::XorPeerAddress(peer)),
        };
        match &self.session {
            Some(session) => session.sign(request),
            None => request.build(),
        }
    }

    fn purpose_of(&self, id: TransactionId) -> Option<Purpose> {
        match &self.state {
            State::Silent(late) if late.transaction.id() == id => Some(Purpose::Allocate),
            State::Silent(_)
            | State::Allocating
            | State::AwaitingStream
            | State::Allocated(_)
            | State::Freeing
            | State::Closed => self.exchanges.purpose_of(id),
        }
    }

    // ---- input ----

    fn handle_stream(&mut self, now: Instant, bytes: &[u8]) {
        for piece in bytes.chunks(framing::PUSH_MAX) {
            if self.handle_piece(now, piece).is_err() {
                return self.give_up(RelayCause::NotTurn);
            }
        }
    }

    fn handle_piece(&mut self, now: Instant, bytes: &[u8]) -> Result<(), NotTurn> {
        self.deframer.push(bytes)?;
        // Nobody sends ChannelData before there is an allocation; "HTTP/1.1 400" however looks like it.
        let is_early = matches!(self.state, State::Allocating | State::AwaitingStream | State::Silent(_));
        if is_early && self.deframer.awaits_channel_data() {
            return Err(NotTurn);
        }
        while let Some(message) = self.deframer.next_message()? {
            self.handle_message(now, &message);
        }
        Ok(())
    }

    fn handle_stream_opened(&mut self, now: Instant) {
        if matches!(self.state, State::AwaitingStream) {
            self.deframer = Deframer::default();
            self.state = State::Allocating;
            self.start(now, Purpose::Allocate, 0);
        }
    }

    fn handle_stream_closed(&mut self, cause: &str) {
        match self.state {
            // The old server's stream, closed by the owner as asked.
            State::AwaitingStream => {}
            // An allocation dies with its stream.
            State::Freeing => self.close(Event::Freed),
            State::Allocating | State::Silent(_) | State::Allocated(_) | State::Closed => {
                self.give_up(RelayCause::StreamClosed(cause.to_owned()));
            }
        }
    }

    fn handle_message(&mut self, now: Instant, bytes: &[u8]) {
        if let Some((number, payload)) = channel::decode(bytes) {
            if let Some(peer) = self.channels.peer(number) {
                self.push_data(peer, payload);
            }
            return;
        }
        let Ok(message) = Message::parse(bytes) else { return };
        match message.class() {
            Class::Indication if message.method() == Method::DATA && message.unknown_required().is_empty() => {
                if let (Some(peer), Some(payload)) = (message.xor_peer_address(), message.data()) {
                    self.push_data(peer, payload);
                }
            }
            Class::Success | Class::Error => self.handle_answer(now, &message),
            Class::Indication | Class::Request => trace!(?message, "not for a TURN client"),
        }
    }

    // ---- time ----

    fn run_timers(&mut self, now: Instant) {
        self.run_exchanges(now);
        let State::Allocated(lease) = &mut self.state else { return };
        if lease.expires_at <= now {
            return self.give_up(RelayCause::Expired);
        }
        if lease.refresh_at.is_some_and(|at| at <= now) {
            lease.refresh_at = None;
            self.start(now, Purpose::Refresh, 0);
        }
        for address in self.permissions.due(now) {
            self.start(now, Purpose::Permit(address), 0);
        }
        for peer in self.channels.due(now) {
            self.start(now, Purpose::Bind(peer), 0);
        }
        if self.keepalive_at().is_some_and(|at| at <= now) {
            let id = TransactionId::random(&mut self.rng);
            self.transmit(now, Builder::new(Class::Indication, Method::BINDING, id).build());
        }
    }

    fn run_exchanges(&mut self, now: Instant) {
        while let Some(step) = self.exchanges.poll(now) {
            match step {
                Step::Send(bytes) => self.transmit(now, bytes),
                Step::Expired(purpose, exchange) => self.expired(now, purpose, exchange),
            }
        }
    }

    fn expired(&mut self, now: Instant, purpose: Purpose, exchange: Exchange) {
        let waited = now.saturating_duration_since(exchange.transaction.started());
        match purpose {
            Purpose::Allocate if matches!(self.state, State::Allocating) => {
                self.state = State::Silent(exchange);
                let error = self.error(RelayCause::Silent { waited });
                self.push_event(Event::Failed(error));
            }
            Purpose::Refresh if self.is_verifying => self.verify_failed(now),
            Purpose::Refresh => self.give_up(RelayCause::Silent { waited }),
            Purpose::Allocate | Purpose::Free | Purpose::Permit(_) | Purpose::Bind(_) => {
                self.refused(now, purpose, RelayCause::Silent { waited });
            }
        }
    }

    /// No sign of life: the ordinary refresh goes on, and with it the hope.
    fn verify_failed(&mut self, now: Instant) {
        self.is_verifying = false;
        if let State::Allocated(lease) = &mut self.state {
            lease.refresh_at = Some(now + VERIFY_LIMIT);
        }
        self.push_event(Event::Silent);
    }

    /// Streams need none: no NAT forgets a TCP connection within minutes.
    fn keepalive_at(&self) -> Option<Instant> {
        (self.config.transport == ServerTransport::Udp).then(|| self.last_sent + KEEPALIVE)
    }

    // ---- output ----

    fn transmit(&mut self, now: Instant, bytes: Vec<u8>) {
        self.last_sent = now;
        self.outputs.push_back(Output::Transmit(bytes));
    }

    fn push_event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn push_data(&mut self, peer: SocketAddr, payload: &[u8]) {
        if matches!(self.state, State::Allocated(_)) && self.outputs.len() < OUTPUTS_MAX {
            self.push_event(Event::Data { peer, payload: payload.to_vec() });
        }
    }

    fn error(&self, cause: RelayCause) -> RelayError {
        let server = ServerName { name: self.config.name.clone(), addr: self.config.server };
        RelayError { server, transport: self.config.transport, cause }
    }

    /// The end that nobody asked for.
    fn give_up(&mut self, cause: RelayCause) {
        let error = self.error(cause);
        match self.state {
            State::Closed => {}
            State::Freeing => self.close(Event::Freed),
            State::Allocated(_) => self.close(Event::Lost(error)),
            State::Allocating | State::AwaitingStream | State::Silent(_) => self.close(Event::Failed(error)),
        }
    }

    fn close(&mut self, event: Event) {
        self.state = State::Closed;
        self.exchanges.clear();
        self.push_event(event);
    }
}

mod answer;
#[cfg(test)]
mod tests;
