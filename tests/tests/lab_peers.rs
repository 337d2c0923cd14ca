//! Calls between icephone and other people's phones, through real servers and real NATs, with different speech both ways.
//!
//! What the others do wrong, how it was seen, and how icephone lives with it is in `client/docs/interop.md`. A cell that they do not
//! manage between themselves either is named there and left out here.

use std::fmt::Write as _;
use std::time::Duration;

use tests::lab::nat::NatKind::{FullCone, PortRestricted, Symmetric};
use tests::lab::network::{Families, Host, Plan};
use tests::lab::servers::{NetLab, Offer};
use tests::lab::skip;
use tests::peer::person::{Place, Program};

/// Two homes behind the usual kind of NAT, everything protected.
const HOMES: Place = Place {
    name: "home to home, TLS and SRTP",
    caller: Host::Alice,
    callee: Host::Bob,
    nats: [PortRestricted, PortRestricted],
    tls: true,
    srtp: true,
    loss: 0.0,
    delay: &[],
};

const UDP: Place = Place { name: "home to home, UDP with large INVITEs", tls: false, ..HOMES };

fn lan() -> Place {
    Place { name: "one LAN", callee: Host::Carol, ..UDP }
}

fn out() -> Place {
    Place { name: "home to public", callee: Host::Dave, ..UDP }
}

/// Everything that the laboratory has for other phones.
fn all_places() -> Vec<Place> {
    vec![
        HOMES,
        UDP,
        Place { name: "home to home, UDP without SRTP", srtp: false, ..UDP },
        Place { name: "home to home, TLS without SRTP", srtp: false, ..HOMES },
        lan(),
        out(),
        Place { name: "public to home", caller: Host::Dave, callee: Host::Alice, ..UDP },
        Place { name: "symmetric to port-restricted", nats: [Symmetric, PortRestricted], ..UDP },
        Place { name: "full cone to symmetric", nats: [FullCone, Symmetric], ..UDP },
        Place { name: "symmetric to symmetric", nats: [Symmetric, Symmetric], ..UDP },
        Place { name: "5 % loss", loss: 5.0, ..HOMES },
        Place { name: "80 ms with 20 ms jitter", delay: &["delay=80", "jitter=20"], ..HOMES },
    ]
}

/// Makes the calls in one laboratory, and says of each what became of it.
fn calls(test: &str, programs: [Program; 2], places: &[Place]) {
    calls_over(test, Families::V4, programs, places);
}

fn calls_over(test: &str, families: Families, programs: [Program; 2], places: &[Place]) {
    let lab = match NetLab::build(Plan { families, ..Plan::default() }, &Offer::default()) {
        Ok(lab) => lab,
        Err(reason) => return skip(test, &reason),
    };
    let mut failures = String::new();
    for place in places {
        let [caller, callee] = programs;
        let result = lab.mixed_call(programs, place).and_then(|heard| {
            println!(
                "{caller} to {callee}, {}: heard {:.2} and {:.2}, path {}, first packet received after {:?} ms",
                place.name, heard.likeness[0].0, heard.likeness[1].0, heard.path, heard.first_received_ms
            );
            heard.check()
        });
        let released = lab.wait_released(Duration::from_secs(10));
        if let Err(error) = result.and(released) {
            let _ = writeln!(failures, "{caller} to {callee}, {}: {error}\n", place.name);
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn icephone_and_linphone_talk_whoever_calls() {
    let name = "icephone_and_linphone_talk_whoever_calls";
    calls(name, [Program::Icephone, Program::Linphone], &[HOMES]);
    calls(name, [Program::Linphone, Program::Icephone], &[UDP]);
}

#[test]
fn icephone_and_baresip_talk_whoever_calls() {
    let name = "icephone_and_baresip_talk_whoever_calls";
    calls(name, [Program::Icephone, Program::Baresip], &[UDP]);
    calls(name, [Program::Baresip, Program::Icephone], &[HOMES]);
}

#[test]
#[ignore = "soak: a dozen calls in real time"]
fn soak_icephone_calls_linphone_everywhere() {
    calls("soak_icephone_calls_linphone_everywhere", [Program::Icephone, Program::Linphone], &all_places());
}

#[test]
#[ignore = "soak: a dozen calls in real time"]
fn soak_linphone_calls_icephone_everywhere() {
    calls("soak_linphone_calls_icephone_everywhere", [Program::Linphone, Program::Icephone], &all_places());
}

#[test]
#[ignore = "soak: a dozen calls in real time"]
fn soak_icephone_calls_baresip_everywhere() {
    // There baresip sends what it says through its relay to where the relay does not reach (interop.md, the called baresip).
    let lost = [lan().name, out().name];
    let places: Vec<_> = all_places().into_iter().filter(|place| !lost.contains(&place.name)).collect();
    calls("soak_icephone_calls_baresip_everywhere", [Program::Icephone, Program::Baresip], &places);
}

#[test]
#[ignore = "soak: a dozen calls in real time"]
fn soak_baresip_calls_icephone_everywhere() {
    calls("soak_baresip_calls_icephone_everywhere", [Program::Baresip, Program::Icephone], &all_places());
}

#[test]
#[ignore = "soak: eight calls in real time"]
fn soak_icephone_and_the_others_talk_over_ipv6_alone_and_with_both() {
    let name = "soak_icephone_and_the_others_talk_over_ipv6_alone_and_with_both";
    let homes = Place { name: "IPv6, home to home, TLS and SRTP", ..HOMES };
    let both = Place { name: "dual stack, home to home, UDP", ..UDP };
    for other in [Program::Linphone, Program::Baresip] {
        for programs in [[Program::Icephone, other], [other, Program::Icephone]] {
            calls_over(name, Families::V6, programs, std::slice::from_ref(&homes));
            calls_over(name, Families::Dual, programs, std::slice::from_ref(&both));
        }
    }
}
