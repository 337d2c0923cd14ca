//! `view(&Model, &Theme, &mut Frame)`: pure. The same model gives the same cells.
//!
//! ```text
//!   title     icephone, screens                             1 line
//!   account   address, edge, relay credentials left         1 line
//!   body      the screen                                    the rest
//!   footer    the keys that make sense now                  1 line
//! ```

mod accounts;
mod call;
mod candidates;
mod history;
mod media;
mod overlay;
mod phases;

use client::api::{AccountSnapshot, CallSnapshot};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use crate::keymap;
use crate::model::{Model, Screen};
use crate::theme::Theme;

/// Below this there is no room for a call with its path.
const SMALLEST: (u16, u16) = (40, 12);
/// From here on phases and figures stand side by side with the candidates below.
const ROOMY: (u16, u16) = (72, 17);

pub fn view(model: &Model, theme: &Theme, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("terminal too small: {}x{}, needs {}x{}", area.width, area.height, SMALLEST.0, SMALLEST.1);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)];
    let [title, account, body, footer] = Layout::vertical(rows).areas(area);
    frame.render_widget(title_line(model, theme), title);
    frame.render_widget(account_line(model, theme), account);
    match model.screen {
        Screen::Calls => calls_screen(model, theme, frame, body),
        Screen::Paths => candidates::paths_screen(model, theme, frame, body),
        Screen::History => history::history_screen(model, theme, frame, body),
        Screen::Accounts => accounts::accounts_screen(model, theme, frame, body),
        Screen::Log => log_screen(model, frame, body),
    }
    frame.render_widget(footer_line(model, theme, footer.width), footer);
    overlay::overlay(model, theme, frame);
}

fn title_line<'a>(model: &Model, theme: &Theme) -> Line<'a> {
    let mut spans = vec![Span::styled(" icephone ", theme.bold), Span::raw(" ")];
    for screen in Screen::ALL {
        let style = if screen == model.screen { theme.selected } else { theme.dim };
        spans.push(Span::styled(format!(" {} ", screen.title()), style));
    }
    Line::from(spans)
}

fn account_line<'a>(model: &Model, theme: &Theme) -> Line<'a> {
    let Some(account) = model.snapshot.accounts.values().next() else {
        return Line::styled(" no account: icephone config template prints a file to start from", theme.warn);
    };
    let status = match account.status.as_str() {
        "registered" => Span::styled(format!("{} registered", theme.signs.done), theme.good),
        "failed" => Span::styled(format!("{} not registered", theme.signs.failed), theme.bad),
        "" => Span::styled("no registration", theme.dim),
        other => Span::styled(format!("{} {other}", theme.signs.running), theme.warn),
    };
    let mut spans = vec![Span::raw(" "), Span::styled(account.aor.clone(), theme.accent), Span::raw("  "), status];
    if let Some(left) = credentials_left(account, model.now_ms) {
        spans.push(Span::raw(format!("  relay {left}")));
    }
    if let Some(edge) = &account.edge {
        spans.push(Span::styled(format!("  {edge}"), theme.dim));
    }
    Line::from(spans)
}

/// Time left on the relay credentials, `7:58:41`.
pub(crate) fn credentials_left(account: &AccountSnapshot, now_ms: u64) -> Option<String> {
    let left_s = account.credentials_expire_ms?.saturating_sub(now_ms) / 1000;
    Some(format!("{}:{:02}:{:02}", left_s / 3600, left_s / 60 % 60, left_s % 60))
}

fn footer_line<'a>(model: &Model, theme: &Theme, width: u16) -> Line<'a> {
    let mut spans = Vec::new();
    let mut used = 1;
    let talking = model.selected_call().is_some_and(|(_, call)| call.answered_ms.is_some());
    let digits = talking.then(|| ("0-9*#".to_owned(), "digits"));
    let shown = keymap::bindings(model).iter().filter(|b| !b.label.is_empty() && keymap::available(model, b.action));
    for (key, label) in shown.map(|b| (keymap::key_name(b), b.label)).chain(digits) {
        used += key.chars().count() + label.chars().count() + 3;
        if used > usize::from(width) {
            break;
        }
        spans.push(Span::styled(format!(" {key}"), theme.accent));
        spans.push(Span::styled(format!(" {label} "), theme.dim));
    }
    Line::from(spans)
}

fn calls_screen(model: &Model, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
    let listed = u16::try_from(model.snapshot.calls.len()).unwrap_or(u16::MAX).clamp(1, 5);
    let Some((id, call)) = model.shown_call() else {
        call::idle(model, theme, frame, area);
        return;
    };
    let [list, rest] = Layout::vertical([Constraint::Length(listed + 2), Constraint::Min(0)]).areas(area);
    call::call_list(model, theme, frame, list);
    let notes = call::notes(call, theme);
    let width = usize::from(rest.width.max(1));
    let note_lines: usize = notes.iter().map(|line| line.width().div_ceil(width).max(1)).sum();
    let note_lines = u16::try_from(note_lines).unwrap_or(u16::MAX).min(6);
    if area.width < ROOMY.0 || area.height < ROOMY.1 {
        let [note_area, below] = Layout::vertical([Constraint::Length(note_lines), Constraint::Min(0)]).areas(rest);
        frame.render_widget(Paragraph::new(notes).wrap(Wrap { trim: true }), note_area);
        phases::phases_pane(call, model.now_ms, theme, frame, below);
        return;
    }
    let rows = [Constraint::Length(note_lines), Constraint::Length(8), Constraint::Min(0)];
    let [note_area, middle, below] = Layout::vertical(rows).areas(rest);
    frame.render_widget(Paragraph::new(notes).wrap(Wrap { trim: true }), note_area);
    let [left, right] = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(middle);
    phases::phases_pane(call, model.now_ms, theme, frame, left);
    media::media_pane(call, theme, frame, right);
    candidates::candidates_pane(id, call, theme, frame, below);
}

fn log_screen(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered().title(" Log, newest first ");
    let lines: Vec<Line<'_>> = model.log.iter().rev().map(|line| Line::raw(line.as_str())).collect();
    frame.render_widget(Paragraph::new(lines).block(block).scroll((model.scroll, 0)), area);
}

/// `01:23`, or `1:02:03` from an hour on.
pub(crate) fn clock(ms: u64) -> String {
    let seconds = ms / 1000;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m:02}:{s:02}") }
}

/// How long the call has been talking, or lasted.
pub(crate) fn talk_time(call: &CallSnapshot, now_ms: u64) -> String {
    let until_ms = call.ended_ms.unwrap_or(now_ms);
    call.answered_ms.map_or_else(|| "--:--".to_owned(), |answered| clock(until_ms.saturating_sub(answered)))
}
