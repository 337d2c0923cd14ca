//! Against a scripted server; the embedded relay of `client::lab` has the long conversations.

use super::*;
use crate::config::{RelayCredentials, Secret};
use crate::stun::{Integrity, Key, PasswordAlgorithm};

const REALM: &[u8] = b"edge.example.test";

fn server() -> SocketAddr {
    "192.0.2.7:3478".parse().unwrap()
}

fn relayed() -> SocketAddr {
    "192.0.2.7:50000".parse().unwrap()
}

fn mapped() -> SocketAddr {
    "198.51.100.1:40000".parse().unwrap()
}

fn credentials() -> RelayCredentials {
    RelayCredentials { username: "ann".to_owned(), password: Secret::new("secret") }
}

fn key() -> Key {
    Key::long_term(b"ann", REALM, b"secret", PasswordAlgorithm::Md5)
}

/// An allocation with a clock, and what it put out.
struct Rig {
    now: Instant,
    start: Instant,
    allocation: Allocation,
    sent: VecDeque<(u128, Vec<u8>)>,
    events: Vec<Event>,
    deadline: Option<Instant>,
}

impl Rig {
    fn new(transport: ServerTransport) -> Self {
        let start = crate::epoch();
        let config = Config::new(server(), transport, credentials());
        let allocation = Allocation::new(start, config, [7; 32]);
        let (sent, events) = (VecDeque::new(), Vec::new());
        let mut rig = Self { now: start, start, allocation, sent, events, deadline: None };
        rig.drain();
        rig
    }

    fn drain(&mut self) {
        loop {
            match self.allocation.poll_output() {
                Output::Transmit(bytes) => self.sent.push_back(((self.now - self.start).as_millis(), bytes)),
                Output::Event(event) => self.events.push(event),
                Output::Timeout(at) => {
                    self.deadline = at;
                    return;
                }
            }
        }
    }

    fn input(&mut self, bytes: &[u8]) {
        self.allocation.handle_input(self.now, Input::Packet(bytes));
        self.drain();
    }

    /// Lets time pass, waking the allocation when it wants.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.deadline.filter(|at| *at <= end) {
            assert!(at > self.now || !self.sent.is_empty(), "a wake-up without progress");
            self.now = at.max(self.now);
            self.allocation.handle_input(self.now, Input::Timeout);
            self.drain();
        }
        self.now = end;
    }

    /// The next request, which must be of this method; keepalives are skipped.
    fn request(&mut self, method: Method) -> Vec<u8> {
        loop {
            let (_, bytes) = self.sent.pop_front().expect("a request was sent");
            let message = Message::parse(&bytes).unwrap();
            if message.class() == Class::Request {
                assert_eq!(message.method(), method);
                return bytes;
            }
        }
    }

    fn answer(&mut self, request: &[u8], class: Class, attributes: &[Attribute<'_>], signed: bool) {
        let message = Message::parse(request).unwrap();
        let key = key();
        let mut builder = attributes.iter().fold(Builder::answer(class, &message), Builder::with);
        if signed {
            builder = builder.integrity(Integrity::Sha1, &key);
        }
        self.input(&builder.build());
    }

    fn challenge(&mut self, request: &[u8], code: u16, nonce: &[u8]) {
        let list = [Attribute::ErrorCode(code, ""), Attribute::Realm(REALM), Attribute::Nonce(nonce)];
        self.answer(request, Class::Error, &list, false);
    }

    fn grant(&mut self, lifetime_s: u64) {
        let request = self.request(Method::ALLOCATE);
        assert_eq!(Message::parse(&request).unwrap().verify(&key()), Ok(()));
        let list = [
            Attribute::XorRelayedAddress(relayed()),
            Attribute::XorMappedAddress(mapped()),
            Attribute::Lifetime(Duration::from_secs(lifetime_s)),
        ];
        self.answer(&request, Class::Success, &list, true);
    }

    fn allocated(transport: ServerTransport, lifetime_s: u64) -> Self {
        let mut rig = Self::new(transport);
        let first = rig.request(Method::ALLOCATE);
        rig.challenge(&first, 401, b"nonce1");
        rig.grant(lifetime_s);
        assert!(matches!(rig.events.pop(), Some(Event::Allocated { .. })));
        rig
    }

    fn cause(&self) -> &RelayCause {
        match self.events.last() {
            Some(Event::Failed(error) | Event::Lost(error)) => &error.cause,
            other => panic!("no failure but {other:?}"),
        }
    }
}

