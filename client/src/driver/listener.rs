//! TCP listeners, with TLS or without, and the choice of the local address towards a server.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::pipe::{PipeEvent, PipeSender};
use super::stream::StreamPipe;

/// First id of streams that came in: cores choose ids without the top bit (`core::Input::StreamAccepted`).
pub const ACCEPTED_BY_DRIVER: u64 = 1 << 63;
/// How long a client may take over its TLS handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Streams that a phone holds for callers at once: they must leave descriptors for the calls themselves.
const CALLERS_MAX: usize = 256;
/// Streams at one TCP candidate: a connection for each fork, and strangers until they are found out.
const PEERS_MAX: usize = 32;
/// Streams that each of the lab's ports holds at once.
pub const CLIENTS_MAX: usize = 4096;
/// Connections waiting to be accepted.
const BACKLOG: i32 = 128;

/// The address to bind so that `toward` is reached: `bind` itself unless it is unspecified.
///
/// # Errors
///
/// There is no route to `toward`.
pub fn address_toward(bind: SocketAddr, toward: Option<SocketAddr>) -> io::Result<SocketAddr> {
    let Some(toward) = toward.filter(|_| bind.ip().is_unspecified()) else {
        return Ok(bind);
    };
    let any: SocketAddr = if toward.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Connecting a UDP socket sends nothing; it only asks the routing table.
    let probe = StdUdpSocket::bind(any)?;
    probe.connect(toward)?;
    Ok(SocketAddr::new(probe.local_addr()?.ip(), bind.port()))
}

/// Listens for TCP streams of a phone; each arrives as `StreamAccepted` with an id drawn from `ids`. From the port of a
/// `shared` one streams can be opened too.
///
/// # Errors
///
/// What the operating system says, for example that the address is in use.
pub fn tcp(
    listener: u64,
    local: SocketAddr,
    shared: bool,
    ids: Arc<AtomicU64>,
    sink: PipeSender,
) -> io::Result<(SocketAddr, AbortHandle)> {
    let (socket, most) = (bind(local)?, if shared { PEERS_MAX } else { CALLERS_MAX });
    if shared {
        // Only now: two listeners must not have one port, while streams of this process may be opened from it.
        socket.set_reuse_port(true)?;
    }
    start(listener, socket, ids, None, most, sink)
}

/// Listens, with a TLS handshake first if `tls` is given. Ids are drawn from `ids`, which listeners may share; more than
/// `most` streams at once are closed as they come.
///
/// # Errors
///
/// What the operating system says, for example that the address is in use.
pub fn listen(
    listener: u64,
    local: SocketAddr,
    ids: Arc<AtomicU64>,
    tls: Option<TlsAcceptor>,
    most: usize,
    sink: PipeSender,
) -> io::Result<(SocketAddr, AbortHandle)> {
    start(listener, bind(local)?, ids, tls, most, sink)
}

fn bind(local: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A lab that is started again at once must get its ports back.
    socket.set_reuse_address(true)?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&local.into())?;
    Ok(socket)
}

fn start(
    listener: u64,
    socket: Socket,
    ids: Arc<AtomicU64>,
    tls: Option<TlsAcceptor>,
    most: usize,
    sink: PipeSender,
) -> io::Result<(SocketAddr, AbortHandle)> {
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from_std(socket.into())?;
    let bound = socket.local_addr()?;
    let task = tokio::spawn(accept(listener, socket, ids, tls, Arc::new(Semaphore::new(most)), sink));
    Ok((bound, task.abort_handle()))
}

async fn accept(
    listener: u64,
    socket: TcpListener,
    ids: Arc<AtomicU64>,
    tls: Option<TlsAcceptor>,
    room: Arc<Semaphore>,
    sink: PipeSender,
) {
    loop {
        let Ok((stream, remote)) = socket.accept().await else {
            // Out of descriptors, most likely: let others close theirs.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let _ = stream.set_nodelay(true);
        let Ok(local) = stream.local_addr() else { continue };
        let id = ids.fetch_add(1, Ordering::Relaxed);
        let (sink, tls) = (sink.clone(), tls.clone());
        let accepted = move |pipe| PipeEvent::StreamAccepted { id, listener, local, remote, pipe };
        tokio::spawn(async move {
            let _place = place;
            match tls {
                None => {
                    let (pipe, carry) = StreamPipe::adopt(id, stream, sink.clone());
                    sink.deliver(accepted(pipe)).await;
                    carry.await;
                }
                Some(acceptor) => {
                    let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream));
                    // A failed handshake is the client's to report.
                    let Ok(Ok(stream)) = handshake.await else { return };
                    let (pipe, carry) = StreamPipe::adopt(id, stream, sink.clone());
                    sink.deliver(accepted(pipe)).await;
                    carry.await;
                }
            }
        });
    }
}

#[cfg(test)]
mod listener_tests {
    use super::super::pipe::channel;
    use super::*;

    #[test]
    fn an_unspecified_address_becomes_the_one_the_server_would_see() {
        let any = "0.0.0.0:5060".parse().unwrap();
        let toward = "127.0.0.1:9".parse().unwrap();
        assert_eq!(address_toward(any, Some(toward)).unwrap(), "127.0.0.1:5060".parse().unwrap());
        assert_eq!(address_toward(any, None).unwrap(), any);
        assert_eq!(address_toward("127.0.0.2:1".parse().unwrap(), Some(toward)).unwrap().port(), 1);
    }

    #[tokio::test]
    async fn an_accepted_stream_comes_with_a_pipe_to_answer_on_and_an_id_of_the_upper_half() {
        let (sink, mut inputs) = channel();
        let ids = Arc::new(AtomicU64::new(ACCEPTED_BY_DRIVER));
        let (local, _task) = tcp(3, "127.0.0.1:0".parse().unwrap(), false, ids, sink).unwrap();
        let mut client = tokio::net::TcpStream::connect(local).await.unwrap();
        let Some(PipeEvent::StreamAccepted { id, listener: 3, pipe, .. }) = inputs.recv().await else {
            panic!("an accepted stream was expected");
        };
        assert!(id >= ACCEPTED_BY_DRIVER);
        assert!(pipe.send(b"hello".to_vec()));
        drop(pipe);
        let mut heard = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut client, &mut heard).await.unwrap();
        assert_eq!(heard, "hello");
    }

    #[tokio::test]
    async fn from_the_port_of_a_shared_listener_streams_are_opened_but_no_second_listener() {
        use super::super::stream::OpenStream;
        use super::super::tls::TlsClient;

        let ids = Arc::new(AtomicU64::new(ACCEPTED_BY_DRIVER));
        let (sink, mut inputs) = channel();
        let any = "127.0.0.1:0".parse().unwrap();
        let (here, _here) = tcp(1, any, true, Arc::clone(&ids), sink.clone()).unwrap();
        let (there, _there) = tcp(2, any, true, Arc::clone(&ids), sink.clone()).unwrap();
        assert!(tcp(3, here, true, Arc::clone(&ids), sink.clone()).is_err(), "one port, one listener");
        let request = OpenStream { id: 7, from: Some(here), to: there, tls_names: None };
        let _pipe = StreamPipe::open(request, Arc::new(TlsClient::new(Vec::new())), sink);
        let (mut opened, mut accepted) = (None, None);
        while opened.is_none() || accepted.is_none() {
            match inputs.recv().await.unwrap() {
                PipeEvent::StreamOpened { id: 7, local, .. } => opened = Some(local),
                PipeEvent::StreamAccepted { listener: 2, remote, .. } => accepted = Some(remote),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((opened, accepted), (Some(here), Some(here)), "RFC 6544 §7.1");
    }
}
