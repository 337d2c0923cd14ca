//! STUN and TURN server over UDP, TCP and TLS: RFC 8489 and RFC 8656 on the codec of `ice`.
//!
//! ```text
//!   Datagram, Stream ──▶ request ──▶ access (401, 438, 441) ──▶ faults ──▶ Allocate ──▶ OpenRelay ▶ RelayOpened ▶ 200
//!                   │                                                     Refresh, CreatePermission, ChannelBind ▶ 200
//!                   └──▶ Send indication, ChannelData ──▶ RelaySend        RelayDatagram ──▶ Data indication, ChannelData
//! ```
//!
//! TLS ends in the driver. Time-limited credentials open new allocations until they expire; what runs may be
//! refreshed after that, as with coturn. Faults make it misbehave on purpose.

mod access;
mod answer;
mod fault;
mod lease;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ice::stun::{Class, Message, Method, TransactionId};
use ice::turn::channel;
use ice::turn::framing::{self, Deframer, NotTurn};
use ice::{Secret, ServerTransport};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use tracing::{debug, trace};

use access::Access;
pub use fault::{Fault, Faults};
pub use lease::Holding;
use lease::Lease;

/// Connections at a time; each may hold a partial message of 64 KiB.
const STREAMS_MAX: usize = 4096;
/// Relayed data waiting for a driver that does not drain; then it is dropped, as a socket would.
const OUTPUTS_MAX: usize = 4096;

/// A UDP socket that the server listens on; numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// An accepted connection; numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// The UDP socket behind one relayed address; numbered by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayId(pub u64);

/// What the server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    pub realm: String,
    /// Secrets of time-limited credentials; several may be valid at once.
    pub secrets: Vec<Secret>,
    /// Users with a password that does not expire.
    pub users: BTreeMap<String, Secret>,
    /// Local addresses to open relay sockets on, at most one per family.
    pub relay_addresses: Vec<IpAddr>,
    /// Address to tell clients instead of the local one: a server behind a 1:1 NAT.
    pub external_address: Option<IpAddr>,
    /// Allocations per user; one more is answered 486.
    pub quota: usize,
    /// Allocations in all; one more is answered 508.
    pub capacity: usize,
    /// Granted when the client asks for nothing or for less (RFC 8656 §7.2).
    pub lifetime_default: Duration,
    pub lifetime_max: Duration,
    /// An older nonce is answered 438.
    pub nonce_lifetime: Duration,
    /// Offer SHA-256 by PASSWORD-ALGORITHMS (RFC 8489 §14.11).
    pub offers_sha256: bool,
    /// The same moment on both clocks; Unix time in seconds.
    pub clock: (Instant, u64),
}