#[test]
fn an_allocation_answers_the_401_and_reports_both_addresses() {
    let mut rig = Rig::new(ServerTransport::Udp);
    let first = rig.request(Method::ALLOCATE);
    let message = Message::parse(&first).unwrap();
    assert_eq!((message.username(), message.integrity()), (None, None));
    rig.challenge(&first, 401, b"nonce1");
    rig.grant(600);
    let want = Event::Allocated {
        relayed: relayed(),
        mapped: mapped(),
        lifetime: Duration::from_mins(10),
        rtt: Duration::ZERO,
    };
    assert_eq!(rig.events, [want]);
    assert_eq!(rig.allocation.relayed(), Some(relayed()));
}

#[test]
fn a_silent_server_is_asked_seven_times_and_its_late_answer_still_joins() {
    let mut rig = Rig::new(ServerTransport::Udp);
    rig.run(Duration::from_mins(1));
    assert_eq!(rig.sent.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
    assert_eq!(rig.cause(), &RelayCause::Silent { waited: Duration::from_millis(39_500) });
    let request = rig.request(Method::ALLOCATE);
    rig.sent.clear();
    rig.challenge(&request, 401, b"nonce1");
    rig.grant(600);
    assert!(matches!(rig.events.last(), Some(Event::Allocated { .. })));
}

#[test]
fn error_codes_of_an_allocate_become_causes() {
    let cases = [
        (401, RelayCause::Unauthorized { user: "ann".to_owned() }),
        (403, RelayCause::Forbidden),
        (437, RelayCause::Mismatch),
        (440, RelayCause::FamilyNotSupported),
        (441, RelayCause::WrongCredentials),
        (442, RelayCause::TransportNotSupported),
        (486, RelayCause::QuotaReached),
        (508, RelayCause::NoCapacity),
        (500, RelayCause::Refused { code: 500, reason: "why".to_owned() }),
    ];
    for (code, want) in cases {
        let mut rig = Rig::new(ServerTransport::Udp);
        let first = rig.request(Method::ALLOCATE);
        rig.challenge(&first, 401, b"nonce1");
        let second = rig.request(Method::ALLOCATE);
        let list = [Attribute::ErrorCode(code, "why"), Attribute::Realm(REALM), Attribute::Nonce(b"nonce1")];
        rig.answer(&second, Class::Error, &list, false);
        assert_eq!(rig.cause(), &want, "case: {code}");
        assert_eq!(rig.cause().code(), Some(code));
        assert!(rig.allocation.is_closed() && rig.deadline.is_none(), "case: {code}");
    }
}

#[test]
fn a_stale_nonce_is_replaced_but_not_for_ever() {
    let mut rig = Rig::allocated(ServerTransport::Udp, 600);
    rig.allocation.permit(rig.now, "198.51.100.2".parse().unwrap());
    rig.drain();
    let request = rig.request(Method::CREATE_PERMISSION);
    rig.challenge(&request, 438, b"nonce2");
    let again = rig.request(Method::CREATE_PERMISSION);
    assert_eq!(Message::parse(&again).unwrap().nonce(), Some(b"nonce2".as_slice()));
    assert_eq!(Message::parse(&again).unwrap().verify(&key()), Ok(()));
    let mut request = again;
    for _ in 1..ROUNDS_MAX {
        rig.challenge(&request, 438, b"nonce3");
        request = rig.request(Method::CREATE_PERMISSION);
    }
    rig.challenge(&request, 438, b"nonce4");
    let Some(Event::PermissionFailed(_, error)) = rig.events.last() else { panic!("{:?}", rig.events) };
    assert_eq!(error.cause, RelayCause::AlwaysStale { rounds: ROUNDS_MAX });
}

#[test]
fn a_redirected_allocation_asks_the_other_server_and_stops_at_loops() {
    let other: SocketAddr = "192.0.2.8:3478".parse().unwrap();
    let mut rig = Rig::new(ServerTransport::Udp);
    let first = rig.request(Method::ALLOCATE);
    let redirect = |to| [Attribute::ErrorCode(300, "Try Alternate"), Attribute::AlternateServer(to)];
    rig.answer(&first, Class::Error, &redirect(other), false);
    assert_eq!(rig.events, [Event::Redirected { to: other }]);
    assert_eq!(rig.allocation.server(), other);
    let second = rig.request(Method::ALLOCATE);
    rig.answer(&second, Class::Error, &redirect(server()), false);
    assert_eq!(rig.cause(), &RelayCause::TooManyRedirects { to: server() });
}

#[test]
fn a_redirected_stream_waits_for_the_next_one() {
    let other: SocketAddr = "192.0.2.8:3478".parse().unwrap();
    let mut rig = Rig::new(ServerTransport::Tcp);
    let first = rig.request(Method::ALLOCATE);
    rig.answer(&first, Class::Error, &[Attribute::ErrorCode(300, ""), Attribute::AlternateServer(other)], false);
    assert!(rig.sent.is_empty());
    rig.allocation.handle_input(rig.now, Input::StreamClosed("closed"));
    rig.allocation.handle_input(rig.now, Input::StreamOpened);
    rig.drain();
    rig.request(Method::ALLOCATE);
    assert_eq!(rig.events, [Event::Redirected { to: other }]);
}

#[test]
fn refreshes_follow_the_granted_lifetime() {
    for (name, lifetime_s, want_s) in [("ten minutes", 600, 540), ("two minutes", 120, 60), ("short", 30, 15)] {
        let mut rig = Rig::allocated(ServerTransport::Tcp, lifetime_s);
        rig.run(Duration::from_secs(want_s - 1));
        assert!(rig.sent.is_empty(), "case: {name}");
        assert_eq!(rig.allocation.next_deadline().map(|(_, reason)| reason), Some(Reason::Refresh), "case: {name}");
        rig.run(Duration::from_secs(1));
        let request = rig.request(Method::REFRESH);
        rig.answer(&request, Class::Success, &[Attribute::Lifetime(Duration::from_secs(lifetime_s))], true);
        rig.run(Duration::from_secs(want_s));
        rig.request(Method::REFRESH);
    }
}

#[test]
fn an_unanswered_refresh_loses_the_allocation() {
    let mut rig = Rig::allocated(ServerTransport::Udp, 600);
    rig.run(Duration::from_mins(10));
    assert_eq!(rig.cause(), &RelayCause::Silent { waited: Duration::from_millis(39_500) });
    assert!(matches!(rig.events.last(), Some(Event::Lost(_))));
}

#[test]
fn a_lost_allocation_is_told_by_437_and_441_whatever_was_asked() {
    for (code, want) in [(437, RelayCause::Mismatch), (441, RelayCause::WrongCredentials)] {
        let mut rig = Rig::allocated(ServerTransport::Udp, 600);
        rig.allocation.permit(rig.now, "198.51.100.2".parse().unwrap());
        rig.drain();
        let request = rig.request(Method::CREATE_PERMISSION);
        rig.answer(&request, Class::Error, &[Attribute::ErrorCode(code, "")], true);
        assert!(matches!(rig.events.last(), Some(Event::Lost(_))), "case: {code}");
        assert_eq!(rig.cause(), &want);
    }
}

#[test]
fn a_server_that_changed_its_realm_is_answered_in_the_new_one() {
    let mut rig = Rig::allocated(ServerTransport::Tcp, 600);
    rig.run(Duration::from_mins(9));
    let refresh = rig.request(Method::REFRESH);
    let list = [Attribute::ErrorCode(401, ""), Attribute::Realm(b"other.example.test"), Attribute::Nonce(b"nonce9")];
    rig.answer(&refresh, Class::Error, &list, false);
    let again = rig.request(Method::REFRESH);
    let key = Key::long_term(b"ann", b"other.example.test", b"secret", PasswordAlgorithm::Md5);
    assert_eq!(Message::parse(&again).unwrap().verify(&key), Ok(()));
    assert_eq!(rig.events, [], "nothing is lost");
}

#[test]
fn an_allocation_that_is_not_renewed_serves_until_its_lifetime_is_over() {
    for code in [401, 403] {
        let mut rig = Rig::allocated(ServerTransport::Tcp, 600);
        rig.run(Duration::from_mins(9));
        let refresh = rig.request(Method::REFRESH);
        rig.challenge(&refresh, code, b"nonce1");
        let Some(Event::Ending(error)) = rig.events.pop() else { panic!("case {code}") };
        assert_eq!(error.cause.code(), Some(code));
        rig.run(Duration::from_secs(59));
        assert_eq!(rig.allocation.relayed(), Some(relayed()), "case {code}");
        assert!(rig.sent.is_empty(), "case {code}: it is not asked again");
        rig.run(Duration::from_secs(1));
        assert_eq!(rig.cause(), &RelayCause::Expired, "case {code}");
    }
}

#[test]
fn a_relay_of_the_other_family_is_asked_for_by_name() {
    let start = crate::epoch();
    for (family, want) in [(Family::V4, None), (Family::V6, Some(Family::V6))] {
        let config = Config { family, ..Config::new(server(), ServerTransport::Udp, credentials()) };
        let mut allocation = Allocation::new(start, config, [7; 32]);
        let Output::Transmit(bytes) = allocation.poll_output() else { panic!("an Allocate") };
        let message = Message::parse(&bytes).unwrap();
        let asked = message.attributes().find_map(|attribute| match attribute {
            Attribute::RequestedAddressFamily(family) => Some(family),
            _ => None,
        });
        assert_eq!(asked, want, "RFC 8656 §7.1");
    }
}

#[test]
fn data_goes_by_indication_until_the_channel_is_bound() {
    let peer: SocketAddr = "198.51.100.2:9000".parse().unwrap();
    let mut rig = Rig::allocated(ServerTransport::Udp, 600);
    let not_permitted = rig.allocation.send(rig.now, peer, b"early");
    assert_eq!(not_permitted, Err(SendError::NotPermitted(peer.ip())));
    rig.allocation.permit(rig.now, peer.ip());
    rig.drain();
    let request = rig.request(Method::CREATE_PERMISSION);
    rig.answer(&request, Class::Success, &[], true);
    assert_eq!(rig.events.pop(), Some(Event::PermissionReady(peer.ip())));
    rig.allocation.bind(rig.now, peer);
    rig.allocation.send(rig.now, peer, b"by indication").unwrap();
    rig.drain();
    let bind = rig.request(Method::CHANNEL_BIND);
    let (_, indication) = rig.sent.pop_front().unwrap();
    let message = Message::parse(&indication).unwrap();
    assert_eq!((message.method(), message.class()), (Method::SEND, Class::Indication));
    assert_eq!((message.xor_peer_address(), message.data()), (Some(peer), Some(b"by indication".as_slice())));
    rig.answer(&bind, Class::Success, &[], true);
    assert_eq!(rig.events.pop(), Some(Event::ChannelReady(peer)));
    rig.allocation.send(rig.now, peer, b"by channel").unwrap();
    rig.drain();
    assert_eq!(rig.sent.pop_front().unwrap().1, b"\x40\x00\x00\x0aby channel");
    rig.input(b"\x40\x00\x00\x04back");
    assert_eq!(rig.events.pop(), Some(Event::Data { peer, payload: b"back".to_vec() }));
}

#[test]
fn permissions_are_renewed_after_four_minutes_and_channels_after_nine() {
    let peer: SocketAddr = "198.51.100.2:9000".parse().unwrap();
    let mut rig = Rig::allocated(ServerTransport::Tcp, 3600);
    rig.allocation.bind(rig.now, peer);
    rig.drain();
    let bind = rig.request(Method::CHANNEL_BIND);
    rig.answer(&bind, Class::Success, &[], true);
    let mut methods = Vec::new();
    for _ in 0..60 {
        rig.run(Duration::from_secs(10));
        while let Some((at, bytes)) = rig.sent.pop_front() {
            methods.push((at / 1000, Message::parse(&bytes).unwrap().method()));
            rig.answer(&bytes, Class::Success, &[], true);
        }
    }
    let (permission, bind) = (Method::CREATE_PERMISSION, Method::CHANNEL_BIND);
    assert_eq!(methods, [(240, permission), (480, permission), (540, bind)]);
    assert_eq!(rig.events, [Event::PermissionReady(peer.ip()), Event::ChannelReady(peer)], "renewals are no news");
}

#[test]
fn wishes_before_the_allocation_are_kept() {
    let mut rig = Rig::new(ServerTransport::Udp);
    rig.allocation.permit(rig.now, "198.51.100.2".parse().unwrap());
    let first = rig.request(Method::ALLOCATE);
    rig.challenge(&first, 401, b"nonce1");
    rig.grant(600);
    rig.request(Method::CREATE_PERMISSION);
}

#[test]
fn freeing_asks_with_lifetime_zero_three_times_at_most() {
    let mut rig = Rig::allocated(ServerTransport::Udp, 600);
    rig.allocation.free(rig.now);
    rig.drain();
    let request = rig.sent.front().unwrap().1.clone();
    assert_eq!(Message::parse(&request).unwrap().lifetime(), Some(Duration::ZERO));
    rig.run(Duration::from_secs(10));
    assert_eq!(rig.sent.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 500, 1500]);
    assert_eq!(rig.events, [Event::Freed]);
    assert!(rig.allocation.is_closed() && rig.deadline.is_none());
}

