//! What pipes bring to the loop that owns them: bytes with the id of their socket or stream, and nothing decided.
//!
//! A pipe is a task that reads one UDP socket or one stream. Datagrams are dropped when the loop cannot keep up (as a
//! kernel buffer does) and counted; stream pipes wait instead, so that TCP pushes back on the sender.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::CertificateError;
use tokio::sync::mpsc;

/// Inputs waiting for one loop. At 100 packets/s and call, 4,096 are 400 ms of 100 calls: more would only be late.
pub const INPUTS_MAX: usize = 4096;

/// What a pipe reports. Ids are chosen by whoever asked for the socket or stream.
#[derive(Debug)]
pub enum PipeEvent {
    /// A datagram came in on a socket.
    Datagram {
        /// The socket's id.
        id: u64,
        /// Its sender.
        from: SocketAddr,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// A UDP socket broke and will bring nothing more.
    SocketFailed {
        /// The socket's id.
        id: u64,
        /// The operating system's words.
        cause: String,
    },
    /// A stream is connected, its TLS handshake done and its peer's certificate accepted.
    StreamOpened {
        /// The stream's id.
        id: u64,
        /// Our address on it.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// A listener accepted a stream; its id was drawn by the listener.
    StreamAccepted {
        /// The new stream's id.
        id: u64,
        /// The listener that accepted it.
        listener: u64,
        /// Our address on it.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
        /// The way to write to it.
        pipe: super::stream::StreamPipe,
    },
    /// Bytes from a stream.
    StreamData {
        /// The stream's id.
        id: u64,
        /// The bytes, in order.
        bytes: Vec<u8>,
    },
    /// A stream ended or could not be opened. Nothing follows with this id.
    StreamClosed {
        /// The stream's id.
        id: u64,
        /// Why.
        cause: StreamFailure,
    },
    /// A DNS question is answered.
    Resolved {
        /// The question's id.
        id: u64,
        /// The records, or why there are none.
        answer: super::dns::Answer,
    },
    /// The usable addresses of this host changed.
    Interfaces(Vec<IpAddr>),
    /// The host has slept.
    Woken,
}

/// Why a stream ended or was never opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamFailure {
    /// The peer closed it in order.
    #[error("closed by the other side")]
    Closed,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("no answer within {0} s")]
    Timeout(u64),
    /// There is no route there.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The peer, or something between, tore it down.
    #[error("connection reset")]
    Reset,
    /// The certificate was not accepted.
    #[error("certificate not accepted: {0}")]
    Certificate(String),
    /// The TLS handshake failed otherwise.
    #[error("TLS: {0}")]
    Tls(String),
    /// Anything else that the operating system says.
    #[error("{0}")]
    Io(String),
    /// The peer does not read what is sent to it.
    #[error("the other side stopped reading")]
    Stuck,
}

impl StreamFailure {
    /// The cause hidden in an I/O error, TLS errors included (they travel inside `io::Error`).
    pub fn from_io(error: &io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::from_tls(tls);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout(super::stream::CONNECT_LIMIT.as_secs()),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
                Self::Unreachable(error.to_string())
            }
            _ => Self::Io(error.to_string()),
        }
    }

    fn from_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(cause) => Self::Certificate(in_words(cause)),
            rustls::Error::NoCertificatesPresented => Self::Certificate("the server presented none".to_owned()),
            other => Self::Tls(other.to_string()),
        }
    }
}

/// rustls prints the names of its variants; people read sentences.
fn in_words(cause: &CertificateError) -> String {
    match cause {
        CertificateError::UnknownIssuer => "it is signed by nobody who is trusted here".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet (is the clock right?)".to_owned()
        }
        CertificateError::Revoked => "it was revoked".to_owned(),
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        CertificateError::BadEncoding => "it cannot be read".to_owned(),
        CertificateError::NotValidForName => "it is for another name".to_owned(),
        other => other.to_string(),
    }
}

/// The sending end of a loop's inputs, shared by all its pipes.
#[derive(Debug, Clone)]
pub struct PipeSender {
    inputs: mpsc::Sender<PipeEvent>,
    dropped: Arc<AtomicU64>,
}

/// Makes the channel that joins pipes to a loop.
pub fn channel() -> (PipeSender, mpsc::Receiver<PipeEvent>) {
    let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
    let sender = PipeSender { inputs, dropped: Arc::default() };
    (sender, receiver)
}

impl PipeSender {
    /// Hands over something that may be lost: dropped and counted when the loop is behind.
    pub fn offer(&self, event: PipeEvent) {
        if self.inputs.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands over something that must arrive; waits for room. False once the loop is gone.
    pub async fn deliver(&self, event: PipeEvent) -> bool {
        self.inputs.send(event).await.is_ok()
    }

    /// Datagrams dropped so far because the loop was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod pipe_tests {
    use super::*;

    #[test]
    fn datagrams_beyond_the_bound_are_dropped_and_counted() {
        let (sender, receiver) = channel();
        for _ in 0..INPUTS_MAX + 7 {
            sender.offer(PipeEvent::Interfaces(Vec::new()));
        }
        assert_eq!((sender.dropped(), receiver.len()), (7, INPUTS_MAX));
    }

    #[test]
    fn every_stream_failure_reads_as_one_clause() {
        let text: Vec<String> = [
            StreamFailure::Closed,
            StreamFailure::Refused,
            StreamFailure::Timeout(10),
            StreamFailure::Unreachable("No route to host (os error 113)".into()),
            StreamFailure::Reset,
            StreamFailure::Certificate("unknown issuer".into()),
            StreamFailure::Tls("received fatal alert: HandshakeFailure".into()),
            StreamFailure::Io("Permission denied (os error 13)".into()),
            StreamFailure::Stuck,
        ]
        .iter()
        .map(ToString::to_string)
        .collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        closed by the other side
        connection refused
        no answer within 10 s
        unreachable: No route to host (os error 113)
        connection reset
        certificate not accepted: unknown issuer
        TLS: received fatal alert: HandshakeFailure
        Permission denied (os error 13)
        the other side stopped reading
        ");
    }
}
