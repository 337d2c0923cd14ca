//! Transactions, RFC 3261 §17: the layer that repeats requests, absorbs repetitions, and pairs answers with questions.
//!
//! Four machines, one file each ([`client_invite`], [`client_other`], [`server_invite`], [`server_other`]), know only bytes, status
//! codes and time. [`Transactions`] owns them, reads and makes the messages they need (ACK to a refusal, 100 Trying), and serves
//! the user agent as well as a stateful proxy:
//!
//! ```text
//!   owner ── request(), respond() ──▶ Transactions ── Transmit ──▶ flow
//!   flow ── handle_message() ──▶ Transactions ── Event ──▶ owner
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use crate::event::{FlowId, Hop};
use crate::message::{Message, Method, Request, Response};

pub mod client_invite;
pub mod client_other;
pub mod matching;
pub mod server_invite;
pub mod server_other;
pub mod timers;

use client_invite::ClientInvite;
use client_other::ClientOther;
use matching::{ClientKey, ServerKey};
use server_invite::ServerInvite;
use server_other::ServerOther;

/// Open transactions of each side: a bot with a hundred calls has a few hundred; more is an attack or a loop.
const TRANSACTIONS_MAX: usize = 4096;

/// What one machine asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Transmit(Vec<u8>),
    /// Nobody answered (client), or nobody acknowledged (INVITE server).
    TimedOut,
    /// Nothing more; `None` once terminated or waiting for the owner.
    Timeout(Option<Instant>),
}

/// Whether the owner of a machine sees a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Absorbed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientTx(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerTx(u64);

/// What the layer asks of its owner.
#[derive(Debug)]
pub enum LayerOutput {
    Transmit { flow: FlowId, to: SocketAddr, bytes: Vec<u8> },
    Event(LayerEvent),
    Timeout(Option<Instant>),
}

#[derive(Debug)]
pub enum LayerEvent {
    /// A new request, never an ACK. INVITE has been answered 100.
    Request {
        tx: ServerTx,
        request: Box<Request>,
    },
    /// An ACK that belongs to a 2xx, or to nothing.
    Ack {
        request: Box<Request>,
        flow: FlowId,
        from: SocketAddr,
    },
    Response {
        tx: ClientTx,
        response: Box<Response>,
    },
    /// A response no transaction asked for.
    Stray {
        response: Box<Response>,
    },
    /// No final answer in 64·T1 (RFC 3261 §8.1.3.1: treat as 408).
    TimedOut {
        tx: ClientTx,
    },
    /// The flow was lost before a final answer (treat as 503).
    FlowLost {
        tx: ClientTx,
        cause: String,
    },
    /// The client transaction is gone; no further answer will come.
    Ended {
        tx: ClientTx,
    },
    /// No ACK to a refusal: nothing to do but to know it.
    NoAck {
        tx: ServerTx,
    },
}

#[derive(Debug)]
enum ClientMachine {
    Invite(ClientInvite),
    Other(ClientOther),
}

#[derive(Debug)]
struct Client {
    machine: ClientMachine,
    key: ClientKey,
    hop: Hop,
    request: Request,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum ServerMachine {
    Invite(ServerInvite),
    Other(ServerOther),
}

#[derive(Debug)]
struct Server {
    machine: ServerMachine,
    key: ServerKey,
    flow: FlowId,
    from: SocketAddr,
    respond_to: SocketAddr,
    request: Request,
    deadline: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Client(ClientTx),
    Server(ServerTx),
}

/// All transactions of one user agent or proxy.
#[derive(Debug, Default)]
pub struct Transactions {
    next_id: u64,
    clients: BTreeMap<ClientTx, Client>,
    client_keys: BTreeMap<ClientKey, ClientTx>,
    servers: BTreeMap<ServerTx, Server>,
    server_keys: BTreeMap<ServerKey, ServerTx>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Filled only by the one message or timeout being handled, and drained after it.
    outputs: VecDeque<LayerOutput>,
}

impl Transactions {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends `request`, whose top Via is ours and has a branch of its own, and waits for its answers.
    ///
    /// An ACK makes no transaction: send its bytes by yourself.
    pub fn request(&mut self, now: Instant, request: Request, hop: Hop, reliable: bool) -> ClientTx {
        let tx = ClientTx(self.take_id());
        let bytes = Message::Request(request.clone()).to_bytes();
        let key = ClientKey::of_request(&request);
        let machine = match request.method {
            Method::Invite => ClientMachine::Invite(ClientInvite::new(now, bytes, reliable)),
            _ => ClientMachine::Other(ClientOther::new(now, bytes, reliable)),
        };
        self.client_keys.insert(key.clone(), tx);
        self.clients.insert(tx, Client { machine, key, hop, request, deadline: None });
        self.drain_client(tx);
        tx
    }

