//! What goes into an [`Allocation`](super::Allocation) and what comes out of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::error::RelayError;
use crate::config::{RelayCredentials, ServerTransport};
use crate::stun::{Family, Timing};

/// What an allocation needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server as configured, for messages.
    pub name: String,
    pub server: SocketAddr,
    pub transport: ServerTransport,
    pub credentials: RelayCredentials,
    /// Family of the relayed address.
    pub family: Family,
    /// First retransmission over UDP: 500 ms (RFC 8489 §6.2.1).
    pub rto: Duration,
    /// Lifetime to ask for; `None` leaves it to the server.
    pub lifetime: Option<Duration>,
}

impl Config {
    /// An IPv4 relay with the times of the RFCs.
    pub fn new(server: SocketAddr, transport: ServerTransport, credentials: RelayCredentials) -> Self {
        let name = server.ip().to_string();
        Self { name, server, transport, credentials, family: Family::V4, rto: Timing::UDP.rto, lifetime: None }
    }
}

/// What the owner tells.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// UDP: one datagram from the server. TCP, TLS: the next bytes of the stream, cut anywhere.
    Packet(&'a [u8]),
    /// A new stream to [`Allocation::server`](super::Allocation::server) is open, after [`Event::Redirected`].
    StreamOpened,
    /// The stream ended; the text says why.
    StreamClosed(&'a str),
    Timeout,
}

/// What the owner is told or asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To [`Allocation::server`](super::Allocation::server): one datagram, or bytes of the stream.
    Transmit(Vec<u8>),
    Event(Event),
    /// Nothing more; call with [`Input::Timeout`] at this instant. `None`: never.
    Timeout(Option<Instant>),
}

/// Facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The relayed address is ours. `mapped` is our reflexive address as the server saw it.
    Allocated {
        relayed: SocketAddr,
        mapped: SocketAddr,
        lifetime: Duration,
        rtt: Duration,
    },
    /// 300: the conversation goes on with this server. Over UDP the next [`Output::Transmit`] goes there; a stream is
    /// to be closed, another opened there, and [`Input::StreamOpened`] given.
    Redirected {
        to: SocketAddr,
    },
    /// There will be no relay. Only after silence an [`Event::Allocated`] may still follow.
    Failed(RelayError),
    /// There is one, but the server refuses to renew it: it ends with its lifetime.
    Ending(RelayError),
    /// [`Allocation::verify`](super::Allocation::verify) was not answered within a second; the allocation may be there
    /// all the same.
    Silent,
    /// It was.
    Alive,
    /// There was one; it is gone.
    Lost(RelayError),
    /// Data to and from this address passes from now on.
    PermissionReady(IpAddr),
    PermissionFailed(IpAddr, RelayError),
    /// Data to this peer goes as ChannelData from now on.
    ChannelReady(SocketAddr),
    /// Data to this peer goes on as Send indications.
    ChannelFailed(SocketAddr, RelayError),
    /// A peer sent this through the relay.
    Data {
        peer: SocketAddr,
        payload: Vec<u8>,
    },
    /// [`Allocation::free`](super::Allocation::free) is done: socket or stream can be closed.
    Freed,
}

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("there is no relayed address yet, or no longer")]
    NotAllocated,
    #[error("the relay has not yet permitted {0}; wait for PermissionReady")]
    NotPermitted(IpAddr),
    #[error("{0} bytes are more than a relayed datagram can carry")]
    TooLarge(usize),
}
