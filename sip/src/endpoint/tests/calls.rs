//! Setting up and ending calls.

use super::harness::{ANSWER, OFFER, World, changed, config, hop, incoming, ms};
use crate::event::{CommandError, EndCause, Event, Invite, Transport};
use crate::message::{Message, Method};

#[test]
fn a_call_is_set_up_and_ended_on_each_transport() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let mut world = World::pair(transport);
        let (caller, callee) = world.call();
        world.with(1, |phone, now| phone.bye(now, caller)).unwrap();
        world.seconds(1);
        world.expect(2, |event| match event {
            Event::Ended { dialog, cause: EndCause::RemoteBye { .. } } if *dialog == callee => Some(()),
            _ => None,
        });
        world.expect(1, |event| match event {
            Event::Ended { dialog, cause: EndCause::LocalBye } if *dialog == caller => Some(()),
            _ => None,
        });
        world.assert_idle(&[1, 2]);
    }
}

#[test]
fn calls_are_set_up_and_ended_over_lossy_udp() {
    for seed in 0..20_u32 {
        let mut world = World::pair(Transport::Udp);
        world.loss_percent = 20 + seed;
        world.invite();
        world.seconds(25);
        let Some((leg, callee)) = world.events(2).iter().find_map(incoming) else { continue };
        world.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned())).unwrap();
        world.seconds(25);
        let events = (world.events(1), world.events(2));
        assert!(events.0.iter().any(|e| matches!(e, Event::Answered { .. })), "{}", world.show_ladder());
        assert!(events.1.iter().any(|e| matches!(e, Event::Confirmed { .. })), "{}", world.show_ladder());
        let answered = events.0.iter().filter(|e| matches!(e, Event::Answered { .. })).count();
        assert_eq!(answered, 1, "a repeated 200 is reported once");
        world.with(2, |phone, now| phone.bye(now, callee)).unwrap();
        world.assert_idle(&[1, 2]);
    }
}

#[test]
fn a_183_with_sdp_goes_reliably_where_the_caller_supports_it() {
    let mut world = World::pair(Transport::Udp);
    world.lose = vec!["SIP/2.0 183"];
    world.invite();
    world.seconds(1);
    let (leg, _) = world.expect(2, incoming);
    world.with(2, |phone, now| phone.progress(now, leg, ANSWER.to_owned())).unwrap();
    world.seconds(2);
    world.expect(1, |event| match event {
        Event::Progress { status: 183, sdp: Some(sdp), reliable: true, .. } if sdp == ANSWER => Some(()),
        _ => None,
    });
    world.expect(2, |event| matches!(event, Event::ProgressConfirmed { .. }).then_some(()));
    assert_eq!(world.sent(1, "PRACK"), 1);
    world.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned())).unwrap();
    world.seconds(1);
    world.expect(1, |event| match event {
        Event::Answered { sdp: Some(sdp), .. } => {
            assert_eq!(sdp, ANSWER);
            Some(())
        }
        _ => None,
    });
}

#[test]
fn a_200_waits_for_the_prack_of_the_183_before_it() {
    let mut world = World::pair(Transport::Udp);
    world.lose = vec!["SIP/2.0 183", "SIP/2.0 183"];
    world.invite();
    world.seconds(1);
    let (leg, _) = world.expect(2, incoming);
    world.with(2, |phone, now| phone.progress(now, leg, ANSWER.to_owned())).unwrap();
    world.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned())).unwrap();
    world.run(ms(1000));
    assert_eq!(world.sent(2, "SIP/2.0 200"), 0, "{}", world.show_ladder());
    world.seconds(2);
    world.expect(1, |event| matches!(event, Event::Answered { .. }).then_some(()));
}

#[test]
fn a_plain_183_is_repeated_until_the_first_check_comes() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(2, config("bob"), None);
    world.add_peer(1, |_| Vec::new());
    let invite = format!(
        "INVITE sip:bob@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa;rport\r\nFrom: <sip:a@x>;tag=a\r\nTo: <sip:bob@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:a@10.0.0.1:5060>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{OFFER}",
        OFFER.len()
    );
    world.inject(1, 2, invite.into_bytes());
    world.seconds(1);
    let (leg, _) = world.expect(2, incoming);
    world.with(2, |phone, now| phone.ring(now, leg)).unwrap();
    world.with(2, |phone, now| phone.progress(now, leg, ANSWER.to_owned())).unwrap();
    world.run(ms(3600));
    assert_eq!(world.sent(2, "SIP/2.0 183"), 4, "0, 0.5, 1.5, 3.5 s\n{}", world.show_ladder());
    world.endpoint(2).stop_resending(leg);
    world.seconds(20);
    assert_eq!(world.sent(2, "SIP/2.0 183"), 4);
    world.with(2, |phone, now| phone.reject(now, leg, 486, "", &[])).unwrap();
    world.assert_idle(&[2]);
}

