//! ICE (RFC 8445), STUN (RFC 8489) and TURN (RFC 8656) as sans-IO state machines.

pub mod demux;
pub mod framing;
pub mod stun;
pub mod turn;

mod agent;
mod candidate;
mod check;
mod checklist;
mod config;
mod consent;
mod description;
mod event;
mod foundation;
mod gather;
mod local;
mod pair;
mod path;
mod peer;
mod plain;
mod policy;
mod priority;
mod promotion;
mod relay;
mod report;
mod responder;
mod schedule;

pub use agent::{Agent, NoSuchPeer};
pub use candidate::{Candidate, CandidateError, CandidateTransport, CandidateType, Component, TcpType};
pub use check::CheckFailure;
pub use config::{Config, RelayCredentials, Secret, Server, ServerId, ServerTransport};
pub use description::{LocalDescription, NominatedPair, PairsVerdict, RemoteDescription, Role};
pub use event::{
    Event, Input, Output, Path, PathCause, PathClass, PeerId, ServerCause, ServerFailure, ServerOutcome, SocketId,
    StreamId,
};
pub use path::NotReady;
pub use policy::{Dialect, Moves, Policy, PolicyError, Settle};
pub use report::{IceReport, PairReport, PairView, PeerReport, ServerReport};

/// A fixed instant for tests in virtual time.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing; tests only add to it")]
pub(crate) fn epoch() -> std::time::Instant {
    std::time::Instant::now()
}
