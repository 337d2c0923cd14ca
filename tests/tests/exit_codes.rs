//! The ends that `wrong_input.rs` does not name: what the callee, the edge and Ctrl-C do to a call, and the rarer slips. Each
//! has its exit code and one sentence, never a panic, and leaves nothing at the edge.
//!
//! Each row of the table runs the built program in a world of its own, so that rows run beside each other.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::binary::icephone;
use tests::lab::edge::Lab;
use tests::lab::phone::Phone;
use tests::lab::run::{Process, now};

/// Rows at once: they wait more than they work.
const WORKERS: usize = 6;
/// For one step of a row; generous, because the whole workspace is tested beside it.
const STEP: Duration = Duration::from_secs(40);

/// One way to end. In arguments `{alice}`, `{bob}` are the edge's accounts, `{dns}`, `{sip}`, `{tls}` its addresses,
/// `{folder}` a folder of the row with the files of [`write_files`], `{closed}` an address that nobody listens at.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    code: i32,
    arguments: &'static str,
    /// Arguments of `icephone lab`; `None`: there is no edge.
    edge: Option<&'static str>,
    /// Bob's bot, with these arguments.
    bob: Option<&'static str>,
    /// What the edge is told to do wrong.
    fault: Option<&'static str>,
    act: Act,
}

