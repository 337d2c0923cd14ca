//! What the engine tells: facts, in the past tense, each complete with its evidence.
//!
//! As JSON an event is one flat object: `{"seq":7,"at_ms":412,"call":1,"event":"gathered","candidates":[…],…}`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    AccountId, CallId, CallState, CallStats, CandidateView, Command, CommandError, Component, Direction, EndReason,
    IceReport, Location, PathView, RegistrationError, RelayTransport, ServerOutcome, Snapshot, Transport,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 without gaps; a reader that misses one asks for a snapshot.
    pub seq: u64,
    /// Milliseconds since the engine started.
    pub at_ms: u64,
    #[serde(flatten)]
    pub body: EventBody,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventBody {
    Call {
        call: CallId,
        #[serde(flatten)]
        change: Box<CallChange>,
    },
    Account {
        account: AccountId,
        #[serde(flatten)]
        change: Box<AccountChange>,
    },
    Engine(Box<EngineChange>),
}

/// What concerns neither one account nor one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum EngineChange {
    /// Answer to a command that makes no sense now.
    Refused {
        command: Box<Command>,
        error: CommandError,
    },
    Snapshot {
        snapshot: Box<Snapshot>,
    },
    /// Something the user should read once, for example that there is no sound card.
    Notice {
        text: String,
    },
    /// The addresses of this machine changed.
    InterfacesChanged {
        addresses: Vec<IpAddr>,
    },
    /// What the engine holds of the operating system: what does not come back after calls is a leak.
    Health {
        calls: usize,
        sockets: usize,
        streams: usize,
        /// Tasks of the program's runtime that are alive, ours and those of libraries.
        tasks: usize,
    },
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum AccountChange {
    Added {
        aor: String,
    },
    Removed,
    /// DNS answered: the servers in the order in which they are tried.
    ServersLocated {
        asked: Vec<String>,
        servers: Vec<String>,
        took_ms: u64,
    },
    /// One server was chosen: its connection stands.
    SrvSelected {
        name: String,
        target: String,
        address: SocketAddr,
        transport: Transport,
        took_ms: u64,
    },
    Registering,
    Registered {
        server: SocketAddr,
        transport: Transport,
        contact: String,
        expires_s: u64,
        /// Our address as the server saw it (`received`/`rport`, RFC 3581 §4).
        public_address: Option<SocketAddr>,
        location: Location,
        took_ms: u64,
    },
    RegistrationFailed {
        error: RegistrationError,
        retry_in_s: Option<u64>,
    },
    Unregistered,
    /// Calls without a registrar can come in here, over UDP and TCP.
    Listening {
        address: SocketAddr,
    },
    /// The signalling connection broke; it is being made anew.
    ConnectionLost {
        cause: String,
    },
    /// `mras_uri: None`: no relay service for this account, host candidates only.
    Provisioned {
        mras_uri: Option<String>,
        note: Option<String>,
        took_ms: u64,
    },
    CredentialsReceived {
        relays: Vec<String>,
        lifetime_s: u64,
        renew_in_s: u64,
        took_ms: u64,
    },
    CredentialsFailed {
        cause: String,
        retry_in_s: Option<u64>,
    },
    /// A relay was tried outside of a call, so that a dead one is not waited for.
    RelayProbed {
        server: String,
        transport: RelayTransport,
        failure: Option<String>,
        took_ms: u64,
    },
    Warned {
        warning: Warning,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum CallChange {
    Created {
        account: AccountId,
        direction: Direction,
        peer: String,
    },
    State {
        state: CallState,
    },
    Gathered {
        candidates: Vec<CandidateView>,
        servers: Vec<ServerOutcome>,
        took_ms: u64,
    },
    /// An SDP offer or answer of ours left, in `message` (`INVITE`, `183`, `200`).
    OfferSent {
        message: String,
        candidates: usize,
        crypto: bool,
        bytes: usize,
    },
    /// The peer's session description came, in `message`; `early_dialog` numbers the forks from 0.
    AnswerReceived {
        message: String,
        early_dialog: u32,
        candidates: Vec<CandidateView>,
        ice: bool,
        rtcp_mux: bool,
        crypto: bool,
        took_ms: u64,
    },
    /// The peer does not speak ICE: plain symmetric RTP to the address of its `m=` and `c=` lines.
    NoIce {
        remote: SocketAddr,
    },
    PairValid {
        component: Component,
        path: PathView,
        after_ms: u64,
    },
    PathChanged {
        component: Component,
        path: PathView,
        cause: PathCause,
    },
    /// The path in use is dead and no standby is at hand: another one is being looked for.
    PathLost {
        path: PathView,
        cause: String,
    },
    /// Media of the peer is back after a break, on `path`.
    MediaGap {
        length_ms: u64,
        path: PathView,
        cause: String,
    },
    /// First audio packet in this direction, since the call was created.
    FirstMedia {
        direction: MediaDirection,
        after_ms: u64,
    },
    /// Every component has its nominated pair.
    Promoted {
        path: PathView,
        after_ms: u64,
        standby: Vec<PathView>,
    },
    /// The re-INVITE with `a=remote-candidates` was answered. `by_us`: we sent it.
    Announced {
        by_us: bool,
        took_ms: u64,
    },
    MediaStarted {
        codec: String,
        protection: Protection,
    },
    Stats {
        stats: Box<CallStats>,
    },
    Dtmf {
        digit: char,
    },
    DtmfSent {
        digit: char,
    },
    /// The recording that we play into the call has been sent to its end.
    SourceEnded,
    Muted {
        muted: bool,
    },
    Hold {
        by_us: bool,
        by_peer: bool,
    },
    /// The INVITE was answered 3xx and goes to another address now.
    Redirected {
        to: String,
    },
    /// The peer asks for a call to somebody else; `call` is that call, `None`: refused.
    TransferRequested {
        to: String,
        call: Option<CallId>,
    },
    /// How the transfer goes that we asked for.
    TransferProgress {
        status: u16,
        phrase: String,
    },
    Warned {
        warning: Warning,
    },
    Ended {
        reason: EndReason,
        stats: Box<CallStats>,
        report: Box<IceReport>,
        duration_ms: u64,
    },
}

/// `FirstValid` is early media; `Promoted` happens at most once per ICE session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathCause {
    FirstValid,
    Promoted,
    Restarted,
    /// A standby pair took over.
    Repaired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MediaDirection {
    Sent,
    Received,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// SRTP, keys from `a=crypto` over protected signalling.
    Srtp,
    /// SRTP, but the keys travelled in the clear.
    SrtpOverPlainSignalling,
    None,
}

/// Something works, but not as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "warning")]
pub enum Warning {
    #[error("SRTP keys travel over unprotected {transport:?} signalling (RFC 4568 §7); use TLS")]
    KeysInTheClear { transport: Transport },
    #[error("no relay service: only host candidates are offered ({cause})")]
    HostCandidatesOnly { cause: String },
    #[error("{server} over {transport:?}: {failure}")]
    ServerFailed { server: String, transport: RelayTransport, failure: String },
    #[error("{what}")]
    PeerMisbehaves { what: String },
    #[error("echo cancelling does not exist yet: use a headset")]
    UseHeadset,
}