#[test]
fn cancel_before_during_and_after_the_answer_ends_the_call_once() {
    // (name, milliseconds from INVITE to cancel, to accept if any)
    let cases = [
        ("before the 100", 10, None),
        ("while it rings", 500, None),
        ("crossing the 200", 1015, Some(1000)),
        ("just before the 200", 990, Some(1000)),
        ("after the 200", 1100, Some(1000)),
    ];
    for (name, cancel_at, accept_at) in cases {
        let mut world = World::pair(Transport::Udp);
        let leg = world.invite();
        let mut steps: Vec<(u64, bool)> = vec![(cancel_at, true)];
        steps.extend(accept_at.map(|at| (at, false)));
        steps.sort_unstable();
        let mut at = 0;
        for (due, cancelling) in steps {
            world.run(ms(due - at));
            at = due;
            if cancelling {
                let _ = world.with(1, |phone, now| phone.cancel(now, leg));
            } else if let Some((theirs, _)) = world.events(2).iter().find_map(incoming) {
                let _ = world.with(2, |phone, now| phone.accept(now, theirs, ANSWER.to_owned()));
            }
        }
        world.seconds(5);
        let events = world.events(1);
        let ends = events.iter().filter(|event| match event {
            Event::Failed(failed) => failed.status == 487,
            Event::Ended { cause, .. } => *cause == EndCause::LocalBye,
            _ => false,
        });
        assert_eq!(ends.count(), 1, "case {name}: {events:#?}\n{}", world.show_ladder());
        world.assert_idle(&[1, 2]);
    }
}

#[test]
fn a_cancelled_call_is_reported_to_the_callee() {
    let mut world = World::pair(Transport::Udp);
    let leg = world.invite();
    world.seconds(1);
    let (theirs, _) = world.expect(2, incoming);
    world.with(2, |phone, now| phone.ring(now, theirs)).unwrap();
    world.with(1, |phone, now| phone.cancel(now, leg)).unwrap();
    world.seconds(1);
    world.expect(2, |event| matches!(event, Event::Cancelled { leg, .. } if *leg == theirs).then_some(()));
    assert_eq!(
        world.with(2, |phone, now| phone.accept(now, theirs, ANSWER.to_owned())),
        Err(CommandError::NoLeg(theirs))
    );
}

#[test]
fn a_200_is_repeated_until_its_ack_and_ended_with_bye_after_32_seconds() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(2, config("bob"), None);
    world.add_peer(1, |message| match message {
        Message::Request(request) if request.method == Method::Bye => vec![(ms(0), request.response(200, "").into())],
        _ => Vec::new(),
    });
    let invite = "INVITE sip:bob@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa;rport\r\nFrom: <sip:a@x>;tag=a\r\nTo: <sip:bob@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:a@10.0.0.1:5060>\r\n\r\n";
    world.inject(1, 2, invite.as_bytes().to_vec());
    world.seconds(1);
    let (leg, _) = world.expect(2, incoming);
    world.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned())).unwrap();
    world.seconds(33);
    let sent = world.sent(2, "SIP/2.0 200");
    assert_eq!(sent, 11, "0, 0.5, 1.5, 3.5, then every 4 s\n{}", world.show_ladder());
    assert_eq!(world.sent(2, "BYE"), 1);
    world.expect(2, |event| matches!(event, Event::Ended { cause: EndCause::NoAck, .. }).then_some(()));
    world.assert_idle(&[2]);
}

