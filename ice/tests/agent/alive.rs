//! Staying alive: paths that die, NATs that forget, better ways that open, and calls in which nobody speaks.

use std::net::IpAddr;
use std::time::Duration;

use ice::{Component, Event, PathTrouble, PeerId, ServerTransport};

use crate::net::{Kind, Net, config, ms, turn};
use crate::{RTP, both, exchange, final_path};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Both sides send a packet every 20 ms, where they can.
fn talk(net: &mut Net, hosts: [usize; 2], time: Duration) {
    for _ in 0..time.as_millis() / 20 {
        for host in hosts {
            let _ = net.with(host, |agent, now| agent.send(now, Component::Rtp, RTP));
        }
        net.run(ms(20));
    }
}

/// The longest pause between two packets that a host received after `from`.
fn gap(net: &Net, host: usize, from: Duration) -> Duration {
    let times: Vec<Duration> = net.hosts[host].data.iter().map(|(at, ..)| *at).filter(|at| *at >= from).collect();
    let last = times.last().copied().unwrap_or(from);
    let pauses = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    let before_first = times.first().map_or(Duration::MAX, |at| at.saturating_sub(from));
    let after_last = net.now.duration_since(net.start).saturating_sub(last);
    pauses.chain([before_first, after_last]).max().unwrap()
}

/// A call that has been promoted and has its standbys.
fn call(net: &mut Net, a: usize, b: usize) -> (PeerId, PeerId) {
    net.gather(a);
    net.gather(b);
    let peers = net.connect(a, b, true);
    talk(net, [a, b], ms(6_000));
    peers
}

fn public_pair(with_relay: bool) -> (Net, usize, usize) {
    let mut net = Net::new();
    let servers = || if with_relay { vec![turn(ServerTransport::Udp)] } else { vec![] };
    let a = net.host("192.0.2.1", config(servers()), 1);
    let b = net.host("192.0.2.2", config(servers()), 2);
    (net, a, b)
}

#[test]
fn a_dead_path_is_left_for_a_standby_within_two_seconds_and_both_name_the_same_pair() {
    let (mut net, a, b) = public_pair(true);
    let (at_a, at_b) = call(&mut net, a, b);
    assert_eq!(final_path(&net, a), "host-host");
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    let cut = net.now - net.start;
    talk(&mut net, [a, b], ms(5_000));
    for host in [a, b] {
        let gap = gap(&net, host, cut);
        assert!(gap <= ms(1_800), "{gap:?}: {:?}", net.log(host));
        assert!(net.log(host).iter().any(|line| line.starts_with("gap")), "{:?}", net.log(host));
    }
    let (left, right) = (net.hosts[a].agent.path(at_a, Component::Rtp), net.hosts[b].agent.path(at_b, Component::Rtp));
    let (left, right) = (left.unwrap(), right.unwrap());
    assert_eq!((left.local.addr, left.remote.addr), (right.remote.addr, right.local.addr));
}

#[test]
fn the_better_path_is_taken_again_within_ten_seconds_after_it_is_back() {
    let (mut net, a, b) = public_pair(true);
    call(&mut net, a, b);
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    talk(&mut net, [a, b], ms(45_000));
    assert!(final_path(&net, a).contains("relay"));
    net.blocked.clear();
    let back = net.now - net.start;
    talk(&mut net, [a, b], ms(10_000));
    assert_eq!((final_path(&net, a), final_path(&net, b)), ("host-host".to_owned(), "host-host".to_owned()));
    assert!(gap(&net, a, back) <= ms(50) && gap(&net, b, back) <= ms(50), "the move costs nothing");
}

#[test]
fn a_way_that_was_closed_from_the_start_is_taken_within_ten_seconds_after_it_opens() {
    let (mut net, a, b) = public_pair(true);
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    call(&mut net, a, b);
    talk(&mut net, [a, b], ms(60_000));
    assert!(final_path(&net, a).contains("relay"));
    net.blocked.clear();
    talk(&mut net, [a, b], ms(10_000));
    assert_eq!((final_path(&net, a), final_path(&net, b)), ("host-host".to_owned(), "host-host".to_owned()));
}

#[test]
fn without_a_standby_the_owner_is_told_once_and_media_waits_for_the_path_to_come_back() {
    let (mut net, a, b) = public_pair(false);
    call(&mut net, a, b);
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    talk(&mut net, [a, b], ms(1_500));
    for host in [a, b] {
        let dead = net.events(host).filter(|event| matches!(event, Event::PathDead { .. })).count();
        assert_eq!(dead, 1, "{:?}", net.log(host));
    }
    talk(&mut net, [a, b], ms(3_500));
    net.blocked.clear();
    let back = net.now - net.start;
    talk(&mut net, [a, b], ms(1_000));
    for host in [a, b] {
        assert!(gap(&net, host, back) <= ms(60), "{:?}", gap(&net, host, back));
        assert_eq!(net.log(host).last().unwrap(), "gap of 5 s", "{:?}", net.log(host));
    }
}

