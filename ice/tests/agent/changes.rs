//! What happens to a running session: loss, restart, re-offers, peers of other kinds.

use std::net::IpAddr;

use ice::{Component, Config, Input, NominatedPair, NotReady, PairsVerdict, PathClass, Role, ServerTransport};

use crate::net::{self, Kind, Net, addr, config, ms, remote, turn};
use crate::{RTP, both, exchange, final_path};

#[test]
fn consent_ends_sending_30_s_after_the_last_answer() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, true);
    net.run(ms(5_000));
    net.wakeups = 0;
    net.run(ms(55_000));
    assert!(net.wakeups < 150, "woken {} times for a question a second of each side", net.wakeups);
    assert!(!net.log(a).iter().any(|line| line.contains("lost")));
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    net.run(ms(23_000));
    net.with(a, |agent, now| agent.send(now, Component::Rtp, RTP)).unwrap();
    net.run(ms(8_000));
    assert!(net.log(a).contains(&"1 consent lost".to_owned()), "{:?}", net.log(a));
    let refused = net.with(a, |agent, now| agent.send(now, Component::Rtp, RTP));
    assert_eq!(refused, Err(NotReady::NoConsent(Component::Rtp)));
}

#[test]
fn a_restart_keeps_the_old_pair_until_the_new_one_is_nominated() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    let before = net.gather(a);
    net.gather(b);
    let (at_a, at_b) = net.connect(a, b, true);
    net.run(ms(5000));
    for host in [a, b] {
        net.with(host, |agent, now| agent.restart(now, None));
    }
    net.run(ms(600));
    let (offer, answer) = (net.gathered(a), net.gathered(b));
    assert_ne!((&offer.ufrag, offer.pwd.expose()), (&before.ufrag, before.pwd.expose()));
    assert_eq!(exchange(&mut net, a, b), both(), "the old pair goes on");
    net.with(b, |agent, now| agent.update_remote(now, at_b, remote(&offer, true))).unwrap();
    net.run(ms(100));
    net.with(a, |agent, now| agent.update_remote(now, at_a, remote(&answer, true))).unwrap();
    assert_eq!(exchange(&mut net, a, b), both());
    net.run(ms(2000));
    for host in [a, b] {
        let log = net.log(host);
        assert!(log.contains(&"1 host-host Restarted".to_owned()), "{log:?}");
        assert_eq!(log.iter().filter(|line| line.starts_with("concluded")).count(), 2, "{log:?}");
    }
    assert_eq!(exchange(&mut net, b, a), both());
    net.run(ms(40_000));
    assert_eq!(exchange(&mut net, a, b), both());
}

#[test]
fn remote_candidates_are_answered_when_their_pairs_are_valid() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    let (offer, answer) = (net.gather(a), net.gather(b));
    let (_, at_b) = net.connect(a, b, true);
    let pair = NominatedPair {
        component: Component::Rtp,
        local: answer.defaults[&Component::Rtp],
        remote: offer.defaults[&Component::Rtp],
    };
    let verdict = net.with(b, |agent, now| agent.await_pairs(now, at_b, &[pair])).unwrap();
    assert_eq!(verdict, PairsVerdict::Pending);
    net.run(ms(1000));
    assert!(net.log(b).contains(&"Valid".to_owned()), "{:?}", net.log(b));
    let verdict = net.with(b, |agent, now| agent.await_pairs(now, at_b, &[pair])).unwrap();
    assert_eq!(verdict, PairsVerdict::Valid);
    let wrong = NominatedPair { remote: addr("192.0.2.77:9"), ..pair };
    let verdict = net.with(b, |agent, now| agent.await_pairs(now, at_b, &[wrong])).unwrap();
    assert_eq!(verdict, PairsVerdict::Failed);
}

#[test]
fn a_plain_peer_is_sent_to_where_it_sends_from() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", Config { rtcp: false, ..config(vec![]) }, 1);
    let local = net.gather(a).defaults[&Component::Rtp];
    net.with(a, |agent, now| agent.use_plain(now, Component::Rtp, addr("192.0.2.9:4000")));
    net.with(a, |agent, now| agent.send(now, Component::Rtp, RTP)).unwrap();
    let socket = ice::SocketId(0);
    net.input(a, Input::Datagram { socket, from: addr("192.0.2.8:5555"), payload: RTP });
    net.input(a, Input::Datagram { socket, from: addr("192.0.2.66:6"), payload: RTP });
    assert_eq!(net.hosts[a].data.len(), 1, "a second source does not take over");
    assert_eq!(net.hosts[a].data[0].1, None);
    net.run(ms(2100));
    net.input(a, Input::Datagram { socket, from: addr("192.0.2.66:6"), payload: RTP });
    assert_eq!(net.hosts[a].data.len(), 2, "after 2 s of silence it may");
    assert!(local.port() != 0);
}

#[test]
fn random_bytes_never_panic_and_change_nothing() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![turn(ServerTransport::Udp), turn(ServerTransport::Tcp)]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, true);
    net.run(ms(1000));
    let valid = {
        let id = ice::stun::TransactionId::new([1; 12]);
        ice::stun::Builder::new(ice::stun::Class::Request, ice::stun::Method::BINDING, id).fingerprint().build()
    };
    let mut state = 0x9e37_79b9_u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    for round in 0..4000_u32 {
        let length = usize::try_from(random() % 120).unwrap();
        let mut bytes: Vec<u8> = (0..length).map(|_| random().to_le_bytes()[0]).collect();
        if round % 3 == 0 {
            bytes.clone_from(&valid);
            let at = usize::try_from(random()).unwrap() % bytes.len();
            bytes[at] = random().to_le_bytes()[1];
        }
        let from = if round % 2 == 0 { addr("192.0.2.2:5001") } else { addr(net::SERVER) };
        net.input(a, Input::Datagram { socket: ice::SocketId(0), from, payload: &bytes });
        let stream = *net.hosts[a].streams.keys().next().unwrap_or(&ice::StreamId(0));
        if round % 50 == 0 {
            net.input(a, Input::StreamData { id: stream, bytes: &bytes });
        }
    }
    net.run(ms(1000));
    assert_eq!(exchange(&mut net, a, b).len(), 2);
    assert_eq!(net.hosts[a].agent.report().peers[0].pairs[0].class, PathClass::Direct);
}

