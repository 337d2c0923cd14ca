//! From the command to the last packet.

use std::time::Duration;

use super::wire::{ACCOUNT, World, answering, listening};
use crate::api::{
    CallChange, CallId, CallState, Command, DialOptions, EndReason, MediaDirection, MediaSource, PathCause, Protection,
    TransportChoice,
};

const C1: CallId = CallId(1);
const C2: CallId = CallId(2);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tone() -> MediaSource {
    MediaSource::Tone { hz: 1000.0 }
}

/// Two phones, the second one answers after a second.
fn ready(seed_of_answer: MediaSource) -> World {
    let mut world = World::new(2);
    world.add(0, listening("192.0.2.1:5060", TransportChoice::Udp));
    world.add(1, answering("192.0.2.2:5060", 1000, seed_of_answer));
    world
}

#[test]
fn a_call_comes_up_with_early_media_promotes_and_tells_the_peer() {
    let mut world = ready(tone());
    world.dial(0, C1, "sip:bob@192.0.2.2", tone());
    let early = world.run_until("early media", secs(1), |w| w.phones[0].is(C1, CallState::EarlyMedia));
    assert!(early < Duration::from_millis(400), "early media after {early:?}\n{}", world.story());
    world.run_until("talking", secs(2), |w| {
        w.phones[0].is(C1, CallState::Talking) && w.phones[1].is(C2, CallState::Talking)
    });
    world.run_until("promoted and announced", secs(3), |w| {
        let promoted = |change: &CallChange| matches!(change, CallChange::Promoted { .. });
        let announced = |change: &CallChange| matches!(change, CallChange::Announced { .. });
        [(0, C1), (1, C2)]
            .into_iter()
            .all(|(at, call)| w.phones[at].sees(call, promoted) && w.phones[at].sees(call, announced))
    });
    world.run_for(secs(2));
    for (at, call) in [(0, C1), (1, C2)] {
        let phone = &world.phones[at];
        for wanted in [MediaDirection::Sent, MediaDirection::Received] {
            let saw = phone.sees(
                call,
                |change| matches!(change, CallChange::FirstMedia { direction, .. } if *direction == wanted),
            );
            assert!(saw, "phone {at}: {wanted:?}\n{}", world.story());
        }
        assert!(phone.sees(call, |change| {
            matches!(change, CallChange::MediaStarted { protection: Protection::SrtpOverPlainSignalling, codec } if codec == "opus")
        }));
        let end = world.now - world.start;
        assert!(phone.loudness(call, end - secs(1), end) > 1000.0, "phone {at} hears nothing");
        let paths = phone.changes(call).filter(|change| {
            matches!(
                change,
                CallChange::PathChanged { component: crate::api::Component::Rtp, cause: PathCause::FirstValid, .. }
            )
        });
        assert_eq!(paths.count(), 1, "phone {at} moved more than once\n{}", world.story());
    }
    let by_us = |change: &CallChange| matches!(change, CallChange::Announced { by_us: true, .. });
    assert!(world.phones[0].sees(C1, by_us), "the caller announces");
    assert!(!world.phones[1].sees(C2, by_us), "the callee does not");
}

#[test]
fn statistics_come_once_a_second_and_hanging_up_leaves_nothing_behind() {
    let mut world = ready(MediaSource::Echo);
    world.dial(0, C1, "sip:bob@192.0.2.2", tone());
    world.run_for(secs(6));
    let stats: Vec<_> = world.phones[0]
        .changes(C1)
        .filter_map(|change| if let CallChange::Stats { stats } = change { Some((**stats).clone()) } else { None })
        .collect();
    assert!((4..=6).contains(&stats.len()), "{} reports\n{}", stats.len(), world.story());
    let last = stats.last().unwrap();
    assert!(last.received_packets > 150 && last.lost_packets == 0, "{last:?}");
    world.command(0, Command::Hangup { call: C1 });
    world.run_until("both ended", secs(3), |w| w.phones[0].ended(C1).is_some() && w.phones[1].ended(C2).is_some());
    assert_eq!(world.phones[0].ended(C1), Some(EndReason::LocalHangup));
    assert_eq!(world.phones[1].ended(C2), Some(EndReason::RemoteHangup));
    for at in 0..2 {
        assert_eq!(world.phones[at].core.open_lines(), 1, "only the listening socket is left at phone {at}");
        world.command(at, Command::Shutdown);
    }
    world.run_for(secs(4));
    for phone in &world.phones {
        assert!(phone.stopped());
        assert_eq!(phone.core.open_lines(), 0);
    }
}

#[test]
fn before_the_answer_no_microphone_is_sent_by_either_side() {
    let mut world = World::new(2);
    world.add(0, listening("192.0.2.1:5060", TransportChoice::Udp));
    world.add(1, listening("192.0.2.2:5060", TransportChoice::Udp));
    world.dial(0, C1, "sip:bob@192.0.2.2", tone());
    world.run_until("ringing", secs(1), |w| w.phones[1].is(C2, CallState::Ringing));
    world.run_for(secs(3));
    let (from, to) = (secs(1), secs(3));
    assert!(world.phones[1].loudness(C2, from, to) < 10.0, "the caller is silent before the answer");
    assert!(world.phones[0].loudness(C1, from, to) > 100.0, "the caller hears the callee's ringback");
    world.command(1, Command::Answer { call: C2, options: Box::default() });
    world.run_for(secs(2));
    let end = world.now - world.start;
    assert!(world.phones[1].loudness(C2, end - secs(1), end) > 1000.0, "{}", world.story());
    assert!(world.phones[0].loudness(C1, end - secs(1), end) > 1000.0);
}

