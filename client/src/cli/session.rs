//! One outgoing call from the command line: register, dial, talk, hang up, and an exit code.
//!
//! ```text
//!   AddAccount ─▶ Registered ─▶ relay credentials (or none) ─▶ Dial ─▶ Talking ─▶ Hangup ─▶ Ended ─▶ Shutdown
//!        └──── RegistrationFailed ───────────────────────────────┴──────── Ended(reason) ──▶ exit code
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exit::ExitCode;
use super::print::{self, Printer};
use super::stop::Stop;
use crate::api::{
    AccountChange, AccountConfig, AccountId, CallChange, CallId, CallSnapshot, CallState, Command, DialOptions,
    EndReason, EngineChange, Event, EventBody, IceReport, MediaDirection, Snapshot,
};
use crate::driver::clock;
use crate::engine::{Engine, Events};
use crate::report::Report;

/// The one account of a command.
pub const ACCOUNT: AccountId = AccountId(1);
/// The one call of a command.
pub const CALL: CallId = CallId(1);
/// Relay credentials are waited for this long after the registration: an edge answers within a few round trips.
const CREDENTIALS_LIMIT: Duration = Duration::from_secs(2);
/// After a file has been played the last of it is still on its way.
const TAIL: Duration = Duration::from_millis(300);
/// How long ending a call may take before the engine is shut down anyway: a relay that died in mid-call is asked for two
/// seconds to free what it held, and only then the call has ended.
const HANGUP_LIMIT: Duration = Duration::from_secs(5);

/// What to do in the call.
#[derive(Debug, Clone)]
pub struct CallPlan {
    /// Who calls.
    pub account: AccountConfig,
    /// Whom.
    pub uri: String,
    /// How.
    pub options: DialOptions,
    /// Digits to send once talking.
    pub dtmf: Option<String>,
    /// Hang up this long after the answer; without it when a file that is played has ended.
    pub duration: Option<Duration>,
}

/// Why an account cannot be used, with its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// For the shell.
    pub code: ExitCode,
    /// For people.
    pub text: String,
}

/// Waits until the account can be used: registered, and its relay credentials are there or known not to come. Without a
/// registrar: listening, if it is to listen.
///
/// # Errors
///
/// [`NotReady`] with the first failure of the registration, or why its address cannot be listened at.
pub async fn ready(events: &mut Events, account: &AccountConfig, printer: Printer) -> Result<(), NotReady> {
    if !account.register {
        return match account.listen {
            Some(_) => listening(events, printer).await,
            None => Ok(()),
        };
    }
    let mut credentials_by: Option<Instant> = None;
    loop {
        let next = match credentials_by {
            None => events.next().await,
            Some(limit) => match tokio::time::timeout_at(limit.into(), events.next()).await {
                Ok(next) => next,
                Err(_) => return Ok(()),
            },
        };
        let Some(event) = next else { return Err(gone()) };
        printer.event(&event);
        let EventBody::Account { change, .. } = &event.body else { continue };
        match &**change {
            AccountChange::RegistrationFailed { error, .. } => {
                return Err(NotReady { code: ExitCode::of_registration(error), text: error.to_string() });
            }
            AccountChange::Registered { .. } if !account.mras => return Ok(()),
            AccountChange::Registered { .. } => credentials_by = Some(clock::now() + CREDENTIALS_LIMIT),
            AccountChange::Provisioned { mras_uri: None, .. }
            | AccountChange::CredentialsReceived { .. }
            | AccountChange::CredentialsFailed { .. } => return Ok(()),
            _ => {}
        }
    }
}

async fn listening(events: &mut Events, printer: Printer) -> Result<(), NotReady> {
    while let Some(event) = events.next().await {
        printer.event(&event);
        let EventBody::Account { change, .. } = &event.body else { continue };
        match &**change {
            AccountChange::Listening { .. } => return Ok(()),
            // An account that neither registers nor calls has nothing else to warn about.
            AccountChange::Warned { warning } => {
                return Err(NotReady { code: ExitCode::Config, text: warning.to_string() });
            }
            _ => {}
        }
    }
    Err(gone())
}

fn gone() -> NotReady {
    NotReady { code: ExitCode::Internal, text: "the engine stopped by itself".to_owned() }
}

