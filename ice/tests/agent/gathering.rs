//! What is gathered, offered and given back.

use std::net::IpAddr;
use std::time::Duration;

use ice::{
    CandidateType, Component, Config, Event, NotReady, Policy, Role, ServerCause, ServerFailure, ServerOutcome,
    ServerTransport,
};

use crate::net::{self, Kind, Net, addr, config, ms, remote, stun, turn};
use crate::{RTP, both, exchange, final_path, home_call, kinds};

#[test]
fn agreed_mux_drops_component_2_with_its_sockets_and_allocations_at_once() {
    let mut net = Net::new();
    let servers = vec![turn(ServerTransport::Udp), turn(ServerTransport::Tcp)];
    let a = net.host("192.0.2.1", config(servers), 1);
    let b = net.host("192.0.2.2", Config { rtcp: false, ..config(vec![]) }, 2);
    let offer = net.gather(a);
    let answer = net.gather(b);
    assert_eq!((net.open_sockets(a), net.server.allocations()), (2, 4));
    assert_eq!(offer.defaults.len(), 2);
    assert_eq!(answer.defaults.len(), 1);
    net.with(b, |agent, now| agent.add_remote(now, remote(&offer, true), Role::Controlled));
    net.with(a, |agent, now| agent.add_remote(now, remote(&answer, true), Role::Controlling));
    net.run(ms(50));
    assert_eq!((net.open_sockets(a), net.server.allocations()), (1, 2));
    net.run(ms(1000));
    assert_eq!(exchange(&mut net, a, b), both(), "RTCP shares component 1 and is told apart");
}

#[test]
fn policies_bind_what_is_offered_and_which_pairs_are_valid() {
    use CandidateType::{Host, Relayed, ServerReflexive};
    let servers = || vec![turn(ServerTransport::Udp), turn(ServerTransport::Tcp)];
    let cases = [
        (Policy::All, vec![Host, ServerReflexive, Relayed], "srflx-srflx"),
        (Policy::NoHost, vec![ServerReflexive, Relayed], "srflx-srflx"),
        (Policy::RelayOnly, vec![Relayed], "relay(udp)"),
        (Policy::RelayTcpOnly, vec![Relayed], "relay(tcp)"),
    ];
    for (policy, want, path) in &cases {
        for (other, _, other_path) in &cases {
            let one = |policy| Config { policy, ..config(servers()) };
            let (mut net, a, b) = home_call(Kind::Home, Kind::Home, one(*policy), one(*other));
            let offer = net.gathered(a);
            assert_eq!(&kinds(&offer.candidates), want, "{policy}");
            let got = final_path(&net, a);
            let is_direct = path == other_path && *path == "srflx-srflx";
            if is_direct {
                assert_eq!(&got, path, "{policy} {other}\n{}", net.hosts[a].agent.report());
            } else {
                let is_relay_here = path.starts_with("relay");
                assert_eq!(got.starts_with("relay"), is_relay_here, "{policy} {other} {got}");
                assert!(!is_relay_here || got.starts_with(path), "{policy} {other} {got}");
            }
            assert_eq!(exchange(&mut net, a, b), both(), "{policy} {other}");
            assert_eq!(exchange(&mut net, b, a), both(), "{policy} {other}");
        }
    }
}

