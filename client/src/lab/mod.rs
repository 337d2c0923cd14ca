//! The embedded edge: everything a phone needs on the other side, sans-IO, seeded, on real sockets or in a simulator.
//!
//! ```text
//!   dns         zone with SRV, NAPTR, A, AAAA            UDP and TCP port 53
//!   proxy ─┬─ registrar      bindings, digest            UDP, TCP, TLS port 5060/5061
//!          ├─ provisioning   REGISTER hints, SUBSCRIBE   names the MRAS URI
//!          └─ mras           SERVICE                     time-limited relay credentials
//!   relay       STUN and TURN                            believes those credentials until they expire
//! ```
//!
//! [`dns::Dns`] and [`proxy::Proxy`] speak [`Input`] and [`Output`]: feed inputs, then drain
//! [`Output`] until `Timeout`. Sockets and streams are opened and accepted by whoever runs them. Faults are injected
//! through `faults_mut()` of each server; what they hold can be listed.

pub mod adapters;
pub mod certificate;
pub mod command;
pub mod control;
pub mod dns;
pub mod driver;
pub mod folder;
pub mod mras;
pub mod provisioning;
pub mod proxy;
pub mod registrar;
pub mod relay;
pub mod running;
pub mod servers;

use std::net::SocketAddr;
use std::time::Instant;

/// A UDP socket of a lab server; chosen by whoever runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// A TCP or TLS stream that a lab server has accepted; chosen by whoever runs it, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What a lab server is told.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A UDP socket is bound. Must come before its datagrams.
    SocketOpened {
        socket: SocketId,
        local: SocketAddr,
    },
    Datagram {
        socket: SocketId,
        from: SocketAddr,
        bytes: &'a [u8],
    },
    /// A stream was accepted; with `tls` its handshake is done and bytes are plain text.
    StreamOpened {
        stream: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
        tls: bool,
    },
    Stream {
        stream: StreamId,
        bytes: &'a [u8],
    },
    StreamClosed {
        stream: StreamId,
    },
    Timeout,
}

/// What a lab server wants.
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
    /// No `StreamClosed` is expected in answer.
    CloseStream {
        stream: StreamId,
    },
    /// Nothing more until then, or until the next input.
    Timeout(Option<Instant>),
}

/// An instant and the wall time it stands for: how cores know the date.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    pub at: Instant,
    /// Seconds since 1970 at `at`.
    pub unix_s: u64,
}

impl WallClock {
    /// Seconds since 1970 at `now`.
    pub fn unix_s(&self, now: Instant) -> u64 {
        self.unix_s + now.saturating_duration_since(self.at).as_secs()
    }
}
