//! Somebody in the laboratory who calls or is called with any of three programs, speaks one sentence over and over, and
//! records what is heard.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::api::Secret;
use client::core::provision::turn_rest;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::baresip::PATIENCE;
use crate::lab::impair::Way;
use crate::lab::measured_call::last_path;
use crate::lab::nat::NatKind;
use crate::lab::network::{Families, Host};
use crate::lab::phone::Phone;
use crate::lab::run::{Process, now, tool};
use crate::lab::servers::{NetLab, SECRET};
use crate::lab::speech::{likeness, spoken};
use crate::lab::user::aor;

/// Registration of a program that is not ours, on a busy machine.
const REGISTERED: Duration = Duration::from_secs(30);
/// From the call to its answer.
const ANSWERED: Duration = Duration::from_secs(40);
/// How long they talk: a sentence and a half, so that one is whole whenever the line has come up.
const TALK: Duration = Duration::from_secs(10);
/// Relay credentials outlive every test.
const CREDENTIALS_S: u64 = 3600;

/// What somebody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Icephone,
    Baresip,
    Linphone,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Icephone => "icephone",
            Self::Baresip => "baresip",
            Self::Linphone => "linphone",
        })
    }
}

/// Where and how a mixed call takes place.
#[derive(Debug, Clone)]
pub struct Place {
    pub name: &'static str,
    pub caller: Host,
    pub callee: Host,
    /// Of the two homes' routers.
    pub nats: [NatKind; 2],
    pub tls: bool,
    pub srtp: bool,
    /// Percent of UDP lost at the caller's line.
    pub loss: f64,
    /// Words for the delay box at the caller's line.
    pub delay: &'static [&'static str],
}

/// One side of a mixed call.
pub struct Side<'a> {
    pub lab: &'a NetLab,
    pub host: Host,
    pub tls: bool,
    pub srtp: bool,
    /// What it says, over and over.
    pub speech: PathBuf,
    /// Its own folder.
    pub folder: PathBuf,
}

impl Side<'_> {
    pub(super) fn transport(&self) -> &'static str {
        if self.tls { "tls" } else { "udp" }
    }

    /// There is no IPv4.
    pub(super) fn is_v6(&self) -> bool {
        self.lab.network.plan.families == Families::V6
    }

    /// For the relay, as its shared secret makes them.
    pub(super) fn relay_credentials(&self) -> (String, String) {
        let until = unix_time() + CREDENTIALS_S;
        let (user, password) = turn_rest(&Secret::new(SECRET.to_owned()), self.host.name(), until);
        (user, password.expose().to_owned())
    }
}

#[expect(clippy::disallowed_methods, reason = "credentials are made of the time of day")]
fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A running program of somebody else. Dropped, it is killed.
pub struct Person {
    pub process: Process,
    pub(super) input: Option<File>,
    pub(super) folder: PathBuf,
}

/// What became of a mixed call.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Likeness of each recording to what the other side said, and to what its own side said: caller, callee.
    pub likeness: [(f64, f64); 2],
    /// The path in icephone's words, where it took part.
    pub path: String,
    /// From icephone's `created` to the first packet it received.
    pub first_received_ms: Option<u64>,
}

impl Heard {
    /// Whether each side heard the other one, and not itself.
    ///
    /// # Errors
    ///
    /// Which did not.
    pub fn check(&self) -> Result<(), String> {
        for (who, (same, other)) in ["caller", "callee"].iter().zip(self.likeness) {
            // Losses and the repairs of three different codecs' buffers leave a sentence less of itself than one of ours.
            if same < 0.8 || other >= 0.5 {
                return Err(format!("the {who} heard {same:.3} of what was said and {other:.3} of its own"));
            }
        }
        Ok(())
    }
}

/// Somebody while the call is made.
enum Anyone {
    Ours(Phone),
    Other(Program, Person),
}

