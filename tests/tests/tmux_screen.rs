//! The real program in a real terminal: what a person sees, and the terminal afterwards.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::binary;
use tests::lab::edge::Lab;
use tests::tmux::{Tmux, normalised};

const START: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_secs(10);

struct Phone {
    tmux: Tmux,
    _home: tempfile::TempDir,
}

/// A shell in a pane, with the program's folder in front of `PATH`.
fn pane(width: u16, height: u16) -> Phone {
    let home = tempfile::tempdir().unwrap();
    let folder = binary::icephone().parent().unwrap().to_string_lossy().into_owned();
    let search = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let at = home.path().to_string_lossy().into_owned();
    let environment = [
        ("PATH", search.as_str()),
        ("HOME", at.as_str()),
        ("XDG_CONFIG_HOME", at.as_str()),
        ("ICEPHONE_TEST_PANIC", "1"),
    ];
    let tmux = Tmux::new(width, height, &environment);
    tmux.wait_for("prompt>", START);
    Phone { tmux, _home: home }
}

fn demo(width: u16, height: u16) -> Phone {
    let phone = pane(width, height);
    phone.tmux.line("icephone demo --seconds 600");
    phone.tmux.wait("a promoted call", START, |screen| screen.contains("talking") && screen.contains("✓ promote"));
    phone
}

/// The terminal is as a program should leave it: main screen, echoing shell, visible cursor.
fn assert_restored(tmux: &Tmux) {
    assert_eq!(tmux.figure("#{alternate_on}"), "0", "the alternate screen was left");
    assert_eq!(tmux.figure("#{cursor_flag}"), "1", "the cursor is visible");
    tmux.line("stty -a | grep -o ' echo ' ; echo back $((40+2))");
    let screen = tmux.wait_for("back 42", STEP);
    assert!(screen.contains("echo"), "the terminal echoes again:\n{screen}");
}

#[test]
fn the_demo_opens_on_a_live_call_at_both_sizes() {
    for (width, height) in [(80, 24), (120, 40)] {
        let phone = demo(width, height);
        let screen =
            phone.tmux.settled("figures", STEP, |screen| screen.contains("(RTCP)") || screen.contains("(STUN check)"));
        insta::assert_snapshot!(format!("demo_{width}x{height}"), normalised(&screen));
        phone.tmux.keys(&["q"]);
        phone.tmux.wait_for("hang up and quit?", STEP);
        phone.tmux.keys(&["y"]);
        phone.tmux.wait("the shell", STEP, |screen| !screen.contains("Media path") && screen.contains("prompt>"));
        assert_restored(&phone.tmux);
    }
}

#[test]
fn help_lists_every_key_and_digits_mute_hold_and_hang_up_work() {
    let phone = demo(80, 24);
    let tmux = &phone.tmux;
    tmux.keys(&["?"]);
    let screen = tmux.settled("help", STEP, |screen| screen.contains("Keys (Esc closes)"));
    // What lies under the list goes on moving: only its own columns are compared.
    let list: Vec<String> = screen.lines().map(|line| line.chars().skip(4).take(72).collect()).collect();
    insta::assert_snapshot!("help_80x24", normalised(&list.join("\n")));
    tmux.keys(&["Escape"]);
    // Escape and a letter in one piece would be read as Alt with that letter.
    tmux.wait("the call again", STEP, |screen| !screen.contains("Keys (Esc closes)"));
    tmux.keys(&["m"]);
    tmux.wait_for("muted", STEP);
    tmux.keys(&["m"]);
    tmux.wait_for("talking", STEP);
    tmux.keys(&["h"]);
    tmux.wait_for("held", STEP);
    tmux.keys(&["h"]);
    tmux.wait_for("talking", STEP);
    tmux.keys(&["1", "2", "#"]);
    tmux.keys(&["x"]);
    tmux.wait_for("we hung up", STEP);
    tmux.keys(&["Tab", "Tab"]);
    tmux.wait_for("History, newest first (1)", STEP);
}

#[test]
fn dialling_nobody_shows_why_the_call_failed() {
    let phone = demo(80, 24);
    let tmux = &phone.tmux;
    tmux.keys(&["x"]);
    tmux.wait_for("we hung up", STEP);
    tmux.keys(&["d"]);
    tmux.wait_for("Dial:", STEP);
    tmux.line("nobody");
    let screen = tmux.settled("the reason", STEP, |screen| screen.contains("is not known there"));
    insta::assert_snapshot!("failed_80x24", normalised(&screen));
}

#[test]
fn the_terminal_survives_a_panic_and_sigterm() {
    let panicking = demo(80, 24);
    panicking.tmux.keys(&["F12"]);
    panicking.tmux.wait_for("provoked", STEP);
    assert_restored(&panicking.tmux);

    let terminated = demo(80, 24);
    let pid = terminated.tmux.figure("#{pane_pid}");
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let phone: i32 = children.split_whitespace().next().expect("the shell runs the phone").parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(phone), nix::sys::signal::Signal::SIGTERM).unwrap();
    terminated.tmux.wait("the shell", STEP, |screen| !screen.contains("Media path") && screen.contains("prompt>"));
    assert_restored(&terminated.tmux);
}

/// A process of ours, ended with the test.
struct Caller(Child);

impl Drop for Caller {
    fn drop(&mut self) {
        let _gone = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn an_incoming_call_rings_is_answered_and_ends() {
    let lab = Lab::start(None, &[]).unwrap();
    let phone = pane(80, 24);
    let tmux = &phone.tmux;
    tmux.line(&format!("icephone --no-sound -c '{}'", lab.account("alice").display()));
    tmux.wait_for("✓ registered", START);
    let mut call = Command::new(binary::icephone());
    call.args(["--no-sound", "-c"]).arg(lab.account("bob")).args(["call", "alice", "--tune", "--duration", "60s"]);
    let caller = Caller(call.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let screen = tmux.settled("the caller", START, |screen| {
        screen.contains("is calling: a answers, x refuses") && screen.contains(" ms (") && screen.contains("host-host")
    });
    insta::assert_snapshot!("incoming_80x24", normalised(&screen));
    tmux.keys(&["a"]);
    tmux.wait("a promoted call", STEP, |screen| screen.contains("talking") && screen.contains("✓ promote"));
    drop(caller);
    tmux.keys(&["x"]);
    tmux.wait_for("we hung up", STEP);
    tmux.keys(&["q"]);
    tmux.wait("the shell", STEP, |screen| !screen.contains("Media path") && screen.contains("prompt>"));
    assert_restored(tmux);
    lab.stop().unwrap();
}
