//! Re-INVITE, UPDATE, session timers, transfer.

use std::time::Duration;

use super::harness::{ANSWER, OFFER, World, changed, config, incoming, ms};
use crate::event::{CommandError, Config, Content, EndCause, Event, Transport};
use crate::message::Method;

/// The SDP offered, empty if we are to offer.
fn reoffer(event: &Event) -> Option<String> {
    match event {
        Event::Reoffer { sdp, .. } => Some(sdp.clone().unwrap_or_default()),
        _ => None,
    }
}

#[test]
fn a_reinvite_changes_the_session() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut world = World::pair(transport);
        let (caller, callee) = world.call();
        world.with(1, |phone, now| phone.reinvite(now, caller, Some(changed(OFFER)))).unwrap();
        assert_eq!(
            world.with(1, |phone, now| phone.reinvite(now, caller, Some(OFFER.to_owned()))),
            Err(CommandError::OfferPending(caller))
        );
        world.seconds(1);
        assert_eq!(world.expect(2, reoffer), changed(OFFER));
        world.with(2, |phone, now| phone.answer_reoffer(now, callee, changed(ANSWER))).unwrap();
        world.seconds(1);
        world.expect(1, |event| match event {
            Event::Reanswered { sdp: Some(sdp), offer: false, .. } => {
                assert_eq!(*sdp, changed(ANSWER));
                Some(())
            }
            _ => None,
        });
    }
}

#[test]
fn a_reinvite_sent_right_behind_the_ack_is_taken_even_if_the_ack_is_lost() {
    let mut world = World::pair(Transport::Udp);
    world.lose = vec!["ACK"];
    world.invite();
    world.seconds(1);
    let (leg, _) = world.expect(2, incoming);
    world.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned())).unwrap();
    world.run(ms(30));
    let dialog = world.expect(1, |event| match event {
        Event::Answered { dialog, .. } => Some(*dialog),
        _ => None,
    });
    world.with(1, |phone, now| phone.reinvite(now, dialog, Some(changed(OFFER)))).unwrap();
    world.run(ms(100));
    let events = world.events(2);
    assert!(matches!(events.first(), Some(Event::Confirmed { .. })), "{events:#?}");
    assert!(matches!(events.get(1), Some(Event::Reoffer { .. })), "{events:#?}");
}

#[test]
fn a_reinvite_without_sdp_asks_for_an_offer() {
    let mut world = World::pair(Transport::Udp);
    let (caller, callee) = world.call();
    world.with(1, |phone, now| phone.reinvite(now, caller, None)).unwrap();
    world.seconds(1);
    assert_eq!(world.expect(2, reoffer), "");
    world.with(2, |phone, now| phone.answer_reoffer(now, callee, changed(ANSWER))).unwrap();
    world.seconds(1);
    world.expect(1, |event| matches!(event, Event::Reanswered { offer: true, .. }).then_some(()));
    world.with(1, |phone, now| phone.ack(now, caller, changed(OFFER))).unwrap();
    world.seconds(1);
    world.expect(2, |event| match event {
        Event::Reconfirmed { sdp: Some(sdp), .. } => {
            assert_eq!(*sdp, changed(OFFER));
            Some(())
        }
        _ => None,
    });
}

#[test]
fn glare_is_settled_by_491_and_the_callee_goes_first() {
    let mut world = World::pair(Transport::Udp);
    let (caller, callee) = world.call();
    world.with(1, |phone, now| phone.reinvite(now, caller, Some(changed(OFFER)))).unwrap();
    world.with(2, |phone, now| phone.reinvite(now, callee, Some(changed(ANSWER)))).unwrap();
    world.run(ms(100));
    assert_eq!((world.sent(1, "SIP/2.0 491"), world.sent(2, "SIP/2.0 491")), (1, 1));
    world.run(ms(2000));
    assert_eq!(world.expect(1, reoffer), changed(ANSWER), "0-2 s for the callee");
    world.with(1, |phone, now| phone.answer_reoffer(now, caller, OFFER.to_owned())).unwrap();
    world.seconds(1);
    world.expect(2, |event| matches!(event, Event::Reanswered { .. }).then_some(()));
    world.seconds(5);
    // The caller's own offer was made for the session before: the owner makes a new one.
    world.expect(1, |event| matches!(event, Event::ReofferFailed { status: 491, .. }).then_some(()));
    assert_eq!(world.sent(1, "INVITE"), 2, "{}", world.show_ladder());
}

