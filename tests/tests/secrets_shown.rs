//! No secret is on the screens of a running call nor in the environment of its children, in whatever form: beside what
//! `secrets.rs` reads also ICE passwords and digests, and each as text, hexadecimal, base64 and as a list of bytes.
//!
//! The true secrets are read where they must be: in the edge's account files, and on the wire between the phones and the
//! edge. Phones reach the edge by a [`Wire`] that forwards datagrams and keeps what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tests::binary::icephone;
use tests::lab::edge::{Lab, text};
use tests::lab::phone::Phone;
use tests::tmux::Tmux;

const STEP: Duration = Duration::from_secs(30);
/// How often a thread of the wire looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// A forwarder of datagrams between phones and the edge that keeps them all.
struct Wire {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    ends: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Wire {
    fn to(edge: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        near.set_read_timeout(Some(LOOK)).unwrap();
        let address = near.local_addr().unwrap();
        let (seen, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, ends) = (seen.clone(), ends.clone());
            move || forward(&near, edge, &seen, &ends)
        });
        Self { address, seen, ends, thread: Some(thread) }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Each phone gets a socket of its own towards the edge, so that answers find their way back.
fn forward(near: &UdpSocket, edge: SocketAddr, seen: &Arc<Mutex<Vec<u8>>>, ends: &Arc<AtomicBool>) {
    let mut phones: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
    let mut buffer = [0; 65_536];
    thread::scope(|scope| {
        while !ends.load(Ordering::Relaxed) {
            let Ok((length, phone)) = near.recv_from(&mut buffer) else { continue };
            seen.lock().unwrap().extend(&buffer[..length]);
            let far = phones.entry(phone).or_insert_with(|| {
                let far = UdpSocket::bind("127.0.0.1:0").unwrap();
                far.connect(edge).unwrap();
                far.set_read_timeout(Some(LOOK)).unwrap();
                let back = far.try_clone().unwrap();
                scope.spawn(move || {
                    let mut buffer = [0; 65_536];
                    while !ends.load(Ordering::Relaxed) {
                        let Ok(length) = back.recv(&mut buffer) else { continue };
                        seen.lock().unwrap().extend(&buffer[..length]);
                        let _lost = near.send_to(&buffer[..length], phone);
                    }
                });
                far
            });
            let _lost = far.send(&buffer[..length]);
        }
    });
}

/// One secret and everything it could look like.
struct Secret {
    what: &'static str,
    forms: Vec<String>,
}

impl Secret {
    fn new(what: &'static str, secret: &str, bytes: &[u8]) -> Self {
        let mut forms = vec![secret.to_owned()];
        // A whole key, and of an SRTP key and salt the key alone (RFC 4568 §6.1).
        for bytes in [bytes, &bytes[..bytes.len().min(16)]] {
            let hexadecimal = bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            forms.push(hexadecimal.to_uppercase());
            forms.push(hexadecimal);
            // Without the end, which depends on what follows.
            forms.push(STANDARD.encode(bytes).trim_end_matches('=').to_owned());
            // As `{:?}` writes bytes.
            forms.push(bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", "));
        }
        Self { what, forms }
    }

    fn of_text(what: &'static str, secret: &str) -> Self {
        Self::new(what, secret, secret.as_bytes())
    }

    /// A piece of text that holds it, if any does.
    fn find(&self, text: &str) -> Option<String> {
        let at = self.forms.iter().find_map(|form| text.find(form.as_str()).map(|at| (at, form.len())))?;
        let line = text[..at.0].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at.0..].find('\n').map_or(text.len(), |newline| at.0 + newline);
        Some(text[line..end].chars().take(600).collect())
    }
}

/// Every value that stands between `before` and one of the characters of `after`.
fn values(text: &str, before: &str, after: &[char]) -> BTreeSet<String> {
    text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).map(str::to_owned).collect()
}

