//! From the registrar's 200 to relays that can be used: provisioning query, MRAS request, renewal, probe.
//!
//! ```text
//!   Registered ─▶ SUBSCRIBE ─▶ document ─▶ SERVICE ─▶ credentials ─▶ names resolved ─▶ probe
//!                                             ▲           │ 80 % of the lifetime
//!                                             └───────────┘      failed: after 30 s, 60 s, …; every minute while an older set works
//! ```

use std::time::{Duration, Instant};

use ice::{ServerCause, ServerOutcome};
use rand::RngExt as _;
use sip::event::{Content, OutOfDialog, RequestId};
use sip::message::Headers;
use sip::{Method, Uri};

use super::account::{Account, News};
use super::flow::earlier;
use super::ports::{AgentOwner, Ports};
use super::provision::{self, Credentials, CredentialsRequest, ProvisionError, Provisioning};
use super::registration::State;
use super::views;
use crate::api::AccountChange;

/// Lifetime asked for; the server may grant less.
const MINUTES: u32 = 480;
/// Header of a REGISTER 200 that names the relay service where there is no provisioning query.
const MRAS_HEADER: &str = "X-MRAS-URI";
/// A provisioning query that is not answered by then has failed.
const PROVISION_PATIENCE: Duration = Duration::from_secs(5);
/// A probe waits longer than a call would.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Service {
    request: RequestId,
    id: String,
    version: &'static str,
    sent_at: Instant,
}

/// What is going on about credentials.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    subscription: Option<RequestId>,
    asked_at: Option<Instant>,
    give_up_at: Option<Instant>,
    mras_uri: Option<String>,
    service: Option<Service>,
    again_at: Option<Instant>,
    failures: u32,
    have_credentials: bool,
    probe: Option<ice::Agent>,
    probe_at: Option<Instant>,
}

impl Desk {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        earlier(earlier(self.give_up_at, self.again_at), self.probe_at)
    }

    pub(crate) fn close(&mut self) {
        // The probe may hold allocations, which it gives back first.
        *self = Self { probe: self.probe.take(), probe_at: self.probe_at, ..Self::default() };
    }

    pub(crate) fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    pub(crate) fn probe_mut(&mut self) -> Option<&mut ice::Agent> {
        self.probe.as_mut()
    }
}

impl Account {
    /// Asks for the provisioning document, or takes what the 200 itself says.
    pub(crate) fn provision(&mut self, now: Instant, headers: &Headers, ports: &mut Ports) {
        let desk = &mut self.registration.desk;
        desk.asked_at = Some(now);
        if !self.config.mras {
            self.relays.set_asking(false);
            self.relays.set_why_none("the relay service is switched off (mras = false)");
            return self.relays_known(now, ports);
        }
        if let Some(uri) = headers.get(MRAS_HEADER) {
            let uri = uri.trim().trim_start_matches('<').trim_end_matches('>').to_owned();
            let named = Provisioning { mras_uri: Some(uri), ..Provisioning::default() };
            return self.provisioned(now, &named, None, ports);
        }
        let packages: Vec<_> = headers.get_all("Allow-Events").collect();
        let offered = packages.iter().any(|list| list.contains(provision::PROVISIONING_EVENT));
        if !packages.is_empty() && !offered {
            return self.provisioned(now, &Provisioning::default(), Some("the server offers no provisioning"), ports);
        }
        let (Some(hop), Some(aor)) = (self.registration.hop, self.aor.clone()) else { return };
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let request = OutOfDialog {
            method: Method::Subscribe,
            uri: aor,
            hop,
            headers: vec![
                header("Accept", provision::PROVISIONING_TYPE),
                header("Supported", "com.microsoft.autoextend"),
                header("Supported", "ms-benotify"),
                header("Supported", "ms-piggyback-first-notify"),
            ],
            content: Some(Content {
                content_type: provision::PROVISIONING_TYPE.to_owned(),
                bytes: provision::provisioning_request().into_bytes(),
            }),
        };
        let desk = &mut self.registration.desk;
        match self.endpoint.subscribe_once(now, request, provision::PROVISIONING_EVENT) {
            Ok(request) => {
                desk.subscription = Some(request);
                desk.give_up_at = Some(now + PROVISION_PATIENCE);
            }
            Err(error) => self.provisioned(now, &Provisioning::default(), Some(&error.to_string()), ports),
        }
    }

    /// The document came: in a NOTIFY, a BENOTIFY, or in the 200 itself.
    pub(crate) fn notified(&mut self, now: Instant, package: &str, content: Option<&Content>, ports: &mut Ports) {
        if package != provision::PROVISIONING_EVENT || self.registration.desk.give_up_at.is_none() {
            return;
        }
        let document = content.map(|content| String::from_utf8_lossy(&content.bytes).into_owned()).unwrap_or_default();
        match provision::parse_provisioning(&document) {
            Ok(provisioning) => self.provisioned(now, &provisioning, None, ports),
            Err(error) => self.provisioned(now, &Provisioning::default(), Some(&error.to_string()), ports),
        }
    }

