//! The vocabulary between the user agent ([`Endpoint`](crate::endpoint::Endpoint)) and its owner: ids, inputs, outputs, events.
//!
//! The owner opens sockets and streams by itself (RFC 3263 selection is `locate`), announces each as a flow, and names the
//! flow in its requests. Events are facts, complete in themselves; SDP travels as text and is read with `sip::sdp`.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use crate::digest::Secret;
use crate::message::{Headers, Method};
use crate::uri::Uri;

/// A UDP socket, or one TCP or TLS connection. Chosen by the owner, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// One INVITE, from either side, with all the early dialogs it may make (RFC 3261 §13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u64);

/// One dialog (RFC 3261 §12): Call-ID and two tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogId(pub u64);

/// One request that is not an INVITE and is answered by [`Event::ResponseTo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One REFER received (RFC 3515 §2.4.4): names it in `notify_refer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReferId(pub u64);

macro_rules! short_display {
    ($($type:ident $letter:literal),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    )*};
}
short_display!(FlowId "f", LegId "leg", DialogId "d", RequestId "r", ReferId "ref");

/// What carries the messages of a flow. `tls` is TLS over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// As in the Via header: `UDP`, `TCP`, `TLS` (RFC 3261 §25.1).
    pub fn via_name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// As in the `transport=` parameter of a URI.
    pub fn uri_name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether the transport repeats what is lost, so that we must not (RFC 3261 §17.1.1.2).
    pub fn is_reliable(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls => true,
        }
    }

    /// 5060, or 5061 for TLS (RFC 3261 §19.1.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }
}

/// Where a request goes first: a flow, and on UDP the address behind it (streams: their remote address).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    pub flow: FlowId,
    pub to: SocketAddr,
}

/// User and password for digest (RFC 3261 §22). `realm: None` answers every realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub realm: Option<String>,
    pub user: String,
    pub password: Secret,
}

/// How the user agent presents itself. One endpoint speaks for one address of record.
#[derive(Debug, Clone)]
pub struct Config {
    /// User-Agent and Server header.
    pub user_agent: String,
    /// The address of record, `sip:alice@example.test`; `None`: `sip:{user}@{local address of the flow}`.
    pub aor: Option<Uri>,
    /// The display name of From and Contact.
    pub display_name: Option<String>,
    /// User part of Contact, and of From without an `aor`.
    pub user: String,
    /// Tried in order; the first whose realm fits answers the challenge.
    pub accounts: Vec<Account>,
    /// `+sip.instance`, `urn:uuid:…` without brackets (RFC 5626 §4.1). `None`: made from the seed.
    pub instance: Option<String>,
    /// From/To parameter that names the device to a Lync server; `None` leaves it out.
    pub epid: Option<String>,
    /// Session-Expires that we ask for, RFC 4028 §4; `None` never asks but still obeys.
    pub session_expires: Option<Duration>,
    /// Smallest Session-Expires that we accept; 90 s at least (RFC 4028 §5).
    pub min_session_expires: Duration,
    /// Requests on UDP larger than this many bytes are refused with
    /// [`CommandError::TooLarge`] (RFC 3261 §18.1.1); `None` sends them in fragments.
    pub udp_limit_bytes: Option<usize>,
    /// Send a 183 reliably to every peer that supports it (RFC 3262 §3). `false`: only if it is required, because with ICE the
    /// first check tells that the 183 has arrived (RFC 8839 §7.1.1), and the 200 repeats its description.
    pub reliable_progress: bool,
    /// Emit [`Event::Trace`] for each message.
    pub trace: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user_agent: "icephone".to_owned(),
            aor: None,
            display_name: None,
            user: "icephone".to_owned(),
            accounts: Vec::new(),
            instance: None,
            epid: None,
            session_expires: Some(Duration::from_mins(30)),
            min_session_expires: Duration::from_secs(90),
            udp_limit_bytes: Some(1300),
            reliable_progress: true,
            trace: false,
        }
    }
}

