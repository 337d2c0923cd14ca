//! The end of a call as a table: path, codec, figures, and if it failed what was tried.

use std::fmt;

use crate::api::{CallSnapshot, CallStats, Component, EndReason, IceReport, PairState};
use crate::sentence;

/// Pairs shown of a failed call: the rest say the same.
const PAIRS_MAX: usize = 12;

/// Everything worth knowing about one call that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    peer: String,
    path: Option<String>,
    codec: String,
    protection: Option<&'static str>,
    stats: CallStats,
    ended: String,
    failed: bool,
    ice: IceReport,
}

impl Report {
    /// From the call's last snapshot and its `ended` event.
    pub fn new(call: &CallSnapshot, reason: &EndReason, stats: &CallStats, ice: &IceReport) -> Self {
        let path = call
            .paths
            .get(&Component::Rtp)
            .map(|path| format!("{}  ({} to {})", path.name, path.local.address, path.remote.address));
        let codec = if stats.codec.is_empty() { call.codec.clone().unwrap_or_default() } else { stats.codec.clone() };
        Self {
            peer: call.peer.clone(),
            path,
            codec,
            protection: call.protection.map(sentence::protection),
            stats: stats.clone(),
            ended: reason.to_string(),
            failed: !matches!(reason, EndReason::LocalHangup | EndReason::RemoteHangup),
            ice: ice.clone(),
        }
    }

    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        writeln!(f, "  packets   {} sent, {} received", stats.sent_packets, stats.received_packets)?;
        let remote = stats.remote_loss_percent.map_or_else(String::new, |loss| format!(", {loss:.1} % theirs"));
        writeln!(f, "  loss      {:.1} %{remote}, {} late", stats.loss_percent, stats.late_packets)?;
        writeln!(f, "  jitter    {:.1} ms, playout delay {:.0} ms", stats.jitter_ms, stats.delay_ms)?;
        match (stats.rtt_ms, stats.rtt_origin) {
            (Some(rtt), Some(origin)) => {
                writeln!(f, "  RTT       {rtt:.1} ms, from {}", sentence::rtt_origin(origin))?;
            }
            (Some(_) | None, _) => writeln!(f, "  RTT       unknown")?,
        }
        match stats.mos {
            Some(mos) => writeln!(f, "  MOS       {mos:.1} of 4.5 (estimated, ITU-T G.107)"),
            None => writeln!(f, "  MOS       unknown"),
        }
    }

    fn evidence(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for server in &self.ice.servers {
            let outcome = server.failure.as_deref().unwrap_or("answered");
            writeln!(f, "  server    {} over {:?}: {outcome}", server.server, server.transport)?;
        }
        for pair in self.ice.pairs.iter().take(PAIRS_MAX) {
            let state = match pair.state {
                PairState::Frozen => "never tried",
                PairState::Waiting => "waiting",
                PairState::InProgress => "unanswered",
                PairState::Succeeded => "worked",
                PairState::Failed => "failed",
            };
            let cause = pair.cause.as_deref().map_or_else(String::new, |cause| format!(": {cause}"));
            let path = &pair.path;
            writeln!(f, "  pair      {} {} to {}: {state}{cause}", path.name, path.local.address, path.remote.address)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "call with {}", self.peer)?;
        writeln!(f, "  path      {}", self.path.as_deref().unwrap_or("none"))?;
        let protection = self.protection.map_or_else(String::new, |protection| format!(", {protection}"));
        let codec = if self.codec.is_empty() { "none" } else { &self.codec };
        writeln!(f, "  codec     {codec}{protection}")?;
        if self.stats.sent_packets + self.stats.received_packets > 0 {
            self.figures(f)?;
        }
        if self.failed {
            self.evidence(f)?;
        }
        write!(f, "  ended     {}", self.ended)
    }
}
