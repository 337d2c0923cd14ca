//! A running `icephone lab` and the accounts it wrote.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::netns::Namespace;
use super::run::{Process, now};
use crate::binary::icephone;

/// From start to ready; generous, because the tests of a whole workspace run beside it.
const READY: Duration = Duration::from_secs(20);

/// The embedded edge as a process. Dropped, it is killed; [`Lab::stop`] is the polite way.
pub struct Lab {
    pub process: Process,
    folder: tempfile::TempDir,
}

impl Lab {
    /// Starts an edge and waits until its accounts can be used.
    ///
    /// # Errors
    ///
    /// What it wrote, if it did not get ready.
    pub fn start(place: Option<&Namespace>, arguments: &[&str]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("lab").to_string_lossy().into_owned();
        let arguments = [&["lab", "--json", "--folder", &path], arguments].concat();
        let mut process = Process::start(place, &icephone(), &arguments);
        process.wait_line("JSON object", READY, |line| line.starts_with('{'))?;
        Ok(Self { process, folder })
    }

    /// The configuration file of `alice`, `bob` or `echo`.
    pub fn account(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.toml"))
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    /// The text of an account's file.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn account_text(&self, name: &str) -> Result<String, String> {
        std::fs::read_to_string(self.account(name)).map_err(|error| format!("{name}.toml: {error}"))
    }

    /// The address of record in an account's file.
    ///
    /// # Errors
    ///
    /// If there is no such file or no `aor` in it.
    pub fn aor(&self, name: &str) -> Result<String, String> {
        self.setting(name, "aor")
    }

    /// The value in quotes of a key of an account's file.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn setting(&self, name: &str, key: &str) -> Result<String, String> {
        let text = self.account_text(name)?;
        let line =
            text.lines().find_map(|line| line.trim().strip_prefix(key)).filter(|rest| rest.trim().starts_with('='));
        let value = line.and_then(|rest| rest.split('"').nth(1)).ok_or_else(|| format!("no {key} in\n{text}"))?;
        Ok(value.to_owned())
    }

    /// Writes one line to the lab's control socket and reads the line of JSON that answers it.
    ///
    /// # Errors
    ///
    /// If the lab does not listen or does not answer with JSON.
    pub fn control(&self, command: &str) -> Result<Value, String> {
        let path = self.folder().join("control.sock");
        let mut socket = UnixStream::connect(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
        writeln!(socket, "{command}").map_err(|error| error.to_string())?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).map_err(|error| format!("no answer to {command}: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("{command}: {error} in {line:?}"))
    }

    /// Waits until nothing is registered and nothing allocated; what is left otherwise.
    ///
    /// # Errors
    ///
    /// The list, if it is not empty within `limit`.
    pub fn wait_empty(&self, limit: Duration) -> Result<(), String> {
        let until = now() + limit;
        loop {
            let list = self.control("list")?;
            let held = |key: &str| list.get(key).and_then(Value::as_array).map(Vec::len);
            let counts = [held("registrations"), held("allocations")];
            match counts {
                [Some(0), Some(0)] => return Ok(()),
                [Some(_), Some(_)] if now() < until => {}
                _ => return Err(format!("left at the edge: {list}")),
            }
        }
    }

    /// Ctrl-C, and what it wrote to the end.
    ///
    /// # Errors
    ///
    /// If it does not end, or not with 0.
    pub fn stop(mut self) -> Result<Vec<String>, String> {
        self.process.signal(Signal::SIGINT);
        let status = self.process.wait_exit(Duration::from_secs(10))?;
        let output = self.process.output().to_vec();
        if status.success() { Ok(output) } else { Err(format!("the lab ended with {status}:\n{}", output.join("\n"))) }
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
