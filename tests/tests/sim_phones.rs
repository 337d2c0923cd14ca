//! Whole phones in virtual time: two `client::core::Core`s, DNS, SIP and relay servers and two NATs in one thread.

use std::time::Duration;

use client::api::TransportChoice;
use tests::sim::clock::{ms, secs};
use tests::sim::nat::Behaviour;
use tests::sim::pair::{Call, is_first_media};
use tests::sim::world::{Place, behind, public};

/// A whole call from registration to the end: its path at Alice's side, and the hash of all its bytes.
fn whole_call(seed: u64, places: [&Place; 2], transport: TransportChoice) -> Result<(String, u64), String> {
    let mut call = Call::registered(seed, places, transport)?;
    call.announced()?;
    call.town.sim.run_for(secs(3));
    call.check_sound()?;
    let path = call.path(call.alice).ok_or("no path")?;
    call.end()?;
    call.check_nothing_left()?;
    Ok((path, call.town.sim.trace.hash()))
}

#[test]
fn two_phones_behind_two_nats_talk_directly_and_leave_nothing_behind() {
    let home = behind([Behaviour::home()]);
    for transport in [TransportChoice::Tls, TransportChoice::Tcp, TransportChoice::Udp] {
        let (path, _) =
            whole_call(1, [&home, &home], transport).unwrap_or_else(|error| panic!("{transport:?}: {error}"));
        assert!(!path.contains("relay"), "{transport:?}: {path}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_in_a_whole_call() {
    let home = behind([Behaviour::home()]);
    let hash = |seed| whole_call(seed, [&home, &home], TransportChoice::Tls).unwrap().1;
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}

#[test]
fn behind_a_mapping_of_thirty_seconds_a_phone_can_be_called_after_ten_idle_minutes() {
    let short = behind([Behaviour { udp_lifetime: secs(30), ..Behaviour::home() }]);
    for transport in [TransportChoice::Udp, TransportChoice::Tcp, TransportChoice::Tls] {
        let mut call = Call::registered(2, [&public(), &short], transport).unwrap();
        call.town.sim.run_for(Duration::from_secs(600));
        call.announced().unwrap_or_else(|error| panic!("{transport:?}: {error}"));
        call.town.sim.run_for(secs(2));
        call.check_sound().unwrap_or_else(|error| panic!("{transport:?}: {error}"));
    }
}

#[test]
fn media_flows_both_ways_within_800_ms_of_dialling() {
    let home = behind([Behaviour::home()]);
    let mut call = Call::registered(4, [&home, &home], TransportChoice::Tls).unwrap();
    let dialled = call.town.sim.now;
    call.town.dial(call.alice, "bob");
    for phone in [call.alice, call.bob] {
        call.town.wait(phone, secs(5), is_first_media).unwrap();
    }
    let took = call.town.sim.now.saturating_duration_since(dialled);
    assert!(took <= ms(800), "early media both ways after {took:?}");
}
