//! Reports to the peer and from it, and the figures for the user.

use std::time::{Duration, Instant};

use super::{Component, Event, Output, Phase, Rtt, RttOrigin, Session, Stats};
use crate::rtcp::packet::{Heard, Report, SenderInfo};
use crate::{FRAME, sample, stats};

/// A source or ourselves count as sending until so long after the last packet: two report intervals
/// (RFC 3550 §6.4).
const RECENT: Duration = Duration::from_secs(10);
/// A round trip by RTCP is preferred over one by ICE until it is that old: three report intervals.
const RTT_FRESH: Duration = Duration::from_secs(15);
/// A longer round trip is a peer that fills LSR or DLSR with something else.
const RTT_MAX: Duration = Duration::from_secs(30); // beyond any path a call survives on

impl Session {
    pub(super) fn report_if_due(&mut self, now: Instant) {
        let rng = &mut self.rng;
        if self.schedule.as_mut().is_some_and(|schedule| schedule.is_due(now, rng)) {
            self.send_report(now, false);
        }
    }

    pub(super) fn send_report(&mut self, now: Instant, bye: bool) {
        let sender = self.last_sent.filter(|at| now.saturating_duration_since(*at) < RECENT).map(|_| self.info(now));
        let mut receptions = Vec::new();
        for (ssrc, stream) in &mut self.streams {
            if now.saturating_duration_since(stream.last_packet) < RECENT {
                receptions.push((*ssrc, stream.receiver.report(now)));
            }
        }
        let report = Report { ssrc: self.sender.ssrc(), sender, receptions, cname: &self.cname, bye };
        let Some(plain) = report.to_bytes() else { return };
        let payload = match &mut self.outbound {
            Some(outbound) => outbound.protect_rtcp(&plain),
            None => Some(plain),
        };
        let Some(payload) = payload else { return };
        if let Some(schedule) = &mut self.schedule {
            schedule.sent(now, payload.len(), &mut self.rng);
        }
        let component = if self.mux { Component::Rtp } else { Component::Rtcp };
        self.outputs.push_back(Output::Packet { component, payload });
    }

    fn info(&self, now: Instant) -> SenderInfo {
        let (packets, payload_bytes) = self.sender.counts();
        // The sender's timestamp is that of the next tick; the report's is that of now.
        let ahead = match self.phase {
            Phase::Running { start, ticks } => (start + FRAME * ticks).saturating_duration_since(now),
            Phase::Waiting | Phase::Stopped => Duration::ZERO,
        };
        let clock_hz = self.formats.send.codec.clock_hz();
        let units = u32::try_from(ahead.as_nanos() * u128::from(clock_hz) / 1_000_000_000).unwrap_or(0);
        let rtp_timestamp = self.sender.timestamp().wrapping_sub(units);
        SenderInfo { ntp: self.ntp(now), rtp_timestamp, packets, payload_bytes }
    }

    fn ntp(&self, now: Instant) -> crate::NtpTime {
        let (at, ntp) = self.wall;
        ntp.plus(now.saturating_duration_since(at))
    }

    pub(super) fn heard_report(&mut self, now: Instant, heard: &Heard, bytes: usize) {
        if let Some(schedule) = &mut self.schedule {
            schedule.received(bytes);
        }
        for (ssrc, ntp) in &heard.senders {
            if let Some(stream) = self.streams.get_mut(ssrc) {
                stream.receiver.sender_report(now, ntp.middle());
            }
        }
        let own = self.sender.ssrc();
        for block in heard.blocks.iter().filter(|block| block.ssrc == own) {
            let loss_percent = f32::from(block.fraction_lost) * 100.0 / 256.0;
            let clock_hz = self.formats.send.codec.clock_hz();
            // Up at once, down slowly: loss comes in bursts, and redundancy must be there for the next one.
            let smoothed = self.remote.loss_percent.map_or(loss_percent, |before| loss_percent.max(before * 0.7));
            self.encoder.set_loss_percent(smoothed);
            self.remote.loss_percent = Some(if smoothed < 0.5 { loss_percent } else { smoothed });
            self.remote.jitter_ms =
                Some(sample::count(u64::from(block.jitter)) * 1_000.0 / sample::count(u64::from(clock_hz)));
            if block.last_sr != 0 {
                let units = self.ntp(now).middle().wrapping_sub(block.last_sr).wrapping_sub(block.delay_since_last_sr);
                let rtt = Duration::from_nanos(u64::from(units) * 1_000_000_000 / 65_536);
                // The units are coarse and clocks differ in rate, so that a round trip near zero may come out negative.
                let rtt = if units > u32::MAX - 65_536 { Duration::ZERO } else { rtt };
                if rtt < RTT_MAX {
                    self.remote.rtcp_rtt = Some((now, rtt));
                }
            }
        }
        let left = heard.byes.iter().any(|ssrc| self.streams.is_empty() || self.streams.contains_key(ssrc));
        if left {
            self.event(Event::RemoteBye);
        }
    }