#[derive(Clone, Copy)]
enum Act {
    /// The program ends by itself.
    None,
    /// Ctrl-C once this stands in its output.
    Interrupt(&'static str),
    /// Bob is told to end once this stands in its output.
    BobLeaves(&'static str),
}

const ALONE: Row = Row { name: "", code: 0, arguments: "", edge: None, bob: None, fault: None, act: Act::None };
const EDGE: Row = Row { edge: Some(""), ..ALONE };

const ROWS: &[Row] = &[
    // First, because it takes longest (RFC 3261 §17.1.1.2, timer B): the others run beside it.
    Row { name: "closed port, UDP", code: 12, arguments: "--no-sound call sip:bob@{closed}", ..ALONE },
    // The command line.
    Row { name: "a time without unit", code: 2, arguments: "call sip:x@192.0.2.1 --duration 10x", ..ALONE },
    Row { name: "not a SIP address", code: 2, arguments: "call sip: --no-sound", ..ALONE },
    Row { name: "a log that cannot be written", code: 3, arguments: "--log-file {folder}/none/log register", ..ALONE },
    // The configuration.
    Row { name: "no account", code: 3, arguments: "-c {folder}/empty.toml call bob", ..ALONE },
    Row {
        name: "missing CA file",
        code: 3,
        arguments: "-c {folder}/empty.toml --tls-ca {folder}/no.pem call sip:x@y",
        ..ALONE
    },
    Row { name: "a listening address in use", code: 3, arguments: "--listen {dns} bot", ..EDGE },
    Row { name: "a listening address of another machine", code: 3, arguments: "--listen 192.0.2.1:5060 bot", ..ALONE },
    // Files.
    Row { name: "a folder as WAV", code: 3, arguments: "-c {alice} call bob --play {folder}", ..EDGE },
    Row {
        name: "nowhere to record",
        code: 3,
        arguments: "-c {alice} --no-sound call bob --record {folder}/none/x.wav",
        ..EDGE
    },
    // DNS.
    Row { name: "unknown domain", code: 10, arguments: "-c {alice} --aor sip:alice@nowhere.test register", ..EDGE },
    Row { name: "unknown edge", code: 10, arguments: "-c {alice} --edge nowhere.lab.test register", ..EDGE },
    Row {
        name: "no DNS for a call without account",
        code: 10,
        arguments: "--no-sound --dns {closed} call sip:bob@nowhere.test",
        ..ALONE
    },
    Row {
        name: "DNS that does not answer",
        code: 10,
        arguments: "-c {alice} register",
        fault: Some("dns silent"),
        ..EDGE
    },
    // The connection.
    Row {
        name: "closed port, TLS",
        code: 12,
        arguments: "-c {alice} --edge {closed} --transport tls register",
        ..EDGE
    },
    Row { name: "bad certificate", code: 11, arguments: "-c {folder}/alice-without-ca.toml register", ..EDGE },
    // The account.
    Row {
        name: "wrong password in a call",
        code: 13,
        arguments: "-c {folder}/alice-wrong.toml --no-sound call bob",
        ..EDGE
    },
    Row {
        name: "registration refused",
        code: 14,
        arguments: "-c {alice} register",
        fault: Some("sip refuse REGISTER 403"),
        ..EDGE
    },
    // The callee.
    Row {
        name: "refused",
        code: 30,
        arguments: "-c {alice} --no-sound call bob",
        fault: Some("sip refuse INVITE 603"),
        ..EDGE
    },
    Row {
        name: "no encryption in common",
        code: 30,
        arguments: "-c {alice} --no-sound call bob",
        bob: Some("--srtp off"),
        ..EDGE
    },
    // Relays and paths.
    Row {
        name: "no relay service under relay-only",
        code: 20,
        arguments: "-c {alice} --no-sound --path relay-only call bob",
        edge: Some("--no-mras"),
        ..EDGE
    },
    Row {
        name: "relay credentials refused under relay-only",
        code: 20,
        arguments: "-c {alice} --no-sound --path relay-only call bob",
        fault: Some("mras refuse 403"),
        ..EDGE
    },
    Row {
        name: "relay mute under relay-only",
        code: 21,
        arguments: "-c {alice} --no-sound --path relay-only call bob",
        fault: Some("relay mute"),
        ..EDGE
    },
    Row {
        name: "one-way",
        code: 42,
        arguments: "--no-sound --srtp off call sip:bob@{deaf} --tune --duration 1s",
        ..ALONE
    },
    // Ends that are no failure.
    Row {
        name: "the callee hangs up early",
        code: 0,
        arguments: "-c {alice} --no-sound call bob --tune --duration 60s --json",
        bob: Some(""),
        act: Act::BobLeaves("\"event\":\"stats\""),
        ..EDGE
    },
    Row {
        name: "Ctrl-C while registering",
        code: 130,
        arguments: "-c {alice} register --json",
        fault: Some("sip silent"),
        act: Act::Interrupt("\"event\":\"srv-selected\""),
        ..EDGE
    },
    Row {
        name: "Ctrl-C while ringing",
        code: 130,
        arguments: "-c {alice} --no-sound call bob --json",
        bob: Some("--ring 60s"),
        act: Act::Interrupt("\"state\":\"ringing\""),
        ..EDGE
    },
    Row {
        name: "Ctrl-C in a call",
        code: 130,
        arguments: "-c {alice} --no-sound call bob --tune --json",
        bob: Some(""),
        act: Act::Interrupt("\"event\":\"stats\""),
        ..EDGE
    },
];

#[test]
fn every_end_has_its_code_and_one_sentence_and_leaves_nothing_behind() {
    let only = std::env::var("ROW").ok();
    let rows: Vec<&Row> = ROWS.iter().filter(|row| only.as_ref().is_none_or(|only| row.name.contains(only))).collect();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(vec![None; rows.len()]));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let index = rows.iter().position(|other| std::ptr::eq(*other, *row)).unwrap();
                    let result = play(row).map_err(|error| format!("case: {}: {error}", row.name));
                    results.lock().unwrap()[index] = Some(result);
                }
            });
        }
    });
    let results: Vec<Result<String, String>> = results.into_inner().unwrap().into_iter().flatten().collect();
    assert_eq!(results.len(), rows.len(), "every row has a result");
    let wrong: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n\n{}", wrong.len(), rows.len(), join(&wrong));
    if only.is_none() {
        let told: Vec<&String> = results.iter().flatten().collect();
        insta::assert_snapshot!("sentences", join(&told));
    }
}

fn join(texts: &[&String]) -> String {
    texts.iter().map(|text| text.trim_end()).collect::<Vec<_>>().join("\n\n")
}

