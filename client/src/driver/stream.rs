//! TCP and TLS streams as pipes: one task connects, reads and writes; the loop sees plain bytes.
//!
//! ```text
//!   Open ──▶ connecting ──▶ (TLS handshake) ──▶ StreamOpened ──▶ StreamData … ──▶ StreamClosed
//!                └───────────────┴── StreamClosed { Refused | Timeout | Certificate | … }
//! ```
//!
//! Writes never make the loop wait. Media on a stream that TCP holds back is worthless after 100 ms: it is dropped,
//! never queued behind (architecture §4). Signalling is never dropped; a peer that stops reading is disconnected.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::clock;
use super::pipe::{PipeEvent, PipeSender, StreamFailure};
use super::tls::TlsClient;

/// How long a connect with its TLS handshake may take. Cores that are in a greater hurry close the stream themselves.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Age at which media is no longer worth writing.
const MEDIA_AGE_MAX: Duration = Duration::from_millis(100);
/// How long a stream that the loop closed may take to write what is still queued.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// How long a stream that came in may stay without a byte: clients speak first, and each holds a descriptor.
const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(30);
/// Writes waiting for one stream: 2.5 s of a call's packets both ways, or more signalling than a call ever makes.
const WRITES_MAX: usize = 256;
/// Bytes asked for in one read.
const READ_BYTES: usize = 16 * 1024;

/// What the loop wants opened.
#[derive(Debug, Clone)]
pub struct OpenStream {
    /// Chosen by the loop; all events carry it.
    pub id: u64,
    /// Local address to connect from, if it matters; a port other than 0 is a shared listener's.
    pub from: Option<SocketAddr>,
    /// Where to.
    pub to: SocketAddr,
    /// With TLS: the name to send as SNI, and the names of which the certificate must carry one.
    pub tls_names: Option<(String, Vec<String>)>,
}

/// A stream's writing end. Dropping it flushes and closes the stream.
#[derive(Debug)]
pub struct StreamPipe {
    writes: mpsc::Sender<Write>,
    connecting: Option<AbortHandle>,
}

#[derive(Debug)]
struct Write {
    at: Instant,
    bytes: Vec<u8>,
}

impl StreamPipe {
    /// Starts connecting; the outcome arrives as `StreamOpened` or `StreamClosed`.
    pub fn open(request: OpenStream, tls: Arc<TlsClient>, sink: PipeSender) -> Self {
        let (writes, queue) = mpsc::channel(WRITES_MAX);
        let task = tokio::spawn(run(request, tls, sink, queue));
        Self { writes, connecting: Some(task.abort_handle()) }
    }

    /// Takes over a stream that is already open (a listener's). The second part must be run for bytes to move; it
    /// reports under `id` and ends with `StreamClosed`.
    pub fn adopt<S>(id: u64, stream: S, sink: PipeSender) -> (Self, impl Future<Output = ()> + Send)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (writes, queue) = mpsc::channel(WRITES_MAX);
        let run = async move {
            let cause = carry(id, stream, &sink, queue, Some(FIRST_BYTE_LIMIT)).await;
            sink.deliver(PipeEvent::StreamClosed { id, cause }).await;
        };
        (Self { writes, connecting: None }, run)
    }

    /// Queues bytes for writing, in order. False when the peer has not read for so long that the queue is full:
    /// media is then simply lost; whoever sent signalling closes the stream.
    pub fn send(&self, bytes: Vec<u8>) -> bool {
        let write = Write { at: clock::now(), bytes };
        match self.writes.try_send(write) {
            Err(mpsc::error::TrySendError::Full(write)) => is_media(&write.bytes),
            // After its end the stream's StreamClosed is on the way.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
        }
    }

    /// Not open yet: dropping it now ends it without a `StreamClosed`.
    pub fn is_connecting(&self) -> bool {
        self.connecting.is_some()
    }

    /// It is open now: dropping it flushes and closes.
    pub fn connected(&mut self) {
        self.connecting = None;
    }
}

impl Drop for StreamPipe {
    fn drop(&mut self) {
        if let Some(task) = self.connecting.take() {
            task.abort();
        }
    }
}

