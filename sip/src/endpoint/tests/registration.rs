//! Registration against a mini registrar, and keeping the flow alive.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::harness::{ANSWER, OFFER, World, address, config, hop, incoming, ms};
use crate::digest::{Challenge, Credentials};
use crate::endpoint::Endpoint;
use crate::event::{Account, Config, Event, FlowId, Input, Register, Secret, Transport};
use crate::header::AuthValue;
use crate::message::{Message, Method, Request, Response};

/// What the mini registrar does besides checking the password.
#[derive(Debug, Clone, Default)]
struct Habits {
    granted: u32,
    min_expires: u32,
    /// Where it pretends to have seen the client.
    seen: Option<SocketAddr>,
    headers: Vec<(&'static str, &'static str)>,
    /// Fails this many requests first.
    failing: Vec<u16>,
    nonce: u32,
}

fn answer(habits: &mut Habits, request: &Request) -> Response {
    if let Some(status) = habits.failing.pop() {
        return request.response(status, "");
    }
    let credentials = request.headers.get("Authorization").and_then(|text| text.parse::<AuthValue>().ok());
    let credentials = credentials.and_then(|value| Credentials::parse(&value).ok());
    let good = credentials.as_ref().is_some_and(|c| c.verify(&Secret::new("secret"), &request.method, &request.body));
    let fresh = credentials.as_ref().is_some_and(|c| c.nonce == format!("n{}", habits.nonce));
    if !good || !fresh {
        let stale = if good { ", stale=true" } else { "" };
        let mut response = request.response(401, "");
        let value =
            format!("Digest realm=\"test\", nonce=\"n{}\", qop=\"auth\", algorithm=SHA-256{stale}", habits.nonce);
        assert!(Challenge::parse(&value.parse().unwrap()).is_ok());
        response.headers.push("WWW-Authenticate", value);
        return response;
    }
    let asked = request.headers.expires().unwrap().unwrap_or(0);
    if asked > 0 && asked < habits.min_expires {
        let mut response = request.response(423, "");
        response.headers.push("Min-Expires", habits.min_expires.to_string());
        return response;
    }
    let mut response = request.response(200, "");
    if let Some(seen) = habits.seen {
        let mut via = response.headers.via_top().unwrap();
        via.set_source(seen);
        response.headers.replace_first_value("Via", &via.to_string());
    }
    for contact in request.headers.contacts().unwrap() {
        if contact.expires() != Some(0) {
            let mut granted = contact.clone();
            granted.params.set("expires", habits.granted.to_string());
            response.headers.push("Contact", granted.to_string());
        }
    }
    for (name, value) in &habits.headers {
        response.headers.push(*name, *value);
    }
    response
}

fn world(transport: Transport, habits: Habits) -> (World, Rc<RefCell<Habits>>) {
    let mut world = World::new(transport);
    let habits = Rc::new(RefCell::new(habits));
    let shared = Rc::clone(&habits);
    let aor = Some("sip:alice@example.test".parse().unwrap());
    world.add_phone(1, Config { aor, ..config("alice") }, Some(address(9)));
    world.add_peer(9, move |message| match message {
        Message::Request(request) if request.method == Method::Register => {
            vec![(ms(1), answer(&mut shared.borrow_mut(), request).into())]
        }
        Message::Request(_) | Message::Response(_) => Vec::new(),
    });
    (world, habits)
}

fn register(expires: u64) -> Register {
    let registrar = "sip:example.test".parse().unwrap();
    Register { registrar, hop: hop(9), expires: Duration::from_secs(expires), headers: Vec::new() }
}

fn registered(event: &Event) -> Option<crate::event::Registered> {
    match event {
        Event::Registered(registered) => Some((**registered).clone()),
        _ => None,
    }
}

