//! Whole ICE sessions of two and more agents in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::similar_names,
    clippy::struct_excessive_bools,
    clippy::wildcard_enum_match_arm,
    clippy::unchecked_time_subtraction,
    clippy::match_same_arms,
    reason = "a test may stop where it is surprised; caller and callee are words"
)]

mod alive;
mod changes;
mod cost;
mod gathering;
mod net;
mod tcp;

use std::net::IpAddr;

use ice::{
    Candidate, CandidateType, CheckFailure, Component, Config, Event, PairView, PathCause, Policy, Role,
    ServerTransport,
};
use net::{Kind, Net, addr, config, ms, remote, stun, turn};

pub(crate) const RTP: &[u8] = &[0x80, 0, 0, 1];
pub(crate) const RTCP: &[u8] = &[0x80, 200, 0, 1];

/// Sends on every component from `a` and returns what `b` got.
pub(crate) fn exchange(net: &mut Net, a: usize, b: usize) -> Vec<(Component, Vec<u8>)> {
    net.hosts[b].data.clear();
    for (component, payload) in [(Component::Rtp, RTP), (Component::Rtcp, RTCP)] {
        net.with(a, |agent, now| agent.send(now, component, payload)).unwrap();
    }
    net.run(ms(300));
    net.hosts[b].data.iter().map(|(_, _, component, payload)| (*component, payload.clone())).collect()
}

pub(crate) fn both() -> Vec<(Component, Vec<u8>)> {
    vec![(Component::Rtp, RTP.to_vec()), (Component::Rtcp, RTCP.to_vec())]
}

pub(crate) fn kinds(candidates: &[Candidate]) -> Vec<CandidateType> {
    let mut kinds: Vec<CandidateType> = candidates.iter().map(|c| c.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Two home users with everything, connected; times from the start of the checks.
pub(crate) fn home_call(kind_a: Kind, kind_b: Kind, config_a: Config, config_b: Config) -> (Net, usize, usize) {
    let mut net = Net::new();
    net.nat(1, kind_a);
    net.nat(2, kind_b);
    let a = net.host("10.1.0.5", config_a, 1);
    let b = net.host("10.2.0.5", config_b, 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, true);
    net.run(ms(2000));
    (net, a, b)
}

pub(crate) fn final_path(net: &Net, host: usize) -> String {
    let mut events: Vec<&Event> = net.events(host).collect();
    events.reverse();
    let found = events.iter().find_map(|event| match event {
        Event::PathChanged { component: Component::Rtp, path, .. } => Some(path.to_string()),
        _ => None,
    });
    found.unwrap_or_default()
}

#[test]
fn two_hosts_on_one_lan_talk_directly_on_both_components() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, false);
    net.run(ms(1000));
    let want = [
        "reached",
        "1 host-host FirstValid",
        "2 host-host FirstValid",
        "1 host-host Promoted",
        "2 host-host Promoted",
        "concluded, announce true",
    ];
    assert_eq!(net.log(a), want);
    assert_eq!(exchange(&mut net, a, b), both());
    assert_eq!(exchange(&mut net, b, a), both());
}

#[test]
fn it_works_whichever_description_comes_first() {
    for caller_first in [true, false] {
        let mut net = Net::new();
        let a = net.host("192.0.2.1", config(vec![]), 1);
        let b = net.host("192.0.2.2", config(vec![]), 2);
        let (offer, answer) = (net.gather(a), net.gather(b));
        let add = |net: &mut Net, host: usize| {
            let (other, role) = if host == a { (&answer, Role::Controlling) } else { (&offer, Role::Controlled) };
            let peer = net.with(host, |agent, now| agent.add_remote(now, remote(other, true), role));
            net.with(host, |agent, now| agent.choose(now, peer)).unwrap();
        };
        let order = if caller_first { [a, b] } else { [b, a] };
        add(&mut net, order[0]);
        net.run(ms(200));
        add(&mut net, order[1]);
        net.run(ms(1500));
        assert!(net.log(a).contains(&"concluded, announce true".to_owned()), "caller first {caller_first}");
        assert!(net.log(b).contains(&"concluded, announce false".to_owned()), "caller first {caller_first}");
        assert_eq!(exchange(&mut net, a, b), both());
    }
}

