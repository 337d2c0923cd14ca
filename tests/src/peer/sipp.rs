//! SIPp: plays one side of a call as a scenario file says, message by message, and ends with 0 only if the other side did
//! exactly its part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::loopback::wait_bound;
use super::rtp::Mirror;
use crate::lab::root;
use crate::lab::run::Process;

/// Longer than the longest scenario, which waits 45 s for a refresh.
const PATIENCE_S: u32 = 70;
/// Of every SIPp; addresses differ.
const SIP_PORT: u16 = 5060;

/// A running SIPp. RTP that reaches it is counted and sent back. Dropped, it is killed.
pub struct Sipp {
    process: Process,
    media: Mirror,
    scenario: String,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

/// Whose side of the call it plays, and for how long it waits for the other one.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// A file in `tests/sipp` without its ending, or one of SIPp's own, as `-uac`.
    pub scenario: &'a str,
    pub at: Ipv4Addr,
    /// Whom it calls; `None`: it is called.
    pub calls: Option<SocketAddr>,
    /// `[target_address]` in the scenario: where a REFER or 3xx points to.
    pub target: Option<Ipv4Addr>,
    pub patience_s: u32,
}

impl<'a> Part<'a> {
    /// It is called.
    pub fn callee(scenario: &'a str, at: Ipv4Addr) -> Self {
        Self { scenario, at, calls: None, target: None, patience_s: PATIENCE_S }
    }

    /// It calls.
    pub fn caller(scenario: &'a str, at: Ipv4Addr, whom: SocketAddr) -> Self {
        Self { calls: Some(whom), ..Self::callee(scenario, at) }
    }

    #[must_use]
    pub fn pointing_to(self, target: Ipv4Addr) -> Self {
        Self { target: Some(target), ..self }
    }

    #[must_use]
    pub fn waiting(self, patience_s: u32) -> Self {
        Self { patience_s, ..self }
    }
}

impl Sipp {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start(part: Part<'_>) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let address = SocketAddr::new(IpAddr::V4(part.at), SIP_PORT);
        let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let mut arguments = match part.scenario.strip_prefix('-') {
            Some(own) => vec!["-sn".to_owned(), own.to_owned(), "-d".to_owned(), "2000".to_owned()],
            None => vec!["-sf".to_owned(), scenario_file(part.scenario).to_string_lossy().into_owned()],
        };
        let ip = part.at.to_string();
        let port = SIP_PORT.to_string();
        let fixed = ["-i", &ip, "-p", &port, "-mi", &ip, "-m", "1", "-nostdin"];
        arguments.extend(fixed.iter().map(ToString::to_string));
        let logs = ["-trace_err", "-error_file", &file("errors"), "-trace_msg", "-message_file", &file("messages")];
        arguments.extend(logs.iter().map(ToString::to_string));
        arguments.extend(["-timeout".to_owned(), format!("{}s", part.patience_s), "-timeout_error".to_owned()]);
        if let Some(target) = part.target {
            arguments.extend(["-key".to_owned(), "target_address".to_owned(), format!("{target}:{SIP_PORT}")]);
        }
        arguments.extend(part.calls.map(|whom| whom.to_string()));
        let media = Mirror::start(part.at)?;
        let process = Process::start_with(None, Path::new("sipp"), &arguments, |command| {
            command.current_dir(folder.path());
        });
        let mut sipp = Self { process, media, scenario: part.scenario.to_owned(), address, folder };
        if part.calls.is_none() {
            wait_bound(address).map_err(|error| format!("{error}\n{}", sipp.story()))?;
        }
        Ok(sipp)
    }

    /// Where it is called.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// What it complains of and every message, if the other side did not do its part.
    pub fn finish(&mut self) -> Result<(), String> {
        let status = self.process.wait_exit(Duration::from_secs(120))?;
        if status.success() {
            return Ok(());
        }
        let story = self.story();
        Err(format!("{}: {status}\n{story}", self.scenario))
    }

    /// How many RTP packets of the agreed payload type have reached it.
    pub fn packets(&self) -> u64 {
        self.media.packets()
    }

    /// Every message it sent and received.
    pub fn messages(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("messages")).unwrap_or_default()
    }

    fn story(&mut self) -> String {
        let errors = std::fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default();
        // Its screen is of use only if it did not get as far as a log.
        let screen = if errors.is_empty() { self.process.output().join("\n") } else { String::new() };
        format!("{errors}\n{screen}\n{}", self.messages())
    }
}

fn scenario_file(name: &str) -> PathBuf {
    root().join("tests/sipp").join(format!("{name}.xml"))
}

/// The names of all scenario files.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn scenarios() -> Result<Vec<String>, String> {
    let folder = root().join("tests/sipp");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let names = entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "xml"));
    let mut names: Vec<_> =
        names.filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}