#[test]
fn without_an_offer_the_callee_offers_and_the_ack_brings_the_answer() {
    let mut world = World::pair(Transport::Udp);
    let target = "sip:bob@10.0.0.2".parse().unwrap();
    let invite = Invite { target, hop: hop(2), sdp: None, headers: Vec::new() };
    world.with(1, |phone, now| phone.invite(now, invite)).unwrap();
    world.seconds(1);
    let leg = world.expect(2, |event| match event {
        Event::Incoming(incoming) if incoming.sdp.is_none() => Some(incoming.leg),
        _ => None,
    });
    world.with(2, |phone, now| phone.accept(now, leg, OFFER.to_owned())).unwrap();
    world.seconds(1);
    let dialog = world.expect(1, |event| match event {
        Event::Answered { dialog, sdp: Some(sdp), offer: true, .. } if sdp == OFFER => Some(*dialog),
        _ => None,
    });
    assert_eq!(world.sent(1, "ACK"), 0, "the ACK waits for our answer");
    world.with(1, |phone, now| phone.ack(now, dialog, ANSWER.to_owned())).unwrap();
    world.seconds(1);
    world.expect(2, |event| match event {
        Event::Confirmed { sdp: Some(sdp), .. } => {
            assert_eq!(sdp, ANSWER);
            Some(())
        }
        _ => None,
    });
}

#[test]
fn refusals_tell_status_reason_warning_and_where_to_go() {
    let cases = [
        ("busy", 486, "", None),
        ("moved", 302, "Contact: <sip:bob@example.org>", None),
        ("overloaded", 503, "Retry-After: 7", Some(7)),
    ];
    for (name, status, header, retry) in cases {
        let mut world = World::new(Transport::Udp);
        world.add_phone(1, config("alice"), None);
        world.add_peer(2, move |message| match message {
            Message::Request(request) if request.method == Method::Invite => {
                let mut response = request.response(status, "");
                if let Some((name, value)) = header.split_once(": ") {
                    response.headers.push(name, value);
                }
                vec![(ms(5), response.into())]
            }
            _ => Vec::new(),
        });
        let leg = world.invite();
        world.seconds(1);
        let failed = world.expect(1, |event| match event {
            Event::Failed(failed) => Some(failed.clone()),
            _ => None,
        });
        assert_eq!((failed.leg, failed.status, failed.local), (leg, status, false), "case: {name}");
        assert_eq!(failed.retry_after.map(|d| d.as_secs()), retry, "case: {name}");
        assert_eq!(failed.redirect.first().map(String::as_str), (status == 302).then_some("sip:bob@example.org"));
        assert_eq!(world.received_requests(2, &Method::Ack).len(), 1, "case: {name}");
        world.assert_idle(&[1]);
    }
}

#[test]
fn nobody_there_is_a_408_of_our_own_after_32_seconds() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(1, config("alice"), None);
    world.invite();
    world.seconds(33);
    world.expect(1, |event| match event {
        Event::Failed(failed) if failed.status == 408 && failed.local => Some(()),
        _ => None,
    });
    world.assert_idle(&[1]);
}

#[test]
fn a_lost_flow_fails_the_call_with_its_cause() {
    use crate::event::{FlowId, Input};
    let mut world = World::pair(Transport::Tls);
    world.invite();
    world.seconds(1);
    let closed = Input::FlowClosed { flow: FlowId(1), cause: "connection reset by 10.0.0.2".to_owned() };
    world.input(super::harness::address(1), closed);
    world.expect(1, |event| match event {
        Event::Failed(failed) if failed.status == 503 && failed.local => {
            assert!(failed.reason.contains("reset"));
            Some(())
        }
        _ => None,
    });
}

#[test]
fn a_callee_without_ack_says_bye_behind_the_ack() {
    let mut world = World::pair(Transport::Udp);
    world.lose = vec!["ACK"];
    world.invite();
    world.seconds(1);
    let (leg, dialog) = world.expect(2, incoming);
    world.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned())).unwrap();
    world.with(2, |phone, now| phone.bye(now, dialog)).unwrap();
    world.run(ms(200));
    assert_eq!(world.sent(2, "BYE"), 0, "RFC 3261 §15");
    world.seconds(2);
    assert_eq!(world.sent(2, "BYE"), 1, "{}", world.show_ladder());
    world.assert_idle(&[1, 2]);
}