/// True for TURN ChannelData (RFC 8656 §12.4), Send indications (§10), and framed RTP and RTCP (RFC 4571 §2): the payloads
/// that age. A SIP message may begin with a letter in the same range of bytes, but not with a length that fits.
fn is_media(bytes: &[u8]) -> bool {
    if let Some(([high, low], [128..=191, packet @ ..])) = bytes.split_first_chunk::<2>() {
        return usize::from(u16::from_be_bytes([*high, *low])) == packet.len() + 1;
    }
    let Some(([kind, low, high, last], rest)) = bytes.split_first_chunk::<4>() else {
        return false;
    };
    let length = usize::from(u16::from_be_bytes([*high, *last]));
    match kind {
        0x40..=0x4f => (length..length + 4).contains(&rest.len()),
        0x00 => *low == 0x16 && length + 16 == rest.len(),
        _ => false,
    }
}

async fn run(request: OpenStream, tls: Arc<TlsClient>, sink: PipeSender, queue: mpsc::Receiver<Write>) {
    let id = request.id;
    let opened = async {
        let stream = connect(&request).await?;
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let opened = PipeEvent::StreamOpened { id, local, remote };
        Ok::<_, io::Error>((stream, opened))
    };
    let deadline = tokio::time::Instant::now() + CONNECT_LIMIT;
    let (stream, opened) = match tokio::time::timeout_at(deadline, opened).await {
        Ok(Ok(pair)) => pair,
        Ok(Err(error)) => return closed(id, StreamFailure::from_io(&error), &sink).await,
        Err(_) => return closed(id, timed_out(), &sink).await,
    };
    let cause = match &request.tls_names {
        None => {
            sink.deliver(opened).await;
            carry(id, stream, &sink, queue, None).await
        }
        Some((sni, names)) => match tokio::time::timeout_at(deadline, tls.handshake(sni, names, stream)).await {
            Ok(Ok(stream)) => {
                sink.deliver(opened).await;
                carry(id, stream, &sink, queue, None).await
            }
            Ok(Err(cause)) => cause,
            Err(_) => timed_out(),
        },
    };
    closed(id, cause, &sink).await;
}

fn timed_out() -> StreamFailure {
    StreamFailure::Timeout(CONNECT_LIMIT.as_secs())
}

async fn closed(id: u64, cause: StreamFailure, sink: &PipeSender) {
    sink.deliver(PipeEvent::StreamClosed { id, cause }).await;
}

async fn connect(request: &OpenStream) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(request.to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Packets of a call are small and must not wait for each other.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_mins(1)))?;
    if let Some(from) = request.from {
        if from.port() != 0 {
            // A listener has this port (RFC 6544 §7.1).
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
        }
        socket.bind(&from.into())?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(request.to).await
}

/// Moves bytes both ways until one side ends; says why.
///
/// `first`: how long the other side may take to say anything at all.
async fn carry<S>(
    id: u64,
    stream: S,
    sink: &PipeSender,
    queue: mpsc::Receiver<Write>,
    first: Option<Duration>,
) -> StreamFailure
where
    S: AsyncRead + AsyncWrite,
{
    let (reader, writer) = tokio::io::split(stream);
    tokio::pin!(reader, writer);
    tokio::select! {
        cause = read(id, reader, sink, first) => cause,
        cause = write(writer, queue) => cause,
    }
}

async fn read<R>(id: u64, mut reader: R, sink: &PipeSender, mut first: Option<Duration>) -> StreamFailure
where
    R: AsyncRead + Unpin,
{
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = reader.read(&mut buffer);
        let read = match first.take() {
            Some(limit) => {
                tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
            None => read.await,
        };
        match read {
            Ok(0) => return StreamFailure::Closed,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if !sink.deliver(PipeEvent::StreamData { id, bytes }).await {
                    return StreamFailure::Closed;
                }
            }
            Err(error) => return StreamFailure::from_io(&error),
        }
    }
}

