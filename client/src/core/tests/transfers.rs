//! Somebody else takes the call: transfer (RFC 3515), redirection (RFC 3261 §8.1.3.4), another server of the same name
//! (RFC 3263 §4.3).

use std::net::SocketAddr;
use std::time::Duration;

use sip::message::{Message, Method, Request, Response};

use super::wire::{World, answering, listening};
use crate::api::{
    AccountChange, AccountConfig, CallChange, CallId, CallState, Command, EndReason, EventBody, MediaSource,
    TransportChoice,
};

const C1: CallId = CallId(1);
const C2: CallId = CallId(2);
/// A host that is no phone.
const HOST: &str = "192.0.2.50:5060";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tone() -> MediaSource {
    MediaSource::Tone { hz: 1000.0 }
}

/// Alice (0) talks to Bob (1); Carol (2) answers after half a second if `carol_answers`.
fn talking(carol_answers: bool, alice: impl FnOnce(&mut AccountConfig)) -> World {
    let mut world = World::new(3);
    let mut config = listening("192.0.2.1:5060", TransportChoice::Udp);
    alice(&mut config);
    world.add(0, config);
    world.add(1, answering("192.0.2.2:5060", 200, tone()));
    let carol = if carol_answers {
        answering("192.0.2.3:5060", 500, tone())
    } else {
        listening("192.0.2.3:5060", TransportChoice::Udp)
    };
    world.add(2, carol);
    world.dial(0, C1, "sip:bob@192.0.2.2", tone());
    world.run_until("talking", secs(3), |w| w.phones[0].is(C1, CallState::Talking));
    world.run_for(secs(2));
    world
}

fn transfer(world: &mut World) {
    world.command(1, Command::Transfer { call: C2, to: "sip:carol@192.0.2.3".to_owned() });
}

/// What the one who asked was told.
fn progress(world: &World) -> Vec<u16> {
    let changes = world.phones[1].changes(C2);
    changes
        .filter_map(|change| match change {
            CallChange::TransferProgress { status, .. } => Some(*status),
            _ => None,
        })
        .collect()
}

#[test]
fn a_transferred_call_goes_on_with_the_target_and_ends_where_it_was() {
    let mut world = talking(true, |_| ());
    transfer(&mut world);
    world.run_until("talking to carol", secs(3), |w| w.phones[0].is(C2, CallState::Talking));
    let asked = |change: &CallChange| matches!(change, CallChange::TransferRequested { call: Some(C2), to } if to.contains("carol"));
    assert!(world.phones[0].sees(C1, asked), "{}", world.story());
    // Bob does not say BYE: then Alice does.
    world.run_until("the first call is over", secs(5), |w| {
        w.phones[0].ended(C1).is_some() && w.phones[1].ended(C2).is_some()
    });
    let told = progress(&world);
    assert_eq!((told.first(), told.last()), (Some(&100), Some(&200)), "{told:?}");
    assert!(told.contains(&180) && told.is_sorted(), "{told:?}");
    world.run_for(secs(2));
    let end = world.now - world.start;
    for (at, call) in [(0, C2), (2, C2)] {
        assert!(world.phones[at].loudness(call, end - secs(1), end) > 1000.0, "phone {at}\n{}", world.story());
    }
    world.command(0, Command::Hangup { call: C2 });
    world.run_until("all over", secs(3), |w| w.phones[0].ended(C2).is_some() && w.phones[2].ended(C2).is_some());
    assert!((0..3).all(|at| world.phones[at].core.open_lines() == 1), "something is left\n{}", world.story());
}

#[test]
fn the_call_that_was_asked_for_outlives_an_early_bye_of_the_one_who_asked() {
    let mut world = talking(true, |_| ());
    transfer(&mut world);
    world.run_until("accepted", secs(1), |w| !progress(w).is_empty());
    world.command(1, Command::Hangup { call: C2 });
    world.run_until("talking to carol", secs(3), |w| w.phones[0].is(C2, CallState::Talking));
    assert_eq!(world.phones[0].ended(C1), Some(EndReason::RemoteHangup));
}

