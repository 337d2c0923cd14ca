//! The relay against the project's own TURN client, and against hand-made requests, in virtual time.

mod bench;

use std::time::Duration;

use ice::stun::{Attribute, AttributeType, Class, Family, Key, Message, Method, PasswordAlgorithm};
use ice::turn::{Event, RelayCause, auth};
use ice::{RelayCredentials, Secret, ServerTransport};
use proptest::prelude::*;

use super::*;
use bench::{Bench, REALM, START_UNIX_S, config, epoch, exchange, ip, raw, rest, socket};

const TRANSPORTS: [ServerTransport; 3] = [ServerTransport::Udp, ServerTransport::Tcp, ServerTransport::Tls];

fn cause(event: Option<&Event>) -> RelayCause {
    match event {
        Some(Event::Failed(error) | Event::Lost(error)) => error.cause.clone(),
        other => panic!("no failure but {other:?}"),
    }
}

#[test]
fn data_passes_both_ways_by_indication_and_by_channel_over_every_transport() {
    let peer = socket("198.51.100.20:9000");
    for transport in TRANSPORTS {
        let mut bench = Bench::new(config());
        let me = bench.allocate(transport, rest(3600));
        let relayed = bench.relayed(me);
        bench.with(me, |allocation, now| allocation.permit(now, peer.ip()));
        bench.send(me, peer, b"ping");
        assert_eq!(bench.peer_inbox.pop(), Some((relayed, peer, b"ping".to_vec())), "case: {transport}");
        bench.send_to_relay(peer, relayed, b"pong");
        assert_eq!(bench.data(me), [(peer, b"pong".to_vec())], "case: {transport}");
        bench.with(me, |allocation, now| allocation.bind(now, peer));
        bench.send(me, peer, b"by channel");
        assert_eq!(bench.peer_inbox.pop(), Some((relayed, peer, b"by channel".to_vec())), "case: {transport}");
        bench.send_to_relay(peer, relayed, b"odd");
        assert_eq!(bench.data(me), [(peer, b"odd".to_vec())], "case: {transport}");
        let holding = bench.relay.allocations(bench.now).remove(0);
        assert_eq!((holding.transport, holding.relayed), (transport, Some(relayed)));
        assert_eq!((holding.out_bytes, holding.in_bytes, holding.channels), (14, 7, vec![peer]));
        bench.with(me, ice::turn::Allocation::free);
        assert_eq!(bench.events(me).last(), Some(&Event::Freed), "case: {transport}");
        assert_eq!((bench.relay.allocations(bench.now), bench.open_relays()), (vec![], 0), "case: {transport}");
    }
}

#[test]
fn two_allocations_talk_relay_to_relay() {
    let mut bench = Bench::new(config());
    let (a, b) = (bench.allocate(ServerTransport::Udp, rest(60)), bench.allocate(ServerTransport::Tls, rest(60)));
    let (addr_a, addr_b) = (bench.relayed(a), bench.relayed(b));
    bench.with(a, |allocation, now| allocation.permit(now, addr_b.ip()));
    bench.send(a, addr_b, b"too early");
    assert_eq!(bench.data(b), [], "b has not permitted a yet");
    bench.with(b, |allocation, now| allocation.permit(now, addr_a.ip()));
    bench.send(a, addr_b, b"hello");
    bench.send(b, addr_a, b"hello too");
    assert_eq!(bench.data(b), [(addr_a, b"hello".to_vec())]);
    assert_eq!(bench.data(a), [(addr_b, b"hello too".to_vec())]);
}

#[test]
fn time_limited_credentials_open_until_they_expire_and_what_runs_goes_on() {
    let peer = socket("198.51.100.20:9000");
    let mut bench = Bench::new(config());
    let me = bench.allocate(ServerTransport::Udp, rest(60));
    bench.with(me, |allocation, now| allocation.bind(now, peer));
    bench.run(Duration::from_hours(2));
    bench.send(me, peer, b"still here");
    assert_eq!(bench.peer_inbox.len(), 1, "{:?}", bench.events(me));
    let late = bench.add(ServerTransport::Udp, rest(60));
    let user = auth::rest_username(START_UNIX_S + 60, "alice");
    assert_eq!(cause(bench.events(late).last()), RelayCause::Unauthorized { user });
    assert_eq!(bench.relay.allocations(bench.now).len(), 1);
}

