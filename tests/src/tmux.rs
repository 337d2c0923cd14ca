//! A real terminal for the real program: a tmux server of our own, its screen read as text.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// One tmux server with one pane. Dropping it ends the server and with it what ran inside.
pub struct Tmux {
    socket: PathBuf,
    changes: Receiver<()>,
    _folder: tempfile::TempDir,
}

impl Tmux {
    /// A pane of `width` x `height` with a shell that has the given environment.
    ///
    /// # Panics
    ///
    /// tmux is missing (`tests/packages --test` installs it).
    pub fn new(width: u16, height: u16, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("tmux");
        let fifo = folder.path().join("changes");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        let mut start = Command::new("tmux");
        start.arg("-S").arg(&socket).args(["-f", "/dev/null", "new-session", "-d"]);
        start.args(["-x", &width.to_string(), "-y", &height.to_string()]);
        start.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        // The server hands its own environment on to the pane.
        start.envs(environment.iter().copied());
        start.arg("env PS1='prompt> ' bash --norc --noprofile");
        let started = start.output().expect("tmux runs; tests/packages --test installs it");
        assert!(started.status.success(), "tmux: {}", String::from_utf8_lossy(&started.stderr));
        let tmux = Self { socket, changes: watch(fifo.clone()), _folder: folder };
        // Whatever the program writes also goes into the fifo: that is how we learn that the screen changed.
        tmux.run(&["pipe-pane", "-O", &format!("exec cat > '{}'", fifo.display())]);
        tmux
    }

    /// Types keys by tmux's names: `Enter`, `Tab`, `C-c`, `q`.
    pub fn keys(&self, keys: &[&str]) {
        let mut arguments = vec!["send-keys"];
        arguments.extend(keys);
        self.run(&arguments);
    }

    /// Types a line and Enter.
    pub fn line(&self, text: &str) {
        self.run(&["send-keys", "-l", text]);
        self.keys(&["Enter"]);
    }

    /// The screen, a line a row, without trailing blanks.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.run(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// A figure of the pane that tmux keeps, for example `#{alternate_on}`.
    pub fn figure(&self, format: &str) -> String {
        String::from_utf8_lossy(&self.run(&["display-message", "-p", format]).stdout).trim().to_owned()
    }

    /// Waits until the screen satisfies `seen`, looking again whenever the program wrote something.
    ///
    /// # Panics
    ///
    /// It does not within `limit`; the message shows the screen.
    pub fn wait(&self, what: &str, limit: Duration, seen: impl Fn(&str) -> bool) -> String {
        let until = crate::lab::run::now() + limit;
        loop {
            let screen = self.screen();
            if seen(&screen) {
                return screen;
            }
            let left = until.saturating_duration_since(crate::lab::run::now());
            assert!(!left.is_zero(), "no {what} within {limit:?}; the screen shows:\n{screen}");
            // The fifo is fed beside the screen: look once more shortly after a change even if no other comes.
            match self.changes.recv_timeout(left.min(Duration::from_millis(200))) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("tmux ended while waiting for {what}:\n{screen}"),
            }
        }
    }

    /// [`Self::wait`] for a text.
    pub fn wait_for(&self, text: &str, limit: Duration) -> String {
        self.wait(&format!("{text:?}"), limit, |screen| screen.contains(text))
    }

    /// [`Self::wait`] until the screen also looks the same twice in a row, [`normalised`]: a screen is written piece
    /// by piece, and half of one is not what a person sees.
    pub fn settled(&self, what: &str, limit: Duration, seen: impl Fn(&str) -> bool) -> String {
        let until = crate::lab::run::now() + limit;
        let mut before = String::new();
        loop {
            let left = until.saturating_duration_since(crate::lab::run::now());
            let now = self.wait(what, left, &seen);
            if normalised(&now) == before {
                return now;
            }
            before = normalised(&now);
            // Until the next piece is written, or none has come for a while.
            let _more = self.changes.recv_timeout(Duration::from_millis(150));
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = Command::new("tmux").arg("-S").arg(&self.socket).args(arguments).output().expect("tmux runs");
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ended = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

/// One message for each piece written to the fifo.
fn watch(fifo: PathBuf) -> Receiver<()> {
    let (changed, changes) = channel();
    std::thread::spawn(move || {
        let Ok(mut pipe) = std::fs::File::open(fifo) else { return };
        let mut piece = [0; 4096];
        while pipe.read(&mut piece).is_ok_and(|read| read > 0) {
            if changed.send(()).is_err() {
                return;
            }
        }
    });
    changes
}

/// A screen without what differs from run to run: numbers become `N`, meters one sign, blanks fold.
pub fn normalised(screen: &str) -> String {
    let mut lines = Vec::new();
    for line in screen.lines() {
        let mut out = String::new();
        let mut last = ' ';
        for c in line.chars() {
            let c = match c {
                '0'..='9' => 'N',
                '█' | '░' => '░',
                other => other,
            };
            let repeats = c == last && matches!(c, 'N' | ' ' | '░' | '─');
            // 12.5 and 1234 are both one number, and so is an address with its port.
            let joins = last == 'N' && matches!(c, '.' | ':');
            if !repeats && !joins {
                out.push(c);
                last = c;
            }
        }
        lines.push(out.replace(" │", "│").trim_end().to_owned());
    }
    // Who measured the round trip last, and whether a ringing tone sounds, depends on when one looks.
    lines.join("\n").trim_end().replace("(RTCP)", "(STUN check)").replace("░ silence", "░ -N dB")
}

#[cfg(test)]
mod tests {
    use super::normalised;

    #[test]
    fn numbers_of_any_width_normalise_alike() {
        assert_eq!(
            normalised("│ check   3 ms 127.0.0.1:40112 ██░░ -8.5 dB"),
            normalised("│ check  12 ms 127.0.0.1:9 █░░░ -18 dB")
        );
    }
}
