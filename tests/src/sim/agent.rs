//! A bare `ice::Agent` as a host: what it is told, what it said when, and media packets on every path it has.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ice::{Agent, Component, Config, Event, LocalDescription, Path, PathCause, PeerId, RemoteDescription, Role};
use ice::{SocketId, StreamId, TcpId};

use super::clock::ms;
use super::host::{Input, Output, Program, StreamEnd, Tls};
use super::tcp::ACCEPTED_FROM;

/// Media goes out in packets of this length in time.
const PACKET_INTERVAL: Duration = ms(20);

pub struct AgentHost {
    agent: Agent,
    outputs: VecDeque<Output>,
    deadline: Option<Instant>,
    next_packet: Option<Instant>,
    sent: u32,
    peer: Option<PeerId>,
    pub log: Vec<(Instant, Event)>,
    facts: Vec<String>,
    /// First packet from the other side, per component.
    pub first_media: BTreeMap<Component, Instant>,
    pub received: u32,
    /// Media that came twice or out of order; the paths of one session must not do that on a clean network.
    pub disordered: u32,
    last_received: BTreeMap<Component, u32>,
}

impl AgentHost {
    pub fn new(now: Instant, config: Config, seed: [u8; 32]) -> Self {
        Self {
            agent: Agent::new(now, config, seed),
            outputs: VecDeque::new(),
            deadline: None,
            next_packet: None,
            sent: 0,
            peer: None,
            log: Vec::new(),
            facts: Vec::new(),
            first_media: BTreeMap::new(),
            received: 0,
            disordered: 0,
            last_received: BTreeMap::new(),
        }
    }

    pub fn gather(&mut self, now: Instant) {
        self.agent.gather(now);
        self.pump(now);
    }

    /// Starts checks with the other side, takes it as the only one, and sends media from now on.
    pub fn start(&mut self, now: Instant, remote: RemoteDescription, role: Role) -> PeerId {
        let peer = self.agent.add_remote(now, remote, role);
        let _ = self.agent.choose(now, peer);
        self.peer = Some(peer);
        self.next_packet = Some(now);
        self.pump(now);
        peer
    }

    pub fn stop_media(&mut self) {
        self.next_packet = None;
    }

    pub fn close(&mut self, now: Instant) {
        self.next_packet = None;
        self.agent.close(now);
        self.pump(now);
    }

    /// Direct access, for what a test does to an agent in the middle of a session.
    pub fn act<R>(&mut self, now: Instant, act: impl FnOnce(&mut Agent) -> R) -> R {
        let result = act(&mut self.agent);
        self.pump(now);
        result
    }

    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The last description gathered.
    pub fn local(&self) -> Option<&LocalDescription> {
        self.log.iter().rev().find_map(|(_, event)| match event {
            Event::Gathered { local, .. } => Some(local),
            _ => None,
        })
    }

    pub fn path(&self, component: Component) -> Option<Path> {
        self.agent.path(self.peer?, component)
    }

    /// When every component had its nominated pair, and which.
    pub fn concluded(&self) -> Option<(Instant, &[Path])> {
        self.log.iter().find_map(|(at, event)| match event {
            Event::Concluded { selected, .. } => Some((*at, selected.as_slice())),
            _ => None,
        })
    }

    pub fn failed(&self) -> bool {
        self.log.iter().any(|(_, event)| matches!(event, Event::Failed { .. }))
    }

    pub fn closed(&self) -> bool {
        self.log.iter().any(|(_, event)| matches!(event, Event::Closed))
    }

    /// How often sending moved, with the causes.
    pub fn path_changes(&self, component: Component) -> Vec<PathCause> {
        let of_component = |event: &Event| match event {
            Event::PathChanged { component: of, cause, .. } if *of == component => Some(*cause),
            _ => None,
        };
        self.log.iter().filter_map(|(_, event)| of_component(event)).collect()
    }

    fn pump(&mut self, now: Instant) {
        loop {
            let output = match self.agent.poll_output() {
                ice::Output::OpenSocket { id, bind } => Output::OpenSocket { id: u64::from(id.0), bind },
                ice::Output::CloseSocket(id) => Output::CloseSocket { id: u64::from(id.0) },
                ice::Output::Listen { id, bind } => Output::Listen { id: u64::from(id.0), bind, tls: Tls::Plain },
                ice::Output::CloseListener(id) => Output::CloseListener { id: u64::from(id.0) },
                ice::Output::OpenStream { id, from, to, tls } => {
                    Output::OpenStream { id: u64::from(id.0), from, to, tls: tls.map(|name| vec![name]) }
                }
                ice::Output::CloseStream(id) => Output::CloseStream { id: from_agent(id) },
                ice::Output::Transmit { socket, to, payload } => {
                    Output::Transmit { socket: u64::from(socket.0), to, payload }
                }
                ice::Output::StreamSend { id, payload } => Output::StreamSend { id: from_agent(id), bytes: payload },
                ice::Output::Data { component, payload, .. } => {
                    self.take_media(now, component, &payload);
                    continue;
                }
                ice::Output::Event(event) => {
                    self.note(now, event);
                    continue;
                }
                ice::Output::Timeout(at) => {
                    self.deadline = at;
                    return;
                }
            };
            self.outputs.push_back(output);
        }
    }

