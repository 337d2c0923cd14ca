//! The lab's servers on real sockets: one task, the same pipes as the phone's loop, no decisions.
//!
//! ```text
//!   UDP sockets ─┐                        ┌─▶ datagrams, streams, relay sockets
//!   listeners   ─┼─▶ Server::handle ──▶ drain
//!   timer       ─┘                        └─▶ next deadline
//!   control     ──▶ list, fault, stop
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, trace};

use crate::driver::pipe::{self, PipeEvent, PipeSender};
use crate::driver::stream::StreamPipe;
use crate::driver::udp::UdpPipe;
use crate::driver::{clock, listener};

/// Outputs carried out before other tasks get a turn.
const BUDGET: usize = 512;
/// Questions waiting to be answered: a handful of test scripts ask one at a time.
const QUESTIONS_MAX: usize = 64;

/// What happens to a server. Socket numbers are those its [`Listening`] was given.
#[derive(Debug)]
pub enum ServerInput<'a> {
    /// One of its listening sockets is bound; comes before all else.
    Listening {
        /// Which socket.
        socket: u32,
        /// Its address.
        local: SocketAddr,
    },
    /// A datagram on one of its listening sockets.
    Datagram {
        /// Which socket.
        socket: u32,
        /// From whom.
        from: SocketAddr,
        /// What.
        bytes: &'a [u8],
    },
    /// A stream was accepted.
    StreamOpened {
        /// Its number, for all that follows.
        stream: u64,
        /// Our address on it.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
        /// It was unwrapped from TLS.
        tls: bool,
    },
    /// Bytes on a stream.
    Stream {
        /// Which stream.
        stream: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// A stream ended.
    StreamClosed {
        /// Which stream.
        stream: u64,
    },
    /// A socket it asked for is open.
    Opened {
        /// The server's number for it.
        socket: u64,
        /// Its address.
        local: SocketAddr,
    },
    /// A socket it asked for could not be opened.
    OpenFailed {
        /// The server's number for it.
        socket: u64,
    },
    /// A datagram on a socket it asked for.
    Extra {
        /// The server's number for it.
        socket: u64,
        /// From whom.
        from: SocketAddr,
        /// What.
        bytes: &'a [u8],
    },
    /// Its deadline has come.
    Timeout,
}

