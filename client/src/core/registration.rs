//! Keeping an account registered: find the edge, connect, REGISTER, notice a lost connection, come back.
//!
//! ```text
//!   Idle ─▶ Connecting ─▶ Registering ─▶ Registered ──flow lost──▶ Connecting …
//!              └── none answers ──┴── refused ──▶ Waiting ──back-off (RFC 5626 §4.5)──▶ Connecting
//!                                                 Refused for good (password, certificate): stays until told again
//! ```
//!
//! An account with `edge` but without `register` stops at the connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ice::stun::{Builder, Class, Method, TransactionId};
use rand::RngExt as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use sip::Uri;
use sip::event::{FlowId, Hop, Keepalive, Register, Registered, RegistrationFailed, Transport};
use sip::locate::{self, LocateErrorKind, Target};

use super::account::{Account, News, Route};
use super::connect::{Line, Lost, Outcome, Search, describe, is_dns_failure};
use super::credentials::Desk;
use super::flow::earlier;
use super::io::{Answer, ResolveId, StreamError};

use super::ports::Ports;
use super::provision::Location;
use super::views;
use crate::api::{self, AccountChange, RegistrationError, TransportChoice};

/// First wait after all servers failed, and the longest (RFC 5626 §4.5).
const BACK_OFF: Duration = Duration::from_secs(30);
/// A server that has worked is often only restarted: the first tries come soon.
const BACK_OFF_AFTER_LOSS: Duration = Duration::from_secs(1);
/// A connection that is asked for a sign of life because media has none.
const PONG_SOON: Duration = Duration::from_millis(600);
const BACK_OFF_LONGEST: Duration = Duration::from_mins(30);
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Connecting,
    Registering,
    Registered,
    /// Back-off is running.
    Waiting,
    /// Nothing will change by itself.
    Refused,
    Unregistering,
}

#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) rng: ChaCha20Rng,
    pub(crate) state: State,
    search: Option<Search>,
    pub(crate) started: Option<Instant>,
    failures: u32,
    /// It has worked since the user asked for it.
    was_registered: bool,
    retry_at: Option<Instant>,

    pub(crate) hop: Option<Hop>,
    target: Option<Target>,
    problem: Option<String>,
    pub(crate) location: Location,
    pub(crate) desk: Desk,
}

impl Registration {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha20Rng::from_seed(seed),
            state: State::Idle,
            search: None,
            started: None,
            failures: 0,
            was_registered: false,
            retry_at: None,

            hop: None,
            target: None,
            problem: None,
            location: Location::Internet,
            desk: Desk::default(),
        }
    }

    /// Where requests of this account go now.
    pub(crate) fn route(&self) -> Route {
        match (self.state, self.hop) {
            (State::Registered, Some(hop)) => Route::Ready(hop),
            (State::Waiting | State::Refused, _) => {
                Route::Failed(self.problem.clone().unwrap_or_else(|| "not registered".to_owned()))
            }
            (State::Idle | State::Unregistering, _) => Route::Failed("the account is not registered".to_owned()),
            (State::Connecting | State::Registering | State::Registered, _) => Route::Wait,
        }
    }

    pub(crate) fn has_line(&self, line: Line) -> bool {
        self.search.as_ref().is_some_and(|search| search.has(line))
    }

    pub(crate) fn search_opened(&mut self, now: Instant, line: Line, local: SocketAddr, ports: &mut Ports) -> Outcome {
        self.search.as_mut().map_or(Outcome::Running, |search| search.opened(now, line, local, ports))
    }

    pub(crate) fn search_failed(
        &mut self,
        now: Instant,
        line: Line,
        error: &StreamError,
        ports: &mut Ports,
    ) -> Outcome {
        self.search.as_mut().map_or(Outcome::Running, |search| search.failed(now, line, error, ports))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let search = self.search.as_ref().filter(|_| self.state == State::Connecting).and_then(Search::deadline);
        earlier(earlier(search, self.retry_at), self.desk.deadline())
    }

    pub(crate) fn close(&mut self, ports: &mut Ports) {
        if let Some(mut search) = self.search.take() {
            search.cancel(ports);
        }
        self.desk.close();
        (self.retry_at, self.hop, self.state) = (None, None, State::Idle);
    }
}

