//! REGISTER, RFC 3261 §10: one binding, kept alive, found again after a failure.
//!
//! ```text
//!   register ──▶ Asking ──200──▶ Bound ──before expiry──▶ Asking      401, 423, 439: asked again at once
//!                  │ └─ failure ──▶ Waiting ──back-off──▶ Asking      flow lost: the owner opens another
//!   unregister ──▶ Asking (expires 0) ──▶ Off
//! ```
//!
//! Contact carries `+sip.instance` and `reg-id` (RFC 5626 §4.1); Path and Service-Route follow RFC 3327 §5, RFC 3608 §5.
//! Behind a NAT on UDP the Contact becomes the address that the registrar saw, and the old binding is removed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::endpoint::send::{self, ALLOW};
use crate::endpoint::{Endpoint, Owner};
use crate::event::{CommandError, Event, FlowId, Hop, Keepalive, Register, Registered, RegistrationFailed, Transport};
use crate::header::{CSeq, NameAddr, syntax};
use crate::message::{Headers, Method, Request, Response};
use crate::transport::flow::{Hold, Pings};

/// Longest back-off (RFC 5626 §4.5).
const BACK_OFF_MAX: Duration = Duration::from_mins(30);
/// First back-off when no flow is left (RFC 5626 §4.5).
const BACK_OFF_BASE: Duration = Duration::from_secs(30);
/// How often 423, 439 or a new public address may repeat one registration.
const REPEATS_MAX: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asking {
        removing: bool,
    },
    Bound {
        refresh_at: Instant,
    },
    Waiting {
        retry_at: Instant,
    },
    /// Waits for the owner: no flow, or no hope.
    Off,
}

/// The registration of the endpoint's address of record.
#[derive(Debug)]
pub(crate) struct Registration {
    wanted: Register,
    call_id: String,
    tag: String,
    /// Number of the last REGISTER.
    cseq: u32,
    state: State,
    failures: u32,
    repeats: u8,
    /// What is to be asked for: `wanted.expires`, raised by 423.
    expires: Duration,
    outbound: bool,
    /// Contacts that a registrar holds for us, the newest last.
    bound: Vec<NameAddr>,
    service_route: Vec<String>,
    gruu: Option<String>,
    announced: bool,
}

impl Registration {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Bound { refresh_at: at } | State::Waiting { retry_at: at } => Some(at),
            State::Asking { .. } | State::Off => None,
        }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.state == State::Off
    }
}

impl Endpoint {
    /// Registers, and stays registered. Called again, it moves the registration to another flow or registrar.
    ///
    /// # Errors
    ///
    /// If the flow is not open.
    pub fn register(&mut self, now: Instant, register: Register) -> Result<(), CommandError> {
        if !self.flows.contains_key(&register.hop.flow) {
            return Err(CommandError::NoFlow(register.hop.flow));
        }
        let (call_id, tag) = (self.token() + &self.token(), self.token());
        let expires = register.expires;
        let registration = match self.registration.take() {
            // The same Call-ID for all of one boot (RFC 3261 §10.2).
            Some(known) => Registration { wanted: register, expires, repeats: 0, ..known },
            None => Registration {
                wanted: register,
                call_id,
                tag,
                cseq: 0,
                state: State::Off,
                failures: 0,
                repeats: 0,
                expires,
                outbound: true,
                bound: Vec::new(),
                service_route: Vec::new(),
                gruu: None,
                announced: false,
            },
        };
        self.registration = Some(registration);
        self.send_register(now, false)?;
        self.settle(now);
        Ok(())
    }

    /// Removes the binding; [`Event::Unregistered`] follows in any case, at the latest after 32 s.
    ///
    /// # Errors
    ///
    /// None today: without a registration there is nothing to remove.
    pub fn unregister(&mut self, now: Instant) -> Result<(), CommandError> {
        let bound = self.registration.as_ref().is_some_and(|registration| {
            !registration.bound.is_empty() || matches!(registration.state, State::Asking { removing: false })
        });
        if !bound || self.send_register(now, true).is_err() {
            self.finish_unregister();
        }
        self.settle(now);
        Ok(())
    }

