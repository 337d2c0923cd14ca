//! What checks and agents cost: measured and printed, not judged, by `cargo test --release -p ice --test agent cost --
//! --ignored --nocapture`. Each figure stands beside a floor of the same run, because machines differ.

#![allow(clippy::print_stdout, reason = "a figure is printed")]

use ice::stun::{Attribute, Builder, Class, Integrity, Key, Message, Method, TransactionId};
use ice::{Config, Role};

use crate::net::{Net, config, ms, remote};

/// The kernel counts in ticks of some milliseconds: measured is what takes many of them.
const CHECKS: u32 = 200_000;
const SESSIONS: u32 = 40;
const AGENTS: usize = 100;

/// Time this thread has spent on a processor, in microseconds.
fn cpu_us() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: f64 = text.split(' ').next().and_then(|field| field.parse().ok()).unwrap();
    nanoseconds / 1e3
}

/// What the codec alone takes: a signed request and its answer, each built, read and verified once.
fn floor_us() -> f64 {
    let key = Key::short_term(b"a password of 24 letters");
    let started = cpu_us();
    for number in 0..CHECKS {
        let id = TransactionId::new([number.to_le_bytes(), [1; 4], [2; 4]].concat().try_into().unwrap());
        let request = Builder::new(Class::Request, Method::BINDING, id)
            .with(&Attribute::Username(b"abcdefgh:ABCDEFGH"))
            .with(&Attribute::Priority(1_862_270_975))
            .with(&Attribute::IceControlling(7))
            .integrity(Integrity::Sha1, &key)
            .fingerprint()
            .build();
        let read = Message::parse(&request).unwrap();
        assert!(read.verify(&key).is_ok());
        let answer = Builder::answer(Class::Success, &read)
            .with(&Attribute::XorMappedAddress("192.0.2.1:5000".parse().unwrap()))
            .integrity(Integrity::Sha1, &key)
            .fingerprint()
            .build();
        assert!(Message::parse(&answer).unwrap().verify(&key).is_ok());
    }
    (cpu_us() - started) / f64::from(CHECKS)
}

/// Two hosts with `count` addresses each, and no packet of one reaching the other: all pairs are checked.
fn session(count: u8) -> (f64, u32, usize) {
    let mut net = Net::new();
    let addresses = |host: u8| (1..=count).map(|n| format!("192.0.{host}.{n}").parse().unwrap()).collect::<Vec<_>>();
    let host = |net: &mut Net, at: u8| {
        let wide = Config { interfaces: addresses(at), ..config(vec![]) };
        let host = net.host(&format!("192.0.{at}.1"), wide, at);
        net.gather(host);
        host
    };
    let (a, b) = (host(&mut net, 2), host(&mut net, 3));
    for one in addresses(2) {
        for other in addresses(3) {
            net.udp_blocked.push((one, other));
        }
    }
    net.hosts[b].listeners.clear();
    let answer = net.gathered(b);
    let before = net.hosts[a].sent;
    let started = cpu_us();
    net.with(a, |agent, now| agent.add_remote(now, remote(&answer, false), Role::Controlling));
    net.run(ms(5_000));
    let took = cpu_us() - started;
    let pairs = net.hosts[a].agent.report().peers[0].pairs.len();
    (took, u32::try_from(net.hosts[a].sent - before).unwrap(), pairs)
}

/// Memory that the process holds, from the kernel's own count.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<usize>().ok()? * 4096)
}

#[test]
#[ignore = "a measurement that needs the release profile"]
fn cost_of_a_check_and_of_an_agent_beside_what_the_codec_takes() {
    let floor = floor_us();
    for count in [1, 3, 10] {
        let (mut took, mut sent, mut pairs) = (0.0, 0, 0);
        for _ in 0..SESSIONS {
            let one = session(count);
            (took, sent, pairs) = (took + one.0, sent + one.1, one.2);
        }
        let each = took / f64::from(sent);
        println!(
            "{count:>2} addresses: {pairs:>3} pairs, {sent:>5} checks sent, {each:>6.1} us each; codec floor {floor:.1} us"
        );
        assert!(pairs <= 100 && sent > 0);
    }
    let before = resident_bytes();
    let mut net = Net::new();
    let agents: Vec<usize> = (0..AGENTS)
        .map(|at| {
            let interfaces = (1..=10).map(|n| format!("192.0.{}.{n}", 2 + at).parse().unwrap()).collect();
            let host = net.host("192.0.2.1", Config { interfaces, ..config(vec![]) }, 1);
            net.gather(host);
            host
        })
        .collect();
    let gathered = resident_bytes();
    for pair in agents.chunks(2) {
        net.connect(pair[0], pair[1], false);
    }
    let connected = resident_bytes();
    if let (Some(before), Some(gathered), Some(connected)) = (before, gathered, connected) {
        let each = |from: usize, to: usize| to.saturating_sub(from) / AGENTS / 1024;
        println!(
            "{AGENTS} agents on 10 addresses: {} KiB each with what the test's network holds of them, {} KiB more with 100 pairs",
            each(before, gathered),
            each(gathered, connected)
        );
    }
}
