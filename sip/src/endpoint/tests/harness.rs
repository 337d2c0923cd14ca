//! A small network: endpoints and scripted peers on addresses, latency, loss, and a clock that jumps.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::endpoint::Endpoint;
use crate::event::{Account, Config, DialogId, Event, FlowId, Hop, Input, Invite, LegId, Output, Secret, Transport};
use crate::message::{Message, Method, Request, Response};
use crate::parse::parse_message;
use crate::transaction::tests::epoch;

pub(super) const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
pub(super) const ANSWER: &str =
    "v=0\r\no=- 2 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\n";

/// A version of `sdp` that says something else.
pub(super) fn changed(sdp: &str) -> String {
    sdp.replace(" 1 IN IP4", " 2 IN IP4")
}

/// What a scripted peer answers to a message: each with its delay.
pub(super) type Script = Box<dyn FnMut(&Message) -> Vec<(Duration, Message)>>;

enum Node {
    Phone { endpoint: Box<Endpoint>, events: Vec<(Duration, Event)> },
    Peer { script: Script, received: Vec<(Duration, Message)> },
}

struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// The network. Phone `n` has the address `10.0.0.n:5060`.
pub(super) struct World {
    pub(super) now: Instant,
    nodes: BTreeMap<SocketAddr, Node>,
    wire: BTreeMap<(Instant, u64), Packet>,
    sequence: u64,
    pub(super) latency: Duration,
    pub(super) loss_percent: u32,
    /// Datagrams in which one byte is changed.
    pub(super) noise_percent: u32,
    /// Datagrams whose bytes begin like this are lost once per entry.
    pub(super) lose: Vec<&'static str>,
    transport: Transport,
    /// The flow of phones on which streams arrive.
    pub(super) flow: FlowId,
    rng: ChaCha20Rng,
    /// Start lines in the order of sending, with sender.
    pub(super) ladder: Vec<(Duration, SocketAddr, String)>,
}

pub(super) fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 5060))
}

pub(super) fn hop(number: u8) -> Hop {
    Hop { flow: FlowId(1), to: address(number) }
}

pub(super) fn config(user: &str) -> Config {
    let password = Secret::new("secret");
    Config {
        user: user.to_owned(),
        accounts: vec![Account { realm: None, user: user.to_owned(), password }],
        udp_limit_bytes: None,
        ..Config::default()
    }
}