    fn provisioned(&mut self, now: Instant, provisioning: &Provisioning, problem: Option<&str>, ports: &mut Ports) {
        let desk = &mut self.registration.desk;
        (desk.subscription, desk.give_up_at) = (None, None);
        desk.mras_uri.clone_from(&provisioning.mras_uri);
        desk.failures = 0;
        self.provisioned_ports = provisioning.audio_ports;
        let note = match (&provisioning.mras_uri, problem) {
            (Some(_), _) => None,
            (None, Some(problem)) => Some(format!("no relay service: {problem}")),
            (None, None) => Some("no relay service: the server names none for this user".to_owned()),
        };
        let took_ms = desk.asked_at.map(|at| views::ms(at, now)).unwrap_or_default();
        if let Some(note) = &note {
            self.relays.set_why_none(note.clone());
        }
        ports.account_event(
            self.id,
            AccountChange::Provisioned { mras_uri: provisioning.mras_uri.clone(), note, took_ms },
        );
        if provisioning.mras_uri.is_some() {
            self.ask_for_credentials(now, "1.0", ports);
        } else {
            self.relays.set_asking(false);
            self.relays_known(now, ports);
        }
    }

    fn ask_for_credentials(&mut self, now: Instant, version: &'static str, ports: &mut Ports) {
        let (Some(uri), Some(hop)) = (self.registration.desk.mras_uri.clone(), self.registration.hop) else { return };
        let Ok(target) = uri.parse::<Uri>() else {
            return self.credentials_failed(now, &format!("{uri:?} is not a SIP URI"), false, ports);
        };
        let identity = self.aor.as_ref().map(|aor| format!("sip:{}", aor.address_of_record())).unwrap_or_default();
        let id = self.registration.rng.random_range(1_000_000..=9_999_999_u32).to_string();
        let location = self.registration.location;
        let request =
            CredentialsRequest { id: &id, version, identity: &identity, mras_uri: &uri, location, minutes: MINUTES };
        let Ok(bytes) = provision::mras_request(&request) else { return };
        let content = Content { content_type: provision::MRAS_TYPE.to_owned(), bytes };
        match self.endpoint.service(now, hop, target, content) {
            Ok(request) => self.registration.desk.service = Some(Service { request, id, version, sent_at: now }),
            Err(error) => self.credentials_failed(now, &error.to_string(), true, ports),
        }
    }

    /// A final answer to a request of ours.
    pub(crate) fn response(&mut self, now: Instant, answer: &Answered<'_>, ports: &mut Ports) {
        let desk = &mut self.registration.desk;
        if desk.subscription == Some(answer.request) {
            if answer.status >= 300 {
                let problem = format!("the provisioning query was answered {} {}", answer.status, answer.reason);
                self.provisioned(now, &Provisioning::default(), Some(&problem), ports);
            }
            return;
        }
        let Some(service) = desk.service.take_if(|service| service.request == answer.request) else { return };
        if answer.status >= 300 {
            let cause = format!("the relay service answered {} {}", answer.status, answer.reason);
            // A malformed request or a user without the right does not get better by asking again.
            let again = !matches!(answer.status, 400 | 403 | 488);
            return self.credentials_failed(now, &cause, again, ports);
        }
        let body =
            answer.content.map(|content| String::from_utf8_lossy(&content.bytes).into_owned()).unwrap_or_default();
        match provision::parse_mras_response(&body, &service.id) {
            Ok(credentials) => self.credentials_came(now, &service, &credentials, ports),
            Err(ProvisionError::Refused(phrase)) if phrase == "Version Mismatch" && service.version == "1.0" => {
                self.ask_for_credentials(now, "2.0", ports);
            }
            Err(error) => {
                let again = !matches!(&error, ProvisionError::Refused(phrase) if phrase == "Forbidden" || phrase == "Request Malformed");
                self.credentials_failed(now, &error.to_string(), again, ports);
            }
        }
    }

    fn credentials_came(&mut self, now: Instant, service: &Service, credentials: &Credentials, ports: &mut Ports) {
        let location = self.registration.location;
        let relays = self.relays.set_credentials(self.id, credentials, location, ports);
        let renew_at = provision::renew_at(service.sent_at, credentials.lifetime);
        let desk = &mut self.registration.desk;
        desk.again_at = Some(renew_at);
        desk.failures = 0;
        desk.have_credentials = true;
        let change = AccountChange::CredentialsReceived {
            relays,
            lifetime_s: credentials.lifetime.as_secs(),
            renew_in_s: views::ms(now, renew_at) / 1000,
            took_ms: views::ms(service.sent_at, now),
        };
        ports.account_event(self.id, change);
        if self.relays.is_settled() {
            self.relays_known(now, ports);
        }
    }

