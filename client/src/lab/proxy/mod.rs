//! The lab's SIP server: registrar and stateful forking proxy, RFC 3261 §16, on UDP, TCP and TLS.
//!
//! ```text
//!   bytes ─▶ flow ─▶ transaction ─▶ route ─┬─▶ registrar, provisioning, MRAS ─▶ response
//!                                          └─▶ fork ─▶ a client transaction per binding ─▶ best response (§16.7)
//! ```
//!
//! * `mod.rs`: sockets and streams as flows, keepalives. `route.rs`: what a request is for. `fork.rs`: its branches.
//! * Requests go to a phone over the flow that it registered over (RFC 5626 §5.3); connections are never opened.
//! * Each dialog-forming request is record-routed twice, once per side, with the flow in the user part (§5.2 there),
//!   so that it may come by UDP and leave by TLS.

mod fork;
mod route;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use ice::stun;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use sip::event::{FlowId, Hop, Transport};
use sip::header::Via;
use sip::message::{Message, Request};
use sip::parse::parse_message;
use sip::transaction::{ClientTx, LayerEvent, LayerOutput, ServerTx, Transactions};
use sip::transport::stream::{Frame, Framer};

use super::mras::Mras;
use super::registrar::{Registrar, Registration};
use super::{Input, Output, SocketId, StreamId, WallClock, mras, provisioning, registrar};
use fork::Context;

/// Streams at once; a test has a handful, a load test some hundreds.
const STREAMS_MAX: usize = 4096;

/// The server's configuration; all of it can be changed while it runs.
#[derive(Debug, Clone)]
pub struct Config {
    pub registrar: registrar::Config,
    pub provisioning: provisioning::Config,
    pub mras: mras::Config,
    /// Ask for a password with 407 even over a flow that somebody registered over.
    pub challenge_always: bool,
    pub clock: WallClock,
}

/// Ways to be a bad server.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Nothing is answered, nothing forwarded.
    pub silent: bool,
    /// These methods get no answer.
    pub silent_methods: BTreeSet<String>,
    /// These methods get this status.
    pub refuse: BTreeMap<String, u16>,
}

#[derive(Debug, Clone, Copy)]
enum Carrier {
    Socket(SocketId),
    Stream(StreamId),
}

#[derive(Debug)]
struct Flow {
    carrier: Carrier,
    transport: Transport,
    local: SocketAddr,
    framer: Framer,
    /// Streams: the other end. UDP: nobody in particular.
    remote: Option<SocketAddr>,
}

/// The server. See the module's text.
#[derive(Debug)]
pub struct Proxy {
    registrar: Registrar,
    provisioning: provisioning::Config,
    mras: Mras,
    challenge_always: bool,
    clock: WallClock,
    faults: Faults,
    flows: BTreeMap<FlowId, Flow>,
    sockets: BTreeMap<SocketId, FlowId>,
    streams: BTreeMap<StreamId, FlowId>,
    /// Our own addresses, to recognise our Routes.
    locals: BTreeSet<SocketAddr>,
    next_flow: u64,
    transactions: Transactions,
    contexts: BTreeMap<ServerTx, Context>,
    /// Which branch of which context a client transaction is.
    branches: BTreeMap<ClientTx, (ServerTx, usize)>,
    /// Signs the flow tokens.
    token_key: [u8; 20],
    rng: ChaCha20Rng,
    outputs: VecDeque<Output>,
    /// What goes out behind the responses that are on their way through the transactions.
    behind: Vec<(Hop, Vec<u8>)>,
}

