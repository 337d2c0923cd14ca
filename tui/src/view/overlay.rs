//! What lies over the screen: help, the line being typed, the question before quitting.

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Position, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};
use tui_input::Input;

use crate::keymap::{self, BINDINGS};
use crate::model::{Model, Overlay};
use crate::theme::Theme;

pub(super) fn overlay(model: &Model, theme: &Theme, frame: &mut Frame<'_>) {
    match &model.overlay {
        Overlay::None => {}
        Overlay::Help => help(model, theme, frame),
        Overlay::Dial(input) => line(" Dial: user, user@domain or sip: address ", input, frame),
        Overlay::Transfer(input) => line(" Transfer to: user, user@domain or sip: address ", input, frame),
        Overlay::ConfirmQuit => {
            let count = model.snapshot.calls.len();
            let calls = if count == 1 { "1 call".to_owned() } else { format!("{count} calls") };
            let area = centred(frame.area(), 50, 3);
            let text = format!(" {calls} running: hang up and quit? y / n");
            frame.render_widget(Clear, area);
            frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" Quit ")), area);
        }
    }
}

fn line(title: &str, input: &Input, frame: &mut Frame<'_>) {
    let area = centred(frame.area(), 64, 3);
    let width = usize::from(area.width.saturating_sub(3));
    let scroll = input.visual_scroll(width);
    let offset = u16::try_from(scroll).unwrap_or(u16::MAX);
    frame.render_widget(Clear, area);
    let text = Paragraph::new(input.value()).scroll((0, offset)).block(Block::bordered().title(title.to_owned()));
    frame.render_widget(text, area);
    let cursor = u16::try_from(input.visual_cursor().saturating_sub(scroll)).unwrap_or(0);
    frame.set_cursor_position(Position::new(area.x.saturating_add(cursor).saturating_add(1), area.y.saturating_add(1)));
}

fn help(model: &Model, theme: &Theme, frame: &mut Frame<'_>) {
    let mut lines: Vec<Line<'_>> = BINDINGS
        .iter()
        .map(|binding| {
            let key = Span::styled(format!(" {:<10}", keymap::key_name(binding)), theme.accent);
            Line::from(vec![key, Span::raw(binding.help)])
        })
        .collect();
    lines.insert(7, Line::from(vec![Span::styled(" 0-9 * #   ", theme.accent), Span::raw("digits into the call")]));
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2).min(frame.area().height);
    let area = centred(frame.area(), 72, height);
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" Keys (Esc closes) ");
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((model.scroll, 0)).block(block);
    frame.render_widget(text, area);
}

fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let [row] = Layout::vertical([Constraint::Length(height)]).flex(Flex::Center).areas(area);
    let [cell] = Layout::horizontal([Constraint::Length(width)]).flex(Flex::Center).areas(row);
    cell
}
