//! Bare agents where something is broken: a dead relay, a bad line, a router that forgets, an address that changes.

use std::time::Duration;

use ice::{CandidateType, Component, Event, PathClass};
use tests::sim::agent::AgentHost;
use tests::sim::cell::{Pair, Setting, add_relay};
use tests::sim::clock::{ms, secs};
use tests::sim::edge::RelayHost;
use tests::sim::link::{Link, Loss};
use tests::sim::nat::Behaviour;
use tests::sim::world::{Place, Sim, behind};

/// Starts both sides and waits until both have their nominated pair; how long that took.
fn conclude(pair: &mut Pair, setting: Setting) -> Result<Duration, String> {
    pair.start(setting);
    let (left, right) = (pair.left, pair.right);
    let concluded =
        move |sim: &mut Sim| [left, right].iter().all(|host| sim.program::<AgentHost>(*host).concluded().is_some());
    pair.sim.run_until(secs(30), concluded)
}

fn class(pair: &Pair) -> Option<PathClass> {
    pair.agent(pair.left).path(Component::Rtp).map(|path| path.class)
}

#[test]
fn a_mute_relay_costs_a_moment_and_its_own_candidates_and_is_named() {
    let setting = Setting::default();
    let mut sim = Sim::new(1);
    let (mute, alive) = (add_relay(&mut sim, "mute"), add_relay(&mut sim, "alive"));
    sim.with(mute, |relay: &mut RelayHost, _| relay.relay().faults().is_mute = true);
    let mut servers = sim.program::<RelayHost>(mute).ice_servers();
    servers.extend(sim.program::<RelayHost>(alive).ice_servers());
    let symmetric = behind([Behaviour::symmetric()]);
    let mut pair = Pair::join(sim, alive, &servers, [&symmetric, &symmetric]).unwrap();
    // Four times the two round trips and the handshake that the living one took.
    assert!(pair.sim.elapsed() <= ms(300), "gathered after {:?}", pair.sim.elapsed());
    let muted = servers[0].addr;
    for host in [pair.left, pair.right] {
        let failures = pair.agent(host).log.iter().find_map(|(_, event)| match event {
            Event::Gathered { failures, .. } => Some(failures.clone()),
            _ => None,
        });
        let failures = failures.unwrap();
        let named = failures.iter().find(|failure| failure.addr == muted).unwrap();
        assert_eq!(named.cause.to_string(), "no answer within 240 ms");
        assert!(failures.iter().all(|failure| failure.addr.ip() == muted.ip()), "{failures:?}");
    }
    conclude(&mut pair, setting).unwrap();
    assert_eq!(class(&pair), Some(PathClass::RelayUdp));
    let first = pair.agent(pair.left).first_media.values().min().copied().unwrap();
    let after = first.saturating_duration_since(tests::sim::clock::epoch());
    assert!(after <= secs(1), "first media after {after:?}");
}

/// Runs of ten that must find a path. The offer leaves after 500 ms, which is also when a lost request is sent again for the
/// first time (RFC 8489 §6.2.1): on a very bad line a side may have nothing but its host candidates to offer, and then two
/// home routers cannot be crossed.
#[test]
fn bad_lines_delay_a_session_but_do_not_break_it() {
    let bursty = Loss::Bursty { to_bad: 0.05, to_good: 0.3, in_good: 0.02, in_bad: 0.7 };
    let cases = [
        ("5 % loss", 10, Link { loss: Loss::Uniform(0.05), ..Link::with_latency(ms(20)) }),
        ("20 % loss", 6, Link { loss: Loss::Uniform(0.2), ..Link::with_latency(ms(20)) }),
        ("bursts", 9, Link { loss: bursty, ..Link::with_latency(ms(20)) }),
        ("jitter and another order", 10, Link { jitter: ms(60), reorder: 0.1, ..Link::with_latency(ms(30)) }),
        ("a far edge", 10, Link::with_latency(ms(100))),
        ("packets come twice", 10, Link { duplicate: 0.3, ..Link::with_latency(ms(20)) }),
    ];
    for (name, least, link) in cases {
        let place: Place = behind([Behaviour::home()]).link(link);
        let mut found = 0;
        for seed in 1..=10 {
            let setting = Setting { seed, ..Setting::default() };
            let mut pair = Pair::gathered([&place, &place], setting).unwrap();
            match conclude(&mut pair, setting) {
                Ok(took) => assert!(took < secs(10), "case: {name}, seed {seed}: {took:?}"),
                Err(_) if !is_reachable(&pair) => continue,
                Err(error) => panic!("case: {name}, seed {seed}: {error}"),
            }
            assert!(class(&pair).is_some(), "case: {name}, seed {seed}");
            found += 1;
        }
        assert!(found >= least, "case: {name}: {found} of 10");
    }
}

