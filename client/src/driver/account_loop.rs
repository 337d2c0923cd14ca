//! The loop that carries one core on real sockets (architecture §4): drain what the core wants, wait for what happens.
//!
//! ```text
//!   commands ─┐                         ┌─▶ sockets, streams, resolver (pipes bring answers back)
//!   pipes   ──┼─▶ core.handle_input ──▶ drain ─▶ events
//!   timer   ──┤                         └─▶ loudspeaker, recordings
//!   sound   ──┘
//! ```
//!
//! One task, no locks, nothing here waits for anything but the next input.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, info, trace, warn};

use super::clock;
use super::dns::{Dns, Kind};
use super::events::{self, EventHub};
use super::listener;
use super::pipe::{PipeEvent, PipeSender};
use super::sound::Sound;
use super::stream::{OpenStream, StreamPipe};
use super::tls::{self, TlsClient};
use super::translate;
use super::udp::UdpPipe;
use super::wiretap;
use crate::api::{CallChange, Command, EngineChange, EventBody};
use crate::core::{Core, Input, ListenerId, Output, RecordKind, SocketId, StreamError, StreamId, TlsRequest};
use crate::sentence::sentence;

/// Failed datagrams remembered in one turn: one per path is enough.
const FAILED_SENDS_MAX: usize = 32;
/// Outputs carried out before other tasks get a turn: a call makes a handful per packet.
const BUDGET: usize = 256;
/// Inputs taken before the timer is looked at again.
const INPUTS_PER_TURN: usize = 64;
/// How long a core may take to say goodbye to its servers (architecture §4).
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);
/// How long streams may take to write the last words of a core that has stopped.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// Everything one core needs of the operating system.
pub struct AccountLoop {
    core: Core,
    sockets: BTreeMap<SocketId, UdpPipe>,
    streams: BTreeMap<StreamId, StreamPipe>,
    /// Pipes that have not reported their end: they may still be writing.
    pipes_open: usize,
    listeners: BTreeMap<ListenerId, AbortHandle>,
    /// Numbers the streams that come in.
    accepted: Arc<AtomicU64>,
    tls: Arc<TlsClient>,
    roots: Vec<rustls::pki_types::CertificateDer<'static>>,
    dns: Dns,
    dns_server: Option<SocketAddr>,
    sink: PipeSender,
    pipes: mpsc::Receiver<PipeEvent>,
    events: EventHub,
    sound: Sound,
    /// Answers that were known at once: fed back before waiting.
    immediate: VecDeque<PipeEvent>,
    immediate_sockets: VecDeque<Immediate>,
    /// Datagrams that could not be sent, for the core to hear of.
    failed_sends: VecDeque<(SocketId, SocketAddr, String)>,
    deadline: Option<Instant>,
    worst_delay: Duration,
    stopped: bool,
    give_up_at: Option<Instant>,
    /// Nobody can send commands any more.
    orphaned: bool,
}

/// What the operating system answers at once, for the core to hear after its drain.
enum Immediate {
    Socket(SocketId, Result<SocketAddr, String>),
    Listener(ListenerId, Result<SocketAddr, String>),
}

/// What a loop is made of.
pub struct LoopParts {
    /// The core to carry.
    pub core: Core,
    /// Where its events go.
    pub events: EventHub,
    /// Its microphone, loudspeaker and recordings.
    pub sound: Sound,
    /// The channel its pipes write to.
    pub sink: PipeSender,
    /// The other end of it.
    pub pipes: mpsc::Receiver<PipeEvent>,
}

impl AccountLoop {
    /// Puts the parts together; nothing is opened yet.
    pub fn new(parts: LoopParts) -> Self {
        Self {
            core: parts.core,
            sockets: BTreeMap::new(),
            streams: BTreeMap::new(),
            pipes_open: 0,
            listeners: BTreeMap::new(),
            accepted: Arc::new(AtomicU64::new(listener::ACCEPTED_BY_DRIVER)),
            tls: Arc::new(TlsClient::new(Vec::new())),
            roots: Vec::new(),
            dns: Dns::new(None),
            dns_server: None,
            sink: parts.sink,
            pipes: parts.pipes,
            events: parts.events,
            sound: parts.sound,
            immediate: VecDeque::new(),
            immediate_sockets: VecDeque::new(),
            failed_sends: VecDeque::new(),
            deadline: None,
            worst_delay: Duration::ZERO,
            stopped: false,
            give_up_at: None,
            orphaned: false,
        }
    }

