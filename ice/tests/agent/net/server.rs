//! A STUN and TURN server of the least size: long-term credentials, permissions, channels; UDP, TCP, TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ice::StreamId;
use ice::stun::{Attribute, Builder, Class, Integrity, Key, Message, Method, PasswordAlgorithm};

/// Who asks: a UDP address, or a stream of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    Udp(SocketAddr),
    Stream(usize, StreamId),
}

#[derive(Debug, Default)]
struct Allocation {
    permissions: BTreeSet<IpAddr>,
    channels: BTreeMap<u16, SocketAddr>,
    port: u16,
}

pub enum Answer {
    Datagram { from: SocketAddr, to: SocketAddr, payload: Vec<u8> },
    Stream { host: usize, id: StreamId, bytes: Vec<u8> },
}

#[derive(Debug)]
pub struct TurnServer {
    pub addr: SocketAddr,
    pub is_mute: bool,
    /// Speaks TLS only on its TCP port: a plain connection is closed.
    pub closes_plain: bool,
    /// Speaks TLS only and waits for it.
    pub is_silent_to_plain: bool,
    pub refuses_streams: bool,
    /// So many packets are not heard.
    pub loses: usize,
    /// Answers every Allocate with this code.
    pub refuses_with: Option<u16>,
    /// Answers Allocates from the first port of each client with this code.
    pub refuses_first_port_with: Option<u16>,
    refused_ports: BTreeSet<SocketAddr>,
    /// Users whose time is over: they get a 401 for new allocations and for refreshing old ones.
    pub expired: Vec<String>,
    /// A second Allocate on the same 5-tuple gets a 437, as it should.
    pub is_stateful: bool,
    allocations: BTreeMap<Client, Allocation>,
    pub allocated_ever: usize,
    next_port: u16,
}

