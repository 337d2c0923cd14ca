//! One relay, some TURN clients and peers, without latency, in virtual time.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ice::stun::{Builder, Integrity};
use ice::turn::{Allocation, Config as ClientConfig, Input as ClientInput, Output as ClientOutput, SendError};

use super::super::*;
use super::{Attribute, Event, Key, PasswordAlgorithm, RelayCredentials, auth};

pub(super) const REALM: &str = "edge.example.test";
pub(super) const START_UNIX_S: u64 = 1_767_225_540;
const LISTEN: SocketId = SocketId(0);
const RELAY_IP: [u8; 4] = [192, 0, 2, 7];

/// One instant for the whole test, so that two runs compare.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing; tests only add to it")]
pub(super) fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

pub(super) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn door() -> SocketAddr {
    SocketAddr::from((RELAY_IP, 3478))
}

/// The same server at another address, for redirections.
pub(super) fn other_door() -> SocketAddr {
    socket("192.0.2.8:3478")
}

pub(super) fn raw_address() -> SocketAddr {
    socket("203.0.113.99:5555")
}

pub(super) fn config() -> Config {
    let users = BTreeMap::from([("bob".to_owned(), Secret::new("hunter2"))]);
    let secrets = vec![Secret::new("retired secret"), Secret::new("edge-lab-secret")];
    Config { secrets, users, ..Config::new(REALM, IpAddr::from(RELAY_IP), (epoch(), START_UNIX_S)) }
}

/// Alice's time-limited credentials, good for this long.
pub(super) fn rest(seconds: u64) -> RelayCredentials {
    let username = auth::rest_username(START_UNIX_S + seconds, "alice");
    let password = auth::rest_password(&Secret::new("edge-lab-secret"), &username);
    RelayCredentials { username, password }
}

struct Client {
    allocation: Allocation,
    stream: Option<StreamId>,
    addr: SocketAddr,
    events: Vec<Event>,
    data: Vec<(SocketAddr, Vec<u8>)>,
    is_alive: bool,
}

