//! Accounts with an edge: found by DNS, registered, given relay credentials, called through the proxy and its relay.

use std::time::Duration;

use super::edge::{self, SETTLED};
use super::wire::{ACCOUNT, World};
use crate::api::{
    AccountChange, AnswerOptions, AutoAnswer, CallChange, CallId, CallState, Command, DialOptions, EventBody,
    MediaSource, PathPolicy, RegistrationError, Secret, TransportChoice,
};

const C1: CallId = CallId(1);
const C2: CallId = CallId(2);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn accounts(world: &World, phone: usize) -> Vec<&AccountChange> {
    let events = world.phones[phone].events.iter();
    events
        .filter_map(|(_, event)| if let EventBody::Account { change, .. } = event { Some(&**change) } else { None })
        .collect()
}

/// Alice and bob, registered; bob answers after `answer_ms`.
fn registered(transport: TransportChoice, policy: PathPolicy, minutes: u32) -> World {
    let mut world = World::new(2);
    world.edge = Some(edge::Edge::new(world.now, minutes));
    let options = AnswerOptions { source: Some(MediaSource::Tone { hz: 500.0 }) };
    let auto_answer = Some(AutoAnswer { after_ms: 300, options });
    world.add(0, edge::account("alice", transport, policy));
    world.add(1, crate::api::AccountConfig { auto_answer, ..edge::account("bob", transport, policy) });
    world.run_for(SETTLED);
    world
}

#[test]
fn an_account_is_found_registered_provisioned_and_given_credentials() {
    for transport in [TransportChoice::Auto, TransportChoice::Tcp, TransportChoice::Udp] {
        let world = registered(transport, PathPolicy::All, 480);
        let changes = accounts(&world, 0);
        let has = |what: fn(&AccountChange) -> bool| changes.iter().any(|change| what(change));
        assert!(has(|change| matches!(change, AccountChange::SrvSelected { .. })), "{transport:?}\n{}", world.story());
        assert!(has(|change| matches!(change, AccountChange::Registered { .. })), "{transport:?}\n{}", world.story());
        assert!(
            has(|change| matches!(change, AccountChange::Provisioned { mras_uri: Some(_), .. })),
            "{}",
            world.story()
        );
        let credentials = |change: &AccountChange| matches!(change, AccountChange::CredentialsReceived { lifetime_s: 28_800, renew_in_s, .. } if (23_030..23_045).contains(renew_in_s));
        assert!(has(credentials), "{transport:?}\n{}", world.story());
        let probed = changes.iter().filter(|change| matches!(change, AccountChange::RelayProbed { failure: None, .. }));
        assert_eq!(probed.count(), 2, "relay over UDP and over TCP\n{}", world.story());
        let edge = world.edge.as_ref().unwrap();
        assert!(edge.relay.allocations(world.now).is_empty(), "the probe frees what it allocated");
        assert_eq!(edge.proxy.registrations(world.now).len(), 2);
    }
}

#[test]
fn calls_through_the_proxy_use_the_path_that_the_policy_allows() {
    let cases = [
        (PathPolicy::All, TransportChoice::Auto, "host-host"),
        (PathPolicy::NoHost, TransportChoice::Udp, "srflx-srflx"),
        (PathPolicy::RelayOnly, TransportChoice::Tcp, "relay(udp)-relay"),
        (PathPolicy::RelayTcpOnly, TransportChoice::Auto, "relay(tcp)-relay"),
    ];
    for (policy, transport, path) in cases {
        let mut world = registered(transport, policy, 480);
        world.dial(0, C1, "bob", MediaSource::Tone { hz: 1000.0 });
        world.run_for(secs(4));
        let promoted = world.phones[0].changes(C1).find_map(|change| match change {
            CallChange::Promoted { path, .. } => Some(path.name.clone()),
            _ => None,
        });
        assert_eq!(promoted.as_deref(), Some(path), "{policy:?}\n{}", world.story());
        assert!(
            world.phones[0].sees(C1, |change| matches!(change, CallChange::Announced { .. })),
            "{policy:?}\n{}",
            world.story()
        );
        let end = world.now - world.start;
        for (at, call) in [(0, C1), (1, C2)] {
            assert!(
                world.phones[at].loudness(call, end - secs(1), end) > 1000.0,
                "{policy:?} phone {at}\n{}",
                world.story()
            );
        }
        world.command(0, Command::Hangup { call: C1 });
        world.run_for(secs(4));
        assert!(
            world.phones[0].ended(C1).is_some() && world.phones[1].ended(C2).is_some(),
            "{policy:?}\n{}",
            world.story()
        );
        let edge = world.edge.as_ref().unwrap();
        assert!(edge.relay.allocations(world.now).is_empty(), "{policy:?}: {:?}", edge.relay.allocations(world.now));
        for phone in 0..2 {
            world.command(phone, Command::Shutdown);
        }
        world.run_for(secs(4));
        let edge = world.edge.as_ref().unwrap();
        assert!(
            edge.proxy.registrations(world.now).is_empty(),
            "{policy:?}: {:?}",
            edge.proxy.registrations(world.now)
        );
        assert!(world.phones.iter().all(|phone| phone.stopped() && phone.core.open_lines() == 0));
    }
}