#[test]
fn wrong_passwords_and_unknown_users_are_refused() {
    let static_user = RelayCredentials { username: "bob".to_owned(), password: Secret::new("hunter2") };
    let cases = [
        ("the static user", static_user.clone(), true),
        ("wrong password", RelayCredentials { password: Secret::new("x"), ..static_user }, false),
        ("unknown user", RelayCredentials { username: "eve".to_owned(), password: Secret::new("hunter2") }, false),
        ("other secret", RelayCredentials { password: Secret::new("x"), ..rest(60) }, false),
    ];
    for (name, credentials, is_good) in cases {
        let mut bench = Bench::new(config());
        let me = bench.add(ServerTransport::Udp, credentials);
        match bench.events(me).last() {
            Some(Event::Allocated { .. }) => assert!(is_good, "case: {name}"),
            other => assert!(!is_good && cause(other).code() == Some(401), "case: {name}: {other:?}"),
        }
    }
}

#[test]
fn an_abandoned_allocation_is_gone_when_its_lifetime_is_over() {
    let mut bench = Bench::new(config());
    let me = bench.allocate(ServerTransport::Udp, rest(60));
    bench.kill(me);
    bench.run(Duration::from_secs(599));
    assert_eq!(bench.relay.allocations(bench.now).len(), 1);
    bench.run(Duration::from_secs(1));
    assert_eq!((bench.relay.allocations(bench.now), bench.open_relays()), (vec![], 0));
}

#[test]
fn an_allocation_dies_with_its_connection() {
    let mut bench = Bench::new(config());
    let me = bench.allocate(ServerTransport::Tcp, rest(60));
    bench.close_stream(me);
    assert_eq!((bench.relay.allocations(bench.now), bench.open_relays()), (vec![], 0));
    assert!(matches!(cause(bench.events(me).last()), RelayCause::StreamClosed(_)));
}

#[test]
fn limits_are_kept() {
    let cases = [
        ("quota", Config { quota: 1, ..config() }, RelayCause::QuotaReached),
        ("capacity", Config { capacity: 1, ..config() }, RelayCause::NoCapacity),
    ];
    for (name, config, want) in cases {
        let mut bench = Bench::new(config);
        bench.allocate(ServerTransport::Udp, rest(60));
        let second = bench.add(ServerTransport::Udp, rest(60));
        assert_eq!(cause(bench.events(second).last()), want, "case: {name}");
    }
    let mut bench = Bench::new(config());
    bench.refuse_relays = true;
    let me = bench.add(ServerTransport::Udp, rest(60));
    assert_eq!(cause(bench.events(me).last()), RelayCause::NoCapacity);
    assert_eq!(bench.relay.allocations(bench.now), []);
}

#[test]
fn injected_errors_reach_the_client_as_causes() {
    for code in [403, 437, 440, 441, 442, 486, 508, 500] {
        let mut bench = Bench::new(config());
        bench.relay.faults().inject(Fault::always(Method::ALLOCATE, code));
        let me = bench.add(ServerTransport::Tcp, rest(60));
        assert_eq!(cause(bench.events(me).last()).code(), Some(code));
        bench.relay.faults().clear();
        let me = bench.add(ServerTransport::Tcp, rest(60));
        assert!(matches!(bench.events(me).last(), Some(Event::Allocated { .. })), "after {code}");
    }
}

#[test]
fn a_redirected_client_knocks_at_the_other_door() {
    for transport in TRANSPORTS {
        let mut bench = Bench::new(config());
        bench.relay.faults().inject(Fault { times: 1, ..Fault::redirect(bench::other_door()) });
        let me = bench.add(transport, rest(60));
        let want = Event::Redirected { to: bench::other_door() };
        assert_eq!(bench.events(me).first(), Some(&want), "case: {transport}");
        assert!(matches!(bench.events(me).last(), Some(Event::Allocated { .. })), "case: {transport}");
        let mut bench = Bench::new(config());
        bench.relay.faults().inject(Fault::redirect(bench::other_door()));
        let me = bench.add(transport, rest(60));
        assert_eq!(cause(bench.events(me).last()), RelayCause::TooManyRedirects { to: bench::other_door() });
    }
}