impl NetLab {
    /// A call between two programs; what each heard.
    ///
    /// # Errors
    ///
    /// What went wrong, with what both wrote.
    pub fn mixed_call(&self, programs: [Program; 2], place: &Place) -> Result<Heard, String> {
        self.network.set_nat(Host::NatA, place.nats[0])?;
        self.network.set_nat(Host::NatB, place.nats[1])?;
        let folder = tempfile::tempdir_in(self.network.folder()).map_err(|error| error.to_string())?;
        let side = |number: usize, host: Host| -> Result<Side<'_>, String> {
            let own = folder.path().join(["caller", "callee"][number]);
            std::fs::create_dir(&own).map_err(|error| format!("{}: {error}", own.display()))?;
            let speech = own.join("says.wav");
            repeat(&spoken()[number], &speech)?;
            Ok(Side { lab: self, host, tls: place.tls, srtp: place.srtp, speech, folder: own })
        };
        let (caller, callee) = (side(0, place.caller)?, side(1, place.callee)?);
        let mut answers = start(programs[1], &callee, None)?;
        self.wait_registered(place.callee).map_err(|error| format!("{error}\n{}", story(&mut answers)))?;
        if place.loss > 0.0 {
            self.network.set_loss(place.caller, place.loss, Way::Both)?;
        }
        if !place.delay.is_empty() {
            self.network.set_delay(place.caller, place.delay)?;
        }
        let patience = if programs.contains(&Program::Baresip) { PATIENCE } else { Duration::ZERO };
        let called = self.converse(programs[0], &caller, place, TALK + patience);
        self.network.set_loss(place.caller, 0.0, Way::Both)?;
        if !place.delay.is_empty() {
            self.network.set_delay(place.caller, &["off"])?;
        }
        let mut calls = called.map_err(|error| format!("{error}\ncallee:\n{}", story(&mut answers)))?;
        stop(&mut calls)?;
        stop(&mut answers)?;
        let heard = heard(&mut calls, &caller, 0).and_then(|first| Ok([first, heard(&mut answers, &callee, 1)?]));
        let likeness = heard
            .map_err(|error| format!("{error}\ncaller:\n{}\ncallee:\n{}", story(&mut calls), story(&mut answers)))?;
        let events = [calls, answers].into_iter().find_map(|anyone| match anyone {
            Anyone::Ours(mut phone) => Some(phone.events()),
            Anyone::Other(..) => None,
        });
        let events = events.unwrap_or_default();
        Ok(Heard { likeness, path: last_path(&events), first_received_ms: first_received(&events) })
    }

    /// Starts the caller, lets it talk, and hangs up.
    fn converse(&self, program: Program, side: &Side<'_>, place: &Place, talk: Duration) -> Result<Anyone, String> {
        let to = aor(place.callee);
        let mut calls = start(program, side, Some((&to, talk)))?;
        let done = match &mut calls {
            // It hangs up by itself.
            Anyone::Ours(phone) => phone.exit_code(ANSWERED + talk).map(|_| ()),
            Anyone::Other(program, person) => self.converse_as(*program, person, place, talk),
        };
        done.map_err(|error| format!("{error}\ncaller:\n{}", story(&mut calls)))?;
        Ok(calls)
    }

    fn converse_as(&self, program: Program, person: &mut Person, place: &Place, talk: Duration) -> Result<(), String> {
        if program == Program::Linphone {
            self.wait_registered(place.caller)?;
            person.say(&format!("call {}", aor(place.callee)))?;
        }
        let sign = if program == Program::Linphone { "connected." } else { "Call established" };
        person.process.wait_line("answer", ANSWERED, |line| line.contains(sign))?;
        // Somebody else's program has no clock of ours: it talks until we say so.
        person.process.wait_exit(talk).map_or(Ok(()), |status| Err(format!("it ended with {status} while talking")))?;
        if program == Program::Linphone {
            person.say("terminate")?;
            person.process.wait_line("end of the call", ANSWERED, |line| line.contains(" ended"))?;
        }
        Ok(())
    }

    /// Waits until the registrar knows a user.
    ///
    /// # Errors
    ///
    /// If it does not in time.
    pub fn wait_registered(&self, user: Host) -> Result<(), String> {
        let until = now() + REGISTERED;
        loop {
            let known = self.registrations()?;
            if known.iter().any(|aor| aor.contains(user.name())) {
                return Ok(());
            }
            if now() >= until {
                return Err(format!("{user} is not registered after {REGISTERED:?}, only {known:?}"));
            }
        }
    }
}