async fn write<W>(mut writer: W, mut queue: mpsc::Receiver<Write>) -> StreamFailure
where
    W: AsyncWrite + Unpin,
{
    while let Some(write) = queue.recv().await {
        let age = clock::now().saturating_duration_since(write.at);
        if age > MEDIA_AGE_MAX && is_media(&write.bytes) {
            continue;
        }
        if queue.is_closed() {
            // The loop let go of the stream: what is queued still leaves (a BYE, a deallocation), but not for ever.
            match tokio::time::timeout(FLUSH_LIMIT, writer.write_all(&write.bytes)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => return StreamFailure::from_io(&error),
                Err(_) => return StreamFailure::Stuck,
            }
        }
        if let Err(error) = writer.write_all(&write.bytes).await {
            return StreamFailure::from_io(&error);
        }
        if let Err(error) = writer.flush().await {
            return StreamFailure::from_io(&error);
        }
    }
    let _ = tokio::time::timeout(FLUSH_LIMIT, writer.shutdown()).await;
    StreamFailure::Closed
}

#[cfg(test)]
mod stream_tests {
    use tokio::net::TcpListener;

    use super::super::pipe::channel;
    use super::*;

    fn open(id: u64, to: SocketAddr, sink: &PipeSender) -> StreamPipe {
        let request = OpenStream { id, from: None, to, tls_names: None };
        StreamPipe::open(request, Arc::new(TlsClient::new(Vec::new())), sink.clone())
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_dropping_the_pipe_flushes_before_closing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sink, mut inputs) = channel();
        let pipe = open(5, listener.local_addr().unwrap(), &sink);
        let (mut server, _) = listener.accept().await.unwrap();
        let opened = inputs.recv().await.unwrap();
        assert!(
            matches!(opened, PipeEvent::StreamOpened { id: 5, remote, .. } if remote == listener.local_addr().unwrap())
        );
        server.write_all(b"pong").await.unwrap();
        let data = inputs.recv().await.unwrap();
        assert!(matches!(data, PipeEvent::StreamData { id: 5, bytes } if bytes == b"pong"));
        let mut pipe = pipe;
        pipe.connected();
        assert!(pipe.send(b"BYE".to_vec()));
        drop(pipe);
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"BYE");
    }

    #[tokio::test]
    async fn a_closed_port_is_reported_as_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        drop(listener);
        let (sink, mut inputs) = channel();
        let _pipe = open(1, to, &sink);
        let event = inputs.recv().await.unwrap();
        assert!(matches!(event, PipeEvent::StreamClosed { id: 1, cause: StreamFailure::Refused }));
    }

    #[test]
    fn payloads_of_relays_and_framed_rtp_count_as_media() {
        let cases: [(&str, &[u8], bool); 8] = [
            ("framed RTP", &[0, 5, 0x80, 111, 0, 1, 2], true),
            ("a framed check", &[0, 4, 0, 1, 0, 0], false),
            ("channel data", &[0x40, 1, 0, 4, 1, 2, 3, 4], true),
            ("padded channel data", &[0x40, 1, 0, 3, 1, 2, 3, 0], true),
            ("an INVITE", b"INVITE sip:bob@example.test SIP/2.0\r\n", false),
            ("a keepalive", b"\r\n\r\n", false),
            ("a Refresh request", &[0, 4, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false),
            ("a Send indication", &[0, 0x16, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], true),
        ];
        for (name, bytes, media) in cases {
            assert_eq!(is_media(bytes), media, "case: {name}");
        }
    }

    #[tokio::test]
    async fn media_that_waited_longer_than_100_ms_is_not_written() {
        let (sender, queue) = mpsc::channel(4);
        let old = clock::now().checked_sub(Duration::from_millis(150)).unwrap();
        let media = vec![0x40, 1, 0, 4, 1, 2, 3, 4];
        sender.try_send(Write { at: old, bytes: media.clone() }).unwrap();
        sender.try_send(Write { at: old, bytes: b"BYE".to_vec() }).unwrap();
        drop(sender);
        let (near, mut far) = tokio::io::duplex(1024);
        assert_eq!(write(near, queue).await, StreamFailure::Closed);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"BYE");
    }
}
