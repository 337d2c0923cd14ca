//! Candidates, servers and pairs as tables with causes: what a screen, a log and a failed call's explanation show.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::candidate::{Candidate, Component};
use crate::check::CheckFailure;
use crate::config::{ServerId, ServerTransport};
use crate::event::{PathClass, PeerId};
use crate::pair::{Pair, PairId};
use crate::peer::Session;

/// The state of an agent as plain values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IceReport {
    pub local: Vec<Candidate>,
    /// Sockets and listeners that could not be had, with their causes.
    pub unavailable: Vec<String>,
    pub servers: Vec<ServerReport>,
    pub peers: Vec<PeerReport>,
    /// From `gather` to `Gathered`.
    pub gathering: Option<Duration>,
    /// Packets that belonged to nothing and were dropped.
    pub strays: u64,
}

/// What became of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReport {
    pub name: String,
    pub addr: SocketAddr,
    pub transport: ServerTransport,
    /// `relay 203.0.113.10:49800`, `reflexive 203.0.113.7:50002`, or the cause of failure, for people.
    pub outcome: String,
    pub works: bool,
    /// Until its first answer or failure.
    pub took: Option<Duration>,
}

/// One remote description and its pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    pub peer: PeerId,
    pub remote: Vec<Candidate>,
    pub pairs: Vec<PairReport>,
    /// Pairs above the limit of 100, never checked.
    pub dropped_pairs: usize,
    /// From the start of the checks.
    pub first_valid: Option<Duration>,
    /// From the start of the checks.
    pub nominated: Option<Duration>,
}

/// One pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairReport {
    pub component: Component,
    /// The local candidate: the one seen by the peer if the pair is valid, else the one that checks are sent from.
    pub local: Candidate,
    /// How we reach our relay, if the local candidate is relayed.
    pub relay: Option<ServerTransport>,
    pub remote: Candidate,
    pub class: PathClass,
    pub priority: u64,
    pub state: PairView,
    pub nominated: bool,
    /// Media is sent on it.
    pub selected: bool,
}

/// State of a pair, RFC 8445 §6.1.2.6, with its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairView {
    Frozen,
    Waiting,
    InProgress,
    Succeeded { rtt: Duration },
    Failed(CheckFailure),
}

impl fmt::Display for PairView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen => f.write_str("frozen"),
            Self::Waiting => f.write_str("waiting"),
            Self::InProgress => f.write_str("checking"),
            Self::Succeeded { rtt } => write!(f, "valid, {} ms", rtt.as_millis()),
            Self::Failed(cause) => write!(f, "failed: {cause}"),
        }
    }
}

impl Agent {
    /// Everything known, for people.
    pub fn report(&self) -> IceReport {
        let servers = self.half.servers.iter().enumerate().map(|(index, server)| {
            let id = ServerId(index);
            let (outcome, works) = self.half.server_outcome(id);
            ServerReport {
                name: server.name.clone(),
                addr: server.addr,
                transport: server.transport,
                outcome,
                works,
                took: self.half.probes.get(&id).map(|(_, took)| *took),
            }
        });
        IceReport {
            local: self.half.local_candidates().iter().map(|c| c.candidate.clone()).collect(),
            unavailable: self.half.unavailable(),
            servers: servers.collect(),
            peers: self.peers.iter().map(|(id, peer)| peer_report(*id, &peer.session)).collect(),
            gathering: self.half.gathered_in,
            strays: self.strays,
        }
    }
}

fn peer_report(peer: PeerId, session: &Session) -> PeerReport {
    let since = |at: Instant| at.saturating_duration_since(session.started);
    let mut pairs: Vec<(PairId, &Pair)> = session.checklist.pairs().collect();
    pairs.sort_by_key(|(id, pair)| (pair.component(), pair.rank(), *id));
    let pairs = pairs.into_iter().map(|(id, pair)| PairReport {
        component: pair.component(),
        local: pair.local_end().clone(),
        relay: pair.local.relay,
        remote: pair.remote.clone(),
        class: pair.class(),
        priority: pair.priority,
        state: pair.view(),
        nominated: pair.nominated,
        selected: session.paths.values().any(|used| *used == id),
    });
    PeerReport {
        peer,
        remote: session.checklist.remote().to_vec(),
        pairs: pairs.collect(),
        dropped_pairs: session.checklist.dropped_pairs,
        first_valid: session.first_valid.map(|(at, _)| since(at)),
        nominated: session.concluded_at.map(since),
    }
}

impl fmt::Display for IceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for server in &self.servers {
            writeln!(f, "server {} {} {}: {}", server.name, server.addr, server.transport, server.outcome)?;
        }
        for text in &self.unavailable {
            writeln!(f, "local  {text}")?;
        }
        for candidate in &self.local {
            writeln!(f, "local  {candidate}")?;
        }
        for peer in &self.peers {
            for candidate in &peer.remote {
                writeln!(f, "remote {candidate}")?;
            }
            for pair in &peer.pairs {
                writeln!(f, "pair   {pair}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for PairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.component, self.local.kind, self.local.addr)?;
        write!(f, " -> {} {}: {}", self.remote.kind, self.remote.addr, self.state)?;
        f.write_str(if self.nominated { ", nominated" } else { "" })?;
        f.write_str(if self.selected { ", in use" } else { "" })
    }
}