/// What a server wants.
#[derive(Debug)]
pub enum ServerOutput {
    /// Send from a listening socket.
    Transmit {
        /// Which socket.
        socket: u32,
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send on a stream.
    StreamSend {
        /// Which stream.
        stream: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close a stream.
    CloseStream(u64),
    /// Open a further UDP socket (a relayed address).
    Open {
        /// The server's number for it.
        socket: u64,
        /// Where.
        bind: IpAddr,
    },
    /// Close a further socket.
    Close(u64),
    /// Send from a further socket.
    Extra {
        /// The server's number for it.
        socket: u64,
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Nothing more until this instant.
    Timeout(Option<Instant>),
}

/// One server of the lab, as the driver and the control socket see it.
pub trait Server: Send {
    /// Takes one input.
    fn handle(&mut self, now: Instant, input: ServerInput<'_>);
    /// Drained until it answers `Timeout`.
    fn poll(&mut self) -> ServerOutput;
    /// What it holds, for `list` and `state.json`: lists of the same key are joined.
    fn holdings(&self) -> Vec<(&'static str, Value)>;
    /// What changes all the time: in `list`, not in `state.json`.
    fn details(&self) -> Vec<(&'static str, Value)>;
    /// Sets a fault by its words; `None` if they are not its own.
    fn fault(&mut self, words: &[&str]) -> Option<Result<(), String>>;
    /// The words of its faults, for `help`.
    fn faults(&self) -> &'static [&'static str];
}

/// Where one server listens.
#[derive(Debug, Clone, Default)]
pub struct Listening {
    /// UDP sockets, numbered from 0.
    pub udp: Vec<SocketAddr>,
    /// TCP listeners.
    pub tcp: Vec<SocketAddr>,
    /// TLS listeners.
    pub tls: Vec<SocketAddr>,
}

/// Sockets that are bound but not yet served: addresses are known before servers are made from them.
#[derive(Debug, Default)]
pub struct Bound {
    sockets: BTreeMap<u64, (Place, UdpPipe)>,
    listeners: BTreeMap<u64, Place>,
    tasks: Vec<AbortHandle>,
    next: u64,
}

/// Which server a socket belongs to, and its number there.
#[derive(Debug, Clone, Copy)]
enum Place {
    Listening { server: usize, socket: u32 },
    Further { server: usize, socket: u64 },
    Stream { server: usize, tls: bool },
}

impl Place {
    fn server(self) -> usize {
        match self {
            Self::Listening { server, .. } | Self::Further { server, .. } | Self::Stream { server, .. } => server,
        }
    }
}

/// The sockets' side of the lab.
pub struct Sockets {
    bound: Bound,
    streams: BTreeMap<u64, (usize, StreamPipe)>,
    further: BTreeMap<(usize, u64), u64>,
    ids: Arc<AtomicU64>,
    sink: PipeSender,
    pipes: mpsc::Receiver<PipeEvent>,
}

impl Sockets {
    /// Nothing is bound yet.
    pub fn new() -> Self {
        let (sink, pipes) = pipe::channel();
        Self {
            bound: Bound::default(),
            streams: BTreeMap::new(),
            further: BTreeMap::new(),
            ids: Arc::new(AtomicU64::new(listener::ACCEPTED_BY_DRIVER)),
            sink,
            pipes,
        }
    }

    /// Binds everything that `server` listens on; ports 0 become real ones in the answer.
    ///
    /// # Errors
    ///
    /// A sentence that names the address.
    pub fn bind(&mut self, server: usize, wanted: &Listening, tls: &TlsAcceptor) -> Result<Listening, String> {
        let mut bound = Listening::default();
        for (socket, address) in (0u32..).zip(&wanted.udp) {
            let id = self.number();
            let pipe = UdpPipe::open(id, *address, self.sink.clone()).map_err(|error| busy("UDP", *address, &error))?;
            bound.udp.push(pipe.local());
            self.bound.sockets.insert(id, (Place::Listening { server, socket }, pipe));
        }
        for address in &wanted.tcp {
            bound.tcp.push(self.listen(server, *address, None)?);
        }
        for address in &wanted.tls {
            bound.tls.push(self.listen(server, *address, Some(tls.clone()))?);
        }
        Ok(bound)
    }

    fn number(&mut self) -> u64 {
        self.bound.next += 1;
        self.bound.next
    }

    fn listen(&mut self, server: usize, address: SocketAddr, tls: Option<TlsAcceptor>) -> Result<SocketAddr, String> {
        let id = self.number();
        let place = Place::Stream { server, tls: tls.is_some() };
        let (local, task) =
            listener::listen(id, address, Arc::clone(&self.ids), tls, listener::CLIENTS_MAX, self.sink.clone())
                .map_err(|error| busy("TCP", address, &error))?;
        self.bound.listeners.insert(id, place);
        self.bound.tasks.push(task);
        Ok(local)
    }
}

impl Default for Sockets {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for task in &self.bound.tasks {
            task.abort();
        }
    }
}

fn busy(what: &str, address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root, leave --well-known-ports away",
        io::ErrorKind::AddrInUse => "; another program has it",
        _ => "",
    };
    format!("cannot listen on {what} {address}: {error}{advice}")
}

/// A question to the running lab.
#[derive(Debug)]
pub enum Question {
    /// What is registered, allocated, …
    List(oneshot::Sender<Value>),
    /// Set a fault.
    Fault(String, oneshot::Sender<Result<(), String>>),
    /// Name the faults.
    Help(oneshot::Sender<Vec<&'static str>>),
}

/// The way to ask a running lab.
pub type Questions = mpsc::Sender<Question>;

/// Serves until the questions' senders are gone; `changed` gets the holdings whenever they differ.
pub fn serve(
    mut sockets: Sockets,
    mut servers: Vec<Box<dyn Server>>,
    changed: mpsc::UnboundedSender<Value>,
) -> (Questions, tokio::task::JoinHandle<()>) {
    let (sender, mut questions) = mpsc::channel(QUESTIONS_MAX);
    let task = tokio::spawn(async move {
        let mut told = Value::Null;
        sockets.announce(&mut servers);
        loop {
            let Drained::Quiet(deadline) = sockets.drain(&mut servers) else {
                tokio::task::yield_now().await;
                continue;
            };
            let held = holdings(&servers);
            if held != told {
                told = held.clone();
                let _ = changed.send(held);
            }
            let wake_at = deadline.unwrap_or_else(|| clock::now() + Duration::from_hours(1));
            tokio::select! {
                event = sockets.pipes.recv() => if let Some(event) = event { sockets.input(&mut servers, event) },
                question = questions.recv() => match question {
                    Some(question) => answer(&mut servers, question),
                    None => return,
                },
                () = tokio::time::sleep_until(wake_at.into()) => {
                    let now = clock::now();
                    for server in &mut servers {
                        server.handle(now, ServerInput::Timeout);
                    }
                }
            }
        }
    });
    (sender, task)
}

fn holdings(servers: &[Box<dyn Server>]) -> Value {
    join(servers.iter().flat_map(|server| server.holdings()))
}

fn everything(servers: &[Box<dyn Server>]) -> Value {
    join(servers.iter().flat_map(|server| server.holdings().into_iter().chain(server.details())))
}

/// Two relays hold one list of allocations.
fn join(pairs: impl Iterator<Item = (&'static str, Value)>) -> Value {
    let mut joined = serde_json::Map::new();
    for (key, value) in pairs {
        match (joined.get_mut(key), value) {
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
            (Some(_) | None, value) => {
                joined.insert(key.to_owned(), value);
            }
        }
    }
    Value::Object(joined)
}

fn answer(servers: &mut [Box<dyn Server>], question: Question) {
    match question {
        Question::List(reply) => {
            let _ = reply.send(everything(servers));
        }
        Question::Help(reply) => {
            let _ = reply.send(servers.iter().flat_map(|server| server.faults().iter().copied()).collect());
        }
        Question::Fault(text, reply) => {
            let words: Vec<&str> = text.split_whitespace().collect();
            // "relay mute" is for every relay.
            let outcomes: Vec<_> = servers.iter_mut().filter_map(|server| server.fault(&words)).collect();
            let unknown = || Err(format!("there is no fault {text:?}; `help` names them"));
            let first_error = outcomes.iter().find(|outcome| outcome.is_err()).cloned();
            let _ = reply.send(first_error.unwrap_or_else(|| if outcomes.is_empty() { unknown() } else { Ok(()) }));
        }
    }
}

/// How far draining got.
enum Drained {
    /// One turn was not enough.
    More,
    /// Nothing to do before this instant.
    Quiet(Option<Instant>),
}

impl Sockets {
    /// Tells servers their listening sockets.
    fn announce(&self, servers: &mut [Box<dyn Server>]) {
        let now = clock::now();
        for (place, pipe) in self.bound.sockets.values() {
            if let Place::Listening { server, socket } = *place {
                hand(servers, server, now, ServerInput::Listening { socket, local: pipe.local() });
            }
        }
    }

    fn input(&mut self, servers: &mut [Box<dyn Server>], event: PipeEvent) {
        let now = clock::now();
        match event {
            PipeEvent::Datagram { id, from, payload } => {
                let Some((place, _)) = self.bound.sockets.get(&id) else { return };
                let input = match *place {
                    Place::Listening { socket, .. } => ServerInput::Datagram { socket, from, bytes: &payload },
                    Place::Further { socket, .. } => ServerInput::Extra { socket, from, bytes: &payload },
                    Place::Stream { .. } => return,
                };
                hand(servers, place.server(), now, input);
            }
            PipeEvent::StreamAccepted { id, listener, local, remote, pipe } => {
                let Some(Place::Stream { server, tls }) = self.bound.listeners.get(&listener).copied() else { return };
                self.streams.insert(id, (server, pipe));
                hand(servers, server, now, ServerInput::StreamOpened { stream: id, local, remote, tls });
            }
            PipeEvent::StreamData { id, bytes } => {
                if let Some((server, _)) = self.streams.get(&id) {
                    hand(servers, *server, now, ServerInput::Stream { stream: id, bytes: &bytes });
                }
            }
            PipeEvent::StreamClosed { id, cause } => {
                if let Some((server, _)) = self.streams.remove(&id) {
                    trace!(id, %cause, "stream ended");
                    hand(servers, server, now, ServerInput::StreamClosed { stream: id });
                }
            }
            // The lab connects to nobody, asks no DNS and does not move.
            PipeEvent::SocketFailed { .. }
            | PipeEvent::StreamOpened { .. }
            | PipeEvent::Resolved { .. }
            | PipeEvent::Interfaces(_)
            | PipeEvent::Woken => {}
        }
    }

    /// Carries out what the servers want.
    fn drain(&mut self, servers: &mut [Box<dyn Server>]) -> Drained {
        let mut deadline: Option<Instant> = None;
        for index in 0..servers.len() {
            let mut drained = false;
            for _ in 0..BUDGET {
                let Some(server) = servers.get_mut(index) else { break };
                match server.poll() {
                    ServerOutput::Timeout(at) => {
                        deadline = [deadline, at].into_iter().flatten().min();
                        drained = true;
                        break;
                    }
                    output => {
                        if let Some(input) = self.carry_out(index, output) {
                            server.handle(clock::now(), input);
                        }
                    }
                }
            }
            if !drained {
                return Drained::More;
            }
        }
        Drained::Quiet(deadline)
    }

    fn carry_out(&mut self, server: usize, output: ServerOutput) -> Option<ServerInput<'static>> {
        match output {
            ServerOutput::Transmit { socket, to, bytes } => {
                let pipe = self.bound.sockets.values().find(|(place, _)| {
                    matches!(place, Place::Listening { server: s, socket: n } if *s == server && *n == socket)
                });
                if let Some((_, pipe)) = pipe {
                    let _ = pipe.try_send(to, &bytes);
                }
            }
            ServerOutput::StreamSend { stream, bytes } => {
                let stuck = self.streams.get(&stream).is_some_and(|(_, pipe)| !pipe.send(bytes));
                if stuck {
                    self.streams.remove(&stream);
                    return Some(ServerInput::StreamClosed { stream });
                }
            }
            ServerOutput::CloseStream(stream) => {
                self.streams.remove(&stream);
            }
            ServerOutput::Open { socket, bind } => return Some(self.open(server, socket, bind)),
            ServerOutput::Close(socket) => {
                if let Some(id) = self.further.remove(&(server, socket)) {
                    self.bound.sockets.remove(&id);
                }
            }
            ServerOutput::Extra { socket, to, bytes } => {
                let id = self.further.get(&(server, socket));
                if let Some((_, pipe)) = id.and_then(|id| self.bound.sockets.get(id)) {
                    let _ = pipe.try_send(to, &bytes);
                }
            }
            // Taken by `drain`.
            ServerOutput::Timeout(_) => {}
        }
        None
    }

    fn open(&mut self, server: usize, socket: u64, bind: IpAddr) -> ServerInput<'static> {
        self.bound.next += 1;
        let id = self.bound.next;
        match UdpPipe::open(id, SocketAddr::new(bind, 0), self.sink.clone()) {
            Ok(pipe) => {
                let local = pipe.local();
                self.bound.sockets.insert(id, (Place::Further { server, socket }, pipe));
                self.further.insert((server, socket), id);
                ServerInput::Opened { socket, local }
            }
            Err(error) => {
                debug!(%bind, %error, "relay socket not opened");
                ServerInput::OpenFailed { socket }
            }
        }
    }
}

fn hand(servers: &mut [Box<dyn Server>], index: usize, now: Instant, input: ServerInput<'_>) {
    if let Some(server) = servers.get_mut(index) {
        server.handle(now, input);
    }
}
