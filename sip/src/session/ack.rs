//! ACK to a 2xx, RFC 3261 §13.2.2.4: outside any transaction, made once per INVITE and sent again for every repeated 2xx.
//! On the other side, the 2xx is repeated until the ACK comes or 32 s have passed (§13.3.1.4).

use std::time::Instant;

use super::{AckDue, Session, Unacked};
use crate::dialog::DialogKey;
use crate::endpoint::Endpoint;
use crate::endpoint::send::sdp_of;
use crate::event::{CommandError, DialogId, EndCause, Event};
use crate::header::via::MAGIC_COOKIE;
use crate::message::Request;
use crate::transaction::ClientTx;

impl Endpoint {
    /// Sends the ACK with our answer, after [`Event::Answered`] or [`Event::Reanswered`] with `offer: true`.
    ///
    /// # Errors
    ///
    /// If no ACK waits for an answer in this dialog.
    pub fn ack(&mut self, now: Instant, dialog: DialogId, sdp: String) -> Result<(), CommandError> {
        let session = self.sessions.get_mut(&dialog).ok_or(CommandError::NoDialog(dialog))?;
        let Some(AckDue { cseq, credentials }) = session.ack_due.take() else {
            return Err(CommandError::WrongState("ack", "no offer of the peer to answer"));
        };
        session.local_sdp = Some(sdp.clone());
        self.send_ack(dialog, cseq, &credentials, Some(sdp));
        self.settle(now);
        Ok(())
    }

    pub(crate) fn send_ack(&mut self, id: DialogId, cseq: u32, credentials: &[(String, String)], sdp: Option<String>) {
        let branch = format!("{MAGIC_COOKIE}{}", self.token());
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(flow) = self.flows.get(&session.hop.flow) else { return };
        let hop = session.next_hop(flow.transport);
        let mut ack = session.dialog.make_ack(cseq);
        ack.headers.insert_first("Via", flow.via(&branch).to_string());
        for (name, value) in credentials {
            ack.headers.push(name.clone(), value.clone());
        }
        ack.headers.push("User-Agent", self.config.user_agent.clone());
        if let Some(sdp) = sdp {
            ack.set_body("application/sdp", sdp.into_bytes());
        }
        let bytes = ack.to_bytes();
        session.last_ack = Some((cseq, bytes.clone()));
        self.transmit(hop.flow, hop.to, bytes);
    }

    /// The 2xx came again: so does the ACK.
    pub(crate) fn repeat_ack(&mut self, id: DialogId, cseq: u32) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(flow) = self.flows.get(&session.hop.flow) else { return };
        let hop = session.next_hop(flow.transport);
        if let Some((number, bytes)) = &session.last_ack
            && *number == cseq
        {
            let bytes = bytes.clone();
            self.transmit(hop.flow, hop.to, bytes);
        }
    }

    /// The credentials that the INVITE carried, for its ACK.
    pub(crate) fn credentials_of(&self, tx: ClientTx) -> Vec<(String, String)> {
        let Some(pending) = self.pending.get(&tx) else { return Vec::new() };
        let names = ["Authorization", "Proxy-Authorization"];
        let lines =
            names.into_iter().flat_map(|name| pending.request.headers.get_all(name).map(move |value| (name, value)));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// An ACK came that no refusal was waiting for.
    pub(crate) fn handle_ack(&mut self, now: Instant, request: &Request) {
        let Some(id) = DialogKey::of_request(&request.headers).and_then(|key| self.dialogs.get(&key).copied()) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let cseq = super::cseq_of(&request.headers);
        if session.unacked.as_ref().is_some_and(|unacked| unacked.cseq == cseq) {
            let sdp = sdp_of(&request.headers, &request.body);
            self.confirm_answer(now, id, sdp);
        }
    }

    /// The 2xx has arrived, by ACK, or by a later request of the peer that proves it.
    pub(crate) fn confirm_answer(&mut self, now: Instant, id: DialogId, sdp: Option<String>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(Unacked { initial, offered, .. }) = session.unacked.take() else { return };
        let sdp = sdp.filter(|_| offered);
        if sdp.is_some() {
            session.remote_sdp.clone_from(&sdp);
        }
        let (leg, bye) = (session.leg, session.bye_after_ack);
        if bye {
            self.send_bye(now, id, EndCause::LocalBye);
        } else if initial {
            self.legs.remove(&leg);
            self.emit(Event::Confirmed { leg, dialog: id, sdp });
        } else if offered {
            self.emit(Event::Reconfirmed { dialog: id, sdp });
        }
    }

    /// Repeats our 2xx, or gives up: no ACK in 64·T1 ends the session with BYE (RFC 3261 §13.3.1.4).
    pub(crate) fn run_unacked(&mut self, now: Instant, id: DialogId) {
        let Some(unacked) = self.sessions.get_mut(&id).and_then(|session: &mut Session| session.unacked.as_mut())
        else {
            return;
        };
        if now >= unacked.fail_at {
            let bye = self.sessions.get(&id).is_some_and(|session| session.bye_after_ack);
            self.end_with_bye(now, id, if bye { EndCause::LocalBye } else { EndCause::NoAck });
        } else if unacked.resend.is_due(now) {
            let (tx, response) = (unacked.tx, unacked.response.clone());
            self.transactions.respond(now, tx, response);
        }
    }
}