pub(super) struct Bench {
    pub(super) relay: Relay,
    pub(super) now: Instant,
    pub(super) refuse_relays: bool,
    /// (from, to, payload) of what left a relay address for the world.
    pub(super) peer_inbox: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Every byte the server sent.
    pub(super) log: Vec<u8>,
    clients: Vec<Client>,
    relays: BTreeMap<RelayId, SocketAddr>,
    next_id: u16,
    closed: Vec<StreamId>,
    raw_inbox: Vec<Vec<u8>>,
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        Self {
            relay: Relay::new(config, [1; 32]),
            now: epoch(),
            refuse_relays: false,
            peer_inbox: Vec::new(),
            log: Vec::new(),
            clients: Vec::new(),
            relays: BTreeMap::new(),
            next_id: 0,
            closed: Vec::new(),
            raw_inbox: Vec::new(),
        }
    }

    fn next_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    /// Starts a client; all that can happen without time passing has happened.
    pub(super) fn add(&mut self, transport: ServerTransport, credentials: RelayCredentials) -> usize {
        let id = self.next_id();
        let addr = SocketAddr::from(([203, 0, 113, 5], 40_000 + id));
        let stream = (transport != ServerTransport::Udp).then_some(StreamId(u64::from(id)));
        if let Some(stream) = stream {
            let opened = Input::StreamOpened { stream, local: door(), remote: addr, transport };
            self.relay.handle_input(self.now, opened);
        }
        let mut seed = [9; 32];
        seed[0] = u8::try_from(id).unwrap();
        let allocation = Allocation::new(self.now, ClientConfig::new(door(), transport, credentials), seed);
        self.clients.push(Client { allocation, stream, addr, events: vec![], data: vec![], is_alive: true });
        self.pump();
        self.clients.len() - 1
    }

    pub(super) fn allocate(&mut self, transport: ServerTransport, credentials: RelayCredentials) -> usize {
        let me = self.add(transport, credentials);
        assert!(matches!(self.events(me), [Event::Allocated { .. }]), "{:?}", self.events(me));
        me
    }

    pub(super) fn with(&mut self, me: usize, act: impl FnOnce(&mut Allocation, Instant)) {
        act(&mut self.clients[me].allocation, self.now);
        self.pump();
    }

    pub(super) fn send(&mut self, me: usize, peer: SocketAddr, payload: &[u8]) {
        let sent: Result<(), SendError> = self.clients[me].allocation.send(self.now, peer, payload);
        sent.unwrap();
        self.pump();
    }

    pub(super) fn relayed(&self, me: usize) -> SocketAddr {
        self.clients[me].allocation.relayed().unwrap()
    }

    pub(super) fn events(&self, me: usize) -> &[Event] {
        &self.clients[me].events
    }

    /// Takes what the client received.
    pub(super) fn data(&mut self, me: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.clients[me].data)
    }

    /// The client is gone without a word.
    pub(super) fn kill(&mut self, me: usize) {
        self.clients[me].is_alive = false;
    }

    pub(super) fn close_stream(&mut self, me: usize) {
        let stream = self.clients[me].stream.unwrap();
        self.relay.handle_input(self.now, Input::StreamClosed { stream });
        self.clients[me].allocation.handle_input(self.now, ClientInput::StreamClosed("reset by the test"));
        self.pump();
    }

    pub(super) fn open_relays(&self) -> usize {
        self.relays.len()
    }

    /// A datagram of a peer arrives at a relayed address.
    pub(super) fn send_to_relay(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.deliver(from, to, bytes);
        self.pump();
    }

    pub(super) fn raw_datagram(&mut self, me: usize, bytes: &[u8]) {
        let from = self.clients[me].addr;
        self.relay.handle_input(self.now, Input::Datagram { socket: LISTEN, from, bytes });
        self.pump();
    }

    /// Bytes on the client's stream; the last request of the server to its driver.
    pub(super) fn raw_stream(&mut self, me: usize, bytes: &[u8]) -> Output {
        let stream = self.clients[me].stream.unwrap();
        self.relay.handle_input(self.now, Input::Stream { stream, bytes });
        self.pump();
        self.closed.pop().map_or(Output::Timeout(None), Output::CloseStream)
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let relay = self.pump();
            let live = self.clients.iter().filter(|client| client.is_alive);
            let next = live.filter_map(|client| client.allocation.next_deadline().map(|(at, _)| at)).chain(relay).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            self.relay.handle_input(self.now, Input::Timeout);
            for client in self.clients.iter_mut().filter(|client| client.is_alive) {
                client.allocation.handle_input(self.now, ClientInput::Timeout);
            }
        }
        self.now = end;
        self.relay.handle_input(self.now, Input::Timeout);
        self.pump();
    }

    /// Carries outputs until all is quiet; the server's deadline.
    fn pump(&mut self) -> Option<Instant> {
        loop {
            let mut is_quiet = true;
            let deadline = loop {
                match self.relay.poll_output() {
                    Output::Timeout(at) => break at,
                    output => {
                        is_quiet = false;
                        self.carry(output);
                    }
                }
            };
            for me in 0..self.clients.len() {
                while let Some(output) = self.client_output(me) {
                    is_quiet = false;
                    self.carry_client(me, output);
                }
            }
            if is_quiet {
                return deadline;
            }
        }
    }

    fn client_output(&mut self, me: usize) -> Option<ClientOutput> {
        let client = &mut self.clients[me];
        if !client.is_alive {
            return None;
        }
        Some(client.allocation.poll_output()).filter(|output| !matches!(output, ClientOutput::Timeout(_)))
    }

    fn carry_client(&mut self, me: usize, output: ClientOutput) {
        let Client { stream, addr, .. } = self.clients[me];
        match output {
            ClientOutput::Transmit(bytes) => match stream {
                Some(stream) => self.relay.handle_input(self.now, Input::Stream { stream, bytes: &bytes }),
                None => {
                    self.relay.handle_input(self.now, Input::Datagram { socket: LISTEN, from: addr, bytes: &bytes });
                }
            },
            ClientOutput::Event(Event::Data { peer, payload }) => self.clients[me].data.push((peer, payload)),
            // `Alive` is said after every Refresh that was answered: no news.
            ClientOutput::Event(Event::Alive) | ClientOutput::Timeout(_) => {}
            ClientOutput::Event(event) => {
                let is_redirected = matches!(event, Event::Redirected { .. });
                self.clients[me].events.push(event);
                if is_redirected && stream.is_some() {
                    self.reopen(me);
                }
            }
        }
    }

    fn reopen(&mut self, me: usize) {
        let stream = StreamId(u64::from(self.next_id()));
        let old = self.clients[me].stream.replace(stream).unwrap();
        let remote = self.clients[me].addr;
        self.relay.handle_input(self.now, Input::StreamClosed { stream: old });
        let opened = Input::StreamOpened { stream, local: other_door(), remote, transport: ServerTransport::Tcp };
        self.relay.handle_input(self.now, opened);
        self.clients[me].allocation.handle_input(self.now, ClientInput::StreamClosed("redirected"));
        self.clients[me].allocation.handle_input(self.now, ClientInput::StreamOpened);
    }

    fn carry(&mut self, output: Output) {
        match output {
            Output::Transmit { to, bytes, .. } => {
                self.log.extend_from_slice(&bytes);
                match self.clients.iter_mut().find(|client| client.addr == to && client.is_alive) {
                    Some(client) => client.allocation.handle_input(self.now, ClientInput::Packet(&bytes)),
                    None => self.raw_inbox.push(bytes),
                }
            }
            Output::StreamSend { stream, bytes } => {
                self.log.extend_from_slice(&bytes);
                let Some(client) = self.clients.iter_mut().find(|client| client.stream == Some(stream)) else { return };
                // Streams cut as they like.
                for piece in bytes.chunks(7) {
                    client.allocation.handle_input(self.now, ClientInput::Packet(piece));
                }
            }
            Output::CloseStream(stream) => self.closed.push(stream),
            Output::OpenRelay { relay, .. } if self.refuse_relays => {
                self.relay.handle_input(self.now, Input::RelayFailed { relay });
            }
            Output::OpenRelay { relay, bind } => {
                let addr = SocketAddr::new(bind, 50_000 + self.next_id());
                self.relays.insert(relay, addr);
                self.relay.handle_input(self.now, Input::RelayOpened { relay, addr });
            }
            Output::CloseRelay(relay) => drop(self.relays.remove(&relay)),
            Output::RelaySend { relay, to, bytes } => {
                let from = self.relays[&relay];
                self.deliver(from, to, &bytes);
            }
            Output::Timeout(_) => {}
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        match self.relays.iter().find(|(_, addr)| **addr == to) {
            Some((relay, _)) => {
                self.relay.handle_input(self.now, Input::RelayDatagram { relay: *relay, from, bytes });
            }
            None => self.peer_inbox.push((from, to, bytes.to_vec())),
        }
    }
}