#[test]
fn credentials_of_a_minute_are_renewed_after_48_seconds_and_the_call_keeps_its_media() {
    let mut world = registered(TransportChoice::Auto, PathPolicy::RelayOnly, 1);
    world.dial(0, C1, "bob", MediaSource::Tone { hz: 1000.0 });
    world.run_for(secs(100));
    let times: Vec<_> = world.phones[0]
        .events
        .iter()
        .filter(|(_, event)| matches!(event, EventBody::Account { change, .. } if matches!(**change, AccountChange::CredentialsReceived { .. })))
        .map(|(at, _)| at.as_millis())
        .collect();
    let gap = times[1] - times[0];
    assert!((45_600..50_400).contains(&gap), "{times:?}");
    assert!(world.phones[0].is(C1, CallState::Talking) && world.phones[0].ended(C1).is_none(), "{}", world.story());
    let end = world.now - world.start;
    assert!(world.phones[0].loudness(C1, end - secs(1), end) > 1000.0);
}

#[test]
fn a_wrong_password_and_an_unknown_user_say_so_and_leave_nothing_behind() {
    let mut world = World::new(1);
    world.edge = Some(edge::Edge::new(world.now, 480));
    let wrong = Some(Secret::new("wrong".to_owned()));
    world.add(
        0,
        crate::api::AccountConfig { password: wrong, ..edge::account("alice", TransportChoice::Auto, PathPolicy::All) },
    );
    world.run_for(SETTLED);
    let refused = |change: &&&AccountChange| {
        matches!(
            change,
            AccountChange::RegistrationFailed { error: RegistrationError::Credentials { .. }, retry_in_s: None }
        )
    };
    assert_eq!(accounts(&world, 0).iter().filter(refused).count(), 1, "{}", world.story());
    assert!(world.edge.as_ref().unwrap().proxy.registrations(world.now).is_empty());

    let mut world = registered(TransportChoice::Auto, PathPolicy::All, 480);
    let options = Box::new(DialOptions::default());
    world.command(0, Command::Dial { call: C1, account: ACCOUNT, to: "nobody".to_owned(), options });
    world.run_for(secs(2));
    assert!(
        matches!(world.phones[0].ended(C1), Some(crate::api::EndReason::UnknownUser { status: 404, .. })),
        "{}",
        world.story()
    );
    assert!(world.edge.as_ref().unwrap().relay.allocations(world.now).is_empty());
}

#[test]
fn a_lost_connection_is_made_anew_and_the_phone_can_be_called_again() {
    let mut world = registered(TransportChoice::Auto, PathPolicy::All, 480);
    world.edge.as_mut().unwrap().proxy.close_streams();
    world.drain_edge();
    world.run_for(secs(5));
    assert!(
        accounts(&world, 1).iter().any(|change| matches!(change, AccountChange::ConnectionLost { .. })),
        "{}",
        world.story()
    );
    world.dial(0, C1, "bob", MediaSource::Tone { hz: 1000.0 });
    world.run_for(secs(2));
    assert!(world.phones[0].is(C1, CallState::Talking), "{}", world.story());
}

