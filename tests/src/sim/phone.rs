//! A whole phone as a host: a `client::core::Core`, with a stub resolver that asks the simulated DNS.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use client::api::{CallChange, CallId, Command, EventBody};
use client::core::{
    Answer, Core, CoreConfig, ListenerId, NaptrRecord, RecordKind, ResolveId, SocketId, SrvRecord, StreamError,
    StreamId,
};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use super::clock::secs;
use super::host::{Input, Output, Program, StreamEnd, Tls};

/// The resolver's own socket; the core's ids are small.
const DNS_SOCKET: u64 = u64::MAX;
/// Set in the core's ids of streams that came in.
const ACCEPTED_BIT: u64 = 1 << 63;

/// A question is asked this often, a second apart.
const DNS_TRIES: u32 = 3;
const DNS_WAIT: Duration = secs(1);

/// Sound kept per call: ten minutes of 48 kHz mono.
const HEARD_MAX: usize = 600 * 48_000;

/// Seconds since 1970 at the start of every run: credentials and reports carry it.
pub const UNIX_START: Duration = secs(1_790_000_000);

#[derive(Debug)]
struct Question {
    id: ResolveId,
    name: String,
    kind: RecordKind,
    tries: u32,
    again_at: Instant,
}

pub struct PhoneHost {
    core: Core,
    address: IpAddr,
    dns: Option<SocketAddr>,
    dns_ready: bool,
    outputs: VecDeque<Output>,
    deadline: Option<Instant>,
    questions: BTreeMap<u16, Question>,
    asked: u16,
    pub log: Vec<(Instant, EventBody)>,
    facts: Vec<String>,
    /// What came out of the loudspeaker, 48 kHz mono.
    pub heard: BTreeMap<CallId, Vec<i16>>,
    /// When media came in.
    pub media_at: Vec<Instant>,
}

impl PhoneHost {
    pub fn new(now: Instant, address: IpAddr, dns: Option<SocketAddr>, seed: [u8; 32]) -> Self {
        let core = Core::new(now, CoreConfig { user_agent: "icephone/sim".to_owned(), unix_time: UNIX_START }, seed);
        let mut phone = Self {
            core,
            address,
            dns,
            dns_ready: false,
            outputs: VecDeque::from([Output::OpenSocket { id: DNS_SOCKET, bind: SocketAddr::new(address, 0) }]),
            deadline: None,
            questions: BTreeMap::new(),
            asked: 0,
            log: Vec::new(),
            facts: Vec::new(),
            heard: BTreeMap::new(),
            media_at: Vec::new(),
        };
        phone.core.handle_input(now, client::core::Input::Interfaces(vec![address]));
        phone.pump(now);
        phone
    }

    pub fn command(&mut self, now: Instant, command: Command) {
        self.core.handle_input(now, client::core::Input::Command(command));
        self.pump(now);
    }

    /// The host has other addresses now; the resolver gets a socket there.
    pub fn readdress(&mut self, now: Instant, address: IpAddr) {
        self.address = address;
        self.dns_ready = false;
        self.outputs.push_back(Output::CloseSocket { id: DNS_SOCKET });
        self.outputs.push_back(Output::OpenSocket { id: DNS_SOCKET, bind: SocketAddr::new(address, 0) });
        self.core.handle_input(now, client::core::Input::Interfaces(vec![address]));
        self.pump(now);
    }

    /// The longest time without a media packet since `from`, counted from the last one before it.
    pub fn media_gap(&self, from: Instant, now: Instant) -> Duration {
        let before = self.media_at.iter().copied().filter(|at| *at <= from).max().unwrap_or(from);
        let after = self.media_at.iter().copied().filter(|at| *at > from).chain([now]);
        let mut last = before;
        after.map(|at| at.saturating_duration_since(std::mem::replace(&mut last, at))).max().unwrap_or_default()
    }

    /// The events of one call, with their times.
    pub fn call_events(&self, call: CallId) -> impl Iterator<Item = (Instant, &CallChange)> {
        self.log.iter().filter_map(move |(at, event)| match event {
            EventBody::Call { call: of, change } if *of == call => Some((*at, change.as_ref())),
            EventBody::Call { .. } | EventBody::Account { .. } | EventBody::Engine(_) => None,
        })
    }

    /// The first call this phone was told of that came in.
    pub fn incoming(&self) -> Option<CallId> {
        self.log.iter().find_map(|(_, event)| match event {
            EventBody::Call { call, change } => match change.as_ref() {
                CallChange::Created { direction: client::api::Direction::Incoming, .. } => Some(*call),
                _ => None,
            },
            EventBody::Account { .. } | EventBody::Engine(_) => None,
        })
    }