#[test]
fn a_target_that_declines_leaves_the_call_where_it_was_and_may_be_followed_by_another_transfer() {
    let mut world = talking(false, |_| ());
    for call in [C2, CallId(4)] {
        transfer(&mut world);
        world.run_until("carol rings", secs(2), |w| w.phones[2].is(call, CallState::Ringing));
        world.command(2, Command::Reject { call, status: 486 });
        world.run_until("declined", secs(2), |w| w.phones[0].ended(call).is_some());
        world.run_for(secs(6));
        assert_eq!(progress(&world).last(), Some(&486));
        assert!(world.phones[0].ended(C1).is_none() && world.phones[1].ended(C2).is_none(), "{}", world.story());
    }
    let end = world.now - world.start;
    assert!(world.phones[0].loudness(C1, end - secs(1), end) > 1000.0);
}

#[test]
fn what_must_not_be_transferred_is_refused_and_both_sides_hear_of_it() {
    let refused = |world: &mut World, name: &str| {
        world.run_for(secs(1));
        assert_eq!(progress(world).last(), Some(&603), "{name}\n{}", world.story());
        let seen = |change: &CallChange| matches!(change, CallChange::TransferRequested { call: None, .. });
        assert!(world.phones[0].sees(C1, seen), "{name}");
        assert!(world.phones[0].ended(C1).is_none(), "{name}");
    };
    let mut world = talking(true, |config| config.transfers = false);
    transfer(&mut world);
    refused(&mut world, "the account does not allow it");
    assert!(world.phones[2].changes(C2).next().is_none(), "carol was called");

    let mut world = talking(false, |_| ());
    transfer(&mut world);
    world.run_until("carol rings", secs(2), |w| w.phones[2].is(C2, CallState::Ringing));
    transfer(&mut world);
    refused(&mut world, "one transfer is under way");
    assert!(world.phones[2].changes(CallId(4)).next().is_none(), "carol was called twice");
}

/// Answers what comes for the hosts that are no phones, for `time`.
fn run(world: &mut World, time: Duration, mut answer: impl FnMut(SocketAddr, &Request) -> Option<Response>) {
    let end = world.now + time;
    while world.now < end {
        world.run_for(Duration::from_millis(5));
        for (to, from, payload) in std::mem::take(&mut world.scripted) {
            if let Ok(Message::Request(request)) = sip::parse::parse_message(&payload)
                && let Some(response) = answer(to, &request)
            {
                world.inject(to, from, response.to_bytes());
            }
        }
    }
}

/// A response with a To tag and one more header field.
fn respond(request: &Request, status: u16, header: (&str, &str)) -> Option<Response> {
    let mut response = request.response(status, "");
    let to = response.headers.get("To").unwrap_or_default().to_owned();
    if !to.contains("tag=") {
        response.headers.set("To", format!("{to};tag=host"));
    }
    response.headers.push(header.0, header.1);
    (request.method != Method::Ack).then_some(response)
}

#[test]
fn a_redirected_call_goes_where_it_was_sent() {
    let mut world = World::new(2);
    world.add(0, listening("192.0.2.1:5060", TransportChoice::Udp));
    world.add(1, answering("192.0.2.2:5060", 200, tone()));
    world.dial(0, C1, "sip:bob@192.0.2.50", tone());
    run(&mut world, secs(3), |_, request| {
        respond(request, 302, ("Contact", "<tel:+4930123456>, \"Bob\" <sip:bob@192.0.2.2:5060>;q=0.5"))
    });
    let sent_on =
        |change: &CallChange| matches!(change, CallChange::Redirected { to } if to == "sip:bob@192.0.2.2:5060");
    assert!(world.phones[0].sees(C1, sent_on), "{}", world.story());
    assert!(world.phones[0].is(C1, CallState::Talking) && world.phones[0].ended(C1).is_none(), "{}", world.story());
    let end = world.now - world.start;
    assert!(world.phones[1].loudness(C2, end - secs(1), end) > 1000.0, "{}", world.story());
}

