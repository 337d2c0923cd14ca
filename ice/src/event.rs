//! Inputs, outputs and events of the [`Agent`](crate::Agent): the contract of architecture §3.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::candidate::{Candidate, CandidateTransport, Component};
use crate::config::{ServerId, ServerTransport};
use crate::description::{LocalDescription, PairsVerdict};
use crate::report::IceReport;
use crate::turn::RelayError;

/// A UDP socket, numbered by the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// A TCP or TLS stream, numbered by the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// The place of a host candidate over TCP, numbered by the agent; all but active ones listen (RFC 6544 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TcpId(pub u32);

/// One remote description: with forking there is one for each early dialog (RFC 3261 §13.2.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub u32);

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer{}", self.0)
    }
}

impl PathClass {
    /// All, from best to worst.
    pub const ALL: [Self; 5] = [Self::Direct, Self::Reflexive, Self::RelayUdp, Self::DirectTcp, Self::RelayTcp];
}

/// What happened outside.
#[derive(Debug, Clone)]
pub enum Input<'a> {
    Datagram {
        socket: SocketId,
        from: SocketAddr,
        payload: &'a [u8],
    },
    /// Answer to [`Output::OpenSocket`]; `local` has the port that was bound.
    SocketOpened {
        id: SocketId,
        local: SocketAddr,
    },
    /// Instead of `SocketOpened`, or later when the socket broke. `cause` is for people.
    SocketFailed {
        id: SocketId,
        cause: String,
    },
    /// Answer to [`Output::OpenStream`], after the TLS handshake if one was asked for.
    StreamOpened {
        id: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// Answer to [`Output::Listen`]; `local` has the port that was bound.
    Listening {
        id: TcpId,
        local: SocketAddr,
    },
    /// Instead of `Listening`, or later when the listener broke. `cause` is for people.
    ListenFailed {
        id: TcpId,
        cause: String,
    },
    /// A stream came in at a listener. Its id is the owner's choice, from 2^31 on: lower ones are the agent's.
    StreamAccepted {
        listener: TcpId,
        id: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
    },
    StreamData {
        id: StreamId,
        bytes: &'a [u8],
    },
    /// The stream could not be opened, or has ended. `cause` is for people.
    StreamClosed {
        id: StreamId,
        cause: String,
    },
    /// A datagram could not be sent, or an ICMP error came back for one: the path to `to` is looked at, now.
    SendFailed {
        socket: SocketId,
        to: SocketAddr,
        cause: String,
    },
    /// The instant of [`Output::Timeout`] has come.
    Timeout,
}

/// What to do, in this order, until `Timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bind a UDP socket; port 0 leaves the port to the system.
    OpenSocket {
        id: SocketId,
        bind: SocketAddr,
    },
    CloseSocket(SocketId),
    /// Listen for plain TCP streams; port 0 leaves the port to the system. Streams may be opened from the same port
    /// (simultaneous open, RFC 6544 §7.1), so it is bound to be shared.
    Listen {
        id: TcpId,
        bind: SocketAddr,
    },
    CloseListener(TcpId),
    /// Connect, from this address if one is given (port 0: any, else a listener's); with a name in `tls`, do the TLS
    /// handshake for that name too.
    OpenStream {
        id: StreamId,
        from: Option<SocketAddr>,
        to: SocketAddr,
        tls: Option<String>,
    },
    CloseStream(StreamId),
    Transmit {
        socket: SocketId,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    StreamSend {
        id: StreamId,
        payload: Vec<u8>,
    },
    /// Media from a peer, already separated from STUN, relay and stream framing, and RTCP from RTP where they share a
    /// port. `peer` is `None` in plain mode.
    Data {
        peer: Option<PeerId>,
        component: Component,
        payload: Vec<u8>,
    },
    Event(Event),
    /// Nothing more now: give [`Input::Timeout`] at this instant; `None` means never.
    Timeout(Option<Instant>),
}