#[test]
fn a_mute_server_reads_and_never_answers() {
    let mut bench = Bench::new(config());
    bench.relay.faults().is_mute = true;
    let (udp, tcp) = (bench.add(ServerTransport::Udp, rest(60)), bench.add(ServerTransport::Tcp, rest(60)));
    bench.run(Duration::from_secs(45));
    for me in [udp, tcp] {
        assert_eq!(cause(bench.events(me).last()), RelayCause::Silent { waited: Duration::from_millis(39_500) });
    }
}

#[test]
fn a_black_hole_allocates_and_relays_nothing() {
    let peer = socket("198.51.100.20:9000");
    let mut bench = Bench::new(config());
    bench.relay.faults().is_blackhole = true;
    let me = bench.allocate(ServerTransport::Udp, rest(60));
    bench.with(me, |allocation, now| allocation.permit(now, peer.ip()));
    bench.send(me, peer, b"ping");
    let relayed = bench.relayed(me);
    bench.send_to_relay(peer, relayed, b"pong");
    assert_eq!((bench.peer_inbox.len(), bench.data(me).len()), (0, 0));
}

#[test]
fn stale_nonces_cost_a_round_trip_and_nothing_else() {
    let peer = ip("198.51.100.20");
    let mut bench = Bench::new(Config { nonce_lifetime: Duration::from_mins(1), ..config() });
    let me = bench.allocate(ServerTransport::Udp, rest(60));
    bench.run(Duration::from_mins(30));
    bench.relay.expire_nonces();
    bench.with(me, |allocation, now| allocation.permit(now, peer));
    assert_eq!(bench.events(me).last(), Some(&Event::PermissionReady(peer)));
    assert_eq!(bench.events(me).len(), 2, "only allocated and permitted: {:?}", bench.events(me));
}

#[test]
fn a_server_that_forgot_everything_loses_its_clients_with_437() {
    let mut bench = Bench::new(config());
    let me = bench.allocate(ServerTransport::Udp, rest(3600));
    bench.relay.forget_allocations();
    bench.run(Duration::from_mins(10));
    assert_eq!(cause(bench.events(me).last()), RelayCause::Mismatch);
}

#[test]
fn sha256_is_used_when_the_server_offers_it() {
    let mut bench = Bench::new(Config { offers_sha256: true, ..config() });
    let me = bench.allocate(ServerTransport::Udp, rest(60));
    bench.run(Duration::from_hours(3));
    assert!(matches!(bench.events(me), [Event::Allocated { .. }]), "{:?}", bench.events(me));
}

#[test]
fn without_a_permission_nothing_comes_in() {
    let mut bench = Bench::new(config());
    let me = bench.allocate(ServerTransport::Udp, rest(60));
    let relayed = bench.relayed(me);
    bench.with(me, |allocation, now| allocation.permit(now, ip("198.51.100.20")));
    bench.send_to_relay(socket("198.51.100.21:9000"), relayed, b"stranger");
    assert_eq!(bench.data(me), []);
    bench.send_to_relay(socket("198.51.100.20:1"), relayed, b"the port does not matter");
    assert_eq!(bench.data(me).len(), 1);
}

#[test]
fn a_permission_that_is_not_renewed_ends_after_five_minutes() {
    let peer = socket("198.51.100.20:9000");
    let mut bench = Bench::new(config());
    let me = bench.allocate(ServerTransport::Udp, rest(60));
    let relayed = bench.relayed(me);
    bench.with(me, |allocation, now| allocation.permit(now, peer.ip()));
    bench.relay.faults().inject(Fault::always(Method::CREATE_PERMISSION, 403));
    bench.run(Duration::from_secs(299));
    bench.send_to_relay(peer, relayed, b"in time");
    assert_eq!(bench.data(me).len(), 1);
    assert!(matches!(bench.events(me).last(), Some(Event::PermissionFailed(..))));
    bench.run(Duration::from_secs(1));
    bench.send_to_relay(peer, relayed, b"late");
    assert_eq!(bench.data(me), []);
}