#[test]
fn of_two_phones_of_one_user_the_one_that_answers_is_heard_and_the_other_is_gone_within_three_seconds() {
    let mut world = World::new(3);
    world.edge = Some(edge::Edge::new(world.now, 480));
    world.add(0, edge::account("alice", TransportChoice::Auto, PathPolicy::RelayOnly));
    for (phone, after_ms, hz) in [(1, 4000, 400.0), (2, 1500, 900.0)] {
        let options = AnswerOptions { source: Some(MediaSource::Tone { hz }) };
        let auto_answer = Some(AutoAnswer { after_ms, options });
        let config = edge::account("bob", TransportChoice::Auto, PathPolicy::RelayOnly);
        world.add(phone, crate::api::AccountConfig { auto_answer, ..config });
    }
    world.run_for(SETTLED);
    world.dial(0, C1, "bob", MediaSource::Tone { hz: 1000.0 });
    world.run_until("two early dialogs", secs(1), |w| {
        let early = |number| move |change: &CallChange| matches!(change, CallChange::AnswerReceived { early_dialog, .. } if *early_dialog == number);
        w.phones[0].sees(C1, early(0)) && w.phones[0].sees(C1, early(1))
    });
    let answered = world.run_until("talking", secs(3), |w| w.phones[0].is(C1, CallState::Talking));
    let gone = world.run_until("the other is gone", secs(3), |w| w.phones[1].ended(C2).is_some());
    assert!(gone - answered < secs(3));
    world.run_for(secs(3));
    assert!(world.phones[1].core.open_lines() == 1, "only its signalling is left");
    let end = world.now - world.start;
    assert!(world.phones[0].loudness(C1, end - secs(1), end) > 1000.0, "{}", world.story());
    assert!(world.phones[2].loudness(C2, end - secs(1), end) > 1000.0, "{}", world.story());
    let holders: Vec<_> = world.edge.as_ref().unwrap().relay.allocations(world.now);
    assert!(
        holders.iter().all(|holding| holding.client.is_none_or(|client| client.ip() != world.phones[1].ip)),
        "{holders:?}"
    );
}

#[test]
fn of_two_forks_that_have_both_concluded_the_pair_of_the_one_that_answers_is_announced() {
    let mut world = World::new(3);
    world.edge = Some(edge::Edge::new(world.now, 480));
    world.add(0, edge::account("alice", TransportChoice::Auto, PathPolicy::All));
    for (phone, after_ms) in [(1, 3000), (2, 8000)] {
        let options = AnswerOptions { source: Some(MediaSource::Tone { hz: 400.0 }) };
        let auto_answer = Some(AutoAnswer { after_ms, options });
        let config = edge::account("bob", TransportChoice::Auto, PathPolicy::All);
        world.add(phone, crate::api::AccountConfig { auto_answer, ..config });
    }
    world.run_for(SETTLED);
    world.dial(0, C1, "bob", MediaSource::Tone { hz: 1000.0 });
    world.run_for(secs(7));
    assert!(world.phones[0].is(C1, CallState::Talking), "{}", world.story());
    let answerer = world.phones[1].ip;
    let promoted: Vec<_> = world.phones[0]
        .changes(C1)
        .filter_map(
            |change| if let CallChange::Promoted { path, .. } = change { Some(path.remote.address) } else { None },
        )
        .collect();
    assert!(promoted.last().is_some_and(|remote| remote.ip() == answerer), "{promoted:?}\n{}", world.story());
    assert!(
        world.phones[1].sees(C2, |change| matches!(change, CallChange::Announced { by_us: false, .. })),
        "{}",
        world.story()
    );
    let announced = world.phones[0].changes(C1).filter(|change| matches!(change, CallChange::Announced { .. }));
    assert_eq!(announced.count(), 1);
    let restarted =
        |change: &CallChange| matches!(change, CallChange::PathChanged { cause: crate::api::PathCause::Restarted, .. });
    assert!(!world.phones[0].sees(C1, restarted) && !world.phones[1].sees(C2, restarted), "{}", world.story());
}

