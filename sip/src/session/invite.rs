//! Calling: the UAC side of INVITE, RFC 3261 §13.2, with all the early dialogs that forking makes.
//!
//! ```text
//!   invite ──▶ 1xx per To-tag: early dialogs ──first 2xx──▶ winner, ACK   other early dialogs end (ForkLost)
//!                                            ──further 2xx──▶ ACK, BYE
//!                                            ──300-699──▶ Failed
//! ```

use std::time::Instant;

use super::refresh::session_headers;
use super::{AckDue, Leg, Session, State, cseq_of};
use crate::dialog::{Dialog, DialogKey};
use crate::endpoint::Endpoint;
use crate::endpoint::send::{self, ALLOW, Answer, SUPPORTED, sdp_of};
use crate::event::{CallFailed, CommandError, DialogId, EndCause, Event, Hop, Invite, LegId};
use crate::message::{Method, Response};
use crate::transaction::ClientTx;

/// Early dialogs of one INVITE: more devices than one person has; further 1xx are dropped.
const FORKS_MAX: usize = 16;
/// Calls at once, both directions.
pub(super) const LEGS_MAX: usize = 512;

/// How far giving up has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancel {
    No,
    /// Waits for a provisional answer (RFC 3261 §9.1).
    Wanted,
    Sent,
}

/// Our INVITE.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) tx: ClientTx,
    pub(crate) hop: Hop,
    /// The offer; `None` if the peer is to offer.
    pub(crate) sdp: Option<String>,
    pub(crate) dialogs: Vec<DialogId>,
    pub(crate) winner: Option<DialogId>,
    pub(crate) cancel: Cancel,
    /// The end was reported.
    pub(crate) failed: bool,
}

impl Endpoint {
    /// Calls `target`.
    ///
    /// # Errors
    ///
    /// If the flow is not open, the INVITE too large for UDP, or too many calls are open.
    pub fn invite(&mut self, now: Instant, invite: Invite) -> Result<LegId, CommandError> {
        let Invite { target, hop, sdp, headers } = invite;
        if self.legs.len() >= LEGS_MAX {
            return Err(CommandError::TooMany { what: "calls", limit: LEGS_MAX });
        }
        if !self.flows.contains_key(&hop.flow) {
            return Err(CommandError::NoFlow(hop.flow));
        }
        let mut request = self.make_request(Method::Invite, &target, hop);
        request.headers.push("Contact", self.contact_value(hop.flow));
        request.headers.push("Allow", ALLOW);
        // An offer in a reliable 1xx would have to be answered in PRACK: without an offer of ours, no 100rel.
        request.headers.push("Supported", if sdp.is_some() { SUPPORTED } else { "timer, replaces" });
        send::add_headers(&mut request.headers, &session_headers(&self.config, None));
        send::add_headers(&mut request.headers, &headers);
        if let Some(sdp) = &sdp {
            request.set_body("application/sdp", sdp.clone().into_bytes());
        }
        let leg = LegId(self.take_id());
        let tx = self.send_request(now, hop, request, crate::endpoint::Owner::Invite(leg))?;
        let caller = Caller { tx, hop, sdp, dialogs: Vec::new(), winner: None, cancel: Cancel::No, failed: false };
        self.legs.insert(leg, Leg::Caller(caller));
        self.settle(now);
        Ok(leg)
    }

    pub(crate) fn caller(&mut self, leg: LegId) -> Option<&mut Caller> {
        match self.legs.get_mut(&leg) {
            Some(Leg::Caller(caller)) => Some(caller),
            Some(Leg::Callee(_)) | None => None,
        }
    }

    pub(crate) fn rebind_leg(&mut self, leg: LegId, old: ClientTx, new: ClientTx) {
        if let Some(caller) = self.caller(leg)
            && caller.tx == old
        {
            caller.tx = new;
            // A challenge may have crossed the wish to cancel.
            if caller.cancel == Cancel::Sent {
                caller.cancel = Cancel::Wanted;
            }
        }
    }

    /// The INVITE transaction is over: 32 s after a 2xx no further fork can answer.
    pub(crate) fn forget_caller(&mut self, leg: LegId, tx: ClientTx) {
        if self.caller(leg).is_some_and(|caller| caller.tx == tx) {
            self.legs.remove(&leg);
        }
    }

    pub(crate) fn handle_invite_response(&mut self, now: Instant, leg: LegId, answer: Answer<'_>) {
        if self.caller(leg).is_none() {
            return;
        }
        match answer.response.status {
            0..=199 => self.handle_provisional(now, leg, answer),
            200..=299 => self.handle_success(now, leg, answer),
            422 if self.retry_with_min_se(now, answer) => {}
            300.. => self.handle_failure(leg, answer),
        }
    }

    fn handle_provisional(&mut self, now: Instant, leg: LegId, answer: Answer<'_>) {
        let response = answer.response;
        if self.caller(leg).is_some_and(|caller| caller.cancel == Cancel::Wanted) {
            self.send_cancel(now, leg);
        }
        if response.status <= 100 || self.caller(leg).is_none_or(|caller| caller.winner.is_some()) {
            return;
        }
        let dialog = self.early_dialog(leg, answer);
        let reliable = response.headers.lists("Require", "100rel") && response.headers.contains("RSeq");
        if reliable && !dialog.is_some_and(|id| self.send_prack(now, id, response)) {
            return; // out of order, or a repetition (RFC 3262 §4)
        }
        let (status, reason) = (response.status, response.reason.clone());
        if let (199, Some(id)) = (status, dialog) {
            self.end_fork(leg, id); // RFC 6228 §4
            return;
        }
        let mut sdp = sdp_of(&response.headers, &response.body);
        if let (Some(text), Some(session)) = (&sdp, dialog.and_then(|id| self.sessions.get_mut(&id))) {
            // The first SDP of a dialog is the answer, what follows repeats it (RFC 3261 §13.2.1).
            if session.remote_sdp.is_some() {
                sdp = None;
            } else {
                session.remote_sdp = Some(text.clone());
            }
        }
        self.emit(Event::Progress { leg, dialog, status, reason, sdp, reliable });
    }

