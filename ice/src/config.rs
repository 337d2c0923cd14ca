//! What an [`Agent`](crate::Agent) is told at its construction.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::policy::{Dialect, Policy};

/// A password in memory: written out only by [`Secret::expose`], never by `Debug`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the wire and for SDP.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a STUN or TURN server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerTransport {
    Udp,
    /// Plain TCP; a server that closes or stays silent is tried with TLS on the same port.
    Tcp,
    Tls,
}

impl fmt::Display for ServerTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// Long-term credentials of a TURN server (RFC 8489 §9.2); both are used as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayCredentials {
    pub username: String,
    pub password: Secret,
}

/// A STUN or TURN server, its name already resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Host name (or address) as configured: the TLS name (SNI), and what reports call it.
    pub name: String,
    pub addr: SocketAddr,
    pub transport: ServerTransport,
    /// `None`: STUN only, no relay is asked for.
    pub credentials: Option<RelayCredentials>,
    /// Whether [`Event::Gathered`](crate::Event::Gathered) waits for its answer. One that failed before is tried but
    /// not waited for.
    pub wait: bool,
}

/// Index of a server in [`Config::servers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerId(pub usize);

/// Everything an agent needs to know; nothing is looked up elsewhere.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to gather on, best first (the order is the local preference). The caller leaves loopback out, unless
    /// the edge is on loopback: then it names nothing else.
    pub interfaces: Vec<IpAddr>,
    pub servers: Vec<Server>,
    pub policy: Policy,
    /// Gather for component 2 as well: for an offer (`rtcp-mux` may still be agreed, see
    /// [`RemoteDescription::rtcp_mux`](crate::RemoteDescription::rtcp_mux)), or for an answer to one without `rtcp-mux`.
    pub rtcp: bool,
    /// `Gathered` comes after this time even if a server is still silent.
    pub gather_limit: Duration,
    /// Wait up to the limit for every server, also for one that is far behind another that has answered: a probe wants to
    /// know about each, a call wants to begin.
    pub waits_for_all: bool,
    /// Ta that we ask for with `a=ice-pacing`; the larger of both sides counts.
    pub pacing: Duration,
    /// UDP ports to bind; `None` leaves the choice to the system.
    pub port_range: Option<RangeInclusive<u16>>,
    pub dialect: Dialect,
    /// Gather host candidates over TCP too (RFC 6544 §4.1).
    pub tcp: bool,
}

impl Default for Config {
    /// No interface and no server yet; 500 ms to gather, 5 ms pacing, both components, the standard dialect,
    /// TCP candidates.
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            servers: Vec::new(),
            policy: Policy::All,
            rtcp: true,
            gather_limit: Duration::from_millis(500),
            waits_for_all: false,
            pacing: Duration::from_millis(5),
            port_range: None,
            dialect: Dialect::RFC8445,
            tcp: true,
        }
    }
}