impl Account {
    /// Starts (or starts again) to connect and register.
    pub(crate) fn register(&mut self, now: Instant, ports: &mut Ports) {
        if !self.has_edge() || matches!(self.registration.state, State::Connecting | State::Registering) {
            return;
        }
        self.registration.failures = 0;
        self.registration.was_registered = false;
        self.connect_edge(now, ports);
    }

    fn connect_edge(&mut self, now: Instant, ports: &mut Ports) {
        self.drop_edge_flow(now, ports);
        let registration = &mut self.registration;
        if let Some(mut search) = registration.search.take() {
            search.cancel(ports);
        }
        registration.state = State::Connecting;
        registration.retry_at = None;
        registration.started = Some(now);
        self.relays.set_asking(self.config.mras);
        ports.account_event(self.id, AccountChange::Registering);
        let Some(config) = self.edge_config() else {
            let domain = self.config.aor.clone();
            return self.registration_lost(now, RegistrationError::NoServer { domain, asked: Vec::new() }, ports);
        };
        let bind = self.config.listen.map(|listen| SocketAddr::new(listen.ip(), 0));
        let seed = self.registration.rng.random();
        let mut search = Search::new(now, self.id, config, bind, seed);
        let outcome = search.advance(now, ports);
        self.registration.search = Some(search);
        self.edge_search_came_to(now, outcome, ports);
    }

    /// What to look for. `None` if the address of record has no domain and no edge is given.
    fn edge_config(&self) -> Option<locate::Config> {
        let edge = self.config.edge.as_deref().and_then(|text| sip::uri::parse_host_port(text).ok());
        let domain =
            self.aor.as_ref().map(|aor| aor.host.clone()).or_else(|| edge.as_ref().map(|(host, _)| host.clone()))?;
        let transport = match self.config.transport {
            TransportChoice::Auto => None,
            TransportChoice::Tls => Some(Transport::Tls),
            TransportChoice::Tcp => Some(Transport::Tcp),
            TransportChoice::Udp => Some(Transport::Udp),
        };
        Some(locate::Config::account(domain, edge, transport))
    }

    fn drop_edge_flow(&mut self, now: Instant, ports: &mut Ports) {
        let Some(hop) = self.registration.hop.take() else { return };
        match self.flows.remove(&hop.flow).map(|info| info.line) {
            Some(Line::Socket(id)) => ports.close_socket(id),
            Some(Line::Stream(id)) => ports.close_stream(id),
            None => {}
        }
        // Dialogs wait for the next registration to move to its flow.
        let cause = "the connection to the server was given up".to_owned();
        self.endpoint.handle_input(now, sip::event::Input::FlowClosed { flow: hop.flow, cause });
    }

    pub(crate) fn edge_resolved(&mut self, now: Instant, id: ResolveId, answer: &Answer, ports: &mut Ports) {
        let Some(search) = self.registration.search.as_mut().filter(|search| search.asked(id)) else { return };
        let outcome = search.answered(now, id, answer, ports);
        self.edge_search_came_to(now, outcome, ports);
    }

    pub(crate) fn edge_search_came_to(&mut self, now: Instant, outcome: Outcome, ports: &mut Ports) {
        match outcome {
            Outcome::Running => {}
            Outcome::Won { target, line, local } => self.edge_connected(now, target, line, local, ports),
            Outcome::Lost(lost) => {
                let error = self.why_unreachable(&lost);
                self.registration_lost(now, error, ports);
            }
        }
    }

