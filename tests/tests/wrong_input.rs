//! Everything a user gets wrong, against the built program: the exit code, one sentence that says what failed, where and
//! what to do (as a snapshot), no panic, and nothing left at the edge.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::binary::icephone;
use tests::lab::edge::{Lab, text};
use tests::lab::run::Process;

/// The whole of one wrong input, generous: registration may wait for two transports.
const LIMIT: Duration = Duration::from_secs(60);

/// What a case may use.
struct Place {
    lab: Lab,
    folder: PathBuf,
}

impl Place {
    /// `alice.toml` with one text replaced, or lines added: a new file that only its owner may read.
    fn alice_with(&self, name: &str, change: impl FnOnce(String) -> String) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let original = self.lab.account_text("alice").expect("alice.toml");
        let changed = change(original.clone());
        assert_ne!(changed, original, "{name}: nothing was changed in\n{original}");
        // Beside the original, because its paths are relative to it.
        let path = self.lab.folder().join(format!("{name}.toml"));
        std::fs::write(&path, changed).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        text(&path)
    }

    fn alice(&self) -> String {
        text(&self.lab.account("alice"))
    }

    fn dns(&self) -> String {
        self.lab.setting("alice", "dns").expect("a name server")
    }

    /// A bot on Bob's account that has registered.
    fn bob(&self, arguments: &[&str]) -> Process {
        let config = text(&self.lab.account("bob"));
        let arguments = [&["bot", "--config", &config, "--json"], arguments].concat();
        let mut bot = Process::start(None, &icephone(), &arguments);
        bot.wait_line("credentials", LIMIT, |line| line.contains("\"credentials-received\"")).expect("a bot");
        bot
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// One wrong input: what is typed, what must come out, and who else is there.
struct Case {
    name: &'static str,
    code: i32,
    run: fn(&Place) -> (Vec<String>, Option<Process>),
    /// Faults for the edge's control socket while it runs.
    faults: &'static [&'static str],
}

fn case(name: &'static str, code: i32, run: fn(&Place) -> (Vec<String>, Option<Process>)) -> Case {
    Case { name, code, run, faults: &[] }
}

fn aor(place: &Place, name: &str) -> String {
    place.lab.aor(name).expect("an aor")
}

fn cases() -> Vec<Case> {
    servers().into_iter().chain(files()).chain(callees()).chain(usage()).collect()
}

/// Servers that are not there, or not to be trusted, or do not trust us.
fn servers() -> Vec<Case> {
    vec![
        case("unknown host", 10, |p| {
            (words(&format!("call sip:bob@nowhere.test --dns {} --duration 1s", p.dns())), None)
        }),
        case("no DNS", 10, |p| {
            let config = p.alice_with("no-dns", |t| t.replace(&p.dns(), "127.0.0.1:1"));
            (words(&format!("call {} --config {config} --duration 1s", aor(p, "bob"))), None)
        }),
        case("closed port", 12, |p| {
            (words(&format!("call {} --config {} --edge 127.0.0.1:1 --transport tcp", aor(p, "bob"), p.alice())), None)
        }),
        case("bad certificate", 11, |p| {
            let config = p.alice_with("no-ca", |t| {
                t.lines().filter(|l| !l.contains("ca.pem")).map(|l| format!("{l}\n")).collect()
            });
            (words(&format!("call {} --config {config} --transport tls", aor(p, "bob"))), None)
        }),
        case("wrong password", 13, |p| {
            let config = p.alice_with("wrong-password", |t| {
                let line = t.lines().find(|l| l.trim_start().starts_with("password")).expect("a password").to_owned();
                t.replace(&line, "password = \"not-the-password\"")
            });
            (words(&format!("register --config {config}")), None)
        }),
    ]
}

/// People who cannot be reached, and media that cannot flow.
fn callees() -> Vec<Case> {
    vec![
        case("unknown user", 30, |p| (words(&format!("call nobody --config {}", p.alice())), None)),
        case("busy", 31, |p| {
            (words(&format!("call {} --config {}", aor(p, "bob"), p.alice())), Some(p.bob(&["--calls-max", "0"])))
        }),
        case("no answer", 32, |p| {
            let bot = p.bob(&["--ring", "50s"]);
            (words(&format!("call {} --config {} --ring-timeout 2s", aor(p, "bob"), p.alice())), Some(bot))
        }),
        Case {
            faults: &["relay refuse 403"],
            ..case("relay refused", 21, |p| {
                let bot = p.bob(&[]);
                (words(&format!("call {} --config {} --path relay-only", aor(p, "bob"), p.alice())), Some(bot))
            })
        },
        Case {
            faults: &["relay blackhole"],
            ..case("no path", 40, |p| {
                let bot = p.bob(&["--path", "relay-only"]);
                (words(&format!("call {} --config {} --path relay-only", aor(p, "bob"), p.alice())), Some(bot))
            })
        },
    ]
}

