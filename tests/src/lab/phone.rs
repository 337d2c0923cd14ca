//! The built program as a phone or a bot: its events as JSON, its complaints by themselves, and what the kernel knows of it.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::netns::Namespace;
use super::run::Process;
use crate::binary::icephone;

/// A running `icephone` in a home of its own. Dropped, it is killed.
pub struct Phone {
    pub process: Process,
    home: tempfile::TempDir,
}

impl Phone {
    /// Starts it; no configuration and no variable of this machine's user reaches it.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    /// As [`Self::start`]; `prepare` may set variables.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start_with(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_in(None, arguments, prepare)
    }

    /// As [`Self::start_with`], in a namespace if one is given.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start_in(place: Option<&Namespace>, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let errors = File::create(home.path().join("stderr")).expect("a file");
        let process = Process::start_with(place, &icephone(), arguments, |command| {
            let ours = std::env::vars_os().map(|(name, _)| name);
            for name in ours.filter(|name| name.to_string_lossy().starts_with("ICEPHONE_")) {
                command.env_remove(name);
            }
            command.env("HOME", home.path()).env("XDG_CONFIG_HOME", home.path()).stderr(errors);
            prepare(command);
        });
        Self { process, home }
    }

    /// A bot with a configuration file, started with `--json` and waited for until it can be called.
    ///
    /// # Errors
    ///
    /// What it wrote instead.
    pub fn bot(config: &std::path::Path, arguments: &[&str]) -> Result<Self, String> {
        let config = config.to_string_lossy();
        let mut bot = Self::start(&[&["-c", &config, "bot", "--json"], arguments].concat());
        bot.event("registered", Duration::from_secs(20))?;
        Ok(bot)
    }

    /// Waits for the first event of this name; one that has happened already counts.
    ///
    /// # Errors
    ///
    /// What it wrote instead.
    pub fn event(&mut self, name: &str, limit: Duration) -> Result<Value, String> {
        self.event_with(&format!("\"event\":\"{name}\""), limit)
    }

    /// Waits for the first event whose JSON holds this text.
    ///
    /// # Errors
    ///
    /// What it wrote instead.
    pub fn event_with(&mut self, text: &str, limit: Duration) -> Result<Value, String> {
        let line = self.process.wait_line(text, limit, |line| line.starts_with('{') && line.contains(text));
        let line = line.map_err(|error| format!("{error}\n{}", self.errors()))?;
        serde_json::from_str(&line).map_err(|error| format!("{error} in {line}"))
    }

    /// Every event so far.
    pub fn events(&mut self) -> Vec<Value> {
        self.process.output().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it wrote to the standard error stream.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default()
    }

    /// Its home and configuration folder.
    pub fn home(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    /// Waits for its end; the exit code, if no signal killed it.
    ///
    /// # Errors
    ///
    /// If it still runs after `limit`.
    pub fn exit_code(&mut self, limit: Duration) -> Result<Option<i32>, String> {
        Ok(self.process.wait_exit(limit)?.code())
    }

    /// Ctrl-C, and its end.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn stop(&mut self) -> Result<Option<i32>, String> {
        self.process.signal(Signal::SIGINT);
        self.exit_code(Duration::from_secs(10))
    }
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// VmRSS in KiB.
    pub rss_kib: u64,
    pub descriptors: usize,
    pub threads: usize,
}

impl Usage {
    /// Of the process `pid`.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub fn of(pid: u32) -> Result<Self, String> {
        let status = read(pid, "status")?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
        Ok(Self {
            rss_kib: rss.ok_or_else(|| format!("no VmRSS in\n{status}"))?,
            descriptors: count(pid, "fd")?,
            threads: count(pid, "task")?,
        })
    }
}

/// Time that the living threads of a process spent on a processor.
///
/// # Errors
///
/// If it is gone.
pub fn cpu_time(pid: u32) -> Result<Duration, String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| format!("/proc/{pid}: {error}"))?;
    let mut total = Duration::ZERO;
    for thread in threads.flatten() {
        total += on_processor(&thread.path().join("schedstat"));
    }
    Ok(total)
}

/// Time that this thread spent on a processor.
pub fn own_cpu_time() -> Duration {
    on_processor(std::path::Path::new("/proc/thread-self/schedstat"))
}

/// The first figure of a `schedstat`: nanoseconds on a processor (Documentation/scheduler/sched-stats.rst).
fn on_processor(path: &std::path::Path) -> Duration {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default())
}

fn read(pid: u32, name: &str) -> Result<String, String> {
    std::fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|error| format!("/proc/{pid}/{name}: {error}"))
}

fn count(pid: u32, name: &str) -> Result<usize, String> {
    let entries =
        std::fs::read_dir(format!("/proc/{pid}/{name}")).map_err(|error| format!("/proc/{pid}/{name}: {error}"))?;
    Ok(entries.count())
}
