//! Where a request or a registration goes: RFC 3263 with RFC 2782, and the two server names of [MS-CONMGMT] that
//! the RFCs do not know.
//!
//! ```text
//!            all SRV and NAPTR at once        A and AAAA of their targets       250 ms apart, first wins
//!   new ───────────▶ Naming ─────────────────────▶ Connecting ─────────────────────▶ Selected
//!    └─ edge, port or address given: no SRV ──────────▲   │ nothing left                │ failed later
//!                                                         ▼                             ▼
//!                                                       Failed ◀── nothing left ── Connecting
//! ```
//!
//! * Names for TLS come first: `_sipinternaltls._tcp`, `_sip._tls`, then what NAPTR calls `SIPS+D2T`, which is
//!   `_sips._tcp` without NAPTR. Names for TCP and UDP count only if the domain has no name for TLS, or the
//!   transport was chosen by hand. A TLS server that cannot be reached, or a DNS server that fails, is therefore
//!   never a reason to go on in the clear.
//! * An SRV target of `.` means that the domain does not offer the service (RFC 2782): no fallback to its host.
//! * The machine neither resolves nor connects: it asks its owner to ([`Output`]) and is told ([`Input`]).

mod error;
mod places;
mod weights;

pub use error::{LocateError, LocateErrorKind};

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::event::Transport;
use crate::uri::{Host, Scheme, Uri};

/// Between two attempts to connect (RFC 8305 §8 calls it the connection attempt delay).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A query without an answer counts as failed after this: two retries of a common resolver.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// The same for NAPTR, which some resolvers of home routers drop: its silence or failure counts as absence, because
/// the SRV names it could point to are asked for anyway.
const NAPTR_LIMIT: Duration = Duration::from_secs(1);

/// How long a name that could rank higher is waited for once another one has servers; the other address family
/// likewise, once one has addresses (RFC 8305 §3: 50 ms).
const NAME_PATIENCE: Duration = Duration::from_millis(250);
const FAMILY_PATIENCE: Duration = Duration::from_millis(50);

/// The most servers and addresses that are looked at; a zone with more is a mistake or an attack.
const PLACES_MAX: usize = 16;
const TARGETS_MAX: usize = 32; // two families for each place

/// The most records that are read from one answer.
const RECORDS_MAX: usize = 32;

/// What to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The SIP domain of an account, or the host of a URI.
    pub domain: Host,
    /// The port of the URI: with one there are no SRV queries (RFC 3263 §4.2).
    pub port: Option<u16>,
    /// A server given by hand: nothing else is looked at.
    pub edge: Option<(Host, Option<u16>)>,
    /// A transport given by hand, or by `;transport=`.
    pub transport: Option<Transport>,
    /// `sips:`: TLS or nothing.
    pub secure: bool,
    /// Ask for `_sipinternaltls._tcp` and `_sip._tls` too: for the server of an account, not for other people's.
    pub account: bool,
}

impl Config {
    /// The server of an account.
    pub fn account(domain: Host, edge: Option<(Host, Option<u16>)>, transport: Option<Transport>) -> Self {
        Self { domain, port: None, edge, transport, secure: false, account: true }
    }

    /// The target of a URI (RFC 3263 §4). Its `maddr` takes the place of the host (§4: TARGET).
    pub fn uri(uri: &Uri) -> Self {
        let domain = uri.params.get("maddr").and_then(|host| host.parse().ok()).unwrap_or_else(|| uri.host.clone());
        let transport = match uri.transport().as_deref() {
            Some("udp") => Some(Transport::Udp),
            Some("tcp") => Some(Transport::Tcp),
            Some("tls") => Some(Transport::Tls),
            Some(_) | None => None,
        };
        let secure = uri.scheme == Scheme::Sips;
        Self { domain, port: uri.port, edge: None, transport, secure, account: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u32);

/// The record types that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    A,
    Aaaa,
    Srv,
    Naptr,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
            Self::Naptr => "NAPTR",
        })
    }
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// `.` if the service is not offered.
    pub target: String,
}

/// A NAPTR record, as far as RFC 3263 §4.1 uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naptr {
    pub order: u16,
    pub preference: u16,
    pub flags: String,
    pub service: String,
    pub replacement: String,
}

/// What DNS said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Addresses(Vec<IpAddr>),
    Srv(Vec<Srv>),
    Naptr(Vec<Naptr>),
    /// The name does not exist.
    NoSuchName,
    /// The name exists, without records of this type.
    NoRecords,
    /// No server answered, or it said that it cannot: nothing is known about the name.
    Failed(String),
}