    fn send_register(&mut self, now: Instant, removing: bool) -> Result<(), CommandError> {
        let Some(registration) = &mut self.registration else { return Ok(()) };
        registration.cseq = registration.cseq.saturating_add(1);
        registration.state = State::Asking { removing };
        let (number, hop) = (registration.cseq, registration.wanted.hop);
        let request = self.make_register(number, hop, removing);
        let sent = self.send_request(now, hop, request, Owner::Register(number));
        if let (Err(_), Some(registration)) = (&sent, &mut self.registration) {
            registration.state = State::Off;
        }
        sent.map(|_| ())
    }

    fn make_register(&mut self, number: u32, hop: Hop, removing: bool) -> Request {
        let identity = self.identity(hop.flow);
        let contact = NameAddr::new(self.contact_uri(hop.flow));
        let instance = self.instance.clone();
        let Some(registration) = &self.registration else {
            return Request::new(Method::Register, identity.uri);
        };
        let mut request = Request::new(Method::Register, registration.wanted.registrar.clone());
        let headers = &mut request.headers;
        headers.push("Max-Forwards", "70");
        headers.push("From", identity.clone().with_tag(&registration.tag).to_string());
        headers.push("To", NameAddr::new(identity.uri).to_string());
        headers.push("Call-ID", registration.call_id.clone());
        headers.push("CSeq", CSeq::new(number, Method::Register).to_string());
        let expires = if removing { 0 } else { registration.expires.as_secs() };
        let mut own = format!("{contact};+sip.instance=\"<{instance}>\"");
        if registration.outbound {
            own.push_str(";reg-id=1");
        }
        headers.push("Contact", format!("{own};expires={expires}"));
        // A binding that this one replaces must not stay behind (RFC 3261 §10.2.2).
        for old in registration.bound.iter().filter(|old| !old.uri.equivalent(&contact.uri)) {
            headers.push("Contact", format!("<{}>;expires=0", old.uri));
        }
        headers.push("Expires", expires.to_string());
        headers.push("Supported", if registration.outbound { "path, outbound, gruu" } else { "path, gruu" });
        headers.push("Allow", ALLOW);
        send::add_headers(headers, &registration.wanted.headers);
        request
    }

    pub(crate) fn rebind_registration(&mut self, number: u32) {
        if let Some(registration) = &mut self.registration {
            registration.cseq = number;
        }
    }

    pub(crate) fn handle_register_response(
        &mut self,
        now: Instant,
        number: u32,
        response: &Response,
        local: bool,
        refused: bool,
    ) {
        let Some(registration) = &mut self.registration else { return };
        let State::Asking { removing } = registration.state else { return };
        if response.is_provisional() || registration.cseq != number {
            return;
        }
        if removing {
            // Whatever the answer: we cannot do more than ask.
            return self.finish_unregister();
        }
        let may_repeat = registration.repeats < REPEATS_MAX;
        match response.status {
            200..=299 => self.take_binding(now, response),
            423 if may_repeat => {
                let min =
                    response.headers.get("Min-Expires").and_then(|text| syntax::seconds(text).ok()).unwrap_or(3600);
                registration.repeats += 1;
                registration.expires = registration.expires.max(Duration::from_secs(min.into()));
                self.repeat_register(now);
            }
            439 if may_repeat && registration.outbound => {
                registration.repeats += 1;
                registration.outbound = false; // RFC 5626 §4.2.1
                self.repeat_register(now);
            }
            _ => self.fail_registration(now, response, local, refused),
        }
    }

    fn repeat_register(&mut self, now: Instant) {
        if let Err(error) = self.send_register(now, false) {
            self.report_lost(now, &error.to_string());
        }
    }

