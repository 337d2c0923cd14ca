//! Requests in and out of dialogs, and challenges on all of them.

use super::harness::{ANSWER, OFFER, World, address, answer, changed, config, hop, incoming, ms};
use crate::digest::Credentials;
use crate::event::{Content, Event, Invite, OutOfDialog, Secret, Transport};
use crate::header::AuthValue;
use crate::message::{Message, Method, Request};

/// A peer that challenges every request with a nonce for each, and then takes it.
fn strict(request: &Request, status: u16) -> Option<crate::message::Response> {
    let (ask, give) = if status == 401 {
        ("WWW-Authenticate", "Authorization")
    } else {
        ("Proxy-Authenticate", "Proxy-Authorization")
    };
    let credentials = request.headers.get(give).and_then(|text| text.parse::<AuthValue>().ok());
    let credentials = credentials.and_then(|value| Credentials::parse(&value).ok());
    let nonce = format!("{}-{}", request.method, request.headers.call_id().unwrap());
    let good = credentials
        .is_some_and(|c| c.nonce == nonce && c.verify(&Secret::new("secret"), &request.method, &request.body));
    if good || matches!(request.method, Method::Ack | Method::Cancel) {
        return None;
    }
    let mut response = request.response(status, "");
    response.headers.push(ask, format!("Digest realm=\"test\", nonce=\"{nonce}\", qop=\"auth\""));
    Some(response)
}

#[test]
fn challenges_are_answered_for_every_method() {
    for status in [401, 407] {
        let mut world = World::new(Transport::Udp);
        world.add_phone(1, config("alice"), None);
        world.add_peer(9, move |message| {
            let Message::Request(request) = message else { return Vec::new() };
            if let Some(challenge) = strict(request, status) {
                return vec![(ms(1), challenge.into())];
            }
            match request.method {
                Method::Ack => Vec::new(),
                Method::Invite => vec![(ms(1), answer(request, 200, "peer", Some(ANSWER)).into())],
                _ => vec![(ms(1), request.response(200, "").into())],
            }
        });
        let content = Content { content_type: "text/plain".to_owned(), bytes: b"hello".to_vec() };
        for method in [Method::Service, Method::Message, Method::Subscribe, Method::Options] {
            let uri = "sip:bob@example.test".parse().unwrap();
            let wanted = OutOfDialog {
                method: method.clone(),
                uri,
                hop: hop(9),
                headers: Vec::new(),
                content: Some(content.clone()),
            };
            let id = world.with(1, |phone, now| phone.request(now, wanted)).unwrap();
            world.seconds(1);
            world.expect(1, |event| match event {
                Event::ResponseTo { request, status: 200, .. } if *request == id => Some(()),
                _ => None,
            });
        }
        let target = "sip:bob@example.test".parse().unwrap();
        let invite = Invite { target, hop: hop(9), sdp: Some(OFFER.to_owned()), headers: Vec::new() };
        world.with(1, |phone, now| phone.invite(now, invite)).unwrap();
        world.seconds(1);
        let dialog = world.expect(1, |event| match event {
            Event::Answered { dialog, .. } => Some(*dialog),
            _ => None,
        });
        let ack = world.received_requests(9, &Method::Ack).pop().unwrap().clone();
        assert!(
            ack.headers.contains(if status == 401 { "Authorization" } else { "Proxy-Authorization" }),
            "RFC 3261 §13.2.2.4"
        );
        world.with(1, |phone, now| phone.reinvite(now, dialog, Some(changed(OFFER)))).unwrap();
        world.seconds(1);
        world.expect(1, |event| matches!(event, Event::Reanswered { .. }).then_some(()));
        world
            .with(1, |phone, now| phone.request_in_dialog(now, dialog, Method::Info, &[], Some(content.clone())))
            .unwrap();
        world.seconds(1);
        world.expect(1, |event| matches!(event, Event::ResponseTo { status: 200, .. }).then_some(()));
        world.with(1, |phone, now| phone.bye(now, dialog)).unwrap();
        world.seconds(1);
        world.expect(1, |event| matches!(event, Event::Ended { .. }).then_some(()));
        let cseqs: Vec<u32> =
            world.received(9).iter().filter_map(|m| m.headers().cseq().ok()).map(|c| c.number).collect();
        assert!(cseqs.iter().all(|number| *number < 20));
        world.assert_idle(&[1]);
    }
}

