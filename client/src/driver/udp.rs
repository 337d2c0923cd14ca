//! One UDP socket as a pipe: a task that reads, and a handle that sends without ever waiting.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::pipe::{PipeEvent, PipeSender};

/// Kernel buffers asked for, both ways: 1 s of 20 calls. The kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 512 * 1024;
/// The largest UDP payload there is: SIP over UDP may come in fragments (RFC 3261 §18.1.1).
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Datagrams taken in one go before other tasks get a turn.
const BURST_MAX: usize = 64;

thread_local! {
    /// One buffer per thread, not per socket: a bot with hundreds of calls has hundreds of sockets.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM_BYTES_MAX]);
}

/// An open UDP socket whose datagrams go to a loop. Closed when dropped.
#[derive(Debug)]
pub struct UdpPipe {
    socket: Arc<AsyncFd<UdpSocket>>,
    local: SocketAddr,
    reader: AbortHandle,
}

impl UdpPipe {
    /// Binds `bind` (port 0: any free one) and starts reading; datagrams arrive as `id`.
    ///
    /// # Errors
    ///
    /// What the operating system says, for example that the address is in use.
    pub fn open(id: u64, bind: SocketAddr, sink: PipeSender) -> io::Result<Self> {
        let socket = Arc::new(watched(bound(bind)?.into())?);
        let local = socket.get_ref().local_addr()?;
        let reader = tokio::spawn(read(id, Arc::clone(&socket), sink)).abort_handle();
        Ok(Self { socket, local, reader })
    }

    /// The address it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends now or not at all: a full kernel buffer loses the datagram, as a network would.
    ///
    /// # Errors
    ///
    /// What the operating system says; the caller counts it.
    pub fn try_send(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send_to(payload, to).map(|_| ())
    }
}

impl Drop for UdpPipe {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn bound(bind: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if bind.is_ipv6() {
        // Dual-stack sockets would show IPv4 peers as mapped IPv6 addresses, which ICE must never see.
        socket.set_only_v6(true)?;
    }
    // Best effort: the kernel caps both at net.core.{r,w}mem_max.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&bind.into())?;
    Ok(socket)
}

/// Readable is all we wait for: a socket watched for writing too wakes its process after each datagram that has left.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe code; a std socket has its one descriptor as long as it lives"
)]
fn watched(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

async fn read(id: u64, socket: Arc<AsyncFd<UdpSocket>>, sink: PipeSender) {
    loop {
        let mut ready = match socket.readable().await {
            Ok(ready) => ready,
            Err(error) => {
                let cause = error.to_string();
                sink.deliver(PipeEvent::SocketFailed { id, cause }).await;
                return;
            }
        };
        if read_burst(id, socket.get_ref(), &sink) {
            ready.clear_ready();
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Takes what is there; says whether that was all.
fn read_burst(id: u64, socket: &UdpSocket, sink: &PipeSender) -> bool {
    for _ in 0..BURST_MAX {
        match receive(socket) {
            Ok((payload, from)) => sink.offer(PipeEvent::Datagram { id, from, payload }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            // An ICMP error of an earlier datagram: the next read is about the next datagram.
            Err(_) => {}
        }
    }
    false
}

fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    BUFFER.with_borrow_mut(|buffer| {
        let (length, from) = socket.recv_from(buffer)?;
        Ok((buffer.get(..length).unwrap_or_default().to_vec(), from))
    })
}

#[cfg(test)]
mod udp_tests {
    use super::super::pipe::channel;
    use super::*;

    #[tokio::test]
    async fn a_datagram_arrives_whole_with_its_sender() {
        let (sink, mut inputs) = channel();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let left = UdpPipe::open(1, any, sink.clone()).unwrap();
        let right = UdpPipe::open(2, any, sink).unwrap();
        let sent = vec![7u8; 9000];
        left.try_send(right.local(), &sent).unwrap();
        let Some(PipeEvent::Datagram { id, from, payload }) = inputs.recv().await else {
            panic!("a datagram was expected");
        };
        assert_eq!((id, from, payload), (2, left.local(), sent));
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error_with_the_systems_words() {
        let (sink, _inputs) = channel();
        let first = UdpPipe::open(1, "127.0.0.1:0".parse().unwrap(), sink.clone()).unwrap();
        let error = UdpPipe::open(2, first.local(), sink).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
