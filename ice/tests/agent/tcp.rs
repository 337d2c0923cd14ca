//! Host candidates over TCP (RFC 6544).

use ice::{
    CandidateTransport, CandidateType, CheckFailure, Component, Config, Event, Input, PairView, PathClass, StreamId,
    TcpType,
};

use crate::net::{self, Kind, Net, addr, config, ms, stun, turn};
use crate::{both, exchange, final_path};

/// Two hosts whose UDP does not reach the other.
fn without_udp(hosts: [&str; 2], configs: [Config; 2]) -> (Net, usize, usize) {
    let mut net = Net::new();
    net.nat(1, Kind::Home);
    let [ip_a, ip_b] = hosts;
    let [config_a, config_b] = configs;
    let a = net.host(ip_a, config_a, 1);
    let b = net.host(ip_b, config_b, 2);
    let public = |ip: &str| if ip.starts_with("10.1.") { "198.51.100.1" } else { ip }.parse().unwrap();
    net.udp_blocked.push((ip_a.parse().unwrap(), public(ip_b)));
    net.udp_blocked.push((public(ip_a), ip_b.parse().unwrap()));
    net.gather(a);
    net.gather(b);
    (net, a, b)
}

fn class(net: &Net, host: usize) -> Option<PathClass> {
    let mut events: Vec<&Event> = net.events(host).collect();
    events.reverse();
    events.iter().find_map(|event| match event {
        Event::PathChanged { component: Component::Rtp, path, .. } => Some(path.class),
        _ => None,
    })
}

#[test]
fn every_interface_has_an_active_a_passive_and_a_simultaneous_open_candidate_for_each_component() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let offer = net.gather(a);
    let lines: Vec<String> = offer.candidates.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"));
    assert_eq!(offer.defaults.values().filter(|at| at.port() == 9).count(), 0, "the default is UDP (RFC 6544 §5.1)");
}

#[test]
fn two_hosts_without_udp_between_them_talk_over_tcp() {
    for is_mux in [true, false] {
        let (mut net, a, b) = without_udp(["192.0.2.1", "192.0.2.2"], [config(vec![]), config(vec![])]);
        net.connect(a, b, is_mux);
        net.run(ms(2000));
        for host in [a, b] {
            let path = final_path(&net, host);
            assert!(path.starts_with("host(tcp)-"), "{path}\n{}", net.hosts[host].agent.report());
            assert_eq!(class(&net, host), Some(PathClass::DirectTcp));
            let concluded = net.log(host).iter().any(|line| line.starts_with("concluded"));
            assert!(concluded, "mux {is_mux}: {:?}", net.log(host));
        }
        assert_eq!(exchange(&mut net, a, b), both());
        assert_eq!(exchange(&mut net, b, a), both());
        net.run(ms(5000));
        assert_eq!(exchange(&mut net, a, b), both(), "after the losers have been released");
        let used = if is_mux { 1 } else { 2 };
        assert_eq!((net.hosts[a].links.len(), net.hosts[b].links.len()), (used, used), "one connection per component");
        net.run(ms(40_000));
        assert_eq!(exchange(&mut net, b, a), both(), "consent is renewed on it");
        for host in [a, b] {
            net.with(host, ice::Agent::close);
        }
        net.run(ms(3000));
        for host in [a, b] {
            let left = &net.hosts[host];
            assert_eq!((left.links.len(), left.listeners.len(), net.open_sockets(host)), (0, 0, 0));
        }
    }
}

#[test]
fn a_host_behind_a_nat_connects_to_one_that_can_be_reached() {
    let (mut net, a, b) = without_udp(["10.1.0.5", "192.0.2.2"], [config(vec![stun()]), config(vec![])]);
    net.connect(a, b, true);
    net.run(ms(3000));
    assert_eq!(
        (final_path(&net, a), final_path(&net, b)),
        ("prflx(tcp)-host".to_owned(), "host(tcp)-prflx".to_owned())
    );
    assert_eq!(exchange(&mut net, a, b), both());
    assert_eq!(exchange(&mut net, b, a), both());
}

#[test]
fn behind_two_firewalls_that_let_nobody_in_both_open_at_once() {
    let (mut net, a, b) = without_udp(["192.0.2.1", "192.0.2.2"], [config(vec![]), config(vec![])]);
    net.stateful = vec![net.hosts[a].ip, net.hosts[b].ip];
    net.connect(a, b, true);
    net.run(ms(3000));
    assert_eq!(final_path(&net, a), "host(tcp)-host", "{}", net.hosts[a].agent.report());
    let paths = net.events(a).filter_map(|event| match event {
        Event::PathChanged { path, .. } => Some(path.local.transport),
        _ => None,
    });
    assert_eq!(paths.last(), Some(CandidateTransport::Tcp(TcpType::SimultaneousOpen)));
    assert_eq!(exchange(&mut net, a, b), both());
    assert_eq!(exchange(&mut net, b, a), both());
}