#[test]
fn an_allocation_freed_while_it_is_being_made_is_taken_back() {
    let mut rig = Rig::new(ServerTransport::Udp);
    let first = rig.request(Method::ALLOCATE);
    rig.challenge(&first, 401, b"nonce1");
    rig.allocation.free(rig.now);
    rig.drain();
    rig.grant(600);
    assert_eq!(rig.events, []);
    let request = rig.request(Method::REFRESH);
    rig.answer(&request, Class::Success, &[Attribute::Lifetime(Duration::ZERO)], true);
    assert_eq!(rig.events, [Event::Freed]);
}

#[test]
fn a_forged_success_is_not_believed() {
    let mut rig = Rig::new(ServerTransport::Udp);
    let first = rig.request(Method::ALLOCATE);
    rig.challenge(&first, 401, b"nonce1");
    let request = rig.request(Method::ALLOCATE);
    let list = [Attribute::XorRelayedAddress(mapped()), Attribute::XorMappedAddress(mapped())];
    rig.answer(&request, Class::Success, &list, false);
    assert_eq!(rig.events, []);
    rig.sent.push_back((0, request));
    rig.grant(600);
    assert_eq!(rig.allocation.relayed(), Some(relayed()));
}

#[test]
fn an_idle_udp_allocation_keeps_its_nat_mapping_alive() {
    let mut rig = Rig::allocated(ServerTransport::Udp, 600);
    rig.run(Duration::from_secs(46));
    let sent: Vec<_> = rig.sent.iter().map(|(at, bytes)| (*at, Message::parse(bytes).unwrap().class())).collect();
    assert_eq!(sent, [(15_000, Class::Indication), (30_000, Class::Indication), (45_000, Class::Indication)]);
}