/// A client that writes its requests by hand, from [`raw_address`].
pub(super) struct Raw {
    user: String,
    nonce: Vec<u8>,
    key: Key,
    next_transaction: u8,
    pub(super) last_request: Vec<u8>,
    pub(super) last_answer: Vec<u8>,
}

pub(super) fn raw(bench: &mut Bench, user: &str, password: &str) -> Raw {
    let key = Key::long_term(user.as_bytes(), REALM.as_bytes(), password.as_bytes(), PasswordAlgorithm::Md5);
    let (last_request, last_answer) = (vec![], vec![]);
    let mut raw = Raw { user: user.to_owned(), nonce: vec![], key, next_transaction: 0, last_request, last_answer };
    let id = TransactionId::new([0xee; 12]);
    let request = Builder::new(Class::Request, Method::REFRESH, id).build();
    let answer = exchange(bench, &request);
    let challenge = Message::parse(&answer).unwrap();
    assert_eq!(challenge.error_code().map(|(code, _)| code), Some(401));
    assert_eq!(challenge.realm(), Some(REALM.as_bytes()));
    raw.nonce = challenge.nonce().unwrap().to_vec();
    raw
}

/// Sends these bytes and takes the answer.
pub(super) fn exchange(bench: &mut Bench, request: &[u8]) -> Vec<u8> {
    let datagram = Input::Datagram { socket: LISTEN, from: raw_address(), bytes: request };
    bench.relay.handle_input(bench.now, datagram);
    bench.pump();
    bench.raw_inbox.pop().expect("an answer")
}

impl Raw {
    /// A signed request; its error code, if it got one. Answers must be signed.
    pub(super) fn ask(&mut self, bench: &mut Bench, method: Method, attributes: &[Attribute<'_>]) -> Result<(), u16> {
        self.next_transaction += 1;
        let id = TransactionId::new([self.next_transaction; 12]);
        let builder = attributes.iter().fold(Builder::new(Class::Request, method, id), Builder::with);
        let request = builder
            .with(&Attribute::Username(self.user.as_bytes()))
            .with(&Attribute::Realm(REALM.as_bytes()))
            .with(&Attribute::Nonce(&self.nonce))
            .integrity(Integrity::Sha1, &self.key)
            .build();
        self.last_request.clone_from(&request);
        self.last_answer = exchange(bench, &request);
        let answer = Message::parse(&self.last_answer).unwrap();
        if let Some((code, _)) = answer.error_code() {
            Err(code)
        } else {
            assert_eq!(answer.verify(&self.key), Ok(()));
            Ok(())
        }
    }
}
