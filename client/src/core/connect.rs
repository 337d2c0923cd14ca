//! Making a signalling connection: `sip::locate` says what to ask and whom to try, this puts it into questions, sockets and streams.
//!
//! ```text
//!   Locator: Resolve ─▶ question      Connect ─▶ OpenStream (TLS for its names) or OpenSocket      Abandon ─▶ close
//!            ◀─ Answered              ◀─ Connected / Failed
//! ```
//!
//! A UDP target counts as connected when its socket is bound; if it turns out to be silent, [`Search::give_up_selected`] goes on with
//! the next one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sip::event::Transport;
use sip::locate::{self, LocateError, LocateErrorKind, Locator, QueryId, Target, TargetId};

use super::flow::earlier;
use super::io::{Answer, Output, RecordKind, ResolveId, SocketId, StreamError, StreamId, TlsRequest};
use super::ports::Ports;
use crate::api::AccountId;

/// A connection that is neither open nor refused by then is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// `edge.example.com (192.0.2.1:5061, TLS)`.
pub(crate) fn describe(target: &Target) -> String {
    if target.host == target.address.ip().to_string() {
        return format!("{} ({})", target.address, target.transport.via_name());
    }
    format!("{} ({}, {})", target.host, target.address, target.transport.via_name())
}

/// A flow's id before it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Socket(SocketId),
    Stream(StreamId),
}

/// How a search stands.
#[derive(Debug)]
pub(crate) enum Outcome {
    Running,
    Won { target: Target, line: Line, local: SocketAddr },
    Lost(Box<Lost>),
}

/// Why nothing could be reached.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) error: LocateError,
    /// The first certificate that was refused: whose, and why.
    pub(crate) certificate: Option<(Target, String)>,
}

#[derive(Debug)]
struct Attempt {
    target: Target,
    line: Line,
    give_up_at: Instant,
}

/// One search for a server, up to an open connection.
#[derive(Debug)]
pub(crate) struct Search {
    account: AccountId,
    locator: Locator,
    questions: BTreeMap<ResolveId, QueryId>,
    attempts: Vec<Attempt>,
    opened: Option<(TargetId, Line, SocketAddr)>,
    certificate: Option<(Target, String)>,
    /// Local address to use, if one is prescribed.
    bind: Option<SocketAddr>,
    tried: Vec<String>,
    locator_at: Option<Instant>,
}

impl Search {
    pub(crate) fn new(
        now: Instant,
        account: AccountId,
        config: locate::Config,
        bind: Option<SocketAddr>,
        seed: [u8; 32],
    ) -> Self {
        Self {
            account,
            locator: Locator::new(now, config, seed),
            questions: BTreeMap::new(),
            attempts: Vec::new(),
            opened: None,
            certificate: None,
            bind,
            tried: Vec::new(),
            locator_at: None,
        }
    }

    /// Does what is due. Call at the start and whenever the deadline has come.
    pub(crate) fn advance(&mut self, now: Instant, ports: &mut Ports) -> Outcome {
        let (late, running): (Vec<_>, _) =
            std::mem::take(&mut self.attempts).into_iter().partition(|attempt| attempt.give_up_at <= now);
        self.attempts = running;
        for attempt in late {
            close(attempt.line, ports);
            let input = locate::Input::Failed { target: attempt.target.id, cause: StreamError::Timeout.to_string() };
            self.locator.handle_input(now, input);
        }
        self.locator.handle_input(now, locate::Input::Timeout);
        self.drain(now, ports)
    }

    fn drain(&mut self, now: Instant, ports: &mut Ports) -> Outcome {
        loop {
            match self.locator.poll_output() {
                locate::Output::Resolve { query, name, kind } => {
                    let id = ports.question(self.account, name, record_kind(kind));
                    self.questions.insert(id, query);
                }
                locate::Output::Connect(target) => self.connect(now, target, ports),
                locate::Output::Abandon(id) => {
                    if let Some(at) = self.attempts.iter().position(|attempt| attempt.target.id == id) {
                        close(self.attempts.remove(at).line, ports);
                    }
                }
                locate::Output::Event(locate::Event::Selected(target)) => {
                    if let Some((_, line, local)) = self.opened.take_if(|(id, ..)| *id == target.id) {
                        self.locator_at = None;
                        return Outcome::Won { target, line, local };
                    }
                }
                locate::Output::Event(locate::Event::Failed(error)) => {
                    self.locator_at = None;
                    return Outcome::Lost(Box::new(Lost { error, certificate: self.certificate.take() }));
                }
                locate::Output::Timeout(at) => {
                    self.locator_at = at;
                    return Outcome::Running;
                }
            }
        }
    }

    fn connect(&mut self, now: Instant, target: Target, ports: &mut Ports) {
        let line = match target.transport {
            Transport::Udp => {
                let id = ports.sip_socket(self.account);
                let any = unspecified(target.address);
                let bind = self.bind.filter(|bind| bind.is_ipv4() == target.address.is_ipv4()).unwrap_or(any);
                ports.push(Output::OpenSocket { id, bind, toward: Some(target.address) });
                Line::Socket(id)
            }
            Transport::Tcp | Transport::Tls => {
                let id = ports.sip_stream(self.account);
                let tls = (target.transport == Transport::Tls).then(|| tls_request(&target));
                let from = self.bind.map(|bind| bind.ip()).filter(|ip| !ip.is_unspecified());
                let from = from.map(|ip| SocketAddr::new(ip, 0));
                ports.push(Output::OpenStream { id, from, to: target.address, tls });
                Line::Stream(id)
            }
        };
        self.tried.push(describe(&target));
        self.attempts.push(Attempt { target, line, give_up_at: now + PATIENCE });
    }

