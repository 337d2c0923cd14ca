//! What the two sides tell each other in SDP (RFC 8839), as values. The text of the lines is the caller's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::candidate::{Candidate, Component};
use crate::config::{Secret, ServerTransport};

/// Our half, for `a=ice-ufrag`, `a=ice-pwd`, `a=candidate`, `m=`, `c=` and `a=rtcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDescription {
    pub ufrag: String,
    pub pwd: Secret,
    /// Best first; every one is a line.
    pub candidates: Vec<Candidate>,
    /// How we reach the relay of each relayed candidate, by its address. For people; the peer is not told.
    pub relays: BTreeMap<SocketAddr, ServerTransport>,
    /// Default destination per component (RFC 8445 §5.1.4): relayed before reflexive before host. Always one of the
    /// candidates. Empty if there is no candidate at all.
    pub defaults: BTreeMap<Component, SocketAddr>,
    /// Value of `a=ice-pacing`.
    pub pacing: Duration,
    /// Tokens of `a=ice-options`.
    pub options: &'static [&'static str],
}

/// The other half, read from an offer or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one attribute of the description")]
pub struct RemoteDescription {
    pub ufrag: String,
    pub pwd: Secret,
    /// Candidates that could be read; others are left out.
    pub candidates: Vec<Candidate>,
    /// `a=ice-lite`: it never checks, so we control and are the only ones who do.
    pub lite: bool,
    /// `a=ice-options:ice2`, RFC 8445 §10. Without it nominations may be aggressive (RFC 5245 §8.1.1.2).
    pub ice2: bool,
    /// `a=ice-options:renomination`: standby pairs may take over without signalling.
    pub renomination: bool,
    /// `a=ice-pacing`; absent means the dialect's default, 50 ms.
    pub pacing: Option<Duration>,
    /// `a=rtcp-mux` is in both descriptions: component 2 is dropped at once, on our side for all peers (RFC 5761 §5.1.3).
    pub rtcp_mux: bool,
}

/// Which side nominates (RFC 8445 §6.1.1): the initial offerer, unless the other one is lite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Controlling,
    Controlled,
}

impl Role {
    /// The opposite role.
    #[must_use]
    pub fn switched(self) -> Self {
        match self {
            Self::Controlling => Self::Controlled,
            Self::Controlled => Self::Controlling,
        }
    }
}

/// One line of the other side's `a=remote-candidates`, with its default destination of the same component: the pair that
/// it has nominated, as we see it (RFC 8839 §4.4.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NominatedPair {
    pub component: Component,
    /// One of our candidates, as listed in `a=remote-candidates`.
    pub local: SocketAddr,
    /// Default destination of the offer: `c=` and `m=`, or `a=rtcp`.
    pub remote: SocketAddr,
}

/// Whether the pairs of a `remote-candidates` offer may be answered yet (RFC 8839 §4.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairsVerdict {
    /// All are valid: answer now.
    Valid,
    /// Checks are under way: wait for [`Event::RemoteCandidates`](crate::Event::RemoteCandidates).
    Pending,
    /// One has failed: answer as if the attribute were absent and restart ICE.
    Failed,
}
