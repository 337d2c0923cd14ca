//! The media side of a call: the session made from what was agreed on, what may flow when, and what session and agent report.
//!
//! Before the 200 no microphone is sent by either side: the callee sends ringback (a bot its media), the caller silence.

use std::time::Duration;

use ice::Path;

use super::call::{Call, Cx, Stage};
use super::flow::{Flow, SessionSetup};
use super::negotiate::Agreed;
use super::views;
use crate::api::{CallChange, CallState, Direction, EndReason, MediaDirection, Protection, Warning};

/// How often figures are reported.
pub(crate) const STATS_EVERY: Duration = Duration::from_secs(1);

impl Call {
    /// Makes the media session from what was agreed on first.
    pub(crate) fn start_session(&mut self, cx: &mut Cx<'_>, agreed: &Agreed) {
        let protection = match &agreed.crypto {
            Some(theirs) => media::Protection::Sdes { local: self.seeds.key.clone(), remote: vec![theirs.key.clone()] },
            None => media::Protection::Clear,
        };
        let setup = SessionSetup {
            formats: agreed.formats.clone(),
            protection,
            mux: agreed.mux,
            cname: self.seeds.cname.clone(),
            source: self.early_source.clone(),
            wall: cx.wall,
        };
        let Some(flow) = &mut self.flow else { return };
        if let Err(error) = flow.start_session(cx.now, setup) {
            self.end(cx, EndReason::Internal { what: error.to_string() });
        }
    }

    /// Lets media flow as far as the path, the peer, the user and the state of the call allow.
    pub(crate) fn apply_media(&mut self, cx: &mut Cx<'_>) {
        let Some(agreed) = self.fork().map(|fork| fork.agreed.clone()) else { return };
        let answered = self.answered.is_some();
        // Whoever forges an INVITE must not turn our voice against the address in its description. A check answered
        // proves that somebody wants it there (RFC 8445 §19.5.1); without ICE the ACK does.
        let wanted = self.direction == Direction::Outgoing || agreed.ice.is_some() || self.acknowledged;
        // Checks may find a path before our 183 has left: until then nobody has the key of what we send (RFC 4568 §7.1).
        let is_before_answer = matches!(self.stage, Stage::Waiting | Stage::Gathering);
        let has_key = self.direction == Direction::Outgoing || !is_before_answer;
        let sends = self.has_path && wanted && has_key && agreed.direction.sends() && self.is_alive();
        let source = views::source(&self.source);
        let same_source = source == self.early_source;
        let Some(session) = self.flow.as_mut().and_then(Flow::session_mut) else { return };
        if answered && !self.real_source_on {
            self.real_source_on = true;
            if !same_source {
                session.set_source(source);
            }
        }
        session.set_muted(self.wishes.muted || self.wishes.held);
        match (sends, self.sending) {
            (true, false) => session.start_sending(cx.now),
            (false, true) => session.stop_sending(),
            (true, true) | (false, false) => {}
        }
        self.sending = sends;
        if agreed.direction.receives() && !self.wishes.held {
            session.start_receiving(cx.now);
        } else {
            session.stop_receiving();
        }
        if self.has_path && !self.media_told {
            self.media_told = true;
            let codec = agreed.formats.send.codec.name().to_owned();
            let protection = self.protection(cx, &agreed);
            self.tell(cx, CallChange::MediaStarted { codec, protection });
            self.timers.stats.get_or_insert(cx.now + STATS_EVERY);
        }
    }

    fn protection(&self, cx: &Cx<'_>, agreed: &Agreed) -> Protection {
        let in_the_clear = self.hop.is_some_and(|hop| !cx.account.is_protected(hop.flow));
        match &agreed.crypto {
            Some(_) if in_the_clear => Protection::SrtpOverPlainSignalling,
            Some(_) => Protection::Srtp,
            None => Protection::None,
        }
    }

    /// RFC 4568 §7: keys belong on protected signalling. Told once, when the first keys leave.
    pub(crate) fn warn_of_plain_keys(&self, cx: &mut Cx<'_>) {
        let Some(hop) = self.hop else { return };
        if let Some(transport) = cx.account.plain_transport(hop.flow) {
            self.tell(cx, CallChange::Warned { warning: Warning::KeysInTheClear { transport } });
        }
    }

    /// What the media session has to tell.
    pub(crate) fn handle_media_event(&mut self, cx: &mut Cx<'_>, event: &media::Event) {
        let after_ms = self.age(cx.now);
        match event {
            media::Event::FirstSent => {
                self.tell(cx, CallChange::FirstMedia { direction: MediaDirection::Sent, after_ms });
            }
            media::Event::FirstReceived { .. } => {
                self.tell(cx, CallChange::FirstMedia { direction: MediaDirection::Received, after_ms });
            }
            media::Event::Dtmf { digit } => self.tell(cx, CallChange::Dtmf { digit: *digit }),
            media::Event::SourceEnded => self.tell(cx, CallChange::SourceEnded),
            media::Event::CodecChanged { .. }
            | media::Event::KeyConfirmed { .. }
            | media::Event::DtmfSent
            | media::Event::RemoteBye
            | media::Event::SsrcChanged { .. } => {}
        }
    }

