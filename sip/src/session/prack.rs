//! Provisional answers that must arrive, RFC 3262, and those that are merely repeated (RFC 8839 §7.1.1).

use std::time::Instant;

use rand::RngExt;

use super::{Leg, cseq_of};
use crate::endpoint::send::{ALLOW, sdp_of};
use crate::endpoint::{Endpoint, Owner};
use crate::event::{CommandError, DialogId, Event, LegId};
use crate::header::{CSeq, RAck};
use crate::message::{Method, Request, Response};
use crate::transaction::ServerTx;
use crate::transaction::timers::{PATIENCE, Resend};

/// What happens to our last provisional answer.
#[derive(Debug)]
pub(crate) enum Provisional {
    /// Nothing more.
    None,
    /// Sent again until the owner or a final answer stops it; doubling from T1, for 64·T1.
    Plain { response: Response, resend: Resend, end_at: Instant },
    /// Sent again until PRACK, then the INVITE fails with 504 (RFC 3262 §3: 5xx).
    Reliable { response: Response, rseq: u32, resend: Resend, fail_at: Instant },
}

impl Provisional {
    pub(crate) fn is_reliable(&self) -> bool {
        matches!(self, Self::Reliable { .. })
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Plain { resend, end_at: end, .. } | Self::Reliable { resend, fail_at: end, .. } => {
                Some(resend.at.min(*end))
            }
        }
    }
}

