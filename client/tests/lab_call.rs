//! The lab, an echo bot and a phone on real sockets in one process: what `icephone demo` does, step by step.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "clippy knows no tests among the functions beside them")]

use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use client::api::{
    AccountChange, AccountConfig, AccountId, AnswerOptions, AutoAnswer, CallChange, CallId, Command, DialOptions,
    EndReason, Event, EventBody, MediaSource,
};
use client::cli::args::{Cli, Command as CliCommand};
use client::config;
use client::engine::{Engine, EngineConfig, Events};
use client::lab::running::Running;

const ACCOUNT: AccountId = AccountId(1);
const CALL: CallId = CallId(1);
/// Generous: the whole workspace is tested beside it.
const LIMIT: Duration = Duration::from_secs(20);

async fn lab(flags: &[&str]) -> Running {
    let words = [&["icephone", "lab"], flags].concat();
    let Some(CliCommand::Lab(args)) = Cli::try_parse_from(words).unwrap().command else {
        panic!("these are flags of the lab");
    };
    Running::start(&args).await.unwrap()
}

fn account(lab: &Running, user: &str) -> AccountConfig {
    config::read(&lab.folder().join(format!("{user}.toml"))).unwrap().accounts.remove(0)
}

/// An engine with one account that is ready to call.
async fn phone(config: AccountConfig) -> (Engine, Events) {
    let engine = Engine::start(EngineConfig::default()).unwrap();
    let mut events = engine.subscribe();
    engine.command(Command::AddAccount { account: ACCOUNT, config: Box::new(config) });
    until(&mut events, |event| match &event.body {
        EventBody::Account { change, .. } => matches!(
            **change,
            AccountChange::CredentialsReceived { .. } | AccountChange::Provisioned { mras_uri: None, .. }
        ),
        EventBody::Call { .. } | EventBody::Engine(_) => false,
    })
    .await;
    (engine, events)
}

async fn until(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Arc<Event> {
    let search = async {
        loop {
            let event = events.next().await.expect("the engine runs");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(LIMIT, search).await.expect("the event comes in time")
}

async fn until_call(events: &mut Events, wanted: impl Fn(&CallChange) -> bool) {
    until(events, |event| matches!(&event.body, EventBody::Call { change, .. } if wanted(change))).await;
}

fn held(list: &serde_json::Value, key: &str) -> usize {
    list[key].as_array().map_or(usize::MAX, Vec::len)
}

#[tokio::test]
async fn a_call_through_the_lab_is_heard_both_ways_and_leaves_nothing_behind() {
    let lab = lab(&[]).await;
    let options = AnswerOptions { source: Some(MediaSource::Echo) };
    let echo = AccountConfig { auto_answer: Some(AutoAnswer { after_ms: 100, options }), ..account(&lab, "echo") };
    let (bot, _bot_events) = phone(echo).await;
    let (alice, mut events) = phone(account(&lab, "alice")).await;
    assert_eq!(held(&lab.list().await, "registrations"), 2);

    let options = DialOptions { source: Some(MediaSource::Tune), ..DialOptions::default() };
    alice.command(Command::Dial { call: CALL, account: ACCOUNT, to: "echo".to_owned(), options: Box::new(options) });
    until_call(&mut events, |change| matches!(change, CallChange::Promoted { .. })).await;
    // The echo of the tune comes back: sound was carried both ways.
    until_call(&mut events, |change| matches!(change, CallChange::Stats { stats } if stats.level_in_dbfs > -40.0))
        .await;
    alice.command(Command::Hangup { call: CALL });
    until_call(&mut events, |change| {
        matches!(change, CallChange::Ended { reason: EndReason::LocalHangup, stats, .. } if stats.lost_packets == 0)
    })
    .await;

    assert_eq!(alice.shutdown().await, None);
    assert_eq!(bot.shutdown().await, None);
    let list = lab.list().await;
    assert_eq!((held(&list, "registrations"), held(&list, "allocations")), (0, 0), "{list}");
    lab.stop().await;
}

#[tokio::test]
async fn a_lab_without_relay_service_says_so_and_a_fault_that_does_not_exist_is_refused() {
    let lab = lab(&["--no-mras"]).await;
    let (alice, _events) = phone(account(&lab, "alice")).await;
    let snapshot = alice.snapshot();
    assert!(snapshot.accounts[&ACCOUNT].relays.is_empty(), "{snapshot:?}");
    assert!(lab.fault("sip sleepy").await.unwrap_err().contains("`help` names them"));
    assert_eq!(lab.fault("relay mute").await, Ok(()));
    alice.shutdown().await;
    let folder = lab.folder().to_owned();
    lab.stop().await;
    assert!(!folder.exists(), "the lab's files are gone with it");
}