/// Facts, in the past tense, complete in themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The description can be sent. Comes once after each [`Agent::gather`](crate::Agent::gather) and
    /// [`Agent::restart`](crate::Agent::restart).
    Gathered { local: LocalDescription, failures: Vec<ServerFailure>, took: Duration },
    /// What one server turned out to be, once per server: for its owner to remember.
    ServerProbed { server: ServerId, outcome: ServerOutcome, took: Duration },
    /// The first authenticated check of this peer came in: a 183 need not be sent again.
    RemoteReached { peer: PeerId },
    /// A pair has become valid (RFC 8445 §7.2.5.3.2).
    PairValid { peer: PeerId, component: Component, path: Path },
    /// Media of `component` goes out on `path` from now on.
    PathChanged { peer: PeerId, component: Component, path: Path, cause: PathCause },
    /// Every component has its nominated pair, once per ICE session. With `announce` (the controlling side) the caller
    /// sends a re-INVITE with these pairs only and `a=remote-candidates` (RFC 8839 §4.4.1.2).
    Concluded { peer: PeerId, announce: bool, selected: Vec<Path> },
    /// Verdict on pairs that [`Agent::await_pairs`](crate::Agent::await_pairs) called pending.
    RemoteCandidates { peer: PeerId, verdict: PairsVerdict },
    /// No component can have a path any more, or not every one has one in time.
    Failed { peer: PeerId, report: IceReport },
    /// 30 s without an answer on the pair in use, or consent was revoked (RFC 7675 §5.1, §5.2), and no standby pair was
    /// there: nothing is sent any more, an ICE restart is the way back.
    ConsentLost { peer: PeerId, component: Component, path: Path },
    /// A server will not renew a relay, most likely because its credentials have expired (RFC 8656 §8.4). What uses it
    /// goes on until its lifetime is over: with [`Agent::set_servers`](crate::Agent::set_servers) and an ICE restart before
    /// that nothing is lost.
    RelayEnding { server: ServerId, cause: RelayError },
    /// The pair in use does not answer any more and no standby pair does: an ICE restart is the way out. Media goes on
    /// where it went until consent runs out, for the path may come back.
    PathDead { peer: PeerId, component: Component, path: Path, trouble: PathTrouble },
    /// The pair of [`Event::PathDead`] answers again.
    PathAlive { peer: PeerId, component: Component, path: Path },
    /// A candidate came up after [`Event::Gathered`]: the other side does not know it yet.
    LateCandidate { candidate: Candidate },
    /// Media goes through a relay, and a server that never answered does so now: an ICE restart may find a better path.
    BetterPossible,
    /// Media of the peer is back after a break.
    MediaGap { peer: PeerId, component: Component, length: Duration, path: Path },
    /// After [`Agent::close`](crate::Agent::close): allocations are freed, sockets and streams closed.
    Closed,
}

/// A server that gave no candidate, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFailure {
    pub server: ServerId,
    pub name: String,
    pub addr: SocketAddr,
    pub transport: ServerTransport,
    pub cause: ServerCause,
}

impl fmt::Display for ServerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}): {}", self.name, self.addr, self.transport, self.cause)
    }
}

/// Why a server gave no candidate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerCause {
    /// Not within the gathering time; it may still come.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("no interface of the server's address family")]
    NoInterface,
    #[error("socket: {0}")]
    Socket(String),
    #[error("stream: {0}")]
    Stream(String),
    #[error("STUN error {0}")]
    Status(u16),
    #[error("{0}")]
    Relay(RelayError),
}

/// See [`Event::ServerProbed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerOutcome {
    /// It works over this transport: `Tls` instead of the configured `Tcp` where plain TCP was closed or silent.
    Works(ServerTransport),
    Failed(ServerCause),
}

/// Quality of a path: its worse end decides. The order is from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathClass {
    /// Host to host.
    Direct,
    /// Through NATs; peer-reflexive counts as server-reflexive.
    Reflexive,
    RelayUdp,
    /// Host to host over TCP (RFC 6544): it stalls where UDP would lose a packet, but needs no server.
    DirectTcp,
    /// A relay that we reach over TCP or TLS.
    RelayTcp,
}

/// A valid pair as both people and SDP want to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    pub component: Component,
    /// The candidate the other side sees: its address is our `m=`/`c=`/`a=rtcp` of a re-offer.
    pub local: Candidate,
    pub remote: Candidate,
    pub class: PathClass,
    /// How we reach our relay, if the local candidate is relayed.
    pub relay: Option<ServerTransport>,
    pub rtt: Duration,
}

impl fmt::Display for Path {
    /// `host-srflx`, `relay(tls)-host`, `host(tcp)-host`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.local.kind)?;
        if let Some(transport) = self.relay {
            write!(f, "({transport})")?;
        } else if self.local.transport != CandidateTransport::Udp {
            f.write_str("(tcp)")?;
        }
        write!(f, "-{}", self.remote.kind)
    }
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathTrouble {
    /// No media and no answer for a second and a half.
    Silent,
    /// A server sees us at another address than before: our NAT has forgotten us, or has another address.
    Rebound,
}

impl fmt::Display for PathTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "no media and no answer",
            Self::Rebound => "our address on the Internet has changed",
        })
    }
}

/// Why sending moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathCause {
    /// Early media: the first valid pair of the component.
    FirstValid,
    /// The pair in use before died, another valid one took over before nomination.
    Replaced,
    /// Nomination, once per session.
    Promoted,
    /// A standby pair took over by renomination.
    Renominated,
    /// The nominated pair of an ICE restart.
    Restarted,
}