    fn note(&mut self, now: Instant, event: Event) {
        self.facts.push(match &event {
            Event::Gathered { local, failures, .. } => {
                format!("gathered {} candidates, {} servers failed", local.candidates.len(), failures.len())
            }
            Event::PairValid { component, path, .. } => format!("pair valid {component} {path}"),
            Event::PathChanged { component, path, cause, .. } => format!("path {component} {path} {cause:?}"),
            Event::Concluded { .. } => "concluded".to_owned(),
            Event::Failed { report, .. } => format!("failed\n{report}"),
            other => format!("{other:?}"),
        });
        self.log.push((now, event));
    }

    fn take_media(&mut self, now: Instant, component: Component, payload: &[u8]) {
        let Some(number) = payload.get(12..16).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes) else {
            return;
        };
        self.received += 1;
        self.first_media.entry(component).or_insert(now);
        let last = self.last_received.insert(component, number);
        if last.is_some_and(|last| last >= number) {
            self.disordered += 1;
        }
    }

    /// RTP on component 1, RTCP on component 2, as far as their first bytes go, with a running number.
    fn send_media(&mut self, now: Instant) {
        self.sent += 1;
        for (component, first) in [(Component::Rtp, [0x80, 96]), (Component::Rtcp, [0x80, 200])] {
            let mut packet = vec![0; 16];
            packet[..2].copy_from_slice(&first);
            packet[12..].copy_from_slice(&self.sent.to_be_bytes());
            let _ = self.agent.send(now, component, &packet);
        }
        self.next_packet = Some(now + PACKET_INTERVAL);
    }
}

impl Program for AgentHost {
    fn handle(&mut self, now: Instant, input: Input<'_>) {
        let socket = |id: u64| SocketId(u32::try_from(id).expect("an id of the agent"));
        let stream = |id: u64| StreamId(to_agent(id));
        let listener = |id: u64| TcpId(u32::try_from(id).expect("an id of the agent"));
        let input = match input {
            Input::Datagram { socket: id, from, payload } => ice::Input::Datagram { socket: socket(id), from, payload },
            Input::SocketOpened { id, local } => ice::Input::SocketOpened { id: socket(id), local },
            Input::SocketFailed { id, cause } => ice::Input::SocketFailed { id: socket(id), cause },
            Input::StreamOpened { id, local, remote } => ice::Input::StreamOpened { id: stream(id), local, remote },
            Input::StreamData { id, bytes } => ice::Input::StreamData { id: stream(id), bytes },
            Input::StreamClosed { id, cause } => ice::Input::StreamClosed { id: stream(id), cause: end_text(&cause) },
            Input::Listening { id, local } => ice::Input::Listening { id: listener(id), local },
            Input::StreamAccepted { listener: at, id, local, remote, .. } => {
                ice::Input::StreamAccepted { listener: listener(at), id: stream(id), local, remote }
            }
            Input::Timeout => {
                if self.next_packet.is_some_and(|at| at <= now) {
                    self.send_media(now);
                }
                ice::Input::Timeout
            }
        };
        self.agent.handle_input(now, input);
        self.pump(now);
    }

    fn poll(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| {
            let deadlines = [self.deadline, self.next_packet];
            Output::Timeout(deadlines.into_iter().flatten().min())
        })
    }

    fn facts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.facts)
    }
}

/// Accepted streams count from 2^31 for an agent, and from another number for the network.
fn to_agent(id: u64) -> u32 {
    let own = id.checked_sub(ACCEPTED_FROM).map_or(id, |accepted| accepted + (1 << 31));
    u32::try_from(own).expect("an id of the agent")
}

fn from_agent(id: StreamId) -> u64 {
    let id = u64::from(id.0);
    id.checked_sub(1 << 31).map_or(id, |accepted| accepted + ACCEPTED_FROM)
}

fn end_text(end: &StreamEnd) -> String {
    match end {
        StreamEnd::Refused => "connection refused".to_owned(),
        StreamEnd::TimedOut => "connection timed out".to_owned(),
        StreamEnd::Certificate(cause) => format!("TLS: {cause}"),
        StreamEnd::Reset => "connection reset".to_owned(),
        StreamEnd::Closed => "closed by the other side".to_owned(),
    }
}

/// What one side's description is to the other.
pub fn as_remote(local: &LocalDescription, rtcp_mux: bool) -> RemoteDescription {
    RemoteDescription {
        ufrag: local.ufrag.clone(),
        pwd: local.pwd.clone(),
        candidates: local.candidates.clone(),
        lite: false,
        ice2: local.options.contains(&"ice2"),
        renomination: local.options.contains(&"renomination"),
        pacing: Some(local.pacing),
        rtcp_mux,
    }
}

/// The configuration of an agent on `address` with these servers.
pub fn config(address: IpAddr, servers: Vec<ice::Server>) -> Config {
    Config { interfaces: vec![address], servers, ..Config::default() }
}