/// Runs one row; its name, code and sentence.
fn play(row: &Row) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let edge = row.edge.map(|arguments| Lab::start(None, &words(arguments))).transpose()?;
    write_files(folder.path(), edge.as_ref())?;
    let deaf = DeafPeer::start()?;
    let mut bob = match (&edge, row.bob) {
        (Some(edge), Some(arguments)) => Some(Phone::bot(&edge.account("bob"), &words(arguments))?),
        _ => None,
    };
    if let (Some(edge), Some(fault)) = (&edge, row.fault) {
        let answer = edge.control(fault)?;
        if answer.get("ok").is_none() {
            return Err(format!("{fault}: {answer}"));
        }
    }
    let arguments: Vec<String> = row
        .arguments
        .split_whitespace()
        .map(|word| filled(word, folder.path(), edge.as_ref(), deaf.port))
        .collect::<Result<_, _>>()?;
    let mut phone = Phone::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    match row.act {
        Act::None => {}
        Act::Interrupt(text) => {
            phone.event_with(text, STEP)?;
            phone.process.signal(Signal::SIGINT);
        }
        Act::BobLeaves(text) => {
            phone.event_with(text, STEP)?;
            if let Some(bob) = &mut bob {
                bob.stop()?;
            }
        }
    }
    let code = phone.exit_code(STEP)?;
    let sentence = phone.errors();
    let output = phone.process.output().join("\n");
    if code != Some(row.code) {
        return Err(format!("exit code {code:?} instead of {}:\n{sentence}{output}", row.code));
    }
    check_words(row, &sentence, &output)?;
    if let Some(bob) = &mut bob {
        let code = bob.stop()?;
        if code != Some(0) {
            return Err(format!("the bot ended with {code:?}: {}", bob.errors()));
        }
    }
    let mut places = vec![(folder.path().to_owned(), "FOLDER"), (phone.home(), "HOME")];
    if let Some(edge) = edge {
        // A server told to be silent cannot hear that the phone leaves.
        if row.fault != Some("sip silent") {
            edge.wait_empty(Duration::from_secs(10))?;
        }
        places.push((edge.folder(), "LAB"));
        edge.stop()?;
    }
    let told = normalised(&sentence, &places);
    let told: String = told.lines().filter(|line| !line.is_empty()).map(|line| format!("    {line}\n")).collect();
    Ok(format!("{} ({})\n{told}", row.name, row.code))
}

/// Whatever fails is told in one sentence; nothing ever panics.
fn check_words(row: &Row, sentence: &str, output: &str) -> Result<(), String> {
    for text in [sentence, output] {
        if ["panicked", "RUST_BACKTRACE", "thread 'main'"].iter().any(|word| text.contains(word)) {
            return Err(format!("it panicked:\n{text}"));
        }
    }
    let lines: Vec<&str> = sentence.lines().collect();
    let is_well = match row.code {
        0 => lines.is_empty(),
        // The command line parser adds how the command is used.
        2 => lines.first().is_some_and(|line| line.starts_with("error: ") || line.starts_with("icephone: ")),
        130 => lines.len() <= 1,
        _ => matches!(lines[..], [line] if line.starts_with("icephone: ")),
    };
    if is_well { Ok(()) } else { Err(format!("not one sentence:\n{sentence}")) }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn filled(word: &str, folder: &Path, edge: Option<&Lab>, deaf: u16) -> Result<String, String> {
    let mut word = word
        .replace("{folder}", &folder.to_string_lossy())
        // tcpmux: nobody listens there.
        .replace("{closed}", "127.0.0.1:1")
        .replace("{deaf}", &format!("127.0.0.1:{deaf}"));
    if let Some(edge) = edge {
        for name in ["alice", "bob"] {
            word = word.replace(&format!("{{{name}}}"), &edge.account(name).to_string_lossy());
        }
        word = word.replace("{dns}", &edge.setting("alice", "dns")?);
    }
    if word.contains('{') { Err(format!("nothing is known about {word}")) } else { Ok(word) }
}

fn write_files(folder: &Path, edge: Option<&Lab>) -> Result<(), String> {
    let write = |name: &str, text: &str| {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let open =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join(name));
        open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| format!("{name}: {error}"))
    };
    write("empty.toml", "")?;
    let Some(edge) = edge else { return Ok(()) };
    let account = edge.account_text("alice")?;
    let without = |key: &str| account.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>().join("\n");
    write("alice-without-ca.toml", &without("tls.ca"))?;
    let with_ca = without("password").replace("ca.pem", &edge.folder().join("ca.pem").to_string_lossy());
    write("alice-wrong.toml", &format!("{with_ca}\npassword = \"wrong\"\n"))
}