fn secrets_of(edge: &Lab, wire: &str) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for user in ["alice", "bob", "echo"] {
        secrets.push(Secret::of_text("account password", &edge.setting(user, "password").unwrap()));
    }
    let relay = values(wire, "<password>", &['<']);
    assert!(relay.len() >= 3, "each phone got relay credentials of its own: {relay:?}");
    secrets.extend(relay.iter().map(|password| Secret::of_text("relay password", password)));
    let keys = values(wire, "inline:", &['|', ' ', '\r']);
    assert!(keys.len() >= 4, "both ends of two calls have keys: {keys:?}");
    for key in keys {
        secrets.push(Secret::new("SRTP key", &key, &STANDARD.decode(&key).unwrap()));
    }
    let passwords = values(wire, "a=ice-pwd:", &['\r']);
    assert!(passwords.len() >= 4, "both ends of two calls have ICE passwords: {passwords:?}");
    secrets.extend(passwords.iter().map(|password| Secret::of_text("ICE password", password)));
    let digests = values(wire, "response=\"", &['"']);
    assert!(!digests.is_empty(), "the phones were challenged");
    secrets.extend(digests.iter().map(|digest| Secret::of_text("digest", digest)));
    secrets
}

fn write_private(path: &Path, content: &str) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(content.as_bytes()).unwrap();
}

fn of_process(pid: &str, name: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Children of all threads of a process, and theirs.
fn descendants(pid: &str) -> Vec<String> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let children = threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("children")));
    let children: Vec<String> =
        children.flatten().flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    children.iter().flat_map(|child| [vec![child.clone()], descendants(child)].concat()).collect()
}

/// Bob's account with a command for its password that also tells which environment and command line it was given.
fn with_command(edge: &Lab, folder: &Path) -> std::path::PathBuf {
    let password = folder.join("password");
    write_private(&password, &edge.setting("bob", "password").unwrap());
    let command = format!(
        "tr '\\\\0' '\\\\n' < /proc/self/environ > {0}/environment; cat /proc/$$/cmdline > {0}/command; cat {0}/password",
        folder.display()
    );
    let account = edge.account_text("bob").unwrap();
    let lines = account.lines().filter(|line| !line.starts_with("password")).collect::<Vec<_>>().join("\n");
    let lines = lines.replace("ca.pem", &text(&edge.folder().join("ca.pem")));
    let path = folder.join("bob.toml");
    write_private(&path, &format!("{lines}\npassword-command = \"{command}\"\n"));
    path
}

/// The screen of a phone in a call to bob, all of its pages, at one size.
fn screens(edge: &Lab, wire: &Wire, log: &Path, size: (u16, u16)) -> (Vec<(String, String)>, Tmux) {
    let home = text(log.parent().unwrap());
    let tmux = Tmux::new(size.0, size.1, &[("HOME", &home), ("XDG_CONFIG_HOME", &home)]);
    tmux.wait_for("prompt>", STEP);
    tmux.line(&format!(
        "clear; {} -vvv --no-sound --transport udp --edge {} --log-file {} -c {}",
        text(&icephone()),
        wire.address,
        text(log),
        text(&edge.account("echo"))
    ));
    tmux.wait("the registered account", STEP, |screen| screen.contains("registered"));
    tmux.keys(&["d"]);
    tmux.wait_for("Dial", STEP);
    tmux.line("bob");
    tmux.wait("a running call", STEP, |screen| screen.contains("talking"));
    let mut shown = vec![(format!("{size:?} call"), tmux.screen())];
    for page in 1..6 {
        let before = tmux.screen();
        tmux.keys(&["Tab"]);
        let screen = tmux.wait("another page", STEP, |screen| screen != before);
        shown.push((format!("{size:?} page {page}"), screen));
    }
    tmux.keys(&["?"]);
    shown.push((format!("{size:?} help"), tmux.wait_for("Keys", STEP)));
    tmux.keys(&["Escape"]);
    (shown, tmux)
}

#[test]
fn a_scan_finds_a_secret_in_every_form() {
    let secret = Secret::new("SRTP key", "d0RmdmcmVCspeEc3", b"wDfvg&T+)xG7");
    for text in ["a d0RmdmcmVCspeEc3 b", "x 7744667667", "[119, 68, 102, 118, 103, 38, 84, 43, 41, 120, 71, 55]"] {
        let is_there = !text.starts_with("x ");
        assert_eq!(secret.find(text).is_some(), is_there, "{text}");
    }
    assert!(secret.find("key 774466766726542b29784737 end").is_some());
    assert_eq!(secret.find("a\nthe d0RmdmcmVCspeEc3 line\nb").as_deref(), Some("the d0RmdmcmVCspeEc3 line"));
}