impl Answer {
    fn is_found(&self) -> bool {
        match self {
            Self::Addresses(list) => !list.is_empty(),
            Self::Srv(list) => !list.is_empty(),
            Self::Naptr(list) => !list.is_empty(),
            Self::NoSuchName | Self::NoRecords | Self::Failed(_) => false,
        }
    }
}

/// A question and its outcome: the evidence for what was selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub name: String,
    pub kind: Kind,
    /// `None` while it is on its way.
    pub answer: Option<Answer>,
}

/// One address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub id: TargetId,
    pub transport: Transport,
    pub address: SocketAddr,
    /// The host that has this address.
    pub host: String,
    /// What a certificate may be made out to, if the transport is TLS: the SIP domain, and the host if it was
    /// given by hand or lies inside the domain (RFC 5922 §7.2).
    pub names: Vec<String>,
    /// The SRV name this came from; `None` for a host or address given by hand or by fallback.
    pub source: Option<String>,
    /// It came from `_sipinternaltls._tcp`: we are inside.
    pub internal: bool,
}

pub enum Input {
    Answered {
        query: QueryId,
        answer: Answer,
    },
    /// The handshake is complete (TCP, TLS), or the first response is here (UDP).
    Connected(TargetId),
    /// It could not be reached, its certificate is wrong, or it failed later (RFC 3263 §4.3: 503, timeout).
    Failed {
        target: TargetId,
        cause: String,
    },
    Timeout,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Resolve {
        query: QueryId,
        name: String,
        kind: Kind,
    },
    Connect(Target),
    /// Another target was faster: give this one up.
    Abandon(TargetId),
    Event(Event),
    Timeout(Option<Instant>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Selected(Target),
    Failed(LocateError),
}

/// Why a query was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Service {
    /// In the order of use.
    InternalTls,
    ExternalTls,
    Sips,
    Tcp,
    Udp,
    Naptr,
    Address,
}

impl Service {
    fn is_secure(self) -> bool {
        matches!(self, Self::InternalTls | Self::ExternalTls | Self::Sips)
    }
}

#[derive(Debug)]
struct Query {
    service: Service,
    name: String,
    kind: Kind,
    expires_at: Instant,
    answer: Option<(Instant, Answer)>,
}

/// A host and port, before its addresses are known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: Host,
    port: u16,
    transport: Transport,
    source: Option<String>,
    internal: bool,
    by_hand: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Naming,
    Connecting,
    Selected(TargetId),
    Failed,
}

/// One search. See the module's picture.
#[derive(Debug)]
pub struct Locator {
    config: Config,
    rng: ChaCha20Rng,
    outputs: VecDeque<Output>,
    stage: Stage,
    queries: BTreeMap<QueryId, Query>,
    /// Since when a TLS name with servers is known while others are not answered.
    found_at: Option<Instant>,
    /// Not yet turned into targets, in their order.
    places: VecDeque<Place>,
    /// Resolved and not yet tried, in their order.
    targets: VecDeque<Target>,
    running: BTreeMap<TargetId, Target>,
    attempt_at: Option<Instant>,
    selected: Option<Target>,
    next_query: u32,
    next_target: u32,
    tried: Vec<(Target, String)>,
}