impl TurnServer {
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            is_mute: false,
            closes_plain: false,
            is_silent_to_plain: false,
            refuses_streams: false,
            loses: 0,
            refuses_with: None,
            refuses_first_port_with: None,
            refused_ports: BTreeSet::new(),
            expired: Vec::new(),
            is_stateful: false,
            allocations: BTreeMap::new(),
            allocated_ever: 0,
            next_port: 49_800,
        }
    }

    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    pub fn accepts(&self, to: SocketAddr, _is_tls: bool) -> bool {
        to == self.addr && !self.refuses_streams
    }

    pub fn stream_closed(&mut self, host: usize, id: StreamId) {
        self.allocations.remove(&Client::Stream(host, id));
    }

    /// A datagram to the server's port or to a relayed address.
    pub fn datagram(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<Answer> {
        if self.is_mute {
            return Vec::new();
        }
        if self.loses > 0 {
            self.loses -= 1;
            return Vec::new();
        }
        if to == self.addr {
            return self.request(Client::Udp(from), from, payload);
        }
        let found = self.allocations.iter().find(|(_, a)| a.port == to.port() && a.permissions.contains(&from.ip()));
        let Some((client, allocation)) = found else { return Vec::new() };
        let client = *client;
        let channel = allocation.channels.iter().find(|(_, peer)| **peer == from).map(|(number, _)| *number);
        let bytes = match channel {
            Some(number) => {
                let is_stream = matches!(client, Client::Stream(..));
                ice::turn::channel::encode(number, payload, is_stream).unwrap()
            }
            None => Builder::new(Class::Indication, Method::DATA, ice::stun::TransactionId::new([7; 12]))
                .with(&Attribute::XorPeerAddress(from))
                .with(&Attribute::Data(payload))
                .build(),
        };
        vec![self.to_client(client, bytes)]
    }

    /// Bytes on a stream; every write of the agent is one message.
    pub fn stream(&mut self, host: usize, id: StreamId, is_tls: bool, mapped: SocketAddr, bytes: &[u8]) -> Vec<Answer> {
        if self.is_mute || (!is_tls && (self.is_silent_to_plain || self.closes_plain)) {
            return Vec::new();
        }
        self.request(Client::Stream(host, id), mapped, bytes)
    }

    fn to_client(&self, client: Client, bytes: Vec<u8>) -> Answer {
        match client {
            Client::Udp(to) => Answer::Datagram { from: self.addr, to, payload: bytes },
            Client::Stream(host, id) => Answer::Stream { host, id, bytes },
        }
    }

    fn relay(&self, allocation: &Allocation, peer: SocketAddr, payload: &[u8]) -> Vec<Answer> {
        if !allocation.permissions.contains(&peer.ip()) {
            return Vec::new();
        }
        let from = SocketAddr::new(self.addr.ip(), allocation.port);
        vec![Answer::Datagram { from, to: peer, payload: payload.to_vec() }]
    }

    fn request(&mut self, client: Client, mapped: SocketAddr, bytes: &[u8]) -> Vec<Answer> {
        if let Some((number, payload)) = ice::turn::channel::decode(bytes) {
            let Some(allocation) = self.allocations.get(&client) else { return Vec::new() };
            let Some(peer) = allocation.channels.get(&number) else { return Vec::new() };
            return self.relay(allocation, *peer, payload);
        }
        let Ok(message) = Message::parse(bytes) else { return Vec::new() };
        match (message.class(), message.method()) {
            (Class::Request, Method::BINDING) => {
                let answer = Builder::answer(Class::Success, &message).with(&Attribute::XorMappedAddress(mapped));
                vec![self.to_client(client, answer.fingerprint().build())]
            }
            (Class::Request, _) => {
                let bytes = self.authorized(client, mapped, &message);
                vec![self.to_client(client, bytes)]
            }
            (Class::Indication, Method::SEND) => {
                let (Some(peer), Some(data)) = (message.xor_peer_address(), message.data()) else { return Vec::new() };
                self.allocations.get(&client).map(|a| self.relay(a, peer, data)).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    fn authorized(&mut self, client: Client, mapped: SocketAddr, message: &Message<'_>) -> Vec<u8> {
        if message.username().is_none() {
            return Builder::answer(Class::Error, message)
                .with(&Attribute::ErrorCode(401, "Unauthorized"))
                .with(&Attribute::Realm(b"example.test"))
                .with(&Attribute::Nonce(b"nonce"))
                .build();
        }
        let user = message.username().unwrap_or_default();
        let key = Key::long_term(user, b"example.test", b"secret", PasswordAlgorithm::Md5);
        let refuse = |code| {
            let answer = Builder::answer(Class::Error, message).with(&Attribute::ErrorCode(code, "refused"));
            answer.integrity(Integrity::Sha1, &key).build()
        };
        let has_expired = self.expired.iter().any(|name| name.as_bytes() == user);
        let is_renewal = matches!(message.method(), Method::ALLOCATE | Method::REFRESH);
        if message.verify(&key).is_err() || (has_expired && is_renewal) {
            return refuse(401);
        }
        if message.method() == Method::ALLOCATE && self.is_stateful && self.allocations.contains_key(&client) {
            return refuse(437);
        }
        if let (Method::ALLOCATE, Some(code), Client::Udp(from)) =
            (message.method(), self.refuses_first_port_with, client)
            && (self.refused_ports.len() < 2 || self.refused_ports.contains(&from))
        {
            self.refused_ports.insert(from);
            return refuse(code);
        }
        let answer = Builder::answer(Class::Success, message);
        let answer = match message.method() {
            Method::ALLOCATE if self.refuses_with.is_some() => return refuse(self.refuses_with.unwrap()),
            Method::ALLOCATE => {
                self.next_port += 1;
                self.allocated_ever += 1;
                self.allocations.insert(client, Allocation { port: self.next_port, ..Allocation::default() });
                answer
                    .with(&Attribute::XorRelayedAddress(SocketAddr::new(self.addr.ip(), self.next_port)))
                    .with(&Attribute::XorMappedAddress(mapped))
                    .with(&Attribute::Lifetime(Duration::from_mins(10)))
            }
            Method::REFRESH if message.lifetime() == Some(Duration::ZERO) => {
                self.allocations.remove(&client);
                answer.with(&Attribute::Lifetime(Duration::ZERO))
            }
            Method::REFRESH => answer.with(&Attribute::Lifetime(Duration::from_mins(10))),
            Method::CREATE_PERMISSION | Method::CHANNEL_BIND => {
                let Some(allocation) = self.allocations.get_mut(&client) else { return refuse(437) };
                let peer = message.xor_peer_address().unwrap();
                allocation.permissions.insert(peer.ip());
                if let Some(number) = message.channel_number() {
                    allocation.channels.insert(number, peer);
                }
                answer
            }
            _ => return refuse(400),
        };
        answer.integrity(Integrity::Sha1, &key).build()
    }
}