    fn credentials_failed(&mut self, now: Instant, cause: &str, again: bool, ports: &mut Ports) {
        self.relays.set_asking(false);
        self.relays.set_why_none(cause);
        let desk = &mut self.registration.desk;
        desk.failures = desk.failures.saturating_add(1);
        let wait = again.then(|| provision::retry_after(desk.failures, desk.have_credentials));
        desk.again_at = wait.map(|wait| now + wait);
        let retry_in_s = wait.map(|wait| wait.as_secs());
        ports.account_event(self.id, AccountChange::CredentialsFailed { cause: cause.to_owned(), retry_in_s });
        self.news.push_back(News::Ready);
    }

    /// The servers are known by address: calls may start, and each is tried once so that a dead one is not waited for.
    pub(crate) fn relays_known(&mut self, now: Instant, ports: &mut Ports) {
        self.news.push_back(News::Ready);
        self.probe_relays(now, ports);
    }

    pub(crate) fn probe_relays(&mut self, now: Instant, ports: &mut Ports) {
        let Some(hop) = self.registration.hop else { return };
        let mut servers = self.relays.servers(now);
        if servers.is_empty() || self.registration.state != State::Registered {
            return;
        }
        for server in &mut servers {
            server.wait = true;
        }
        let config = ice::Config {
            interfaces: self.media_interfaces(hop, None),
            servers,
            rtcp: false,
            gather_limit: PROBE_LIMIT,
            waits_for_all: true,
            tcp: false,
            ..ice::Config::default()
        };
        self.drop_probe(ports);
        let mut agent = ice::Agent::new(now, config, self.registration.rng.random());
        agent.gather(now);
        self.registration.desk.probe = Some(agent);
        self.drain_probe(now, ports);
    }

    /// Gives back what the probe holds; with the last of it the probe is gone.
    pub(crate) fn close_probe(&mut self, now: Instant, ports: &mut Ports) {
        if let Some(agent) = self.registration.desk.probe.as_mut() {
            agent.close(now);
            self.drain_probe(now, ports);
        }
    }

    fn drop_probe(&mut self, ports: &mut Ports) {
        if self.registration.desk.probe.take().is_some() {
            ports.close_all_of(AgentOwner::Probe(self.id));
            self.registration.desk.probe_at = None;
        }
    }

    /// Takes what the probe has to say; to be called after everything that touched it.
    pub(crate) fn drain_probe(&mut self, now: Instant, ports: &mut Ports) {
        let owner = AgentOwner::Probe(self.id);
        while let Some(agent) = self.registration.desk.probe.as_mut() {
            match ports.carry(owner, agent.poll_output()) {
                Some(ice::Output::Timeout(at)) => {
                    self.registration.desk.probe_at = at;
                    return;
                }
                Some(ice::Output::Event(ice::Event::Gathered { failures, .. })) => {
                    agent.close(now);
                    // Silence for so long is an answer too: no call shall wait for that server.
                    for failure in failures {
                        if let ServerCause::Silent(took) = failure.cause {
                            self.probed(failure.server, &ServerOutcome::Failed(failure.cause), took, ports);
                        }
                    }
                }
                Some(ice::Output::Event(ice::Event::Closed)) => self.drop_probe(ports),
                Some(ice::Output::Event(ice::Event::ServerProbed { server, outcome, took })) => {
                    self.probed(server, &outcome, took, ports);
                }
                Some(_) | None => {}
            }
        }
    }

    fn probed(&mut self, server: ice::ServerId, outcome: &ServerOutcome, took: Duration, ports: &mut Ports) {
        let report = self.registration.desk.probe.as_ref().map(ice::Agent::report);
        let Some(server) = report.as_ref().and_then(|report| report.servers.get(server.0)) else { return };
        self.relays.remember(server.addr, server.transport, outcome);
        let (transport, failure) = match outcome {
            ServerOutcome::Works(by) => (*by, None),
            ServerOutcome::Failed(cause) => (server.transport, Some(cause.to_string())),
        };
        let change = AccountChange::RelayProbed {
            server: server.addr.to_string(),
            transport: views::relay_transport(transport),
            failure,
            took_ms: views::millis(took),
        };
        ports.account_event(self.id, change);
    }

    pub(crate) fn credentials_timeout(&mut self, now: Instant, ports: &mut Ports) {
        let desk = &mut self.registration.desk;
        if desk.give_up_at.is_some_and(|at| at <= now) {
            self.provisioned(now, &Provisioning::default(), Some("the provisioning query was not answered"), ports);
        }
        if self.registration.desk.again_at.take_if(|at| *at <= now).is_some() && self.registration.hop.is_some() {
            self.ask_for_credentials(now, "1.0", ports);
        }
        if self.registration.desk.probe_at.is_some_and(|at| at <= now)
            && let Some(probe) = self.registration.desk.probe_mut()
        {
            probe.handle_input(now, ice::Input::Timeout);
            self.drain_probe(now, ports);
        }
    }
}

/// A final response, borrowed from the user agent's event.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) request: RequestId,
    pub(crate) status: u16,
    pub(crate) reason: &'a str,
    pub(crate) content: Option<&'a Content>,
}