    /// Figures up to `now`.
    pub fn stats(&self, now: Instant) -> Stats {
        let mut figures = Stats::new(self.formats.send.codec);
        let counters = &self.counters;
        let totals = self.streams.values().fold(counters.gone, |sum, stream| sum.plus(stream.totals()));
        (figures.sent, figures.sent_bytes) = (counters.sent, counters.sent_bytes);
        (figures.received, figures.received_bytes) = (counters.received, counters.received_bytes);
        (figures.rejected, figures.unreadable) = (counters.rejected, counters.unreadable + totals.undecodable);
        (figures.lost, figures.late, figures.reordered) = (totals.lost, totals.late, totals.reordered);
        figures.duplicated = totals.duplicated + counters.replayed;
        (figures.concealed, figures.recovered) = (totals.concealed, totals.recovered);
        figures.remote_loss_percent = self.remote.loss_percent;
        figures.remote_jitter_ms = self.remote.jitter_ms;
        (figures.level_in_dbfs, figures.level_out_dbfs) = (self.level_in.dbfs(), self.level_out.dbfs());
        figures.rtt = self.rtt(now);
        // The source that is heard now stands for the call.
        if let Some(stream) = self.streams.values().max_by_key(|stream| stream.last_packet) {
            figures.remote_codec = Some(stream.codec);
            figures.loss_percent = stream.receiver.loss_percent();
            figures.jitter_ms = stream.receiver.jitter_ms();
            if let Some((delay, target)) = stream.playout.delay(self.samples(self.last_tick(now))) {
                figures.delay_ms = sample::signed(delay) / 48.0;
                figures.target_delay_ms = sample::signed(target) / 48.0;
            }
            let one_way = figures.rtt.map_or(0.0, |rtt| sample::ms(rtt.value) / 2.0);
            let recovered = sample::count(totals.recovered) / sample::count((totals.recovered + totals.lost).max(1));
            let unrepaired = figures.loss_percent * (1.0 - recovered.clamp(0.0, 1.0));
            figures.mos = Some(stats::mos(stream.codec, unrepaired, one_way + figures.delay_ms));
        }
        figures
    }

    /// What has been pulled by the last tick is played from then until the next one.
    fn last_tick(&self, now: Instant) -> Instant {
        match self.phase {
            Phase::Running { start, ticks } => start + FRAME * ticks,
            Phase::Waiting | Phase::Stopped => now,
        }
    }

    fn rtt(&self, now: Instant) -> Option<Rtt> {
        let by = |origin| move |(at, value)| (at, Rtt { value, origin });
        let rtcp = self.remote.rtcp_rtt.map(by(RttOrigin::Rtcp));
        let ice = self.remote.ice_rtt.map(by(RttOrigin::Ice));
        let rtcp_is_fresh = rtcp.is_some_and(|(at, _)| now.saturating_duration_since(at) < RTT_FRESH);
        let best = if rtcp_is_fresh { rtcp } else { [rtcp, ice].into_iter().flatten().max_by_key(|(at, _)| *at) };
        best.map(|(_, rtt)| rtt)
    }
}