#[test]
fn udp_and_relays_over_udp_are_better_than_tcp_and_tcp_is_better_than_relays_over_tcp() {
    use ice::ServerTransport::{Tcp, Udp};
    let cases = [(vec![turn(Udp), turn(Tcp)], PathClass::RelayUdp), (vec![turn(Tcp)], PathClass::DirectTcp)];
    for (servers, want) in cases {
        for has_relay in [0, 1] {
            let mut configs = [config(vec![]), config(vec![])];
            configs[has_relay] = config(servers.clone());
            let (mut net, a, b) = without_udp(["192.0.2.1", "192.0.2.2"], configs);
            net.connect(a, b, true);
            net.run(ms(5000));
            let classes = [class(&net, a), class(&net, b)];
            assert_eq!(classes, [Some(want); 2], "relay at {has_relay}\n{}", net.hosts[a].agent.report());
        }
    }
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, true);
    net.run(ms(5000));
    assert_eq!(class(&net, a), Some(PathClass::Direct));
}

#[test]
fn a_broken_connection_ends_its_path_at_once() {
    let (mut net, a, b) = without_udp(["192.0.2.1", "192.0.2.2"], [config(vec![]), config(vec![])]);
    net.connect(a, b, true);
    net.run(ms(6000));
    net.reset_links();
    assert!(net.log(a).contains(&"1 consent lost".to_owned()), "{:?}", net.log(a));
    assert!(net.log(b).contains(&"1 consent lost".to_owned()), "{:?}", net.log(b));
    let (before_a, before_b) = (net.hosts[a].links.len(), net.hosts[b].links.len());
    assert_eq!((before_a, before_b), (0, 0));
}

#[test]
fn a_refused_or_silent_connection_is_the_cause_of_its_pair() {
    for is_silent in [true, false] {
        let (mut net, a, b) = without_udp(["192.0.2.1", "192.0.2.2"], [config(vec![]), config(vec![])]);
        if is_silent {
            net.blocked.push((net.hosts[a].ip, net.hosts[b].ip));
        } else {
            net.hosts[b].listeners.clear();
        }
        let (offer, answer) = (net.gathered(a), net.gathered(b));
        let _ = offer;
        net.with(a, |agent, now| agent.add_remote(now, net::remote(&answer, true), ice::Role::Controlling));
        net.run(ms(9000));
        let report = net.hosts[a].agent.report();
        let tcp = report.peers[0].pairs.iter().filter(|pair| pair.local.transport != CandidateTransport::Udp);
        let causes: Vec<&PairView> = tcp.map(|pair| &pair.state).collect();
        assert_eq!(causes, [&PairView::Failed(CheckFailure::NotConnected); 2], "silent: {is_silent}\n{report}");
    }
}

#[test]
fn a_stranger_that_shows_no_check_is_sent_away_after_8_s_and_many_at_once() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    net.gather(a);
    let (listener, local) = net.hosts[a].listeners.iter().next().map(|(id, local)| (*id, *local)).unwrap();
    for port in 0..70_u16 {
        let id = StreamId((1 << 31) + 1000 + u32::from(port));
        let remote = addr(&format!("198.51.100.9:{}", 2000 + port));
        net.hosts[a].links.insert(id, net::Link { local, remote, other: None });
        net.input(a, Input::StreamAccepted { listener, id, local, remote });
        net.input(a, Input::StreamData { id, bytes: &[0, 3, 1, 2, 3] });
    }
    assert_eq!(net.hosts[a].links.len(), 64, "more are closed as they come");
    net.run(ms(8100));
    assert_eq!(net.hosts[a].links.len(), 0);
    assert_eq!(net.hosts[a].agent.report().strays, 64);
}

#[test]
fn a_listener_that_cannot_be_had_is_told_and_costs_nothing_else() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let mut agent = ice::Agent::new(net.now, config_of(&net, a), [7; 32]);
    agent.gather(net.now);
    let mut socket_port = 7000;
    loop {
        match agent.poll_output() {
            ice::Output::OpenSocket { id, bind } => {
                socket_port += 1;
                let local = std::net::SocketAddr::new(bind.ip(), socket_port);
                agent.handle_input(net.now, Input::SocketOpened { id, local });
            }
            ice::Output::Listen { id, .. } => {
                agent.handle_input(net.now, Input::ListenFailed { id, cause: "no descriptors left".to_owned() });
            }
            ice::Output::Timeout(_) => break,
            _ => {}
        }
    }
    let local = agent.local_description();
    let active = |c: &&ice::Candidate| c.transport == CandidateTransport::Tcp(TcpType::Active);
    assert_eq!(local.candidates.iter().filter(active).count(), 2);
    assert_eq!(local.candidates.iter().filter(|c| c.kind == CandidateType::Host).count(), 4);
    let report = agent.report();
    assert_eq!(report.unavailable.len(), 4);
    assert!(report.unavailable[0].contains("no descriptors left"), "{:?}", report.unavailable);
}

fn config_of(net: &Net, host: usize) -> Config {
    Config { interfaces: vec![net.hosts[host].ip], ..config(vec![]) }
}
