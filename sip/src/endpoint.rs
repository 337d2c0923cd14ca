//! The user agent, RFC 3261 §8: one address of record, its registration, its calls, its requests. Sans-IO.
//!
//! ```text
//!   FlowOpened, Datagram, Stream ──▶ transport ──▶ transaction ──▶ session, dialog, register ──▶ Event
//!   Transmit, CloseFlow ◀── transport ◀── transaction ◀── session, dialog, register ◀── methods
//! ```
//!
//! This file holds the state, the clock and the inputs. The methods stand where their RFC chapter is: calls in
//! [`crate::session`], registration in [`crate::register`], sending in `send.rs`, incoming requests in `receive.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::auth::Realms;
use crate::dialog::DialogKey;
use crate::event::{
    Config, DialogId, Direction, Event, FlowId, Hop, Input, Keepalive, LegId, Output, ReferId, RequestId, Transport,
};
use crate::message::{Message, Request};
use crate::parse::parse_message;
use crate::register::Registration;
use crate::session::refer::Refer;
use crate::session::{Leg, Session};
use crate::transaction::timers::earliest;
use crate::transaction::{ClientTx, LayerEvent, LayerOutput, Transactions};
use crate::transport::flow::{Flow, Hold, PingVerdict, stamp_via};
use crate::transport::stream::Frame;

mod receive;
pub(crate) mod send;

/// Flows at once: a bot that listens on TCP has one per peer; more is a flood.
const FLOWS_MAX: usize = 1024;
/// Messages kept for the owner as [`Event::Trace`] between two drains; the oldest are dropped.
const TRACES_MAX: usize = 512;

/// Who waits for the answer to a request of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// With the CSeq number: answers to an older REGISTER are of no interest.
    Register(u32),
    Invite(LegId),
    Reinvite(DialogId),
    Update(DialogId),
    Bye(DialogId),
    Prack(DialogId),
    Cancel,
    /// NOTIFY about a transfer.
    Notify(ReferId),
    InDialog(DialogId, RequestId),
    Request(RequestId),
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) owner: Owner,
    /// As sent, with Via and credentials.
    pub(crate) request: Request,
    pub(crate) hop: Hop,
    /// How often it was sent again with other credentials or intervals.
    pub(crate) retries: u8,
    /// Realms answered on the way.
    pub(crate) tried: crate::auth::Tried,
}

/// A subscription that waits for its NOTIFY (RFC 6665 §4.1.2.4).
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) request: RequestId,
    pub(crate) local_tag: String,
    pub(crate) until: Instant,
}

/// One user agent. Methods answer at once; results come as events.
pub struct Endpoint {
    pub(crate) config: Config,
    pub(crate) rng: ChaCha20Rng,
    /// `urn:uuid:…`
    pub(crate) instance: String,
    pub(crate) flows: BTreeMap<FlowId, Flow>,
    pub(crate) holds: BTreeMap<(FlowId, SocketAddr), Hold>,
    pub(crate) transactions: Transactions,
    pub(crate) pending: BTreeMap<ClientTx, Pending>,
    pub(crate) realms: Realms,
    pub(crate) registration: Option<Registration>,
    pub(crate) legs: BTreeMap<LegId, Leg>,
    pub(crate) sessions: BTreeMap<DialogId, Session>,
    pub(crate) dialogs: BTreeMap<DialogKey, DialogId>,
    pub(crate) refers: BTreeMap<ReferId, Refer>,
    /// By Call-ID.
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    next_id: u64,
    /// Filled by one input or method, drained after it.
    outputs: VecDeque<Output>,
    traces: usize,
}

