//! Why there is no relay: what failed, where, and what the user can do.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::ServerTransport;

/// A relay that could not be had, or was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("TURN server {server} ({transport}) {cause}")]
pub struct RelayError {
    pub server: ServerName,
    pub transport: ServerTransport,
    pub cause: RelayCause,
}

/// The server as configured, with the address that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    pub name: String,
    pub addr: SocketAddr,
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() || self.name == self.addr.ip().to_string() {
            return write!(f, "{}", self.addr);
        }
        write!(f, "{} [{}]", self.name, self.addr)
    }
}

/// The reason, with its STUN error code where there is one (RFC 8656 §18, RFC 8489 §14.8).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayCause {
    #[error("did not answer for {:.1} s; check its address and port, and whether a firewall drops the packets", .waited.as_secs_f32())]
    Silent { waited: Duration },
    #[error("refused user {user:?} (401); check turn.user and turn.password; time-limited ones may have expired")]
    Unauthorized { user: String },
    #[error("sent a 401 that cannot be answered ({what}); check that the address is that of a TURN server")]
    BadChallenge { what: &'static str },
    #[error("calls every nonce stale (438), the last {rounds} times; its clock or its cluster is broken")]
    AlwaysStale { rounds: u8 },
    #[error("forbids this (403); check denied-peer-ip and allowed-peer-ip on the server")]
    Forbidden,
    #[error("has another allocation on this local port, or has lost ours (437); take another port")]
    Mismatch,
    #[error("has no relay address of that family (440); relay over the other IP version")]
    FamilyNotSupported,
    #[error("runs this allocation under other credentials (441); allocate anew")]
    WrongCredentials,
    #[error("does not relay UDP (442); check its configuration")]
    TransportNotSupported,
    #[error("cannot reach that peer over its relay address: IPv4 against IPv6 (443)")]
    PeerFamilyMismatch,
    #[error("allows this user no more allocations (486); end other calls or raise the user quota")]
    QuotaReached,
    #[error("has no relay port left (508); try again in a minute or use another server")]
    NoCapacity,
    #[error("redirects without end (300), the last time to {to}; use another server")]
    TooManyRedirects { to: SocketAddr },
    #[error("redirects (300) without naming another server of this address family")]
    BadRedirect,
    #[error("refused with {code} {reason:?}")]
    Refused { code: u16, reason: String },
    #[error("answered without {what}; check that the address is that of a TURN server")]
    BadAnswer { what: &'static str },
    #[error("closed the connection: {0}")]
    StreamClosed(String),
    #[error("sent bytes that are neither STUN nor ChannelData; check that the port speaks TURN")]
    NotTurn,
    #[error("could not be asked to extend the allocation before it ran out")]
    Expired,
}

impl RelayCause {
    /// The STUN error code behind it.
    pub fn code(&self) -> Option<u16> {
        Some(match self {
            Self::Unauthorized { .. } | Self::BadChallenge { .. } => 401,
            Self::AlwaysStale { .. } => 438,
            Self::Forbidden => 403,
            Self::Mismatch => 437,
            Self::FamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::TransportNotSupported => 442,
            Self::PeerFamilyMismatch => 443,
            Self::QuotaReached => 486,
            Self::NoCapacity => 508,
            Self::TooManyRedirects { .. } | Self::BadRedirect => 300,
            Self::Refused { code, .. } => *code,
            Self::Silent { .. } | Self::BadAnswer { .. } | Self::StreamClosed(_) | Self::NotTurn | Self::Expired => {
                return None;
            }
        })
    }

    /// The cause for an error response, `user` being who was refused.
    pub(super) fn from_code(code: u16, reason: &str, user: &str) -> Self {
        match code {
            401 => Self::Unauthorized { user: user.to_owned() },
            403 => Self::Forbidden,
            437 => Self::Mismatch,
            440 => Self::FamilyNotSupported,
            441 => Self::WrongCredentials,
            442 => Self::TransportNotSupported,
            443 => Self::PeerFamilyMismatch,
            486 => Self::QuotaReached,
            508 => Self::NoCapacity,
            code => Self::Refused { code, reason: reason.to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_relay_error_says_what_failed_where_and_what_to_do() {
        let to: SocketAddr = "198.51.100.9:3478".parse().unwrap();
        let causes = [
            RelayCause::Silent { waited: Duration::from_millis(39_500) },
            RelayCause::Unauthorized { user: "ann".to_owned() },
            RelayCause::BadChallenge { what: "no REALM" },
            RelayCause::AlwaysStale { rounds: 3 },
            RelayCause::Forbidden,
            RelayCause::Mismatch,
            RelayCause::FamilyNotSupported,
            RelayCause::WrongCredentials,
            RelayCause::TransportNotSupported,
            RelayCause::PeerFamilyMismatch,
            RelayCause::QuotaReached,
            RelayCause::NoCapacity,
            RelayCause::TooManyRedirects { to },
            RelayCause::BadRedirect,
            RelayCause::Refused { code: 500, reason: "Server Error".to_owned() },
            RelayCause::BadAnswer { what: "XOR-RELAYED-ADDRESS" },
            RelayCause::StreamClosed("connection reset".to_owned()),
            RelayCause::NotTurn,
            RelayCause::Expired,
        ];
        let server = ServerName { name: "edge.example.test".to_owned(), addr: "192.0.2.7:443".parse().unwrap() };
        let lines = causes
            .map(|cause| RelayError { server: server.clone(), transport: ServerTransport::Tls, cause }.to_string());
        insta::assert_snapshot!(lines.join("\n"));
    }
}