/// Files that are wrong, or missing, or cannot be written.
fn files() -> Vec<Case> {
    vec![
        case("malformed config", 3, |p| {
            let config = p.alice_with("malformed", |t| t + "\n[[account]\naor = 5\n");
            (words(&format!("call {} --config {config}", aor(p, "bob"))), None)
        }),
        case("unknown key in the config", 3, |p| {
            let config = p.alice_with("unknown-key", |t| t.replacen("aor", "passwort = \"x\"\naor", 1));
            (words(&format!("register --config {config}")), None)
        }),
        case("missing config", 3, |p| (words(&format!("register --config {}/none.toml", p.folder.display())), None)),
        case("missing WAV", 3, |p| {
            (
                words(&format!("call {} --config {} --play {}/none.wav", aor(p, "bob"), p.alice(), p.folder.display())),
                None,
            )
        }),
        case("a file that is no WAV", 3, |p| {
            (words(&format!("call {} --config {} --play {}", aor(p, "bob"), p.alice(), p.alice())), None)
        }),
        case("full disk", 3, |p| {
            let bot = p.bob(&[]);
            (
                words(&format!("call {} --config {} --record /dev/full --duration 2s", aor(p, "bob"), p.alice())),
                Some(bot),
            )
        }),
    ]
}

/// Command lines that make no sense.
fn usage() -> Vec<Case> {
    vec![
        case("no URI", 2, |_| (words("call"), None)),
        case("a flag that does not exist", 2, |_| (words("call sip:bob@192.0.2.7 --loud"), None)),
        case("a digit that is none", 2, |p| {
            (words(&format!("call {} --config {} --dtmf 12x", aor(p, "bob"), p.alice())), None)
        }),
    ]
}

/// Ports, folders and times differ from run to run.
fn normal(line: &str, place: &Place) -> String {
    let line = line.replace(&text(&place.lab.folder()), "LAB").replace(&text(&place.folder), "FOLDER");
    let mut normal = String::new();
    let mut rest = line.as_str();
    while let Some((before, after)) = rest.split_once("127.0.0.1:") {
        let digits = after.chars().take_while(char::is_ascii_digit).count();
        let port = if &after[..digits] == "1" { "1" } else { "PORT" };
        let _ = write!(normal, "{before}127.0.0.1:{port}");
        rest = &after[digits..];
    }
    normal.push_str(rest);
    // Which side notices first that no pair works, and how many were checked by then, depends on who was faster.
    match normal.split_once("no media path: ") {
        Some((before, _)) => format!("{before}no media path: ..."),
        None => normal,
    }
}

/// What the user reads at the end: the last line on the standard error stream that says something.
fn run(case: &Case, place: &Place) -> Result<String, String> {
    for fault in case.faults {
        place.lab.control(fault)?;
    }
    let (arguments, bot) = (case.run)(place);
    let mut process = Process::start_with(None, &icephone(), &arguments, |command| {
        command.env("XDG_CONFIG_HOME", &place.folder).stdout(std::process::Stdio::null());
    });
    let status = process.wait_exit(LIMIT)?;
    let output = process.output().join("\n");
    if status.code() != Some(case.code) {
        return Err(format!("ended with {status} and not {}:\n{output}", case.code));
    }
    if output.contains("panicked") || output.contains("RUST_BACKTRACE") {
        return Err(format!("panicked:\n{output}"));
    }
    if !output.lines().any(|line| line.starts_with("icephone: ") || line.starts_with("error: ")) {
        return Err(format!("says nothing:\n{output}"));
    }
    if !case.faults.is_empty() {
        place.lab.control("relay well")?;
    }
    if let Some(mut bot) = bot {
        bot.signal(Signal::SIGINT);
        bot.wait_exit(LIMIT)?;
    }
    place.lab.wait_empty(Duration::from_secs(5))?;
    Ok(normal(&output, place))
}

#[test]
fn every_wrong_input_has_its_sentence_and_its_code_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place { lab: Lab::start(None, &[]).expect("a lab"), folder: Path::to_owned(folder.path()) };
    let (mut sentences, mut failures) = (String::new(), Vec::new());
    for case in cases() {
        match run(&case, &place) {
            Ok(output) => {
                let _ = writeln!(sentences, "== {} ({})\n{output}\n", case.name, case.code);
            }
            Err(failure) => failures.push(format!("{}: {failure}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{} of the cases failed:\n\n{}", failures.len(), failures.join("\n\n"));
    insta::assert_snapshot!("wrong_input", sentences);
    place.lab.stop().expect("the lab ends");
}