    /// Runs until the core has stopped after [`Command::Shutdown`], or all commanders are gone.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let addresses = super::interfaces::addresses();
        let watcher = tokio::spawn(super::interfaces::watch(addresses.clone(), self.sink.clone()));
        self.core.handle_input(clock::now(), Input::Interfaces(addresses));
        while !self.stopped {
            if !self.drain() {
                tokio::task::yield_now().await;
                continue;
            }
            if self.stopped {
                break;
            }
            self.wait(&mut commands).await;
        }
        watcher.abort();
        for listener in self.listeners.values() {
            listener.abort();
        }
        self.sound.close();
        self.flush().await;
    }

    /// Lets streams write what is queued (a last BYE, a deallocation) before the runtime goes.
    async fn flush(&mut self) {
        self.forget_connecting();
        self.streams.clear();
        let limit = tokio::time::Instant::now() + FLUSH_LIMIT;
        while self.pipes_open > 0 {
            match tokio::time::timeout_at(limit, self.pipes.recv()).await {
                Ok(Some(PipeEvent::StreamClosed { .. })) => self.pipes_open = self.pipes_open.saturating_sub(1),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// A stream that is dropped while connecting ends without a word.
    fn forget_connecting(&mut self) {
        let connecting = self.streams.values().filter(|pipe| pipe.is_connecting()).count();
        self.pipes_open = self.pipes_open.saturating_sub(connecting);
    }

    fn close_stream(&mut self, id: StreamId) {
        if self.streams.remove(&id).is_some_and(|pipe| pipe.is_connecting()) {
            self.pipes_open = self.pipes_open.saturating_sub(1);
        }
    }

    async fn wait(&mut self, commands: &mut mpsc::Receiver<Command>) {
        let deadline = [self.deadline, self.give_up_at, self.sound.deadline()].into_iter().flatten().min();
        // A day is "never" to a loop that has nothing to wait for.
        let wake_at = deadline.unwrap_or_else(|| clock::now() + Duration::from_hours(24));
        tokio::select! {
            event = self.pipes.recv() => if let Some(event) = event { self.take(event) },
            command = commands.recv(), if !self.orphaned => {
                self.orphaned = command.is_none(); // a closed channel is ready for ever
                self.command(command.unwrap_or(Command::Shutdown));
            }
            () = tokio::time::sleep_until(wake_at.into()) => self.timer_fired(wake_at),
            () = self.sound.woken() => self.microphone(),
        }
    }

    fn timer_fired(&mut self, wake_at: Instant) {
        let now = clock::now();
        self.worst_delay = self.worst_delay.max(now.saturating_duration_since(wake_at));
        if self.give_up_at.is_some_and(|at| now >= at) {
            warn!("the account did not say goodbye within 3 s");
            self.publish(EventBody::Engine(Box::new(EngineChange::Stopped)));
            return;
        }
        self.sound.ring(now);
        if self.deadline.is_some_and(|at| now >= at) {
            self.core.handle_input(now, Input::Timeout);
        }
    }

    /// Hands one pipe event to the core, and then those that came meanwhile.
    fn take(&mut self, event: PipeEvent) {
        let begun = clock::now();
        self.input(event);
        for _ in 0..INPUTS_PER_TURN {
            // The contract is one input, then everything the core wants.
            if !self.drain() {
                break;
            }
            match self.pipes.try_recv() {
                Ok(event) => self.input(event),
                Err(_) => break,
            }
        }
        self.worst_delay = self.worst_delay.max(clock::now().saturating_duration_since(begun));
    }

    fn input(&mut self, event: PipeEvent) {
        let now = clock::now();
        match event {
            PipeEvent::Datagram { id, from, payload } => {
                let socket = SocketId(id);
                wiretap::log("in", from, &payload);
                self.core.handle_input(now, Input::Datagram { socket, from, payload: &payload });
            }
            PipeEvent::SocketFailed { id, cause } => {
                self.sockets.remove(&SocketId(id));
                self.core.handle_input(now, Input::SocketFailed { id: SocketId(id), cause });
            }
            PipeEvent::StreamOpened { id, local, remote } => {
                let id = StreamId(id);
                // Already closed by the core: the pipe is gone, so the news is stale.
                if let Some(pipe) = self.streams.get_mut(&id) {
                    pipe.connected();
                    self.core.handle_input(now, Input::StreamOpened { id, local, remote });
                }
            }
            PipeEvent::StreamAccepted { id, listener, local, remote, pipe } => {
                let id = StreamId(id);
                self.streams.insert(id, pipe);
                self.pipes_open += 1;
                self.core
                    .handle_input(now, Input::StreamAccepted { listener: ListenerId(listener), id, local, remote });
            }
            PipeEvent::StreamData { id, bytes } => {
                let id = StreamId(id);
                wiretap::log("in", id, &bytes);
                if self.streams.contains_key(&id) {
                    self.core.handle_input(now, Input::StreamData { id, bytes: &bytes });
                }
            }
            PipeEvent::StreamClosed { id, cause } => {
                self.pipes_open = self.pipes_open.saturating_sub(1);
                let id = StreamId(id);
                if self.streams.remove(&id).is_some() {
                    self.core.handle_input(now, Input::StreamClosed { id, cause: translate::stream_error(cause) });
                }
            }
            PipeEvent::Resolved { id, answer } => {
                let answer = translate::answer(answer);
                self.core.handle_input(now, Input::Resolved { id: crate::core::ResolveId(id), answer });
            }
            PipeEvent::Woken => self.core.handle_input(now, Input::Woken),
            PipeEvent::Interfaces(addresses) => self.core.handle_input(now, Input::Interfaces(addresses)),
        }
    }

    fn command(&mut self, command: Command) {
        let now = clock::now();
        match &command {
            Command::Snapshot => return self.events.publish_snapshot(now),
            Command::Health => return self.publish_health(),
            Command::UseDevices { input, output } => {
                if let Some(text) = self.sound.use_devices(input.clone(), output.clone()) {
                    self.notice(text);
                }
                return;
            }
            Command::AddAccount { config, .. } => self.trust(config.tls_ca.as_deref(), config.dns),
            Command::Shutdown => {
                self.give_up_at = self.give_up_at.or(Some(now + SHUTDOWN_LIMIT));
            }
            _ => {}
        }
        self.core.handle_input(now, Input::Command(command));
    }

    /// Accounts of one engine share a resolver and a trust store: the last one that names a server or a CA adds it.
    fn trust(&mut self, ca: Option<&std::path::Path>, dns: Option<SocketAddr>) {
        if let Some(path) = ca {
            match tls::read_ca(path) {
                Ok(certificates) => {
                    self.roots.extend(certificates);
                    self.tls = Arc::new(TlsClient::new(self.roots.clone()));
                }
                Err(text) => self.notice(text),
            }
        }
        if dns.is_some() && dns != self.dns_server {
            self.dns_server = dns;
            self.dns = Dns::new(dns);
        }
    }

    fn microphone(&mut self) {
        let now = clock::now();
        while let Some((call, frame)) = self.sound.next_frame(now) {
            self.core.handle_input(now, Input::Microphone { call, frame: &frame });
            if !self.drain() {
                return;
            }
        }
        for text in self.sound.take_notices() {
            self.notice(text);
        }
    }

    /// Carries out what the core wants; false if it wants more than one turn's worth.
    fn drain(&mut self) -> bool {
        for _ in 0..BUDGET {
            if let Some(outcome) = self.immediate_sockets.pop_front() {
                let input = match outcome {
                    Immediate::Socket(id, Ok(local)) => Input::SocketOpened { id, local },
                    Immediate::Socket(id, Err(cause)) => Input::SocketFailed { id, cause },
                    Immediate::Listener(id, Ok(local)) => Input::Listening { id, local },
                    Immediate::Listener(id, Err(cause)) => Input::ListenFailed { id, cause },
                };
                self.core.handle_input(clock::now(), input);
            }
            match self.core.poll_output() {
                Output::Timeout(at) => {
                    self.deadline = at;
                    if let Some((socket, to, cause)) = self.failed_sends.pop_front() {
                        self.core.handle_input(clock::now(), Input::SendFailed { socket, to, cause });
                    } else if let Some(event) = self.immediate.pop_front() {
                        self.input(event);
                    } else if self.immediate_sockets.is_empty() {
                        return true;
                    }
                }
                output => self.carry_out(output),
            }
        }
        false
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Transmit { socket, to, payload } => self.transmit(socket, to, &payload),
            Output::StreamSend { id, payload } => self.stream_send(id, payload),
            Output::Play { call, frame } => self.sound.play(clock::now(), call, &frame),
            Output::Event(body) => self.publish(body),
            Output::OpenSocket { id, bind, toward } => self.open_socket(id, bind, toward),
            Output::CloseSocket(id) => {
                self.sockets.remove(&id);
            }
            Output::OpenStream { id, from, to, tls } => self.open_stream(id, from, to, tls),
            Output::CloseStream(id) => self.close_stream(id),
            Output::Listen { id, bind, shared } => self.listen(id, bind, shared),
            Output::CloseListener(id) => {
                if let Some(task) = self.listeners.remove(&id) {
                    task.abort();
                }
            }
            Output::Resolve { id, name, kind } => {
                let kind = match kind {
                    RecordKind::A => Kind::A,
                    RecordKind::Aaaa => Kind::Aaaa,
                    RecordKind::Srv => Kind::Srv,
                    RecordKind::Naptr => Kind::Naptr,
                };
                self.dns.spawn(id.0, name, kind, self.sink.clone());
            }
            // Taken by `drain`.
            Output::Timeout(_) => {}
        }
    }

    fn transmit(&mut self, socket: SocketId, to: SocketAddr, payload: &[u8]) {
        let Some(pipe) = self.sockets.get(&socket) else {
            trace!(%socket, "datagram for a closed socket");
            return;
        };
        wiretap::log("out", to, payload);
        // Lost like any datagram: the protocols above resend what matters.
        if let Err(error) = pipe.try_send(to, payload) {
            debug!(%socket, %to, %error, "datagram not sent");
            // A full buffer says nothing about the way.
            if error.kind() != std::io::ErrorKind::WouldBlock && self.failed_sends.len() < FAILED_SENDS_MAX {
                self.failed_sends.push_back((socket, to, error.to_string()));
            }
        }
    }

    fn stream_send(&mut self, id: StreamId, payload: Vec<u8>) {
        wiretap::log("out", id, &payload);
        let stuck = self.streams.get(&id).is_some_and(|pipe| !pipe.send(payload));
        if stuck {
            self.streams.remove(&id);
            let cause = StreamError::Io("the other side stopped reading".to_owned());
            self.core.handle_input(clock::now(), Input::StreamClosed { id, cause });
        }
    }

    fn open_socket(&mut self, id: SocketId, bind: SocketAddr, toward: Option<SocketAddr>) {
        let opened = listener::address_toward(bind, toward)
            .and_then(|bind| UdpPipe::open(id.0, bind, self.sink.clone()))
            .map_err(|error| format!("cannot open UDP {bind}: {error}"));
        let outcome = opened.map(|pipe| {
            let local = pipe.local();
            self.sockets.insert(id, pipe);
            local
        });
        self.immediate_sockets.push_back(Immediate::Socket(id, outcome));
    }

    fn open_stream(&mut self, id: StreamId, from: Option<SocketAddr>, to: SocketAddr, tls: Option<TlsRequest>) {
        let tls_names = tls.map(translate::tls_names);
        let request = OpenStream { id: id.0, from, to, tls_names };
        let pipe = StreamPipe::open(request, Arc::clone(&self.tls), self.sink.clone());
        self.streams.insert(id, pipe);
        self.pipes_open += 1;
    }

    fn listen(&mut self, id: ListenerId, bind: SocketAddr, shared: bool) {
        let opened = listener::tcp(id.0, bind, shared, Arc::clone(&self.accepted), self.sink.clone());
        let outcome = opened.map_err(|error| format!("cannot listen on TCP {bind}: {error}"));
        let outcome = outcome.map(|(local, task)| {
            self.listeners.insert(id, task);
            local
        });
        self.immediate_sockets.push_back(Immediate::Listener(id, outcome));
    }

    fn publish_health(&mut self) {
        let health = EngineChange::Health {
            calls: self.core.calls(),
            sockets: self.sockets.len(),
            streams: self.streams.len(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        };
        self.publish(EventBody::Engine(Box::new(health)));
    }

    fn notice(&mut self, text: String) {
        self.publish(EventBody::Engine(Box::new(EngineChange::Notice { text })));
    }

    fn publish(&mut self, mut body: EventBody) {
        let now = clock::now();
        match &mut body {
            EventBody::Call { call, change } => {
                if let CallChange::Stats { stats } = &mut **change {
                    stats.loop_delay_ms = self.worst_delay.as_secs_f32() * 1000.0;
                    self.worst_delay = Duration::ZERO;
                }
                self.sound.follow(*call, change);
                if events::ends_call(change) {
                    debug!(%call, "call ended");
                }
            }
            EventBody::Engine(change) if matches!(**change, EngineChange::Stopped) => self.stopped = true,
            EventBody::Engine(_) | EventBody::Account { .. } => {}
        }
        let event = self.events.publish(now, body);
        if let Some(text) = sentence(&event) {
            info!(seq = event.seq, "{text}");
        }
        for text in self.sound.take_notices() {
            self.events.publish(now, EventBody::Engine(Box::new(EngineChange::Notice { text })));
        }
    }
}
