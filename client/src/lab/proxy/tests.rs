//! Whole exchanges in virtual time: the phones here are scripts of messages.

use std::collections::BTreeMap;
use std::time::Duration;

use sip::digest::{Algorithm, Session, challenges};
use sip::message::{Method, Response};

use super::*;
use crate::api::Secret;
use crate::core::provision::{CredentialsRequest, Location, mras_request, parse_mras_response, parse_provisioning};
use crate::lab::provisioning::Delivery;

pub(in crate::lab) fn epoch() -> Instant {
    use std::sync::OnceLock;
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "virtual time needs one instant to start from")]
    fn first() -> Instant {
        Instant::now()
    }
    *EPOCH.get_or_init(first)
}

const MRAS_URI: &str = "sip:MRASLoc.lab.test@lab.test;gruu;opaque=srvr:MRAS:1";

/// The other end of a socket or stream of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Udp(SocketAddr),
    Stream(u64),
}

struct World {
    proxy: Proxy,
    now: Instant,
    inbox: BTreeMap<Peer, Vec<Vec<u8>>>,
    closed: Vec<u64>,
    number: u32,
}

fn udp(port: u16) -> Peer {
    Peer::Udp(SocketAddr::from(([127, 0, 0, 1], port)))
}

impl World {
    fn new() -> Self {
        let users = ["alice", "bob"].into_iter().map(|user| (user.to_owned(), Secret::new(format!("{user}-secret"))));
        let relay = mras::RelayEntry {
            location: Location::Internet,
            host: "127.0.0.1".to_owned(),
            udp_port: Some(3478),
            tcp_port: Some(3478),
        };
        let config = Config {
            registrar: registrar::Config::new("lab.test", users.collect()),
            provisioning: provisioning::Config {
                mras_uri: Some(MRAS_URI.to_owned()),
                ..provisioning::Config::default()
            },
            mras: mras::Config { secret: Secret::new("s".to_owned()), minutes: 480, realm: None, relays: vec![relay] },
            challenge_always: false,
            clock: WallClock { at: epoch(), unix_s: 1_700_000_000 },
        };
        let mut proxy = Proxy::new(config, [1; 32]);
        let local = "127.0.0.1:5060".parse().unwrap();
        proxy.handle_input(epoch(), Input::SocketOpened { socket: SocketId(0), local });
        Self { proxy, now: epoch(), inbox: BTreeMap::new(), closed: Vec::new(), number: 0 }
    }

    fn stream(&mut self, id: u64, tls: bool) -> Peer {
        let local = if tls { "127.0.0.1:5061" } else { "127.0.0.1:5060" }.parse().unwrap();
        let remote = SocketAddr::from(([127, 0, 0, 1], 40_000 + u16::try_from(id).unwrap()));
        self.proxy.handle_input(self.now, Input::StreamOpened { stream: StreamId(id), local, remote, tls });
        Peer::Stream(id)
    }

    fn send(&mut self, peer: Peer, bytes: &[u8]) {
        let input = match peer {
            Peer::Udp(from) => Input::Datagram { socket: SocketId(0), from, bytes },
            Peer::Stream(id) => Input::Stream { stream: StreamId(id), bytes },
        };
        self.proxy.handle_input(self.now, input);
        self.drain();
    }