impl Locator {
    /// Begins at once: drain [`Locator::poll_output`].
    pub fn new(now: Instant, config: Config, seed: [u8; 32]) -> Self {
        let mut locator = Self {
            config,
            rng: ChaCha20Rng::from_seed(seed),
            outputs: VecDeque::new(),
            stage: Stage::Naming,
            queries: BTreeMap::new(),
            found_at: None,
            places: VecDeque::new(),
            targets: VecDeque::new(),
            running: BTreeMap::new(),
            attempt_at: None,
            selected: None,
            next_query: 0,
            next_target: 0,
            tried: Vec::new(),
        };
        locator.begin(now);
        locator
    }

    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Answered { query, answer } => self.answered(now, query, answer),
            Input::Connected(id) => self.connected(id),
            Input::Failed { target, cause } => self.failed(target, cause),
            Input::Timeout => {}
        }
        self.advance(now);
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadline()))
    }

    /// Every name that was asked for, with its answer.
    pub fn evidence(&self) -> Vec<Asked> {
        let asked = |query: &Query| Asked {
            name: query.name.clone(),
            kind: query.kind,
            answer: query.answer.as_ref().map(|(_, answer)| answer.clone()),
        };
        self.queries.values().map(asked).collect()
    }

    fn answered(&mut self, now: Instant, id: QueryId, answer: Answer) {
        let Some(query) = self.queries.get_mut(&id).filter(|query| query.answer.is_none()) else {
            return; // unknown, or too late
        };
        let answer = match answer {
            Answer::Srv(mut records) => {
                records.truncate(RECORDS_MAX);
                Answer::Srv(records)
            }
            Answer::Naptr(mut records) => {
                records.truncate(RECORDS_MAX);
                Answer::Naptr(records)
            }
            Answer::Addresses(mut list) => {
                list.truncate(RECORDS_MAX);
                Answer::Addresses(list)
            }
            Answer::NoSuchName | Answer::NoRecords | Answer::Failed(_) => answer,
        };
        let service = query.service;
        query.answer = Some((now, answer.clone()));
        if service.is_secure() && answer.is_found() && self.stage == Stage::Naming {
            self.found_at.get_or_insert(now);
        }
        if let Answer::Naptr(records) = &answer {
            self.follow_naptr(now, records);
        }
        // A name that was not waited for any longer still adds its servers behind the others.
        if service.is_secure() && matches!(self.stage, Stage::Connecting) {
            let late = self.places_of(&[id]);
            self.add_places(now, late);
        }
    }

    fn connected(&mut self, id: TargetId) {
        let Some(target) = self.running.remove(&id).filter(|_| self.stage == Stage::Connecting) else {
            return;
        };
        // The slower ones may be needed later: they come before what was never tried.
        for (other, slower) in std::mem::take(&mut self.running).into_iter().rev() {
            self.outputs.push_back(Output::Abandon(other));
            self.targets.push_front(slower);
        }
        self.stage = Stage::Selected(id);
        self.selected = Some(target.clone());
        self.attempt_at = None;
        self.outputs.push_back(Output::Event(Event::Selected(target)));
    }

    fn failed(&mut self, id: TargetId, cause: String) {
        let target = match self.running.remove(&id) {
            Some(target) => target,
            None => match self.selected.take_if(|target| target.id == id) {
                Some(target) => target,
                None => return,
            },
        };
        if self.stage == Stage::Selected(id) {
            self.stage = Stage::Connecting;
        }
        self.tried.push((target, cause));
        self.attempt_at = None; // the next one need not wait for its turn
    }

    /// Moves on as far as what is known allows.
    fn advance(&mut self, now: Instant) {
        for query in self.queries.values_mut() {
            if query.answer.is_none() && now >= query.expires_at {
                query.answer = Some((now, Answer::Failed("no answer in time".to_owned())));
            }
        }
        if self.stage == Stage::Naming {
            self.decide(now);
        }
        if self.stage == Stage::Connecting {
            self.expand(now);
            self.attempt(now);
        }
    }

    /// Starts the next attempts that are due.
    fn attempt(&mut self, now: Instant) {
        while self.stage == Stage::Connecting && self.attempt_at.is_none_or(|at| now >= at) {
            // Datagrams have no handshake that could win a race: one at a time.
            if self.running.values().any(|target| target.transport == Transport::Udp) {
                return;
            }
            let Some(target) = self.targets.pop_front() else {
                if self.running.is_empty() && self.places.is_empty() {
                    self.give_up();
                }
                return;
            };
            self.attempt_at = Some(now + ATTEMPT_DELAY);
            self.running.insert(target.id, target.clone());
            self.outputs.push_back(Output::Connect(target));
        }
    }

    fn give_up(&mut self) {
        let dns_failed = self.queries.values().any(|query| matches!(query.answer, Some((_, Answer::Failed(_)))));
        self.fail(match (self.tried.is_empty(), dns_failed) {
            (false, _) => LocateErrorKind::AllFailed,
            (true, true) => LocateErrorKind::DnsFailed,
            (true, false) => LocateErrorKind::NoAddress,
        });
    }

    fn fail(&mut self, kind: LocateErrorKind) {
        self.stage = Stage::Failed;
        self.attempt_at = None;
        let domain = self.config.edge.as_ref().map_or(&self.config.domain, |(host, _)| host).to_string();
        let error = LocateError { kind, domain, asked: self.evidence(), tried: self.tried.clone() };
        self.outputs.push_back(Output::Event(Event::Failed(error)));
    }

    fn deadline(&self) -> Option<Instant> {
        let queries = self.queries.values().filter(|query| query.answer.is_none()).map(|query| query.expires_at);
        match self.stage {
            Stage::Naming => queries.chain(self.found_at.map(|at| at + NAME_PATIENCE)).min(),
            Stage::Connecting => {
                let more = !self.targets.is_empty();
                let attempt =
                    self.attempt_at.filter(|_| more && self.running.values().all(|t| t.transport != Transport::Udp));
                queries.chain(attempt).chain(self.family_deadline()).min()
            }
            Stage::Selected(_) | Stage::Failed => None,
        }
    }
}

#[cfg(test)]
mod tests;
