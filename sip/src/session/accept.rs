//! Being called: the UAS side of INVITE, RFC 3261 §13.3.
//!
//! ```text
//!   Incoming ──ring──▶ 180      ──progress──▶ 183 + SDP: repeated until a STUN check proves that it arrived
//!            ──accept──▶ 200 (repeated until ACK)      (RFC 8839 §7.1.1), or reliable with PRACK (RFC 3262)
//!            ──reject──▶ 3xx-6xx      CANCEL ──▶ 487, Cancelled
//! ```

use std::time::{Duration, Instant};

use super::invite::LEGS_MAX;
use super::prack::Provisional;
use super::refresh::{AnswerTimer, min_se_fault};
use super::{Leg, Session, State, Unacked, cseq_of};
use crate::dialog::{Dialog, DialogKey};
use crate::endpoint::Endpoint;
use crate::endpoint::send::{ALLOW, SUPPORTED, add_headers, content_of, sdp_of};
use crate::event::{CommandError, DialogId, Event, FlowId, Hop, Incoming, LegId};
use crate::header::{NameAddr, Replaces};
use crate::message::{Request, Response};
use crate::transaction::ServerTx;
use crate::transaction::timers::{PATIENCE, Resend, T2};
use crate::uri::Uri;

/// An INVITE that we have not finally answered, or whose 200 has no ACK yet.
#[derive(Debug)]
pub(crate) struct Callee {
    pub(crate) tx: ServerTx,
    pub(crate) dialog: DialogId,
    pub(crate) request: Request,
    pub(crate) flow: FlowId,
    pub(crate) provisional: Provisional,
    /// Provisional answers and the 200 that wait for PRACK (RFC 3262 §3).
    pub(crate) queued: Option<(u16, Option<String>)>,
    pub(crate) accept_queued: Option<String>,
    /// RSeq of the last reliable answer.
    pub(crate) rseq: Option<u32>,
    /// The 200 is out.
    pub(crate) answered: bool,
    /// When the INVITE is no longer worth an answer (RFC 3261 §13.3.1).
    pub(crate) expires_at: Option<Instant>,
}

impl Endpoint {
    pub(crate) fn handle_invite(&mut self, now: Instant, tx: ServerTx, request: &Request) {
        let Some((_, flow, source)) = self.transactions.server_request(tx) else { return };
        let replaces = match self.find_replaced(request) {
            Ok(replaces) => replaces,
            Err(status) => return self.reply(now, tx, request, status),
        };
        if self.legs.len() >= LEGS_MAX {
            return self.reply(now, tx, request, 486);
        }
        if let Some(min_se) = min_se_fault(&self.config, &request.headers) {
            let mut response = self.make_response(request, 422, "");
            response.headers.push("Min-SE", min_se.0.to_string());
            return self.transactions.respond(now, tx, response);
        }
        let sdp = sdp_of(&request.headers, &request.body);
        if sdp.is_none() && !request.body.is_empty() {
            let mut response = self.make_response(request, 415, "");
            response.headers.push("Accept", "application/sdp, multipart/mixed, multipart/alternative");
            return self.transactions.respond(now, tx, response);
        }
        let tag = self.token();
        let Ok(dialog) = Dialog::of_request(request, &tag) else {
            return self.reply(now, tx, request, 400);
        };
        let leg = LegId(self.take_id());
        let mut session = Session::new(leg, dialog, Hop { flow, to: source }, false);
        session.direct = request.headers.values("Via").count() == 1;
        session.remote_sdp.clone_from(&sdp);
        session.learn_peer(&request.headers);
        let id = self.insert_session(session);
        let expires = request.headers.expires().ok().flatten().filter(|seconds| *seconds > 0);
        let callee = Callee {
            tx,
            dialog: id,
            request: request.clone(),
            flow,
            provisional: Provisional::None,
            queued: None,
            accept_queued: None,
            rseq: None,
            answered: false,
            expires_at: expires.map(|seconds| now + Duration::from_secs(seconds.into())),
        };
        self.legs.insert(leg, Leg::Callee(Box::new(callee)));
        let content = content_of(&request.headers, &request.body);
        let plain = request.headers.content_type().is_some_and(|content_type| content_type == "application/sdp");
        let text = |name: &str| request.headers.get(name).unwrap_or_default().to_owned();
        self.emit(Event::Incoming(Box::new(Incoming {
            leg,
            dialog: id,
            flow,
            source,
            from: text("From"),
            to: text("To"),
            uri: request.uri.clone(),
            call_id: text("Call-ID"),
            sdp,
            replaces,
            headers: request.headers.clone(),
            content: content.filter(|_| !plain),
        })));
    }

