//! Taking the terminal and giving it back, whatever happens: return, error, panic, signal.

use std::io::{self, Stdout, Write as _};

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, SetTitle, disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

/// The terminal while it is ours. Dropping it restores what was there.
#[derive(Debug)]
pub struct Screen {
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Raw mode and the alternate screen, with a panic hook that leaves both before the message is printed.
    ///
    /// # Errors
    ///
    /// Standard output is no terminal, or it refuses.
    pub fn enter() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, SetTitle("icephone"))?;
        Ok(Self { terminal: Terminal::new(CrosstermBackend::new(io::stdout()))? })
    }

    /// The terminal's bell.
    pub fn bell(&mut self) {
        let mut out = io::stdout();
        // A terminal that cannot ring is no reason to stop.
        let _written = out.write_all(b"\x07").and_then(|()| out.flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves the alternate screen and raw mode; safe to call twice.
pub fn restore() {
    // Nobody is left to tell if this fails.
    let _left = execute!(io::stdout(), DisableBracketedPaste, LeaveAlternateScreen, crossterm::cursor::Show);
    let _cooked = disable_raw_mode();
}
