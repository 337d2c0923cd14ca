//! A running program: its lines as they come, its end, and nothing left of it afterwards.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::netns::Namespace;

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// A child process. Dropped, it is killed.
pub struct Process {
    child: Child,
    name: String,
    lines: Receiver<(SystemTime, String)>,
    seen: Vec<String>,
    seen_at: Vec<SystemTime>,
    ended: Option<ExitStatus>,
}

/// The clock of the real world: only for limits, never for guesses.
#[expect(clippy::disallowed_methods, reason = "a running program has no other time")]
pub fn now() -> Instant {
    Instant::now()
}

/// The clock of captures: only to compare with what they say.
#[expect(clippy::disallowed_methods, reason = "captures have no other time")]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

impl Process {
    /// Starts `program`, in a namespace if one is given. Both its outputs are read line by line.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start<S: AsRef<OsStr>>(place: Option<&Namespace>, program: &Path, arguments: &[S]) -> Self {
        Self::start_with(place, program, arguments, |_| {})
    }

    /// As [`Self::start`]; `prepare` may set variables and the folder.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start_with<S: AsRef<OsStr>>(
        place: Option<&Namespace>,
        program: &Path,
        arguments: &[S],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = match place {
            Some(namespace) => namespace.command(program),
            None => Command::new(program),
        };
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let (lines_tx, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            read_lines(stdout, lines_tx.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            read_lines(stderr, lines_tx);
        }
        Self { child, name, lines, seen: Vec::new(), seen_at: Vec::new(), ended: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line and answers it; lines before it are kept in [`Self::output`]. A line seen already counts.
    ///
    /// # Errors
    ///
    /// The output so far, if no such line came within `limit` or the program ended without it.
    pub fn wait_line(&mut self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        if let Some(line) = self.seen.iter().find(|line| wanted(line)) {
            return Ok(line.clone());
        }
        let until = now() + limit;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(now())) {
                Ok((at, line)) => {
                    self.keep(at, line.clone());
                    if wanted(&line) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "{}: no {what} within {limit:?}; it wrote:\n{}",
                        self.name,
                        self.seen.join("\n")
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("{}: ended without {what}; it wrote:\n{}", self.name, self.seen.join("\n")));
                }
            }
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// The output so far, if it still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let until = now() + limit;
        loop {
            if let Some(status) = self.status() {
                self.drain();
                return Ok(status);
            }
            if now() >= until {
                let output = self.output().join("\n");
                return Err(format!("{} still runs after {limit:?}; it wrote:\n{output}", self.name));
            }
            if let Ok((at, line)) = self.lines.recv_timeout(POLL) {
                self.keep(at, line);
            }
        }
    }

    /// Whether it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Everything written so far.
    pub fn output(&mut self) -> &[String] {
        while let Ok((at, line)) = self.lines.try_recv() {
            self.keep(at, line);
        }
        &self.seen
    }

    /// When the lines of [`Self::output`] came, on the clock that captures use.
    pub fn arrivals(&self) -> &[SystemTime] {
        &self.seen_at
    }

    fn keep(&mut self, at: SystemTime, line: String) {
        self.seen.push(line);
        self.seen_at.push(at);
    }

    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// After the end: what was still in the pipes.
    fn drain(&mut self) {
        while let Ok((at, line)) = self.lines.recv_timeout(Duration::from_millis(500)) {
            self.keep(at, line);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read_lines(pipe: impl Read + Send + 'static, lines: Sender<(SystemTime, String)>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if lines.send((wall_clock(), String::from_utf8_lossy(&line).trim_end().to_owned())).is_err() {
                return;
            }
        }
    });
}

/// Runs a tool to its end and answers what it wrote.
///
/// # Errors
///
/// A sentence with its arguments and its error output, if it cannot be started or fails.
pub fn tool<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String, String> {
    let shown = || arguments.iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", shown(), String::from_utf8_lossy(&output.stderr).trim()))
}