    fn edge_connected(&mut self, now: Instant, target: Target, line: Line, local: SocketAddr, ports: &mut Ports) {
        let flow = self.open_flow(now, line, target.transport, local, target.address);
        let hop = Hop { flow, to: target.address };
        self.registration.hop = Some(hop);
        let took_ms = self.registration.started.map(|at| views::ms(at, now)).unwrap_or_default();
        if let Some(search) = &self.registration.search {
            let change =
                AccountChange::ServersLocated { asked: search.asked_names(), servers: search.tried(), took_ms };
            ports.account_event(self.id, change);
        }
        let change = AccountChange::SrvSelected {
            name: target.source.clone().unwrap_or_else(|| target.host.clone()),
            target: target.host.clone(),
            address: target.address,
            transport: views::sip_transport(target.transport),
            took_ms,
        };
        ports.account_event(self.id, change);
        self.registration.target = Some(target);
        if !self.config.register {
            self.registration.state = State::Registered;
            self.relays.set_asking(false);
            return self.relays_known(now, ports);
        }
        self.registration.state = State::Registering;
        let Some(registrar) = self.aor.as_ref().map(|aor| Uri::sip("", aor.host.clone())) else { return };
        let expires = Duration::from_secs(u64::from(self.config.register_expires_s));
        let headers =
            vec![("Event".to_owned(), "registration".to_owned()), ("Allow-Events".to_owned(), "presence".to_owned())];
        if let Err(error) = self.endpoint.register(now, Register { registrar, hop, expires, headers }) {
            let server = self.server_name();
            self.registration_lost(now, RegistrationError::CannotConnect { server, cause: error.to_string() }, ports);
        }
    }

    fn server_name(&self) -> String {
        self.registration.target.as_ref().map_or_else(|| self.config.aor.clone(), describe)
    }

    fn why_unreachable(&self, lost: &Lost) -> RegistrationError {
        let domain = lost.error.domain.clone();
        if let Some((target, cause)) = &lost.certificate {
            return RegistrationError::Certificate { server: describe(target), cause: cause.clone() };
        }
        if is_dns_failure(&lost.error) {
            return RegistrationError::NoNameServer { domain };
        }
        let asked = self.registration.search.as_ref().map(Search::asked_names).unwrap_or_default();
        match lost.error.kind {
            LocateErrorKind::AllFailed => {
                let servers: Vec<_> = lost.error.tried.iter().map(|(target, _)| describe(target)).collect();
                let mut causes: Vec<_> = lost.error.tried.iter().map(|(_, cause)| cause.clone()).collect();
                causes.dedup();
                RegistrationError::CannotConnect { server: servers.join(", "), cause: causes.join(", ") }
            }
            LocateErrorKind::NoAddress | LocateErrorKind::NotOffered | LocateErrorKind::DnsFailed => {
                RegistrationError::NoServer { domain, asked }
            }
        }
    }

    /// No registration; the next attempt comes by itself unless only the user can help.
    fn registration_lost(&mut self, now: Instant, error: RegistrationError, ports: &mut Ports) {
        self.registration_lost_until(now, error, None, ports);
    }

    /// `at_least`: the registrar's own wish (Retry-After, RFC 3261 §20.33).
    fn registration_lost_until(
        &mut self,
        now: Instant,
        error: RegistrationError,
        at_least: Option<Duration>,
        ports: &mut Ports,
    ) {
        let hopeless = matches!(error, RegistrationError::Credentials { .. } | RegistrationError::Certificate { .. });
        self.drop_edge_flow(now, ports);
        let registration = &mut self.registration;
        registration.failures = registration.failures.saturating_add(1);
        registration.problem = Some(error.to_string());
        let doublings = registration.failures.saturating_sub(1).min(11);
        let first = if registration.was_registered { BACK_OFF_AFTER_LOSS } else { BACK_OFF };
        let longest = (first * (1 << doublings)).min(BACK_OFF_LONGEST);
        let wait = longest
            .mul_f64(registration.rng.random_range(0.5..1.0))
            .max(at_least.unwrap_or_default().min(BACK_OFF_LONGEST));
        registration.state = if hopeless { State::Refused } else { State::Waiting };
        registration.retry_at = (!hopeless).then(|| now + wait);
        registration.search = None;
        let retry_in_s = (!hopeless).then_some(wait.as_secs());
        self.relays.set_asking(false);
        self.news.push_back(News::Unusable(error.to_string()));
        ports.account_event(self.id, AccountChange::RegistrationFailed { error, retry_in_s });
    }