#[test]
fn permissions_and_channels_outlive_their_lifetimes_by_renewal() {
    let peer = socket("198.51.100.20:9000");
    for transport in TRANSPORTS {
        let mut bench = Bench::new(config());
        let me = bench.allocate(transport, rest(60));
        let relayed = bench.relayed(me);
        bench.with(me, |allocation, now| allocation.bind(now, peer));
        for _ in 0..90 {
            bench.run(Duration::from_mins(1));
            bench.send(me, peer, b"out");
            bench.send_to_relay(peer, relayed, b"in");
        }
        assert_eq!((bench.peer_inbox.len(), bench.data(me).len()), (90, 90), "case: {transport}");
    }
}

#[test]
fn hand_made_requests_get_the_error_codes_of_rfc_8656() {
    use Attribute::{RequestedAddressFamily, RequestedTransport, XorPeerAddress};
    let udp = RequestedTransport(17);
    let cases: [(&str, Method, Vec<Attribute<'static>>, u16); 11] = [
        ("no transport", Method::ALLOCATE, vec![], 400),
        ("TCP relay", Method::ALLOCATE, vec![RequestedTransport(6)], 442),
        ("IPv6 relay", Method::ALLOCATE, vec![udp.clone(), RequestedAddressFamily(Family::V6)], 440),
        ("even port", Method::ALLOCATE, vec![udp.clone(), Attribute::EvenPort(true)], 508),
        ("unknown", Method::ALLOCATE, vec![udp, Attribute::Unknown(AttributeType(0x7777), b"?")], 420),
        ("no allocation", Method::REFRESH, vec![], 437),
        ("no peer", Method::CREATE_PERMISSION, vec![], 400),
        ("IPv6 peer", Method::CREATE_PERMISSION, vec![XorPeerAddress(socket("[2001:db8::1]:1"))], 443),
        ("no channel", Method::CHANNEL_BIND, vec![XorPeerAddress(socket("198.51.100.1:1"))], 400),
        (
            "bad channel",
            Method::CHANNEL_BIND,
            vec![Attribute::ChannelNumber(0x5000), XorPeerAddress(socket("198.51.100.1:1"))],
            400,
        ),
        ("unknown method", Method(0x0aa), vec![], 400),
    ];
    for (name, method, attributes, want) in cases {
        let mut bench = Bench::new(config());
        let mut hand = raw(&mut bench, "bob", "hunter2");
        if !matches!(method, Method::ALLOCATE | Method::REFRESH) {
            hand.ask(&mut bench, Method::ALLOCATE, &[RequestedTransport(17)]).unwrap();
        }
        assert_eq!(hand.ask(&mut bench, method, &attributes), Err(want), "case: {name}");
    }
}

#[test]
fn an_even_port_is_found_by_trying() {
    let mut bench = Bench::new(config());
    let mut hand = raw(&mut bench, "bob", "hunter2");
    for _ in 0..2 {
        hand.ask(&mut bench, Method::ALLOCATE, &[Attribute::RequestedTransport(17), Attribute::EvenPort(false)])
            .unwrap();
        let relayed = bench.relay.allocations(bench.now)[0].relayed.unwrap();
        assert!(relayed.port().is_multiple_of(2), "{relayed}");
        assert_eq!(bench.open_relays(), 1);
        hand.ask(&mut bench, Method::REFRESH, &[Attribute::Lifetime(Duration::ZERO)]).unwrap();
    }
}

#[test]
fn another_user_on_the_same_five_tuple_gets_441_and_a_second_allocation_437() {
    let mut bench = Bench::new(config());
    let mut bob = raw(&mut bench, "bob", "hunter2");
    bob.ask(&mut bench, Method::ALLOCATE, &[Attribute::RequestedTransport(17)]).unwrap();
    assert_eq!(bob.ask(&mut bench, Method::ALLOCATE, &[Attribute::RequestedTransport(17)]), Err(437));
    let alice = rest(60);
    let mut other = raw(&mut bench, &alice.username, alice.password.expose());
    assert_eq!(other.ask(&mut bench, Method::REFRESH, &[]), Err(441));
}

#[test]
fn a_channel_and_its_peer_belong_together() {
    let (one, two) = (socket("198.51.100.1:1"), socket("198.51.100.1:2"));
    let mut bench = Bench::new(config());
    let mut hand = raw(&mut bench, "bob", "hunter2");
    hand.ask(&mut bench, Method::ALLOCATE, &[Attribute::RequestedTransport(17)]).unwrap();
    let cases = [
        ("first", 0x4000, one, Ok(())),
        ("renewed", 0x4000, one, Ok(())),
        ("number taken", 0x4000, two, Err(400)),
        ("peer taken", 0x4001, one, Err(400)),
        ("second", 0x4001, two, Ok(())),
    ];
    for (name, number, peer, want) in cases {
        let list = [Attribute::ChannelNumber(number), Attribute::XorPeerAddress(peer)];
        assert_eq!(hand.ask(&mut bench, Method::CHANNEL_BIND, &list), want, "case: {name}");
    }
}

#[test]
fn a_repeated_allocate_gets_the_same_answer_and_no_second_relay() {
    let mut bench = Bench::new(config());
    let mut hand = raw(&mut bench, "bob", "hunter2");
    hand.ask(&mut bench, Method::ALLOCATE, &[Attribute::RequestedTransport(17)]).unwrap();
    let (request, answer) = (hand.last_request.clone(), hand.last_answer.clone());
    assert_eq!(exchange(&mut bench, &request), answer);
    assert_eq!(bench.open_relays(), 1);
}

#[test]
fn a_binding_request_is_answered_with_the_senders_address() {
    let mut bench = Bench::new(config());
    let id = TransactionId::new([3; 12]);
    let request = ice::stun::Builder::new(Class::Request, Method::BINDING, id).fingerprint().build();
    let answer = exchange(&mut bench, &request);
    let message = Message::parse(&answer).unwrap();
    assert_eq!((message.class(), message.transaction_id()), (Class::Success, id));
    assert_eq!(message.xor_mapped_address(), Some(bench::raw_address()));
    assert_eq!(message.fingerprint(), ice::stun::Fingerprint::Valid);
}

#[test]
fn a_connection_that_does_not_speak_turn_is_closed() {
    let mut bench = Bench::new(config());
    let me = bench.allocate(ServerTransport::Tcp, rest(60));
    let Output::CloseStream(_) = bench.raw_stream(me, b"\xffGET / HTTP/1.1\r\n") else { panic!("not closed") };
    assert_eq!(bench.relay.allocations(bench.now), []);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let mut bench = Bench::new(config());
        let me = bench.allocate(ServerTransport::Udp, rest(60));
        bench.with(me, |allocation, now| allocation.bind(now, socket("198.51.100.20:9000")));
        bench.run(Duration::from_mins(30));
        bench.log
    };
    assert_eq!(run(), run());
}

