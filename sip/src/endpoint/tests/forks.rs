//! Several devices answer one INVITE.

use super::harness::{ANSWER, World, answer, changed, config, hop, incoming, ms};
use crate::event::{EndCause, Event, Invite, Transport};
use crate::message::{Message, Method};

/// A proxy with two devices behind it: both send 183 with SDP, then 200 at the given milliseconds.
fn forking(first_200: u64, second_200: Option<u64>) -> World {
    let mut world = World::new(Transport::Udp);
    world.add_phone(1, config("alice"), None);
    world.add_peer(9, move |message| {
        let Message::Request(request) = message else { return Vec::new() };
        let other = changed(ANSWER);
        match request.method {
            Method::Invite => {
                let mut answers = vec![
                    (ms(1), Message::from(request.response(100, ""))),
                    (ms(10), answer(request, 183, "one", Some(ANSWER)).into()),
                    (ms(20), answer(request, 183, "two", Some(&other)).into()),
                    (ms(30), answer(request, 183, "one", Some(ANSWER)).into()),
                    (ms(first_200), answer(request, 200, "two", Some(&other)).into()),
                ];
                answers.extend(second_200.map(|at| (ms(at), answer(request, 200, "one", Some(ANSWER)).into())));
                answers
            }
            Method::Bye => vec![(ms(1), request.response(200, "").into())],
            _ => Vec::new(),
        }
    });
    let target = "sip:bob@example.test".parse().unwrap();
    let invite = Invite { target, hop: hop(9), sdp: Some(super::harness::OFFER.to_owned()), headers: Vec::new() };
    world.with(1, |phone, now| phone.invite(now, invite)).unwrap();
    world
}

#[test]
fn each_fork_has_its_own_dialog_and_sdp_and_the_one_that_answers_wins() {
    let mut world = forking(1000, None);
    world.seconds(2);
    let events = world.events(1);
    let early: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Progress { dialog: Some(dialog), sdp, .. } => Some((*dialog, sdp.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(early.len(), 3);
    assert_ne!(early[0].0, early[1].0);
    assert_eq!((early[0].1.as_deref(), early[1].1.clone()), (Some(ANSWER), Some(changed(ANSWER))));
    assert_eq!((early[2].0, early[2].1.clone()), (early[0].0, None), "a repeated 183 has no new SDP");
    let answered = events.iter().find_map(|event| match event {
        Event::Answered { dialog, sdp, .. } => Some((*dialog, sdp.clone())),
        _ => None,
    });
    assert_eq!(answered, Some((early[1].0, Some(changed(ANSWER)))));
    let lost = events.iter().find_map(|event| match event {
        Event::Ended { dialog, cause: EndCause::ForkLost } => Some(*dialog),
        _ => None,
    });
    assert_eq!(lost, Some(early[0].0));
}

#[test]
fn a_second_200_from_another_fork_is_acknowledged_and_ended() {
    let mut world = forking(1000, Some(1005));
    world.seconds(3);
    let acks: Vec<_> = world
        .received_requests(9, &Method::Ack)
        .iter()
        .map(|a| a.headers.to().unwrap().tag().unwrap().to_owned())
        .collect();
    assert_eq!(acks, ["two", "one"]);
    let byes: Vec<_> = world
        .received_requests(9, &Method::Bye)
        .iter()
        .map(|a| a.headers.to().unwrap().tag().unwrap().to_owned())
        .collect();
    assert_eq!(byes, ["one"]);
    let answered = world.events(1).iter().filter(|event| matches!(event, Event::Answered { .. })).count();
    assert_eq!(answered, 1);
}

#[test]
fn a_request_that_came_twice_by_two_ways_is_merged() {
    let mut world = World::new(Transport::Udp);
    world.add_phone(2, config("bob"), None);
    world.add_peer(1, |_| Vec::new());
    for branch in ["a", "b"] {
        let invite = format!(
            "INVITE sip:bob@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK{branch};rport\r\nFrom: <sip:a@x>;tag=a\r\nTo: <sip:bob@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:a@10.0.0.1:5060>\r\n\r\n"
        );
        world.inject(1, 2, invite.into_bytes());
    }
    world.run(ms(100));
    assert_eq!(world.events(2).iter().filter_map(incoming).count(), 1);
    assert_eq!(world.sent(2, "SIP/2.0 482"), 1);
}
