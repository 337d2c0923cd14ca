//! Changing a session: re-INVITE, RFC 3261 §14, and what it shares with UPDATE (RFC 3311 §5).
//!
//! One offer at a time (RFC 3264 §4). If both sides offer at once, both refuse with 491 and try again after a random
//! time: 2.1-4 s for the side that made the Call-ID, 0-2 s for the other (RFC 3261 §14.1).

use std::time::{Duration, Instant};

use rand::RngExt;

use super::refresh::{min_se_fault, session_headers};
use super::{AckDue, IncomingOffer, OutgoingOffer, State, cseq_of};
use crate::endpoint::send::{ALLOW, Answer, add_headers, sdp_of};
use crate::endpoint::{Endpoint, Owner};
use crate::event::{CommandError, DialogId, Event};
use crate::message::{Method, Request};
use crate::transaction::{ClientTx, ServerTx};

/// Two offers that meet are no further apart than a message travels.
const UNHEARD_AFTER: Duration = Duration::from_millis(500);

impl Endpoint {
    /// Offers a changed session by re-INVITE; without `sdp` the peer is asked for an offer.
    ///
    /// # Errors
    ///
    /// If the dialog is not confirmed, an offer is pending, or the request is too large for UDP.
    pub fn reinvite(&mut self, now: Instant, dialog: DialogId, sdp: Option<String>) -> Result<(), CommandError> {
        let session = self.sessions.get(&dialog).ok_or(CommandError::NoDialog(dialog))?;
        if session.state != State::Confirmed {
            return Err(CommandError::WrongState("re-INVITE", session.state.name()));
        }
        self.send_offer(now, dialog, Method::Invite, sdp, false)?;
        self.settle(now);
        Ok(())
    }