    /// What the ICE agent has to tell.
    pub(crate) fn handle_ice_event(&mut self, cx: &mut Cx<'_>, event: ice::Event) {
        match event {
            ice::Event::Gathered { local, failures, took } => self.gathered(cx, local, &failures, took),
            ice::Event::ServerProbed { server, outcome, took } => self.server_probed(cx, server, &outcome, took),
            ice::Event::RemoteReached { .. } => {
                if let Some(leg) = self.leg.filter(|_| self.direction == Direction::Incoming) {
                    cx.account.endpoint.stop_resending(leg);
                }
            }
            ice::Event::PairValid { component, path, .. } => {
                let change = CallChange::PairValid {
                    component: views::component(component),
                    path: views::path(&path),
                    after_ms: self.age(cx.now),
                };
                self.tell(cx, change);
            }
            ice::Event::PathChanged { component, path, cause, .. } => self.path_changed(cx, component, &path, cause),
            ice::Event::Concluded { peer, announce, selected } => self.concluded(cx, peer, announce, selected),
            ice::Event::RemoteCandidates { verdict, .. } => self.pairs_judged(cx, verdict),
            ice::Event::Failed { peer, report } => self.ice_failed(cx, peer, &report),
            ice::Event::ConsentLost { path, .. } => self.consent_lost(cx, &path),
            ice::Event::PathDead { path, trouble, component, .. } => {
                if component == ice::Component::Rtp {
                    self.path_dead(cx, &path, trouble);
                }
            }
            ice::Event::PathAlive { .. } => self.path_works(),
            ice::Event::LateCandidate { .. } => self.late_candidate(cx),
            ice::Event::BetterPossible => self.better_possible(cx),
            ice::Event::MediaGap { length, path, .. } => self.media_gap(cx, length, &path),
            ice::Event::RelayEnding { .. } => self.relay_ending(cx),
            ice::Event::Closed => {
                self.flow = None;
                self.finish_if_done(cx);
            }
        }
    }

    fn server_probed(&mut self, cx: &mut Cx<'_>, server: ice::ServerId, outcome: &ice::ServerOutcome, took: Duration) {
        let report = self.flow.as_ref().map(|flow| flow.agent().report());
        let Some(known) = report.as_ref().and_then(|report| report.servers.get(server.0)) else { return };
        cx.account.relays.remember(known.addr, known.transport, outcome);
        if let ice::ServerOutcome::Failed(cause) = outcome {
            let warning = Warning::ServerFailed {
                server: known.addr.to_string(),
                transport: views::relay_transport(known.transport),
                failure: cause.to_string(),
            };
            let _ = took;
            self.tell(cx, CallChange::Warned { warning });
        }
    }

    fn path_changed(&mut self, cx: &mut Cx<'_>, component: ice::Component, path: &Path, cause: ice::PathCause) {
        let change = CallChange::PathChanged {
            component: views::component(component),
            path: views::path(path),
            cause: views::path_cause(cause),
        };
        self.tell(cx, change);
        if component != ice::Component::Rtp {
            return;
        }
        self.path_works();
        let now = cx.now;
        if let Some(flow) = &mut self.flow {
            flow.set_ice_rtt(now, path.rtt);
            if let Some(session) = flow.session_mut().filter(|_| cause != ice::PathCause::FirstValid) {
                session.path_changed(now);
            }
        }
        self.has_path = true;
        if self.answered.is_none() && self.state == CallState::Ringing {
            self.enter(cx, CallState::EarlyMedia);
        }
        self.apply_media(cx);
    }

    fn ice_failed(&mut self, cx: &mut Cx<'_>, peer: ice::PeerId, report: &ice::IceReport) {
        for fork in self.forks.values_mut().filter(|fork| fork.peer == Some(peer)) {
            fork.has_failed = true;
        }
        // A fork that cannot be reached ends the call only if it is the last one.
        let is_open = self.dialog.is_none() && self.direction == Direction::Outgoing;
        if is_open && self.forks.values().any(|fork| !fork.has_failed) {
            return;
        }
        let report = Box::new(views::report(report));
        let relays = report.local.iter().any(|candidate| candidate.kind == crate::api::CandidateKind::Relay);
        let advice = if relays {
            "a firewall blocks both sides' relays; allow UDP 3478 and TCP 443 to them"
        } else {
            "no relay was at hand: configure one (turn servers, or an edge with MRAS)"
        };
        self.end(cx, EndReason::NoPath { report, advice: advice.to_owned() });
    }

    /// Our relay will not be renewed: whoever holds it restarts ICE with the credentials of now, and media stays where it is
    /// until the new path is nominated.
    fn relay_ending(&mut self, cx: &mut Cx<'_>) {
        self.restart_due = true;
        self.next_offer(cx);
    }
}