#[test]
fn after_glare_an_undisturbed_reinvite_is_sent_again_by_itself() {
    let mut world = World::pair(Transport::Udp);
    let (caller, callee) = world.call();
    world.with(1, |phone, now| phone.reinvite(now, caller, Some(changed(OFFER)))).unwrap();
    world.with(2, |phone, now| phone.reinvite(now, callee, Some(changed(ANSWER)))).unwrap();
    world.run(ms(2050));
    world.with(1, |phone, now| phone.reject_reoffer(now, caller, 488)).unwrap();
    world.run(ms(100));
    world.expect(2, |event| matches!(event, Event::ReofferFailed { status: 488, .. }).then_some(()));
    world.seconds(3);
    assert_eq!(world.expect(2, reoffer), changed(OFFER));
}

#[test]
fn a_bye_that_crosses_a_reinvite_ends_the_call_on_both_sides() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut world = World::pair(transport);
        let (caller, callee) = world.call();
        world.with(1, |phone, now| phone.reinvite(now, caller, Some(changed(OFFER)))).unwrap();
        world.with(2, |phone, now| phone.bye(now, callee)).unwrap();
        world.seconds(1);
        world.expect(1, |event| matches!(event, Event::Ended { cause: EndCause::RemoteBye { .. }, .. }).then_some(()));
        world.expect(2, |event| matches!(event, Event::Ended { cause: EndCause::LocalBye, .. }).then_some(()));
        world.assert_idle(&[1, 2]);
    }
}

#[test]
fn a_bye_ends_a_reinvite_that_nobody_answered() {
    let mut world = World::pair(Transport::Udp);
    let (caller, _) = world.call();
    world.with(1, |phone, now| phone.reinvite(now, caller, Some(changed(OFFER)))).unwrap();
    world.seconds(1);
    world.with(1, |phone, now| phone.bye(now, caller)).unwrap();
    world.seconds(1);
    assert_eq!(world.sent(2, "SIP/2.0 487"), 1, "{}", world.show_ladder());
    world.assert_idle(&[1, 2]);
}

#[test]
fn update_changes_the_session_of_an_early_and_of_a_confirmed_dialog() {
    let mut world = World::pair(Transport::Udp);
    world.invite();
    world.seconds(1);
    let (leg, callee) = world.expect(2, incoming);
    world.with(2, |phone, now| phone.progress(now, leg, ANSWER.to_owned())).unwrap();
    world.seconds(1);
    let caller = world.expect(1, |event| match event {
        Event::Progress { dialog, .. } => *dialog,
        _ => None,
    });
    for _ in 0..2 {
        world.with(1, |phone, now| phone.update(now, caller, Some(changed(OFFER)))).unwrap();
        world.seconds(1);
        world.expect(2, |event| match event {
            Event::Reoffer { method, .. } => {
                assert_eq!(*method, Method::Update);
                Some(())
            }
            _ => None,
        });
        world.with(2, |phone, now| phone.answer_reoffer(now, callee, changed(ANSWER))).unwrap();
        world.seconds(1);
        world.expect(1, |event| matches!(event, Event::Reanswered { sdp: Some(_), .. }).then_some(()));
        let _ = world.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned()));
        world.seconds(1);
        // The same offer again would be answered without asking.
        world.with(1, |phone, now| phone.update(now, caller, Some(OFFER.to_owned()))).unwrap();
        world.seconds(1);
        world.expect(2, reoffer);
        world.with(2, |phone, now| phone.answer_reoffer(now, callee, ANSWER.to_owned())).unwrap();
        world.seconds(1);
        world.events(1);
    }
}

fn timed(seconds: u64) -> Config {
    let session_expires = Some(Duration::from_secs(seconds));
    Config { session_expires, ..config("alice") }
}

#[test]
fn a_session_is_refreshed_at_half_its_interval_and_lives_on() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(1, timed(100), None);
    world.add_phone(2, config("bob"), None);
    let (_, _) = world.call();
    world.seconds(50);
    assert_eq!(world.sent(1, "UPDATE"), 1, "{}", world.show_ladder());
    world.expect(1, |event| matches!(event, Event::SessionRefreshed { by_us: true, .. }).then_some(()));
    world.expect(2, |event| matches!(event, Event::SessionRefreshed { by_us: false, .. }).then_some(()));
    world.seconds(1000);
    for phone in [1, 2] {
        assert!(
            !world.events(phone).iter().any(|event| matches!(event, Event::Ended { .. })),
            "{}",
            world.show_ladder()
        );
    }
}

#[test]
fn a_session_that_nobody_refreshes_ends_on_both_sides() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(1, timed(100), None);
    world.add_phone(2, config("bob"), None);
    world.call();
    world.loss_percent = 100;
    world.seconds(100);
    world.expect(2, |event| matches!(event, Event::Ended { cause: EndCause::SessionExpired, .. }).then_some(()));
    world.expect(1, |event| matches!(event, Event::Ended { .. }).then_some(()));
    world.assert_idle(&[1, 2]);
}