    fn pump(&mut self, now: Instant) {
        loop {
            match self.core.poll_output() {
                client::core::Output::Timeout(at) => {
                    self.deadline = at;
                    return;
                }
                output => {
                    if let Some(output) = self.translate(now, output) {
                        self.outputs.push_back(output);
                    }
                }
            }
        }
    }

    fn translate(&mut self, now: Instant, output: client::core::Output) -> Option<Output> {
        use client::core::Output as Core;
        Some(match output {
            Core::OpenSocket { id, bind, .. } => Output::OpenSocket { id: id.0, bind },
            Core::CloseSocket(id) => Output::CloseSocket { id: id.0 },
            Core::Transmit { socket, to, payload } => Output::Transmit { socket: socket.0, to, payload },
            Core::OpenStream { id, from, to, tls } => {
                Output::OpenStream { id: id.0, from, to, tls: tls.map(|request| request.names) }
            }
            Core::StreamSend { id, payload } => Output::StreamSend { id: id.0 & !ACCEPTED_BIT, bytes: payload },
            Core::CloseStream(id) => Output::CloseStream { id: id.0 & !ACCEPTED_BIT },
            Core::CloseListener(id) => Output::CloseListener { id: id.0 },
            Core::Listen { id, bind, .. } => {
                let ip = if bind.ip().is_unspecified() { self.address } else { bind.ip() };
                Output::Listen { id: id.0, bind: SocketAddr::new(ip, bind.port()), tls: Tls::Plain }
            }
            Core::Resolve { id, name, kind } => {
                self.asked = self.asked.wrapping_add(1);
                self.questions.insert(self.asked, Question { id, name, kind, tries: 0, again_at: now });
                self.ask_due(now);
                return None;
            }
            Core::Play { call, frame } => {
                let heard = self.heard.entry(call).or_default();
                if heard.len() < HEARD_MAX {
                    heard.extend_from_slice(frame.as_slice());
                }
                return None;
            }
            Core::Event(event) => {
                self.facts.push(serde_json::to_string(&event).unwrap_or_default());
                self.log.push((now, event));
                return None;
            }
            Core::Timeout(_) => return None,
        })
    }

    // ---- the stub resolver ----

    /// Sends the questions whose time has come; one that was asked often enough has failed.
    fn ask_due(&mut self, now: Instant) {
        let due: Vec<u16> = self.questions.iter().filter(|(_, q)| q.again_at <= now).map(|(key, _)| *key).collect();
        for key in due {
            let (Some(question), Some(server)) = (self.questions.get_mut(&key), self.dns) else {
                self.answer(now, key, Answer::Failed("no name server is configured".to_owned()));
                continue;
            };
            if question.tries == DNS_TRIES {
                self.answer(now, key, Answer::Failed(format!("{server}: no answer")));
                continue;
            }
            if !self.dns_ready {
                continue;
            }
            question.tries += 1;
            question.again_at = now + DNS_WAIT;
            if let Some(payload) = query(key, question) {
                self.outputs.push_back(Output::Transmit { socket: DNS_SOCKET, to: server, payload });
            } else {
                self.answer(now, key, Answer::Failed("not a host name".to_owned()));
            }
        }
    }

    fn answer(&mut self, now: Instant, key: u16, answer: Answer) {
        if let Some(question) = self.questions.remove(&key) {
            self.core.handle_input(now, client::core::Input::Resolved { id: question.id, answer });
            self.pump(now);
        }
    }

    fn take_dns(&mut self, now: Instant, payload: &[u8]) {
        let Ok(message) = Message::from_vec(payload) else { return };
        let key = message.metadata.id;
        let Some(question) = self.questions.get(&key) else { return };
        let answer = read(&message, question.kind);
        self.answer(now, key, answer);
    }
}

fn query(key: u16, question: &Question) -> Option<Vec<u8>> {
    let mut name = Name::from_utf8(&question.name).ok()?;
    name.set_fqdn(true);
    let kind = match question.kind {
        RecordKind::A => RecordType::A,
        RecordKind::Aaaa => RecordType::AAAA,
        RecordKind::Srv => RecordType::SRV,
        RecordKind::Naptr => RecordType::NAPTR,
    };
    let mut message = Message::query();
    message.metadata.id = key;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    message.to_vec().ok()
}