#[test]
fn a_binding_is_made_refreshed_before_it_expires_and_removed() {
    for transport in [Transport::Udp, Transport::Tls] {
        let (mut world, _) = world(transport, Habits { granted: 600, ..Habits::default() });
        world.with(1, |phone, now| phone.register(now, register(3600))).unwrap();
        world.seconds(1);
        let first = world.expect(1, registered);
        assert_eq!((first.expires.as_secs(), first.refresh), (600, false));
        world.seconds(538);
        assert_eq!(world.received_requests(9, &Method::Register).len(), 2);
        world.seconds(5);
        let second = world.expect(1, registered);
        assert!(second.refresh, "60 s early");
        let registers = world.received_requests(9, &Method::Register);
        assert_eq!(registers.len(), 3, "the refresh carries its credentials at once");
        let authorization = registers[2].headers.get("Authorization").unwrap();
        assert!(authorization.contains("nc=00000002"), "{authorization}");
        let call_ids: std::collections::BTreeSet<_> = registers.iter().map(|r| r.headers.call_id().unwrap()).collect();
        assert_eq!(call_ids.len(), 1);
        world.with(1, Endpoint::unregister).unwrap();
        world.seconds(1);
        world.expect(1, |event| matches!(event, Event::Unregistered).then_some(()));
        let last = world.received_requests(9, &Method::Register).pop().unwrap().clone();
        assert_eq!(last.headers.contacts().unwrap()[0].expires(), Some(0));
        world.assert_idle(&[1]);
    }
}

#[test]
fn the_contact_names_the_instance_and_a_stale_nonce_is_answered_silently() {
    let (mut world, habits) = world(Transport::Tls, Habits { granted: 60, ..Habits::default() });
    world.with(1, |phone, now| phone.register(now, register(60))).unwrap();
    world.seconds(1);
    let contact = world.received_requests(9, &Method::Register)[0].headers.get("Contact").unwrap().to_owned();
    assert!(contact.starts_with("<sip:alice@10.0.0.1:5060;transport=tls>;+sip.instance=\"<urn:uuid:"), "{contact}");
    assert!(contact.contains(";reg-id=1"), "{contact}");
    world.events(1);
    habits.borrow_mut().nonce = 7;
    world.seconds(50);
    assert!(world.expect(1, registered).refresh);
}

#[test]
fn too_brief_an_interval_is_raised_by_423() {
    let (mut world, _) = world(Transport::Udp, Habits { granted: 1800, min_expires: 1800, ..Habits::default() });
    world.with(1, |phone, now| phone.register(now, register(60))).unwrap();
    world.seconds(1);
    assert_eq!(world.expect(1, registered).expires.as_secs(), 1800);
}

#[test]
fn behind_a_nat_on_udp_the_contact_becomes_the_public_address_and_the_old_one_goes() {
    let seen: SocketAddr = "203.0.113.7:31337".parse().unwrap();
    let (mut world, _) = world(Transport::Udp, Habits { granted: 600, seen: Some(seen), ..Habits::default() });
    world.with(1, |phone, now| phone.register(now, register(600))).unwrap();
    world.seconds(1);
    let events = world.events(1);
    let reports: Vec<_> = events.iter().filter_map(registered).collect();
    assert_eq!(reports.len(), 1, "reported once, with the final contact");
    assert_eq!(reports[0].public, Some(seen));
    assert!(reports[0].contact.contains("203.0.113.7:31337"), "{}", reports[0].contact);
    let last = world.received_requests(9, &Method::Register).pop().unwrap().clone();
    let contacts = last.headers.contacts().unwrap();
    assert_eq!(contacts[0].uri.to_string(), "sip:alice@203.0.113.7:31337");
    assert_eq!((contacts[1].uri.to_string(), contacts[1].expires()), ("sip:alice@10.0.0.1:5060".to_owned(), Some(0)));
    assert!(world.endpoint(1).contact(FlowId(1)).unwrap().contains("203.0.113.7:31337"));
}