    /// Sends re-INVITE or UPDATE.
    pub(crate) fn send_offer(
        &mut self,
        now: Instant,
        id: DialogId,
        method: Method,
        sdp: Option<String>,
        refresh: bool,
    ) -> Result<(), CommandError> {
        let session = self.sessions.get(&id).ok_or(CommandError::NoDialog(id))?;
        if session.outgoing.is_some() || session.unacked.is_some() || session.owes_answer() {
            return Err(CommandError::OfferPending(id));
        }
        let timer = session_headers(&self.config, session.timer.as_ref());
        let (hop, mut request) = self.make_dialog_request(id, method.clone())?;
        request.headers.push("Allow", ALLOW);
        request.headers.push("Supported", "timer, replaces");
        add_headers(&mut request.headers, &timer);
        if let Some(sdp) = &sdp {
            request.set_body("application/sdp", sdp.clone().into_bytes());
        }
        let owner = if method == Method::Invite { Owner::Reinvite(id) } else { Owner::Update(id) };
        let tx = self.send_request(now, hop, request, owner)?;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.outgoing = Some(OutgoingOffer { tx, method, sdp, refresh, sent_at: now });
            session.retry = None;
        }
        Ok(())
    }

    pub(crate) fn rebind_reoffer(&mut self, id: DialogId, new: ClientTx) {
        if let Some(outgoing) = self.sessions.get_mut(&id).and_then(|session| session.outgoing.as_mut()) {
            outgoing.tx = new;
        }
    }

    pub(crate) fn handle_reinvite_response(&mut self, now: Instant, id: DialogId, answer: Answer<'_>) {
        let response = answer.response;
        if response.is_provisional() {
            return;
        }
        let cseq = cseq_of(&response.headers);
        let current = self.is_current_offer(id, answer.tx);
        if response.is_success() && !current {
            self.repeat_ack(id, cseq);
            return;
        }
        if !current {
            return;
        }
        if !response.is_success() {
            self.handle_offer_failure(now, id, answer);
            return;
        }
        let credentials = self.credentials_of(answer.tx);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(outgoing) = session.outgoing.take() else { return };
        session.dialog.refresh_target(&response.headers);
        if outgoing.sdp.is_some() {
            self.send_ack(id, cseq, &credentials, None);
        } else {
            session.ack_due = Some(AckDue { cseq, credentials });
        }
        self.finish_offer(now, id, &outgoing, answer);
    }

    pub(crate) fn is_current_offer(&self, id: DialogId, tx: ClientTx) -> bool {
        self.sessions.get(&id).and_then(|session| session.outgoing.as_ref()).is_some_and(|out| out.tx == tx)
    }

    /// The offer was accepted: what both sides know now, and the session timer (RFC 4028 §10).
    pub(crate) fn finish_offer(&mut self, now: Instant, id: DialogId, outgoing: &OutgoingOffer, answer: Answer<'_>) {
        let sdp = sdp_of(&answer.response.headers, &answer.response.body);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.learn_peer(&answer.response.headers);
        let changed = session.remote_sdp != sdp;
        if outgoing.sdp.is_some() {
            session.local_sdp.clone_from(&outgoing.sdp);
        }
        if sdp.is_some() {
            session.remote_sdp.clone_from(&sdp);
        }
        self.start_timer_as_caller(now, id, answer.response);
        if outgoing.refresh {
            self.report_refresh(id, true);
        }
        if !outgoing.refresh || (changed && sdp.is_some()) {
            let offer = outgoing.method == Method::Invite && outgoing.sdp.is_none();
            self.emit(Event::Reanswered { dialog: id, sdp, offer });
        }
    }

    /// The offer was refused: the session is as before (RFC 3261 §14.1), unless the dialog itself is gone.
    pub(crate) fn handle_offer_failure(&mut self, now: Instant, id: DialogId, answer: Answer<'_>) {
        let (status, reason) = (answer.response.status, answer.response.reason.clone());
        if status == 422 && self.retry_with_min_se(now, answer) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(outgoing) = session.outgoing.take() else { return };
        if session.state == State::Ending {
            return;
        }
        if outgoing.refresh {
            self.postpone_refresh(now, id);
        } else if status == 491 {
            let after = if session.caller { 2100..4000 } else { 0..2000 };
            let wait = Duration::from_millis(self.rng.random_range(after) / 10 * 10);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.retry = Some((now + wait, outgoing.method, outgoing.sdp));
            }
            return;
        } else {
            self.emit(Event::ReofferFailed { dialog: id, status, reason });
        }
        self.handle_dialog_failure(now, id, status);
    }

    /// The back-off after 491 is over.
    pub(crate) fn run_retry(&mut self, now: Instant, id: DialogId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.retry.as_ref().is_none_or(|(at, ..)| *at > now) {
            return;
        }
        let Some((_, method, sdp)) = session.retry.take() else { return };
        if self.send_offer(now, id, method, sdp, false).is_err() {
            self.emit(Event::ReofferFailed {
                dialog: id,
                status: 491,
                reason: "the peer was changing the session".to_owned(),
            });
        }
    }

    /// The peer's re-INVITE.
    pub(crate) fn handle_reinvite(&mut self, now: Instant, tx: ServerTx, request: &Request, id: DialogId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if session.state != State::Confirmed {
            return self.reply(now, tx, request, if session.state == State::Ending { 481 } else { 500 });
        }
        // Whoever sends a re-INVITE has our 2xx: its ACK was lost or overtaken.
        if session.unacked.as_ref().is_some_and(|unacked| !unacked.offered) {
            self.confirm_answer(now, id, None);
        }
        self.take_offer(now, tx, request, id);
    }

    /// What re-INVITE and UPDATE share at the receiver (RFC 3261 §14.2, RFC 3311 §5.2).
    pub(crate) fn take_offer(&mut self, now: Instant, tx: ServerTx, request: &Request, id: DialogId) {
        if let Some(min_se) = min_se_fault(&self.config, &request.headers) {
            let mut response = self.make_response(request, 422, "");
            response.headers.push("Min-SE", min_se.0.to_string());
            return self.transactions.respond(now, tx, response);
        }
        let sdp = sdp_of(&request.headers, &request.body);
        if request.method == Method::Update && sdp.is_none() {
            return self.take_refresh(now, tx, request, id);
        }
        self.give_up_unheard_offer(now, id);
        let Some(session) = self.sessions.get(&id) else { return };
        if session.has_offered() {
            return self.reply(now, tx, request, 491);
        }
        if session.owes_answer() {
            let wait = self.rng.random_range(0..=10_u32);
            let mut response = self.make_response(request, 500, "");
            response.headers.push("Retry-After", wait.to_string());
            return self.transactions.respond(now, tx, response);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.learn_peer(&request.headers);
        let repeated = sdp.is_some() && sdp == session.remote_sdp;
        let local = session.local_sdp.clone();
        session.incoming = Some(IncomingOffer { tx, request: request.clone(), sdp: sdp.clone() });
        if let Some(local) = local.filter(|_| repeated) {
            // The same SDP again: nothing changes (RFC 4028 §7.4), and nobody need be asked.
            self.accept_offer(now, id, Some(without_remote_candidates(&local)));
            self.report_refresh(id, false);
        } else {
            self.emit(Event::Reoffer { dialog: id, sdp, method: request.method.clone() });
        }
    }

    /// A peer that had our offer would have answered it, or refused it with 491, before it made one of its own (RFC 3261
    /// §14.1): ours went to where it is no more, and theirs may be the way out.
    fn give_up_unheard_offer(&mut self, now: Instant, id: DialogId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_unheard = |out: &OutgoingOffer| !out.refresh && now >= out.sent_at + UNHEARD_AFTER;
        if session.outgoing.take_if(|out| is_unheard(out)).is_some() {
            let reason = "the peer was changing the session".to_owned();
            self.emit(Event::ReofferFailed { dialog: id, status: 491, reason });
        }
    }

    /// UPDATE without SDP: a session timer refresh (RFC 4028 §7.4), whatever offers are pending.
    fn take_refresh(&mut self, now: Instant, tx: ServerTx, request: &Request, id: DialogId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.dialog.refresh_target(&request.headers);
        }
        let response = self.make_success(now, id, request, None);
        self.transactions.respond(now, tx, response);
        self.report_refresh(id, false);
    }

    /// 200 with the answer, or with our offer when the re-INVITE had none.
    ///
    /// # Errors
    ///
    /// If no offer of the peer waits.
    pub fn answer_reoffer(&mut self, now: Instant, dialog: DialogId, sdp: String) -> Result<(), CommandError> {
        let session = self.sessions.get(&dialog).ok_or(CommandError::NoDialog(dialog))?;
        if session.incoming.is_none() {
            return Err(CommandError::WrongState("answer", "no offer of the peer"));
        }
        self.accept_offer(now, dialog, Some(sdp));
        self.settle(now);
        Ok(())
    }

    /// Refuses the peer's change, e.g. with 488; the session stays as it is (RFC 3261 §14.2).
    ///
    /// # Errors
    ///
    /// If no offer of the peer waits.
    pub fn reject_reoffer(&mut self, now: Instant, dialog: DialogId, status: u16) -> Result<(), CommandError> {
        let session = self.sessions.get(&dialog).ok_or(CommandError::NoDialog(dialog))?;
        if session.incoming.is_none() {
            return Err(CommandError::WrongState("reject", "no offer of the peer"));
        }
        self.refuse_reoffer(now, dialog, status.clamp(400, 699), None);
        self.settle(now);
        Ok(())
    }

    fn accept_offer(&mut self, now: Instant, id: DialogId, sdp: Option<String>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(IncomingOffer { tx, request, sdp: offer }) = session.incoming.take() else { return };
        session.dialog.refresh_target(&request.headers);
        let offered = offer.is_none() && sdp.is_some();
        if offer.is_some() {
            session.remote_sdp = offer;
        }
        // What we meant to offer was made for a session that is no more.
        let outdated = sdp.is_some() && session.retry.take().is_some();
        let response = self.make_success(now, id, &request, sdp);
        if request.method == Method::Invite {
            self.send_success(now, id, tx, response, cseq_of(&request.headers), false, offered);
        } else {
            self.transactions.respond(now, tx, response);
        }
        if outdated {
            self.emit(Event::ReofferFailed {
                dialog: id,
                status: 491,
                reason: "the peer changed the session first".to_owned(),
            });
        }
    }

    /// Refuses what the peer has open, if anything.
    pub(crate) fn refuse_reoffer(&mut self, now: Instant, id: DialogId, status: u16, reason: Option<&str>) {
        let Some(incoming) = self.sessions.get_mut(&id).and_then(|session| session.incoming.take()) else { return };
        let mut response = self.make_response(&incoming.request, status, reason.unwrap_or_default());
        if matches!(status, 488 | 606) {
            response.headers.push("Warning", "304 icephone \"Media type not available\"");
        }
        self.transactions.respond(now, incoming.tx, response);
    }
}

/// Our last SDP as an answer: `a=remote-candidates` is for offers (RFC 8839 §5.2).
fn without_remote_candidates(sdp: &str) -> String {
    sdp.split_inclusive('\n').filter(|line| !line.starts_with("a=remote-candidates:")).collect()
}