    /// The dialog that Replaces names (RFC 3891 §3), or the status to answer.
    fn find_replaced(&self, request: &Request) -> Result<Option<DialogId>, u16> {
        let Some(value) = request.headers.get("Replaces") else { return Ok(None) };
        let replaces: Replaces = value.parse().map_err(|_| 400_u16)?;
        let Replaces { call_id, to_tag, from_tag, early_only } = replaces;
        let key = DialogKey { call_id, local_tag: to_tag, remote_tag: from_tag };
        let id = *self.dialogs.get(&key).ok_or(481_u16)?;
        let session = self.sessions.get(&id).ok_or(481_u16)?;
        match session.state {
            State::Confirmed if early_only => Err(486),
            State::Early if !session.caller => Err(481),
            State::Ending => Err(603),
            State::Early | State::Confirmed => Ok(Some(id)),
        }
    }

    pub(crate) fn callee(&mut self, leg: LegId) -> Result<&mut Callee, CommandError> {
        match self.legs.get_mut(&leg) {
            Some(Leg::Callee(callee)) if callee.answered => Err(CommandError::WrongState("this", "answered")),
            Some(Leg::Callee(callee)) => Ok(callee),
            Some(Leg::Caller(_)) => Err(CommandError::WrongState("this", "outgoing")),
            None => Err(CommandError::NoLeg(leg)),
        }
    }

    /// 180 without SDP.
    ///
    /// # Errors
    ///
    /// If there is no such incoming call, or it is answered.
    pub fn ring(&mut self, now: Instant, leg: LegId) -> Result<(), CommandError> {
        self.send_provisional(now, leg, 180, None)
    }

    /// 183 with SDP. Sent again until [`Endpoint::stop_resending`], or reliably if the peer supports 100rel.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::ring`].
    pub fn progress(&mut self, now: Instant, leg: LegId, sdp: String) -> Result<(), CommandError> {
        self.send_provisional(now, leg, 183, Some(sdp))
    }

    /// The first STUN check of the peer has come: the 183 has arrived (RFC 8839 §7.1.1).
    pub fn stop_resending(&mut self, leg: LegId) {
        if let Ok(callee) = self.callee(leg)
            && matches!(callee.provisional, Provisional::Plain { .. })
        {
            callee.provisional = Provisional::None;
        }
    }

    /// 200 with the answer, or with our offer when the INVITE had none. Waits for PRACK if a 1xx of ours does.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::ring`].
    pub fn accept(&mut self, now: Instant, leg: LegId, sdp: String) -> Result<(), CommandError> {
        let callee = self.callee(leg)?;
        if callee.provisional.is_reliable() {
            callee.accept_queued = Some(sdp);
            return Ok(());
        }
        callee.answered = true;
        callee.expires_at = None;
        callee.provisional = Provisional::None;
        let (tx, id, request) = (callee.tx, callee.dialog, callee.request.clone());
        // After a reliable 183 the caller ignores this SDP (RFC 3261 §13.2.1); others rely on it.
        let offered = sdp_of(&request.headers, &request.body).is_none();
        let response = self.make_success(now, id, &request, Some(sdp));
        self.send_success(now, id, tx, response, cseq_of(&request.headers), true, offered);
        self.settle(now);
        Ok(())
    }