    fn drain(&mut self) -> Option<Instant> {
        loop {
            match self.proxy.poll_output() {
                Output::Transmit { to, bytes, .. } => self.inbox.entry(Peer::Udp(to)).or_default().push(bytes),
                Output::StreamSend { stream, bytes } => {
                    self.inbox.entry(Peer::Stream(stream.0)).or_default().push(bytes);
                }
                Output::CloseStream { stream } => self.closed.push(stream.0),
                Output::Timeout(at) => return at,
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(at) = self.drain().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.proxy.handle_input(self.now, Input::Timeout);
        }
        self.now = until;
    }

    fn take(&mut self, peer: Peer) -> Vec<Message> {
        let bytes = self.inbox.remove(&peer).unwrap_or_default();
        bytes.iter().map(|bytes| parse_message(bytes).unwrap()).collect()
    }

    fn responses(&mut self, peer: Peer) -> Vec<Response> {
        let keep = |message| match message {
            Message::Response(response) => Some(response),
            Message::Request(_) => None,
        };
        self.take(peer).into_iter().filter_map(keep).collect()
    }

    fn statuses(&mut self, peer: Peer) -> Vec<u16> {
        self.responses(peer).iter().map(|response| response.status).collect()
    }

    /// The one request that is waiting.
    fn request(&mut self, peer: Peer) -> Request {
        let mut messages = self.take(peer);
        assert_eq!(messages.len(), 1, "{messages:?}");
        match messages.remove(0) {
            Message::Request(request) => request,
            Message::Response(response) => panic!("{response:?}"),
        }
    }

    /// A new request of `user` over `peer`; each has a Call-ID and branch of its own.
    fn compose(&mut self, peer: Peer, method: &str, uri: &str, user: &str) -> Request {
        self.number += 1;
        let n = self.number;
        let method: Method = method.parse().unwrap();
        let mut request = Request::new(method.clone(), uri.parse().unwrap());
        let transport = match peer {
            Peer::Udp(_) => "UDP",
            Peer::Stream(_) => "TLS",
        };
        request.headers.push("Via", format!("SIP/2.0/{transport} 10.0.0.5:5060;branch=z9hG4bK{n};rport"));
        request.headers.push("Max-Forwards", "70");
        request.headers.push("From", format!("<sip:{user}@lab.test>;tag=f{n}"));
        request.headers.push("To", format!("<{uri}>"));
        request.headers.push("Call-ID", format!("call-{n}"));
        request.headers.push("CSeq", format!("1 {method}"));
        request.headers.push("Contact", format!("<{}>", contact(peer, user)));
        request
    }

    /// Registers with digest; the number of challenges seen is asserted.
    fn register(&mut self, peer: Peer, user: &str) {
        let mut register = self.compose(peer, "REGISTER", "sip:lab.test", user);
        register.headers.set("To", format!("<sip:{user}@lab.test>"));
        self.send(peer, &register.to_bytes());
        let challenge = self.responses(peer).remove(0);
        answer(&mut register, &challenge, user, &format!("{user}-secret"), 0);
        self.send(peer, &register.to_bytes());
        assert_eq!(self.statuses(peer), [200]);
    }
}

fn contact(peer: Peer, user: &str) -> String {
    match peer {
        Peer::Udp(address) => format!("sip:{user}@{address}"),
        Peer::Stream(id) => format!("sip:{user}@10.0.0.5:{};transport=tls", 40_000 + id),
    }
}

/// Adds credentials for one of the challenges, with a new branch and CSeq.
fn answer(request: &mut Request, challenge: &Response, user: &str, password: &str, which: usize) {
    let (asks, answers) = match challenge.status {
        401 => ("WWW-Authenticate", "Authorization"),
        407 => ("Proxy-Authenticate", "Proxy-Authorization"),
        other => panic!("status {other} is no challenge"),
    };
    let mut only = challenge.headers.clone();
    let value = challenge.headers.get_all(asks).nth(which).unwrap().to_owned();
    only.set(asks, value);
    let offered = challenges(&only, asks).remove(0);
    let mut session = Session::with_cnonce(offered, user, sip::digest::Secret::new(password), "c");
    let value = session.authorize(&request.method, &request.uri.to_string(), &request.body).to_string();
    request.headers.set(answers, value);
    again(request);
}

/// The same request as a new transaction.
fn again(request: &mut Request) {
    let cseq = request.headers.cseq().unwrap();
    request.headers.set("CSeq", format!("{} {}", cseq.number + 1, cseq.method));
    let mut via = request.headers.via_top().unwrap();
    let branch = format!("{}-{}", via.branch().unwrap(), cseq.number + 1);
    via.params.set("branch", branch);
    request.headers.replace_first_value("Via", &via.to_string());
}

/// A response of a phone, with its tag and contact.
fn reply(request: &Request, status: u16, peer: Peer, user: &str, tag: &str) -> Vec<u8> {
    let mut response = request.response(status, "");
    let to = request.headers.to().unwrap();
    if to.tag().is_none() {
        response.headers.set("To", to.with_tag(tag).to_string());
    }
    for route in request.headers.get_all("Record-Route") {
        response.headers.push("Record-Route", route);
    }
    response.headers.push("Contact", format!("<{}>", contact(peer, user)));
    response.to_bytes()
}

#[test]
fn register_is_challenged_and_answered_with_both_algorithms() {
    for (which, algorithm) in [(0, Algorithm::Sha256), (1, Algorithm::Md5)] {
        let mut world = World::new();
        let alice = udp(6001);
        let mut register = world.compose(alice, "REGISTER", "sip:lab.test", "alice");
        register.headers.set("To", "<sip:alice@lab.test>");
        register.headers.push("Expires", "600");
        world.send(alice, &register.to_bytes());
        let refused = world.responses(alice).remove(0);
        assert_eq!(refused.status, 401);
        let offered: Vec<_> = refused.headers.get_all("WWW-Authenticate").map(str::to_owned).collect();
        assert!(offered[which].contains(&format!("algorithm={}", algorithm.as_str())), "{offered:?}");
        assert_eq!(refused.headers.via_top().unwrap().rport(), Some(6001), "the source is told");

        answer(&mut register, &refused, "alice", "alice-secret", which);
        world.send(alice, &register.to_bytes());
        let ok = world.responses(alice).remove(0);
        assert_eq!(ok.status, 200);
        assert_eq!(ok.headers.contacts().unwrap()[0].expires(), Some(600));
        assert_eq!(ok.headers.get("ms-user-logon-data"), Some("RemoteUser"));
        assert_eq!(world.proxy.registrations(world.now).len(), 1);

        world.send(alice, &register.to_bytes());
        assert_eq!(world.statuses(alice), [200], "a repetition is absorbed by the transaction");
        again(&mut register);
        world.send(alice, &register.to_bytes());
        let replayed = world.responses(alice).remove(0);
        assert!(replayed.headers.get("WWW-Authenticate").unwrap().contains("stale=true"), "nc was used before");

        world.advance(Duration::from_secs(599));
        assert_eq!(world.proxy.registrations(world.now)[0].expires_in, Duration::from_secs(1));
        world.advance(Duration::from_secs(1));
        assert!(world.proxy.registrations(world.now).is_empty(), "bindings end by themselves");
        assert_eq!(world.proxy.transactions(), (0, 0));
    }
}

/// Name, user, password, address of record, changed header fields, status.
type Refused<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [(&'a str, &'a str)], u16);