impl Proxy {
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let registrar_seed = rng.random();
        Self {
            registrar: Registrar::new(config.registrar, registrar_seed),
            provisioning: config.provisioning,
            mras: Mras::new(config.mras),
            challenge_always: config.challenge_always,
            clock: config.clock,
            faults: Faults::default(),
            flows: BTreeMap::new(),
            sockets: BTreeMap::new(),
            streams: BTreeMap::new(),
            locals: BTreeSet::new(),
            next_flow: 0,
            transactions: Transactions::new(),
            contexts: BTreeMap::new(),
            branches: BTreeMap::new(),
            token_key: rng.random(),
            rng,
            outputs: VecDeque::new(),
            behind: Vec::new(),
        }
    }

    pub fn faults_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }

    pub fn provisioning_mut(&mut self) -> &mut provisioning::Config {
        &mut self.provisioning
    }

    pub fn registrar_mut(&mut self) -> &mut Registrar {
        &mut self.registrar
    }

    pub fn mras(&self) -> &Mras {
        &self.mras
    }

    pub fn mras_mut(&mut self) -> &mut Mras {
        &mut self.mras
    }

    /// Who is registered at `now`.
    pub fn registrations(&self, now: Instant) -> Vec<Registration> {
        let line = |binding: &registrar::Binding| Registration {
            user: binding.user.clone(),
            contact: binding.contact.uri.to_string(),
            transport: binding.transport,
            from: binding.hop.to,
            expires_in: binding.expires_at.saturating_duration_since(now),
        };
        self.registrar.list().map(line).collect()
    }

    /// Number of client and server transactions: both 0 when nothing is left behind.
    pub fn transactions(&self) -> (usize, usize) {
        self.transactions.counts()
    }

    /// Number of accepted streams.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Ends every stream from our side, as a restart of the server would.
    pub fn close_streams(&mut self) {
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            self.outputs.push_back(Output::CloseStream { stream });
            self.stream_closed(stream);
        }
    }

    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::SocketOpened { socket, local } => {
                let flow = self.add_flow(Carrier::Socket(socket), Transport::Udp, local, None);
                self.sockets.insert(socket, flow);
            }
            Input::Datagram { socket, from, bytes } => {
                if let Some(flow) = self.sockets.get(&socket).copied() {
                    self.datagram(now, Hop { flow, to: from }, socket, bytes);
                }
            }
            Input::StreamOpened { stream, local, remote, tls } => {
                if self.streams.len() >= STREAMS_MAX {
                    self.outputs.push_back(Output::CloseStream { stream });
                    return;
                }
                let transport = if tls { Transport::Tls } else { Transport::Tcp };
                let flow = self.add_flow(Carrier::Stream(stream), transport, local, Some(remote));
                self.streams.insert(stream, flow);
            }
            Input::Stream { stream, bytes } => self.stream_data(now, stream, bytes),
            Input::StreamClosed { stream } => self.stream_closed(stream),
            Input::Timeout => {
                self.transactions.handle_timeout(now);
                self.registrar.handle_timeout(now);
                self.expire_branches(now);
            }
        }
        self.drain(now);
    }

    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let transactions = match self.transactions.poll_output() {
            LayerOutput::Timeout(at) => at,
            LayerOutput::Transmit { .. } | LayerOutput::Event(_) => None, // drained after each input
        };
        let branches = self.contexts.values().filter_map(Context::deadline).min();
        Output::Timeout([transactions, self.registrar.deadline(), branches].into_iter().flatten().min())
    }

    fn add_flow(
        &mut self,
        carrier: Carrier,
        transport: Transport,
        local: SocketAddr,
        remote: Option<SocketAddr>,
    ) -> FlowId {
        let flow = FlowId(self.next_flow);
        self.next_flow += 1;
        self.locals.insert(local);
        self.flows.insert(flow, Flow { carrier, transport, local, framer: Framer::new(), remote });
        flow
    }

    fn datagram(&mut self, now: Instant, hop: Hop, socket: SocketId, bytes: &[u8]) {
        // Keepalives: STUN gets its answer (RFC 5626 §4.4.2), blank lines need none on UDP.
        if let Ok(message) = stun::Message::parse(bytes) {
            if message.class() == stun::Class::Request
                && message.method() == stun::Method::BINDING
                && !self.faults.silent
            {
                let answer = stun::Builder::answer(stun::Class::Success, &message);
                let bytes = answer.with(&stun::Attribute::XorMappedAddress(hop.to)).fingerprint().build();
                self.outputs.push_back(Output::Transmit { socket, to: hop.to, bytes });
            }
            return;
        }
        if !bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            self.message(now, hop, bytes);
        }
    }

    fn stream_data(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) {
        let Some(id) = self.streams.get(&stream).copied() else {
            return;
        };
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        flow.framer.push(bytes);
        let Some(to) = flow.remote else {
            return;
        };
        loop {
            let Some(flow) = self.flows.get_mut(&id) else {
                return; // closed meanwhile
            };
            match flow.framer.next_frame() {
                Ok(Some(Frame::Message(bytes))) => self.message(now, Hop { flow: id, to }, &bytes),
                Ok(Some(Frame::Ping)) if !self.faults.silent => {
                    self.outputs.push_back(Output::StreamSend { stream, bytes: b"\r\n".to_vec() });
                }
                Ok(Some(Frame::Ping | Frame::Pong)) => {}
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "stream closed: out of step");
                    self.outputs.push_back(Output::CloseStream { stream });
                    self.stream_closed(stream);
                    return;
                }
            }
        }
    }

    fn stream_closed(&mut self, stream: StreamId) {
        if let Some(flow) = self.streams.remove(&stream) {
            self.flows.remove(&flow);
            self.registrar.flow_closed(flow);
            self.transactions.flow_closed(flow, "connection closed");
        }
    }

    fn message(&mut self, now: Instant, hop: Hop, bytes: &[u8]) {
        if self.faults.silent {
            return;
        }
        let Some(transport) = self.flows.get(&hop.flow).map(|flow| flow.transport) else {
            return;
        };
        match parse_message(bytes) {
            Ok(Message::Request(mut request)) => {
                if self.faults.silent_methods.contains(request.method.as_str()) {
                    return;
                }
                let Some(respond_to) = stamp_via(&mut request, transport, hop.to) else {
                    return;
                };
                let message = Message::Request(request);
                self.transactions.handle_message(now, hop.flow, hop.to, respond_to, transport.is_reliable(), message);
            }
            Ok(message @ Message::Response(_)) => {
                self.transactions.handle_message(now, hop.flow, hop.to, hop.to, transport.is_reliable(), message);
            }
            Err(error) => {
                tracing::debug!(%error, from = %hop.to, "message refused");
                if let Some(mut request) = error.request
                    && let Some(to) = stamp_via(&mut request, transport, hop.to)
                {
                    let response = request.response(error.status, &error.reason);
                    self.transmit(Hop { flow: hop.flow, to }, response.to_bytes());
                }
            }
        }
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.transactions.poll_output() {
                LayerOutput::Transmit { flow, to, bytes } => self.transmit(Hop { flow, to }, bytes),
                LayerOutput::Event(event) => self.event(now, event),
                LayerOutput::Timeout(_) => break,
            }
        }
        for (hop, bytes) in std::mem::take(&mut self.behind) {
            self.transmit(hop, bytes);
        }
        let transactions = &self.transactions;
        self.contexts.retain(|tx, _| transactions.server_request(*tx).is_some());
        let contexts = &self.contexts;
        self.branches.retain(|_, (server, _)| contexts.contains_key(server));
    }

    fn event(&mut self, now: Instant, event: LayerEvent) {
        match event {
            LayerEvent::Request { tx, request } => self.request(now, tx, *request),
            LayerEvent::Ack { request, .. } => self.acknowledge(*request),
            LayerEvent::Response { tx, response } => self.response(now, tx, *response),
            LayerEvent::TimedOut { tx } => self.branch_failed(now, tx, 408),
            LayerEvent::FlowLost { tx, .. } => self.branch_failed(now, tx, 480),
            // A 2xx that comes after 32 s has nobody left who waits for it.
            LayerEvent::Stray { .. } | LayerEvent::NoAck { .. } | LayerEvent::Ended { .. } => {}
        }
    }

    fn transmit(&mut self, hop: Hop, bytes: Vec<u8>) {
        match self.flows.get(&hop.flow).map(|flow| flow.carrier) {
            Some(Carrier::Socket(socket)) => self.outputs.push_back(Output::Transmit { socket, to: hop.to, bytes }),
            Some(Carrier::Stream(stream)) => self.outputs.push_back(Output::StreamSend { stream, bytes }),
            None => {}
        }
    }

    /// Our Via for a flow, with a new branch.
    fn via(&mut self, hop: Hop) -> Option<Via> {
        let branch = format!("{}{:024x}", sip::header::via::MAGIC_COOKIE, self.rng.random::<u128>() >> 32);
        let flow = self.flows.get(&hop.flow)?;
        Some(Via::new(flow.transport.via_name(), flow.local, &branch))
    }

    fn tag(&mut self) -> String {
        format!("{:016x}", self.rng.random::<u64>())
    }
}

/// Writes `received` and `rport` into the top Via; where the responses go (RFC 3261 §18.2, RFC 3581 §4).
fn stamp_via(request: &mut Request, transport: Transport, source: SocketAddr) -> Option<SocketAddr> {
    let mut via = request.headers.via_top().ok()?;
    via.set_source(source);
    request.headers.replace_first_value("Via", &via.to_string());
    if transport.is_reliable() || via.params.contains("rport") {
        return Some(source);
    }
    let (_, port) = via.sent_by();
    Some(SocketAddr::new(source.ip(), port))
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
