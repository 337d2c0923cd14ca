//! The last calls, newest first.

use client::api::{Direction, HistoryEntry};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Span;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};

use super::clock;
use crate::model::Model;
use crate::theme::Theme;

pub(super) fn history_screen(model: &Model, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
    let title = format!(" History, newest first ({}) ", model.snapshot.history.len());
    let block = Block::bordered().title(title);
    if model.snapshot.history.is_empty() {
        frame.render_widget(Paragraph::new(" no calls yet").block(block), area);
        return;
    }
    let entries = model.snapshot.history.iter().skip(usize::from(model.scroll));
    let rows = entries.map(|entry| row(entry, model.now_ms, theme));
    let widths = [
        Constraint::Length(3),
        Constraint::Length(22),
        Constraint::Length(10),
        Constraint::Length(6),
        Constraint::Length(12),
        Constraint::Min(10),
    ];
    frame.render_widget(Table::new(rows, widths).block(block), area);
}

fn row<'a>(entry: &HistoryEntry, now_ms: u64, theme: &Theme) -> Row<'a> {
    let direction = match entry.direction {
        Direction::Outgoing => "out",
        Direction::Incoming => "in",
    };
    let ago = format!("{} ago", clock(now_ms.saturating_sub(entry.started_ms)));
    Row::new([
        Cell::from(Span::styled(direction, theme.dim)),
        Cell::from(entry.peer.clone()),
        Cell::from(ago),
        Cell::from(clock(entry.duration_ms)),
        Cell::from(entry.path.clone().unwrap_or_default()),
        Cell::from(entry.reason.to_string()),
    ])
}