    /// Sends a response of the owner; nothing happens once the transaction has ended.
    pub fn respond(&mut self, now: Instant, tx: ServerTx, response: Response) {
        let Some(server) = self.servers.get_mut(&tx) else { return };
        let status = response.status;
        let bytes = Message::Response(response).to_bytes();
        match &mut server.machine {
            ServerMachine::Invite(machine) => machine.respond(now, status, bytes),
            ServerMachine::Other(machine) => machine.respond(now, status, bytes),
        }
        self.drain_server(tx);
    }

    /// Takes a parsed message from the network; the top Via of a request already carries `received` and `rport`.
    pub fn handle_message(
        &mut self,
        now: Instant,
        flow: FlowId,
        from: SocketAddr,
        respond_to: SocketAddr,
        reliable: bool,
        message: Message,
    ) {
        match message {
            Message::Request(request) => self.handle_request(now, Origin { flow, from, respond_to, reliable }, request),
            Message::Response(response) => self.handle_response(now, response),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Client(tx) => {
                    match self.clients.get_mut(&tx).map(|c| &mut c.machine) {
                        Some(ClientMachine::Invite(machine)) => machine.handle_timeout(now),
                        Some(ClientMachine::Other(machine)) => machine.handle_timeout(now),
                        None => {}
                    }
                    self.drain_client(tx);
                }
                Timer::Server(tx) => {
                    match self.servers.get_mut(&tx).map(|s| &mut s.machine) {
                        Some(ServerMachine::Invite(machine)) => machine.handle_timeout(now),
                        Some(ServerMachine::Other(machine)) => machine.handle_timeout(now),
                        None => {}
                    }
                    self.drain_server(tx);
                }
            }
        }
    }

    pub fn poll_output(&mut self) -> LayerOutput {
        self.outputs.pop_front().unwrap_or_else(|| LayerOutput::Timeout(self.deadline()))
    }

    /// When [`Transactions::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The flow is gone: its client transactions fail, its server transactions are forgotten.
    pub fn flow_closed(&mut self, flow: FlowId, cause: &str) {
        let clients: Vec<ClientTx> =
            self.clients.iter().filter(|(_, c)| c.hop.flow == flow).map(|(tx, _)| *tx).collect();
        for tx in clients {
            let open = self.clients.get(&tx).is_some_and(Client::is_open);
            self.remove_client(tx);
            if open {
                let cause = cause.to_owned();
                self.outputs.push_back(LayerOutput::Event(LayerEvent::FlowLost { tx, cause }));
            }
            self.outputs.push_back(LayerOutput::Event(LayerEvent::Ended { tx }));
        }
        let servers: Vec<ServerTx> = self.servers.iter().filter(|(_, s)| s.flow == flow).map(|(tx, _)| *tx).collect();
        for tx in servers {
            self.remove_server(tx);
        }
    }

    /// The INVITE (or other request) that `cancel` names (RFC 3261 §9.2).
    pub fn find_cancelled(&self, cancel: &Request) -> Option<ServerTx> {
        self.server_keys.get(&ServerKey::of_cancelled(cancel)).copied()
    }

    /// CANCEL was sent for this INVITE.
    pub fn client_cancelled(&mut self, now: Instant, tx: ClientTx) {
        if let Some(Client { machine: ClientMachine::Invite(machine), .. }) = self.clients.get_mut(&tx) {
            machine.cancelled(now);
        }
        self.drain_client(tx);
    }

    /// Request, and hop it was sent to.
    pub fn client_request(&self, tx: ClientTx) -> Option<(&Request, Hop)> {
        self.clients.get(&tx).map(|c| (&c.request, c.hop))
    }

    /// A provisional answer has come and no final one.
    pub fn client_is_proceeding(&self, tx: ClientTx) -> bool {
        matches!(self.clients.get(&tx), Some(Client { machine: ClientMachine::Invite(machine), .. }) if machine.is_proceeding())
    }

    /// No final answer has come yet.
    pub fn client_is_open(&self, tx: ClientTx) -> bool {
        self.clients.get(&tx).is_some_and(Client::is_open)
    }

    /// Request, flow and source address of a server transaction.
    pub fn server_request(&self, tx: ServerTx) -> Option<(&Request, FlowId, SocketAddr)> {
        self.servers.get(&tx).map(|s| (&s.request, s.flow, s.from))
    }

    /// No final answer was sent yet.
    pub fn server_is_open(&self, tx: ServerTx) -> bool {
        self.servers.get(&tx).is_some_and(|server| match &server.machine {
            ServerMachine::Invite(machine) => machine.is_open(),
            ServerMachine::Other(machine) => machine.is_open(),
        })
    }

