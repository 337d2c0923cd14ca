//! Candidates and pairs: what was gathered, what works, what failed and why.

use client::api::{
    CallId, CallSnapshot, CandidateKind, CandidateView, Component, PairState, PairView, PathView, RelayTransport,
    ServerOutcome,
};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use crate::model::Model;
use crate::theme::Theme;

/// Ours and theirs side by side, the selected ones marked.
pub(super) fn candidates_pane(id: CallId, call: &CallSnapshot, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    let path = call.paths.get(&Component::Rtp);
    let ours = lines(&call.local, path.map(|path| &path.local), theme);
    let theirs = lines(&call.remote, path.map(|path| &path.remote), theme);
    let title = format!(" Our candidates ({id}) ");
    frame.render_widget(Paragraph::new(ours).block(Block::bordered().title(title)), left);
    frame.render_widget(Paragraph::new(theirs).block(Block::bordered().title(" Their candidates ")), right);
}

fn lines<'a>(candidates: &[CandidateView], selected: Option<&CandidateView>, theme: &Theme) -> Vec<Line<'a>> {
    if candidates.is_empty() {
        return vec![Line::styled(" none yet", theme.dim)];
    }
    // Host candidates over TCP are many and the last resort before relays over TCP: they come last in a low pane.
    let (tcp, rest): (Vec<_>, Vec<_>) = candidates.iter().partition(|candidate| candidate.tcp.is_some());
    rest.into_iter().chain(tcp).map(|candidate| candidate_line(candidate, selected, theme)).collect()
}

fn candidate_line<'a>(candidate: &CandidateView, selected: Option<&CandidateView>, theme: &Theme) -> Line<'a> {
    let chosen =
        selected.is_some_and(|other| other.address == candidate.address && other.component == candidate.component);
    let (sign, style) = if chosen { (theme.signs.cursor, theme.good) } else { (" ", Style::new()) };
    let name = kind(candidate);
    Line::styled(format!("{sign}{} {name:<10} {}", component(candidate.component), candidate.address), style)
}

fn component(component: Component) -> &'static str {
    match component {
        Component::Rtp => "rtp ",
        Component::Rtcp => "rtcp",
    }
}

/// `host`, `host(tcp)`, `relay(tls)`.
fn kind(candidate: &CandidateView) -> String {
    let kind = match candidate.kind {
        CandidateKind::Host => "host",
        CandidateKind::Srflx => "srflx",
        CandidateKind::Prflx => "prflx",
        CandidateKind::Relay => "relay",
    };
    if candidate.tcp.is_some() {
        return format!("{kind}(tcp)");
    }
    candidate.relay.map_or_else(|| kind.to_owned(), |relay| format!("{kind}({})", relay_transport(relay)))
}

fn relay_transport(relay: RelayTransport) -> &'static str {
    match relay {
        RelayTransport::Udp => "udp",
        RelayTransport::Tcp => "tcp",
        RelayTransport::Tls => "tls",
    }
}

/// Every pair of the call with its state and cause; before the final report is there, the pairs that work.
pub(super) fn paths_screen(model: &Model, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
    let Some((id, call)) = model.shown_call() else {
        frame.render_widget(Paragraph::new(" no call").block(Block::bordered().title(" Paths ")), area);
        return;
    };
    let count = call.local.len().max(call.remote.len()).max(1);
    let listed = u16::try_from(count).unwrap_or(u16::MAX).min(area.height / 2).saturating_add(2);
    let [above, below] = Layout::vertical([Constraint::Length(listed), Constraint::Min(0)]).areas(area);
    candidates_pane(id, call, theme, frame, above);
    let mut lines: Vec<Line<'_>> = call.servers.iter().map(|outcome| server_line(outcome, theme)).collect();
    if call.report.pairs.is_empty() {
        lines.extend(call.valid.iter().map(|path| valid_line(path, theme)));
    } else {
        lines.extend(call.report.pairs.iter().map(|pair| pair_line(pair, theme)));
    }
    let block = Block::bordered().title(" Servers and pairs ");
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).block(block).scroll((model.scroll, 0));
    frame.render_widget(text, below);
}

fn server_line<'a>(outcome: &ServerOutcome, theme: &Theme) -> Line<'a> {
    let (sign, style) =
        if outcome.failure.is_none() { (theme.signs.done, theme.good) } else { (theme.signs.failed, theme.bad) };
    let text = outcome.failure.clone().unwrap_or_else(|| format!("answered in {} ms", outcome.took_ms));
    let server = format!(" {sign} server {} {} ", outcome.server, relay_transport(outcome.transport));
    Line::from(vec![Span::styled(server, style), Span::raw(text)])
}

fn valid_line<'a>(path: &PathView, theme: &Theme) -> Line<'a> {
    let name = format!(" {} {:<18}", theme.signs.done, path.name);
    Line::from(vec![Span::styled(name, theme.good), Span::raw(addresses(path))])
}

fn pair_line<'a>(pair: &PairView, theme: &Theme) -> Line<'a> {
    let (sign, style) = match pair.state {
        PairState::Succeeded => (theme.signs.done, theme.good),
        PairState::Failed => (theme.signs.failed, theme.bad),
        PairState::InProgress => (theme.signs.running, theme.warn),
        PairState::Frozen | PairState::Waiting => (theme.signs.pending, theme.dim),
    };
    let mark = if pair.selected { " selected" } else { "" };
    let cause = pair.cause.as_deref().unwrap_or_default();
    let name = format!(" {sign} {:<18}", pair.path.name);
    Line::from(vec![Span::styled(name, style), Span::raw(format!("{}{mark} {cause}", addresses(&pair.path)))])
}

fn addresses(path: &PathView) -> String {
    let rtt = path.rtt_us.map(|us| format!(" {}.{:01} ms", us / 1000, us % 1000 / 100)).unwrap_or_default();
    format!("{} {} to {}{rtt}", component(path.local.component), path.local.address, path.remote.address)
}
