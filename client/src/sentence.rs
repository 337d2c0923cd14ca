//! Events in words: one line a person can read, the same in the log screen, in `call` and in `demo`.

use crate::api::{
    AccountChange, CallChange, CallState, CallStats, CandidateKind, CandidateView, Direction, EngineChange, Event,
    EventBody, MediaDirection, PathCause, Protection, RttOrigin, ServerOutcome, Transport,
};

/// What happened, in one line without time and id. `None` for what comes every second or repeats another event.
pub fn sentence(event: &Event) -> Option<String> {
    match &event.body {
        EventBody::Call { change, .. } => of_call(change),
        EventBody::Account { change, .. } => Some(of_account(change)),
        EventBody::Engine(change) => of_engine(change),
    }
}

/// The figures of a call in one line.
pub fn figures(stats: &CallStats) -> String {
    let rtt = match (stats.rtt_ms, stats.rtt_origin) {
        (Some(rtt), Some(origin)) => format!("RTT {rtt:.1} ms ({})", rtt_origin(origin)),
        (Some(_) | None, _) => "RTT unknown".to_owned(),
    };
    let mos = stats.mos.map_or_else(|| "MOS unknown".to_owned(), |mos| format!("MOS {mos:.1}"));
    format!(
        "{} packets out, {} in, loss {:.1} %, jitter {:.1} ms, delay {:.0} ms, {rtt}, {mos}",
        stats.sent_packets, stats.received_packets, stats.loss_percent, stats.jitter_ms, stats.delay_ms
    )
}

/// Who measured the round trip.
pub fn rtt_origin(origin: RttOrigin) -> &'static str {
    match origin {
        RttOrigin::Rtcp => "RTCP",
        RttOrigin::Stun => "STUN check",
    }
}

pub fn state_of_call(state: CallState) -> &'static str {
    match state {
        CallState::Gathering => "gathering candidates",
        CallState::Inviting => "inviting",
        CallState::Ringing => "ringing",
        CallState::EarlyMedia => "early media",
        CallState::Talking => "talking",
        CallState::Held => "on hold",
        CallState::Ending => "ending",
        CallState::Ended => "ended",
    }
}

pub fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
        Transport::Tls => "TLS",
    }
}

pub fn protection(protection: Protection) -> &'static str {
    match protection {
        Protection::Srtp => "SRTP",
        Protection::SrtpOverPlainSignalling => "SRTP, keys sent in the clear",
        Protection::None => "no encryption",
    }
}

/// Counts by kind: `2 host, 2 srflx, 4 relay`.
pub fn inventory(candidates: &[CandidateView]) -> String {
    let count = |kind: CandidateKind| candidates.iter().filter(|candidate| candidate.kind == kind).count();
    let kinds = [
        (CandidateKind::Host, "host"),
        (CandidateKind::Srflx, "srflx"),
        (CandidateKind::Prflx, "prflx"),
        (CandidateKind::Relay, "relay"),
    ];
    let parts: Vec<String> = kinds
        .into_iter()
        .map(|(kind, name)| (count(kind), name))
        .filter(|(n, _)| *n > 0)
        .map(|(n, name)| format!("{n} {name}"))
        .collect();
    if parts.is_empty() { "no candidates".to_owned() } else { parts.join(", ") }
}

fn of_account(change: &AccountChange) -> String {
    match change {
        AccountChange::Added { aor } => format!("account {aor}"),
        AccountChange::Removed => "account removed".to_owned(),
        AccountChange::ServersLocated { servers, took_ms, .. } => {
            format!("DNS names {} ({took_ms} ms)", servers.join(", "))
        }
        AccountChange::SrvSelected { name, target, address, transport: over, took_ms } => {
            format!("{name} leads to {target} ({address}), connected over {} in {took_ms} ms", transport(*over))
        }
        AccountChange::Registering => "registering".to_owned(),
        AccountChange::Registered { server, expires_s, took_ms, .. } => {
            format!("registered at {server} for {expires_s} s ({took_ms} ms)")
        }
        AccountChange::RegistrationFailed { error, retry_in_s: Some(seconds) } => {
            format!("{error}; next try in {seconds} s")
        }
        AccountChange::RegistrationFailed { error, retry_in_s: None } => error.to_string(),
        AccountChange::Unregistered => "unregistered".to_owned(),
        AccountChange::Listening { address } => format!("listening at {address}"),
        AccountChange::ConnectionLost { cause } => format!("connection to the server lost: {cause}; reconnecting"),
        AccountChange::Provisioned { mras_uri: Some(uri), took_ms, .. } => {
            format!("relay service {uri} ({took_ms} ms)")
        }
        AccountChange::Provisioned { mras_uri: None, note, .. } => {
            format!("no relay service{}", note.as_ref().map(|note| format!(": {note}")).unwrap_or_default())
        }
        AccountChange::CredentialsReceived { relays, lifetime_s, took_ms, .. } => {
            format!("relay credentials for {} min: {} ({took_ms} ms)", lifetime_s / 60, relays.join(", "))
        }
        AccountChange::CredentialsFailed { cause, retry_in_s } => {
            let retry = retry_in_s.map(|seconds| format!("; next try in {seconds} s")).unwrap_or_default();
            format!("no relay credentials: {cause}{retry}")
        }
        AccountChange::RelayProbed { server, failure: None, took_ms, .. } => {
            format!("relay {server} answers ({took_ms} ms)")
        }
        AccountChange::RelayProbed { server, failure: Some(failure), .. } => format!("relay {server}: {failure}"),
        AccountChange::Warned { warning } => format!("warning: {warning}"),
    }
}