fn read(message: &Message, kind: RecordKind) -> Answer {
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        other => return Answer::Failed(format!("the name server answered {other}")),
    }
    let plain = |name: &Name| name.to_utf8().trim_end_matches('.').to_owned();
    let data = || message.answers.iter().map(|record| &record.data);
    let answer = match kind {
        RecordKind::A | RecordKind::Aaaa => {
            let addresses = data().filter_map(|data| match data {
                RData::A(a) if kind == RecordKind::A => Some(IpAddr::V4(a.0)),
                RData::AAAA(a) if kind == RecordKind::Aaaa => Some(IpAddr::V6(a.0)),
                _ => None,
            });
            Answer::Addresses(addresses.collect())
        }
        RecordKind::Srv => Answer::Srv(
            data()
                .filter_map(|data| match data {
                    RData::SRV(srv) => Some(SrvRecord {
                        priority: srv.priority,
                        weight: srv.weight,
                        port: srv.port,
                        target: plain(&srv.target),
                    }),
                    _ => None,
                })
                .collect(),
        ),
        RecordKind::Naptr => Answer::Naptr(
            data()
                .filter_map(|data| match data {
                    RData::NAPTR(naptr) => Some(NaptrRecord {
                        order: naptr.order,
                        preference: naptr.preference,
                        flags: String::from_utf8_lossy(&naptr.flags).into_owned(),
                        services: String::from_utf8_lossy(&naptr.services).into_owned(),
                        regexp: String::from_utf8_lossy(&naptr.regexp).into_owned(),
                        replacement: plain(&naptr.replacement),
                    }),
                    _ => None,
                })
                .collect(),
        ),
    };
    match &answer {
        Answer::Addresses(list) if list.is_empty() => Answer::Empty,
        Answer::Srv(list) if list.is_empty() => Answer::Empty,
        Answer::Naptr(list) if list.is_empty() => Answer::Empty,
        _ => answer,
    }
}

impl Program for PhoneHost {
    fn handle(&mut self, now: Instant, input: Input<'_>) {
        use client::core::Input as Core;
        let stream = |id: u64| StreamId(if id >= super::tcp::ACCEPTED_FROM { id | ACCEPTED_BIT } else { id });
        if let Input::Datagram { payload, .. } | Input::StreamData { bytes: payload, .. } = &input
            && is_media(payload)
        {
            self.media_at.push(now);
        }
        let input = match input {
            Input::Datagram { socket: DNS_SOCKET, payload, .. } => return self.take_dns(now, payload),
            Input::SocketOpened { id: DNS_SOCKET, .. } => {
                self.dns_ready = true;
                return self.ask_due(now);
            }
            Input::SocketFailed { id: DNS_SOCKET, .. } => return,
            Input::Datagram { socket, from, payload } => Core::Datagram { socket: SocketId(socket), from, payload },
            Input::SocketOpened { id, local } => Core::SocketOpened { id: SocketId(id), local },
            Input::SocketFailed { id, cause } => Core::SocketFailed { id: SocketId(id), cause },
            Input::StreamOpened { id, local, remote } => Core::StreamOpened { id: stream(id), local, remote },
            Input::Listening { id, local } => Core::Listening { id: ListenerId(id), local },
            Input::StreamAccepted { listener, id, local, remote, .. } => {
                Core::StreamAccepted { listener: ListenerId(listener), id: stream(id), local, remote }
            }
            Input::StreamData { id, bytes } => Core::StreamData { id: stream(id), bytes },
            Input::StreamClosed { id, cause } => Core::StreamClosed { id: stream(id), cause: stream_error(cause) },
            Input::Timeout => {
                self.ask_due(now);
                Core::Timeout
            }
        };
        self.core.handle_input(now, input);
        self.pump(now);
    }

    fn poll(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| {
            let again = self.questions.values().map(|question| question.again_at).min().filter(|_| self.dns_ready);
            Output::Timeout([self.deadline, again].into_iter().flatten().min())
        })
    }

    fn facts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.facts)
    }
}

/// RTP, bare or in a TURN channel or Data indication (RFC 8656 §11.6, §12.4).
fn is_media(packet: &[u8]) -> bool {
    let is_rtp = |bytes: &[u8]| match bytes {
        [first, second, ..] => first >> 6 == 2 && !(200..=207).contains(second),
        _ => false,
    };
    match packet {
        [0x40..=0x4f, _, _, _, rest @ ..] => is_rtp(rest),
        [0, 0x17, ..] => packet.windows(6).skip(20).any(|w| w[..2] == [0, 0x13] && is_rtp(&w[4..])),
        _ => is_rtp(packet),
    }
}

fn stream_error(end: StreamEnd) -> StreamError {
    match end {
        StreamEnd::Refused => StreamError::Refused,
        StreamEnd::TimedOut => StreamError::Timeout,
        StreamEnd::Certificate(cause) => StreamError::Certificate(cause),
        StreamEnd::Reset => StreamError::Reset,
        StreamEnd::Closed => StreamError::Closed,
    }
}