#[test]
fn without_hosts_a_reflexive_candidate_equal_to_its_base_stays_and_hides_it() {
    let mut net = Net::new();
    let no_host = Config { policy: Policy::NoHost, ..config(vec![stun()]) };
    let a = net.host("192.0.2.1", no_host, 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    let offer = net.gather(a);
    net.gather(b);
    assert_eq!(kinds(&offer.candidates), [CandidateType::ServerReflexive]);
    let line = offer.candidates[0].to_string();
    assert!(line.contains("192.0.2.1") && line.ends_with("typ srflx raddr 0.0.0.0 rport 9"), "{line}");
    net.connect(a, b, true);
    net.run(ms(1000));
    assert_eq!(final_path(&net, a), "srflx-host");
}

#[test]
fn a_dead_interface_neither_costs_the_relay_nor_the_time() {
    let mut net = Net::new();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let interfaces = vec![ip("172.17.0.1"), ip("192.0.2.1")];
    net.blocked.push((ip("172.17.0.1"), addr(net::SERVER).ip()));
    let a = net.host("192.0.2.1", Config { interfaces, ..config(vec![turn(ServerTransport::Udp)]) }, 1);
    let offer = net.gather(a);
    let took = net.events(a).find_map(|e| if let Event::Gathered { took, .. } = e { Some(*took) } else { None });
    assert_eq!(kinds(&offer.candidates), [CandidateType::Host, CandidateType::Relayed]);
    assert!(took.unwrap() < ms(300), "{took:?}");
    assert_eq!(net.server.allocations(), 2);
}

/// What `Gathered` said of the servers that failed, and how long it took.
fn gathered(net: &Net, host: usize) -> (Vec<ServerFailure>, Duration) {
    let gathered = net.events(host).find_map(|event| match event {
        Event::Gathered { failures, took, .. } => Some((failures.clone(), *took)),
        _ => None,
    });
    gathered.unwrap()
}

fn dead(transport: ServerTransport) -> ice::Server {
    ice::Server { addr: addr("203.0.113.99:3478"), ..turn(transport) }
}

#[test]
fn a_mute_relay_costs_only_its_own_candidates_and_is_reported_with_its_cause() {
    use ServerTransport::{Tcp, Udp};
    let unwaited = ice::Server { wait: false, ..dead(Udp) };
    let cases = [
        ("another one has answered over UDP", vec![dead(Udp), turn(Udp)], false, ms(150)),
        ("and over TCP", vec![dead(Udp), turn(Tcp), turn(Udp)], false, ms(150)),
        ("only a stream is answered: UDP is blocked", vec![dead(Udp), turn(Tcp)], false, ms(300)),
        ("a probe wants to know about each", vec![dead(Udp), turn(Udp)], true, ms(500)),
        ("it failed before", vec![unwaited, turn(Udp)], false, ms(0)),
    ];
    for (name, servers, waits_for_all, wait) in cases {
        let mut net = Net::new();
        let named = servers.iter().filter(|server| server.addr == dead(Udp).addr).count();
        let a = net.host("192.0.2.1", Config { waits_for_all, ..config(servers) }, 1);
        let offer = net.gather(a);
        assert_eq!(kinds(&offer.candidates), [CandidateType::Host, CandidateType::Relayed], "case: {name}");
        let (failures, took) = gathered(&net, a);
        assert!((wait..wait + ms(100)).contains(&took), "case: {name}: {took:?}");
        assert_eq!(failures.len(), named, "case: {name}");
        for failure in failures {
            assert_eq!((failure.addr, failure.cause), (dead(Udp).addr, ServerCause::Silent(took)), "case: {name}");
        }
    }
}

#[test]
fn a_far_relay_is_waited_for_as_long_as_the_near_one_lets_expect() {
    let (mut net, far) = (Net::new(), dead(ServerTransport::Udp));
    net.latency = ms(25);
    let a = net.host("192.0.2.1", config(vec![far, turn(ServerTransport::Udp)]), 1);
    net.gather(a);
    let (failures, took) = gathered(&net, a);
    // An Allocate is two round trips of 50 ms: four times that, and what the pacing adds.
    assert!((ms(400)..ms(480)).contains(&took), "{took:?}");
    assert_eq!(failures.len(), 1);
}

#[test]
fn a_refused_relay_still_tells_the_reflexive_address() {
    let mut net = Net::new();
    net.nat(1, Kind::Home);
    net.server.refuses_with = Some(486);
    let a = net.host("10.1.0.5", config(vec![turn(ServerTransport::Udp)]), 1);
    let offer = net.gather(a);
    assert_eq!(kinds(&offer.candidates), [CandidateType::Host, CandidateType::ServerReflexive]);
    let cause = net.events(a).find_map(|event| match event {
        Event::Gathered { failures, .. } => failures.first().map(|f| f.cause.to_string()),
        _ => None,
    });
    assert!(cause.unwrap().contains("486"));
}

#[test]
fn plain_tcp_that_is_closed_or_silent_becomes_tls_on_the_same_port() {
    type Fault = fn(&mut net::server::TurnServer);
    let faults: [(&str, Fault); 2] =
        [("closed", |server| server.closes_plain = true), ("silent", |server| server.is_silent_to_plain = true)];
    for (name, fault) in faults {
        let mut net = Net::new();
        fault(&mut net.server);
        let a = net.host("192.0.2.1", config(vec![turn(ServerTransport::Tcp)]), 1);
        net.with(a, ice::Agent::gather);
        net.run(ms(1500));
        let outcome = net.events(a).find_map(|event| match event {
            Event::ServerProbed { outcome, .. } => Some(outcome.clone()),
            _ => None,
        });
        assert_eq!(outcome, Some(ServerOutcome::Works(ServerTransport::Tls)), "case {name}");
        assert_eq!(net.server.allocations(), 2, "case {name}");
        assert_eq!(net.hosts[a].streams.len(), 2, "case {name}: the plain streams are closed");
        let late = net.hosts[a].agent.local_description();
        assert!(late.candidates.iter().any(|c| c.kind == CandidateType::Relayed), "case {name}");
    }
    let mut net = Net::new();
    net.server.refuses_streams = true;
    let a = net.host("192.0.2.1", config(vec![turn(ServerTransport::Tcp)]), 1);
    net.gather(a);
    let failed = net.events(a).any(|event| {
        matches!(event, Event::ServerProbed { outcome: ServerOutcome::Failed(ServerCause::Stream(_)), .. })
    });
    assert!(failed, "a refused connection is a cause of its own");
}

#[test]
fn close_frees_allocations_and_closes_sockets_and_streams() {
    let mut net = Net::new();
    let servers = vec![turn(ServerTransport::Udp), turn(ServerTransport::Tcp)];
    let a = net.host("192.0.2.1", config(servers.clone()), 1);
    net.gather(a);
    assert_eq!(net.server.allocations(), 4);
    net.with(a, ice::Agent::close);
    net.run(ms(100));
    assert_eq!(net.server.allocations(), 0);
    assert_eq!((net.open_sockets(a), net.hosts[a].streams.len()), (0, 0));
    assert_eq!(net.log(a), ["closed"]);
    assert_eq!(net.with(a, |agent, _| agent.poll_output()), ice::Output::Timeout(None), "no timer is left");
    assert_eq!(net.with(a, |agent, now| agent.send(now, Component::Rtp, RTP)), Err(NotReady::Closed));

    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(servers), 1);
    net.gather(a);
    net.server.is_mute = true;
    net.with(a, ice::Agent::close);
    net.run(ms(2100));
    assert_eq!(net.log(a), ["closed"], "a mute server does not hold up the end");
    assert_eq!((net.open_sockets(a), net.hosts[a].streams.len()), (0, 0));
}

