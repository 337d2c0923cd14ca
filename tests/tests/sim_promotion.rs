//! The switch from the first path to the best one is not heard: nothing is missing, nothing comes twice.

use client::api::{
    AccountConfig, AnswerOptions, AutoAnswer, CallChange, Component, MediaSource, PathCause, TransportChoice,
};
use tests::sim::clock::{ms, secs};
use tests::sim::host::HostId;
use tests::sim::link::Link;
use tests::sim::nat::Behaviour;
use tests::sim::pair::Call;
use tests::sim::tone::{count, counting, follows};
use tests::sim::town::{CALL, Town, account, first_call, is_promoted, is_talking};
use tests::sim::world::{Place, behind, public};

/// Round trips are so long that the settle time is its longest, 1 s: both sides talk before the path moves.
const LATENCY_MS: u64 = 90;

fn counts_aloud(user: &str) -> AccountConfig {
    AccountConfig {
        source: MediaSource::Samples { samples: counting(), repeat: true },
        auto_answer: Some(AutoAnswer { after_ms: 0, options: AnswerOptions::default() }),
        ..account(user, TransportChoice::Tls, 440.0)
    }
}

/// A call whose direct path opens only when a relayed one is in use, in time for the promotion.
fn switched(seed: u64, place: &Place) -> Result<Call, String> {
    let place = place.clone().link(Link::with_latency(ms(LATENCY_MS)));
    let mut town = Town::new(seed);
    let (alice, bob) = (town.phone("alice", &place), town.phone("bob", &place));
    town.register(alice, counts_aloud("alice"))?;
    town.register(bob, counts_aloud("bob"))?;
    let (at_alice, at_bob) = (town.sim.outer_address(alice), town.sim.outer_address(bob));
    town.sim.firewall(alice).black_holes.insert(at_bob);
    town.sim.firewall(bob).black_holes.insert(at_alice);
    town.dial(alice, "bob");
    town.wait(alice, secs(5), is_first_path)?;
    town.sim.firewall(alice).black_holes.clear();
    town.sim.firewall(bob).black_holes.clear();
    for phone in [alice, bob] {
        town.wait(phone, secs(5), is_talking)?;
        town.wait(phone, secs(10), is_promoted)?;
    }
    town.sim.run_for(secs(3));
    Ok(Call { town, alice, bob })
}

fn is_first_path(change: &CallChange) -> bool {
    matches!(change, CallChange::PathChanged { cause: PathCause::FirstValid, .. })
}

/// The paths of the RTP component in their order.
fn paths(call: &Call, phone: HostId) -> Vec<String> {
    let program = call.town.phone_at(phone);
    let id = first_call(program).unwrap_or(CALL);
    let changes = program.call_events(id).filter_map(|(_, change)| match change {
        CallChange::PathChanged { component: Component::Rtp, path, .. } => Some(path.name.clone()),
        _ => None,
    });
    changes.collect()
}

/// Twenty calls switch from a relayed path to `direct`, and each piece of sound is heard once.
fn switches_are_not_heard(place: &Place, direct: &str) {
    for seed in 0..20 {
        let call = switched(seed, place).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
        for (name, phone) in [("alice", call.alice), ("bob", call.bob)] {
            let paths = paths(&call, phone);
            assert!(paths.first().is_some_and(|path| path.contains("relay")), "seed {seed}, {name}: {paths:?}");
            let last = paths.last().map(|path| path.replace("prflx", "srflx"));
            assert_eq!(last.as_deref(), Some(direct), "seed {seed}, {name}: {paths:?}");
            let numbers = count(call.heard(phone));
            // What comes before the other side's microphone is open is not counted aloud.
            let begun = numbers.windows(13).position(|run| run.windows(2).all(|pair| follows(pair[0], pair[1])));
            let counted = &numbers[begun.expect("somebody counts")..];
            let breaks: Vec<_> =
                counted.windows(2).enumerate().filter(|(_, pair)| !follows(pair[0], pair[1])).collect();
            assert!(breaks.is_empty(), "seed {seed}, {name}: after {} pieces {breaks:?}", counted.len());
            assert!(counted.len() > 150, "seed {seed}, {name}: only {} pieces", counted.len());
        }
    }
}

#[test]
fn twenty_promotions_from_the_relay_through_two_nats_neither_lose_nor_repeat_a_piece_of_sound() {
    switches_are_not_heard(&behind([Behaviour::home()]), "srflx-srflx");
}

#[test]
fn twenty_promotions_from_the_relay_to_host_and_host_neither_lose_nor_repeat_a_piece_of_sound() {
    switches_are_not_heard(&public(), "host-host");
}
