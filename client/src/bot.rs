//! Bots: accounts that answer by themselves. A client of the API like the screen, without eyes.
//!
//! What a bot says is a [`MediaSource`] and runs inside the engine, so one process carries many calls without a task or
//! a timer for any of them; what it hears may be recorded.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Interval;

use crate::api::{
    AccountConfig, AnswerOptions, AutoAnswer, CallChange, Command, Event, EventBody, MediaSource, Snapshot,
};
use crate::cli::exit::ExitCode;
use crate::cli::print::{self, Printer};
use crate::cli::session::{ACCOUNT, NotReady, drain, ready};
use crate::cli::stop::Stop;
use crate::driver::clock;
use crate::engine::{Engine, Events};
use crate::report::Report;

/// How often a program that reads a bot's events is told what the bot holds.
const HEALTH_INTERVAL: Duration = Duration::from_mins(1);

/// How a bot behaves.
#[derive(Debug, Clone)]
pub struct BotPlan {
    /// Who answers.
    pub account: AccountConfig,
    /// What it says.
    pub voice: MediaSource,
    /// How long it rings.
    pub ring: Duration,
    /// Calls at once.
    pub calls_max: u32,
    /// End after so many calls.
    pub count: Option<u64>,
    /// End after so long.
    pub duration: Option<Duration>,
}

impl BotPlan {
    /// The account with its automatic answer.
    pub fn account(&self) -> AccountConfig {
        let after_ms = u64::try_from(self.ring.as_millis()).unwrap_or(u64::MAX);
        let options = AnswerOptions { source: Some(self.voice.clone()) };
        AccountConfig {
            auto_answer: Some(AutoAnswer { after_ms, options }),
            calls_max: self.calls_max,
            ..self.account.clone()
        }
    }
}

/// Adds the bot's account to an engine and waits until it can be called.
///
/// # Errors
///
/// [`NotReady`]: the registration failed.
pub async fn add(engine: &Engine, events: &mut Events, plan: &BotPlan, printer: Printer) -> Result<(), NotReady> {
    let config = plan.account();
    engine.command(Command::AddAccount { account: ACCOUNT, config: Box::new(config.clone()) });
    ready(events, &config, printer).await
}

/// Answers calls until the plan or the user says stop.
pub async fn run(engine: Engine, plan: BotPlan, printer: Printer, mut stop: Stop) -> ExitCode {
    let mut events = engine.subscribe();
    let ready = tokio::select! {
        ready = add(&engine, &mut events, &plan, printer) => ready,
        () = stop.asked() => Err(NotReady { code: ExitCode::Success, text: "stopped".to_owned() }),
    };
    let code = match ready {
        Ok(()) => {
            printer.line(&format!("answering as {}", plan.account.aor));
            serve(&engine, &mut events, &plan, printer, &mut stop).await
        }
        Err(not_ready) => {
            print::trouble(&not_ready.text);
            not_ready.code
        }
    };
    let recording = engine.shutdown().await;
    drain(&mut events, printer).await;
    match recording {
        Some(text) => {
            print::trouble(&text);
            ExitCode::Config
        }
        None => code,
    }
}

async fn serve(engine: &Engine, events: &mut Events, plan: &BotPlan, printer: Printer, stop: &mut Stop) -> ExitCode {
    // A day is "never" to a bot that was given no end.
    let end = clock::now() + plan.duration.unwrap_or(Duration::from_hours(24));
    let mut calls = Calls::default();
    let mut health = HealthRound::new(printer.is_json());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = health.due() => {
                engine.command(Command::Health);
                continue;
            }
            () = stop.asked() => return ExitCode::Success,
            () = tokio::time::sleep_until(end.into()) => {
                if plan.duration.is_some() {
                    return ExitCode::Success;
                }
                continue;
            }
        };
        let Some(event) = event else { return ExitCode::Internal };
        printer.event(&event);
        calls.follow(&event, printer);
        if plan.count.is_some_and(|count| calls.ended >= count) {
            return ExitCode::Success;
        }
    }
}

/// When the bot says what it holds: every minute to a program, and to everybody who asks with SIGUSR1.
struct HealthRound {
    signal: Option<Signal>,
    every: Option<Interval>,
}

impl HealthRound {
    /// Listens from now on. Must be called inside a runtime.
    fn new(is_periodic: bool) -> Self {
        let first = clock::now() + HEALTH_INTERVAL;
        let every = is_periodic.then(|| tokio::time::interval_at(first.into(), HEALTH_INTERVAL));
        Self { signal: signal(SignalKind::user_defined1()).ok(), every }
    }

    async fn due(&mut self) {
        let asked = async {
            match &mut self.signal {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        let every = async {
            match &mut self.every {
                Some(every) => every.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = asked => {}
            _ = every => {}
        }
    }
}

/// What has happened so far, for the report that each call ends with.
#[derive(Debug, Default)]
struct Calls {
    snapshot: Snapshot,
    ended: u64,
}

impl Calls {
    fn follow(&mut self, event: &Event, printer: Printer) {
        if let EventBody::Call { call, change } = &event.body
            && let CallChange::Ended { reason, stats, report, .. } = &**change
        {
            self.ended += 1;
            if let Some(known) = self.snapshot.calls.get(call) {
                printer.report(&Report::new(known, reason, stats, report));
            }
        }
        self.snapshot.apply(event);
    }
}