#[test]
fn checks_before_the_answer_are_answered_and_remembered() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    let (offer, answer) = (net.gather(a), net.gather(b));
    net.with(b, |agent, now| agent.add_remote(now, remote(&offer, true), Role::Controlled));
    net.run(ms(300));
    assert!(net.log(b).contains(&"1 host-host FirstValid".to_owned()), "the callee has its path already");
    assert_eq!(net.log(a), Vec::<String>::new());
    net.with(a, |agent, now| agent.add_remote(now, remote(&answer, true), Role::Controlling));
    assert_eq!(net.log(a), ["reached"], "the early check counts as soon as its sender is known");
}

#[test]
fn a_call_starts_on_the_relay_and_is_promoted_to_the_direct_path() {
    // The direct path is blocked at first, so that only the relay is valid; then it opens within the settle time.
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![turn(ServerTransport::Udp)]), 1);
    let b = net.host("192.0.2.2", config(vec![turn(ServerTransport::Udp)]), 2);
    net.latency = ms(60);
    net.gather(a);
    net.gather(b);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    net.connect(a, b, true);
    net.run(ms(400));
    net.blocked.clear();
    net.run(ms(1500));
    let log = net.log(a);
    assert!(log.iter().any(|line| line.contains("relay") && line.contains("FirstValid")), "{log:?}");
    assert!(log.contains(&"1 host-host Promoted".to_owned()), "{log:?}");
    let moves = net.hosts[a].events.iter().filter(|(_, e)| matches!(e, Event::PathChanged { .. })).count();
    assert_eq!(moves, 2, "media moves once after it has begun: {log:?}");
    assert_eq!(exchange(&mut net, a, b), both());
    net.run(ms(4000));
    assert_eq!(net.server.allocations(), 2, "3 s after the conclusion only the standby relays are left");
    assert_eq!((net.open_sockets(a), net.open_sockets(b)), (1, 1));
    assert_eq!(exchange(&mut net, b, a), both());

    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    net.run(ms(25_000));
    let log = net.log(a);
    assert!(log.iter().any(|line| line.contains("Renominated")), "{log:?}");
    assert_eq!(exchange(&mut net, a, b), both(), "the standby took over without signalling");
    assert_eq!(exchange(&mut net, b, a), both());
}

#[test]
fn nat_pairs_end_on_the_path_that_they_allow() {
    let full = || config(vec![turn(ServerTransport::Udp)]);
    let cases = [
        (Kind::Home, Kind::Home, "srflx-srflx"),
        (Kind::Symmetric, Kind::Home, "relay"),
        (Kind::Symmetric, Kind::Symmetric, "relay"),
    ];
    for (kind_a, kind_b, want) in cases {
        let (mut net, a, b) = home_call(kind_a, kind_b, full(), full());
        let got = final_path(&net, a);
        assert!(got.contains(want), "{kind_a:?} {kind_b:?}: {got}\n{}", net.hosts[a].agent.report());
        assert_eq!(exchange(&mut net, a, b), both(), "{kind_a:?} {kind_b:?}");
        assert_eq!(exchange(&mut net, b, a), both(), "{kind_a:?} {kind_b:?}");
    }
}

