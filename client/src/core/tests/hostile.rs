//! Peers, servers and strangers that mean harm or are broken, and calls that end at the worst moment.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::edge::{self, SETTLED};
use super::wire::{ACCOUNT, World, answering, listening};
use crate::api::{
    AccountConfig, AnswerOptions, AutoAnswer, CallChange, CallId, CallState, Command, EndReason, MediaSource,
    PathPolicy, SrtpMode, TransportChoice,
};

const C1: CallId = CallId(1);
const C2: CallId = CallId(2);
const EVE: &str = "192.0.2.50:5060";
const PHONE: &str = "192.0.2.1:5060";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tone() -> MediaSource {
    MediaSource::Tone { hz: 1000.0 }
}

/// An INVITE that nobody asked for, from an address that may be forged.
fn invite(number: u32, from: &str, ice: &str) -> Vec<u8> {
    let mut body = "v=0\r\no=- 1 1 IN IP4 192.0.2.50\r\ns=-\r\nc=IN IP4 192.0.2.50\r\nt=0 0\r\n".to_owned();
    let _ = write!(body, "m=audio 7000 RTP/AVP 0\r\n{ice}");
    format!(
        "INVITE sip:phone@{PHONE} SIP/2.0\r\nVia: SIP/2.0/UDP {EVE};branch=z9hG4bK{number}\r\nFrom: {from};tag=e{number}\r\n\
         To: <sip:phone@{PHONE}>\r\nCall-ID: {number}\r\nCSeq: 1 INVITE\r\nContact: <sip:eve@{EVE}>\r\nMax-Forwards: 70\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn inject(world: &mut World, bytes: Vec<u8>) {
    let (from, to): (SocketAddr, SocketAddr) = (EVE.parse().unwrap(), PHONE.parse().unwrap());
    world.inject(from, to, bytes);
}

fn plain(config: AccountConfig) -> AccountConfig {
    AccountConfig { srtp: SrtpMode::Off, ..config }
}

#[test]
fn a_call_that_nobody_answers_and_nobody_cancels_does_not_ring_for_ever() {
    let mut world = World::new(1);
    world.add(0, plain(listening(PHONE, TransportChoice::Udp)));
    let lines = world.phones[0].core.open_lines();
    for number in 0..2 {
        inject(&mut world, invite(number, "<sip:eve@192.0.2.50>", ""));
    }
    world.run_for(secs(170));
    assert!(world.phones[0].core.open_lines() > lines, "they ring\n{}", world.story());
    world.run_for(secs(30));
    assert_eq!(world.phones[0].core.open_lines(), lines, "{}", world.story());
}

#[test]
fn a_peer_cannot_stretch_the_pacing_of_the_checks() {
    for pacing in ["4000000000", "4294967295", "18446744073709551615", "-1"] {
        let mut world = World::new(1);
        world.add(0, plain(answering(PHONE, 100, tone())));
        let mut ice = format!("a=ice-ufrag:eeee\r\na=ice-pwd:eeeeeeeeeeeeeeeeeeeeeeee\r\na=ice-pacing:{pacing}\r\n");
        for port in 7000..7004 {
            let _ = write!(ice, "a=candidate:{port} 1 UDP {} 192.0.2.50 {port} typ host\r\n", 2_130_706_431 - port);
        }
        inject(&mut world, invite(1, "<sip:eve@192.0.2.50>", &ice));
        world.run_for(secs(6));
        let checked = |port: u16| world.scripted.iter().any(|(to, ..)| to.port() == port);
        assert!((7000..7004).all(checked), "a=ice-pacing:{pacing}\n{}", world.story());
    }
}

#[test]
fn a_forged_invite_turns_no_media_against_anybody() {
    let mut world = World::new(1);
    world.add(0, plain(answering(PHONE, 100, tone())));
    inject(&mut world, invite(1, "<sip:eve@192.0.2.50>", ""));
    world.run_for(secs(10));
    assert!(world.phones[0].is(C2, CallState::Talking), "{}", world.story());
    let media = |world: &World| world.scripted.iter().filter(|(to, ..)| to.port() == 7000).count();
    assert_eq!(media(&world), 0, "nobody has acknowledged our answer");
    let answer = world.scripted.iter().find(|(_, _, bytes)| bytes.starts_with(b"SIP/2.0 200 "));
    let answer = String::from_utf8_lossy(&answer.unwrap().2).into_owned();
    let to = answer.lines().find(|line| line.starts_with("To: ")).unwrap();
    let ack = format!(
        "ACK sip:phone@{PHONE} SIP/2.0\r\nVia: SIP/2.0/UDP {EVE};branch=z9hG4bKack\r\nFrom: <sip:eve@192.0.2.50>;tag=e1\r\n\
         {to}\r\nCall-ID: 1\r\nCSeq: 1 ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    inject(&mut world, ack.into_bytes());
    world.run_for(secs(1));
    assert!(media(&world) > 45, "{} packets\n{}", media(&world), world.story());
}

#[test]
fn a_display_name_does_not_pass_for_the_callers_address() {
    let mut world = World::new(1);
    world.add(0, plain(listening(PHONE, TransportChoice::Udp)));
    inject(&mut world, invite(1, "\"the boss <sip:boss@example.test>\u{1b}[2J\" <sip:eve@192.0.2.50>", ""));
    world.run_for(secs(1));
    let peer = world.phones[0].changes(C2).find_map(|change| match change {
        CallChange::Created { peer, .. } => Some(peer.clone()),
        _ => None,
    });
    assert_eq!(peer.as_deref(), Some("sip:eve@192.0.2.50"), "{}", world.story());
}

#[test]
fn nothing_that_can_be_printed_of_a_running_phone_holds_a_key_or_a_password() {
    let mut world = registered(TransportChoice::Udp, PathPolicy::RelayOnly);
    world.dial(0, C1, "sip:bob:hidden@example.test", tone());
    world.run_for(secs(3));
    let secrets: Vec<String> = world.phones[0].log.iter().flat_map(|line| secrets_in(line)).collect();
    assert!(secrets.len() >= 4, "the test finds what it looks for: {secrets:?}");
    let printed = format!("{:?}\n{}", world.phones[0].core, world.story());
    for secret in secrets.iter().map(String::as_str).chain(["hidden", "\"secret\""]) {
        assert!(!printed.contains(secret), "{secret} is printed");
    }
}

/// SRTP keys and ICE passwords in a transmitted datagram of the log.
fn secrets_in(line: &str) -> Vec<String> {
    let Some((_, bytes)) = line.split_once("payload: [") else { return Vec::new() };
    let bytes: Vec<u8> = bytes.trim_end_matches([' ', '}', ']']).split(", ").filter_map(|b| b.parse().ok()).collect();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let after = |mark: &str| {
        text.split(mark)
            .skip(1)
            .map(|rest| rest.split(['\r', '|']).next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    [after("inline:"), after("ice-pwd:"), after("<password>")].concat()
}

/// Alice and bob, registered; bob answers after 300 ms.
fn registered(transport: TransportChoice, policy: PathPolicy) -> World {
    let mut world = World::new(2);
    world.edge = Some(edge::Edge::new(world.now, 480));
    let auto_answer = Some(AutoAnswer { after_ms: 300, options: AnswerOptions { source: Some(tone()) } });
    world.add(0, edge::account("alice", transport, policy));
    world.add(1, AccountConfig { auto_answer, ..edge::account("bob", transport, policy) });
    world.run_for(SETTLED);
    world
}

/// Who does what to end the call.
const ENDS: [(&str, usize, bool); 4] = [
    ("the caller hangs up", 0, false),
    ("the callee hangs up", 1, false),
    ("the caller's program stops", 0, true),
    ("the callee's program stops", 1, true),
];

fn end_at(transport: TransportChoice, after: Duration, end: (&str, usize, bool)) {
    let (what, phone, stops) = end;
    let mut world = registered(transport, PathPolicy::RelayOnly);
    world.dial(0, C1, "bob", tone());
    world.run_for(after);
    let command = if stops { Command::Shutdown } else { Command::Hangup { call: if phone == 0 { C1 } else { C2 } } };
    world.command(phone, command);
    let limit = secs(3) + Duration::from_millis(50);
    if stops {
        world.run_for(limit);
        assert!(world.phones[phone].stopped(), "{what} after {after:?}: not within 3 s\n{}", world.story());
        assert_eq!(world.phones[phone].core.open_lines(), 0, "{what} after {after:?}");
    }
    world.run_for(limit);
    // A command that came before there was a call has ended nothing.
    for (at, call) in [(0, C1), (1, C2)] {
        if world.phones[at].ended(call).is_none() {
            world.command(at, Command::Hangup { call });
        }
    }
    world.run_for(secs(4));
    let edge = world.edge.as_ref().unwrap();
    let held = edge.relay.allocations(world.now);
    assert!(held.is_empty(), "{what} after {after:?}: {held:?}\n{}", world.story());
    for at in 0..2 {
        world.command(at, Command::Shutdown);
    }
    world.run_for(limit);
    for phone in &world.phones {
        assert!(phone.stopped() && phone.core.open_lines() == 0, "{what} after {after:?}\n{}", world.story());
    }
    let edge = world.edge.as_ref().unwrap();
    let bound = edge.proxy.registrations(world.now);
    assert!(bound.is_empty(), "{what} after {after:?}: {bound:?}");
    world.run_for(secs(70));
    assert!(world.phones.iter().all(|phone| phone.core.open_lines() == 0), "{what} after {after:?}: later");
}

#[test]
fn a_call_ended_at_any_moment_by_anyone_leaves_nothing() {
    let step: u64 = std::env::var("STEP_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(170);
    for (round, after) in (0..2_000).step_by(usize::try_from(step).unwrap()).enumerate() {
        for (turn, end) in ENDS.into_iter().enumerate() {
            let transport = [TransportChoice::Udp, TransportChoice::Tcp][(round + turn) % 2];
            end_at(transport, Duration::from_millis(after), end);
        }
    }
}

#[test]
fn a_program_stopped_while_it_registers_leaves_no_binding() {
    for transport in [TransportChoice::Udp, TransportChoice::Tcp, TransportChoice::Auto] {
        for after in (0..200).step_by(3) {
            let mut world = World::new(1);
            world.edge = Some(edge::Edge::new(world.now, 480));
            let config = Box::new(edge::account("alice", transport, PathPolicy::All));
            world.command(0, Command::AddAccount { account: ACCOUNT, config });
            world.run_for(Duration::from_millis(after));
            world.command(0, Command::Shutdown);
            world.run_for(secs(4));
            assert!(world.phones[0].stopped() && world.phones[0].core.open_lines() == 0, "after {after} ms");
            let bound = world.edge.as_ref().unwrap().proxy.registrations(world.now);
            assert!(bound.is_empty(), "{transport:?} after {after} ms: {bound:?}\n{}", world.story());
            let held = world.edge.as_ref().unwrap().relay.allocations(world.now);
            assert!(held.is_empty(), "{transport:?} after {after} ms: {held:?}\n{}", world.story());
        }
    }
}

#[test]
fn servers_that_die_in_a_call_end_it_with_a_reason_or_not_at_all() {
    for (policy, survives) in
        [(PathPolicy::All, true), (PathPolicy::RelayOnly, false), (PathPolicy::RelayTcpOnly, false)]
    {
        let mut world = registered(TransportChoice::Tcp, policy);
        world.dial(0, C1, "bob", tone());
        world.run_for(secs(4));
        assert!(world.phones[0].is(C1, CallState::Talking), "{policy:?}\n{}", world.story());
        world.edge = None;
        world.run_for(secs(95)); // consent of the path and of the standby, then the time to repair it
        for (at, call) in [(0, C1), (1, C2)] {
            let ended = world.phones[at].ended(call);
            assert_eq!(ended.is_none(), survives, "{policy:?}, phone {at}: {ended:?}\n{}", world.story());
            let typed = matches!(ended, None | Some(EndReason::PathLost { .. } | EndReason::SignallingLost { .. }));
            assert!(typed, "{policy:?}, phone {at}: {ended:?}");
            world.command(at, Command::Shutdown);
        }
        world.run_for(secs(4));
        for phone in &world.phones {
            assert!(phone.stopped() && phone.core.open_lines() == 0, "{policy:?}\n{}", world.story());
        }
    }
}

/// A copy with a few bytes changed, cut out, put in, or a number made as large as numbers get.
fn damage(bytes: &[u8], rng: &mut ChaCha20Rng) -> Vec<u8> {
    const PIECES: [&[u8]; 8] =
        [b"18446744073709551616", b"4294967295", b"-1", b"\r\n", b"\"", b";", b"\xff\xff\xff\xff", b"\0\0\0\0"];
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len());
        let until = (at + rng.random_range(0..12)).min(bytes.len());
        match rng.random_range(0..5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..until)),
            2 => {
                let piece = PIECES[rng.random_range(0..PIECES.len())];
                // In the place of a number, if there is one behind.
                let digit = bytes[at..].iter().position(u8::is_ascii_digit).map_or(at, |digit| at + digit);
                let length = bytes[digit..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(digit..digit + length, piece.iter().copied());
            }
            _ => bytes[at..until].iter_mut().for_each(|byte| *byte = rng.random()),
        }
    }
    bytes
}

#[test]
fn damaged_copies_of_everything_that_was_sent_harm_nobody() {
    let rounds: u64 = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    for round in 0..rounds {
        let mut rng = ChaCha20Rng::seed_from_u64(round);
        let policy = [PathPolicy::All, PathPolicy::RelayOnly][usize::try_from(round % 2).unwrap()];
        let mut world = registered(TransportChoice::Udp, policy);
        world.dial(0, C1, "bob", tone());
        for _ in 0..1500 {
            let (from, to, bytes) = world.sent[rng.random_range(0..world.sent.len())].clone();
            let bytes = damage(&bytes, &mut rng);
            world.forge(from, to, bytes);
            world.run_for(Duration::from_millis(2));
        }
        world.run_for(secs(1));
        for at in 0..2 {
            world.command(at, Command::Shutdown);
        }
        world.run_for(secs(4));
        for phone in &world.phones {
            assert!(phone.stopped() && phone.core.open_lines() == 0, "round {round}\n{}", world.story());
        }
    }
}
