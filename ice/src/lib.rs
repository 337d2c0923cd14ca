//! ICE (RFC 8445), STUN (RFC 8489) and TURN (RFC 8656) as sans-IO state machines.
//!
//! One [`Agent`] serves one media stream. It owns no socket and no clock: it is told what came in and when
//! ([`Agent::handle_input`]), and says what to do ([`Agent::poll_output`]) until nothing is left.
//!
//! ```text
//!             ┌──────────────────────── Agent ────────────────────────┐
//!  Input ───▶ │ our half: sockets, servers, relays, candidates        │ ───▶ OpenSocket, Transmit, StreamSend …
//!             │    gather, probe, local, relay                        │
//!             │ one Peer per remote description (forks)               │ ───▶ Event: Gathered, PairValid,
//!             │    checklist ─ check ─ responder ─ promotion ─ consent│             PathChanged, Concluded …
//!  send() ──▶ │ path: where each component goes now                   │ ───▶ Data { component, payload }
//!             └───────────────────────────────────────────────────────┘
//! ```
//!
//! The life of a session (RFC 8445 §2), with what is ours in it:
//!
//! 1. *Gather*: all servers at once; the slowest holds up nobody for more than 500 ms.
//! 2. *Check*: all pairs, UDP and relays, both components, Ta apart; early checks are answered before the answer is here.
//! 3. *Early media*: on the first valid pair of each component. No hopping afterwards.
//! 4. *Promote*: once, the best pairs by class and priority are nominated; the caller announces them with a re-INVITE.
//! 5. *Keep*: consent and a sign of life on the pair in use, standby pairs where both sides renominate; everything else
//!    is given back. A dead path is left within a second and a half.
//! 6. *Restart*: new credentials, the old pair carries on until the new one is nominated.
//!
//! What it does not do: SDP text (the caller's), trickling (RFC 8838).
//!
//! Read in this order: [`Agent`] (the facade), `event`, `description`, `config`, `policy` (the numbers), then `peer`,
//! `checklist`, `check`, `responder`, `promotion`, `path`, `consent`, `liveness`, `sounding`, `repair`; for our half `local`,
//! `gather`, `tcp`, `relay`; at last
//! `schedule`, which says what is due when. The codec is in [`stun`], the relay client in [`turn`].

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
mod liveness;
mod local;
mod pair;
mod path;
mod peer;
mod plain;
mod policy;
mod priority;
mod probe;
mod promotion;
mod relay;
mod repair;
mod report;
mod responder;
mod schedule;
mod sounding;
mod tcp;

pub use agent::{Agent, NoSuchPeer};
pub use candidate::{Candidate, CandidateError, CandidateTransport, CandidateType, Component, TcpType};
pub use check::CheckFailure;
pub use config::{Config, RelayCredentials, Secret, Server, ServerId, ServerTransport};
pub use description::{LocalDescription, NominatedPair, PairsVerdict, RemoteDescription, Role};
pub use event::{
    Event, Input, Output, Path, PathCause, PathClass, PathTrouble, PeerId, ServerCause, ServerFailure, ServerOutcome,
    SocketId, StreamId, TcpId,
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
