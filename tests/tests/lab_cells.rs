//! Calls between two icephones through real servers and real NATs, their paths read from captures.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::lab::cells::cells;
use tests::lab::netns;
use tests::lab::network::{HOSTS, Host, Network, Plan};
use tests::lab::phone::Phone;
use tests::lab::run::Process;
use tests::lab::servers::{NetLab, Offer};
use tests::lab::user::aor;
use tests::lab::{skip, table};

const STEP: Duration = Duration::from_secs(30);

#[test]
fn a_representative_set_of_cells_takes_the_path_that_the_oracle_says() {
    let set = cells().into_iter().filter(|cell| cell.representative).collect();
    table::check("a_representative_set_of_cells_takes_the_path_that_the_oracle_says", set, 1);
}

/// `tests/run --all`; `CELLS=text` runs only those with the text in their names, `CELL_RUNS` as often as it says.
#[test]
#[ignore = "half an hour"]
fn every_cell_takes_the_path_that_the_oracle_says_three_times() {
    let wanted = std::env::var("CELLS").unwrap_or_default();
    let times = std::env::var("CELL_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let set = cells().into_iter().filter(|cell| cell.name.contains(&wanted)).collect();
    table::check("every_cell_takes_the_path_that_the_oracle_says_three_times", set, times);
}

fn ready(phone: &mut Phone) {
    phone.event("credentials-received", STEP).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn two_endpoints_ring_and_one_answers() {
    const NAME: &str = "two_endpoints_ring_and_one_answers";
    let lab = match NetLab::build(Plan::default(), &Offer::default()) {
        Ok(lab) => lab,
        Err(reason) => return skip(NAME, &reason),
    };
    // The same user on two hosts; the second would answer much later.
    let config = lab.account(Host::Carol, "").expect("an account").to_string_lossy().into_owned();
    let bot = |host: Host, ring: &str| {
        let arguments = ["-c", &config, "bot", "--json", "--tune", "--ring", ring];
        let mut bot = Phone::start_in(Some(&lab.network.host(host)), &arguments, |_| {});
        ready(&mut bot);
        bot
    };
    let (mut answers, mut stops) = (bot(Host::Carol, "2s"), bot(Host::Bob, "60s"));
    let to = aor(Host::Carol);
    let mut caller =
        lab.phone(Host::Dave, &["call", &to, "--json", "--tune", "--duration", "3s"], "").expect("a phone");
    let code = caller.exit_code(STEP).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(code, Some(0), "{}\n{}", caller.process.output().join("\n"), caller.errors());
    let events = caller.events();
    let early = |number: u64| {
        let is_it = |event: &&serde_json::Value| {
            event["event"] == "answer-received" && event["message"] == "183" && event["early_dialog"] == number
        };
        events.iter().any(|event| is_it(&event))
    };
    assert!(early(0) && early(1), "the 183 of both: {events:?}");
    answers.event_with("\"state\":\"talking\"", STEP).unwrap_or_else(|error| panic!("{error}"));
    let ended = stops.event("ended", STEP).unwrap_or_else(|error| panic!("{error}"));
    assert!(!stops.events().iter().any(|event| event["state"] == "talking"), "{ended}");
    for phone in [&mut answers, &mut stops] {
        phone.stop().unwrap_or_else(|error| panic!("{error}"));
    }
    lab.wait_released(STEP).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_kind_of_nat_is_what_it_is_called() {
    use tests::lab::nat::NatKind;
    use tests::lab::natcheck::{Depends, Measured, nat_of};

    let network = match Network::build(Plan::default()) {
        Ok(network) => network,
        Err(reason) => return skip("every_kind_of_nat_is_what_it_is_called", &reason),
    };
    let nat = |mapping, filtering| Measured::Nat { mapping, filtering, hairpins: false };
    for (kind, wanted) in [
        (NatKind::PortRestricted, nat(Depends::Nothing, Depends::AddressAndPort)),
        (NatKind::AddressRestricted, nat(Depends::Nothing, Depends::Address)),
        (NatKind::FullCone, nat(Depends::Nothing, Depends::Nothing)),
        (NatKind::Symmetric, nat(Depends::AddressAndPort, Depends::AddressAndPort)),
        (NatKind::NoUdp, Measured::UdpBlocked),
        (NatKind::Tcp443, Measured::UdpBlocked),
    ] {
        network.set_nat(Host::NatA, kind).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(nat_of(&network, Host::Alice), Ok(wanted), "{kind}");
    }
}

/// A program that holds a laboratory, and the laboratory's owner.
fn holder() -> (Process, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_netlab"));
    let mut holder = Process::start(None, program, &["run", "alice", "sleep", "300"]);
    let line = holder
        .wait_line("ready line", STEP, |line| line.contains("ready as"))
        .unwrap_or_else(|error| panic!("{error}"));
    let owner = line.rsplit(' ').next().unwrap_or_default().to_owned();
    assert_eq!(left_of(&owner).len(), HOSTS.len() + 1, "namespaces and a folder");
    (holder, owner)
}

/// Namespaces and files of an owner.
fn left_of(owner: &str) -> Vec<String> {
    let mark = format!("icephone-{owner}-");
    let mut left: Vec<String> = netns::namespaces().into_iter().filter(|name| name.starts_with(&mark)).collect();
    let folder = netns::folder_of(owner);
    if folder.exists() {
        left.push(folder.display().to_string());
    }
    left
}

#[test]
fn nothing_is_left_of_a_laboratory_when_its_program_is_interrupted_or_killed() {
    const NAME: &str = "nothing_is_left_of_a_laboratory_when_its_program_is_interrupted_or_killed";
    if let Err(reason) = Network::build(Plan::default()) {
        return skip(NAME, &reason);
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (mut holder, owner) = holder();
        holder.signal(signal);
        holder.wait_exit(STEP).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(left_of(&owner), Vec::<String>::new(), "{signal}");
    }
    let (mut holder, owner) = holder();
    holder.signal(Signal::SIGKILL);
    holder.wait_exit(STEP).unwrap_or_else(|error| panic!("{error}"));
    assert!(!left_of(&owner).is_empty(), "nobody could remove it");
    Network::build(Plan::default()).expect("the next laboratory");
    assert_eq!(left_of(&owner), Vec::<String>::new(), "the next one sweeps it away");
}