    fn take_binding(&mut self, now: Instant, response: &Response) {
        let Some(registration) = &self.registration else { return };
        let hop = registration.wanted.hop;
        let contact = self.contact_uri(hop.flow);
        let public = self.learn_public_address(hop.flow, response);
        let headers = &response.headers;
        let contacts = headers.contacts().unwrap_or_default();
        let ours = contacts.iter().find(|candidate| {
            candidate.params.text("+sip.instance").is_some_and(|text| text.contains(&self.instance))
                && candidate.uri.host.same(&contact.host)
                || candidate.uri.equivalent(&contact)
        });
        let granted = ours.and_then(NameAddr::expires).or_else(|| headers.expires().ok().flatten());
        let moved = self.contact_uri(hop.flow);
        let Some(registration) = &mut self.registration else { return };
        let expires = granted.map_or(registration.expires, |seconds| Duration::from_secs(seconds.into()));
        registration.bound = vec![NameAddr::new(contact.clone())];
        registration.failures = 0;
        if !moved.equivalent(&contact) && registration.repeats < REPEATS_MAX {
            // The registrar saw another address than the one we registered.
            registration.repeats += 1;
            return self.repeat_register(now);
        }
        registration.repeats = 0;
        let early = (expires / 4).min(Duration::from_mins(1));
        registration.state =
            State::Bound { refresh_at: now + expires.saturating_sub(early).max(Duration::from_secs(1)) };
        registration.service_route = headers.values("Service-Route").map(ToOwned::to_owned).collect();
        registration.gruu = ours.and_then(|ours| ours.params.text("pub-gruu").or_else(|| ours.params.text("gruu")));
        let outbound = headers.lists("Require", "outbound");
        let refresh = std::mem::replace(&mut registration.announced, true);
        let registered = Registered {
            expires,
            service_route: registration.service_route.clone(),
            gruu: registration.gruu.clone(),
            public,
            contact: contact.to_string(),
            contacts: contacts.iter().map(ToString::to_string).collect(),
            remote_user: headers
                .get("ms-user-logon-data")
                .is_some_and(|text| text.trim().eq_ignore_ascii_case("RemoteUser")),
            outbound,
            refresh,
            headers: headers.clone(),
        };
        self.keep_alive(now, hop, headers, outbound);
        self.adopt_dialogs(hop);
        self.emit(Event::Registered(Box::new(registered)));
    }

    /// Dialogs whose flow is gone go on over the registered one.
    fn adopt_dialogs(&mut self, hop: Hop) {
        for session in self.sessions.values_mut().filter(|session| !self.flows.contains_key(&session.hop.flow)) {
            session.hop = hop;
            session.direct = true;
        }
    }

    /// `received` and `rport` of our Via (RFC 3581 §4). On UDP they become the address of our Contact.
    fn learn_public_address(&mut self, id: FlowId, response: &Response) -> Option<SocketAddr> {
        let via = response.headers.via_top().ok()?;
        let flow = self.flows.get_mut(&id)?;
        let ip = via.received().or(via.host.ip())?;
        let public = SocketAddr::new(ip, via.rport().unwrap_or(flow.local.port()));
        if flow.transport == Transport::Udp {
            flow.public = Some(public);
        }
        Some(public)
    }

    /// UDP: CRLF below the life of a NAT mapping. Streams: CRLF CRLF as often as the server says (`Flow-Timer`,
    /// `ms-keep-alive`), else every 95-120 s (RFC 5626 §4.4.1).
    fn keep_alive(&mut self, now: Instant, hop: Hop, headers: &Headers, outbound: bool) {
        let Some(flow) = self.flows.get_mut(&hop.flow) else { return };
        if flow.transport.is_reliable() {
            let told = headers
                .get("Flow-Timer")
                .and_then(|text| syntax::seconds(text).ok())
                .or_else(|| lync_interval(headers));
            if flow.pings.is_none() {
                let interval = told.map(|seconds| Duration::from_secs(seconds.into()));
                flow.pings = Some(Pings::new(now, interval, outbound, &mut self.rng));
            }
        } else {
            self.holds.entry((hop.flow, hop.to)).or_insert_with(|| Hold::new(now, Keepalive::Crlf, &mut self.rng));
        }
    }

