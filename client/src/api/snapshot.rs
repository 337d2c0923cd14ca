//! The whole state as a user interface shows it, and the one reducer that keeps it current.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::EngineChange;
use super::{
    AccountChange, AccountId, CallChange, CallId, CallState, CallStats, CandidateView, Component, Direction, EndReason,
    Event, EventBody, IceReport, Location, PathView, Protection, ServerOutcome,
};

/// Ended calls remembered: a screen's worth of scrolling, not an archive.
pub const HISTORY_MAX: usize = 100;
/// Digits and working pairs kept of one call: the peer decides how many there are.
const LISTED_MAX: usize = 200;

/// The five phases of a media path, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Server found, registered, relay credentials at hand.
    Provision,
    /// Candidates gathered.
    Discover,
    /// Offer and answer exchanged.
    Exchange,
    /// Connectivity checks until media can flow.
    Check,
    /// The best path nominated and announced.
    Promote,
}

impl Phase {
    pub const ALL: [Self; 5] = [Self::Provision, Self::Discover, Self::Exchange, Self::Check, Self::Promote];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseState {
    #[default]
    Pending,
    Running,
    Done,
    Failed,
}

/// One phase of one call. Times are milliseconds since the engine started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PhaseClock {
    pub state: PhaseState,
    pub started_ms: Option<u64>,
    pub ended_ms: Option<u64>,
    /// The evidence in one line, "6 candidates", "relay(udp)-srflx".
    pub note: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The last event that this snapshot contains.
    pub seq: u64,
    pub at_ms: u64,
    pub accounts: BTreeMap<AccountId, AccountSnapshot>,
    pub calls: BTreeMap<CallId, CallSnapshot>,
    /// Ended calls, newest first, [`HISTORY_MAX`] at most.
    pub history: Vec<HistoryEntry>,
    pub notices: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AccountSnapshot {
    pub aor: String,
    /// "registering", "registered", "failed", "unregistered".
    pub status: String,
    /// `edge.example.com (203.0.113.10:443, tls)`.
    pub edge: Option<String>,
    pub location: Option<Location>,
    pub error: Option<String>,
    pub relays: Vec<String>,
    /// When the relay credentials run out, milliseconds since the engine started.
    pub credentials_expire_ms: Option<u64>,
    /// How long locating and registering took.
    pub registered_after_ms: Option<u64>,
    /// How long fetching the relay credentials took, after that.
    pub credentials_after_ms: Option<u64>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallSnapshot {
    pub account: AccountId,
    pub direction: Direction,
    pub peer: String,
    pub state: CallState,
    pub created_ms: u64,
    /// When talking began.
    pub answered_ms: Option<u64>,
    pub ended_ms: Option<u64>,
    pub phases: BTreeMap<Phase, PhaseClock>,
    pub local: Vec<CandidateView>,
    pub remote: Vec<CandidateView>,
    pub servers: Vec<ServerOutcome>,
    pub valid: Vec<PathView>,
    pub paths: BTreeMap<Component, PathView>,
    pub codec: Option<String>,
    pub protection: Option<Protection>,
    pub stats: CallStats,
    pub muted: bool,
    pub held_by_us: bool,
    pub held_by_peer: bool,
    /// Digits received.
    pub dtmf: String,
    pub warnings: Vec<String>,
    pub ended: Option<EndReason>,
    pub report: IceReport,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub call: CallId,
    pub account: AccountId,
    pub direction: Direction,
    pub peer: String,
    pub started_ms: u64,
    pub duration_ms: u64,
    pub reason: EndReason,
    pub path: Option<String>,
    pub mos: Option<f32>,
}

impl Snapshot {
    /// Folds one event in. A snapshot plus the events after it equals the later snapshot.
    pub fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        self.at_ms = event.at_ms;
        match &event.body {
            EventBody::Account { account, change } => self.apply_account(*account, change, event.at_ms),
            EventBody::Call { call, change } => self.apply_call(*call, change, event.at_ms),
            EventBody::Engine(change) => match &**change {
                EngineChange::Snapshot { snapshot } => *self = (**snapshot).clone(),
                EngineChange::Notice { text } => self.notices.push(text.clone()),
                EngineChange::Refused { error, .. } => self.notices.push(error.to_string()),
                EngineChange::InterfacesChanged { .. } | EngineChange::Health { .. } | EngineChange::Stopped => {}
            },
        }
        let surplus = self.notices.len().saturating_sub(HISTORY_MAX);
        self.notices.drain(..surplus);
    }

    fn apply_account(&mut self, id: AccountId, change: &AccountChange, at_ms: u64) {
        if matches!(change, AccountChange::Removed) {
            self.accounts.remove(&id);
            return;
        }
        self.accounts.entry(id).or_default().apply(change, at_ms);
    }

    fn apply_call(&mut self, id: CallId, change: &CallChange, at_ms: u64) {
        if let CallChange::Created { account, direction, peer } = change {
            let mut call = CallSnapshot::new(*account, *direction, peer.clone(), at_ms);
            if let Some(account) = self.accounts.get(account) {
                call.phases.insert(Phase::Provision, account.provision_clock(at_ms));
            }
            self.calls.insert(id, call);
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.apply(change, at_ms);
        if let CallChange::Ended { reason, duration_ms, .. } = change {
            let entry = HistoryEntry {
                call: id,
                account: call.account,
                direction: call.direction,
                peer: call.peer.clone(),
                started_ms: call.created_ms,
                duration_ms: *duration_ms,
                reason: reason.clone(),
                path: call.paths.get(&Component::Rtp).map(|path| path.name.clone()),
                mos: call.stats.mos,
            };
            self.history.insert(0, entry);
            self.history.truncate(HISTORY_MAX);
            self.calls.remove(&id);
        }
    }
}

impl AccountSnapshot {
    fn apply(&mut self, change: &AccountChange, at_ms: u64) {
        match change {
            AccountChange::Added { aor } => self.aor.clone_from(aor),
            AccountChange::SrvSelected { target, address, transport, .. } => {
                self.edge = Some(format!("{target} ({address}, {})", format!("{transport:?}").to_lowercase()));
            }
            AccountChange::Registering => "registering".clone_into(&mut self.status),
            AccountChange::Registered { location, took_ms, .. } => {
                "registered".clone_into(&mut self.status);
                self.location = Some(*location);
                self.registered_after_ms = Some(*took_ms);
                self.error = None;
            }
            AccountChange::RegistrationFailed { error, .. } => {
                "failed".clone_into(&mut self.status);
                self.error = Some(error.to_string());
            }
            AccountChange::ConnectionLost { cause } => {
                "registering".clone_into(&mut self.status);
                self.error = Some(cause.clone());
            }
            AccountChange::Unregistered => "unregistered".clone_into(&mut self.status),
            AccountChange::CredentialsReceived { relays, lifetime_s, took_ms, .. } => {
                self.credentials_after_ms = Some(*took_ms);
                self.relays.clone_from(relays);
                self.credentials_expire_ms = Some(at_ms + lifetime_s * 1000);
            }
            AccountChange::CredentialsFailed { cause, .. } => self.warn(cause.clone()),
            AccountChange::Provisioned { note: Some(note), .. } => self.warn(note.clone()),
            AccountChange::Warned { warning } => self.warn(warning.to_string()),
            AccountChange::Removed
            | AccountChange::ServersLocated { .. }
            | AccountChange::Listening { .. }
            | AccountChange::Provisioned { note: None, .. }
            | AccountChange::RelayProbed { .. } => {}
        }
    }

    /// The first phase of a call that begins now: what registering and fetching credentials took before it.
    fn provision_clock(&self, now_ms: u64) -> PhaseClock {
        let registered = self.registered_after_ms;
        let took = registered.unwrap_or(0).saturating_add(self.credentials_after_ms.unwrap_or(0));
        let note = match (registered, self.relays.len()) {
            (None, _) => "no registration".to_owned(),
            (Some(_), 0) => "no relay".to_owned(),
            (Some(_), 1) => "1 relay".to_owned(),
            (Some(_), relays) => format!("{relays} relays"),
        };
        let started_ms = Some(now_ms.saturating_sub(took));
        PhaseClock { state: PhaseState::Done, started_ms, ended_ms: Some(now_ms), note }
    }

    fn warn(&mut self, text: String) {
        push_warning(&mut self.warnings, text);
    }
}

impl CallSnapshot {
    fn new(account: AccountId, direction: Direction, peer: String, at_ms: u64) -> Self {
        let phases = Phase::ALL.into_iter().map(|phase| (phase, PhaseClock::default())).collect();
        let mut call = Self {
            account,
            direction,
            peer,
            state: CallState::Gathering,
            created_ms: at_ms,
            answered_ms: None,
            ended_ms: None,
            phases,
            local: Vec::new(),
            remote: Vec::new(),
            servers: Vec::new(),
            valid: Vec::new(),
            paths: BTreeMap::new(),
            codec: None,
            protection: None,
            stats: CallStats::default(),
            muted: false,
            held_by_us: false,
            held_by_peer: false,
            dtmf: String::new(),
            warnings: Vec::new(),
            ended: None,
            report: IceReport::default(),
        };
        call.start(Phase::Provision, at_ms);
        call.finish(Phase::Provision, at_ms, String::new());
        call.start(Phase::Discover, at_ms);
        call
    }

    /// Folds one change of this call in; `Ended` leaves it as the picture of a finished call.
    pub fn apply(&mut self, change: &CallChange, at_ms: u64) {
        match change {
            CallChange::Created { .. }
            | CallChange::OfferSent { .. }
            | CallChange::DtmfSent { .. }
            | CallChange::SourceEnded
            | CallChange::FirstMedia { .. } => {}
            CallChange::PathLost { path, cause } => {
                push_warning(&mut self.warnings, format!("{} is dead: {cause}", path.name));
            }
            CallChange::MediaGap { length_ms, cause, .. } => {
                push_warning(&mut self.warnings, format!("nothing was heard for {length_ms} ms: {cause}"));
            }
            CallChange::State { state } => self.enter(*state, at_ms),
            CallChange::Gathered { candidates, servers, .. } => {
                self.local.clone_from(candidates);
                self.servers.clone_from(servers);
                self.finish(Phase::Discover, at_ms, format!("{} candidates", candidates.len()));
                self.start(Phase::Exchange, at_ms);
            }
            CallChange::AnswerReceived { message, candidates, .. } => {
                self.remote.clone_from(candidates);
                self.finish(Phase::Exchange, at_ms, format!("{} in the {message}", candidates.len()));
                self.start(Phase::Check, at_ms);
            }
            CallChange::NoIce { remote } => {
                self.finish(Phase::Check, at_ms, format!("no ICE, plain RTP to {remote}"));
                self.finish(Phase::Promote, at_ms, "not needed".to_owned());
            }
            CallChange::PairValid { path, .. } => {
                if self.valid.len() < LISTED_MAX {
                    self.valid.push(path.clone());
                }
            }
            CallChange::PathChanged { component, path, .. } => {
                self.paths.insert(*component, path.clone());
                self.finish(Phase::Check, at_ms, path.name.clone());
                self.start(Phase::Promote, at_ms);
            }
            CallChange::Promoted { path, .. } => self.note(Phase::Promote, &path.name),
            CallChange::Announced { .. } => self.finish(Phase::Promote, at_ms, String::new()),
            CallChange::MediaStarted { codec, protection } => {
                self.codec = Some(codec.clone());
                self.protection = Some(*protection);
            }
            CallChange::Stats { stats } => self.stats.clone_from(stats),
            CallChange::Dtmf { digit } => {
                if self.dtmf.len() >= LISTED_MAX {
                    self.dtmf.remove(0); // digits are ASCII
                }
                self.dtmf.push(*digit);
            }
            CallChange::Muted { muted } => self.muted = *muted,
            CallChange::Hold { by_us, by_peer } => (self.held_by_us, self.held_by_peer) = (*by_us, *by_peer),
            CallChange::Redirected { to } => self.warn(format!("sent on to {to}")),
            CallChange::TransferRequested { to, .. } => self.warn(format!("asked to transfer to {to}")),
            CallChange::TransferProgress { status, phrase } => self.warn(format!("transfer: {status} {phrase}")),
            CallChange::Warned { warning } => self.warn(warning.to_string()),
            CallChange::Ended { reason, stats, report, .. } => {
                self.ended = Some(reason.clone());
                self.stats.clone_from(stats);
                self.report.clone_from(report);
                self.enter(CallState::Ended, at_ms);
            }
        }
    }

    fn enter(&mut self, state: CallState, at_ms: u64) {
        self.state = state;
        if state == CallState::Talking && self.answered_ms.is_none() {
            self.answered_ms = Some(at_ms);
        }
        if state == CallState::Ended {
            self.ended_ms = Some(at_ms);
            for clock in self.phases.values_mut().filter(|clock| clock.state == PhaseState::Running) {
                clock.state = PhaseState::Failed;
                clock.ended_ms = Some(at_ms);
            }
        }
    }

    fn start(&mut self, phase: Phase, at_ms: u64) {
        let clock = self.phases.entry(phase).or_default();
        if clock.state == PhaseState::Pending {
            clock.state = PhaseState::Running;
            clock.started_ms = Some(at_ms);
        }
    }

    fn finish(&mut self, phase: Phase, at_ms: u64, note: String) {
        self.start(phase, at_ms);
        let clock = self.phases.entry(phase).or_default();
        if clock.state == PhaseState::Running {
            clock.state = PhaseState::Done;
            clock.ended_ms = Some(at_ms);
        }
        if !note.is_empty() {
            clock.note = note;
        }
    }

    fn note(&mut self, phase: Phase, note: &str) {
        note.clone_into(&mut self.phases.entry(phase).or_default().note);
    }

    fn warn(&mut self, text: String) {
        push_warning(&mut self.warnings, text);
    }
}

/// Keeps each warning once, and not more than a screen can show.
fn push_warning(warnings: &mut Vec<String>, text: String) {
    const WARNINGS_MAX: usize = 20; // per account or call: a screen's worth
    if warnings.contains(&text) {
        return;
    }
    if warnings.len() >= WARNINGS_MAX {
        warnings.remove(0);
    }
    warnings.push(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Transport;

    fn event(seq: u64, body: EventBody) -> Event {
        Event { seq, at_ms: seq * 10, body }
    }

    fn call(change: CallChange) -> EventBody {
        EventBody::Call { call: CallId(1), change: Box::new(change) }
    }

    #[test]
    fn every_event_is_one_flat_json_object_and_reads_back() {
        let account = EventBody::Account {
            account: AccountId(1),
            change: Box::new(AccountChange::SrvSelected {
                name: "_sip._tls.example.test".to_owned(),
                target: "edge.example.test".to_owned(),
                address: "192.0.2.1:443".parse().unwrap(),
                transport: Transport::Tls,
                took_ms: 4,
            }),
        };
        let bodies =
            [account, call(CallChange::Dtmf { digit: '5' }), EventBody::Engine(Box::new(EngineChange::Stopped))];
        for body in bodies {
            let event = event(3, body);
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(value.get("event").is_some_and(serde_json::Value::is_string), "{line}");
        }
    }

    #[test]
    fn an_ended_call_moves_to_the_history_and_the_history_is_bounded() {
        let mut snapshot = Snapshot::default();
        for seq in 0..150 {
            let created = CallChange::Created {
                account: AccountId(1),
                direction: Direction::Outgoing,
                peer: format!("sip:{seq}@example.test"),
            };
            snapshot.apply(&event(seq, call(created)));
            let ended = CallChange::Ended {
                reason: EndReason::LocalHangup,
                stats: Box::default(),
                report: Box::default(),
                duration_ms: 1000,
            };
            snapshot.apply(&event(seq, call(ended)));
        }
        assert!(snapshot.calls.is_empty());
        assert_eq!(snapshot.history.len(), HISTORY_MAX);
        assert_eq!(snapshot.history[0].peer, "sip:149@example.test");
    }

    #[test]
    fn phases_follow_the_events_of_a_call() {
        let mut snapshot = Snapshot::default();
        let created =
            CallChange::Created { account: AccountId(1), direction: Direction::Incoming, peer: "sip:b@x".to_owned() };
        snapshot.apply(&event(1, call(created)));
        let gathered = CallChange::Gathered { candidates: Vec::new(), servers: Vec::new(), took_ms: 5 };
        snapshot.apply(&event(2, call(gathered)));
        let phases = &snapshot.calls[&CallId(1)].phases;
        assert_eq!(phases[&Phase::Discover].state, PhaseState::Done);
        assert_eq!(phases[&Phase::Exchange].state, PhaseState::Running);
    }
}