    /// A request with the same Call-ID, CSeq and From tag is being handled already: merged (RFC 3261 §8.2.2.2).
    pub fn is_merged(&self, tx: ServerTx) -> bool {
        let Some(server) = self.servers.get(&tx) else { return false };
        let identity = matching::identity(&server.request);
        self.servers
            .iter()
            .any(|(other, s)| *other != tx && s.key != server.key && matching::identity(&s.request) == identity)
    }

    /// Number of client and of server transactions, for tests of what is left behind.
    pub fn counts(&self) -> (usize, usize) {
        (self.clients.len(), self.servers.len())
    }

    fn handle_request(&mut self, now: Instant, origin: Origin, request: Request) {
        let key = ServerKey::of_request(&request);
        let known = self.server_keys.get(&key).copied();
        if request.method == Method::Ack {
            if let Some(tx) = known
                && let Some(Server { machine: ServerMachine::Invite(machine), .. }) = self.servers.get_mut(&tx)
            {
                let verdict = machine.handle_ack(now);
                self.drain_server(tx);
                if verdict == Verdict::Absorbed {
                    return;
                }
            }
            let event = LayerEvent::Ack { request: Box::new(request), flow: origin.flow, from: origin.from };
            self.outputs.push_back(LayerOutput::Event(event));
            return;
        }
        if let Some(tx) = known {
            match self.servers.get_mut(&tx).map(|s| &mut s.machine) {
                Some(ServerMachine::Invite(machine)) => machine.handle_retransmission(),
                Some(ServerMachine::Other(machine)) => machine.handle_retransmission(),
                None => {}
            }
            self.drain_server(tx);
            return;
        }
        if self.servers.len() >= TRANSACTIONS_MAX {
            tracing::warn!(limit = TRANSACTIONS_MAX, "request dropped: too many open transactions");
            return;
        }
        let tx = ServerTx(self.take_id());
        let machine = match request.method {
            Method::Invite => {
                let trying = Message::Response(request.response(100, "")).to_bytes();
                ServerMachine::Invite(ServerInvite::new(trying, origin.reliable))
            }
            _ => ServerMachine::Other(ServerOther::new(now, origin.reliable)),
        };
        self.server_keys.insert(key.clone(), tx);
        let Origin { flow, from, respond_to, reliable: _ } = origin;
        self.servers
            .insert(tx, Server { machine, key, flow, from, respond_to, request: request.clone(), deadline: None });
        self.drain_server(tx);
        self.outputs.push_back(LayerOutput::Event(LayerEvent::Request { tx, request: Box::new(request) }));
    }

    fn handle_response(&mut self, now: Instant, response: Response) {
        let tx = ClientKey::of_response(&response).and_then(|key| self.client_keys.get(&key).copied());
        let Some((tx, client)) = tx.and_then(|tx| self.clients.get_mut(&tx).map(|client| (tx, client))) else {
            self.outputs.push_back(LayerOutput::Event(LayerEvent::Stray { response: Box::new(response) }));
            return;
        };
        let request = &client.request;
        let verdict = match &mut client.machine {
            ClientMachine::Invite(machine) => machine.handle_response(now, response.status, || {
                Message::Request(make_refusal_ack(request, &response)).to_bytes()
            }),
            ClientMachine::Other(machine) => machine.handle_response(now, response.status),
        };
        if verdict == Verdict::Pass {
            self.outputs.push_back(LayerOutput::Event(LayerEvent::Response { tx, response: Box::new(response) }));
        }
        self.drain_client(tx);
    }

    fn drain_client(&mut self, tx: ClientTx) {
        let Some(client) = self.clients.get_mut(&tx) else { return };
        let deadline = loop {
            let output = match &mut client.machine {
                ClientMachine::Invite(machine) => machine.poll_output(),
                ClientMachine::Other(machine) => machine.poll_output(),
            };
            match output {
                Output::Transmit(bytes) => {
                    let Hop { flow, to } = client.hop;
                    self.outputs.push_back(LayerOutput::Transmit { flow, to, bytes });
                }
                Output::TimedOut => self.outputs.push_back(LayerOutput::Event(LayerEvent::TimedOut { tx })),
                Output::Timeout(at) => break at,
            }
        };
        if client.is_terminated() {
            self.remove_client(tx);
            self.outputs.push_back(LayerOutput::Event(LayerEvent::Ended { tx }));
            return;
        }
        let before = std::mem::replace(&mut client.deadline, deadline);
        self.set_timer(Timer::Client(tx), before, deadline);
    }