#[test]
fn too_short_a_session_interval_is_raised_by_422() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(1, timed(90), None);
    world.add_phone(2, Config { min_session_expires: Duration::from_mins(5), ..config("bob") }, None);
    world.call();
    assert_eq!(world.sent(2, "SIP/2.0 422"), 1);
    assert_eq!(world.sent(1, "INVITE"), 2);
    world.seconds(160);
    world.expect(1, |event| match event {
        Event::SessionRefreshed { interval, .. } => {
            assert_eq!(interval.as_secs(), 300);
            Some(())
        }
        _ => None,
    });
}

#[test]
fn a_transfer_is_asked_for_accepted_and_reported() {
    let mut world = World::pair(Transport::Udp);
    let (caller, callee) = world.call();
    let to = "sip:carol@example.test?Replaces=c1%3Bto-tag%3D1%3Bfrom-tag%3D2";
    world.with(1, |phone, now| phone.refer(now, caller, to)).unwrap();
    world.seconds(1);
    let refer = world.expect(2, |event| match event {
        Event::TransferRequested { dialog, refer, refer_to, replaces, .. } => {
            assert_eq!((*dialog, refer_to.as_str()), (callee, "sip:carol@example.test"));
            assert_eq!(replaces.as_deref(), Some("c1;to-tag=1;from-tag=2"));
            Some(*refer)
        }
        _ => None,
    });
    world.with(2, |phone, now| phone.accept_refer(now, refer)).unwrap();
    world.seconds(1);
    let events = world.events(1);
    assert!(events.iter().any(|event| matches!(event, Event::ResponseTo { status: 202, .. })));
    assert!(events.iter().any(|event| matches!(event, Event::TransferProgress { status: 100, terminated: false, .. })));
    world.with(2, |phone, now| phone.notify_refer(now, refer, 200, "")).unwrap();
    world.seconds(1);
    world.expect(1, |event| {
        matches!(event, Event::TransferProgress { status: 200, terminated: true, .. }).then_some(())
    });
}

#[test]
fn info_and_options_inside_a_dialog_are_answered() {
    let mut world = World::pair(Transport::Udp);
    let (caller, _) = world.call();
    let content = Content { content_type: "application/dtmf-relay".to_owned(), bytes: b"Signal=1".to_vec() };
    world.with(1, |phone, now| phone.request_in_dialog(now, caller, Method::Info, &[], Some(content.clone()))).unwrap();
    world.seconds(1);
    world.expect(2, |event| match event {
        Event::Info { content: received, .. } => {
            assert_eq!(received.as_ref(), Some(&content));
            Some(())
        }
        _ => None,
    });
    world.with(1, |phone, now| phone.request_in_dialog(now, caller, Method::Options, &[], None)).unwrap();
    world.seconds(1);
    world.expect(1, |event| matches!(event, Event::ResponseTo { status: 200, .. }).then_some(()));
}

#[test]
fn the_same_offer_again_is_answered_with_the_same_sdp_without_asking() {
    let mut world = World::pair(Transport::Udp);
    let (caller, _) = world.call();
    world.with(1, |phone, now| phone.reinvite(now, caller, Some(OFFER.to_owned()))).unwrap();
    world.seconds(1);
    assert!(!world.events(2).iter().any(|event| matches!(event, Event::Reoffer { .. })));
    world.expect(1, |event| match event {
        Event::Reanswered { sdp: Some(sdp), .. } => {
            assert_eq!(sdp, ANSWER);
            Some(())
        }
        _ => None,
    });
}

#[test]
fn a_refused_reinvite_leaves_the_session_as_it_was() {
    let mut world = World::pair(Transport::Tls);
    let (caller, callee) = world.call();
    world.with(1, |phone, now| phone.reinvite(now, caller, Some(changed(OFFER)))).unwrap();
    world.seconds(1);
    world.with(2, |phone, now| phone.reject_reoffer(now, callee, 488)).unwrap();
    world.seconds(1);
    world.expect(1, |event| matches!(event, Event::ReofferFailed { status: 488, .. }).then_some(()));
    world.with(2, |phone, now| phone.reinvite(now, callee, Some(changed(ANSWER)))).unwrap();
    world.seconds(1);
    assert_eq!(world.expect(1, reoffer), changed(ANSWER));
    world.with(1, |phone, now| phone.bye(now, caller)).unwrap();
    world.assert_idle(&[1, 2]);
}

#[test]
fn a_dialog_that_the_peer_has_forgotten_ends() {
    let mut world = World::pair(Transport::Udp);
    let (caller, _) = world.call();
    world.add_phone(2, config("bob"), None); // bob's phone was started anew
    world.with(1, |phone, now| phone.reinvite(now, caller, Some(changed(OFFER)))).unwrap();
    world.seconds(1);
    world.expect(1, |event| {
        matches!(event, Event::Ended { cause: EndCause::Unreachable { status: 481 }, .. }).then_some(())
    });
    world.assert_idle(&[1]);
}