#[test]
fn screens_children_and_logs_of_running_calls_show_no_secret_in_any_form() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let mut edge = Lab::start(None, &[]).unwrap();
    let about = edge.process.wait_line("JSON object", STEP, |line| line.starts_with('{')).unwrap();
    let about: serde_json::Value = serde_json::from_str(&about).unwrap();
    let sip: SocketAddr = about["sip"]["udp"].as_str().unwrap().parse().unwrap();
    let wire = Wire::to(sip);
    let through = wire.address.to_string();
    let common = ["-vvv", "--no-sound", "--transport", "udp", "--edge", &through];

    let bob_config = with_command(&edge, folder.path());
    let (bob_log, alice_log) = (text(&file("bob.log")), text(&file("alice.log")));
    let mut bob = Phone::start_with(
        &[&common[..], &["--log-file", &bob_log, "-c", &text(&bob_config), "bot", "--tune"]].concat(),
        |command| {
            // A variable with a secret that concerns nobody but the program.
            command.env("ICEPHONE_PASSWORD", edge.setting("alice", "password").unwrap());
        },
    );
    bob.process.wait_line("answering", STEP, |line| line.contains("answering as")).unwrap();
    let alice_config = text(&edge.account("alice"));
    let call = ["--log-file", &alice_log, "-c", &alice_config, "call", "bob", "--tune", "--json", "--dtmf", "12"];
    let mut alice = Phone::start(&[&common[..], &call].concat());
    alice.event("announced", STEP).unwrap();
    alice.event("stats", STEP).unwrap();
    let (mut shown, small) = screens(&edge, &wire, &file("small.log"), (80, 24));
    let (more, large) = screens(&edge, &wire, &file("large.log"), (120, 40));
    shown.extend(more);

    // While all calls run.
    let phones: Vec<String> = [alice.process.pid().to_string(), bob.process.pid().to_string()]
        .into_iter()
        .chain([&small, &large].into_iter().flat_map(|tmux| descendants(&tmux.figure("#{pane_pid}"))))
        .collect();
    assert!(phones.len() >= 4, "two screens run: {phones:?}");
    for pid in &phones {
        shown.push((format!("command line of {pid}"), of_process(pid, "cmdline")));
        for child in descendants(pid) {
            shown.push((format!("environment of child {child}"), of_process(&child, "environ")));
            shown.push((format!("command line of child {child}"), of_process(&child, "cmdline")));
        }
    }
    shown.push(("the edge's list".to_owned(), edge.control("list").unwrap().to_string()));
    shown.push(("the edge's state".to_owned(), std::fs::read_to_string(edge.folder().join("state.json")).unwrap()));
    alice.stop().unwrap();
    drop((small, large));
    bob.stop().unwrap();
    for (name, phone) in [("alice", &mut alice), ("bob", &mut bob)] {
        shown.push((format!("output of {name}"), phone.process.output().join("\n")));
        shown.push((format!("errors of {name}"), phone.errors()));
    }
    for name in ["environment", "command"] {
        shown.push((format!("{name} of the password command"), std::fs::read_to_string(file(name)).unwrap()));
    }
    for name in ["alice.log", "bob.log", "small.log", "large.log"] {
        let log = std::fs::read_to_string(file(name)).unwrap();
        for what in ["TRACE", "INVITE sip:bob@", "inline:***", "<password>***", "a=ice-pwd:***"] {
            assert!(log.contains(what) || name == "bob.log", "{name} has everything, but no {what}");
        }
        shown.push((name.to_owned(), log));
    }

    let secrets = secrets_of(&edge, &wire.seen());
    let mut found = Vec::new();
    for (place, text) in &shown {
        assert!(!text.trim().is_empty() || place.starts_with("errors"), "{place} is empty");
        for secret in &secrets {
            if let Some(line) = secret.find(text) {
                found.push(format!("{} in {place}: {line}", secret.what));
            }
        }
    }
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}