    /// The registrar's 200.
    pub(crate) fn registered(&mut self, now: Instant, registered: &Registered, ports: &mut Ports) {
        let fresh = self.registration.state != State::Registered;
        self.registration.state = State::Registered;
        self.registration.was_registered = true;
        self.registration.failures = 0;
        self.registration.problem = None;
        let internal = self.registration.target.as_ref().is_some_and(|target| target.internal);
        let location = match self.config.location {
            api::Location::Auto => Location::of(internal, registered.remote_user),
            api::Location::Intranet => Location::Intranet,
            api::Location::Internet => Location::Internet,
        };
        let moved = location != self.registration.location;
        self.registration.location = location;
        if fresh {
            let Some((server, transport)) = self.registration.target.as_ref().map(|t| (t.address, t.transport)) else {
                return;
            };
            let change = AccountChange::Registered {
                server,
                transport: views::sip_transport(transport),
                contact: registered.contact.clone(),
                expires_s: registered.expires.as_secs(),
                public_address: registered.public,
                location: match location {
                    Location::Intranet => api::Location::Intranet,
                    Location::Internet => api::Location::Internet,
                },
                took_ms: self.registration.started.map(|at| views::ms(at, now)).unwrap_or_default(),
            };
            ports.account_event(self.id, change);
            self.news.push_back(News::Ready);
            if let Some(hop) = self.registration.hop.filter(|_| registered.outbound && transport == Transport::Udp) {
                // RFC 5626 §4.4.2: such a server answers STUN on its SIP port; others get CRLF.
                let id = TransactionId::random(&mut self.registration.rng);
                let request = Builder::new(Class::Request, Method::BINDING, id).build();
                self.endpoint.set_keepalive(now, hop, Keepalive::Bytes(request));
            }
        }
        if fresh || moved {
            self.provision(now, &registered.headers, ports);
        }
    }

    /// The registrar said no, or nothing.
    pub(crate) fn registration_failed(&mut self, now: Instant, failed: &RegistrationFailed, ports: &mut Ports) {
        if !matches!(self.registration.state, State::Registering | State::Registered) {
            return; // about a connection that is given up already
        }
        let server = self.server_name();
        let user = self.config.auth_user.clone().or_else(|| self.aor.as_ref().map(Uri::user_text)).unwrap_or_default();
        let error = match failed.status {
            Some(status) if failed.credentials_refused => RegistrationError::Credentials { server, user, status },
            // 503: overloaded or in maintenance (RFC 3261 §21.5.4); the others of the same name may not be.
            Some(503) | None if self.try_next_server(now, &failed.reason, ports) => return,
            Some(status) => {
                let diagnostics = failed.diagnostics.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
                let phrase = format!("{}{diagnostics}", failed.reason);
                RegistrationError::Refused { server, aor: self.config.aor.clone(), status, phrase }
            }
            None => RegistrationError::NoAnswer { server, waited_s: 32 },
        };
        self.registration_lost_until(now, error, failed.retry_in, ports);
    }

    /// RFC 3263 §4.3: a server that does not answer, or says 503, is followed by the next one, if there is one.
    fn try_next_server(&mut self, now: Instant, cause: &str, ports: &mut Ports) -> bool {
        let registration = &mut self.registration;
        let (Some(search), Some(target)) = (&mut registration.search, &registration.target) else { return false };
        let outcome = search.give_up_selected(now, target.id, cause, ports);
        if matches!(outcome, Outcome::Lost(_)) {
            return false;
        }
        registration.state = State::Connecting;
        self.drop_edge_flow(now, ports);
        self.edge_search_came_to(now, outcome, ports);
        true
    }