impl Endpoint {
    /// Sends 180 or 183. Reliably if the peer requires it, or supports it and there is SDP to lose.
    pub(crate) fn send_provisional(
        &mut self,
        now: Instant,
        leg: LegId,
        status: u16,
        sdp: Option<String>,
    ) -> Result<(), CommandError> {
        let wanted = self.config.reliable_progress;
        let callee = self.callee(leg)?;
        if callee.provisional.is_reliable() {
            callee.queued = Some((status, sdp));
            return Ok(());
        }
        let (tx, id, request, last) = (callee.tx, callee.dialog, callee.request.clone(), callee.rseq);
        let (required, supported) =
            (request.headers.lists("Require", "100rel"), request.headers.lists("Supported", "100rel"));
        // An offer of ours in a reliable 1xx would have to be answered in PRACK: only in the 200.
        let offered = sdp_of(&request.headers, &request.body).is_some();
        let sdp = sdp.filter(|_| offered);
        let reliable = required || supported && sdp.is_some() && wanted;
        let mut response = self.make_dialog_response(id, &request, status);
        response.headers.push("Allow", ALLOW);
        let has_sdp = sdp.is_some();
        if let Some(sdp) = sdp {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.local_sdp = Some(sdp.clone());
            }
            response.set_body("application/sdp", sdp.into_bytes());
        }
        let (resend, end) = (Resend::new(now, None), now + PATIENCE);
        let provisional = if reliable {
            let first = self.rng.random_range(1..1_000_000_u32);
            let rseq = last.map_or(first, |last| last.saturating_add(1));
            response.headers.push("Require", "100rel");
            response.headers.push("RSeq", rseq.to_string());
            Provisional::Reliable { response: response.clone(), rseq, resend, fail_at: end }
        } else if has_sdp {
            Provisional::Plain { response: response.clone(), resend, end_at: end }
        } else {
            Provisional::None
        };
        let callee = self.callee(leg)?;
        if let Provisional::Reliable { rseq, .. } = &provisional {
            callee.rseq = Some(*rseq);
        }
        // A later 180 must not end the repetition of the 183 before it.
        if !matches!((&provisional, &callee.provisional), (Provisional::None, Provisional::Plain { .. })) {
            callee.provisional = provisional;
        }
        self.transactions.respond(now, tx, response);
        self.settle(now);
        Ok(())
    }

    /// Repeats provisional answers that are due.
    pub(crate) fn run_provisionals(&mut self, now: Instant) {
        let mut again = Vec::new();
        let mut failed = Vec::new();
        for (id, leg) in &mut self.legs {
            let Leg::Callee(callee) = leg else { continue };
            if callee.expires_at.is_some_and(|at| now >= at) {
                failed.push((*id, 487, "the INVITE expired"));
                continue;
            }
            match &mut callee.provisional {
                Provisional::None => {}
                Provisional::Plain { end_at, .. } if now >= *end_at => callee.provisional = Provisional::None,
                Provisional::Reliable { fail_at, .. } if now >= *fail_at => {
                    failed.push((*id, 504, "no PRACK came for 32 s (RFC 3262 §3)"));
                }
                Provisional::Plain { response, resend, .. } | Provisional::Reliable { response, resend, .. } => {
                    if resend.is_due(now) {
                        again.push((callee.tx, response.clone()));
                    }
                }
            }
        }
        for (tx, response) in again {
            self.transactions.respond(now, tx, response);
        }
        for (leg, status, reason) in failed {
            self.refuse_call(now, leg, status, "", &[]);
            self.emit(Event::Cancelled { leg, reason: Some(reason.to_owned()) });
        }
        self.settle(now);
    }

    /// Acknowledges a reliable 1xx. False if it is out of order or a repetition: not to be handled (RFC 3262 §4).
    pub(crate) fn send_prack(&mut self, now: Instant, id: DialogId, response: &Response) -> bool {
        let Some(rseq) = response.headers.get("RSeq").and_then(|text| text.trim().parse::<u32>().ok()) else {
            return false;
        };
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        if session.rseq.is_some_and(|last| rseq != last.saturating_add(1)) {
            return false;
        }
        session.rseq = Some(rseq);
        let cseq = CSeq::new(cseq_of(&response.headers), Method::Invite);
        if let Ok((hop, mut prack)) = self.make_dialog_request(id, Method::Prack) {
            prack.headers.push("RAck", RAck { rseq, cseq }.to_string());
            // A lost flow shows up at the INVITE itself.
            let _ = self.send_request(now, hop, prack, Owner::Prack(id));
        }
        true
    }

    /// PRACK for our reliable 1xx: 200 if it fits, 481 if not (RFC 3262 §3).
    pub(crate) fn handle_prack(&mut self, now: Instant, tx: ServerTx, request: &Request, id: DialogId) {
        let rack = request.headers.parse_one::<RAck>("RAck").ok();
        let leg = self.sessions.get(&id).map(|session| session.leg);
        let fits = |leg: &&mut Leg| match leg {
            Leg::Callee(callee) => match (&callee.provisional, &rack) {
                (Provisional::Reliable { rseq, .. }, Some(rack)) => {
                    rack.rseq == *rseq && rack.cseq.number == cseq_of(&callee.request.headers)
                }
                (Provisional::Reliable { .. } | Provisional::None | Provisional::Plain { .. }, _) => false,
            },
            Leg::Caller(_) => false,
        };
        let found = leg.and_then(|leg| self.legs.get_mut(&leg).filter(fits).map(|entry| (leg, entry)));
        let Some((leg, Leg::Callee(callee))) = found else {
            return self.reply(now, tx, request, 481);
        };
        callee.provisional = Provisional::None;
        let (queued, accept) = (callee.queued.take(), callee.accept_queued.take());
        let sdp = sdp_of(&request.headers, &request.body);
        // Our SDP was the answer already: an offer in PRACK would start a second negotiation, which we refuse.
        self.reply(now, tx, request, if sdp.is_some() { 488 } else { 200 });
        self.emit(Event::ProgressConfirmed { leg, sdp: None });
        // The call is known to be open: neither can fail.
        if let Some(sdp) = accept {
            let _ = self.accept(now, leg, sdp);
        } else if let Some((status, sdp)) = queued {
            let _ = self.send_provisional(now, leg, status, sdp);
        }
    }
}