#[test]
fn registrations_that_must_not_succeed_do_not() {
    let cases: [Refused<'_>; 6] = [
        ("wrong password", "alice", "bob-secret", "alice", &[], 401),
        ("unknown user", "carol", "carol-secret", "carol", &[], 401),
        ("somebody else's address", "alice", "alice-secret", "bob", &[], 403),
        ("too short", "alice", "alice-secret", "alice", &[("Expires", "5")], 423),
        ("star without Expires 0", "alice", "alice-secret", "alice", &[("Contact", "*")], 400),
        ("nothing wrong", "alice", "alice-secret", "alice", &[], 200),
    ];
    for (name, user, password, to, fields, want) in cases {
        let mut world = World::new();
        let peer = udp(6001);
        let mut register = world.compose(peer, "REGISTER", "sip:lab.test", user);
        register.headers.set("To", format!("<sip:{to}@lab.test>"));
        for (name, value) in fields {
            register.headers.set(name, *value);
        }
        world.send(peer, &register.to_bytes());
        let challenge = world.responses(peer).remove(0);
        answer(&mut register, &challenge, user, password, 0);
        world.send(peer, &register.to_bytes());
        assert_eq!(world.statuses(peer), [want], "case: {name}");
        assert_eq!(world.proxy.registrations(world.now).len(), usize::from(want == 200), "case: {name}");
    }
}

#[test]
fn several_bindings_stand_side_by_side_and_are_removed_one_by_one_or_all() {
    let mut world = World::new();
    let (one, two) = (udp(6001), world.stream(1, true));
    world.register(one, "alice");
    world.register(two, "alice");
    assert_eq!(world.proxy.registrations(world.now).len(), 2);
    for (fields, left) in [([("Expires", "0"), ("X", "")], 1), ([("Expires", "0"), ("Contact", "*")], 0)] {
        let mut register = world.compose(one, "REGISTER", "sip:lab.test", "alice");
        register.headers.set("To", "<sip:alice@lab.test>");
        for (name, value) in fields {
            register.headers.set(name, value);
        }
        world.send(one, &register.to_bytes());
        let challenge = world.responses(one).remove(0);
        answer(&mut register, &challenge, "alice", "alice-secret", 0);
        world.send(one, &register.to_bytes());
        assert_eq!(world.statuses(one), [200]);
        assert_eq!(world.proxy.registrations(world.now).len(), left);
    }
}