#[test]
fn a_stream_that_ends_or_does_not_speak_turn_loses_the_allocation() {
    let mut rig = Rig::allocated(ServerTransport::Tls, 600);
    rig.allocation.handle_input(rig.now, Input::StreamClosed("reset"));
    rig.drain();
    assert_eq!(rig.cause(), &RelayCause::StreamClosed("reset".to_owned()));
    let mut rig = Rig::new(ServerTransport::Tcp);
    rig.input(b"HTTP/1.1 400 Bad Request\r\n");
    assert_eq!(rig.cause(), &RelayCause::NotTurn);
}

#[test]
fn a_great_deal_of_data_may_arrive_at_once_on_a_stream() {
    let peer: SocketAddr = "198.51.100.2:9000".parse().unwrap();
    let mut rig = Rig::allocated(ServerTransport::Tcp, 600);
    rig.allocation.bind(rig.now, peer);
    rig.drain();
    let bind = rig.request(Method::CHANNEL_BIND);
    rig.answer(&bind, Class::Success, &[], true);
    rig.events.clear();
    let one = channel::encode(0x4000, &[7; 1001], true).unwrap();
    rig.input(&one.repeat(500));
    assert_eq!(rig.events.len(), 500);
}

#[test]
fn password_algorithms_are_echoed_and_lead_to_sha256() {
    let mut rig = Rig::new(ServerTransport::Udp);
    let first = rig.request(Method::ALLOCATE);
    let algorithms = vec![PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256];
    let list = [
        Attribute::ErrorCode(401, ""),
        Attribute::Realm(REALM),
        Attribute::Nonce(b"obMatJos2gAAAnonce"),
        Attribute::PasswordAlgorithms(algorithms.clone()),
    ];
    rig.answer(&first, Class::Error, &list, false);
    let second = rig.request(Method::ALLOCATE);
    let message = Message::parse(&second).unwrap();
    let key = Key::long_term(b"ann", REALM, b"secret", PasswordAlgorithm::Sha256);
    assert_eq!((message.integrity(), message.verify(&key)), (Some(Integrity::Sha256), Ok(())));
    assert_eq!(message.password_algorithms(), Some(algorithms));
}