#[test]
fn a_call_that_replaces_another_names_its_dialog() {
    let mut world = World::pair(Transport::Udp);
    let (caller, callee) = world.call();
    let replaces = world.endpoint(1).replaces_value(caller).unwrap();
    let invite = Invite {
        target: "sip:bob@10.0.0.2".parse().unwrap(),
        hop: hop(2),
        sdp: Some(changed(OFFER)),
        headers: vec![("Replaces".to_owned(), replaces)],
    };
    world.with(1, |phone, now| phone.invite(now, invite.clone())).unwrap();
    world.seconds(1);
    world.expect(2, |event| match event {
        Event::Incoming(incoming) => {
            assert_eq!(incoming.replaces, Some(callee));
            Some(())
        }
        _ => None,
    });
    let unknown = Invite { headers: vec![("Replaces".to_owned(), "x;to-tag=1;from-tag=2".to_owned())], ..invite };
    world.with(1, |phone, now| phone.invite(now, unknown)).unwrap();
    world.seconds(1);
    world.expect(1, |event| matches!(event, Event::Failed(failed) if failed.status == 481).then_some(()));
}

#[test]
fn a_large_invite_is_refused_on_udp_when_there_is_a_limit() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(1, crate::event::Config { udp_limit_bytes: Some(1300), ..config("alice") }, None);
    let sdp = Some(OFFER.to_owned() + &"a=candidate:1 1 UDP 2130706431 10.0.0.1 4000 typ host\r\n".repeat(20));
    let invite = Invite { target: "sip:bob@10.0.0.2".parse().unwrap(), hop: hop(2), sdp, headers: Vec::new() };
    let refused = world.with(1, |phone, now| phone.invite(now, invite));
    assert!(matches!(refused, Err(CommandError::TooLarge { limit: 1300, .. })));
    assert!(world.ladder.is_empty());
}

#[test]
fn a_peer_that_requires_100rel_gets_each_provisional_answer_reliably_and_one_at_a_time() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(2, config("bob"), None);
    world.add_peer(1, |message| {
        let Message::Response(response) = message else { return Vec::new() };
        let (Some(rseq), Ok(to)) = (response.headers.get("RSeq"), response.headers.to()) else { return Vec::new() };
        let prack = format!(
            "PRACK sip:bob@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKp{rseq};rport\r\nFrom: <sip:a@x>;tag=a\r\nTo: {to}\r\nCall-ID: c\r\nCSeq: {rseq} PRACK\r\nRAck: {rseq} 1 INVITE\r\n\r\n"
        );
        vec![(ms(5), crate::parse::parse_message(prack.as_bytes()).unwrap())]
    });
    let invite = format!(
        "INVITE sip:bob@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa;rport\r\nFrom: <sip:a@x>;tag=a\r\nTo: <sip:bob@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nRequire: 100rel\r\nContact: <sip:a@10.0.0.1:5060>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{OFFER}",
        OFFER.len()
    );
    world.inject(1, 2, invite.into_bytes());
    world.run(ms(100));
    let (leg, _) = world.expect(2, incoming);
    world.with(2, |phone, now| phone.ring(now, leg)).unwrap();
    world.with(2, |phone, now| phone.progress(now, leg, ANSWER.to_owned())).unwrap();
    assert_eq!((world.sent(2, "SIP/2.0 180"), world.sent(2, "SIP/2.0 183")), (1, 0));
    world.run(ms(400));
    assert_eq!((world.sent(2, "SIP/2.0 180"), world.sent(2, "SIP/2.0 183")), (1, 1), "{}", world.show_ladder());
    assert_eq!(world.events(2).iter().filter(|event| matches!(event, Event::ProgressConfirmed { .. })).count(), 2);
}

#[test]
fn a_reliable_183_without_prack_fails_the_call_after_32_seconds() {
    let mut world = World::pair(Transport::Udp);
    world.invite();
    world.seconds(1);
    let (leg, _) = world.expect(2, incoming);
    world.loss_percent = 100;
    world.with(2, |phone, now| phone.progress(now, leg, ANSWER.to_owned())).unwrap();
    world.seconds(33);
    world.expect(2, |event| matches!(event, Event::Cancelled { .. }).then_some(()));
}

#[test]
fn an_invite_that_expires_unanswered_is_refused_with_487() {
    let mut world = World::pair(Transport::Udp);
    let invite = Invite {
        target: "sip:bob@10.0.0.2".parse().unwrap(),
        hop: hop(2),
        sdp: Some(OFFER.to_owned()),
        headers: vec![("Expires".to_owned(), "10".to_owned())],
    };
    world.with(1, |phone, now| phone.invite(now, invite)).unwrap();
    world.seconds(11);
    world.expect(1, |event| matches!(event, Event::Failed(failed) if failed.status == 487).then_some(()));
    world.expect(2, |event| matches!(event, Event::Cancelled { .. }).then_some(()));
    world.assert_idle(&[1, 2]);
}