#[test]
fn the_200_tells_service_route_gruu_and_whether_we_are_remote() {
    let headers = vec![
        ("Service-Route", "<sip:p1.example.test;lr>, <sip:p2.example.test;lr>"),
        ("ms-user-logon-data", "RemoteUser"),
        ("Require", "outbound"),
    ];
    let (mut world, _) = world(Transport::Tls, Habits { granted: 600, headers, ..Habits::default() });
    world.with(1, |phone, now| phone.register(now, register(600))).unwrap();
    world.seconds(1);
    let registered = world.expect(1, registered);
    assert!(registered.remote_user && registered.outbound);
    assert_eq!(registered.service_route, ["<sip:p1.example.test;lr>", "<sip:p2.example.test;lr>"]);
    world.with(1, |phone, now| phone.options(now, hop(9), "sip:bob@example.test".parse().unwrap())).unwrap();
    world.seconds(1);
    let options = world.received_requests(9, &Method::Options).pop().unwrap().clone();
    assert_eq!(options.headers.get_all("Route").count(), 2, "RFC 3608 §5");
}

#[test]
fn failures_say_what_happened_and_when_it_is_tried_again() {
    let wrong = Account { realm: None, user: "alice".to_owned(), password: Secret::new("guess") };
    let cases = [
        ("wrong password", vec![], true, Some(401), true, false),
        ("forbidden", vec![403], false, Some(403), false, false),
        ("overloaded", vec![503], false, Some(503), false, true),
        ("unknown user", vec![404], false, Some(404), false, false),
    ];
    for (name, failing, bad_password, status, refused, retried) in cases {
        let (mut world, _) = world(Transport::Udp, Habits { granted: 600, failing, ..Habits::default() });
        if bad_password {
            world.add_phone(1, Config { accounts: vec![wrong.clone()], ..config("alice") }, None);
        }
        world.with(1, |phone, now| phone.register(now, register(600))).unwrap();
        world.seconds(1);
        let failed = world.expect(1, |event| match event {
            Event::RegistrationFailed(failed) => Some(failed.clone()),
            _ => None,
        });
        assert_eq!((failed.status, failed.credentials_refused), (status, refused), "case: {name}");
        assert_eq!(failed.retry_in.is_some(), retried, "case: {name}");
        if let Some(wait) = failed.retry_in {
            assert!((15..=30).contains(&wait.as_secs()), "case: {name}");
            world.seconds(31);
            world.expect(1, registered);
        }
        assert!(world.received_requests(9, &Method::Register).len() <= 3, "case: {name}");
    }
}

#[test]
fn a_silent_registrar_is_a_failure_without_status() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(1, config("alice"), None);
    world.with(1, |phone, now| phone.register(now, register(600))).unwrap();
    world.seconds(33);
    world.expect(1, |event| match event {
        Event::RegistrationFailed(failed) => {
            assert!(failed.status.is_none() && failed.retry_in.is_some());
            Some(())
        }
        _ => None,
    });
}

#[test]
fn a_lost_flow_is_reported_and_the_registration_moves_to_the_next() {
    let (mut world, _) = world(Transport::Tls, Habits { granted: 600, ..Habits::default() });
    world.with(1, |phone, now| phone.register(now, register(600))).unwrap();
    world.seconds(1);
    world.expect(1, registered);
    world.input(address(1), Input::FlowClosed { flow: FlowId(1), cause: "reset".to_owned() });
    world.expect(1, |event| match event {
        Event::RegistrationFailed(failed) => {
            assert!(failed.retry_in.unwrap() < Duration::from_secs(1));
            Some(())
        }
        _ => None,
    });
    let local = address(1);
    world.input(
        local,
        Input::FlowOpened { flow: FlowId(1), transport: Transport::Tls, local, remote: Some(address(9)) },
    );
    world.with(1, |phone, now| phone.register(now, register(600))).unwrap();
    world.seconds(1);
    assert!(!world.expect(1, registered).refresh);
}

#[test]
fn a_udp_hop_is_kept_alive_behind_a_thirty_second_mapping() {
    let (mut world, _) = world(Transport::Udp, Habits { granted: 3600, ..Habits::default() });
    world.with(1, |phone, now| phone.register(now, register(3600))).unwrap();
    world.seconds(600);
    let sent: Vec<_> = world.ladder.iter().filter(|(_, from, _)| *from == address(1)).map(|(at, ..)| *at).collect();
    let longest = sent.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
    assert!(longest <= Duration::from_secs(25), "{longest:?}");
}