#[test]
fn a_symmetric_nat_towards_a_public_host_gives_a_peer_reflexive_candidate() {
    let mut net = Net::new();
    net.nat(1, Kind::Symmetric);
    let a = net.host("10.1.0.5", config(vec![stun()]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, true);
    net.run(ms(2000));
    assert_eq!(final_path(&net, a), "prflx-host");
    assert_eq!(final_path(&net, b), "host-prflx");
    assert_eq!(exchange(&mut net, a, b), both());
    assert_eq!(exchange(&mut net, b, a), both());
}

#[test]
fn two_sides_that_both_want_to_control_agree_by_the_tie_breaker() {
    for seeds in [(1, 2), (2, 1)] {
        for role in [Role::Controlling, Role::Controlled] {
            let mut net = Net::new();
            let a = net.host("192.0.2.1", config(vec![]), seeds.0);
            let b = net.host("192.0.2.2", config(vec![]), seeds.1);
            let (offer, answer) = (net.gather(a), net.gather(b));
            let at_a = net.with(a, |agent, now| agent.add_remote(now, remote(&answer, true), role));
            let at_b = net.with(b, |agent, now| agent.add_remote(now, remote(&offer, true), role));
            net.run(ms(3000));
            let roles = (net.hosts[a].agent.role(at_a), net.hosts[b].agent.role(at_b));
            assert_ne!(roles.0, roles.1, "{role:?}");
            let announced = [a, b].map(|h| net.log(h).contains(&"concluded, announce true".to_owned()));
            assert_eq!(announced.iter().filter(|a| **a).count(), 1, "{role:?} {:?} {:?}", net.log(a), net.log(b));
        }
    }
}

#[test]
fn several_forks_are_served_by_one_half_and_the_chosen_one_stays() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![turn(ServerTransport::Udp)]), 1);
    let forks = [net.host("192.0.2.2", config(vec![]), 2), net.host("192.0.2.3", config(vec![]), 3)];
    let offer = net.gather(a);
    let mut peers = Vec::new();
    for fork in forks {
        let answer = net.gather(fork);
        net.with(fork, |agent, now| agent.add_remote(now, remote(&offer, true), Role::Controlled));
        peers.push(net.with(a, |agent, now| agent.add_remote(now, remote(&answer, true), Role::Controlling)));
    }
    net.run(ms(1000));
    net.with(a, |agent, now| agent.send(now, Component::Rtp, RTP)).unwrap();
    net.run(ms(50));
    assert_eq!(forks.map(|fork| net.hosts[fork].data.len()), [1, 1], "early media goes to every fork");
    net.run(ms(5000));
    assert_eq!(net.server.allocations(), 1, "nothing is released before one is chosen");

    net.with(a, |agent, now| agent.choose(now, peers[1])).unwrap();
    for fork in forks {
        net.hosts[fork].data.clear();
    }
    net.with(a, |agent, now| agent.send(now, Component::Rtp, RTP)).unwrap();
    net.run(ms(3100));
    assert_eq!(forks.map(|fork| net.hosts[fork].data.len()), [0, 1]);
    assert_eq!((net.server.allocations(), net.open_sockets(a)), (1, 1), "the relay stands by");
    assert!(net.with(a, |agent, now| agent.choose(now, peers[0])).is_err());
}

#[test]
fn a_valid_pair_that_the_policy_forbids_fails_with_that_cause() {
    // Both on one LAN behind a NAT: the checks from the base of the reflexive candidate arrive untranslated.
    let mut net = Net::new();
    net.nat(1, Kind::Home);
    let no_host = Config { policy: Policy::NoHost, ..config(vec![turn(ServerTransport::Udp)]) };
    let a = net.host("10.1.0.5", no_host, 1);
    let b = net.host("10.1.0.6", config(vec![turn(ServerTransport::Udp)]), 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, true);
    net.run(ms(2000));
    let report = net.hosts[a].agent.report();
    let policy = PairView::Failed(CheckFailure::Policy);
    let log = net.log(a);
    let forbidden = net.hosts[a].events.iter().any(|(_, e)| match e {
        Event::PathChanged { path, .. } => path.local.addr.ip() == "10.1.0.5".parse::<IpAddr>().unwrap(),
        _ => false,
    });
    assert!(!forbidden, "{log:?}");
    assert!(report.peers[0].pairs.iter().any(|pair| pair.state == policy), "{report}");
    assert!(final_path(&net, a).contains("relay"), "{log:?}");
}

#[test]
fn a_controlling_peer_gives_up_a_pair_that_our_policy_forbids() {
    let mut net = Net::new();
    net.nat(1, Kind::Home);
    let a = net.host("10.1.0.6", config(vec![turn(ServerTransport::Udp)]), 1);
    let no_host = Config { policy: Policy::NoHost, ..config(vec![turn(ServerTransport::Udp)]) };
    let b = net.host("10.1.0.5", no_host, 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, true);
    net.run(ms(3000));
    for host in [a, b] {
        assert!(final_path(&net, host).contains("relay"), "{:?}\n{}", net.log(host), net.hosts[host].agent.report());
        assert!(net.log(host).iter().any(|line| line.starts_with("concluded")), "{:?}", net.log(host));
    }
    assert_eq!(exchange(&mut net, a, b), both());
    assert_eq!(exchange(&mut net, b, a), both());
}

#[test]
fn a_session_without_a_path_fails_after_39_5_s_with_the_causes() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    net.gather(b);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    net.connect(a, b, true);
    net.run(ms(39_400));
    assert!(net.log(a).is_empty());
    net.run(ms(200));
    let failed = net.events(a).find_map(|e| if let Event::Failed { report, .. } = e { Some(report) } else { None });
    let report = failed.expect("failed").to_string();
    assert!(report.contains("no answer") || report.contains("checking"), "{report}");
}