#[test]
fn keepalives_are_answered() {
    let mut world = World::new();
    let Peer::Udp(address) = udp(6001) else { unreachable!() };
    let id = stun::TransactionId::new([5; 12]);
    let ping = stun::Builder::new(stun::Class::Request, stun::Method::BINDING, id).build();
    world.send(udp(6001), &ping);
    let answer = world.inbox.remove(&udp(6001)).unwrap().remove(0);
    assert_eq!(stun::Message::parse(&answer).unwrap().xor_mapped_address(), Some(address));
    world.send(udp(6001), b"\r\n\r\n");
    assert!(world.inbox.is_empty(), "blank lines need no answer on UDP");
    let stream = world.stream(1, false);
    world.send(stream, b"\r\n\r\n");
    assert_eq!(world.inbox.remove(&stream).unwrap(), [b"\r\n"]);
}

#[test]
fn the_provisioning_query_is_answered_in_each_of_the_three_ways() {
    for delivery in [Delivery::Piggyback, Delivery::Notify, Delivery::BeNotify] {
        let mut world = World::new();
        world.proxy.provisioning_mut().delivery = delivery;
        let alice = world.stream(1, true);
        let mut early = world.compose(alice, "SUBSCRIBE", "sip:alice@lab.test", "alice");
        early.headers.push("Event", "vnd-microsoft-provisioning-v2");
        early.headers.push("Supported", "ms-piggyback-first-notify");
        early.headers.push("Proxy-Require", "ms-benotify");
        world.send(alice, &early.to_bytes());
        assert_eq!(world.statuses(alice), [407], "not without a password");
        world.register(alice, "alice");
        again(&mut early);
        world.send(alice, &early.to_bytes());
        let mut messages = world.take(alice);
        let Message::Response(ok) = messages.remove(0) else { panic!("the response comes first") };
        assert_eq!(ok.status, 200);
        let document = match (delivery, messages.pop()) {
            (Delivery::Piggyback, None) => ok.body,
            (Delivery::Notify, Some(Message::Request(notify))) if notify.method == Method::Notify => {
                assert_eq!(notify.headers.to().unwrap().tag(), early.headers.from().unwrap().tag());
                assert_eq!(notify.headers.from().unwrap().tag(), ok.headers.to().unwrap().tag());
                world.send(alice, &notify.response(200, "").to_bytes());
                notify.body
            }
            (Delivery::BeNotify, Some(Message::Request(notify))) if notify.method == Method::BeNotify => notify.body,
            (delivery, other) => panic!("{delivery:?}: {other:?}"),
        };
        let read = parse_provisioning(std::str::from_utf8(&document).unwrap()).unwrap();
        assert_eq!(read.mras_uri.as_deref(), Some(MRAS_URI), "{delivery:?}");
        world.advance(Duration::from_secs(64));
        assert_eq!(world.proxy.transactions(), (0, 0), "{delivery:?}");
    }
}

#[test]
fn service_gives_credentials_to_whoever_is_registered() {
    let mut world = World::new();
    let alice = world.stream(1, true);
    world.register(alice, "alice");
    world.advance(Duration::from_secs(100));
    let mut service = world.compose(alice, "SERVICE", MRAS_URI, "alice");
    let (identity, location) = ("sip:alice@lab.test", Location::Internet);
    let wanted = CredentialsRequest { id: "7", version: "1.0", identity, mras_uri: MRAS_URI, location, minutes: 480 };
    service.set_body(crate::core::provision::MRAS_TYPE, mras_request(&wanted).unwrap());
    world.send(alice, &service.to_bytes());
    let ok = world.responses(alice).remove(0);
    assert_eq!(ok.status, 200);
    let credentials = parse_mras_response(std::str::from_utf8(&ok.body).unwrap(), "7").unwrap();
    assert_eq!(credentials.username, format!("{}:alice", 1_700_000_100 + 480 * 60));
    world.proxy.mras_mut().set_fault(Some(mras::Fault::Status(503)));
    again(&mut service);
    world.send(alice, &service.to_bytes());
    assert_eq!(world.statuses(alice), [503]);
}

/// Two phones of bob, one on UDP and one on TLS, and alice on UDP, all registered; her INVITE on its way.
fn ringing() -> (World, Request, [Peer; 3], [Request; 2]) {
    let mut world = World::new();
    let peers = [udp(6001), udp(6002), world.stream(1, true)];
    world.register(peers[0], "alice");
    world.register(peers[1], "bob");
    world.register(peers[2], "bob");
    let invite = world.compose(peers[0], "INVITE", "sip:bob@lab.test", "alice");
    world.send(peers[0], &invite.to_bytes());
    assert_eq!(world.statuses(peers[0]), [100]);
    let forks = [world.request(peers[1]), world.request(peers[2])];
    (world, invite, peers, forks)
}