    fn fail_registration(&mut self, now: Instant, response: &Response, local: bool, refused: bool) {
        let Response { status, reason, headers, .. } = response;
        let retry_after = send::retry_after(headers);
        let temporary = matches!(status, 408 | 430 | 480 | 500..=599);
        let wait = self.back_off();
        let retry_in = temporary.then(|| retry_after.unwrap_or(wait));
        let Some(registration) = &mut self.registration else { return };
        registration.failures = registration.failures.saturating_add(1);
        registration.announced = false;
        registration.state = retry_in.map_or(State::Off, |wait| State::Waiting { retry_at: now + wait });
        self.emit(Event::RegistrationFailed(Box::new(RegistrationFailed {
            status: (!local).then_some(*status),
            reason: reason.clone(),
            credentials_refused: refused,
            retry_in,
            redirect: send::redirect_contacts(response),
            diagnostics: send::diagnostics(headers),
        })));
    }

    /// 30 s doubled per failure, at most 30 minutes, times a random 50-100 % (RFC 5626 §4.5).
    fn back_off(&mut self) -> Duration {
        let failures = self.registration.as_ref().map_or(0, |registration| registration.failures);
        let upper = BACK_OFF_BASE.saturating_mul(2_u32.saturating_pow(failures.min(6))).min(BACK_OFF_MAX);
        upper / 2 + self.random_below(upper / 2)
    }

    /// The flow of the registration is gone. The owner opens another and calls `register`.
    pub(crate) fn lose_registration(&mut self, now: Instant, flow: FlowId, cause: &str) {
        let Some(registration) = &mut self.registration else { return };
        if registration.wanted.hop.flow != flow || registration.state == State::Off {
            return;
        }
        // What waited in a transaction was told by its failure already.
        match registration.state {
            State::Bound { .. } => self.report_lost(now, cause),
            State::Asking { removing: true } => self.finish_unregister(),
            State::Asking { removing: false } | State::Waiting { .. } => registration.state = State::Off,
            State::Off => {}
        }
    }

    fn report_lost(&mut self, now: Instant, cause: &str) {
        let wait = match self.registration.as_ref().map_or(0, |registration| registration.failures) {
            // One phone may come back at once; a thousand that lost the same server must not do so together.
            0 => self.random_below(Duration::from_secs(1)),
            _ => self.back_off(),
        };
        let Some(registration) = &mut self.registration else { return };
        registration.failures = registration.failures.saturating_add(1);
        registration.announced = false;
        registration.state = State::Waiting { retry_at: now + wait };
        self.emit(Event::RegistrationFailed(Box::new(RegistrationFailed {
            status: None,
            reason: cause.to_owned(),
            credentials_refused: false,
            retry_in: Some(wait),
            redirect: Vec::new(),
            diagnostics: None,
        })));
    }

    fn finish_unregister(&mut self) {
        if let Some(registration) = self.registration.take() {
            self.holds.remove(&(registration.wanted.hop.flow, registration.wanted.hop.to));
        }
        self.emit(Event::Unregistered);
    }

    /// Refreshes, or tries again.
    pub(crate) fn run_registration(&mut self, now: Instant) {
        let Some(registration) = &mut self.registration else { return };
        if registration.deadline().is_none_or(|at| at > now) {
            return;
        }
        let open = self.flows.contains_key(&registration.wanted.hop.flow);
        if open {
            self.repeat_register(now);
            self.settle(now);
        } else {
            registration.state = State::Off;
        }
    }

    /// Routes for requests outside dialogs on the registered flow.
    pub(crate) fn service_route(&self, flow: FlowId) -> Vec<String> {
        let registered = self.registration.as_ref().filter(|registration| registration.wanted.hop.flow == flow);
        registered.map(|registration| registration.service_route.clone()).unwrap_or_default()
    }

    /// Our GRUU, while the registration on this flow stands.
    pub(crate) fn gruu(&self, flow: FlowId) -> Option<String> {
        self.registration.as_ref().filter(|registration| registration.wanted.hop.flow == flow)?.gruu.clone()
    }
}

/// `ms-keep-alive: UAS; …; timeout=300` (protocol facts §2.2).
fn lync_interval(headers: &Headers) -> Option<u32> {
    let value = headers.get("ms-keep-alive")?;
    let timeout = value.split(';').find_map(|part| part.trim().strip_prefix("timeout="))?;
    syntax::seconds(timeout).ok().filter(|seconds| *seconds > 0)
}