/// The text without what differs from run to run: folders, ports of this machine, times and how many pairs there were.
fn normalised(text: &str, places: &[(std::path::PathBuf, &str)]) -> String {
    let mut text = text.to_owned();
    for (path, name) in places {
        text = text.replace(&*path.to_string_lossy(), name);
    }
    for (before, after, name) in [("127.0.0.1:", "", "PORT"), ("within ", " ms", "N"), ("none of ", " pairs", "N")] {
        text = replaced(&text, before, after, name);
    }
    text
}

/// The number between `before` and `after` as `name`, wherever there is one.
fn replaced(text: &str, before: &str, after: &str, name: &str) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_number = rest.len() < part.len() && rest.starts_with(after);
        out.push_str(before);
        out.push_str(if is_number { name } else { &part[..part.len() - rest.len()] });
        out.push_str(rest);
    }
    out
}

/// A SIP peer without ICE that answers every INVITE at once and then neither hears nor says anything.
struct DeafPeer {
    port: u16,
    ends: std::sync::Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl DeafPeer {
    fn start() -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let sip = UdpSocket::bind("127.0.0.1:0").map_err(text)?;
        sip.set_read_timeout(Some(Duration::from_millis(100))).map_err(text)?;
        let port = sip.local_addr().map_err(text)?.port();
        let ends = std::sync::Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let ends = ends.clone();
            move || {
                let mut buffer = [0; 65_536];
                while !ends.load(Ordering::Relaxed) {
                    let Ok((length, from)) = sip.recv_from(&mut buffer) else { continue };
                    let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    if let Some(answer) = Self::answer(&request, port) {
                        let _sent = sip.send_to(answer.as_bytes(), from);
                    }
                }
            }
        });
        Ok(Self { port, ends, thread: Some(thread) })
    }

    /// 200 to everything but an ACK (RFC 3261 §8.2.6), with a session description to an INVITE.
    fn answer(request: &str, port: u16) -> Option<String> {
        let method = request.split(' ').next()?;
        if method == "ACK" || method == "SIP/2.0" {
            return None;
        }
        let mut answer = "SIP/2.0 200 OK\r\n".to_owned();
        for line in request.lines().take_while(|line| !line.is_empty()) {
            let name = line.split(':').next().unwrap_or_default();
            if ["Via", "From", "Call-ID", "CSeq"].contains(&name) {
                answer += &format!("{line}\r\n");
            } else if name == "To" {
                let tag = if line.contains(";tag=") { "" } else { ";tag=deaf" };
                answer += &format!("{line}{tag}\r\n");
            }
        }
        answer += &format!("Contact: <sip:bob@127.0.0.1:{port}>\r\n");
        // The discard port takes what is sent.
        let body = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                    m=audio 9 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";
        let body = if method == "INVITE" { body } else { "" };
        if !body.is_empty() {
            answer += "Content-Type: application/sdp\r\n";
        }
        Some(format!("{answer}Content-Length: {}\r\n\r\n{body}", body.len()))
    }
}

impl Drop for DeafPeer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

#[test]
fn a_demo_that_is_ended_as_soon_as_it_has_a_folder_leaves_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = || std::fs::read_dir(folder.path()).expect("it is there").count();
    let mut demo = Process::start_with(None, &icephone(), &["demo", "--plain"], |command| {
        command.env("TMPDIR", folder.path());
    });
    let until = now() + STEP;
    while files() == 0 {
        assert!(now() < until && demo.status().is_none(), "no folder: {:?}", demo.output());
    }
    demo.signal(Signal::SIGTERM);
    let status = demo.wait_exit(STEP).expect("it ends");
    assert_eq!((status.code(), files()), (Some(130), 0), "{:?}", demo.output());
}