    /// The dialog of this To-tag, new or known.
    fn early_dialog(&mut self, leg: LegId, answer: Answer<'_>) -> Option<DialogId> {
        let key = DialogKey::of_response(&answer.response.headers)?;
        if let Some(id) = self.dialogs.get(&key) {
            let id = *id;
            if let Some(session) = self.sessions.get_mut(&id) {
                session.learn_peer(&answer.response.headers);
                if answer.response.headers.contains("Contact") {
                    session.dialog.refresh_target(&answer.response.headers);
                }
            }
            return Some(id);
        }
        let (forks, hop, sdp) =
            self.caller(leg).map(|caller| (caller.dialogs.len(), caller.hop, caller.sdp.clone()))?;
        let full = forks >= FORKS_MAX && !answer.response.is_success();
        let dialog = Dialog::of_response(&self.pending.get(&answer.tx)?.request, answer.response).ok();
        let dialog = dialog.filter(|_| !full)?;
        let mut session = Session::new(leg, dialog, hop, true);
        session.local_sdp = sdp;
        session.learn_peer(&answer.response.headers);
        let id = self.insert_session(session);
        if let Some(caller) = self.caller(leg) {
            caller.dialogs.push(id);
        }
        Some(id)
    }

    fn handle_success(&mut self, now: Instant, leg: LegId, answer: Answer<'_>) {
        let Some(id) = self.early_dialog(leg, answer) else {
            tracing::warn!(%leg, "2xx without a usable dialog dropped");
            return;
        };
        let cseq = cseq_of(&answer.response.headers);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.state != State::Early {
            self.repeat_ack(id, cseq);
            return;
        }
        session.dialog.confirm(answer.response);
        session.state = State::Confirmed;
        let Some(caller) = self.caller(leg) else { return };
        let (offered, lost) = (caller.sdp.is_some(), caller.winner.is_some() || caller.cancel != Cancel::No);
        if lost {
            self.refuse_late_success(now, leg, id, answer);
            return;
        }
        caller.winner = Some(id);
        let losers: Vec<DialogId> = caller.dialogs.iter().copied().filter(|other| *other != id).collect();
        let credentials = self.credentials_of(answer.tx);
        let sdp = sdp_of(&answer.response.headers, &answer.response.body);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let sdp = sdp.or_else(|| session.remote_sdp.clone());
        session.remote_sdp.clone_from(&sdp);
        self.start_timer_as_caller(now, id, answer.response);
        if offered {
            self.send_ack(id, cseq, &credentials, None);
        } else if let Some(session) = self.sessions.get_mut(&id) {
            session.ack_due = Some(AckDue { cseq, credentials });
        }
        let headers = Box::new(answer.response.headers.clone());
        self.emit(Event::Answered { leg, dialog: id, sdp, offer: !offered, headers });
        for loser in losers {
            self.end_fork(leg, loser);
        }
    }

    /// A 2xx after the call was decided: it must be acknowledged, then ended (RFC 3261 §13.2.2.4, §9.1).
    fn refuse_late_success(&mut self, now: Instant, leg: LegId, id: DialogId, answer: Answer<'_>) {
        let credentials = self.credentials_of(answer.tx);
        self.send_ack(id, cseq_of(&answer.response.headers), &credentials, None);
        self.send_bye(now, id, EndCause::ForkLost);
        let Some(caller) = self.caller(leg) else { return };
        if caller.winner.is_none() && !caller.failed {
            caller.failed = true;
            let reason = "cancelled while the answer was on its way".to_owned();
            self.emit(Event::Failed(Box::new(failed_here(leg, 487, reason))));
        }
    }

    fn handle_failure(&mut self, leg: LegId, answer: Answer<'_>) {
        let Some(Leg::Caller(caller)) = self.legs.remove(&leg) else { return };
        for dialog in caller.dialogs.iter().filter(|dialog| Some(**dialog) != caller.winner) {
            self.remove_session(*dialog);
        }
        if caller.failed || caller.winner.is_some() {
            return;
        }
        let Response { status, reason, headers, .. } = answer.response;
        let failure = if answer.local && caller.cancel != Cancel::No {
            failed_here(leg, 487, "cancelled; the peer did not confirm it".to_owned())
        } else {
            CallFailed {
                leg,
                status: *status,
                reason: reason.clone(),
                local: answer.local,
                warning: headers.get("Warning").map(ToOwned::to_owned),
                retry_after: send::retry_after(headers),
                redirect: send::redirect_contacts(answer.response),
                diagnostics: send::diagnostics(headers),
            }
        };
        self.emit(Event::Failed(Box::new(failure)));
    }

    /// This branch of the fork has lost.
    fn end_fork(&mut self, leg: LegId, id: DialogId) {
        if let Some(caller) = self.caller(leg) {
            caller.dialogs.retain(|other| *other != id);
        }
        // One that answered too late is in its BYE already.
        if self.sessions.get(&id).is_some_and(|session| session.state == State::Early) {
            self.remove_session(id);
            self.emit(Event::Ended { dialog: id, cause: EndCause::ForkLost });
        }
    }
}

fn failed_here(leg: LegId, status: u16, reason: String) -> CallFailed {
    CallFailed {
        leg,
        status,
        reason,
        local: true,
        warning: None,
        retry_after: None,
        redirect: Vec::new(),
        diagnostics: None,
    }
}