/// Whether both sides had something to offer for RTP besides their host candidate.
fn is_reachable(pair: &Pair) -> bool {
    [pair.left, pair.right].iter().all(|host| {
        let gathered = pair.agent(*host).local().unwrap().candidates.iter();
        gathered.filter(|c| c.component == Component::Rtp).any(|c| c.kind != CandidateType::Host)
    })
}

#[test]
fn without_loss_two_home_routers_are_crossed_within_four_round_trips_and_the_pacing() {
    let setting = Setting::default();
    let home = behind([Behaviour::home()]);
    let mut pair = Pair::gathered([&home, &home], setting).unwrap();
    let remote = pair.agent(pair.right).local().unwrap().candidates.len();
    let local = pair.agent(pair.left).local().unwrap().candidates.len();
    let started = pair.sim.now;
    conclude(&mut pair, setting).unwrap();
    let first = pair.agent(pair.left).first_media.values().min().copied().unwrap();
    let limit = 4 * ms(20) + ms(5) * u32::try_from(remote * local).unwrap();
    let took = first.saturating_duration_since(started);
    assert!(took <= limit, "I4: {took:?} and not {limit:?}");
}

#[test]
fn two_hosts_in_one_network_talk_directly() {
    let setting = Setting::default();
    let mut sim = Sim::new(1);
    let relay = add_relay(&mut sim, "relay");
    let servers = sim.program::<RelayHost>(relay).ice_servers();
    let home = behind([Behaviour::home()]);
    let left = sim.host("left", &home, {
        let (now, seed, servers) = (sim.now, [1; 32], servers.clone());
        move |address| AgentHost::new(now, tests::sim::agent::config(address, servers), seed)
    });
    let right = sim.neighbour("right", left, {
        let (now, seed) = (sim.now, [2; 32]);
        move |address| AgentHost::new(now, tests::sim::agent::config(address, servers), seed)
    });
    for host in [left, right] {
        sim.with(host, |agent: &mut AgentHost, now| agent.gather(now));
    }
    sim.run_for(secs(1));
    let mut pair = Pair { sim, relay, left, right };
    conclude(&mut pair, setting).unwrap();
    assert_eq!(class(&pair), Some(PathClass::Direct));
}

#[test]
fn a_router_that_forgets_its_mappings_is_survived() {
    let setting = Setting::default();
    let (home, open) = (behind([Behaviour::home()]), behind([Behaviour::carrier()]));
    let mut pair = Pair::gathered([&home, &open], setting).unwrap();
    conclude(&mut pair, setting).unwrap();
    pair.sim.run_for(secs(2));
    let left = pair.left;
    pair.sim.nat(left).reboot();
    pair.sim.run_for(secs(40));
    let before = [pair.agent(pair.left).received, pair.agent(pair.right).received];
    pair.sim.run_for(secs(2));
    let after = [pair.agent(pair.left).received, pair.agent(pair.right).received];
    for (before, after) in before.iter().zip(after) {
        assert!(after >= before + 90, "packets in 2 s: {}", after - before);
    }
}