#[test]
fn an_invite_is_forked_and_the_phone_that_answers_first_gets_the_call() {
    let (mut world, invite, [alice, slow, fast], [to_slow, to_fast]) = ringing();
    assert_eq!(to_slow.uri.to_string(), contact(slow, "bob"));
    assert_eq!(to_fast.uri.to_string(), contact(fast, "bob"));
    assert_eq!(to_fast.headers.max_forwards().unwrap(), Some(69));
    assert_eq!(to_fast.headers.vias().unwrap().len(), 2);
    assert_ne!(to_slow.headers.via_top().unwrap().branch(), to_fast.headers.via_top().unwrap().branch());
    let routes = to_fast.headers.record_routes().unwrap();
    let transports: Vec<_> = routes.iter().map(|route| route.uri.transport().unwrap()).collect();
    assert_eq!(transports, ["tls", "udp"], "the side of the callee on top");

    world.send(slow, &reply(&to_slow, 183, slow, "bob", "s"));
    world.send(fast, &reply(&to_fast, 183, fast, "bob", "q"));
    let early = world.responses(alice);
    let tags: Vec<_> = early.iter().map(|r| r.headers.to().unwrap().tag().unwrap().to_owned()).collect();
    assert_eq!(tags, ["s", "q"], "both early dialogs are carried");
    assert!(early.iter().all(|response| response.headers.vias().unwrap().len() == 1));

    world.send(fast, &reply(&to_fast, 200, fast, "bob", "q"));
    let ok = world.responses(alice).remove(0);
    assert_eq!(ok.status, 200);
    let cancel = world.request(slow);
    assert_eq!(cancel.method, Method::Cancel);
    assert_eq!(cancel.headers.via_top().unwrap().branch(), to_slow.headers.via_top().unwrap().branch());
    assert!(cancel.headers.get("Reason").unwrap().contains("cause=200"));
    world.send(slow, &cancel.response(200, "").to_bytes());
    world.send(slow, &reply(&to_slow, 487, slow, "bob", "s"));
    assert_eq!(world.request(slow).method, Method::Ack, "the refusal is acknowledged here");
    assert!(world.take(alice).is_empty(), "and does not reach the caller");

    // ACK, then BYE from each side, along the route set.
    let route_set: Vec<String> = ok.headers.values("Record-Route").map(str::to_owned).collect();
    let in_dialog = |method: &str, ok: &Response, number: u32| {
        let mut request = Request::new(method.parse().unwrap(), ok.headers.contacts().unwrap()[0].uri.clone());
        request.headers.push("Via", format!("SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKd{number};rport"));
        for route in route_set.iter().rev() {
            request.headers.push("Route", route.clone());
        }
        for name in ["From", "To", "Call-ID"] {
            request.headers.push(name, ok.headers.get(name).unwrap());
        }
        request.headers.push("CSeq", format!("{number} {method}"));
        request
    };
    world.send(alice, &in_dialog("ACK", &ok, 1).to_bytes());
    let ack = world.request(fast);
    assert_eq!((ack.method.clone(), ack.headers.contains("Route")), (Method::Ack, false));
    world.send(alice, &in_dialog("BYE", &ok, 2).to_bytes());
    let bye = world.request(fast);
    assert_eq!(bye.uri.to_string(), contact(fast, "bob"));
    world.send(fast, &bye.response(200, "").to_bytes());
    assert_eq!(world.statuses(alice), [200]);

    // The callee's route set is the Record-Route in its order.
    let mut bye = Request::new(Method::Bye, contact(alice, "alice").parse().unwrap());
    bye.headers.push("Via", "SIP/2.0/TLS 10.0.0.5:40001;branch=z9hG4bKcallee;rport");
    for route in to_fast.headers.values("Record-Route") {
        bye.headers.push("Route", route);
    }
    bye.headers.push("From", ok.headers.get("To").unwrap());
    bye.headers.push("To", ok.headers.get("From").unwrap());
    bye.headers.push("Call-ID", invite.headers.call_id().unwrap());
    bye.headers.push("CSeq", "1 BYE");
    world.send(fast, &bye.to_bytes());
    assert_eq!(world.request(alice).method, Method::Bye);
    world.send(alice, &reply(&bye, 200, alice, "alice", "x"));

    world.advance(Duration::from_secs(64));
    assert_eq!(world.proxy.transactions(), (0, 0), "nothing is left behind");
    assert!(world.proxy.contexts.is_empty() && world.proxy.branches.is_empty());
}

