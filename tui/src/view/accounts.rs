//! Accounts: registration, edge, relays and the time left on their credentials.

use client::api::AccountSnapshot;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use super::credentials_left;
use crate::model::Model;
use crate::theme::Theme;

pub(super) fn accounts_screen(model: &Model, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
    let mut lines = Vec::new();
    for (id, account) in &model.snapshot.accounts {
        lines.push(Line::from(vec![
            Span::styled(format!(" {} ", account.aor), theme.bold),
            Span::styled(id.to_string(), theme.dim),
        ]));
        lines.extend(details(account, model.now_ms, theme));
        lines.push(Line::raw(""));
    }
    if lines.is_empty() {
        lines.push(Line::raw(" no account: icephone config template prints a file to start from"));
    }
    let block = Block::bordered().title(" Accounts ");
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).block(block).scroll((model.scroll, 0));
    frame.render_widget(text, area);
}

fn details<'a>(account: &AccountSnapshot, now_ms: u64, theme: &Theme) -> Vec<Line<'a>> {
    let field = |name: &str, value: String| {
        Line::from(vec![Span::styled(format!("   {name:<14}"), theme.dim), Span::raw(value)])
    };
    let took = account.registered_after_ms.map(|ms| format!(" after {ms} ms")).unwrap_or_default();
    let mut lines = vec![
        field("registration", format!("{}{took}", account.status)),
        field("edge", account.edge.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    if let Some(location) = account.location {
        lines.push(field("location", format!("{location:?}").to_lowercase()));
    }
    if !account.relays.is_empty() {
        lines.push(field("relays", account.relays.join(", ")));
    }
    if let Some(left) = credentials_left(account, now_ms) {
        lines.push(field("credentials", format!("{left} left")));
    }
    lines.extend(account.error.iter().map(|error| Line::styled(format!("   {error}"), theme.bad)));
    lines.extend(account.warnings.iter().map(|warning| Line::styled(format!("   {warning}"), theme.warn)));
    lines
}
