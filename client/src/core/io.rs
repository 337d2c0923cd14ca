//! What goes into and comes out of the call control ([`super::Core`]).
//!
//! The core owns an id space, never a handle: it asks for a socket, a stream or a DNS answer under an id of its own choice and
//! is told later what came of it. The driver and the simulator carry these values; both see plain bytes on a TLS stream.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::api::{CallId, Command, EventBody};

/// 20 ms of mono sound at 48 kHz.
pub const FRAME_SAMPLES: usize = 960;
/// One frame of sound, 20 ms at 48 kHz, mono.
pub type Frame = [i16; FRAME_SAMPLES];

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A UDP socket the core asked for.
    SocketId, "s"
);
id!(
    /// A TCP or TLS stream the core asked for, or that came in at its listening address.
    StreamId, "t"
);
id!(
    /// A place where TCP streams may come in.
    ListenerId, "l"
);
id!(
    /// A DNS question the core asked.
    ResolveId, "q"
);

/// What is asked for in the DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKind {
    A,
    Aaaa,
    Srv,
    Naptr,
}

/// One SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvRecord {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Without the final dot; empty for "decidedly not available" (target `.`).
    pub target: String,
}

/// One NAPTR record (RFC 3403 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NaptrRecord {
    pub order: u16,
    pub preference: u16,
    pub flags: String,
    pub services: String,
    pub regexp: String,
    /// Without the final dot.
    pub replacement: String,
}

/// What the DNS said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// For A and AAAA.
    Addresses(Vec<IpAddr>),
    Srv(Vec<SrvRecord>),
    Naptr(Vec<NaptrRecord>),
    /// The name does not exist, or has no record of this kind.
    Empty,
    /// No answer: time-out, refused, no name server. The text says which server and why.
    Failed(String),
}

/// Why a stream could not be opened, or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("connection refused")]
    Refused,
    #[error("no answer in time")]
    Timeout,
    #[error("network unreachable")]
    Unreachable,
    /// The certificate did not pass. The text is complete: what is wrong with it and what to do.
    #[error("certificate refused: {0}")]
    Certificate(String),
    /// The handshake failed for another reason than the certificate.
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// The other side closed the stream.
    #[error("closed by the other side")]
    Closed,
    #[error("connection reset")]
    Reset,
    #[error("{0}")]
    Io(String),
}

/// What the driver checks when it opens a TLS stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRequest {
    /// The name sent in the SNI extension (RFC 6066 §3); an IP address as text sends none.
    pub sni: String,
    /// The certificate is good if it is valid for one of these (RFC 5922 §7.1); never empty.
    pub names: Vec<String>,
}

/// What may happen to a [`super::Core`].
#[derive(Debug)]
pub enum Input<'a> {
    Command(Command),
    Datagram {
        socket: SocketId,
        from: SocketAddr,
        payload: &'a [u8],
    },
    SocketOpened {
        id: SocketId,
        local: SocketAddr,
    },
    SocketFailed {
        id: SocketId,
        cause: String,
    },
    /// A datagram could not be sent to this address, or an ICMP error came back.
    SendFailed {
        socket: SocketId,
        to: SocketAddr,
        cause: String,
    },
    /// An asked-for stream is up, with TLS if TLS was asked for.
    StreamOpened {
        id: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// A listener is up; `local` has the port that was bound.
    Listening {
        id: ListenerId,
        local: SocketAddr,
    },
    ListenFailed {
        id: ListenerId,
        cause: String,
    },
    /// A stream came in. The driver takes ids with the top bit set, the core the others.
    StreamAccepted {
        listener: ListenerId,
        id: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
    },
    StreamData {
        id: StreamId,
        bytes: &'a [u8],
    },
    StreamClosed {
        id: StreamId,
        cause: StreamError,
    },
    Resolved {
        id: ResolveId,
        answer: Answer,
    },
    /// The addresses this host has, best first; sent at the start and at every change.
    Interfaces(Vec<IpAddr>),
    /// The host has slept: more time has passed than anybody was awake.
    Woken,
    /// 20 ms from the microphone for one call.
    Microphone {
        call: CallId,
        frame: &'a Frame,
    },
    Timeout,
}

/// What a [`super::Core`] asks for. Drain until [`Output::Timeout`].
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Bind a UDP socket. If the address is unspecified and `toward` is given, bind it to the address from which the host would
    /// reach `toward` (what `connect` + `getsockname` tell), because that address goes into Via and Contact.
    OpenSocket {
        id: SocketId,
        bind: SocketAddr,
        toward: Option<SocketAddr>,
    },
    CloseSocket(SocketId),
    Transmit {
        socket: SocketId,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    OpenStream {
        id: StreamId,
        /// With port 0 any port; else that of a `shared` listener.
        from: Option<SocketAddr>,
        to: SocketAddr,
        tls: Option<TlsRequest>,
    },
    StreamSend {
        id: StreamId,
        payload: Vec<u8>,
    },
    CloseStream(StreamId),
    /// Listen for plain TCP streams. Streams can be opened from the port of a `shared` one (RFC 6544 §7.1).
    Listen {
        id: ListenerId,
        bind: SocketAddr,
        shared: bool,
    },
    CloseListener(ListenerId),
    Resolve {
        id: ResolveId,
        name: String,
        kind: RecordKind,
    },
    /// 20 ms for the loudspeaker (or the recording) of one call.
    Play {
        call: CallId,
        frame: Box<Frame>,
    },
    Event(EventBody),
    /// Nothing more to do before this instant; `None`: nothing until the next input.
    Timeout(Option<Instant>),
}