/// Runs the plan on a fresh engine, prints what happens, shuts the engine down.
pub async fn run(engine: Engine, plan: CallPlan, printer: Printer, mut stop: Stop) -> ExitCode {
    let mut events = engine.subscribe();
    engine.command(Command::AddAccount { account: ACCOUNT, config: Box::new(plan.account.clone()) });
    let ready = tokio::select! {
        ready = ready(&mut events, &plan.account, printer) => ready,
        () = stop.asked() => Err(interrupted()),
    };
    let code = match ready {
        Ok(()) => call(&engine, &mut events, plan, printer, &mut stop).await,
        Err(not_ready) => {
            print::trouble(&not_ready.text);
            not_ready.code
        }
    };
    let recording = engine.recording_failure();
    let recording = engine.shutdown().await.or(recording);
    drain(&mut events, printer).await;
    match recording {
        Some(text) => {
            print::trouble(&text);
            ExitCode::Config
        }
        None => code,
    }
}

fn interrupted() -> NotReady {
    NotReady { code: ExitCode::Interrupted, text: "interrupted".to_owned() }
}

/// Prints what came after the last event that mattered (unregistered, stopped).
pub async fn drain(events: &mut Events, printer: Printer) {
    while let Some(event) = events.next().await {
        printer.event(&event);
    }
}

/// Where the call stands, as far as the command cares.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one call")]
struct Progress {
    snapshot: Snapshot,
    /// The call that counts: the one that was dialled, or what it was transferred to.
    call: CallId,
    /// Where the peer transfers it to.
    successor: Option<CallId>,
    path: bool,
    sent: bool,
    received: bool,
    talking: bool,
    dtmf_sent: bool,
    hang_up_at: Option<Instant>,
    give_up_at: Option<Instant>,
    interrupted: bool,
}

async fn call(engine: &Engine, events: &mut Events, plan: CallPlan, printer: Printer, stop: &mut Stop) -> ExitCode {
    let dial =
        Command::Dial { call: CALL, account: ACCOUNT, to: plan.uri.clone(), options: Box::new(plan.options.clone()) };
    engine.command(dial);
    let mut progress = Progress::new(engine.snapshot());
    loop {
        let wake_at = [progress.hang_up_at, progress.give_up_at].into_iter().flatten().min();
        let wake_at = wake_at.unwrap_or_else(|| clock::now() + Duration::from_hours(1));
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return ExitCode::Internal };
                printer.event(&event);
                if let Some(code) = progress.follow(engine, &plan, &event, printer) {
                    return code;
                }
            }
            () = tokio::time::sleep_until(wake_at.into()) => {
                let now = clock::now();
                if progress.give_up_at.is_some_and(|at| now >= at) {
                    return if progress.interrupted { ExitCode::Interrupted } else { ExitCode::Internal };
                }
                if progress.hang_up_at.is_some_and(|at| now >= at) {
                    progress.hang_up(engine);
                }
            }
            () = stop.asked(), if !progress.interrupted => {
                progress.interrupted = true;
                progress.hang_up(engine);
            }
        }
    }
}

