//! Network namespaces, by name. What is made here is removed by its owner, by the signals that end the program, or, after a
//! crash, by the next program that makes some.
//!
//! A name is `icephone-OWNER-ROLE`. The owner is `PID-NUMBER` for a laboratory that lives as long as a program, or a word for one
//! that a person made (`netlab up`): only the former are ever swept.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::run::tool;

const PREFIX: &str = "icephone-";
const MOUNTS: &str = "/run/netns";

/// A name; the namespace itself is the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn named(owner: &str, role: &str) -> Self {
        Self { name: format!("{PREFIX}{owner}-{role}") }
    }

    /// Makes it.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn create(&self) -> Result<(), String> {
        tool("ip", &["netns", "add", &self.name]).map(|_| ())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn exists(&self) -> bool {
        self.mount().exists()
    }

    /// `program`, to be run inside, with the namespace's own `resolv.conf`. `ip netns exec` becomes the program, so the
    /// child's id is the program's.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `work` on a thread of its own inside the namespace: its sockets are there.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered.
    pub fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let place = File::open(self.mount()).map_err(|error| format!("{}: {error}", self.name))?;
        let name = self.name.clone();
        let entered = thread::spawn(move || {
            setns(place, CloneFlags::CLONE_NEWNET).map_err(|error| format!("{name} cannot be entered: {error}"))?;
            Ok(work())
        });
        entered.join().map_err(|_| format!("the work in {} panicked", self.name))?
    }

    /// Runs `ip` for this namespace.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String, String> {
        tool("ip", &[&["-n", self.name.as_str()], arguments].concat())
    }

    /// Runs one `ip` command per line.
    ///
    /// # Errors
    ///
    /// What `ip` said of the first line it did not like.
    pub fn ip_batch(&self, lines: &str) -> Result<(), String> {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
    }

    /// Writes kernel settings, one `net/path value` per line; a path that this kernel lacks is passed over.
    ///
    /// # Errors
    ///
    /// What the shell said.
    pub fn sysctls(&self, settings: &str) -> Result<(), String> {
        let script = "while read -r path value; do [ -w /proc/sys/$path ] && echo $value > /proc/sys/$path; done; true";
        feed(self.command(Path::new("sh")).args(["-c", script]), settings)
    }

    /// Loads rules.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn nft(&self, rules: &str) -> Result<(), String> {
        feed(self.command(Path::new("nft")).args(["-f", "-"]), rules)
    }

    /// Forgets every connection that the kernel tracks here.
    ///
    /// # Errors
    ///
    /// What `conntrack` said.
    pub fn forget_connections(&self) -> Result<(), String> {
        for family in ["ipv4", "ipv6"] {
            let mut command = self.command(Path::new("conntrack"));
            feed(command.args(["-F", "-f", family]), "")?;
        }
        Ok(())
    }

    /// Whether a living process is in it. A process id is given to others after its end: this is asked before any signal.
    pub fn holds(&self, pid: i32) -> bool {
        let inode = |path: PathBuf| std::fs::metadata(path).map(|data| data.ino()).ok();
        let inside = inode(PathBuf::from(format!("/proc/{pid}/ns/net")));
        inside.is_some() && inside == inode(self.mount())
    }

    /// Sends a signal to a process group whose leader is in it.
    pub fn signal_group(&self, leader: i32, signal: Signal) {
        if self.holds(leader) {
            let _ = kill(Pid::from_raw(-leader), signal);
        }
    }

    /// Removes it with everything that runs in it.
    pub fn remove(&self) {
        if !self.exists() {
            return;
        }
        if let Ok(pids) = tool("ip", &["netns", "pids", &self.name]) {
            for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = tool("ip", &["netns", "del", &self.name]);
        let _ = std::fs::remove_dir_all(self.files());
    }

    /// The folder whose files stand in for those of `/etc` inside.
    pub fn files(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }

    fn mount(&self) -> PathBuf {
        Path::new(MOUNTS).join(&self.name)
    }
}

/// Runs a command with a text as its standard input.
fn feed(command: &mut Command, text: &str) -> Result<(), String> {
    let shown = command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("{shown}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).map_err(|error| format!("{shown}: {error}"))?;
    }
    let output = child.wait_with_output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{shown}: {}\n{text}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The folder of an owner's state: configurations, logs, process ids.
pub fn folder_of(owner: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}lab-{owner}"))
}

/// Removes everything of an owner: processes, namespaces, files.
pub fn remove_owner(owner: &str) {
    for namespace in namespaces().into_iter().filter(|name| owner_of(name) == Some(owner)) {
        Namespace { name: namespace.clone() }.remove();
    }
    let _ = std::fs::remove_dir_all(folder_of(owner));
    let _ = std::fs::remove_dir("/etc/netns"); // only if it is empty
}

/// The namespaces of all owners, in the order of their names.
pub fn namespaces() -> BTreeSet<String> {
    let entries = std::fs::read_dir(MOUNTS).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(PREFIX)).collect()
}

/// `icephone-OWNER-ROLE`, where the owner may hold dashes and the role does not.
fn owner_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)?.rsplit_once('-').map(|(owner, _)| owner)
}

/// Removes what programs left that were killed before they could.
pub fn sweep() {
    let names = namespaces();
    let owners: BTreeSet<&str> = names.iter().filter_map(|name| owner_of(name)).collect();
    for owner in owners.into_iter().filter(|owner| is_dead(owner)) {
        remove_owner(owner);
    }
}

/// Whether the owner is a program that has ended. A person's laboratory is never dead.
fn is_dead(owner: &str) -> bool {
    let Some((pid, number)) = owner.split_once('-') else { return false };
    let (Ok(pid), Ok(_)) = (pid.parse::<i32>(), number.parse::<u32>()) else { return false };
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// The owners in this program, for the signals that end it.
static OWNERS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn owners() -> MutexGuard<'static, BTreeSet<String>> {
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that `owner` is to be removed if a signal ends this program; a panic is the business of `Drop`.
pub fn remove_on_signal(owner: &str) {
    static ONCE: Once = Once::new();
    owners().insert(owner.to_owned());
    ONCE.call_once(|| {
        thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let signal = runtime.block_on(ending_signal());
            for owner in owners().iter() {
                remove_owner(owner);
            }
            std::process::exit(128 + signal as i32);
        });
    });
}

/// `owner` was removed by itself.
pub fn forget_owner(owner: &str) {
    owners().remove(owner);
}

async fn ending_signal() -> Signal {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).expect("a signal can be listened to");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    tokio::select! {
        _ = interrupt.recv() => Signal::SIGINT,
        _ = terminate.recv() => Signal::SIGTERM,
    }
}

#[cfg(test)]
mod netns_tests {
    use super::*;

    #[test]
    fn only_what_a_dead_program_made_is_swept() {
        let own = std::process::id();
        for (name, owner, dead) in [
            ("icephone-4194399-0-natA".to_owned(), "4194399-0".to_owned(), true),
            (format!("icephone-{own}-7-alice"), format!("{own}-7"), false),
            ("icephone-mine-alice".to_owned(), "mine".to_owned(), false),
            ("icephone-my-own-alice".to_owned(), "my-own".to_owned(), false),
        ] {
            assert_eq!(owner_of(&name), Some(owner.as_str()));
            assert_eq!(is_dead(&owner), dead, "{owner}");
        }
        assert_eq!(owner_of("other-4194399-0-natA"), None);
    }
}