#[test]
fn late_candidates_are_used_though_the_other_side_was_not_told() {
    let mut net = Net::new();
    net.server.is_mute = true;
    let only = Config { policy: Policy::RelayOnly, ..config(vec![turn(ServerTransport::Udp)]) };
    let a = net.host("192.0.2.1", only, 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    let offer = net.gather(a);
    net.gather(b);
    assert_eq!(offer.candidates, []);
    net.connect(a, b, true);
    net.server.is_mute = false;
    net.run(ms(5000));
    assert!(final_path(&net, a).starts_with("relay"), "{}", net.hosts[a].agent.report());
    assert_eq!(exchange(&mut net, a, b), both());
}

#[test]
fn a_lost_allocate_still_leaves_the_reflexive_address() {
    let mut net = Net::new();
    net.nat(1, Kind::Home);
    let a = net.host("10.1.0.5", Config { rtcp: false, ..config(vec![turn(ServerTransport::Udp)]) }, 1);
    net.server.loses = 1;
    let offer = net.gather(a);
    let took = net.events(a).find_map(|e| if let Event::Gathered { took, .. } = e { Some(*took) } else { None });
    assert_eq!(took, Some(ms(500)));
    assert_eq!(kinds(&offer.candidates), [CandidateType::Host, CandidateType::ServerReflexive]);
    net.run(ms(200));
    let late = net.hosts[a].agent.local_description();
    assert!(kinds(&late.candidates).contains(&CandidateType::Relayed), "the relay comes late");
}

/// A host with ten interfaces, each with one address of both families.
fn wide(net: &mut Net, host: u8, servers: Vec<ice::Server>) -> usize {
    let of = |n: u8| [format!("192.0.{host}.{n}"), format!("2001:db8:{host}::{n}")];
    let interfaces = (1..=10).flat_map(of).map(|ip| ip.parse().unwrap()).collect();
    net.host(&format!("192.0.{host}.1"), Config { interfaces, ..config(servers) }, host)
}

#[test]
fn ten_interfaces_with_both_families_are_gathered_in_a_second_and_a_hundred_pairs_checked_within_ta() {
    let mut net = Net::new();
    let a = wide(&mut net, 2, vec![turn(ServerTransport::Udp), turn(ServerTransport::Tcp)]);
    let b = wide(&mut net, 3, vec![turn(ServerTransport::Udp)]);
    for host in [a, b] {
        net.with(host, ice::Agent::gather);
        net.run(ms(1000));
        let took = net.events(host).find_map(|e| if let Event::Gathered { took, .. } = e { Some(*took) } else { None });
        assert!(took.is_some_and(|took| took <= ms(1000)), "{took:?}");
    }
    let offer = net.gathered(a);
    let hosts = offer.candidates.iter().filter(|c| c.kind == CandidateType::Host).count();
    assert_eq!(hosts, 20 * 2 * 4, "UDP and three of TCP on each address, for both components");
    net.connect(a, b, false);
    net.run(ms(1));
    for host in [a, b] {
        let report = net.hosts[host].agent.report();
        let pairs = &report.peers[0].pairs;
        assert_eq!(pairs.len(), 100, "RFC 8445 §6.1.2.5");
        assert!(report.peers[0].dropped_pairs > 1000);
        let has = |test: fn(&ice::PairReport) -> bool| pairs.iter().any(test);
        assert!(has(|p| p.local.addr.is_ipv6()) && has(|p| p.local.addr.is_ipv4()));
        assert!(has(|p| p.remote.kind == CandidateType::Relayed), "the relays are the last resort");
        assert!(has(|p| p.local.transport != ice::CandidateTransport::Udp), "and so is TCP");
    }
    let (sent, pacing) = (net.hosts[a].sent, 5);
    net.run(ms(100));
    assert!(net.hosts[a].sent - sent <= 2 * 100 / pacing + 4, "a check and at most an answer every 5 ms");
    net.run(ms(2000));
    assert_eq!(final_path(&net, a), "host-host");
    assert_eq!(exchange(&mut net, a, b), both());
}

#[test]
fn a_server_far_away_gets_the_time_of_its_second_answer() {
    let mut net = Net::new();
    net.nat(1, Kind::Home);
    net.latency = ms(130);
    let a = net.host("10.1.0.5", config(vec![turn(ServerTransport::Udp)]), 1);
    net.with(a, ice::Agent::gather);
    net.run(ms(1000));
    let offer = net.gathered(a);
    assert_eq!(kinds(&offer.candidates), [CandidateType::Host, CandidateType::ServerReflexive, CandidateType::Relayed]);
    let took = net.events(a).find_map(|e| if let Event::Gathered { took, .. } = e { Some(*took) } else { None });
    assert!(took.is_some_and(|took| took > ms(500) && took < ms(560)), "{took:?}");
}

#[test]
fn a_relay_that_another_allocation_of_the_port_prevents_is_asked_for_from_another_port() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![turn(ServerTransport::Udp)]), 1);
    net.server.refuses_first_port_with = Some(437);
    let offer = net.gather(a);
    assert_eq!(kinds(&offer.candidates), [CandidateType::Host, CandidateType::Relayed]);
    assert_eq!((net.server.allocations(), net.open_sockets(a)), (2, 4), "a port of its own for each relay");
    net.with(a, ice::Agent::close);
    net.run(ms(500));
    assert_eq!((net.server.allocations(), net.open_sockets(a)), (0, 0));
}