#[test]
fn no_password_is_in_the_debug_output() {
    let mut bench = Bench::new(config());
    bench.allocate(ServerTransport::Udp, rest(60));
    let text = format!("{:?}", bench.relay);
    for secret in ["hunter2", "edge-lab-secret", rest(60).password.expose()] {
        assert!(!text.contains(secret), "{secret} is printed");
    }
    let key = Key::long_term(b"bob", REALM.as_bytes(), b"hunter2", PasswordAlgorithm::Md5);
    assert_eq!(format!("{key:?}"), "Key(***)");
}

proptest! {
    #[test]
    fn no_bytes_make_the_relay_panic(
        noise in prop::collection::vec((0..4_u8, prop::collection::vec(any::<u8>(), 0..150)), 0..30),
        cookie in any::<bool>(),
    ) {
        let mut bench = Bench::new(config());
        let udp = bench.allocate(ServerTransport::Udp, rest(60));
        let tcp = bench.allocate(ServerTransport::Tcp, rest(60));
        let relayed = bench.relayed(udp);
        for (kind, mut bytes) in noise {
            if cookie && bytes.len() >= 20 {
                bytes.truncate(bytes.len() / 4 * 4);
                bytes[0] &= 1;
                let length = u16::try_from(bytes.len() - 20).unwrap().to_be_bytes();
                bytes[2..4].copy_from_slice(&length);
                bytes[4..8].copy_from_slice(&0x2112_A442_u32.to_be_bytes());
            }
            match kind {
                0 => bench.raw_datagram(udp, &bytes),
                1 => drop(bench.raw_stream(tcp, &bytes)),
                2 => bench.send_to_relay(socket("198.51.100.20:9000"), relayed, &bytes),
                _ => bench.run(Duration::from_secs(u64::try_from(bytes.len()).unwrap())),
            }
        }
        let start = epoch();
        prop_assert!(bench.now >= start);
    }
}