    pub(crate) fn edge_flow_lost(&mut self, now: Instant, flow: FlowId, cause: &str, ports: &mut Ports) {
        if self.registration.hop.is_none_or(|hop| hop.flow != flow) {
            return;
        }
        self.registration.hop = None;
        let was = self.registration.state;
        if matches!(was, State::Registered | State::Registering) {
            ports.account_event(self.id, AccountChange::ConnectionLost { cause: cause.to_owned() });
        }
        match was {
            State::Registered => self.connect_edge(now, ports), // at once; the back-off is for what comes after
            State::Registering => {
                let error = RegistrationError::CannotConnect { server: self.server_name(), cause: cause.to_owned() };
                self.registration_lost(now, error, ports);
            }
            State::Idle | State::Connecting | State::Waiting | State::Refused | State::Unregistering => {}
        }
    }

    /// Removes the binding; the connection stays until the account is closed.
    pub(crate) fn unregister(&mut self, now: Instant, ports: &mut Ports) {
        self.close_probe(now, ports);
        // A REGISTER on its way may still make a binding, so it is taken back, too.
        let registered =
            matches!(self.registration.state, State::Registered | State::Registering) && self.config.register;
        if !registered || self.endpoint.unregister(now).is_err() {
            self.unregistered(ports);
            return;
        }
        self.registration.state = State::Unregistering;
    }

    pub(crate) fn unregistered(&mut self, ports: &mut Ports) {
        let was = self.registration.state;
        self.registration.close(ports);
        self.relays.drop_mras();
        if was != State::Idle {
            ports.account_event(self.id, AccountChange::Unregistered);
        }
    }

    /// Nothing of the registration is left at the server, as far as we know.
    pub(crate) fn is_unregistered(&self) -> bool {
        self.registration.state == State::Idle && !self.registration.desk.is_probing()
    }

    /// The connection to the server is replaced, whatever it seems to be.
    pub(crate) fn reconnect(&mut self, now: Instant, cause: &str, ports: &mut Ports) {
        match self.registration.state {
            State::Registered | State::Waiting => {
                ports.account_event(self.id, AccountChange::ConnectionLost { cause: cause.to_owned() });
                self.connect_edge(now, ports);
            }
            State::Idle | State::Connecting | State::Registering | State::Refused | State::Unregistering => {}
        }
    }

    /// Media is silent: is the connection to the server? If it is dead, `edge_flow_lost` follows.
    pub(crate) fn check_signalling(&mut self, now: Instant) {
        if let Some(hop) = self.registration.hop.filter(|_| self.registration.state == State::Registered) {
            self.endpoint.ask_for_pong(now, hop.flow, PONG_SOON);
        }
    }

    pub(crate) fn network_changed(&mut self, now: Instant, ports: &mut Ports) {
        // The address we were reached at may be gone: a connection over it would only be found dead later.
        let local = self.registration.hop.and_then(|hop| self.flows.get(&hop.flow)).map(|info| info.local.ip());
        let gone = local.is_some_and(|local| !local.is_loopback() && !self.interfaces.contains(&local));
        if gone || self.registration.state == State::Waiting {
            self.connect_edge(now, ports);
        } else {
            self.probe_relays(now, ports);
        }
    }

    pub(crate) fn registration_timeout(&mut self, now: Instant, ports: &mut Ports) {
        if self.registration.retry_at.take_if(|at| *at <= now).is_some() {
            self.connect_edge(now, ports);
        }
        let due = self.registration.state == State::Connecting;
        if let Some(search) = self.registration.search.as_mut().filter(|_| due) {
            let outcome = search.advance(now, ports);
            self.edge_search_came_to(now, outcome, ports);
        }
        self.credentials_timeout(now, ports);
    }
}