/// Starts a program that answers, or calls somebody and talks for a while.
fn start(program: Program, side: &Side<'_>, dial: Option<(&str, Duration)>) -> Result<Anyone, String> {
    match program {
        Program::Baresip => Person::baresip(side, dial.map(|(whom, _)| whom)).map(|p| Anyone::Other(program, p)),
        Program::Linphone => Person::linphone(side, dial.is_none()).map(|p| Anyone::Other(program, p)),
        Program::Icephone => {
            let srtp = if side.srtp { "required" } else { "off" };
            let (speech, record) = (side.speech.to_string_lossy(), side.folder.join("heard.wav"));
            let record = record.to_string_lossy();
            let fixed = ["--json", "--no-sound", "--transport", side.transport(), "--srtp", srtp, "--record", &record];
            let seconds = dial.map(|(_, talk)| format!("{}s", talk.as_secs())).unwrap_or_default();
            let own = match dial {
                Some((whom, _)) => ["call", whom, "--play", &speech, "--duration", &seconds].to_vec(),
                None => ["bot", "--play", &speech, "--ring", "500ms"].to_vec(),
            };
            let mut phone = side.lab.phone(side.host, &[&own[..], &fixed].concat(), "")?;
            if dial.is_none() {
                phone.event("credentials-received", REGISTERED)?;
            }
            Ok(Anyone::Ours(phone))
        }
    }
}

/// Ends a program in the way that leaves nothing behind.
fn stop(anyone: &mut Anyone) -> Result<(), String> {
    match anyone {
        Anyone::Ours(phone) => {
            if phone.process.status().is_none() {
                phone.stop()?;
            }
        }
        Anyone::Other(program, person) => {
            if *program == Program::Linphone {
                person.say("quit")?;
            } else {
                person.process.signal(Signal::SIGINT);
            }
            person.process.wait_exit(Duration::from_secs(15))?;
        }
    }
    Ok(())
}

fn story(anyone: &mut Anyone) -> String {
    let (process, errors) = match anyone {
        Anyone::Ours(phone) => {
            let errors = phone.errors();
            (&mut phone.process, errors)
        }
        Anyone::Other(_, person) => (&mut person.process, String::new()),
    };
    let lines = process.output();
    // Enough for the whole of a call's signalling.
    let tail = &lines[lines.len().saturating_sub(400)..];
    format!("{}\n{errors}", tail.join("\n"))
}

/// The same sentence ten times, with a breath between.
fn repeat(sentence: &Path, file: &Path) -> Result<(), String> {
    let [from, to] = [sentence, file].map(|path| path.to_string_lossy().into_owned());
    tool("sox", &[from.as_str(), &to, "pad", "0", "0.5", "repeat", "9"]).map(|_| ())
}

/// What somebody heard, compared with the sentences.
fn heard(anyone: &mut Anyone, side: &Side<'_>, number: usize) -> Result<(f64, f64), String> {
    let recordings = match anyone {
        Anyone::Other(Program::Baresip, person) => person.dumps(),
        Anyone::Ours(_) | Anyone::Other(..) => vec![side.folder.join("heard.wav")],
    };
    if recordings.iter().all(|file| !file.exists()) {
        return Err(format!("{} has recorded nothing", side.host));
    }
    let ready = side.folder.join("ready.wav").to_string_lossy().into_owned();
    let mut arguments: Vec<String> = recordings.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    arguments.extend(["-r", "48000", "-c", "1", "-b", "16", &ready].map(ToOwned::to_owned));
    tool("sox", &arguments)?;
    likeness(Path::new(&ready), 1 - number)
}

fn first_received(events: &[Value]) -> Option<u64> {
    let first = events.iter().find(|event| event["event"] == "first-media" && event["direction"] == "received")?;
    first["after_ms"].as_u64()
}
