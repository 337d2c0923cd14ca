//! What changes while a call runs: hold, digits, mute, a peer without ICE.

use std::time::Duration;

use super::wire::{World, answering, listening};
use crate::api::{
    AccountId, CallChange, CallId, CallState, Command, CommandError, EngineChange, EventBody, MediaSource, PathCause,
    TransportChoice,
};

const C1: CallId = CallId(1);
const C2: CallId = CallId(2);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn talking() -> World {
    let mut world = World::new(2);
    world.add(0, listening("192.0.2.1:5060", TransportChoice::Udp));
    world.add(1, answering("192.0.2.2:5060", 100, MediaSource::Tone { hz: 500.0 }));
    world.dial(0, C1, "sip:bob@192.0.2.2", MediaSource::Tone { hz: 1000.0 });
    world.run_for(secs(3));
    assert!(world.phones[0].is(C1, CallState::Talking), "{}", world.story());
    world
}

#[test]
fn an_account_is_not_replaced_under_its_calls() {
    let mut world = talking();
    let config = Box::new(listening("192.0.2.1:5060", TransportChoice::Udp));
    world.command(0, Command::AddAccount { account: AccountId(1), config });
    world.run_for(secs(1));
    let is_refusal = |change: &EngineChange| {
        matches!(change, EngineChange::Refused { error: CommandError::AccountExists { .. }, .. })
    };
    let refused = |body: &EventBody| matches!(body, EventBody::Engine(change) if is_refusal(change));
    assert!(world.phones[0].events.iter().any(|(_, body)| refused(body)), "{}", world.story());
    assert!(world.phones[0].is(C1, CallState::Talking), "{}", world.story());
}

#[test]
fn hold_silences_both_sides_and_resume_brings_them_back() {
    let mut world = talking();
    world.command(0, Command::Hold { call: C1 });
    world.run_for(secs(2));
    assert!(world.phones[0].is(C1, CallState::Held) && world.phones[1].is(C2, CallState::Held), "{}", world.story());
    let end = world.now - world.start;
    assert!(world.phones[1].loudness(C2, end - secs(1), end) < 10.0);
    assert!(world.phones[0].loudness(C1, end - secs(1), end) < 10.0);
    world.command(0, Command::Resume { call: C1 });
    world.run_for(secs(2));
    let end = world.now - world.start;
    assert!(world.phones[1].loudness(C2, end - secs(1), end) > 1000.0, "{}", world.story());
    assert!(world.phones[0].loudness(C1, end - secs(1), end) > 1000.0);
}

#[test]
fn digits_arrive_once_each_in_both_directions() {
    let mut world = talking();
    world.command(0, Command::SendDtmf { call: C1, digits: "123#".to_owned() });
    world.command(1, Command::SendDtmf { call: C2, digits: "9*D".to_owned() });
    world.run_for(secs(3));
    let digits = |at: usize, call| -> String {
        let changes = world.phones[at].changes(call);
        changes.filter_map(|change| if let CallChange::Dtmf { digit } = change { Some(*digit) } else { None }).collect()
    };
    assert_eq!((digits(1, C2), digits(0, C1)), ("123#".to_owned(), "9*D".to_owned()), "{}", world.story());
}

#[test]
fn muting_sends_silence_and_goes_on_sending() {
    let mut world = talking();
    world.command(0, Command::SetMuted { call: C1, muted: true });
    world.run_for(secs(2));
    let end = world.now - world.start;
    assert!(world.phones[1].loudness(C2, end - secs(1), end) < 10.0);
    assert!(world.phones[0].loudness(C1, end - secs(1), end) > 1000.0);
}

#[test]
fn commands_at_a_wrong_moment_are_refused_with_a_sentence() {
    let mut world = World::new(1);
    world.add(0, listening("192.0.2.1:5060", TransportChoice::Udp));
    world.command(0, Command::Hangup { call: C1 });
    world.command(
        0,
        Command::Dial { call: C1, account: super::wire::ACCOUNT, to: "bob".to_owned(), options: Box::default() },
    );
    let story = world.story();
    assert!(story.contains("unknown-call") && story.contains("bad-target"), "{story}");
}

/// The last figures of a call.
fn stats(world: &World, phone: usize, call: CallId) -> crate::api::CallStats {
    let figures = world.phones[phone].changes(call).filter_map(|change| match change {
        CallChange::Stats { stats } => Some((**stats).clone()),
        _ => None,
    });
    figures.last().unwrap()
}

#[test]
fn an_ice_restart_finds_a_path_again_and_loses_no_sound() {
    let mut world = talking();
    world.command(0, Command::RestartIce { call: C1 });
    world.run_for(secs(4));
    let restarted = |change: &CallChange| matches!(change, CallChange::PathChanged { cause: PathCause::Restarted, .. });
    assert!(world.phones[0].sees(C1, restarted) && world.phones[1].sees(C2, restarted), "{}", world.story());
    let promotions = world.phones[0].changes(C1).filter(|change| matches!(change, CallChange::Promoted { .. }));
    assert_eq!(promotions.count(), 2, "once per ICE session\n{}", world.story());
    for (phone, call) in [(0, C1), (1, C2)] {
        let stats = stats(&world, phone, call);
        assert!(stats.lost_packets == 0 && stats.received_packets > 250, "{stats:?}");
    }
}

#[test]
fn a_new_key_in_a_re_offer_is_accepted_without_a_lost_packet() {
    let mut world = talking();
    let other = media::srtp::sdes::MasterKey::from_random(
        media::srtp::sdes::Suite::AesCm128HmacSha1_80,
        &[42; media::srtp::sdes::KEY_AND_SALT_BYTES_MAX],
    );
    world.phones[0].core.calls.get_mut(&C1).unwrap().seeds.key = other;
    world.command(0, Command::Hold { call: C1 });
    world.run_for(secs(1));
    world.command(0, Command::Resume { call: C1 });
    world.run_for(secs(3));
    let end = world.now - world.start;
    assert!(world.phones[1].loudness(C2, end - secs(1), end) > 1000.0, "{}", world.story());
    let stats = stats(&world, 1, C2);
    assert!(stats.lost_packets == 0, "{stats:?}");
}

#[test]
fn many_calls_leave_nothing_in_the_core() {
    let mut world = World::new(2);
    world.add(0, listening("192.0.2.1:5060", TransportChoice::Udp));
    world.add(1, answering("192.0.2.2:5060", 50, MediaSource::Silence));
    for number in 0..12 {
        let call = CallId(number * 2 + 1);
        world.dial(0, call, "sip:bob@192.0.2.2", MediaSource::Silence);
        world.run_for(Duration::from_millis(700));
        assert!(world.phones[0].is(call, CallState::Talking), "call {number}\n{}", world.story());
        let (hanging_up, other) = if number % 2 == 0 { (0, call) } else { (1, CallId(number * 2 + 2)) };
        world.command(hanging_up, Command::Hangup { call: other });
        world.run_for(Duration::from_millis(500));
        assert!(world.phones[0].ended(call).is_some(), "call {number}\n{}", world.story());
    }
    for phone in &world.phones {
        assert!(phone.core.calls.is_empty());
        assert_eq!(phone.core.open_lines(), 1);
    }
}