    /// A 2xx to INVITE or UPDATE: To tag, Contact, session timer, body.
    pub(crate) fn make_success(
        &mut self,
        now: Instant,
        id: DialogId,
        request: &Request,
        sdp: Option<String>,
    ) -> Response {
        let timer = self.answer_timer(now, id, &request.headers);
        let mut response = self.make_dialog_response(id, request, 200);
        response.headers.push("Allow", ALLOW);
        response.headers.push("Supported", SUPPORTED);
        if let Some(AnswerTimer { value, required }) = timer {
            response.headers.push("Session-Expires", value.to_string());
            if required {
                response.headers.push("Require", "timer");
            }
        }
        if let Some(sdp) = sdp {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.local_sdp = Some(sdp.clone());
            }
            response.set_body("application/sdp", sdp.into_bytes());
        }
        response
    }

    /// A response with the dialog's To tag and our Contact.
    pub(crate) fn make_dialog_response(&mut self, id: DialogId, request: &Request, status: u16) -> Response {
        let mut response = request.response(status, "");
        for value in request.headers.get_all("Record-Route") {
            response.headers.push("Record-Route", value);
        }
        if let Some(session) = self.sessions.get(&id) {
            response.headers.set("To", session.dialog.local.to_string());
            let contact = self.contact_value(session.hop.flow);
            response.headers.push("Contact", contact);
        }
        response.headers.push("Server", self.config.user_agent.clone());
        response
    }

    /// Sends a 2xx to INVITE and keeps sending it until the ACK.
    #[expect(clippy::too_many_arguments, reason = "initial and offered are read where the call stands")]
    pub(crate) fn send_success(
        &mut self,
        now: Instant,
        id: DialogId,
        tx: ServerTx,
        response: Response,
        cseq: u32,
        initial: bool,
        offered: bool,
    ) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = State::Confirmed;
            let (resend, fail_at) = (Resend::new(now, Some(T2)), now + PATIENCE);
            let response = response.clone();
            session.unacked = Some(Unacked { tx, response, resend, fail_at, cseq, initial, offered });
        }
        self.transactions.respond(now, tx, response);
    }

    /// Any 4xx-6xx; an empty `reason` stands for the usual phrase.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::ring`].
    pub fn reject(
        &mut self,
        now: Instant,
        leg: LegId,
        status: u16,
        reason: &str,
        headers: &[(String, String)],
    ) -> Result<(), CommandError> {
        self.callee(leg)?;
        self.refuse_call(now, leg, status.clamp(300, 699), reason, headers);
        self.settle(now);
        Ok(())
    }

    /// 302 to other addresses (RFC 3261 §8.2.6, §21.3.3).
    ///
    /// # Errors
    ///
    /// As [`Endpoint::ring`].
    pub fn redirect(&mut self, now: Instant, leg: LegId, contacts: &[Uri]) -> Result<(), CommandError> {
        let contacts = contacts.iter().map(|uri| ("Contact".to_owned(), NameAddr::new(uri.clone()).to_string()));
        self.reject(now, leg, 302, "", &contacts.collect::<Vec<_>>())
    }

    /// The final refusal; leg and early dialog are gone with it.
    pub(crate) fn refuse_call(
        &mut self,
        now: Instant,
        leg: LegId,
        status: u16,
        reason: &str,
        headers: &[(String, String)],
    ) {
        let Some(Leg::Callee(callee)) = self.legs.remove(&leg) else { return };
        let mut response = callee.request.response(status, reason);
        if let Some(session) = self.remove_session(callee.dialog) {
            response.headers.set("To", session.dialog.local.to_string());
        }
        response.headers.push("Server", self.config.user_agent.clone());
        add_headers(&mut response.headers, headers);
        self.transactions.respond(now, callee.tx, response);
    }

    /// Calls that came over a lost flow cannot be answered any more.
    pub(crate) fn lose_incoming_calls(&mut self, flow: FlowId, cause: &str) {
        let lost: Vec<(LegId, DialogId)> = self
            .legs
            .iter()
            .filter_map(|(id, leg)| match leg {
                Leg::Callee(callee) if callee.flow == flow && !callee.answered => Some((*id, callee.dialog)),
                Leg::Callee(_) | Leg::Caller(_) => None,
            })
            .collect();
        for session in self.sessions.values_mut().filter(|session| session.hop.flow == flow) {
            session.incoming = None;
            session.unacked.take_if(|unacked| !unacked.initial);
        }
        for (leg, dialog) in lost {
            self.legs.remove(&leg);
            self.remove_session(dialog);
            self.emit(Event::Cancelled { leg, reason: Some(cause.to_owned()) });
        }
    }
}