#[test]
fn a_query_gets_its_document_in_the_200_or_by_notify_or_benotify() {
    let cases = [("piggy-back", None), ("notify", Some("NOTIFY")), ("benotify", Some("BENOTIFY"))];
    for (name, method) in cases {
        let mut world = World::new(Transport::Udp);
        world.add_phone(1, config("alice"), None);
        world.add_peer(9, move |message| {
            let Message::Request(request) = message else { return Vec::new() };
            let mut response = answer(request, 200, "server", None);
            let Some(method) = method else {
                response.set_body("application/xml", b"<doc/>".to_vec());
                response.headers.push("Event", "provisioning");
                return vec![(ms(1), response.into())];
            };
            let (from, to) = (response.headers.get("To").unwrap(), response.headers.get("From").unwrap());
            let notify = format!(
                "{method} sip:alice@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKn\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: 1 {method}\r\nEvent: provisioning\r\nSubscription-State: terminated;reason=timeout\r\nContent-Type: application/xml\r\nContent-Length: 6\r\n\r\n<doc/>",
                request.headers.call_id().unwrap()
            );
            let notify = crate::parse::parse_message(notify.as_bytes()).unwrap();
            vec![(ms(1), response.into()), (ms(5), notify)]
        });
        let uri = "sip:alice@example.test".parse().unwrap();
        let wanted = OutOfDialog { method: Method::Subscribe, uri, hop: hop(9), headers: Vec::new(), content: None };
        let id = world.with(1, |phone, now| phone.subscribe_once(now, wanted, "provisioning")).unwrap();
        world.seconds(1);
        world.expect(1, |event| match event {
            Event::Notified { request, package, content: Some(content), .. } if *request == Some(id) => {
                assert_eq!(
                    (package.as_str(), content.bytes.as_slice()),
                    ("provisioning", b"<doc/>".as_slice()),
                    "case: {name}"
                );
                Some(())
            }
            _ => None,
        });
        let answered =
            world.ladder.iter().filter(|(_, from, line)| *from == address(1) && line.contains("200")).count();
        assert_eq!(answered, usize::from(method == Some("NOTIFY")), "case: {name}: BENOTIFY is never answered");
        world.assert_idle(&[1]);
    }
}

#[test]
fn requests_we_cannot_serve_are_refused_with_the_right_status() {
    let cases = [
        ("OPTIONS sip:bob@10.0.0.2", "", "SIP/2.0 200"),
        ("PUBLISH sip:bob@10.0.0.2", "Event: presence\r\n", "SIP/2.0 489"),
        ("SUBSCRIBE sip:bob@10.0.0.2", "Event: presence\r\n", "SIP/2.0 489"),
        ("FROBNICATE sip:bob@10.0.0.2", "", "SIP/2.0 405"),
        ("BYE sip:bob@10.0.0.2", "", "SIP/2.0 481"),
        ("NOTIFY sip:bob@10.0.0.2", "Event: message-summary\r\nSubscription-State: active\r\n", "SIP/2.0 481"),
        ("CANCEL sip:bob@10.0.0.2", "", "SIP/2.0 481"),
        ("INVITE sip:bob@10.0.0.2", "Require: precondition\r\n", "SIP/2.0 420"),
        ("INVITE tel:+4912345", "", "SIP/2.0 416"),
        ("INVITE sip:bob@10.0.0.2", "Content-Type: text/plain\r\n", "SIP/2.0 415"),
        ("INVITE sip:bob@10.0.0.2", "Supported: timer\r\nSession-Expires: 60\r\n", "SIP/2.0 422"),
    ];
    for (position, (start, headers, want)) in cases.into_iter().enumerate() {
        let mut world = World::new(Transport::Udp);
        world.add_phone(2, config("bob"), None);
        let method = start.split(' ').next().unwrap();
        let body = if headers.contains("text/plain") { "hello" } else { "" };
        let request = format!(
            "{start} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK{position};rport\r\nFrom: <sip:a@x>;tag=a\r\nTo: <sip:bob@x>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\nContact: <sip:a@10.0.0.1>\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        world.inject(1, 2, request.into_bytes());
        world.run(ms(100));
        assert_eq!(world.sent(2, want), 1, "{start} {headers:?}\n{}", world.show_ladder());
        if want == "SIP/2.0 420" {
            assert!(world.events(2).iter().all(|event| incoming(event).is_none()));
        }
        world.assert_idle(&[2]);
    }
}

#[test]
fn a_message_is_reported_and_answered() {
    let mut world = World::pair(Transport::Tcp);
    let content = Content { content_type: "text/plain".to_owned(), bytes: b"hello".to_vec() };
    world
        .with(1, |phone, now| phone.message(now, hop(2), "sip:bob@10.0.0.2".parse().unwrap(), content.clone()))
        .unwrap();
    world.seconds(1);
    world.expect(2, |event| match event {
        Event::Message { content: Some(received), .. } => {
            assert_eq!(*received, content);
            Some(())
        }
        _ => None,
    });
    world.expect(1, |event| matches!(event, Event::ResponseTo { status: 200, .. }).then_some(()));
}