#[test]
fn credentials_that_expire_in_mid_call_are_renewed_without_a_gap() {
    let mut net = Net::new();
    let only = || Config { policy: Policy::RelayOnly, rtcp: false, ..config(vec![turn(ServerTransport::Udp)]) };
    let a = net.host("192.0.2.1", only(), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    net.gather(b);
    let (at_a, at_b) = net.connect(a, b, true);
    net.run(ms(5000));
    let before = net.hosts[a].agent.path(at_a, Component::Rtp).unwrap().local.addr;
    net.server.expired = vec!["ann".to_owned()];
    net.server.is_stateful = true;
    net.run(Duration::from_secs(550));
    assert!(net.log(a).contains(&"relay ending".to_owned()), "{:?}", net.log(a));
    assert_eq!(exchange(&mut net, a, b), both(), "what was granted lasts to its end");
    let renewed = ice::RelayCredentials { username: "ann2".to_owned(), password: ice::Secret::new("secret") };
    let server = ice::Server { credentials: Some(renewed), ..turn(ServerTransport::Udp) };
    net.with(a, |agent, now| {
        agent.set_servers(vec![server]);
        agent.restart(now, None);
    });
    net.run(ms(600));
    let offer = net.gathered(a);
    assert_eq!(kinds(&offer.candidates), [CandidateType::Relayed], "one under the new credentials");
    assert_ne!(offer.candidates[0].addr, before);
    net.with(b, |agent, now| agent.restart(now, None));
    net.run(ms(600));
    let answer = net.gathered(b);
    net.with(b, |agent, now| agent.update_remote(now, at_b, remote(&offer, true))).unwrap();
    assert_eq!(exchange(&mut net, a, b), both(), "media stays on the old relay meanwhile");
    net.with(a, |agent, now| agent.update_remote(now, at_a, remote(&answer, true))).unwrap();
    net.run(ms(3000));
    assert_eq!(net.hosts[a].agent.path(at_a, Component::Rtp).unwrap().local.addr, offer.candidates[0].addr);
    assert_eq!(exchange(&mut net, a, b), both());
    assert_eq!(exchange(&mut net, b, a), both());
    net.run(Duration::from_secs(70));
    assert_eq!(exchange(&mut net, a, b), both(), "the old one has ended");
    assert!(!net.log(a).iter().any(|line| line.contains("lost")), "{:?}", net.log(a));
}
