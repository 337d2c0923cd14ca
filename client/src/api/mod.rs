//! The whole contract between the engine and whoever uses it: a screen, a bot, a script, a test.
//!
//! [`Command`]s go in, [`Event`]s come out, both are plain serde values. Events are deltas; [`Snapshot`] is the
//! whole, and [`Snapshot::apply`] is the one function that turns the first into the second. A user interface
//! imports this module and nothing else of the engine.

mod command;
mod error;
mod event;
mod ids;
mod snapshot;
mod view;

pub use command::{AccountConfig, AnswerOptions, AutoAnswer, Command, DialOptions, MediaSource, Secret, ServerConfig};
pub use error::{CommandError, EndReason, RegistrationError};
pub use event::{
    AccountChange, CallChange, EngineChange, Event, EventBody, MediaDirection, PathCause, Protection, Warning,
};
pub use ids::{AccountId, CallId};
pub use snapshot::{AccountSnapshot, CallSnapshot, HISTORY_MAX, HistoryEntry, Phase, PhaseClock, PhaseState, Snapshot};
pub use view::{
    CallState, CallStats, CandidateKind, CandidateView, Component, Direction, IceReport, PairState, PairView, PathView,
    RelayTransport, RttOrigin, ServerOutcome, TcpType, Transport,
};

/// How media may travel, applied before candidates are pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathPolicy {
    /// Every candidate.
    #[default]
    All,
    /// Server-reflexive and relayed candidates: the addresses of this machine are not told to the peer.
    NoHost,
    /// Relayed candidates over UDP and TCP.
    RelayOnly,
    /// Relayed candidates whose connection to the relay is TCP or TLS.
    RelayTcpOnly,
}

/// SRTP with keys from `a=crypto` (RFC 4568 §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SrtpMode {
    /// RTP/SAVP: a peer without SRTP is refused.
    #[default]
    Required,
    /// RTP/AVP with `a=crypto`; after a 488 once more without.
    Optional,
    /// Plain RTP.
    Off,
}

/// Which SIP transports may be used towards the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportChoice {
    /// TLS where the domain names a TLS server, else TCP or UDP as its SRV records say.
    #[default]
    Auto,
    /// TLS only.
    Tls,
    /// TCP only.
    Tcp,
    /// UDP only, also for requests that must be fragmented.
    Udp,
}

/// Where the account is seen from, the `location` of the relay credentials request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// Decided from the SRV name that was used and the `RemoteUser` header.
    #[default]
    Auto,
    /// Inside the organisation's network.
    Intranet,
    /// Outside of it.
    Internet,
}
