//! Whole phones in the middle of a call when something breaks: media comes back both ways, in time, in the same dialog.
//!
//! The gap is the time from the last media packet before the fault to the first one after it, in the worse direction.

use std::time::{Duration, Instant};

use client::api::{AccountChange, CallChange, EndReason, EventBody, PathPolicy, TransportChoice};
use tests::sim::clock::{ms, secs};
use tests::sim::host::HostId;
use tests::sim::nat::Behaviour;
use tests::sim::pair::{ALICE_HZ, BOB_HZ, Call};
use tests::sim::phone::PhoneHost;
use tests::sim::town::{Options, Town, account, first_call, is_ended};
use tests::sim::world::{Place, Sim, behind};

/// Long enough for standbys to be found and the losers to be released.
const SETTLED: Duration = secs(6);

fn home() -> Place {
    behind([Behaviour::home()])
}

fn symmetric() -> Place {
    behind([Behaviour::symmetric()])
}

/// Two phones that have talked for a while.
fn talking(options: Options, places: [&Place; 2]) -> Call {
    talking_in(Town::with(options), places)
}

fn talking_in(town: Town, places: [&Place; 2]) -> Call {
    let mut call = Call::join(town, places, TransportChoice::Tls).unwrap();
    call.announced().unwrap();
    call.town.sim.run_for(SETTLED);
    call.check_sound().unwrap();
    call
}

fn gap(call: &Call, from: Instant) -> Duration {
    let now = call.town.sim.now;
    [call.alice, call.bob].map(|phone| call.town.phone_at(phone).media_gap(from, now)).into_iter().max().unwrap()
}

/// What happened in a phone's call since then, for a failed assertion.
fn story(call: &Call, from: Instant) -> String {
    let mut lines = Vec::new();
    for (name, phone) in [("alice", call.alice), ("bob", call.bob)] {
        for (at, event) in &call.town.phone_at(phone).log {
            let is_boring =
                matches!(event, EventBody::Call { change, .. } if matches!(**change, CallChange::Stats { .. }));
            if *at >= from
                && !is_boring
                && let Some(text) =
                    client::sentence::sentence(&client::api::Event { seq: 0, at_ms: 0, body: event.clone() })
            {
                lines.push(format!("{:>6} {name} {text}", (*at - from).as_millis()));
            }
        }
    }
    lines.sort_by_key(|line| line[..6].trim().parse::<u64>().unwrap_or(0));
    lines.join("\n")
}

/// Runs until ten seconds after the fault; both hear each other, nobody hung up, and the gap is small enough.
fn check(call: &mut Call, name: &str, from: Instant, limit: Duration) {
    let left = (from + secs(10)).saturating_duration_since(call.town.sim.now);
    call.town.sim.run_for(left.max(secs(3)));
    let story = story(call, from);
    for phone in [call.alice, call.bob] {
        let program: &PhoneHost = call.town.phone_at(phone);
        let ended = program.call_events(first_call(program).unwrap()).any(|(_, change)| is_ended(change));
        assert!(!ended, "case: {name}: the call ended\n{story}");
    }
    let gap = gap(call, from);
    println!("{name}: gap {} ms", gap.as_millis());
    assert!(gap <= limit, "case: {name}: {gap:?} and not {limit:?}\n{story}");
    call.check_sound().unwrap_or_else(|error| panic!("case: {name}: {error}\n{story}"));
}