#[test]
fn a_stream_without_pong_is_dead_and_the_owner_hears_of_it() {
    let habits =
        Habits { granted: 3600, headers: vec![("Require", "outbound"), ("Flow-Timer", "60")], ..Habits::default() };
    let (mut world, _) = world(Transport::Tcp, habits);
    world.with(1, |phone, now| phone.register(now, register(3600))).unwrap();
    world.seconds(1);
    world.events(1);
    world.seconds(75);
    let events = world.events(1);
    assert!(events.iter().any(|event| matches!(event, Event::FlowDead { .. })), "{events:#?}");
    assert!(events.iter().any(|event| matches!(event, Event::RegistrationFailed(_))), "{events:#?}");
}

#[test]
fn times_that_no_clock_can_count_are_put_up_with() {
    const HUGE: &str = "18446744073709551615";
    let alive = "UAS; tcp=no; hop-hop=yes; end-end=no; timeout=18446744073709551615";
    for header in [("Flow-Timer", HUGE), ("ms-keep-alive", alive), ("Retry-After", HUGE), ("Expires", HUGE)] {
        let (mut world, _) =
            world(Transport::Tcp, Habits { granted: u32::MAX, headers: vec![header], ..Habits::default() });
        world.with(1, |phone, now| phone.register(now, register(3600))).unwrap();
        world.seconds(1);
        assert_eq!(world.expect(1, registered).expires.as_secs(), u64::from(u32::MAX), "{header:?}");
    }
    let mut world = World::new(Transport::Udp);
    world.add_phone(1, config("alice"), None);
    world.add_peer(9, |message| match message {
        Message::Request(request) => {
            let brief = request.headers.expires() == Ok(Some(60));
            let mut response = request.response(if brief { 423 } else { 200 }, "");
            response.headers.push("Min-Expires", HUGE);
            vec![(ms(1), response.into())]
        }
        Message::Response(_) => Vec::new(),
    });
    world.with(1, |phone, now| phone.register(now, register(60))).unwrap();
    world.seconds(1);
    assert_eq!(world.expect(1, registered).expires.as_secs(), u64::from(u32::MAX));
}

#[test]
fn a_call_goes_on_over_the_connection_that_was_opened_after_a_loss() {
    let (mut world, _) = world(Transport::Tcp, Habits { granted: 600, ..Habits::default() });
    world.with(1, |phone, now| phone.register(now, register(600))).unwrap();
    world.seconds(1);
    let invite = format!(
        "INVITE sip:alice@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.9:5060;branch=z9hG4bKa\r\nFrom: <sip:b@x>;tag=b\r\nTo: <sip:alice@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:b@10.0.0.9:5060;transport=tcp>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{OFFER}",
        OFFER.len()
    );
    world.inject(9, 1, invite.into_bytes());
    world.seconds(1);
    let (leg, dialog) = world.expect(1, incoming);
    world.with(1, |phone, now| phone.accept(now, leg, ANSWER.to_owned())).unwrap();
    let tag = world.endpoint(1).replaces_value(dialog).unwrap().split("from-tag=").nth(1).unwrap().to_owned();
    let ack = format!(
        "ACK sip:alice@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.9:5060;branch=z9hG4bKb\r\nFrom: <sip:b@x>;tag=b\r\nTo: <sip:alice@x>;tag={tag}\r\nCall-ID: c\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"
    );
    world.inject(9, 1, ack.into_bytes());
    world.seconds(1);
    world.input(address(1), Input::FlowClosed { flow: FlowId(1), cause: "reset".to_owned() });
    let opened =
        Input::FlowOpened { flow: FlowId(2), transport: Transport::Tcp, local: address(1), remote: Some(address(9)) };
    world.input(address(1), opened);
    let again = Register { hop: crate::event::Hop { flow: FlowId(2), to: address(9) }, ..register(600) };
    world.flow = FlowId(2);
    world.with(1, |phone, now| phone.register(now, again)).unwrap();
    world.seconds(1);
    world.expect(1, registered);
    world.with(1, |phone, now| phone.bye(now, dialog)).unwrap();
    world.seconds(1);
    assert_eq!(world.received_requests(9, &Method::Bye).len(), 1, "{}", world.show_ladder());
}