#[test]
fn in_a_call_where_nobody_speaks_a_dead_path_is_found_by_a_question_a_second() {
    let (mut net, a, b) = public_pair(true);
    call(&mut net, a, b);
    net.run(ms(60_000));
    for host in [a, b] {
        assert!(!net.events(host).any(|event| matches!(event, Event::PathDead { .. })), "{:?}", net.log(host));
    }
    assert_eq!(final_path(&net, a), "host-host");
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    net.run(ms(3_000));
    for host in [a, b] {
        assert!(final_path(&net, host).contains("relay"), "{:?}", net.log(host));
    }
    assert_eq!(exchange(&mut net, a, b), both());
}

#[test]
fn a_nat_that_forgets_us_is_followed_without_signalling_where_the_peer_can_be_reached() {
    let mut net = Net::new();
    net.nat(1, Kind::Symmetric);
    let a = net.host("10.1.0.5", config(vec![turn(ServerTransport::Udp)]), 1);
    let b = net.host("192.0.2.2", config(vec![turn(ServerTransport::Udp)]), 2);
    let (_, at_b) = call(&mut net, a, b);
    let before = net.hosts[b].agent.path(at_b, Component::Rtp).unwrap().remote.addr;
    net.nat_reboots();
    let cut = net.now - net.start;
    talk(&mut net, [a, b], ms(3_000));
    let after = net.hosts[b].agent.path(at_b, Component::Rtp).unwrap().remote.addr;
    assert_ne!(before, after, "{:?}", net.log(b));
    for host in [a, b] {
        assert!(gap(&net, host, cut) <= ms(1_000), "{:?} {:?}", gap(&net, host, cut), net.log(host));
    }
}

#[test]
fn a_nat_that_forgets_us_is_noticed_before_the_path_is_given_up() {
    let mut net = Net::new();
    net.nat(1, Kind::Home);
    net.nat(2, Kind::Home);
    let a = net.host("10.1.0.5", config(vec![crate::net::stun()]), 1);
    let b = net.host("10.2.0.5", config(vec![crate::net::stun()]), 2);
    call(&mut net, a, b);
    assert_eq!(final_path(&net, a), "srflx-srflx");
    net.nat_reboots();
    let cut = net.now;
    talk(&mut net, [a, b], ms(900));
    let told = net.hosts[a].events.iter().find_map(|(at, event)| match event {
        Event::PathDead { trouble, .. } => Some((*at, *trouble)),
        _ => None,
    });
    let (at, trouble) = told.expect("told within 900 ms");
    assert_eq!(trouble, PathTrouble::Rebound);
    assert!(net.start + at - cut < ms(900));
}

#[test]
fn nothing_is_sent_to_an_address_that_has_not_answered_when_the_peer_moves() {
    let (mut net, a, b) = public_pair(false);
    call(&mut net, a, b);
    // A check with the right password that names a pair, from an address at which nobody answers.
    let told = (net.gathered(a), net.gathered(b));
    let username = format!("{}:{}", told.1.ufrag, told.0.ufrag);
    let key = ice::stun::Key::short_term(told.1.pwd.expose().as_bytes());
    let id = ice::stun::TransactionId::new([7; 12]);
    let check = ice::stun::Builder::new(ice::stun::Class::Request, ice::stun::Method::BINDING, id)
        .with(&ice::stun::Attribute::Username(username.as_bytes()))
        .with(&ice::stun::Attribute::Priority(1))
        .with(&ice::stun::Attribute::IceControlling(u64::MAX))
        .with(&ice::stun::Attribute::UseCandidate)
        .integrity(ice::stun::Integrity::Sha1, &key)
        .fingerprint()
        .build();
    let socket = net.only_socket(b);
    net.input(b, ice::Input::Datagram { socket, from: crate::net::addr("192.0.2.66:6666"), payload: &check });
    talk(&mut net, [a, b], ms(3_000));
    assert_eq!(final_path(&net, b), "host-host");
    let path = net.hosts[b].agent.report().peers[0].pairs.iter().filter(|pair| pair.selected).count();
    assert_eq!(path, 1);
    assert!(
        net.hosts[b].agent.report().peers[0].pairs.iter().all(|p| !p.selected || p.remote.addr.ip() == ip("192.0.2.1"))
    );
}