    pub(crate) fn has(&self, line: Line) -> bool {
        self.attempts.iter().any(|attempt| attempt.line == line)
    }

    pub(crate) fn opened(&mut self, now: Instant, line: Line, local: SocketAddr, ports: &mut Ports) -> Outcome {
        if let Some(at) = self.attempts.iter().position(|attempt| attempt.line == line) {
            let target = self.attempts.remove(at).target.id;
            self.opened = Some((target, line, local));
            self.locator.handle_input(now, locate::Input::Connected(target));
        }
        self.drain(now, ports)
    }

    pub(crate) fn failed(&mut self, now: Instant, line: Line, error: &StreamError, ports: &mut Ports) -> Outcome {
        if let Some(at) = self.attempts.iter().position(|attempt| attempt.line == line) {
            let target = self.attempts.remove(at).target;
            let id = target.id;
            if let StreamError::Certificate(cause) = error {
                self.certificate.get_or_insert((target, cause.clone()));
            }
            self.locator.handle_input(now, locate::Input::Failed { target: id, cause: error.to_string() });
        }
        self.drain(now, ports)
    }

    /// The one that was chosen does not answer (RFC 3263 §4.3): on with the next.
    pub(crate) fn give_up_selected(
        &mut self,
        now: Instant,
        target: TargetId,
        cause: &str,
        ports: &mut Ports,
    ) -> Outcome {
        self.locator.handle_input(now, locate::Input::Failed { target, cause: cause.to_owned() });
        self.drain(now, ports)
    }

    /// Whether this question is ours.
    pub(crate) fn asked(&self, id: ResolveId) -> bool {
        self.questions.contains_key(&id)
    }

    pub(crate) fn answered(&mut self, now: Instant, id: ResolveId, answer: &Answer, ports: &mut Ports) -> Outcome {
        if let Some(query) = self.questions.remove(&id) {
            self.locator.handle_input(now, locate::Input::Answered { query, answer: located(answer) });
        }
        self.drain(now, ports)
    }

    /// Names that were asked for.
    pub(crate) fn asked_names(&self) -> Vec<String> {
        self.locator.evidence().into_iter().map(|asked| format!("{} {}", asked.kind, asked.name)).collect()
    }

    /// The servers in the order in which they were tried.
    pub(crate) fn tried(&self) -> Vec<String> {
        self.tried.clone()
    }

    /// Closes everything.
    pub(crate) fn cancel(&mut self, ports: &mut Ports) {
        for attempt in self.attempts.drain(..) {
            close(attempt.line, ports);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        earlier(self.attempts.iter().map(|attempt| attempt.give_up_at).min(), self.locator_at)
    }
}

/// SNI names the host inside the domain, if it has a name of its own (RFC 5922 §7.2 decides about the certificate).
fn tls_request(target: &Target) -> TlsRequest {
    let host = target.names.iter().find(|name| **name == target.host).or(target.names.first());
    let sni = host.cloned().unwrap_or_else(|| target.host.clone());
    let names = if target.names.is_empty() { vec![sni.clone()] } else { target.names.clone() };
    TlsRequest { sni, names }
}

fn close(line: Line, ports: &mut Ports) {
    match line {
        Line::Socket(id) => ports.close_socket(id),
        Line::Stream(id) => ports.close_stream(id),
    }
}

fn record_kind(kind: locate::Kind) -> RecordKind {
    match kind {
        locate::Kind::A => RecordKind::A,
        locate::Kind::Aaaa => RecordKind::Aaaa,
        locate::Kind::Srv => RecordKind::Srv,
        locate::Kind::Naptr => RecordKind::Naptr,
    }
}

fn located(answer: &Answer) -> locate::Answer {
    match answer {
        Answer::Addresses(list) => locate::Answer::Addresses(list.clone()),
        Answer::Srv(list) => locate::Answer::Srv(list.iter().map(srv).collect()),
        Answer::Naptr(list) => locate::Answer::Naptr(list.iter().map(naptr).collect()),
        Answer::Empty => locate::Answer::NoRecords,
        Answer::Failed(cause) => locate::Answer::Failed(cause.clone()),
    }
}

fn srv(record: &super::io::SrvRecord) -> locate::Srv {
    let target = if record.target.is_empty() { ".".to_owned() } else { record.target.clone() };
    locate::Srv { priority: record.priority, weight: record.weight, port: record.port, target }
}

fn naptr(record: &super::io::NaptrRecord) -> locate::Naptr {
    locate::Naptr {
        order: record.order,
        preference: record.preference,
        flags: record.flags.clone(),
        service: record.services.clone(),
        replacement: record.replacement.clone(),
    }
}

/// `0.0.0.0:0` or `[::]:0`, whichever reaches `target`.
fn unspecified(target: SocketAddr) -> SocketAddr {
    let ip = if target.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([0; 16]) };
    SocketAddr::new(ip, 0)
}

/// Nothing is known about the domain: the name servers themselves are the problem.
pub(crate) fn is_dns_failure(error: &LocateError) -> bool {
    error.kind == LocateErrorKind::DnsFailed
}