#[test]
fn a_repeated_200_is_passed_on_each_time() {
    let (mut world, _, [alice, slow, _], [to_slow, _]) = ringing();
    for _ in 0..3 {
        world.send(slow, &reply(&to_slow, 200, slow, "bob", "s"));
        assert_eq!(world.statuses(alice), [200]);
    }
}

#[test]
fn cancel_of_the_caller_reaches_every_phone_that_rings() {
    let (mut world, invite, [alice, rings, mute], [to_rings, _]) = ringing();
    world.send(rings, &reply(&to_rings, 180, rings, "bob", "s"));
    assert_eq!(world.statuses(alice), [180]);
    let mut cancel = Request::new(Method::Cancel, invite.uri.clone());
    for name in ["Via", "From", "To", "Call-ID"] {
        cancel.headers.push(name, invite.headers.get(name).unwrap());
    }
    cancel.headers.push("CSeq", "1 CANCEL");
    world.send(alice, &cancel.to_bytes());
    assert_eq!(world.statuses(alice), [200]);
    assert_eq!(world.request(rings).method, Method::Cancel);
    assert!(world.take(mute).is_empty(), "no CANCEL before a provisional response");
    world.send(rings, &reply(&to_rings, 487, rings, "bob", "s"));
    assert_eq!(world.statuses(alice), [487]);
    again(&mut cancel);
    world.send(alice, &cancel.to_bytes());
    assert_eq!(world.statuses(alice), [481], "there is nothing more to cancel under that branch");
}

#[test]
fn refusals_are_weighed_when_all_phones_have_answered() {
    let (mut world, _, [alice, one, two], [to_one, to_two]) = ringing();
    world.send(one, &reply(&to_one, 486, one, "bob", "s"));
    assert!(world.take(alice).is_empty(), "the other phone may still answer");
    world.send(two, &reply(&to_two, 603, two, "bob", "q"));
    assert_eq!(world.statuses(alice), [603]);

    let (mut world, _, [alice, _, _], _) = ringing();
    world.advance(Duration::from_secs(33));
    assert_eq!(world.statuses(alice).first(), Some(&408), "nobody there");
}

#[test]
fn users_that_are_not_there_are_told_from_users_that_do_not_exist() {
    let mut world = World::new();
    let alice = udp(6001);
    world.register(alice, "alice");
    for (uri, want) in [("sip:bob@lab.test", 480), ("sip:nobody@lab.test", 404), ("sip:bob@other.test", 404)] {
        let invite = world.compose(alice, "INVITE", uri, "alice");
        world.send(alice, &invite.to_bytes());
        assert_eq!(world.statuses(alice), [100, want], "case: {uri}");
    }
    let stranger = udp(6009);
    let mut invite = world.compose(stranger, "INVITE", "sip:alice@lab.test", "bob");
    world.send(stranger, &invite.to_bytes());
    let challenge = world.responses(stranger).remove(1);
    assert_eq!(challenge.status, 407);
    answer(&mut invite, &challenge, "bob", "bob-secret", 1);
    world.send(stranger, &invite.to_bytes());
    assert_eq!(world.statuses(stranger), [100]);
    let forwarded = world.take(alice).pop().unwrap();
    assert!(!forwarded.headers().contains("Proxy-Authorization"), "the credentials stay here");
}

#[test]
fn requests_that_cannot_be_served_are_refused_with_their_status() {
    let cases: [(&str, &str, (&str, &str), u16); 5] = [
        ("hops used up", "sip:bob@lab.test", ("Max-Forwards", "0"), 483),
        ("unknown Proxy-Require", "sip:bob@lab.test", ("Proxy-Require", "gps"), 420),
        ("another scheme", "tel:+4912345", ("X", "y"), 416),
        ("another's route", "sip:bob@lab.test", ("Route", "<sip:192.0.2.1;lr>"), 403),
        ("a forged flow", "sip:bob@lab.test", ("Route", "<sip:AAAAAAAAAAAAAAAAfDE@127.0.0.1:5060;lr>"), 430),
    ];
    for (name, uri, (field, value), want) in cases {
        let mut world = World::new();
        let alice = udp(6001);
        world.register(alice, "alice");
        let mut request = world.compose(alice, "OPTIONS", uri, "alice");
        request.headers.set(field, value);
        world.send(alice, &request.to_bytes());
        assert_eq!(world.statuses(alice), [want], "case: {name}");
    }
    let mut world = World::new();
    world.send(udp(6001), b"OPTIONS sip:lab.test SIP/7.0\r\nVia: SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:lab.test>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n");
    assert_eq!(world.statuses(udp(6001)), [505]);
}