#[test]
fn redirections_in_a_circle_without_a_contact_or_away_from_tls_end_the_call() {
    /// Its name, whom it calls, the Contact of the n-th answer, the number of INVITEs.
    type Case = (&'static str, &'static str, fn(usize) -> String, usize);
    let cases: [Case; 4] = [
        ("to itself", "sip:bob@192.0.2.50", |_| "<sip:bob@192.0.2.50>".to_owned(), 1),
        ("to and fro", "sip:bob@192.0.2.50", |n| format!("<sip:bob{}@192.0.2.50>", n % 2), 3),
        ("without end", "sip:bob@192.0.2.50", |n| format!("<sip:bob{n}@192.0.2.50>"), 6),
        ("to a telephone", "sip:bob@192.0.2.50", |_| "<tel:+4930123456>".to_owned(), 1),
    ];
    for (name, target, contact, invites) in cases {
        let mut world = World::new(1);
        world.add(0, listening("192.0.2.1:5060", TransportChoice::Udp));
        world.dial(0, C1, target, tone());
        let mut asked = Vec::new();
        run(&mut world, secs(5), |_, request| {
            if request.method == Method::Invite && !asked.contains(&request.headers.get("Via").map(str::to_owned)) {
                asked.push(request.headers.get("Via").map(str::to_owned));
            }
            respond(request, 302, ("Contact", &contact(asked.len())))
        });
        assert_eq!(asked.len(), invites, "{name}");
        let ended = world.phones[0].ended(C1);
        assert!(matches!(ended, Some(EndReason::Rejected { status: 302, .. })), "{name}: {ended:?}");
    }
}

#[test]
fn a_503_of_one_server_is_followed_by_the_next_of_the_same_name() {
    let mut world = World::new(2);
    world.add(0, listening("192.0.2.1:5070", TransportChoice::Udp));
    world.add(1, answering("192.0.2.2:5060", 200, tone()));
    world.dial(0, C1, "sip:bob@two.example.test", tone());
    let mut overloaded = 0;
    run(&mut world, secs(4), |_, request| {
        overloaded += usize::from(request.method == Method::Invite);
        respond(request, 503, ("Retry-After", "600"))
    });
    assert_eq!(overloaded, 1, "{}", world.story());
    assert!(world.phones[0].is(C1, CallState::Talking) && world.phones[0].ended(C1).is_none(), "{}", world.story());
    world.command(0, Command::Hangup { call: C1 });
    world.run_for(secs(4));
    assert_eq!(world.phones[0].ended(C1), Some(EndReason::LocalHangup));
}

#[test]
fn a_registrar_that_says_503_is_followed_by_the_next_and_alone_is_left_in_peace_as_long_as_it_asks() {
    let account = |edge: Option<&str>| AccountConfig {
        aor: "sip:alice@two.example.test".to_owned(),
        edge: edge.map(ToOwned::to_owned),
        transport: TransportChoice::Udp,
        mras: false,
        ..AccountConfig::default()
    };
    let first: SocketAddr = HOST.parse().unwrap();
    let registrar = |to: SocketAddr, request: &Request| {
        if to == first {
            respond(request, 503, ("Retry-After", "600"))
        } else {
            respond(request, 200, ("Contact", &format!("{};expires=600", request.headers.get("Contact")?)))
        }
    };
    let accounts = |world: &World| -> Vec<AccountChange> {
        let events = world.phones[0].events.iter();
        events
            .filter_map(|(_, event)| match event {
                EventBody::Account { change, .. } => Some((**change).clone()),
                _ => None,
            })
            .collect()
    };
    let mut world = World::new(1);
    world.add(0, account(None));
    run(&mut world, secs(2), registrar);
    let registered = |change: &AccountChange| matches!(change, AccountChange::Registered { server, .. } if server.ip() == std::net::IpAddr::from([192, 0, 2, 2]));
    assert!(accounts(&world).iter().any(registered), "{}", world.story());

    let mut world = World::new(1);
    world.add(0, account(Some(HOST)));
    let mut asked = Vec::new();
    let start = world.now;
    for _ in 0..70 {
        let at = world.now - start;
        run(&mut world, secs(10), |to, request| {
            asked.push(at);
            registrar(to, request)
        });
    }
    let refused = |change: &AccountChange| matches!(change, AccountChange::RegistrationFailed { retry_in_s: Some(retry), .. } if *retry >= 600);
    assert!(accounts(&world).iter().any(refused), "{}", world.story());
    assert_eq!(asked.len(), 2, "at once and after ten minutes: {asked:?}");
    assert!(asked[1] >= secs(590), "{asked:?}");
}
