//! A host: addresses, sockets, streams and one program.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::firewall::Firewall;
use super::link::Line;
use super::tcp::Streams;
use super::world::{Happening, RealmId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub(super) usize);

/// What runs on a host. The contract is that of the product's cores: after every input the world drains `poll` until it
/// answers [`Output::Timeout`].
pub trait Program: Any {
    fn handle(&mut self, now: Instant, input: Input<'_>);
    fn poll(&mut self) -> Output;
    /// Facts that the program wants in the trace, oldest first; taken after every input.
    fn facts(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Ids of sockets, streams and listeners are chosen by the program, except those of accepted streams, which start at
/// [`super::tcp::ACCEPTED_FROM`].
#[derive(Debug)]
pub enum Input<'a> {
    Datagram { socket: u64, from: SocketAddr, payload: &'a [u8] },
    SocketOpened { id: u64, local: SocketAddr },
    SocketFailed { id: u64, cause: String },
    Listening { id: u64, local: SocketAddr },
    StreamOpened { id: u64, local: SocketAddr, remote: SocketAddr },
    StreamAccepted { listener: u64, id: u64, local: SocketAddr, remote: SocketAddr, tls: bool },
    StreamData { id: u64, bytes: &'a [u8] },
    StreamClosed { id: u64, cause: StreamEnd },
    Timeout,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    Refused,
    TimedOut,
    /// The certificate carries none of the wanted names, or the other side does not speak TLS.
    Certificate(String),
    Reset,
    Closed,
}

#[derive(Debug)]
pub enum Output {
    OpenSocket {
        id: u64,
        bind: SocketAddr,
    },
    CloseSocket {
        id: u64,
    },
    /// Port 0: any free one, told by `Listening`.
    Listen {
        id: u64,
        bind: SocketAddr,
        tls: Tls,
    },
    CloseListener {
        id: u64,
    },
    OpenStream {
        id: u64,
        from: Option<SocketAddr>,
        to: SocketAddr,
        tls: Option<Vec<String>>,
    },
    Transmit {
        socket: u64,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    StreamSend {
        id: u64,
        bytes: Vec<u8>,
    },
    CloseStream {
        id: u64,
    },
    Timeout(Option<Instant>),
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    Plain,
    /// TLS only, with a certificate for these names.
    Only(Vec<String>),
    /// Both on one port, told apart by the first bytes.
    Both(Vec<String>),
}

pub(super) struct Host {
    pub name: String,
    pub realm: RealmId,
    pub addresses: Vec<IpAddr>,
    pub up: Line,
    pub down: Line,
    /// Its own; a host behind an edge has the edge's besides.
    pub firewall: Firewall,
    /// Address to the program's id, and back.
    pub bound: BTreeMap<SocketAddr, u64>,
    pub sockets: BTreeMap<u64, SocketAddr>,
    pub streams: Streams,
    pub program: Box<dyn Program>,
    /// The deadline the program asked for last; earlier ones in the queue are stale.
    pub deadline: Option<Instant>,
    /// What has come for a program that does not run at the moment.
    pub frozen: Option<Vec<Happening>>,
    next_port: u16,
}

impl Host {
    pub fn new(name: &str, realm: RealmId, address: IpAddr, lines: (Line, Line), program: Box<dyn Program>) -> Self {
        let (up, down) = lines;
        Self {
            name: name.to_owned(),
            realm,
            addresses: vec![address],
            up,
            down,
            firewall: Firewall::default(),
            bound: BTreeMap::new(),
            sockets: BTreeMap::new(),
            streams: Streams::default(),
            program,
            deadline: None,
            frozen: None,
            next_port: 49152,
        }
    }

    /// Binds as an operating system does: port 0 is any free one, an address the host lacks is refused.
    pub fn bind(&mut self, id: u64, wanted: SocketAddr) -> Result<SocketAddr, String> {
        let ip = if wanted.ip().is_unspecified() { self.addresses.first().copied() } else { Some(wanted.ip()) };
        let ip = ip.filter(|ip| self.addresses.contains(ip)).ok_or("cannot assign the requested address")?;
        let local = match wanted.port() {
            0 => SocketAddr::new(ip, self.ephemeral_port(ip)),
            port => SocketAddr::new(ip, port),
        };
        if self.bound.contains_key(&local) {
            return Err("address already in use".to_owned());
        }
        self.bound.insert(local, id);
        self.sockets.insert(id, local);
        Ok(local)
    }

    pub fn close_socket(&mut self, id: u64) {
        if let Some(local) = self.sockets.remove(&id) {
            self.bound.remove(&local);
        }
    }

    pub fn ephemeral_port(&mut self, ip: IpAddr) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = if port == u16::MAX { 49152 } else { port + 1 };
            if !self.bound.contains_key(&SocketAddr::new(ip, port)) {
                return port;
            }
        }
    }
}