/// What happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// A UDP socket is bound, or a stream is connected (TLS: handshake done).
    /// `local` is the address others should see: never `0.0.0.0`. `remote` is `None` for UDP sockets.
    FlowOpened { flow: FlowId, transport: Transport, local: SocketAddr, remote: Option<SocketAddr> },
    /// The flow is gone; what waited on it fails with `cause`.
    FlowClosed { flow: FlowId, cause: String },
    /// A datagram on a UDP flow.
    Datagram { flow: FlowId, from: SocketAddr, bytes: &'a [u8] },
    /// Bytes, cut anywhere, of a stream flow.
    Stream { flow: FlowId, bytes: &'a [u8] },
    /// The instant of the last [`Output::Timeout`] has come.
    Timeout,
}

/// What the owner has to do. Drain until [`Output::Timeout`] after every input and every method.
#[derive(Debug)]
pub enum Output {
    /// Send to `to` from the UDP socket, or write to the stream.
    Transmit {
        flow: FlowId,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Close the stream: it is dead or its peer breaks the rules. Answer with [`Input::FlowClosed`] is not needed.
    CloseFlow(FlowId),
    Event(Event),
    /// Nothing more; call with [`Input::Timeout`] at this instant.
    Timeout(Option<Instant>),
}

/// A body with its type, as sent in requests and reported in events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Content-Type value, e.g. `application/sdp`.
    pub content_type: String,
    pub bytes: Vec<u8>,
}

/// Facts from the registrar's 200 (protocol facts §2.2).
#[derive(Debug, Clone)]
pub struct Registered {
    /// Granted lifetime; the refresh is the endpoint's own task.
    pub expires: Duration,
    /// Service-Route URIs in order (RFC 3608 §5), used in each further request.
    pub service_route: Vec<String>,
    /// `pub-gruu` or `gruu` of our own binding: Contact of dialogs from now on.
    pub gruu: Option<String>,
    /// Where the registrar saw us (RFC 3581 §4): differs from the local address behind a NAT.
    pub public: Option<SocketAddr>,
    /// Contact that is registered now.
    pub contact: String,
    /// All Contacts of the 200: other devices on the same address of record are among them.
    pub contacts: Vec<String>,
    /// `ms-user-logon-data: RemoteUser`: we came in through the edge.
    pub remote_user: bool,
    /// `Require: outbound` was in the 200 (RFC 5626 §4.2.1).
    pub outbound: bool,
    /// This is a refresh of the same binding on the same flow.
    pub refresh: bool,
    /// All headers of the 200, e.g. Allow-Events, Supported, Server, X-Edge.
    pub headers: Headers,
}

/// Why a registration is not there.
#[derive(Debug, Clone)]
pub struct RegistrationFailed {
    /// Status of the answer; `None` when none came (timeout, flow lost).
    pub status: Option<u16>,
    /// Reason phrase, or what happened to the flow.
    pub reason: String,
    /// The registrar asked for a password again: the one we have is wrong (or we have none).
    pub credentials_refused: bool,
    /// The endpoint tries again after this time when the flow is still open (RFC 5626 §4.5); the owner may
    /// open another flow and call `register` earlier. `None`: no further attempt by itself.
    pub retry_in: Option<Duration>,
    /// Contacts of a 3xx answer.
    pub redirect: Vec<String>,
    /// `ms-diagnostics`, `ms-diagnostics-public` or `Warning`, when present.
    pub diagnostics: Option<String>,
}

/// A call comes in (first INVITE of a dialog).
#[derive(Debug, Clone)]
pub struct Incoming {
    pub leg: LegId,
    /// The dialog that our answers make.
    pub dialog: DialogId,
    pub flow: FlowId,
    /// Address it came from.
    pub source: SocketAddr,
    /// From and To as received: display name and URI.
    pub from: String,
    pub to: String,
    pub uri: Uri,
    pub call_id: String,
    /// The offer; `None`: we offer in the 200 (or in a reliable 1xx) and are answered in ACK (PRACK).
    pub sdp: Option<String>,
    /// The dialog that this call replaces (RFC 3891 §3), when it is one of ours.
    pub replaces: Option<DialogId>,
    pub headers: Headers,
    /// The whole body, when it is not plain `application/sdp` (multipart).
    pub content: Option<Content>,
}

/// Why a call attempt ended.
#[derive(Debug, Clone)]
pub struct CallFailed {
    pub leg: LegId,
    /// Final status; 408 with `local: true` when nobody answered, 503 when the flow was lost, 487 after `cancel`.
    pub status: u16,
    pub reason: String,
    /// Made here, not received.
    pub local: bool,
    /// Text of the Warning header (RFC 3261 §20.43).
    pub warning: Option<String>,
    pub retry_after: Option<Duration>,
    /// Contacts of a 3xx (RFC 3261 §8.1.3.4).
    pub redirect: Vec<String>,
    pub diagnostics: Option<String>,
}

/// Why a dialog ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndCause {
    /// The peer sent BYE; text of its Reason header (RFC 3326 §2).
    RemoteBye { reason: Option<String> },
    /// We sent BYE by command.
    LocalBye,
    /// No ACK came for our 200 in 32 s (RFC 3261 §13.3.1.4).
    NoAck,
    /// Nobody refreshed the session (RFC 4028 §10).
    SessionExpired,
    /// A request in the dialog got 481 or 408, or no answer (RFC 3261 §12.2.1.2).
    Unreachable { status: u16 },
    /// Another branch of the fork answered, or the INVITE failed (RFC 3261 §13.2.2.4).
    ForkLost,
    /// The flow was lost while the dialog was being set up.
    FlowLost { cause: String },
}