    fn drain_server(&mut self, tx: ServerTx) {
        let Some(server) = self.servers.get_mut(&tx) else { return };
        let (deadline, terminated) = loop {
            let (output, terminated) = match &mut server.machine {
                ServerMachine::Invite(machine) => (machine.poll_output(), machine.is_terminated()),
                ServerMachine::Other(machine) => (machine.poll_output(), machine.is_terminated()),
            };
            match output {
                Output::Transmit(bytes) => {
                    let (flow, to) = (server.flow, server.respond_to);
                    self.outputs.push_back(LayerOutput::Transmit { flow, to, bytes });
                }
                Output::TimedOut => self.outputs.push_back(LayerOutput::Event(LayerEvent::NoAck { tx })),
                Output::Timeout(at) => break (at, terminated),
            }
        };
        if terminated {
            self.remove_server(tx);
            return;
        }
        let before = std::mem::replace(&mut server.deadline, deadline);
        self.set_timer(Timer::Server(tx), before, deadline);
    }

    fn set_timer(&mut self, timer: Timer, before: Option<Instant>, at: Option<Instant>) {
        if let Some(before) = before {
            self.timers.remove(&(before, timer));
        }
        if let Some(at) = at {
            self.timers.insert((at, timer));
        }
    }

    fn remove_client(&mut self, tx: ClientTx) {
        if let Some(client) = self.clients.remove(&tx) {
            self.client_keys.remove(&client.key);
            self.set_timer(Timer::Client(tx), client.deadline, None);
        }
    }

    fn remove_server(&mut self, tx: ServerTx) {
        if let Some(server) = self.servers.remove(&tx) {
            self.server_keys.remove(&server.key);
            self.set_timer(Timer::Server(tx), server.deadline, None);
        }
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Client {
    fn is_open(&self) -> bool {
        match &self.machine {
            ClientMachine::Invite(machine) => machine.is_open(),
            ClientMachine::Other(machine) => machine.is_open(),
        }
    }

    fn is_terminated(&self) -> bool {
        match &self.machine {
            ClientMachine::Invite(machine) => machine.is_terminated(),
            ClientMachine::Other(machine) => machine.is_terminated(),
        }
    }
}

/// Where a request came from and where its answers go.
#[derive(Debug, Clone, Copy)]
struct Origin {
    flow: FlowId,
    from: SocketAddr,
    respond_to: SocketAddr,
    reliable: bool,
}

/// The ACK to an answer that is not 2xx, inside the INVITE transaction (RFC 3261 §17.1.1.3).
pub fn make_refusal_ack(invite: &Request, response: &Response) -> Request {
    let mut ack = Request::new(Method::Ack, invite.uri.clone());
    if let Some(via) = invite.headers.values("Via").next() {
        ack.headers.push("Via", via);
    }
    for route in invite.headers.get_all("Route") {
        ack.headers.push("Route", route);
    }
    ack.headers.push("Max-Forwards", "70");
    ack.headers.push("From", invite.headers.get("From").unwrap_or_default());
    ack.headers.push("To", response.headers.get("To").or(invite.headers.get("To")).unwrap_or_default());
    ack.headers.push("Call-ID", invite.headers.get("Call-ID").unwrap_or_default());
    let number = matching::cseq_number(&invite.headers).unwrap_or(1);
    ack.headers.push("CSeq", format!("{number} ACK"));
    ack
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    /// A fixed instant: nothing sleeps.
    #[expect(clippy::disallowed_methods, reason = "virtual time needs one instant to start from")]
    pub(crate) fn epoch() -> Instant {
        static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *EPOCH.get_or_init(Instant::now)
    }

    pub(crate) trait Machine {
        fn poll(&mut self) -> Output;
        fn time(&mut self, now: Instant);
    }

    macro_rules! machines {
        ($($machine:ty),*) => {$(
            impl Machine for $machine {
                fn poll(&mut self) -> Output {
                    self.poll_output()
                }

                fn time(&mut self, now: Instant) {
                    self.handle_timeout(now);
                }
            }
        )*};
    }
    machines!(ClientInvite, ClientOther, ServerInvite, ServerOther);

    /// Runs a machine to its end against a silent network: (time since start, output).
    pub(crate) fn run_out(machine: &mut impl Machine) -> Vec<(Duration, Output)> {
        let (mut now, mut log) = (epoch(), Vec::new());
        loop {
            match machine.poll() {
                Output::Timeout(None) => return log,
                Output::Timeout(Some(at)) => {
                    now = at;
                    machine.time(now);
                }
                done @ (Output::Transmit(_) | Output::TimedOut) => log.push((now - epoch(), done)),
            }
        }
    }

    pub(crate) fn statuses_passed(received: &[u16], mut handle: impl FnMut(u16) -> Verdict) -> Vec<u16> {
        received.iter().copied().filter(|status| handle(*status) == Verdict::Pass).collect()
    }
}
