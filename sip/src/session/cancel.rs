//! CANCEL, RFC 3261 §9, and its races: before any answer, crossing the 2xx, never confirmed.

use std::time::Instant;

use super::Leg;
use super::invite::Cancel;
use crate::endpoint::{Endpoint, Owner, Pending};
use crate::event::{CommandError, Event, LegId};
use crate::header::{CSeq, Reason};
use crate::message::{Method, Request};
use crate::transaction::ServerTx;

impl Endpoint {
    /// Gives up our call: CANCEL as soon as a provisional answer allows it, BYE if the 2xx was faster.
    /// [`Event::Failed`] with 487 confirms it, at the latest after 32 s.
    ///
    /// # Errors
    ///
    /// If there is no such call, or it is an incoming one (reject it).
    pub fn cancel(&mut self, now: Instant, leg: LegId) -> Result<(), CommandError> {
        let Some(entry) = self.legs.get_mut(&leg) else { return Err(CommandError::NoLeg(leg)) };
        let Leg::Caller(caller) = entry else {
            return Err(CommandError::WrongState("cancel", "incoming; use reject"));
        };
        if let Some(winner) = caller.winner {
            return self.bye(now, winner);
        }
        if caller.cancel == Cancel::No {
            caller.cancel = Cancel::Wanted;
            if self.transactions.client_is_proceeding(caller.tx) {
                self.send_cancel(now, leg);
            }
        }
        self.settle(now);
        Ok(())
    }

    /// Request-URI, Via, Route, From, To, Call-ID and CSeq number are those of the INVITE (RFC 3261 §9.1).
    pub(crate) fn send_cancel(&mut self, now: Instant, leg: LegId) {
        let Some(caller) = self.caller(leg) else { return };
        let tx = caller.tx;
        caller.cancel = Cancel::Sent;
        let Some(pending) = self.pending.get(&tx) else { return };
        let (invite, hop) = (&pending.request, pending.hop);
        let mut request = Request::new(Method::Cancel, invite.uri.clone());
        request.headers.push("Via", invite.headers.values("Via").next().unwrap_or_default());
        for name in ["Route", "Max-Forwards", "From", "To", "Call-ID"] {
            for value in invite.headers.get_all(name) {
                request.headers.push(name, value);
            }
        }
        request.headers.push("CSeq", CSeq::new(super::cseq_of(&invite.headers), Method::Cancel).to_string());
        request.headers.push("User-Agent", self.config.user_agent.clone());
        let reliable = self.transport_of(hop.flow).is_reliable();
        let cancel = self.transactions.request(now, request.clone(), hop, reliable);
        let tried = crate::auth::Tried::new();
        self.pending.insert(cancel, Pending { owner: Owner::Cancel, request, hop, retries: 0, tried });
        self.transactions.client_cancelled(now, tx);
    }

    /// 200 to the CANCEL whatever becomes of the INVITE, 487 to the INVITE if it is still open (RFC 3261 §9.2).
    pub(crate) fn handle_cancel(&mut self, now: Instant, tx: ServerTx, request: &Request) {
        let Some(invite) = self.transactions.find_cancelled(request) else {
            self.reply(now, tx, request, 481);
            return;
        };
        self.reply(now, tx, request, 200);
        let leg = self.legs.iter().find_map(|(id, leg)| match leg {
            Leg::Callee(callee) if callee.tx == invite => Some(*id),
            Leg::Callee(_) | Leg::Caller(_) => None,
        });
        if let Some(leg) = leg.filter(|_| self.transactions.server_is_open(invite)) {
            let reason = request.headers.get("Reason").map(readable_reason);
            self.refuse_call(now, leg, 487, "", &[]);
            self.emit(Event::Cancelled { leg, reason });
            return;
        }
        let reinvited = self.sessions.iter().find(|(_, s)| s.incoming.as_ref().is_some_and(|i| i.tx == invite));
        if let Some(id) = reinvited.map(|(id, _)| *id) {
            self.refuse_reoffer(now, id, 487, None);
        }
    }
}

/// The text of a Reason, or all of it.
pub(crate) fn readable_reason(text: &str) -> String {
    let parsed = text.parse::<Reason>().ok().and_then(|reason| reason.text);
    parsed.unwrap_or_else(|| text.to_owned())
}