#[test]
fn the_owner_can_tell_its_own_binding_answers_from_ours() {
    let mut rig = Rig::new(ServerTransport::Udp);
    let request = rig.request(Method::ALLOCATE);
    let answer = Builder::answer(Class::Error, &Message::parse(&request).unwrap()).build();
    assert!(rig.allocation.owns(&answer));
    let binding = Builder::new(Class::Success, Method::BINDING, TransactionId::new([9; 12])).build();
    assert!(!rig.allocation.owns(&binding));
    assert!(rig.allocation.owns(b"\x40\x00\x00\x04data"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_an_allocation_panic(
        noise in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), 0..20),
        is_stream in proptest::prelude::any::<bool>(), cookie in proptest::prelude::any::<bool>(),
    ) {
        let transport = if is_stream { ServerTransport::Tcp } else { ServerTransport::Udp };
        let mut rig = Rig::allocated(transport, 600);
        for mut bytes in noise {
            if cookie && bytes.len() >= 20 {
                bytes.truncate(bytes.len() / 4 * 4);
                bytes[0] &= 1;
                let length = u16::try_from(bytes.len() - 20).unwrap().to_be_bytes();
                bytes[2..4].copy_from_slice(&length);
                bytes[4..8].copy_from_slice(&crate::stun::message::MAGIC_COOKIE.to_be_bytes());
            }
            rig.input(&bytes);
        }
    }
}
