//! Programs that run beside the tests inside the namespaces: found again by their id in a file, ended by it.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::network::{HOSTS, Host, Network};
use super::run::now;

/// How long a program has to enter its namespace, and to end when asked.
const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

impl Network {
    /// Starts a program in a host, if it does not run yet. What it writes goes to a log.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn start_daemon(&self, name: &str, host: Host, program: &str, arguments: &[&str]) -> Result<(), String> {
        if self.is_running(name) {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_path(name));
        let log = log.map_err(|error| format!("{}: {error}", self.log_path(name).display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = self.host(host).command(Path::new(program));
        // A group of its own, so that a signal ends the whole family and only it.
        command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        command.current_dir(self.folder()).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = command.spawn().map_err(|error| format!("{program} does not start: {error}"))?;
        let pid = child.id();
        std::fs::write(self.pid_path(name), pid.to_string()).map_err(|error| error.to_string())?;
        let until = now() + LIMIT;
        while !self.is_running(name) {
            if child.try_wait().is_ok_and(|status| status.is_some()) || now() > until {
                return Err(format!("{program} ended at once:\n{}", self.log_of(name)));
            }
            pause(until);
        }
        // Whoever ends it does so by its id; somebody has to take its exit status.
        thread::spawn(move || child.wait());
        Ok(())
    }

    /// Whether it runs.
    pub fn is_running(&self, name: &str) -> bool {
        self.place_of(name).is_some()
    }

    /// Sends a signal to it and its children.
    pub fn signal_daemon(&self, name: &str, signal: Signal) {
        if let Some((host, pid)) = self.place_of(name) {
            self.host(host).signal_group(pid, signal);
        }
    }

    /// Ends it; by force if it does not listen.
    pub fn stop_daemon(&self, name: &str, signal: Signal) {
        self.signal_daemon(name, signal);
        let until = now() + LIMIT;
        while self.is_running(name) && now() < until {
            pause(until);
        }
        self.signal_daemon(name, Signal::SIGKILL);
        let _ = std::fs::remove_file(self.pid_path(name));
    }

    /// What it wrote.
    pub fn log_of(&self, name: &str) -> String {
        let bytes = std::fs::read(self.log_path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Puts a file of ours where programs find it, and answers its path.
    pub(super) fn write_script(&self, name: &str, text: &str) -> Result<String, String> {
        let path = self.folder().join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    pub(super) fn pid_of(&self, name: &str) -> Option<i32> {
        self.place_of(name).map(|(_, pid)| pid)
    }

    /// Its namespace and id, if it lives.
    fn place_of(&self, name: &str) -> Option<(Host, i32)> {
        let pid: i32 = std::fs::read_to_string(self.pid_path(name)).ok()?.trim().parse().ok()?;
        let host = HOSTS.iter().map(|(host, _)| *host).find(|host| self.host(*host).holds(pid))?;
        Some((host, pid))
    }

    fn pid_path(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.pid"))
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.log"))
    }
}

/// Waits a moment before the next look at something that tells nobody when it changes.
#[expect(clippy::disallowed_methods, reason = "files and processes of others are looked at again, up to a limit")]
pub fn pause(until: Instant) {
    thread::sleep(POLL.min(until.saturating_duration_since(now())));
}