impl World {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            now: epoch(),
            nodes: BTreeMap::new(),
            wire: BTreeMap::new(),
            sequence: 0,
            latency: Duration::from_millis(20),
            loss_percent: 0,
            noise_percent: 0,
            lose: Vec::new(),
            transport,
            flow: FlowId(1),
            rng: ChaCha20Rng::from_seed([9; 32]),
            ladder: Vec::new(),
        }
    }

    /// Another course of loss and noise.
    pub(super) fn reseed(&mut self, seed: u8) {
        self.rng = ChaCha20Rng::from_seed([seed; 32]);
    }

    /// Two phones, `alice` on 1 and `bob` on 2. A stream flow of one leads to the other.
    pub(super) fn pair(transport: Transport) -> Self {
        let mut world = Self::new(transport);
        world.add_phone(1, config("alice"), Some(address(2)));
        world.add_phone(2, config("bob"), Some(address(1)));
        world
    }

    pub(super) fn add_phone(&mut self, number: u8, config: Config, remote: Option<SocketAddr>) {
        let mut endpoint = Endpoint::new(config, [number; 32]);
        let remote = remote.filter(|_| self.transport.is_reliable());
        let opened = Input::FlowOpened { flow: FlowId(1), transport: self.transport, local: address(number), remote };
        endpoint.handle_input(self.now, opened);
        self.nodes.insert(address(number), Node::Phone { endpoint: Box::new(endpoint), events: Vec::new() });
    }

    pub(super) fn add_peer(&mut self, number: u8, script: impl FnMut(&Message) -> Vec<(Duration, Message)> + 'static) {
        self.nodes.insert(address(number), Node::Peer { script: Box::new(script), received: Vec::new() });
    }

    /// Calls a method of a phone and carries out what it wants.
    pub(super) fn with<T>(&mut self, number: u8, act: impl FnOnce(&mut Endpoint, Instant) -> T) -> T {
        let now = self.now;
        let result = act(self.endpoint(number), now);
        self.drain(address(number));
        result
    }

    pub(super) fn endpoint(&mut self, number: u8) -> &mut Endpoint {
        match self.nodes.get_mut(&address(number)) {
            Some(Node::Phone { endpoint, .. }) => endpoint,
            _ => panic!("{number} is no phone"),
        }
    }

    /// Sends a message from anywhere, as a scripted peer out of turn does.
    pub(super) fn inject(&mut self, from: u8, to: u8, bytes: Vec<u8>) {
        self.send(address(from), address(to), bytes, Duration::ZERO);
    }

    /// What a scripted peer received.
    pub(super) fn received(&self, number: u8) -> Vec<&Message> {
        match self.nodes.get(&address(number)) {
            Some(Node::Peer { received, .. }) => received.iter().map(|(_, message)| message).collect(),
            _ => panic!("{number} is no peer"),
        }
    }

    pub(super) fn received_requests(&self, number: u8, method: &Method) -> Vec<&Request> {
        let requests = self.received(number).into_iter().filter_map(|message| match message {
            Message::Request(request) => Some(request),
            Message::Response(_) => None,
        });
        requests.filter(|request| request.method == *method).collect()
    }

    /// Lets time pass, from event to event.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let phones = self.nodes.iter_mut().filter_map(|(at, node)| match node {
                Node::Phone { endpoint, .. } => match endpoint.poll_output() {
                    Output::Timeout(due) => due.map(|due| (due, *at)),
                    other => panic!("not drained: {other:?}"),
                },
                Node::Peer { .. } => None,
            });
            let timer = phones.min();
            let packet = self.wire.keys().next().copied();
            match (timer, packet) {
                (_, Some((at, sequence))) if at <= end && timer.is_none_or(|(due, _)| at <= due) => {
                    self.now = self.now.max(at);
                    if let Some(packet) = self.wire.remove(&(at, sequence)) {
                        self.deliver(packet);
                    }
                }
                (Some((due, phone)), _) if due <= end => {
                    self.now = self.now.max(due);
                    self.input(phone, Input::Timeout);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    pub(super) fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Takes the events of a phone.
    pub(super) fn events(&mut self, number: u8) -> Vec<Event> {
        match self.nodes.get_mut(&address(number)) {
            Some(Node::Phone { events, .. }) => std::mem::take(events).into_iter().map(|(_, event)| event).collect(),
            _ => panic!("{number} is no phone"),
        }
    }

    /// Takes the events and returns the first that fits.
    pub(super) fn expect<T>(&mut self, number: u8, fits: impl Fn(&Event) -> Option<T>) -> T {
        let events = self.events(number);
        match events.iter().find_map(fits) {
            Some(found) => found,
            None => panic!("not among {events:#?}\n{}", self.show_ladder()),
        }
    }

    pub(super) fn show_ladder(&self) -> String {
        let lines = self.ladder.iter().map(|(at, from, line)| format!("{:>9.3} {from} {line}", at.as_secs_f64()));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// How often `from` sent something that begins like this.
    pub(super) fn sent(&self, from: u8, start: &str) -> usize {
        self.ladder.iter().filter(|(_, sender, line)| *sender == address(from) && line.starts_with(start)).count()
    }

    pub(super) fn input(&mut self, to: SocketAddr, input: Input<'_>) {
        let now = self.now;
        if let Some(Node::Phone { endpoint, .. }) = self.nodes.get_mut(&to) {
            endpoint.handle_input(now, input);
        }
        self.drain(to);
    }

    fn drain(&mut self, at: SocketAddr) {
        let since = self.now - epoch();
        let mut sent = Vec::new();
        if let Some(Node::Phone { endpoint, events }) = self.nodes.get_mut(&at) {
            loop {
                match endpoint.poll_output() {
                    Output::Transmit { to, bytes, .. } => sent.push((to, bytes)),
                    Output::Event(event) => events.push((since, event)),
                    Output::CloseFlow(_) => {}
                    Output::Timeout(_) => break,
                }
            }
        }
        for (to, bytes) in sent {
            self.send(at, to, bytes, Duration::ZERO);
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, mut bytes: Vec<u8>, delay: Duration) {
        let line = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
        self.ladder.push((self.now - epoch(), from, line.clone()));
        if !self.transport.is_reliable() {
            let dropped = self.rng.random_range(0..100) < self.loss_percent;
            let named = self.lose.iter().position(|start| line.starts_with(start));
            if let Some(position) = named {
                self.lose.remove(position);
            }
            if dropped || named.is_some() {
                return;
            }
            if self.rng.random_range(0..100) < self.noise_percent {
                let position = self.rng.random_range(0..bytes.len().max(1));
                let byte = self.rng.random();
                if let Some(slot) = bytes.get_mut(position) {
                    *slot = byte;
                }
            }
        }
        self.sequence += 1;
        let at = self.now + self.latency + delay;
        self.wire.insert((at, self.sequence), Packet { from, to, bytes });
    }

    fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, bytes } = packet;
        let since = self.now - epoch();
        match self.nodes.get_mut(&to) {
            Some(Node::Phone { .. }) => {
                let flow = self.flow;
                let input = if self.transport.is_reliable() {
                    Input::Stream { flow, bytes: &bytes }
                } else {
                    Input::Datagram { flow, from, bytes: &bytes }
                };
                self.input(to, input);
            }
            Some(Node::Peer { script, received }) => {
                let Ok(message) = parse_message(&bytes) else { return };
                let answers = script(&message);
                received.push((since, message));
                for (delay, answer) in answers {
                    self.send(to, from, answer.to_bytes(), delay);
                }
            }
            None => {}
        }
    }

    /// Sets up a call from 1 to 2 with SDP both ways; legs and dialogs of caller and callee.
    pub(super) fn call(&mut self) -> (DialogId, DialogId) {
        self.invite();
        self.seconds(1);
        let (leg, callee) = self.expect(2, incoming);
        self.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned())).unwrap();
        self.seconds(1);
        let caller = self.expect(1, |event| match event {
            Event::Answered { dialog, sdp: Some(sdp), offer: false, .. } if sdp == ANSWER => Some(*dialog),
            _ => None,
        });
        self.expect(2, |event| matches!(event, Event::Confirmed { dialog, .. } if *dialog == callee).then_some(()));
        (caller, callee)
    }

    pub(super) fn invite(&mut self) -> LegId {
        let invite = Invite {
            target: "sip:bob@10.0.0.2".parse().unwrap(),
            hop: hop(2),
            sdp: Some(OFFER.to_owned()),
            headers: Vec::new(),
        };
        self.with(1, |phone, now| phone.invite(now, invite)).unwrap()
    }

    /// Asserts that nothing is left behind 70 s later.
    pub(super) fn assert_idle(&mut self, numbers: &[u8]) {
        self.loss_percent = 0;
        self.seconds(70);
        for number in numbers {
            let endpoint = self.endpoint(*number);
            let forgotten =
                endpoint.dialogs.is_empty() && endpoint.refers.is_empty() && endpoint.subscriptions.is_empty();
            assert!(forgotten && endpoint.is_idle(), "phone {number} holds {endpoint:#?}");
            assert_eq!(endpoint.transactions.counts(), (0, 0), "phone {number}");
        }
    }
}

pub(super) fn incoming(event: &Event) -> Option<(LegId, DialogId)> {
    match event {
        Event::Incoming(incoming) => Some((incoming.leg, incoming.dialog)),
        _ => None,
    }
}

/// An answer of a scripted peer with To tag, Contact and SDP.
pub(super) fn answer(request: &Request, status: u16, tag: &str, sdp: Option<&str>) -> Response {
    let mut response = request.response(status, "");
    let to = response.headers.to().unwrap();
    if !tag.is_empty() && to.tag().is_none() {
        response.headers.set("To", to.with_tag(tag).to_string());
    }
    response.headers.push("Contact", "<sip:peer@10.0.0.9:5060>");
    if let Some(sdp) = sdp {
        response.set_body("application/sdp", sdp.as_bytes().to_vec());
    }
    response
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