impl Config {
    /// Limits that suit a lab; no user and no secret yet.
    pub fn new(realm: &str, relay_address: IpAddr, clock: (Instant, u64)) -> Self {
        Self {
            realm: realm.to_owned(),
            secrets: Vec::new(),
            users: BTreeMap::new(),
            relay_addresses: vec![relay_address],
            external_address: None,
            quota: 100,
            capacity: 2000,
            lifetime_default: Duration::from_mins(10),
            lifetime_max: Duration::from_hours(1),
            nonce_lifetime: Duration::from_hours(1),
            offers_sha256: false,
            clock,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    Datagram {
        socket: SocketId,
        from: SocketAddr,
        bytes: &'a [u8],
    },
    /// `transport` is TCP or TLS, for the list only.
    StreamOpened {
        stream: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
        transport: ServerTransport,
    },
    Stream {
        stream: StreamId,
        bytes: &'a [u8],
    },
    StreamClosed {
        stream: StreamId,
    },
    /// Answers [`Output::OpenRelay`].
    RelayOpened {
        relay: RelayId,
        addr: SocketAddr,
    },
    RelayFailed {
        relay: RelayId,
    },
    RelayDatagram {
        relay: RelayId,
        from: SocketAddr,
        bytes: &'a [u8],
    },
    Timeout,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Transmit {
        socket: SocketId,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    StreamSend {
        stream: StreamId,
        bytes: Vec<u8>,
    },
    CloseStream(StreamId),
    /// Bind a UDP socket on `bind`, on any port.
    OpenRelay {
        relay: RelayId,
        bind: IpAddr,
    },
    CloseRelay(RelayId),
    RelaySend {
        relay: RelayId,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Nothing more; give [`Input::Timeout`] at this instant. `None`: never.
    Timeout(Option<Instant>),
}

/// The client's side of the five-tuple, which names an allocation (RFC 8656 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    Datagram { socket: SocketId, from: SocketAddr },
    Stream(StreamId),
}

#[derive(Debug)]
struct Stream {
    remote: SocketAddr,
    transport: ServerTransport,
    deframer: Deframer,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    access: Access,
    rng: ChaCha20Rng,
    faults: Faults,
    streams: BTreeMap<StreamId, Stream>,
    leases: BTreeMap<Client, Lease>,
    relays: BTreeMap<RelayId, Client>,
    next_id: u64,
    /// No allocation expires before this. It may be too early after a refresh, never too late.
    next_expiry: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Relay {
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        Self {
            access: Access::new(&config, &mut rng),
            config,
            rng,
            faults: Faults::default(),
            streams: BTreeMap::new(),
            leases: BTreeMap::new(),
            relays: BTreeMap::new(),
            next_id: 0,
            next_expiry: None,
            outputs: VecDeque::new(),
        }
    }

    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        self.expire(now);
        match input {
            Input::Datagram { socket, from, bytes } => {
                self.handle_message(now, Client::Datagram { socket, from }, bytes);
            }
            Input::StreamOpened { stream, remote, transport, local: _ } => self.add_stream(stream, remote, transport),
            Input::Stream { stream, bytes } => self.handle_stream(now, stream, bytes),
            Input::StreamClosed { stream } => {
                self.streams.remove(&stream);
                // An allocation dies with its connection.
                self.remove(Client::Stream(stream), "connection closed");
            }
            Input::RelayOpened { relay, addr } => self.handle_relay_opened(now, relay, addr),
            Input::RelayFailed { relay } => self.handle_relay_failed(relay),
            Input::RelayDatagram { relay, from, bytes } => self.handle_relay_datagram(now, relay, from, bytes),
            Input::Timeout => {}
        }
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Timeout(self.next_expiry))
    }

    /// What the server holds, in the order of the clients' addresses.
    pub fn allocations(&self, now: Instant) -> Vec<Holding> {
        let mut list: Vec<Holding> =
            self.leases.iter().map(|(client, lease)| self.holding(now, *client, lease)).collect();
        list.sort_by_key(|holding| (holding.client, holding.relayed));
        list
    }

    /// Misbehaviour from now on.
    pub fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// From now on every nonce given out is stale (438).
    pub fn expire_nonces(&mut self) {
        self.access.renew(&mut self.rng);
    }

    /// Forgets all allocations, as after a restart: 437 to whoever goes on using one.
    pub fn forget_allocations(&mut self) {
        let clients: Vec<Client> = self.leases.keys().copied().collect();
        for client in clients {
            self.remove(client, "forgotten by fault");
        }
    }

    // ---- input ----

    fn add_stream(&mut self, stream: StreamId, remote: SocketAddr, transport: ServerTransport) {
        if self.streams.len() >= STREAMS_MAX {
            return self.outputs.push_back(Output::CloseStream(stream));
        }
        self.streams.insert(stream, Stream { remote, transport, deframer: Deframer::default() });
    }

    fn handle_stream(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) {
        for piece in bytes.chunks(framing::PUSH_MAX) {
            if self.handle_piece(now, stream, piece).is_err() {
                debug!(?stream, "neither STUN nor ChannelData: connection closed");
                self.streams.remove(&stream);
                self.remove(Client::Stream(stream), "not TURN");
                return self.outputs.push_back(Output::CloseStream(stream));
            }
        }
    }

    fn handle_piece(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) -> Result<(), NotTurn> {
        let Some(known) = self.streams.get_mut(&stream) else { return Ok(()) };
        known.deframer.push(bytes)?;
        while let Some(known) = self.streams.get_mut(&stream) {
            let Some(message) = known.deframer.next_message()? else { return Ok(()) };
            self.handle_message(now, Client::Stream(stream), &message);
        }
        Ok(())
    }

    fn handle_message(&mut self, now: Instant, client: Client, bytes: &[u8]) {
        if self.faults.is_mute {
            return;
        }
        if let Some((number, payload)) = channel::decode(bytes) {
            let peer = self.leases.get(&client).and_then(|lease| lease.channel_peer(now, number));
            return self.relay_out(now, client, peer, payload);
        }
        let Ok(message) = Message::parse(bytes) else { return };
        match message.class() {
            Class::Request => self.handle_request(now, client, &message),
            Class::Indication if message.method() == Method::SEND && message.unknown_required().is_empty() => {
                if let (peer @ Some(_), Some(payload)) = (message.xor_peer_address(), message.data()) {
                    self.relay_out(now, client, peer, payload);
                }
            }
            // Binding indications are keepalives.
            Class::Indication | Class::Success | Class::Error => trace!(?message, "no answer needed"),
        }
    }

    /// RFC 8656 §11.2, §12.6: only to permitted peers, else silently dropped.
    fn relay_out(&mut self, now: Instant, client: Client, peer: Option<SocketAddr>, payload: &[u8]) {
        let Some(lease) = self.leases.get_mut(&client) else { return };
        let Some(to) = peer.filter(|peer| lease.permits(now, peer.ip())) else { return };
        if self.faults.is_blackhole || self.outputs.len() >= OUTPUTS_MAX {
            return;
        }
        lease.count_out(payload.len());
        self.outputs.push_back(Output::RelaySend { relay: lease.relay, to, bytes: payload.to_vec() });
    }

    /// RFC 8656 §11.3, §12.7.
    fn handle_relay_datagram(&mut self, now: Instant, relay: RelayId, from: SocketAddr, payload: &[u8]) {
        let Some(client) = self.relays.get(&relay).copied() else { return };
        let Some(lease) = self.leases.get_mut(&client) else { return };
        if self.faults.is_mute || self.faults.is_blackhole {
            return;
        }
        if !lease.permits(now, from.ip()) || self.outputs.len() >= OUTPUTS_MAX {
            return trace!(%from, "no permission: datagram dropped");
        }
        lease.count_in(payload.len());
        let is_stream = matches!(client, Client::Stream(_));
        let bytes = match lease.channel_number(now, from) {
            Some(number) => channel::encode(number, payload, is_stream),
            None => Some(answer::data_indication(TransactionId::random(&mut self.rng), from, payload)),
        };
        if let Some(bytes) = bytes {
            self.send(client, bytes);
        }
    }

    fn handle_relay_opened(&mut self, now: Instant, relay: RelayId, addr: SocketAddr) {
        let Some(client) = self.relays.get(&relay).copied() else {
            return self.outputs.push_back(Output::CloseRelay(relay));
        };
        if self.exchange_odd_port(client, addr) {
            return;
        }
        let Some(lease) = self.leases.get_mut(&client) else { return };
        let ip = self.config.external_address.filter(|ip| ip.is_ipv4() == addr.is_ipv4()).unwrap_or(addr.ip());
        lease.relayed = Some(SocketAddr::new(ip, addr.port()));
        self.confirm_allocation(now, client);
    }

    fn handle_relay_failed(&mut self, relay: RelayId) {
        let Some(client) = self.relays.remove(&relay) else { return };
        if let Some(lease) = self.leases.remove(&client) {
            self.refuse_opening(client, &lease);
        }
    }

    // ---- bookkeeping ----

    fn expire(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|at| now < at) {
            return;
        }
        let over = self.leases.iter().filter(|(_, lease)| lease.expires_at <= now).map(|(client, _)| *client);
        for client in over.collect::<Vec<_>>() {
            self.remove(client, "expired");
        }
        self.next_expiry = self.leases.values().map(|lease| lease.expires_at).min();
    }