/// Requests and descriptions hold digests and keys, so that only the state is shown.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("flows", &self.flows.keys())
            .field("legs", &self.legs.keys())
            .field("sessions", &self.sessions.keys())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// `seed` decides every tag, branch, Call-ID and jittered interval.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let instance = config.instance.clone().unwrap_or_else(|| make_urn(&mut rng));
        Self {
            realms: Realms::new(config.accounts.clone()),
            config,
            rng,
            instance,
            flows: BTreeMap::new(),
            holds: BTreeMap::new(),
            transactions: Transactions::new(),
            pending: BTreeMap::new(),
            registration: None,
            legs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            refers: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            next_id: 0,
            outputs: VecDeque::new(),
            traces: 0,
        }
    }

    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::FlowOpened { flow, transport, local, remote } => {
                if self.flows.len() >= FLOWS_MAX {
                    self.push(Output::CloseFlow(flow));
                } else {
                    self.flows.insert(flow, Flow::new(transport, local, remote));
                }
            }
            Input::FlowClosed { flow, cause } => self.lose_flow(now, flow, &cause),
            Input::Datagram { flow, from, bytes } => {
                // Anything that does not begin with a letter is no SIP: STUN, or a keep-alive (RFC 5626 §3.5).
                if self.flows.contains_key(&flow) && bytes.first().is_some_and(u8::is_ascii_alphabetic) {
                    self.receive(now, flow, from, bytes);
                }
            }
            Input::Stream { flow, bytes } => self.receive_stream(now, flow, bytes),
            Input::Timeout => self.handle_timeout(now),
        }
        self.settle(now);
    }

    /// Changes [`Config::udp_limit_bytes`]: `None` sends large requests in fragments, for a peer that has no TCP.
    pub fn set_udp_limit(&mut self, limit_bytes: Option<usize>) {
        self.config.udp_limit_bytes = limit_bytes;
    }

    /// What to do next. [`Output::Timeout`] says that there is nothing more for now.
    pub fn poll_output(&mut self) -> Output {
        match self.outputs.pop_front() {
            Some(output) => {
                if matches!(output, Output::Event(Event::Trace { .. })) {
                    self.traces = self.traces.saturating_sub(1);
                }
                output
            }
            None => Output::Timeout(self.deadline()),
        }
    }

    /// Keep-alive of a UDP hop. A registered hop has [`Keepalive::Crlf`] unless told otherwise here.
    pub fn set_keepalive(&mut self, now: Instant, hop: Hop, keepalive: Keepalive) {
        let hold = Hold::new(now, keepalive, &mut self.rng);
        self.holds.insert((hop.flow, hop.to), hold);
    }

    /// Asks the other end of a stream for a sign of life, if it is known to answer pings (RFC 5626 §4.4.1); without one within
    /// `patience` the flow is dead ([`Event::FlowDead`]).
    pub fn ask_for_pong(&mut self, now: Instant, flow: FlowId, patience: Duration) {
        let Some(of) = self.flows.get_mut(&flow) else { return };
        let (Some(pings), Some(to)) = (&mut of.pings, of.remote) else { return };
        if pings.ask(now, patience) {
            self.outputs.push_back(Output::Transmit { flow, to, bytes: b"\r\n\r\n".to_vec() });
        }
    }

    /// The Contact that dialogs on `flow` carry now.
    pub fn contact(&self, flow: FlowId) -> Option<String> {
        self.flows.contains_key(&flow).then(|| self.contact_value(flow))
    }

    /// Nothing is registered, called or waiting: for tests of what is left behind, and for a clean end.
    pub fn is_idle(&self) -> bool {
        self.registration.as_ref().is_none_or(Registration::is_off)
            && self.legs.is_empty()
            && self.sessions.is_empty()
            && self.pending.is_empty()
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(crate) fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// 64 random bits as text: tags, branches, Call-IDs (RFC 3261 §19.3 asks for 32).
    pub(crate) fn token(&mut self) -> String {
        format!("{:016x}", self.rng.random::<u64>())
    }

    pub(crate) fn transport_of(&self, flow: FlowId) -> Transport {
        self.flows.get(&flow).map_or(Transport::Udp, |flow| flow.transport)
    }

    pub(crate) fn transmit(&mut self, flow: FlowId, to: SocketAddr, bytes: Vec<u8>) {
        self.trace(Direction::Sent, flow, to, &bytes);
        self.push(Output::Transmit { flow, to, bytes });
    }

    /// Carries out what the transactions want, until they want nothing. Ends every input and every method.
    pub(crate) fn settle(&mut self, now: Instant) {
        loop {
            match self.transactions.poll_output() {
                LayerOutput::Transmit { flow, to, bytes } => self.transmit(flow, to, bytes),
                LayerOutput::Event(event) => self.handle_layer_event(now, event),
                LayerOutput::Timeout(_) => return,
            }
        }
    }

    fn handle_layer_event(&mut self, now: Instant, event: LayerEvent) {
        match event {
            LayerEvent::Request { tx, request } => self.handle_request(now, tx, &request),
            LayerEvent::Ack { request, .. } => self.handle_ack(now, &request),
            LayerEvent::Response { tx, response } => self.handle_response(now, tx, &response, false),
            LayerEvent::TimedOut { tx } => self.handle_no_answer(now, tx, 408, "nobody answered for 32 s"),
            LayerEvent::FlowLost { tx, cause } => self.handle_no_answer(now, tx, 503, &cause),
            LayerEvent::Ended { tx } => self.forget_request(tx),
            LayerEvent::Stray { .. } => tracing::trace!("response without a request dropped"),
            LayerEvent::NoAck { .. } => tracing::debug!("no ACK came for a refusal"),
        }
    }

    fn receive_stream(&mut self, now: Instant, id: FlowId, bytes: &[u8]) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let Some(remote) = flow.remote else { return };
        flow.framer.push(bytes);
        loop {
            let Some(flow) = self.flows.get_mut(&id) else { return };
            match flow.framer.next_frame() {
                Ok(Some(Frame::Message(message))) => self.receive(now, id, remote, &message),
                Ok(Some(Frame::Ping)) => self.push(Output::Transmit { flow: id, to: remote, bytes: b"\r\n".to_vec() }),
                Ok(Some(Frame::Pong)) => {
                    if let Some(pings) = &mut flow.pings {
                        pings.pong();
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.kill_flow(now, id, &format!("{remote} sent what is not SIP: {error}"));
                    return;
                }
            }
            self.settle(now);
        }
    }

    fn receive(&mut self, now: Instant, flow: FlowId, from: SocketAddr, bytes: &[u8]) {
        self.trace(Direction::Received, flow, from, bytes);
        let transport = self.transport_of(flow);
        let mut message = match parse_message(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%from, %error, "message dropped");
                if let Some(request) = error.request {
                    self.refuse_unparsed(flow, from, *request, error.status, &error.reason);
                }
                return;
            }
        };
        let respond_to = match &mut message {
            Message::Request(request) => match receive::fault(request) {
                None => stamp_via(request, transport, from),
                Some(reason) => {
                    tracing::debug!(%from, reason, "request refused");
                    self.refuse_unparsed(flow, from, request.clone(), 400, &reason);
                    None
                }
            },
            Message::Response(_) => Some(from),
        };
        if let Some(respond_to) = respond_to {
            let reliable = transport.is_reliable();
            self.transactions.handle_message(now, flow, from, respond_to, reliable, message);
        }
    }

    /// Answers a request that no transaction can be made of (RFC 3261 §8.2.6.1 statelessly).
    fn refuse_unparsed(&mut self, flow: FlowId, from: SocketAddr, mut request: Request, status: u16, reason: &str) {
        if request.method == crate::message::Method::Ack {
            return;
        }
        let Some(to) = stamp_via(&mut request, self.transport_of(flow), from) else { return };
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(80).collect();
        let mut response = request.response(status, &reason);
        if let Ok(to_header) = response.headers.to()
            && to_header.tag().is_none()
        {
            let tag = self.token();
            response.headers.set("To", to_header.with_tag(&tag).to_string());
        }
        self.transmit(flow, to, response.to_bytes());
    }

    /// The flow does not work any more: tell the owner to close it, and everybody who waits on it.
    fn kill_flow(&mut self, now: Instant, flow: FlowId, cause: &str) {
        self.push(Output::CloseFlow(flow));
        self.emit(Event::FlowDead { flow, cause: cause.to_owned() });
        self.lose_flow(now, flow, cause);
    }

    fn lose_flow(&mut self, now: Instant, flow: FlowId, cause: &str) {
        if self.flows.remove(&flow).is_none() {
            return;
        }
        self.holds.retain(|(id, _), _| *id != flow);
        self.transactions.flow_closed(flow, cause);
        self.settle(now);
        self.lose_incoming_calls(flow, cause);
        self.lose_registration(now, flow, cause);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.transactions.handle_timeout(now);
        self.settle(now);
        self.run_keepalives(now);
        self.run_provisionals(now);
        self.run_sessions(now);
        self.run_registration(now);
        self.subscriptions.retain(|_, subscription| subscription.until > now);
    }

    fn run_keepalives(&mut self, now: Instant) {
        let mut dead = Vec::new();
        for (id, flow) in &mut self.flows {
            let (Some(pings), Some(to)) = (&mut flow.pings, flow.remote) else { continue };
            match pings.handle_timeout(now) {
                PingVerdict::Nothing => {}
                PingVerdict::Ping => {
                    self.outputs.push_back(Output::Transmit { flow: *id, to, bytes: b"\r\n\r\n".to_vec() });
                }
                PingVerdict::Dead => dead.push((*id, to)),
            }
        }
        for (id, to) in dead {
            self.kill_flow(now, id, &format!("{to} did not answer a keep-alive in time (RFC 5626 §4.4.1)"));
        }
        for ((flow, to), hold) in &mut self.holds {
            if let Some(bytes) = hold.handle_timeout(now, &mut self.rng) {
                self.outputs.push_back(Output::Transmit { flow: *flow, to: *to, bytes });
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let flows = self.flows.values().filter_map(|flow| flow.pings.map(|pings| pings.deadline()));
        let holds = self.holds.values().filter(|hold| hold.keepalive != Keepalive::Off).map(|hold| hold.at);
        let legs = self.legs.values().filter_map(Leg::deadline);
        let sessions = self.sessions.values().filter_map(Session::deadline);
        let subscriptions = self.subscriptions.values().map(|subscription| subscription.until);
        let own = flows.chain(holds).chain(legs).chain(sessions).chain(subscriptions).min();
        let registration = self.registration.as_ref().and_then(Registration::deadline);
        earliest(earliest(own, registration), self.transactions.deadline())
    }

    fn trace(&mut self, direction: Direction, flow: FlowId, peer: SocketAddr, bytes: &[u8]) {
        if !self.config.trace || self.traces >= TRACES_MAX {
            return;
        }
        self.traces += 1;
        self.emit(Event::Trace { direction, flow, peer, bytes: bytes.to_vec() });
    }

    /// A random duration below `limit`.
    pub(crate) fn random_below(&mut self, limit: Duration) -> Duration {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(self.rng.random_range(0..limit))
    }
}

/// A random UUID as URN (RFC 5626 §4.1, RFC 9562 §5.4).
fn make_urn(rng: &mut ChaCha20Rng) -> String {
    let bits = rng.random::<u128>() & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("urn:uuid:{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests;