/// Way of a message, for captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Sent,
    Received,
}

/// Facts for the owner.
#[derive(Debug)]
pub enum Event {
    Registered(Box<Registered>),
    RegistrationFailed(Box<RegistrationFailed>),
    /// The binding is removed, or we stopped trying to.
    Unregistered,

    Incoming(Box<Incoming>),
    /// A 1xx other than 100. With several To-tags there are several dialogs; each has its own SDP.
    /// `sdp` is reported once per dialog (the first: RFC 3261 §13.2.1), or for each reliable offer.
    Progress {
        leg: LegId,
        dialog: Option<DialogId>,
        status: u16,
        reason: String,
        sdp: Option<String>,
        reliable: bool,
    },
    /// 2xx to our INVITE. ACK is sent already, unless we offered nothing: then `sdp` is the peer's offer, `offer` is true,
    /// and `ack` must be called. Losing early dialogs are reported by [`Event::Ended`] with `ForkLost`.
    Answered {
        leg: LegId,
        dialog: DialogId,
        sdp: Option<String>,
        offer: bool,
        headers: Box<Headers>,
    },
    /// The call attempt is over, and its early dialogs with it.
    Failed(Box<CallFailed>),
    /// The call is over before we answered: the caller gave up (text of its Reason header, e.g. answered elsewhere), its
    /// INVITE expired, no PRACK came, or its flow was lost.
    Cancelled {
        leg: LegId,
        reason: Option<String>,
    },
    /// Our reliable 1xx was acknowledged by PRACK, which may carry the answer to an offer of ours.
    ProgressConfirmed {
        leg: LegId,
        sdp: Option<String>,
    },
    /// The ACK to our 200 came; `sdp` answers an offer of ours (INVITE without SDP).
    Confirmed {
        leg: LegId,
        dialog: DialogId,
        sdp: Option<String>,
    },

    /// The peer wants to change the session, by re-INVITE or UPDATE: `answer_reoffer` or `reject_reoffer`. `None`: it wants an offer.
    Reoffer {
        dialog: DialogId,
        sdp: Option<String>,
        method: Method,
    },
    /// The answer to our re-INVITE or UPDATE with SDP. `offer` is true when ours was without SDP: then call `ack`.
    Reanswered {
        dialog: DialogId,
        sdp: Option<String>,
        offer: bool,
    },
    /// The answer in the ACK to a re-INVITE that had no SDP.
    Reconfirmed {
        dialog: DialogId,
        sdp: Option<String>,
    },
    /// Our re-INVITE or UPDATE was refused; the session is as before (RFC 3261 §14.1). A 491 is retried by
    /// itself and reported only if the peer changed the session meanwhile.
    ReofferFailed {
        dialog: DialogId,
        status: u16,
        reason: String,
    },
    /// A session timer refresh went through (RFC 4028 §10): `by_us` or by the peer.
    SessionRefreshed {
        dialog: DialogId,
        by_us: bool,
        interval: Duration,
    },
    Ended {
        dialog: DialogId,
        cause: EndCause,
    },