    fn expires_at(&mut self, at: Instant) {
        self.next_expiry = Some(self.next_expiry.map_or(at, |known| known.min(at)));
    }

    fn remove(&mut self, client: Client, why: &str) {
        let Some(lease) = self.leases.remove(&client) else { return };
        debug!(user = %lease.user(), relayed = ?lease.relayed, why, "allocation removed");
        self.relays.remove(&lease.relay);
        self.outputs.push_back(Output::CloseRelay(lease.relay));
    }

    fn send(&mut self, client: Client, bytes: Vec<u8>) {
        self.outputs.push_back(match client {
            Client::Datagram { socket, from } => Output::Transmit { socket, to: from, bytes },
            Client::Stream(stream) => Output::StreamSend { stream, bytes },
        });
    }

    /// The client's address as we see it.
    fn remote(&self, client: Client) -> Option<SocketAddr> {
        match client {
            Client::Datagram { from, .. } => Some(from),
            Client::Stream(stream) => self.streams.get(&stream).map(|stream| stream.remote),
        }
    }

    fn transport(&self, client: Client) -> ServerTransport {
        match client {
            Client::Datagram { .. } => ServerTransport::Udp,
            Client::Stream(stream) => self.streams.get(&stream).map_or(ServerTransport::Tcp, |known| known.transport),
        }
    }

    fn holding(&self, now: Instant, client: Client, lease: &Lease) -> Holding {
        lease.holding(now, self.remote(client), self.transport(client))
    }
}

#[cfg(test)]
mod tests;