impl Progress {
    fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            call: CALL,
            successor: None,
            path: false,
            sent: false,
            received: false,
            talking: false,
            dtmf_sent: false,
            hang_up_at: None,
            give_up_at: None,
            interrupted: false,
        }
    }

    fn hang_up(&mut self, engine: &Engine) {
        self.hang_up_at = None;
        if self.give_up_at.is_none() {
            self.give_up_at = Some(clock::now() + HANGUP_LIMIT);
            for call in [self.successor, Some(self.call)].into_iter().flatten().filter(|call| self.is_alive(*call)) {
                engine.command(Command::Hangup { call });
            }
        }
    }

    /// Else its end is on its way already.
    fn is_alive(&self, call: CallId) -> bool {
        let state = self.snapshot.calls.get(&call).map(|call| call.state);
        state.is_none_or(|state| !matches!(state, CallState::Ending | CallState::Ended))
    }

    fn never_had_a_path(&self) -> bool {
        self.talking && !self.path
    }

    /// Takes one event; the exit code once the call is over.
    fn follow(&mut self, engine: &Engine, plan: &CallPlan, event: &Arc<Event>, printer: Printer) -> Option<ExitCode> {
        let known = self.snapshot.calls.get(&self.call).cloned();
        self.snapshot.apply(event);
        match &event.body {
            EventBody::Call { call, change } if *call == self.call => {
                self.follow_call(engine, plan, change, known, printer)
            }
            EventBody::Call { call, change } if Some(*call) == self.successor => {
                self.follow_successor(change);
                None
            }
            EventBody::Engine(change) => match &**change {
                EngineChange::Refused { error, .. } => {
                    print::trouble(&error.to_string());
                    Some(ExitCode::of_command(error))
                }
                EngineChange::Notice { .. } if engine.recording_failure().is_some() => {
                    self.hang_up(engine);
                    None
                }
                EngineChange::Stopped => Some(ExitCode::Internal),
                _ => None,
            },
            EventBody::Account { .. } | EventBody::Call { .. } => None,
        }
    }

    fn follow_call(
        &mut self,
        engine: &Engine,
        plan: &CallPlan,
        change: &CallChange,
        known: Option<CallSnapshot>,
        printer: Printer,
    ) -> Option<ExitCode> {
        match change {
            CallChange::NoIce { .. } | CallChange::PathChanged { .. } => self.path = true,
            CallChange::FirstMedia { direction: MediaDirection::Sent, .. } => self.sent = true,
            CallChange::FirstMedia { direction: MediaDirection::Received, .. } => self.received = true,
            CallChange::State { state: CallState::Talking } if !self.talking => {
                self.talking = true;
                self.hang_up_at = plan.duration.map(|duration| clock::now() + duration);
            }
            CallChange::TransferRequested { call: Some(call), .. } => self.successor = Some(*call),
            CallChange::SourceEnded if plan.duration.is_none() => self.hang_up_at = Some(clock::now() + TAIL),
            CallChange::Ended { reason, stats, report, .. } => {
                if let Some(call) = known {
                    printer.report(&Report::new(&call, reason, stats, report));
                }
                if let Some(call) = self.successor.take() {
                    // What counts from now on is what is heard and said there.
                    (self.call, self.sent, self.received) = (call, false, false);
                    return None;
                }
                let sent = self.sent || stats.sent_packets > 0;
                let received = self.received || stats.received_packets > 0;
                let code = match ExitCode::of_call(reason, sent && received) {
                    _ if self.interrupted => ExitCode::Interrupted,
                    // Hung up while the checks were still failing.
                    ExitCode::NoMedia if self.never_had_a_path() => ExitCode::NoPath,
                    code => code,
                };
                explain(code, reason, (sent, received), report);
                return Some(code);
            }
            _ => {}
        }
        if self.talking && self.sent && !self.dtmf_sent {
            self.dtmf_sent = true;
            if let Some(digits) = plan.dtmf.clone() {
                engine.command(Command::SendDtmf { call: CALL, digits });
            }
        }
        None
    }

    /// The call that the peer asked for, as long as the first one lives.
    fn follow_successor(&mut self, change: &CallChange) {
        match change {
            CallChange::NoIce { .. } | CallChange::PathChanged { .. } => self.path = true,
            CallChange::Ended { .. } => self.successor = None,
            _ => {}
        }
    }
}

fn explain(code: ExitCode, reason: &EndReason, (sent, received): (bool, bool), report: &IceReport) {
    match code {
        ExitCode::Success | ExitCode::Interrupted => {}
        ExitCode::NoPath if matches!(reason, EndReason::LocalHangup | EndReason::RemoteHangup) => {
            let pairs = report.pairs.len();
            print::trouble(&format!(
                "no media path: the call was answered, but none of {pairs} pairs had worked when it ended; check the \
                 firewall, or try another --path"
            ));
        }
        ExitCode::NoMedia => {
            let what = match (sent, received) {
                (true, false) => "nothing was heard from the other side",
                (false, true) => "nothing was sent to the other side",
                (false | true, _) => "no sound went either way",
            };
            print::trouble(&format!("the call was answered, but {what}; check the firewall and the other side"));
        }
        _ => print::trouble(&reason.to_string()),
    }
}

#[cfg(test)]
mod session_tests {
    use super::*;
    use crate::engine::EngineConfig;

    #[tokio::test]
    async fn an_address_in_use_is_told_before_calls_are_waited_for() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let account = AccountConfig {
            aor: "sip:bot@127.0.0.1".to_owned(),
            listen: Some(taken.local_addr().unwrap()),
            register: false,
            mras: false,
            ..AccountConfig::default()
        };
        let engine = Engine::start(EngineConfig::default()).unwrap();
        let mut events = engine.subscribe();
        engine.command(Command::AddAccount { account: ACCOUNT, config: Box::new(account.clone()) });
        let failed = ready(&mut events, &account, Printer::silent()).await.unwrap_err();
        assert_eq!(failed.code, ExitCode::Config);
        assert!(failed.text.ends_with("choose another address or port"), "{}", failed.text);
        engine.shutdown().await;
    }
}
