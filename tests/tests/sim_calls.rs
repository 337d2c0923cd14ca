//! What must hold within calls of whole phones: a dead relay, credentials that run out, jitter, digits, forks.

use client::api::{CallChange, Command, EventBody, PathPolicy, TransportChoice};
use tests::sim::clock::{ms, secs};
use tests::sim::edge::{EdgeHost, RelayHost};
use tests::sim::host::HostId;
use tests::sim::link::{Link, Loss};
use tests::sim::nat::Behaviour;
use tests::sim::pair::{ALICE_HZ, BOB_HZ, Call, is_first_media};
use tests::sim::phone::PhoneHost;
use tests::sim::tone::level_at;
use tests::sim::town::{CALL, Options, Town, account, is_ended, is_talking};
use tests::sim::world::behind;

#[test]
fn with_one_relay_mute_and_one_alive_media_flows_within_a_second_and_the_cause_is_told() {
    // Right after registering neither side's probe has found out which relay is mute; later it has.
    for after in [ms(0), secs(5)] {
        let symmetric = behind([Behaviour::symmetric()]);
        let town = Town::with(Options { with_mute_relay: true, ..Options::new(1) });
        let mute = town.sim.address(town.mute.unwrap()).to_string();
        let mut call = Call::join(town, [&symmetric, &symmetric], TransportChoice::Tls).unwrap();
        call.town.sim.run_for(after);
        let dialled = call.town.sim.now;
        call.town.dial(call.alice, "bob");
        for phone in [call.alice, call.bob] {
            call.town.wait(phone, secs(5), is_first_media).unwrap();
        }
        let took = call.town.sim.now.saturating_duration_since(dialled);
        assert!(took <= secs(1), "dialled {after:?} after registering: media both ways after {took:?}");
        let program: &PhoneHost = call.town.phone_at(call.alice);
        let servers = program.call_events(CALL).find_map(|(_, change)| match change {
            CallChange::Gathered { servers, .. } => Some(servers.clone()),
            _ => None,
        });
        let servers = servers.unwrap();
        let dead: Vec<_> = servers.iter().filter(|server| server.server.starts_with(&mute)).collect();
        assert!(!dead.is_empty() && dead.iter().all(|server| server.failure.is_some()), "{servers:?}");
        assert!(servers.iter().any(|server| server.failure.is_none()), "{servers:?}");
    }
}

#[test]
fn credentials_of_one_minute_are_renewed_at_48_seconds_and_a_relayed_call_goes_on_over_their_end() {
    let home = behind([Behaviour::home()]);
    let mut town = Town::with(Options { credential_minutes: 1, ..Options::new(2) });
    let (alice, bob) = (town.phone("alice", &home), town.phone("bob", &home));
    for (phone, user, hz) in [(alice, "alice", ALICE_HZ), (bob, "bob", BOB_HZ)] {
        let relayed =
            client::api::AccountConfig { policy: PathPolicy::RelayOnly, ..account(user, TransportChoice::Tls, hz) };
        town.register(phone, relayed).unwrap();
    }
    let mut call = Call { town, alice, bob };
    call.announced().unwrap();
    for _ in 0..150 {
        call.town.sim.run_for(secs(1));
    }
    call.check_sound().unwrap();
    let received: Vec<_> = call
        .town
        .phone_at(alice)
        .log
        .iter()
        .filter_map(|(at, event)| match event {
            EventBody::Account { change, .. } => {
                matches!(**change, client::api::AccountChange::CredentialsReceived { .. }).then_some(*at)
            }
            EventBody::Call { .. } | EventBody::Engine(_) => None,
        })
        .collect();
    let gap = received[1].saturating_duration_since(received[0]);
    assert!((ms(45_600)..=ms(50_400)).contains(&gap), "the second SERVICE came after {gap:?}");
    assert!(received.len() >= 3, "{} renewals in 150 s", received.len());
    let stats = call.stats(alice);
    assert!(stats.last().unwrap().loss_percent < 0.1, "{:?}", stats.last());
    assert!(call.town.sim.program::<EdgeHost>(call.town.edge).proxy.mras().requests() >= 6);
}

/// The delay and the share of late packets that Alice told of last.
fn playout(call: &Call) -> (f32, f64) {
    let stats = call.stats(call.alice);
    let last = stats.last().expect("figures");
    (last.delay_ms, last.late_packets as f64 / last.received_packets.max(1) as f64)
}