fn of_call(change: &CallChange) -> Option<String> {
    let text = match change {
        CallChange::Created { direction: Direction::Outgoing, peer, .. } => format!("calling {peer}"),
        CallChange::Created { direction: Direction::Incoming, peer, .. } => format!("call from {peer}"),
        CallChange::State { state } => state_of_call(*state).to_owned(),
        CallChange::Gathered { candidates, servers, took_ms } => {
            format!("gathered {} in {took_ms} ms{}", inventory(candidates), failures(servers))
        }
        CallChange::OfferSent { message, candidates, crypto, bytes } => {
            let keys = if *crypto { "SRTP keys" } else { "no SRTP" };
            format!("{message} sent: {candidates} candidates, {keys}, {bytes} bytes")
        }
        CallChange::AnswerReceived { message, candidates, ice: true, took_ms, .. } => {
            format!("{message} received: {} ({took_ms} ms)", inventory(candidates))
        }
        CallChange::AnswerReceived { message, took_ms, .. } => format!("{message} received without ICE ({took_ms} ms)"),
        CallChange::NoIce { remote } => format!("the peer does not speak ICE: plain RTP to {remote}"),
        CallChange::PairValid { component, path, after_ms } => {
            format!("pair works: {} {} ({after_ms} ms)", path.name, format!("{component:?}").to_lowercase())
        }
        CallChange::PathChanged { component, path, cause } => {
            let why = match cause {
                PathCause::FirstValid => "first working pair",
                PathCause::Promoted => "promoted",
                PathCause::Restarted => "ICE restarted",
                PathCause::Repaired => "repaired",
            };
            format!("media on {} ({}, {why})", path.name, format!("{component:?}").to_lowercase())
        }
        CallChange::PathLost { path, cause } => format!("{} is dead: {cause}; looking for another way", path.name),
        CallChange::MediaGap { length_ms, path, cause } => {
            format!("media is back on {} after {length_ms} ms ({cause})", path.name)
        }
        CallChange::FirstMedia { direction: MediaDirection::Sent, after_ms } => {
            format!("first media sent after {after_ms} ms")
        }
        CallChange::FirstMedia { direction: MediaDirection::Received, after_ms } => {
            format!("first media received after {after_ms} ms")
        }
        CallChange::Promoted { path, after_ms, .. } => format!("promoted to {} after {after_ms} ms", path.name),
        CallChange::Announced { by_us: true, took_ms } => format!("path announced by re-INVITE ({took_ms} ms)"),
        CallChange::Announced { by_us: false, .. } => "the peer announced the path by re-INVITE".to_owned(),
        CallChange::MediaStarted { codec, protection: how } => format!("{codec}, {}", protection(*how)),
        CallChange::Stats { .. } => return None,
        CallChange::Dtmf { digit } => format!("digit {digit} received"),
        CallChange::DtmfSent { digit } => format!("digit {digit} sent"),
        CallChange::SourceEnded => "the recording has been played to its end".to_owned(),
        CallChange::Muted { muted: true } => "microphone off".to_owned(),
        CallChange::Muted { muted: false } => "microphone on".to_owned(),
        CallChange::Hold { by_us, by_peer } => match (by_us, by_peer) {
            (true, true) => "held by both sides".to_owned(),
            (true, false) => "held".to_owned(),
            (false, true) => "held by the other side".to_owned(),
            (false, false) => "resumed".to_owned(),
        },
        CallChange::Redirected { to } => format!("sent on to {to}"),
        CallChange::TransferRequested { to, call: Some(_) } => format!("the peer transfers the call to {to}"),
        CallChange::TransferRequested { to, call: None } => format!("a transfer to {to} was refused"),
        CallChange::TransferProgress { status, phrase } => format!("transfer: {status} {phrase}"),
        CallChange::Warned { warning } => format!("warning: {warning}"),
        CallChange::Ended { reason, .. } => format!("ended: {reason}"),
    };
    Some(text)
}

fn of_engine(change: &EngineChange) -> Option<String> {
    match change {
        EngineChange::Refused { error, .. } => Some(error.to_string()),
        EngineChange::Snapshot { .. } => None,
        EngineChange::Notice { text } => Some(text.clone()),
        EngineChange::InterfacesChanged { addresses } => {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Some(format!("addresses of this machine: {}", list.join(", ")))
        }
        EngineChange::Health { calls, sockets, streams, tasks } => {
            Some(format!("{calls} calls, {sockets} sockets, {streams} streams, {tasks} tasks"))
        }
        EngineChange::Stopped => Some("stopped".to_owned()),
    }
}

fn failures(servers: &[ServerOutcome]) -> String {
    let failed: Vec<String> = servers
        .iter()
        .filter_map(|outcome| outcome.failure.as_ref().map(|failure| format!("{}: {failure}", outcome.server)))
        .collect();
    if failed.is_empty() { String::new() } else { format!("; {}", failed.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CallId;

    #[test]
    fn figures_name_who_measured_the_round_trip() {
        let stats = CallStats {
            rtt_ms: Some(1.25),
            rtt_origin: Some(RttOrigin::Rtcp),
            mos: Some(4.41),
            ..CallStats::default()
        };
        assert_eq!(
            figures(&stats),
            "0 packets out, 0 in, loss 0.0 %, jitter 0.0 ms, delay 0 ms, RTT 1.2 ms (RTCP), MOS 4.4"
        );
    }

    #[test]
    fn the_figures_of_every_second_are_not_told_as_news() {
        let body = EventBody::Call { call: CallId(1), change: Box::new(CallChange::Stats { stats: Box::default() }) };
        assert_eq!(sentence(&Event { seq: 1, at_ms: 0, body }), None);
    }
}
