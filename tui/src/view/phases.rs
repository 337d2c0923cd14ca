//! The five phases of the media path with their times, and the path itself.

use client::api::{CallSnapshot, Component, Phase, PhaseClock, PhaseState};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use crate::theme::Theme;

pub(super) fn phases_pane(call: &CallSnapshot, now_ms: u64, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
    let mut lines: Vec<Line<'_>> = Phase::ALL
        .into_iter()
        .filter_map(|phase| call.phases.get(&phase).map(|clock| phase_line(phase, clock, now_ms, theme)))
        .collect();
    lines.push(path_line(call, theme));
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" Media path ")), area);
}

fn phase_line<'a>(phase: Phase, clock: &PhaseClock, now_ms: u64, theme: &Theme) -> Line<'a> {
    let (sign, style) = match clock.state {
        PhaseState::Pending => (theme.signs.pending, theme.dim),
        PhaseState::Running => (theme.signs.running, theme.warn),
        PhaseState::Done => (theme.signs.done, theme.good),
        PhaseState::Failed => (theme.signs.failed, theme.bad),
    };
    let name = match phase {
        Phase::Provision => "provision",
        Phase::Discover => "discover",
        Phase::Exchange => "exchange",
        Phase::Check => "check",
        Phase::Promote => "promote",
    };
    let took = clock.started_ms.map(|started| clock.ended_ms.unwrap_or(now_ms).saturating_sub(started));
    let took = took.map(elapsed).unwrap_or_default();
    Line::from(vec![
        Span::styled(format!(" {sign} {name:<9}"), style),
        Span::raw(format!("{took:>8} ")),
        Span::styled(clock.note.clone(), theme.dim),
    ])
}

fn elapsed(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { format!("{} s", ms / 1000) }
}

fn path_line<'a>(call: &CallSnapshot, theme: &Theme) -> Line<'a> {
    let Some(path) = call.paths.get(&Component::Rtp) else {
        return Line::styled("   no path yet", theme.dim);
    };
    let text = format!(" {} {} to {}", theme.signs.cursor, path.local.address, path.remote.address);
    Line::styled(text, theme.accent)
}