#[test]
fn a_microsoft_peer_moves_its_media_when_the_re_invite_is_answered() {
    let ms_ice2 = || Config { dialect: ice::Dialect::MS_ICE2, ..config(vec![turn(ServerTransport::Udp)]) };
    let mut net = Net::new();
    let a = net.host("192.0.2.1", ms_ice2(), 1);
    let b = net.host("192.0.2.2", ms_ice2(), 2);
    net.latency = ms(60);
    net.gather(a);
    net.gather(b);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    net.blocked.push((ip("192.0.2.1"), ip("192.0.2.2")));
    let (at_a, _) = net.connect(a, b, true);
    net.run(ms(500));
    net.blocked.clear();
    net.run(ms(4000));
    let log = net.log(a);
    assert!(log.contains(&"concluded, announce true".to_owned()), "{log:?}");
    assert!(final_path(&net, a).contains("relay"), "nothing moves before the answer: {log:?}");
    net.with(a, |agent, now| agent.announced(now, at_a));
    assert_eq!(final_path(&net, a), "host-host");
    assert_eq!(exchange(&mut net, a, b), both());
}

#[test]
fn a_network_change_restarts_on_the_new_interface() {
    let mut net = Net::new();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let a = net.host("192.0.2.1", config(vec![turn(ServerTransport::Udp)]), 1);
    let b = net.host("192.0.2.2", config(vec![turn(ServerTransport::Udp)]), 2);
    net.gather(a);
    net.gather(b);
    let (at_a, at_b) = net.connect(a, b, true);
    net.run(ms(5000));
    for gone in ["192.0.2.2", "203.0.113.10"] {
        net.blocked.push((ip("192.0.2.1"), ip(gone)));
    }
    net.with(a, |agent, now| agent.restart(now, Some(vec!["192.0.2.77".parse().unwrap()])));
    net.with(b, |agent, now| agent.restart(now, None));
    net.run(ms(600));
    let (offer, answer) = (net.gathered(a), net.gathered(b));
    assert!(offer.candidates.iter().all(|c| c.addr.ip() != ip("192.0.2.1")), "{:?}", offer.candidates);
    net.with(b, |agent, now| agent.update_remote(now, at_b, remote(&offer, true))).unwrap();
    net.with(a, |agent, now| agent.update_remote(now, at_a, remote(&answer, true))).unwrap();
    net.run(ms(10_000));
    assert_eq!(exchange(&mut net, a, b), both());
    assert_eq!(exchange(&mut net, b, a), both());
    let path = net.hosts[a].agent.path(at_a, Component::Rtp).unwrap();
    assert_eq!((path.local.addr.ip(), path.class), (ip("192.0.2.77"), PathClass::Direct));
    assert_eq!(net.open_sockets(a), 1, "the old socket is closed");
}

#[test]
fn a_hold_without_ice_goes_on_plain_and_the_next_description_with_ice_ends_it() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![turn(ServerTransport::Udp)]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    let answer = net.gather(b);
    let (at_a, _) = net.connect(a, b, true);
    net.run(ms(6000));
    let music = addr("192.0.2.99:7000");
    net.with(a, |agent, now| agent.use_plain(now, Component::Rtp, music));
    net.hosts[b].data.clear();
    net.with(a, |agent, now| agent.send(now, Component::Rtp, RTP)).unwrap();
    net.run(ms(100));
    assert_eq!(net.hosts[b].data, []);
    let socket = net.only_socket(a);
    net.input(a, Input::Datagram { socket, from: music, payload: RTP });
    assert_eq!(net.hosts[a].data.last().unwrap().1, None, "music comes in on the socket of the selected pair");
    net.with(a, |agent, now| agent.update_remote(now, at_a, remote(&answer, true))).unwrap();
    assert_eq!(exchange(&mut net, a, b), both());
}

#[test]
fn a_caller_that_only_hears_the_200_after_a_minute_is_still_reached() {
    let mut net = Net::new();
    net.nat(1, Kind::Home);
    net.nat(2, Kind::Home);
    let a = net.host("10.1.0.5", config(vec![turn(ServerTransport::Udp)]), 1);
    let b = net.host("10.2.0.5", config(vec![turn(ServerTransport::Udp)]), 2);
    let (offer, answer) = (net.gather(a), net.gather(b));
    let at_b = net.with(b, |agent, now| agent.add_remote(now, remote(&offer, true), Role::Controlled));
    net.wakeups = 0;
    net.run(ms(60_000));
    assert_eq!(net.log(b), Vec::<String>::new(), "it rings: no failure yet");
    assert!(net.wakeups < 200, "woken {} times in a minute of silence", net.wakeups);
    net.nat_forgets_filters();
    net.with(b, |agent, now| agent.choose(now, at_b)).unwrap();
    let at_a = net.with(a, |agent, now| agent.add_remote(now, remote(&answer, true), Role::Controlling));
    net.with(a, |agent, now| agent.choose(now, at_a)).unwrap();
    net.run(ms(2000));
    assert_eq!(final_path(&net, a), "srflx-srflx", "{}", net.hosts[a].agent.report());
    assert_eq!(exchange(&mut net, b, a), both());
}
