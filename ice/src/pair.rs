//! A candidate pair, its states and its result (RFC 8445 §6.1.2.2 to §6.1.2.6).
//!
//! ```text
//!            unfreeze          check sent            response
//!   Frozen ──────────▶ Waiting ──────────▶ InProgress ──────▶ Succeeded ──consent lost──▶ Failed
//!      │                  ▲                    │  └──timeout, error──▶ Failed
//!      └──triggered check─┴──487, triggered────┘          a triggered check revives it ─▶ Waiting
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::candidate::{Candidate, CandidateTransport, CandidateType, Component};
use crate::check::CheckFailure;
use crate::config::ServerTransport;
use crate::description::Role;
use crate::event::{PathClass, SocketId, TcpId};
use crate::priority;
use crate::report::PairView;

/// A relay of ours, numbered by the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RelayId(pub u32);

/// Where a candidate really sends from (RFC 8445 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Base {
    Socket(SocketId),
    Relay(RelayId),
    /// On the connection to the pair's remote address (RFC 6544 §3).
    Tcp(TcpId),
}

/// A candidate of ours, with what only we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalCandidate {
    pub candidate: Candidate,
    pub base: Base,
    pub base_addr: SocketAddr,
    /// How the relay is reached, for relayed candidates.
    pub relay: Option<ServerTransport>,
    pub local_preference: u16,
}

impl LocalCandidate {
    /// PRIORITY of a check: as if it were peer-reflexive (RFC 8445 §7.1.1).
    pub(crate) fn check_priority(&self) -> u32 {
        let Candidate { transport, component, .. } = self.candidate;
        priority::candidate_priority(CandidateType::PeerReflexive, transport, self.local_preference, component)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PairId(pub u32);

/// RFC 8445 §6.1.2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PairState {
    Frozen,
    Waiting,
    InProgress,
    Succeeded { rtt: Duration },
    Failed(CheckFailure),
}

#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// The candidate that the pair was formed with; reflexive ones only where the policy hides their host.
    pub local: LocalCandidate,
    pub remote: Candidate,
    pub priority: u64,
    pub state: PairState,
    /// Once valid: the local candidate that the other side sees (RFC 8445 §7.2.5.3.2).
    pub seen_as: Option<Candidate>,
    pub nominated: bool,
    /// The controlling side named it before it was valid here (RFC 8445 §7.3.1.5).
    pub nominate_when_valid: bool,
    /// NOMINATION value of the last check that named it; larger wins.
    pub nomination: u32,
    /// How often a check of the other side asked for one of ours.
    pub triggered: u8,
}

impl Pair {
    pub(crate) fn new(local: LocalCandidate, remote: Candidate, role: Role) -> Self {
        let priority = priority::pair_priority(role, local.candidate.priority, remote.priority);
        Self {
            local,
            remote,
            priority,
            state: PairState::Frozen,
            seen_as: None,
            nominated: false,
            nominate_when_valid: false,
            nomination: 0,
            triggered: 0,
        }
    }

    pub(crate) fn component(&self) -> Component {
        self.local.candidate.component
    }

    pub(crate) fn base(&self) -> Base {
        self.local.base
    }

    /// Pair foundation, RFC 8445 §6.1.2.6.
    pub(crate) fn has_foundation_of(&self, other: &Self) -> bool {
        self.local.candidate.foundation == other.local.candidate.foundation
            && self.remote.foundation == other.remote.foundation
    }

    pub(crate) fn is_valid(&self) -> bool {
        matches!(self.state, PairState::Succeeded { .. })
    }

    pub(crate) fn is_open(&self) -> bool {
        match self.state {
            PairState::Frozen | PairState::Waiting | PairState::InProgress => true,
            PairState::Succeeded { .. } | PairState::Failed(_) => false,
        }
    }

    /// The local end as the other side sees it, or as far as known.
    pub(crate) fn local_end(&self) -> &Candidate {
        self.seen_as.as_ref().unwrap_or(&self.local.candidate)
    }

    /// The worse end decides.
    pub(crate) fn class(&self) -> PathClass {
        self.class_with(PathClass::RelayUdp)
    }

    /// `remote_relay` is the class of a remote relayed candidate.
    fn class_with(&self, remote_relay: PathClass) -> PathClass {
        let local = match self.local.relay {
            Some(ServerTransport::Udp) => PathClass::RelayUdp,
            Some(ServerTransport::Tcp | ServerTransport::Tls) => PathClass::RelayTcp,
            None => class_of(self.local_end().kind, PathClass::RelayUdp),
        };
        let remote = class_of(self.remote.kind, remote_relay);
        match self.local.candidate.transport {
            CandidateTransport::Udp => local.max(remote),
            CandidateTransport::Tcp(_) if self.remote.kind == CandidateType::Relayed => PathClass::RelayTcp,
            CandidateTransport::Tcp(_) => PathClass::DirectTcp,
        }
    }

    /// The relays that it goes through.
    pub(crate) fn relays(&self) -> Vec<RelayEnd> {
        let ours = self.local.relay.map(|transport| RelayEnd::Ours(self.local.base_addr.ip(), transport));
        let is_relayed = self.remote.kind == CandidateType::Relayed;
        ours.into_iter().chain(is_relayed.then(|| RelayEnd::Theirs(self.remote.addr.ip()))).collect()
    }

    /// Better pairs are smaller: class first, then pair priority. How the other side reaches its relay it does not say; a
    /// low local preference hints at TCP, and a direct connection over TCP is better than that.
    pub(crate) fn rank(&self) -> Rank {
        let is_slow = priority::is_below_udp_relays(self.remote.priority);
        let remote_relay = if is_slow { PathClass::RelayTcp } else { PathClass::RelayUdp };
        Rank { class: self.class_with(remote_relay), priority: std::cmp::Reverse(self.priority) }
    }

    pub(crate) fn view(&self) -> PairView {
        match self.state {
            PairState::Frozen => PairView::Frozen,
            PairState::Waiting => PairView::Waiting,
            PairState::InProgress => PairView::InProgress,
            PairState::Succeeded { rtt } => PairView::Succeeded { rtt },
            PairState::Failed(cause) => PairView::Failed(cause),
        }
    }
}

/// A relay as a pair sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RelayEnd {
    Ours(IpAddr, ServerTransport),
    Theirs(IpAddr),
}

impl RelayEnd {
    pub(crate) fn ip(self) -> IpAddr {
        match self {
            Self::Ours(ip, _) | Self::Theirs(ip) => ip,
        }
    }
}

/// Order of preference among pairs; the smallest is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub class: PathClass,
    pub priority: std::cmp::Reverse<u64>,
}

/// What one end alone allows.
fn class_of(kind: CandidateType, relay: PathClass) -> PathClass {
    match kind {
        CandidateType::Host => PathClass::Direct,
        CandidateType::ServerReflexive | CandidateType::PeerReflexive => PathClass::Reflexive,
        CandidateType::Relayed => relay,
    }
}
