//! Level meters and figures of the running call.

use client::api::CallSnapshot;
use client::sentence;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use crate::theme::Theme;

/// The meter covers this much, down from full scale; quieter is an empty meter.
const METER_RANGE_DB: f32 = 60.0;
const METER_CELLS: u8 = 20;

pub(super) fn media_pane(call: &CallSnapshot, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
    let stats = &call.stats;
    let protection = call.protection.map(sentence::protection).unwrap_or_default();
    let codec = call.codec.as_deref().unwrap_or("no media yet");
    let rtt = match (stats.rtt_ms, stats.rtt_origin) {
        (Some(rtt), Some(origin)) => format!("{rtt:.1} ms ({})", sentence::rtt_origin(origin)),
        (Some(_) | None, _) => "unknown".to_owned(),
    };
    let mos = stats.mos.map_or_else(|| "unknown".to_owned(), |mos| format!("{mos:.1}"));
    let loss_style = if stats.loss_percent < 1.0 { theme.good } else { theme.warn };
    let lines = vec![
        Line::from(vec![Span::styled(format!(" {codec}  "), theme.accent), Span::styled(protection, theme.dim)]),
        meter("out", stats.level_out_dbfs, call.muted, theme),
        meter("in", stats.level_in_dbfs, false, theme),
        Line::from(vec![
            Span::raw(" loss "),
            Span::styled(format!("{:.1} %", stats.loss_percent), loss_style),
            Span::raw(format!("  late {}  jitter {:.1} ms", stats.late_packets, stats.jitter_ms)),
        ]),
        Line::raw(format!(" RTT {rtt}  delay {:.0} ms", stats.delay_ms)),
        Line::raw(format!(" MOS {mos}  {} out, {} in", stats.sent_packets, stats.received_packets)),
    ];
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" Media ")), area);
}

fn meter<'a>(name: &str, level_dbfs: f32, muted: bool, theme: &Theme) -> Line<'a> {
    let share = ((level_dbfs + METER_RANGE_DB) / METER_RANGE_DB).clamp(0.0, 1.0);
    let lit = |cell: &u8| f32::from(*cell) / f32::from(METER_CELLS) < share;
    let bar: String =
        (0..METER_CELLS).map(|cell| if lit(&cell) { theme.signs.full } else { theme.signs.empty }).collect();
    let (style, text) = if muted {
        (theme.dim, " muted".to_owned())
    } else if level_dbfs <= -METER_RANGE_DB {
        (theme.dim, " silence".to_owned())
    } else if share > 0.95 {
        (theme.warn, format!(" {level_dbfs:.0} dB"))
    } else {
        (theme.good, format!(" {level_dbfs:.0} dB"))
    };
    Line::from(vec![Span::raw(format!(" {name:<4}")), Span::styled(bar, style), Span::raw(text)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_is_empty_at_silence_half_at_minus_thirty_and_full_at_zero() {
        let theme = Theme::new(false, false);
        let bar = |level| meter("in", level, false, &theme).spans[1].content.to_string();
        assert_eq!(bar(-96.0), "-".repeat(20));
        assert_eq!(bar(-30.0), "#".repeat(10) + &"-".repeat(10));
        assert_eq!(bar(0.0), "#".repeat(20));
    }
}