#[test]
fn a_lite_peer_is_controlled_by_us_whoever_offered() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    let (offer, answer) = (net.gather(a), net.gather(b));
    let lite = ice::RemoteDescription { lite: true, ..remote(&answer, true) };
    let peer = net.with(a, |agent, now| agent.add_remote(now, lite, Role::Controlled));
    assert_eq!(net.hosts[a].agent.role(peer), Some(Role::Controlling));
    net.with(b, |agent, now| agent.add_remote(now, remote(&offer, true), Role::Controlled));
    net.run(ms(1000));
    assert!(net.log(a).contains(&"concluded, announce true".to_owned()));
}

#[test]
fn an_aggressive_peer_ends_on_its_nominated_pair_of_highest_priority() {
    let mut net = Net::new();
    let servers = || vec![turn(ServerTransport::Udp)];
    let a = net.host("192.0.2.1", config(servers()), 1);
    let b = net.host("192.0.2.2", config(servers()), 2);
    let (offer, answer) = (net.gather(a), net.gather(b));
    let old = |local: &ice::LocalDescription| ice::RemoteDescription {
        ice2: false,
        renomination: false,
        pacing: None,
        ..remote(local, true)
    };
    net.with(b, |agent, now| agent.add_remote(now, old(&offer), Role::Controlled));
    let at_a = net.with(a, |agent, now| agent.add_remote(now, old(&answer), Role::Controlling));
    net.with(a, |agent, now| agent.choose(now, at_a)).unwrap();
    net.run(ms(8000));
    assert_eq!(final_path(&net, b), "host-host");
    assert_eq!(net.server.allocations(), 0, "a peer that does not renominate gets no standby");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed: u8| {
        let mut net = Net::new();
        net.nat(1, Kind::Symmetric);
        let servers = || vec![turn(ServerTransport::Udp), turn(ServerTransport::Tcp)];
        let a = net.host("10.1.0.5", config(servers()), seed);
        let b = net.host("192.0.2.2", config(servers()), seed + 1);
        net.gather(a);
        net.gather(b);
        net.connect(a, b, false);
        net.run(ms(20_000));
        net.trace
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(3));
}

#[test]
fn new_transactions_are_at_least_ta_apart_and_the_larger_value_counts() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    let answer = net.gather(b);
    let mut slow = remote(&answer, false);
    slow.pacing = None;
    slow.candidates.truncate(2);
    net.with(a, |agent, now| agent.add_remote(now, slow, Role::Controlling));
    let sent = net.hosts[a].sent;
    net.run(ms(49));
    assert_eq!(net.hosts[a].sent, sent, "one check at once, the next after 50 ms");
    net.run(ms(2));
    assert_eq!(net.hosts[a].sent, sent + 1);
}

#[test]
fn nominations_wait_for_better_pairs_only_as_long_as_the_settle_time() {
    // The peer names an address that nobody has: its pair stays in progress and holds up the promotion until then.
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    let (offer, answer) = (net.gather(a), net.gather(b));
    let mut with_dead = remote(&answer, true);
    let mut dead = with_dead.candidates[0].clone();
    dead.addr = addr("192.0.2.200:9999");
    dead.priority += 256;
    dead.foundation = "dead".to_owned();
    with_dead.candidates.push(dead);
    let begin = net.now - net.start;
    net.with(b, |agent, now| agent.add_remote(now, remote(&offer, true), Role::Controlled));
    net.with(a, |agent, now| agent.add_remote(now, with_dead, Role::Controlling));
    net.run(ms(1000));
    let at = |cause: PathCause| {
        let is_it = |e: &Event| matches!(e, Event::PathChanged { cause: c, .. } if *c == cause);
        net.hosts[a].events.iter().find(|(_, e)| is_it(e)).map(|(at, _)| (*at).checked_sub(begin).unwrap()).unwrap()
    };
    let (first, promoted) = (at(PathCause::FirstValid), at(PathCause::Promoted));
    assert!(first < ms(50), "{first:?}");
    assert!(promoted >= first + ms(300) && promoted < first + ms(350), "{promoted:?}");
}

#[test]
fn lost_nominations_are_repeated_every_half_second() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, true);
    // Both checks have been answered when the nomination leaves.
    net.run(ms(25));
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    net.run(ms(5200));
    net.blocked.clear();
    net.run(ms(700));
    assert!(net.log(a).contains(&"concluded, announce true".to_owned()), "{:?}", net.log(a));
    assert!(net.log(b).contains(&"concluded, announce false".to_owned()), "{:?}", net.log(b));
}
