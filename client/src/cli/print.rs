//! Output of commands: results on the standard output, trouble on the standard error stream.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::sync::LazyLock;
use std::time::Instant;

use crate::api::Event;
use crate::driver::clock;
use crate::report::Report;
use crate::sentence::sentence;

/// Prints events as they happen, for people or as JSON lines.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    face: Face,
    start: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    Lines,
    Json,
    Silent,
}

impl Printer {
    /// `start`: the instant that people's lines count from.
    pub fn new(json: bool, start: Instant) -> Self {
        Self { face: if json { Face::Json } else { Face::Lines }, start }
    }

    /// Prints nothing.
    pub fn silent() -> Self {
        Self { face: Face::Silent, start: clock::now() }
    }

    /// Whether a program reads.
    pub fn is_json(&self) -> bool {
        self.face == Face::Json
    }

    /// One event: a JSON object, or a line with the seconds since the start, if there is something to say.
    pub fn event(&self, event: &Event) {
        if self.face == Face::Silent {
            return;
        }
        if self.face == Face::Json {
            if let Ok(line) = serde_json::to_string(event) {
                out(&line);
            }
        } else if let Some(text) = sentence(event) {
            self.line(&text);
        }
    }

    /// A line for people; JSON readers do not see it.
    pub fn line(&self, text: &str) {
        if self.face == Face::Lines {
            let elapsed = clock::now().saturating_duration_since(self.start).as_secs_f32();
            out(&format!("{elapsed:8.3}  {}", harmless(text)));
        }
    }

    /// The end of a call as a table; JSON readers have the `ended` event.
    pub fn report(&self, report: &Report) {
        if self.face == Face::Lines {
            out(&format!("\n{report}"));
        }
    }
}

/// One line of result. A reader that has gone away is no error of ours.
pub fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

/// The standard error stream as it was at the start. While a sound card is opened the driver points descriptor 2
/// nowhere, because sound libraries write there; what we have to say must not get lost with that.
static ERRORS: LazyLock<Option<File>> = LazyLock::new(|| nix::unistd::dup(io::stderr()).ok().map(File::from));

/// Keeps the standard error stream; to be called before anything opens a sound card.
pub fn keep_errors() {
    LazyLock::force(&ERRORS);
}

/// A writer to the standard error stream that was kept.
pub fn errors() -> Box<dyn Write + Send> {
    match ERRORS.as_ref().map(File::try_clone) {
        Some(Ok(file)) => Box::new(file),
        Some(Err(_)) | None => Box::new(io::stderr()),
    }
}

/// One line of trouble: "icephone: what failed, where, what to do".
pub fn trouble(text: &str) {
    let _ = errors().write_all(format!("icephone: {}\n", harmless(text)).as_bytes());
}

/// Without control characters: names, reasons and addresses come from the network, and a terminal obeys what it reads.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_bad) { text.replace(is_bad, "\u{fffd}").into() } else { text.into() }
}

#[cfg(test)]
mod print_tests {
    use super::*;

    #[test]
    fn what_the_network_said_does_not_command_the_terminal() {
        assert_eq!(
            harmless("486 \x1b]0;mine\x07Busy\u{9b}2J\nHere"),
            "486 \u{fffd}]0;mine\u{fffd}Busy\u{fffd}2J\nHere"
        );
        assert!(matches!(harmless("486 Busy"), Cow::Borrowed(_)));
    }
}