#[test]
fn a_closed_stream_takes_its_bindings_along_and_a_new_one_continues_the_dialog() {
    let (mut world, _, [alice, _, bob], [_, to_bob]) = ringing();
    world.send(bob, &reply(&to_bob, 200, bob, "bob", "q"));
    let ok = world.responses(alice).remove(0);
    world.proxy.handle_input(world.now, Input::StreamClosed { stream: StreamId(1) });
    world.drain();
    assert_eq!(world.proxy.registrations(world.now).iter().filter(|r| r.user == "bob").count(), 1);
    let mut info = world.compose(alice, "INFO", &contact(bob, "bob"), "alice");
    info.headers.set("To", ok.headers.get("To").unwrap());
    for route in ok.headers.values("Record-Route").collect::<Vec<_>>().into_iter().rev() {
        info.headers.push("Route", route);
    }
    world.send(alice, &info.to_bytes());
    assert_eq!(world.statuses(alice), [430]);
    let back = world.stream(2, true);
    let mut register = world.compose(back, "REGISTER", "sip:lab.test", "bob");
    register.headers.set("To", "<sip:bob@lab.test>");
    register.headers.set("Contact", format!("<{}>", contact(bob, "bob")));
    world.send(back, &register.to_bytes());
    let challenge = world.responses(back).remove(0);
    answer(&mut register, &challenge, "bob", "bob-secret", 0);
    world.send(back, &register.to_bytes());
    assert_eq!(world.statuses(back), [200]);
    again(&mut info);
    world.send(alice, &info.to_bytes());
    assert_eq!(world.request(back).method, Method::Info);
}

/// Every changed byte of a request and of a response, as datagram and on a stream: never a panic, and still in service.
#[test]
fn no_bytes_make_the_server_fall_over() {
    let (mut world, invite, [alice, slow, _], [to_slow, _]) = ringing();
    let answer = reply(&to_slow, 183, slow, "bob", "s");
    for whole in [invite.to_bytes(), answer, to_slow.to_bytes()] {
        for at in 0..whole.len() {
            for byte in [0, b'\n', b'"', b';', 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                world.send(slow, &damaged);
            }
            world.send(slow, &whole[..at]);
        }
        let stream = world.stream(9, false);
        for byte in whole {
            world.send(stream, &[byte]);
        }
        world.proxy.handle_input(world.now, Input::StreamClosed { stream: StreamId(9) });
    }
    world.advance(Duration::from_mins(5));
    world.inbox.clear();
    world.register(alice, "alice");
    assert_eq!(world.proxy.transactions().0, 0);
}

#[test]
fn faults_do_what_they_say() {
    let mut world = World::new();
    let alice = udp(6001);
    world.proxy.faults_mut().refuse.insert("REGISTER".to_owned(), 503);
    let register = world.compose(alice, "REGISTER", "sip:lab.test", "alice");
    world.send(alice, &register.to_bytes());
    assert_eq!(world.statuses(alice), [503]);
    world.proxy.faults_mut().silent_methods.insert("OPTIONS".to_owned());
    let options = world.compose(alice, "OPTIONS", "sip:lab.test", "alice");
    world.send(alice, &options.to_bytes());
    assert!(world.take(alice).is_empty());
    *world.proxy.faults_mut() = Faults { silent: true, ..Faults::default() };
    let register = world.compose(alice, "REGISTER", "sip:lab.test", "alice");
    world.send(alice, &register.to_bytes());
    assert!(world.take(alice).is_empty());
    let stream = world.stream(4, false);
    *world.proxy.faults_mut() = Faults::default();
    world.send(stream, b"INVITE sip:x SIP/2.0\r\nContent-Length: 9999999\r\n\r\n");
    assert_eq!(world.closed, [4], "a stream out of step is closed");
}
