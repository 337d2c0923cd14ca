//! The list of calls, the notes of the shown one, and the screen without any.

use client::api::{CallSnapshot, CallState, Component, Direction};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, Wrap};

use super::talk_time;
use crate::model::{Model, is_ringing};
use crate::theme::Theme;

/// Nothing is running: what can be done, and what happened last.
pub(super) fn idle(model: &Model, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
    let mut lines = vec![Line::raw(""), Line::raw("  No call. Press d to dial, ? for all keys.")];
    if let Some(account) = model.snapshot.accounts.values().next() {
        if let Some(error) = &account.error {
            lines.push(Line::raw(""));
            lines.push(Line::styled(format!("  {error}"), theme.bad));
        }
        for warning in &account.warnings {
            lines.push(Line::styled(format!("  {warning}"), theme.warn));
        }
    }
    for notice in model.snapshot.notices.iter().rev().take(5) {
        lines.push(Line::styled(format!("  {notice}"), theme.dim));
    }
    let block = Block::bordered().title(" Calls ");
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

pub(super) fn call_list(model: &Model, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
    let running = model.snapshot.calls.iter().map(|(id, call)| (*id, call));
    let ended = model.finished.iter().filter(|_| model.snapshot.calls.is_empty()).map(|f| (f.id, &f.call));
    let rows: Vec<Row<'_>> = running
        .chain(ended)
        .map(|(id, call)| call_row(call, Some(id) == model.selected, model.now_ms, theme))
        .collect();
    let widths = [
        Constraint::Length(1),
        Constraint::Min(16),
        Constraint::Length(11),
        Constraint::Length(8),
        Constraint::Length(16),
        Constraint::Length(6),
    ];
    frame.render_widget(Table::new(rows, widths).block(Block::bordered().title(" Calls ")), area);
}

fn call_row<'a>(call: &CallSnapshot, selected: bool, now_ms: u64, theme: &Theme) -> Row<'a> {
    let (state, style) = state_of(call, theme);
    let path = call.paths.get(&Component::Rtp).map(|path| path.name.clone()).unwrap_or_default();
    let loss = if call.stats.received_packets > 0 { format!("{:.1}%", call.stats.loss_percent) } else { String::new() };
    Row::new([
        Cell::from(if selected { theme.signs.cursor } else { "" }),
        Cell::from(call.peer.clone()),
        Cell::from(Span::styled(state, style)),
        Cell::from(talk_time(call, now_ms)),
        Cell::from(path),
        Cell::from(loss),
    ])
}

fn state_of(call: &CallSnapshot, theme: &Theme) -> (&'static str, Style) {
    if call.muted && call.state == CallState::Talking {
        return ("muted", theme.warn);
    }
    match (call.state, call.direction) {
        (CallState::Gathering, Direction::Outgoing) => ("gathering", theme.dim),
        (CallState::Gathering, Direction::Incoming) => ("incoming", theme.warn),
        (CallState::Inviting, _) => ("calling", theme.dim),
        (CallState::Ringing | CallState::EarlyMedia, Direction::Incoming) => ("rings", theme.warn),
        (CallState::Ringing, Direction::Outgoing) => ("ringing", theme.dim),
        (CallState::EarlyMedia, Direction::Outgoing) => ("early media", theme.accent),
        (CallState::Talking, _) => ("talking", theme.good),
        (CallState::Held, _) => ("held", theme.warn),
        (CallState::Ending, _) => ("ending", theme.dim),
        (CallState::Ended, _) => ("ended", theme.dim),
    }
}

/// What the user must read about this call before anything else.
pub(super) fn notes<'a>(call: &CallSnapshot, theme: &Theme) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    if is_ringing(call) {
        lines.push(Line::styled(format!(" {} is calling: a answers, x refuses", call.peer), theme.warn));
    }
    if let Some(reason) = &call.ended {
        lines.push(Line::styled(format!(" {reason}"), theme.bad));
    }
    for failure in call.servers.iter().filter_map(|outcome| outcome.failure.as_ref()) {
        lines.push(Line::styled(format!(" {failure}"), theme.warn));
    }
    for warning in call.warnings.iter().rev().take(3) {
        lines.push(Line::styled(format!(" {warning}"), theme.warn));
    }
    if !call.dtmf.is_empty() {
        lines.push(Line::raw(format!(" digits received: {}", call.dtmf)));
    }
    lines
}
