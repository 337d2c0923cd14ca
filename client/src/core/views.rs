//! What `ice` and `media` know, in the values of the API.

use std::time::{Duration, Instant};

use crate::api;

/// Whole milliseconds between two instants.
pub(crate) fn ms(from: Instant, to: Instant) -> u64 {
    millis(to.saturating_duration_since(from))
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn component(component: ice::Component) -> api::Component {
    match component {
        ice::Component::Rtp => api::Component::Rtp,
        ice::Component::Rtcp => api::Component::Rtcp,
    }
}

pub(crate) fn relay_transport(transport: ice::ServerTransport) -> api::RelayTransport {
    match transport {
        ice::ServerTransport::Udp => api::RelayTransport::Udp,
        ice::ServerTransport::Tcp => api::RelayTransport::Tcp,
        ice::ServerTransport::Tls => api::RelayTransport::Tls,
    }
}

pub(crate) fn server_transport(transport: api::RelayTransport) -> ice::ServerTransport {
    match transport {
        api::RelayTransport::Udp => ice::ServerTransport::Udp,
        api::RelayTransport::Tcp => ice::ServerTransport::Tcp,
        api::RelayTransport::Tls => ice::ServerTransport::Tls,
    }
}

pub(crate) fn sip_transport(transport: sip::event::Transport) -> api::Transport {
    match transport {
        sip::event::Transport::Udp => api::Transport::Udp,
        sip::event::Transport::Tcp => api::Transport::Tcp,
        sip::event::Transport::Tls => api::Transport::Tls,
    }
}

pub(crate) fn policy(policy: api::PathPolicy) -> ice::Policy {
    match policy {
        api::PathPolicy::All => ice::Policy::All,
        api::PathPolicy::NoHost => ice::Policy::NoHost,
        api::PathPolicy::RelayOnly => ice::Policy::RelayOnly,
        api::PathPolicy::RelayTcpOnly => ice::Policy::RelayTcpOnly,
    }
}

pub(crate) fn candidate(candidate: &ice::Candidate, relay: Option<ice::ServerTransport>) -> api::CandidateView {
    let kind = match candidate.kind {
        ice::CandidateType::Host => api::CandidateKind::Host,
        ice::CandidateType::ServerReflexive => api::CandidateKind::Srflx,
        ice::CandidateType::PeerReflexive => api::CandidateKind::Prflx,
        ice::CandidateType::Relayed => api::CandidateKind::Relay,
    };
    api::CandidateView {
        component: component(candidate.component),
        kind,
        address: candidate.addr,
        related: candidate.related,
        relay: relay.map(relay_transport),
        tcp: match candidate.transport {
            ice::CandidateTransport::Udp => None,
            ice::CandidateTransport::Tcp(ice::TcpType::Active) => Some(api::TcpType::Active),
            ice::CandidateTransport::Tcp(ice::TcpType::Passive) => Some(api::TcpType::Passive),
            ice::CandidateTransport::Tcp(ice::TcpType::SimultaneousOpen) => Some(api::TcpType::SimultaneousOpen),
        },
        priority: candidate.priority,
    }
}

pub(crate) fn candidates(list: &[ice::Candidate]) -> Vec<api::CandidateView> {
    list.iter().map(|entry| candidate(entry, None)).collect()
}

/// Ours, with the way to the relay of those that have one.
pub(crate) fn own_candidates(local: &ice::LocalDescription) -> Vec<api::CandidateView> {
    local.candidates.iter().map(|entry| candidate(entry, local.relays.get(&entry.addr).copied())).collect()
}

pub(crate) fn path(path: &ice::Path) -> api::PathView {
    api::PathView {
        name: path.to_string(),
        local: candidate(&path.local, path.relay),
        remote: candidate(&path.remote, None),
        rtt_us: u64::try_from(path.rtt.as_micros()).ok(),
    }
}

pub(crate) fn path_cause(cause: ice::PathCause) -> api::PathCause {
    match cause {
        ice::PathCause::FirstValid => api::PathCause::FirstValid,
        ice::PathCause::Promoted => api::PathCause::Promoted,
        ice::PathCause::Restarted => api::PathCause::Restarted,
        ice::PathCause::Replaced | ice::PathCause::Renominated => api::PathCause::Repaired,
    }
}

pub(crate) fn server_failure(failure: &ice::ServerFailure, took: Duration) -> api::ServerOutcome {
    api::ServerOutcome {
        server: failure.addr.to_string(),
        transport: relay_transport(failure.transport),
        failure: Some(failure.cause.to_string()),
        took_ms: millis(took),
    }
}

fn server_report(server: &ice::ServerReport) -> api::ServerOutcome {
    api::ServerOutcome {
        server: server.addr.to_string(),
        transport: relay_transport(server.transport),
        failure: (!server.works).then(|| server.outcome.clone()),
        took_ms: server.took.map(millis).unwrap_or_default(),
    }
}

/// All servers that were asked, with how it ended.
pub(crate) fn servers(report: &ice::IceReport) -> Vec<api::ServerOutcome> {
    report.servers.iter().map(server_report).collect()
}

pub(crate) fn pair(pair: &ice::PairReport) -> api::PairView {
    let (state, rtt, cause) = match &pair.state {
        ice::PairView::Frozen => (api::PairState::Frozen, None, None),
        ice::PairView::Waiting => (api::PairState::Waiting, None, None),
        ice::PairView::InProgress => (api::PairState::InProgress, None, None),
        ice::PairView::Succeeded { rtt } => (api::PairState::Succeeded, Some(*rtt), None),
        ice::PairView::Failed(cause) => (api::PairState::Failed, None, Some(cause.to_string())),
    };
    let local = candidate(&pair.local, pair.relay);
    let relay = pair.relay.map(|transport| format!("({transport})")).unwrap_or_default();
    api::PairView {
        path: api::PathView {
            name: format!("{}{relay}-{}", pair.local.kind, pair.remote.kind),
            local,
            remote: candidate(&pair.remote, None),
            rtt_us: rtt.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        },
        state,
        nominated: pair.nominated,
        selected: pair.selected,
        cause,
    }
}

pub(crate) fn report(report: &ice::IceReport) -> api::IceReport {
    api::IceReport {
        local: candidates(&report.local),
        remote: report.peers.iter().flat_map(|peer| candidates(&peer.remote)).collect(),
        servers: servers(report),
        pairs: report.peers.iter().flat_map(|peer| peer.pairs.iter().map(pair)).collect(),
    }
}

pub(crate) fn stats(stats: &media::Stats) -> api::CallStats {
    let rtt = stats.rtt.as_ref();
    api::CallStats {
        sent_packets: stats.sent,
        received_packets: stats.received,
        lost_packets: stats.lost,
        late_packets: stats.late,
        duplicate_packets: stats.duplicated,
        jitter_ms: stats.jitter_ms,
        delay_ms: stats.delay_ms,
        loss_percent: stats.loss_percent,
        remote_loss_percent: stats.remote_loss_percent,
        rtt_ms: rtt.map(|rtt| rtt.value.as_secs_f32() * 1000.0),
        rtt_origin: rtt.map(|rtt| match rtt.origin {
            media::stats::RttOrigin::Rtcp => api::RttOrigin::Rtcp,
            media::stats::RttOrigin::Ice => api::RttOrigin::Stun,
        }),
        level_out_dbfs: stats.level_out_dbfs,
        level_in_dbfs: stats.level_in_dbfs,
        mos: stats.mos,
        loop_delay_ms: 0.0, // known to the driver only
        codec: stats.codec.name().to_owned(),
    }
}

/// A source of sound as the API names it.
pub(crate) fn source(source: &api::MediaSource) -> media::Source {
    match source {
        api::MediaSource::Microphone => media::Source::Microphone,
        api::MediaSource::Silence => media::Source::Silence,
        api::MediaSource::Tune => media::Source::Tune,
        api::MediaSource::Tone { hz } => media::Source::Tone { hz: *hz },
        api::MediaSource::Echo => media::Source::Echo,
        api::MediaSource::Samples { samples, repeat } => {
            media::Source::Samples { samples: samples.clone(), repeat: *repeat }
        }
    }
}