fn gaps_told(call: &Call, phone: HostId) -> Vec<u64> {
    let program: &PhoneHost = call.town.phone_at(phone);
    let told = program.call_events(first_call(program).unwrap()).filter_map(|(_, change)| match change {
        CallChange::MediaGap { length_ms, .. } => Some(*length_ms),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_relay_that_is_killed_is_replaced_by_the_spare_one_within_two_seconds_and_the_gap_is_told() {
    let options = Options { with_spare_relay: true, ..Options::new(1) };
    let mut call = talking(options, [&symmetric(), &symmetric()]);
    let (from, relay, spare) = (call.town.sim.now, call.town.relay, call.town.spare.unwrap());
    // Which of the two is in use, the addresses of the path tell.
    let used = call.path_addresses(call.alice);
    let used = if used.contains(&call.town.sim.address(relay)) { relay } else { spare };
    call.town.sim.kill(used);
    check(&mut call, "relay killed, a spare one at hand", from, secs(2));
    for phone in [call.alice, call.bob] {
        let told = gaps_told(&call, phone);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!((400..=2000).contains(&told[0]), "{told:?}");
    }
}

#[test]
#[ignore = "open: both sides restart at once, and the caller stays deaf although packets arrive again after 1.04 s"]
fn a_relay_that_is_killed_and_starts_again_is_used_within_three_seconds() {
    let mut call = talking(Options::new(2), [&symmetric(), &symmetric()]);
    let (from, relay) = (call.town.sim.now, call.town.relay);
    call.town.sim.kill(relay);
    call.town.sim.run_for(secs(2));
    Town::restart_relay(&mut call.town.sim, relay);
    check(&mut call, "relay killed and started again", from, secs(5));
}

#[test]
fn a_frozen_relay_is_waited_for_and_media_is_back_within_a_second_after_the_thaw() {
    let mut call = talking(Options::new(3), [&symmetric(), &symmetric()]);
    let (from, relay) = (call.town.sim.now, call.town.relay);
    call.town.sim.freeze(relay);
    call.town.sim.run_for(secs(5));
    call.town.sim.thaw(relay);
    check(&mut call, "relay frozen for 5 s", from, secs(6));
}

/// The host of one side gets another address; its watcher needs half a second to be sure.
fn move_host(call: &mut Call, phone: HostId) {
    let address = call.town.sim.readdress(phone);
    call.town.sim.at(ms(500), move |sim: &mut Sim| {
        sim.with(phone, |program: &mut PhoneHost, now| program.readdress(now, address));
    });
}

#[test]
fn a_new_address_in_the_lan_costs_less_than_two_seconds_on_either_side() {
    for (name, place) in [("direct", home()), ("relayed", symmetric())] {
        for is_caller in [true, false] {
            let mut call = talking(Options::new(4), [&place, &place]);
            let (from, phone) = (call.town.sim.now, if is_caller { call.alice } else { call.bob });
            move_host(&mut call, phone);
            check(&mut call, &format!("new LAN address, {name}, caller {is_caller}"), from, secs(2));
        }
    }
}

#[test]
fn a_new_public_address_costs_less_than_two_seconds_on_either_side() {
    for (name, place) in [("direct", home()), ("relayed", symmetric())] {
        for is_caller in [true, false] {
            let mut call = talking(Options::new(5), [&place, &place]);
            let (from, phone) = (call.town.sim.now, if is_caller { call.alice } else { call.bob });
            call.town.sim.readdress_edge(phone);
            check(&mut call, &format!("new public address, {name}, caller {is_caller}"), from, secs(2));
        }
    }
}

#[test]
fn a_nat_that_forgets_its_mappings_costs_less_than_two_seconds_on_either_side() {
    let random = Behaviour { port_preservation: false, ..Behaviour::home() };
    for (name, place) in [("direct", behind([random])), ("relayed", symmetric())] {
        for is_caller in [true, false] {
            let mut call = talking(Options::new(6), [&place, &place]);
            let (from, phone) = (call.town.sim.now, if is_caller { call.alice } else { call.bob });
            call.town.sim.nat(phone).reboot();
            check(&mut call, &format!("NAT forgets, {name}, caller {is_caller}"), from, secs(2));
        }
    }
}

#[test]
fn when_udp_is_cut_the_call_goes_on_over_tcp_within_four_seconds() {
    for (name, place) in [("direct", home()), ("relayed", symmetric())] {
        for is_caller in [true, false] {
            let mut call = talking(Options::new(7), [&place, &place]);
            let (from, phone) = (call.town.sim.now, if is_caller { call.alice } else { call.bob });
            call.town.sim.firewall(phone).udp_blocked = true;
            check(&mut call, &format!("UDP cut, {name}, caller {is_caller}"), from, secs(4));
        }
    }
}

#[test]
fn after_five_seconds_without_a_line_media_is_back_within_one() {
    for (name, place) in [("direct", home()), ("relayed", symmetric())] {
        for is_caller in [true, false] {
            let mut call = talking(Options::new(8), [&place, &place]);
            let (from, phone) = (call.town.sim.now, if is_caller { call.alice } else { call.bob });
            call.town.sim.set_line_up(phone, false);
            call.town.sim.run_for(secs(5));
            call.town.sim.set_line_up(phone, true);
            check(&mut call, &format!("no line for 5 s, {name}, caller {is_caller}"), from, secs(6));
        }
    }
}

#[test]
fn an_edge_that_starts_again_costs_no_media_and_both_are_registered_within_ten_seconds() {
    let mut call = talking(Options::new(9), [&home(), &home()]);
    let (from, edge, relay) = (call.town.sim.now, call.town.edge, call.town.relay);
    call.town.sim.kill(edge);
    call.town.sim.run_for(secs(2));
    Town::restart_edge(&mut call.town.sim, edge, relay);
    call.town.sim.run_for(secs(8));
    for phone in [call.alice, call.bob] {
        let is_registered = |event: &EventBody| match event {
            EventBody::Account { change, .. } => matches!(**change, AccountChange::Registered { .. }),
            EventBody::Call { .. } | EventBody::Engine(_) => false,
        };
        let again = call.town.phone_at(phone).log.iter().any(|(at, event)| *at > from && is_registered(event));
        assert!(again, "{}", story(&call, from));
    }
    check(&mut call, "edge started again", from, ms(60));
}

#[test]
fn a_firewall_that_opens_in_mid_call_is_used_within_ten_seconds() {
    let place = home().udp_blocked();
    for is_caller in [true, false] {
        let places = if is_caller { [&place, &home()] } else { [&home(), &place] };
        let mut call = talking(Options::new(10), places);
        assert!(call.path(call.alice).unwrap().contains("relay"), "{:?}", call.path(call.alice));
        let (from, phone) = (call.town.sim.now, if is_caller { call.alice } else { call.bob });
        call.town.sim.firewall(phone).udp_blocked = false;
        check(&mut call, &format!("firewall opened, caller {is_caller}"), from, ms(60));
        for phone in [call.alice, call.bob] {
            let path = call.path(phone).unwrap();
            assert!(!path.contains("relay"), "{path}\n{}", story(&call, from));
        }
    }
}

#[test]
fn a_call_whose_relays_are_all_dead_ends_on_both_sides_at_about_the_same_time_and_says_why() {
    let place = symmetric();
    let mut call = talking(Options::new(11), [&place, &place]);
    let (from, relay) = (call.town.sim.now, call.town.relay);
    call.town.sim.kill(relay);
    let mut ended = Vec::new();
    for phone in [call.alice, call.bob] {
        call.town.wait(phone, secs(70), is_ended).unwrap();
        let program: &PhoneHost = call.town.phone_at(phone);
        let end = program.call_events(first_call(program).unwrap()).find_map(|(at, change)| match change {
            CallChange::Ended { reason, report, .. } => Some((at, reason.clone(), report.clone())),
            _ => None,
        });
        ended.push(end.unwrap());
    }
    let [(first, ..), (second, ..)] = &ended[..] else { panic!("two ends") };
    let apart = first.max(second).saturating_duration_since(*first.min(second));
    assert!(apart <= secs(5), "{apart:?} apart\n{}", story(&call, from));
    let why =
        ended.iter().find(|(_, reason, _)| matches!(reason, EndReason::PathLost { .. } | EndReason::NoPath { .. }));
    let (_, _, report) = why.unwrap_or_else(|| panic!("{}", story(&call, from)));
    assert!(report.servers.iter().any(|server| server.failure.is_some()), "{:?}", report.servers);
}

#[test]
fn relays_only_and_credentials_that_end_cost_nothing() {
    let mut town = Town::with(Options { credential_minutes: 1, ..Options::new(12) });
    let (alice, bob) = (town.phone("alice", &home()), town.phone("bob", &home()));
    for (phone, user, hz) in [(alice, "alice", ALICE_HZ), (bob, "bob", BOB_HZ)] {
        let relayed =
            client::api::AccountConfig { policy: PathPolicy::RelayOnly, ..account(user, TransportChoice::Tls, hz) };
        town.register(phone, relayed).unwrap();
    }
    let mut call = Call { town, alice, bob };
    call.announced().unwrap();
    let from = call.town.sim.now;
    call.town.sim.run_for(secs(150));
    check(&mut call, "credentials of one minute", from, ms(60));
}
