//! Colours and signs. Sixteen colours that are readable on dark and on light; every state has a sign too, so that
//! nothing is told by colour alone. `NO_COLOR` (no-color.org) switches colours off.

use ratatui::style::{Color, Modifier, Style};

#[derive(Debug, Clone, Copy)]
pub struct Theme {
    pub accent: Style,
    pub good: Style,
    pub warn: Style,
    pub bad: Style,
    pub dim: Style,
    pub bold: Style,
    pub selected: Style,
    pub signs: Signs,
}

/// One sign for each state of a phase, and the blocks of a level meter.
#[derive(Debug, Clone, Copy)]
pub struct Signs {
    pub pending: &'static str,
    pub running: &'static str,
    pub done: &'static str,
    pub failed: &'static str,
    pub full: &'static str,
    pub empty: &'static str,
    pub cursor: &'static str,
}

const UNICODE: Signs =
    Signs { pending: "·", running: "…", done: "✓", failed: "✗", full: "█", empty: "░", cursor: "▶" };
const ASCII: Signs = Signs { pending: ".", running: "~", done: "+", failed: "x", full: "#", empty: "-", cursor: ">" };

impl Theme {
    pub fn new(colour: bool, unicode: bool) -> Self {
        let style = |colour_of: Color| if colour { Style::new().fg(colour_of) } else { Style::new() };
        Self {
            accent: style(Color::Cyan),
            good: style(Color::Green),
            warn: style(Color::Yellow),
            bad: style(Color::Red).add_modifier(Modifier::BOLD),
            dim: if colour { Style::new().fg(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) },
            bold: Style::new().add_modifier(Modifier::BOLD),
            selected: Style::new().add_modifier(Modifier::REVERSED),
            signs: if unicode { UNICODE } else { ASCII },
        }
    }

    /// From `NO_COLOR`, `TERM` and the locale.
    pub fn from_environment() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
        let unicode = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self::new(!set("NO_COLOR"), unicode)
    }
}