    /// REFER (RFC 3515 §2.4): `accept_refer` or `reject_refer`. `replaces`: raw Replaces header of an attended transfer.
    TransferRequested {
        dialog: DialogId,
        refer: ReferId,
        refer_to: String,
        replaces: Option<String>,
        referred_by: Option<String>,
    },
    /// NOTIFY with a sipfrag about our REFER (RFC 3515 §2.4.5).
    TransferProgress {
        dialog: DialogId,
        status: u16,
        reason: String,
        terminated: bool,
    },

    /// Final answer to a request made with `request`, `service`, `options`, `message`, `subscribe_once`, `request_in_dialog`
    /// or `refer`. `local`: made here (408 nobody answered, 503 flow lost).
    ResponseTo {
        request: RequestId,
        status: u16,
        reason: String,
        headers: Box<Headers>,
        content: Option<Content>,
        local: bool,
    },
    /// NOTIFY or BENOTIFY, or the document inside a 200 to SUBSCRIBE (piggy-back).
    Notified {
        request: Option<RequestId>,
        package: String,
        state: String,
        content: Option<Content>,
    },
    /// INFO inside a dialog, answered 200 already.
    Info {
        dialog: DialogId,
        headers: Box<Headers>,
        content: Option<Content>,
    },
    /// MESSAGE, answered 200 already (RFC 3428 §7).
    Message {
        from: String,
        content: Option<Content>,
    },

    /// No pong, or the stream sent what is not SIP (RFC 5626 §4.4.1). [`Output::CloseFlow`] went before.
    FlowDead {
        flow: FlowId,
        cause: String,
    },
    /// One message, for captures. Bodies may hold SDES keys: the owner redacts.
    Trace {
        direction: Direction,
        flow: FlowId,
        peer: SocketAddr,
        bytes: Vec<u8>,
    },
}

/// Why a command could not be done now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("flow {0} is not open; open it and report FlowOpened first")]
    NoFlow(FlowId),
    #[error("there is no call {0} any more")]
    NoLeg(LegId),
    #[error("there is no dialog {0} any more")]
    NoDialog(DialogId),
    #[error("there is no transfer {0} any more")]
    NoRefer(ReferId),
    #[error("{0} cannot be done in the state {1}")]
    WrongState(&'static str, &'static str),
    #[error("an offer is pending in {0}; wait for its answer (RFC 3264 §4)")]
    OfferPending(DialogId),
    #[error(
        "request of {bytes} bytes is larger than {limit} and must not go over UDP; use a TCP flow (RFC 3261 §18.1.1)"
    )]
    TooLarge { bytes: usize, limit: usize },
    #[error("{limit} {what} are open already")]
    TooMany { what: &'static str, limit: usize },
    #[error("{0:?} is not a SIP URI")]
    BadUri(String),
}

/// Keep-alive of a UDP hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keepalive {
    /// CRLF every 20-25 s: below the 30 s that a NAT may keep a mapping (RFC 4787 §4.3 asks for more than it gets).
    Crlf,
    /// These bytes (a STUN Binding request made by the owner, RFC 5626 §4.4.2) at the same interval.
    Bytes(Vec<u8>),
    Off,
}

/// What `register` needs.
#[derive(Debug, Clone)]
pub struct Register {
    /// Request-URI: `sip:example.test`.
    pub registrar: Uri,
    pub hop: Hop,
    /// Lifetime to ask for.
    pub expires: Duration,
    /// Further headers, e.g. `Event: registration`, `ms-keep-alive`.
    pub headers: Vec<(String, String)>,
}

/// What `invite` needs.
#[derive(Debug, Clone)]
pub struct Invite {
    pub target: Uri,
    pub hop: Hop,
    /// The offer; `None` asks the peer for one.
    pub sdp: Option<String>,
    /// Further headers, e.g. `Replaces`, `Referred-By`.
    pub headers: Vec<(String, String)>,
}

/// A request outside dialogs: SERVICE, OPTIONS, MESSAGE, SUBSCRIBE, ….
#[derive(Debug, Clone)]
pub struct OutOfDialog {
    pub method: Method,
    pub uri: Uri,
    pub hop: Hop,
    pub headers: Vec<(String, String)>,
    pub content: Option<Content>,
}
