//! Passwords, relay passwords and SRTP keys of a running call are in no command line, log, event or screen.
//!
//! What the secrets are is read from where they must be: the account files, and the wire (signalling over TCP on loopback).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::binary::icephone;
use tests::lab::edge::{Lab, text};
use tests::lab::run::Process;
use tests::lab::skip;

const TEST: &str = "no_secret_of_a_running_call_is_in_a_command_line_a_log_or_an_event";

/// The pieces of `bytes` between `start` and one of `ends`.
fn between(bytes: &str, start: &str, ends: &[char]) -> BTreeSet<String> {
    let pieces = bytes.split(start).skip(1).filter_map(|rest| rest.split(ends).next());
    pieces.filter(|piece| piece.len() >= 8).map(str::to_owned).collect()
}

/// Everything that the capture saw, as text.
fn sniff(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}

fn start_capture(file: &Path) -> Result<Process, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("reading the wire needs root".to_owned());
    }
    let name = text(file);
    let arguments = ["-i", "lo", "-n", "-s", "0", "-U", "--immediate-mode", "-Z", "root", "-w", &name, "tcp"];
    let mut process = Process::start(None, Path::new("tcpdump"), &arguments);
    process.wait_line("listening line", Duration::from_secs(10), |line| line.contains("listening on"))?;
    Ok(process)
}

fn command_line(process: &Process) -> String {
    let bytes = std::fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

#[test]
fn no_secret_of_a_running_call_is_in_a_command_line_a_log_or_an_event() {
    let folder = tempfile::tempdir().expect("a folder");
    let wire = folder.path().join("wire.pcap");
    let mut capture = match start_capture(&wire) {
        Ok(capture) => capture,
        Err(reason) => return skip(TEST, &reason),
    };
    let lab = Lab::start(None, &["-vvv"]).expect("a lab");
    let [alice_log, bob_log] = ["alice.log", "bob.log"].map(|name| text(&folder.path().join(name)));
    let common = ["--transport", "tcp", "--json", "--log-filter", "trace"];
    let (alice, bob) = (text(&lab.account("alice")), text(&lab.account("bob")));
    let bot_arguments = [&["bot", "--config", &bob, "--log-file", &bob_log], &common[..]].concat();
    let mut bot = Process::start(None, &icephone(), &bot_arguments);
    bot.wait_line("credentials", Duration::from_secs(30), |line| line.contains("\"credentials-received\""))
        .expect("a bot");
    let to = lab.aor("bob").expect("an aor");
    let arguments =
        [&["call", &to, "--config", &alice, "--tune", "--duration", "4s", "--log-file", &alice_log], &common[..]];
    let mut call = Process::start(None, &icephone(), &arguments.concat());
    call.wait_line("media", Duration::from_secs(30), |line| line.contains("\"first-media\"")).expect("a call");
    let command_lines: Vec<String> = [&call, &bot, &lab.process].into_iter().map(command_line).collect();
    let status = call.wait_exit(Duration::from_secs(30)).expect("the call ends");
    assert!(status.success(), "{status}: {}", call.output().join("\n"));
    bot.signal(Signal::SIGINT);
    bot.wait_exit(Duration::from_secs(10)).expect("the bot ends");
    capture.signal(Signal::SIGINT);
    capture.wait_exit(Duration::from_secs(10)).expect("the capture ends");

    let wire = sniff(&wire);
    let keys = between(&wire, "inline:", &['|', '\r', '\n', ' ']);
    let relay = between(&wire, "<password>", &['<']);
    let passwords: BTreeSet<String> =
        ["alice", "bob"].iter().map(|name| lab.setting(name, "password").expect("a password")).collect();
    assert!(keys.len() >= 2, "both sides have a key: {keys:?}");
    assert!(!relay.is_empty(), "relay credentials were on the wire");
    let mut places: Vec<(String, String)> = vec![
        ("alice's events".to_owned(), call.output().join("\n")),
        ("bob's events".to_owned(), bot.output().join("\n")),
    ];
    places.extend(command_lines.into_iter().map(|line| ("a command line".to_owned(), line)));
    for name in ["alice.log", "bob.log"] {
        let written = std::fs::read_to_string(folder.path().join(name)).expect("a log");
        assert!(written.len() > 10_000, "{name} is no trace: {} bytes", written.len());
        places.push((name.to_owned(), written));
    }
    let mut lab = lab;
    places.push(("the lab's output".to_owned(), lab.process.output().join("\n")));
    for (place, written) in &places {
        for secret in keys.iter().chain(&relay).chain(&passwords) {
            let line = written.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{secret:?} is in {place}: {}", line.unwrap_or_default());
        }
    }
    lab.stop().expect("the lab ends");
}