#[test]
fn the_jitter_buffer_is_as_deep_as_the_line_is_bad_and_comes_back() {
    let calm = Link::with_latency(ms(20));
    let rough = Link { jitter: ms(40), ..calm };
    let mut call = Call::registered(3, [&behind([Behaviour::home()]).link(calm); 2], TransportChoice::Tls).unwrap();
    call.announced().unwrap();
    call.town.sim.run_for(secs(15));
    let (delay, late) = playout(&call);
    assert!(delay <= 40.0 && late < 0.01, "calm: {delay} ms, {late} late");
    let alice = call.alice;
    call.town.sim.set_link(alice, rough);
    call.town.sim.run_for(secs(30));
    let (delay, late) = playout(&call);
    assert!(delay <= 120.0 && late < 0.01, "40 ms of jitter: {delay} ms, {late} late");
    call.town.sim.set_link(alice, calm);
    call.town.sim.run_for(secs(15));
    let (delay, _) = playout(&call);
    assert!(delay <= 40.0, "calm again: {delay} ms");
    call.check_sound().unwrap();
}

#[test]
fn digits_arrive_exactly_once_each_way_on_a_line_that_loses_a_tenth() {
    for seed in 1..=5 {
        let home = behind([Behaviour::home()]);
        let mut call = Call::registered(seed, [&home, &home], TransportChoice::Tls).unwrap();
        call.announced().unwrap();
        let lossy = Link { loss: Loss::Uniform(0.1), ..Link::with_latency(ms(5)) };
        let (alice, bob) = (call.alice, call.bob);
        call.town.sim.set_link(alice, lossy);
        let bobs = tests::sim::town::first_call(call.town.phone_at(bob)).unwrap();
        for (phone, id) in [(alice, CALL), (bob, bobs)] {
            call.town.command(phone, Command::SendDtmf { call: id, digits: "123#".to_owned() });
        }
        call.town.sim.run_for(secs(5));
        assert_eq!(call.digits(bob), "123#", "seed {seed}");
        assert_eq!(call.digits(alice), "123#", "seed {seed}");
    }
}

/// Allocations at the town's relay that were made from a host's network.
fn allocations_of(call: &mut Call, phone: HostId) -> usize {
    let outside = call.town.sim.nat(phone).external();
    let relay = call.town.relay;
    let held = |relay: &mut RelayHost, now| relay.relay().allocations(now);
    let held = call.town.sim.with(relay, held);
    held.iter().filter(|holding| holding.client.is_some_and(|client| client.ip() == outside)).count()
}

#[test]
fn of_two_phones_that_both_send_183_the_one_that_answers_is_heard_and_the_other_leaves_nothing() {
    let home = behind([Behaviour::home()]);
    let mut town = Town::new(5);
    let (alice, early, late) = (town.phone("alice", &home), town.phone("early", &home), town.phone("late", &home));
    town.register(alice, account("alice", TransportChoice::Tls, ALICE_HZ)).unwrap();
    // The first to ring never answers; the other one does after two seconds.
    for (phone, hz, after_ms) in [(early, 700.0, 100_000), (late, BOB_HZ, 2000)] {
        let mut config = account("bob", TransportChoice::Tls, hz);
        config.auto_answer.as_mut().unwrap().after_ms = after_ms;
        town.register(phone, config).unwrap();
    }
    let mut call = Call { town, alice, bob: late };
    call.town.dial(alice, "bob");
    call.town.sim.run_for(ms(1800));
    let forks = call.town.phone_at(alice).call_events(CALL).filter_map(|(_, change)| match change {
        CallChange::AnswerReceived { message, early_dialog, .. } if message == "183" => Some(*early_dialog),
        _ => None,
    });
    let mut forks: Vec<u32> = forks.collect();
    forks.sort_unstable();
    forks.dedup();
    assert_eq!(forks, [0, 1], "both 183s are carried");
    assert!(allocations_of(&mut call, early) > 0);
    call.town.wait(alice, secs(5), is_talking).unwrap();
    call.town.sim.run_for(secs(3));
    call.town.wait(early, secs(1), is_ended).unwrap();
    assert_eq!(allocations_of(&mut call, early), 0, "the other's relays are gone");
    // Its resolver's socket is left, and its stream to the edge.
    assert_eq!((call.town.sim.open_sockets(early), call.town.sim.open_streams(early)), (1, 1));
    call.check_sound().unwrap();
    let heard = call.heard(alice);
    assert!(level_at(&heard[heard.len() - 48_000..], 700.0) < 100.0, "the other one is not heard");
}