#[test]
fn two_phones_that_no_datagram_reaches_talk_over_tcp_without_a_relay() {
    let mut world = World::new(3);
    world.edge = Some(edge::Edge::new(world.now, 480));
    world.lost = |_| true;
    for (phone, user) in [(0, "alice"), (1, "bob")] {
        let auto_answer = Some(AutoAnswer { after_ms: 100, options: AnswerOptions::default() });
        let account = edge::account(user, TransportChoice::Tcp, PathPolicy::All);
        world.add(phone, crate::api::AccountConfig { auto_answer, mras: false, ..account });
    }
    world.run_for(SETTLED);
    world.dial(0, C1, "bob", MediaSource::Tone { hz: 1000.0 });
    world.run_for(secs(5));
    assert!(world.phones[0].is(C1, CallState::Talking), "{}", world.story());
    let promoted = world.phones[0].changes(C1).find_map(|change| match change {
        CallChange::Promoted { path, .. } => Some(path.name.clone()),
        _ => None,
    });
    assert!(promoted.as_ref().is_some_and(|name| name.starts_with("host(tcp)-")), "{promoted:?}\n{}", world.story());
    let announced = world.phones[0].changes(C1).filter(|change| matches!(change, CallChange::Announced { .. }));
    assert_eq!(announced.count(), 1, "{}", world.story());
    let heard = world.phones[1].heard.last().map_or(0.0, |(_, _, level)| *level);
    assert!(heard > 500.0, "the tone is heard: {heard}");
    world.command(0, Command::Hangup { call: C1 });
    world.run_for(secs(3));
    assert!(world.phones.iter().all(|phone| phone.listening.is_empty()), "no listener is left");
}

#[test]
fn when_no_fork_can_be_reached_the_call_says_so_and_does_not_ring_on() {
    let mut world = World::new(3);
    world.edge = Some(edge::Edge::new(world.now, 480));
    world.lost = |_| true;
    world.is_isolating = true;
    let without_relays =
        |user| crate::api::AccountConfig { mras: false, ..edge::account(user, TransportChoice::Tcp, PathPolicy::All) };
    world.add(0, without_relays("alice"));
    for phone in [1, 2] {
        let auto_answer = Some(AutoAnswer { after_ms: 100_000, options: AnswerOptions::default() });
        world.add(phone, crate::api::AccountConfig { auto_answer, ..without_relays("bob") });
    }
    world.run_for(SETTLED);
    world.dial(0, C1, "bob", MediaSource::Tune);
    world.run_for(secs(42));
    let ended = world.phones[0].ended(C1);
    assert!(matches!(ended, Some(crate::api::EndReason::NoPath { .. })), "{ended:?}\n{}", world.story());
}

#[test]
fn stopped_at_any_moment_of_its_registration_a_phone_leaves_nothing_at_the_registrar() {
    for ms in (0..160).step_by(5) {
        let mut world = World::new(1);
        world.edge = Some(edge::Edge::new(world.now, 480));
        world.add(0, edge::account("alice", TransportChoice::Auto, PathPolicy::All));
        world.run_for(Duration::from_millis(ms));
        world.command(0, Command::Shutdown);
        world.run_for(secs(4));
        let left = world.edge.as_ref().unwrap().proxy.registrations(world.now);
        assert!(left.is_empty(), "after {} ms: {left:?}\n{}", 50 + ms, world.story());
        assert!(world.phones[0].stopped() && world.phones[0].core.open_lines() == 0);
    }
}

#[test]
fn a_policy_that_needs_a_relay_says_so_when_there_is_none() {
    let mut world = World::new(2);
    world.edge = Some(edge::Edge::new(world.now, 480));
    world.add(
        0,
        crate::api::AccountConfig {
            mras: false,
            ..edge::account("alice", TransportChoice::Auto, PathPolicy::RelayOnly)
        },
    );
    world.add(1, edge::account("bob", TransportChoice::Auto, PathPolicy::All));
    world.run_for(SETTLED);
    world.dial(0, C1, "bob", MediaSource::Tune);
    world.run_for(secs(3));
    assert!(matches!(world.phones[0].ended(C1), Some(crate::api::EndReason::NoRelay { .. })), "{}", world.story());
}

#[test]
fn a_call_goes_on_when_the_address_of_one_side_changes() {
    let mut world = registered(TransportChoice::Udp, PathPolicy::All, 480);
    world.dial(0, C1, "bob", MediaSource::Tone { hz: 1000.0 });
    world.run_for(secs(4));
    let new = std::net::IpAddr::from([192, 0, 2, 77]);
    world.phones[0].ip = new;
    world.forget_sockets(0);
    world.interfaces(0, vec![new]);
    world.run_for(secs(6));
    let end = world.now - world.start;
    assert!(world.phones[0].ended(C1).is_none(), "{}", world.story());
    for (at, call) in [(0, C1), (1, C2)] {
        assert!(world.phones[at].loudness(call, end - secs(1), end) > 1000.0, "phone {at}\n{}", world.story());
    }
}