#[test]
fn a_large_invite_moves_to_tcp_unless_udp_was_asked_for() {
    let mut world = World::new(2);
    // Six more addresses make an offer of more than 1300 bytes.
    let addresses = (100..106).map(|last| std::net::IpAddr::from([192, 0, 2, last])).collect();
    world.interfaces(0, addresses);
    world.add(0, listening("192.0.2.1:5060", TransportChoice::Auto));
    world.add(1, answering("192.0.2.2:5060", 200, tone()));
    world.dial(0, C1, "sip:bob@192.0.2.2", tone());
    world.run_until("talking", secs(3), |w| w.phones[0].is(C1, CallState::Talking));
    assert!(world.phones[0].log.iter().any(|line| line.contains("OpenStream")), "a TCP connection was made");
    world.run_for(secs(1));
    assert!(world.phones[0].loudness(C1, secs(1), secs(2)) > 1000.0, "{}", world.story());
}

#[test]
fn busy_declined_cancelled_and_unanswered_calls_end_with_their_reasons() {
    type Case = (&'static str, fn(&mut World), fn(&EndReason) -> bool, fn(&EndReason) -> bool);
    let cases: [Case; 4] = [
        (
            "busy",
            |w| w.command(1, Command::Reject { call: C2, status: 486 }),
            |reason| matches!(reason, EndReason::Busy { status: 486, .. }),
            |reason| matches!(reason, EndReason::Declined { status: 486 }),
        ),
        (
            "declined",
            |w| w.command(1, Command::Hangup { call: C2 }),
            |reason| matches!(reason, EndReason::Rejected { status: 603, .. }),
            |reason| matches!(reason, EndReason::Declined { status: 603 }),
        ),
        (
            "cancelled",
            |w| w.command(0, Command::Hangup { call: C1 }),
            |reason| matches!(reason, EndReason::LocalHangup),
            |reason| matches!(reason, EndReason::Cancelled),
        ),
        (
            "nobody answers",
            |w| w.run_for(secs(5)),
            |reason| matches!(reason, EndReason::NoAnswer { waited_s: 5, .. }),
            |reason| matches!(reason, EndReason::Cancelled),
        ),
    ];
    for (name, act, caller, callee) in cases {
        let mut world = World::new(2);
        world.add(0, listening("192.0.2.1:5060", TransportChoice::Udp));
        world.add(1, listening("192.0.2.2:5060", TransportChoice::Udp));
        let options = Box::new(DialOptions { ring_timeout_ms: Some(5000), ..DialOptions::default() });
        world.command(0, Command::Dial { call: C1, account: ACCOUNT, to: "sip:bob@192.0.2.2".to_owned(), options });
        world.run_until("ringing", secs(1), |w| w.phones[1].is(C2, CallState::Ringing));
        act(&mut world);
        world.run_for(secs(4));
        let (one, two) = (world.phones[0].ended(C1), world.phones[1].ended(C2));
        assert!(one.as_ref().is_some_and(caller), "{name}: caller {one:?}\n{}", world.story());
        assert!(two.as_ref().is_some_and(callee), "{name}: callee {two:?}\n{}", world.story());
        assert!((0..2).all(|at| world.phones[at].core.open_lines() == 1), "{name}: something is left");
    }
}

#[test]
fn nobody_at_the_other_end_is_said_after_the_transaction_timeout() {
    let mut world = World::new(1);
    world.add(0, listening("192.0.2.1:5060", TransportChoice::Udp));
    world.dial(0, C1, "sip:bob@192.0.2.99", tone());
    world.run_for(secs(40));
    assert!(matches!(world.phones[0].ended(C1), Some(EndReason::Unreachable { .. })), "{}", world.story());
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let mut world = ready(tone());
        world.dial(0, C1, "sip:bob@192.0.2.2", tone());
        world.run_for(secs(3));
        world.command(0, Command::Hangup { call: C1 });
        world.run_for(secs(1));
        world.phones.iter().map(|phone| phone.log.clone()).collect::<Vec<_>>()
    };
    let (first, second) = (run(), run());
    assert!(first[0].len() > 150);
    for (one, two) in first.iter().flatten().zip(second.iter().flatten()) {
        assert_eq!(one, two);
    }
    assert_eq!(first, second);
}

#[test]
fn a_large_invite_to_a_peer_without_tcp_goes_over_udp_after_all() {
    let mut world = World::new(2);
    let addresses = (100..106).map(|last| std::net::IpAddr::from([192, 0, 2, last])).collect();
    world.interfaces(0, addresses);
    world.add(0, listening("192.0.2.1:5060", TransportChoice::Auto));
    world.add(1, answering("192.0.2.2:5060", 200, tone()));
    world.phones[1].listening.clear();
    world.dial(0, C1, "sip:bob@192.0.2.2", tone());
    world.run_until("talking", secs(3), |w| w.phones[0].is(C1, CallState::Talking));
    assert!(world.phones[0].log.iter().any(|line| line.contains("OpenStream")), "TCP was tried first");
}
