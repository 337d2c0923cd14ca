//! BYE, RFC 3261 §15, and the other ends of a dialog.

use std::time::Instant;

use super::cancel::readable_reason;
use super::{AckDue, Leg, State};
use crate::endpoint::{Endpoint, Owner};
use crate::event::{CommandError, DialogId, EndCause, Event};
use crate::message::{Method, Request, Response};
use crate::transaction::ServerTx;

impl Endpoint {
    /// Ends a session. [`Event::Ended`] with `LocalBye` follows when the peer has answered, at the latest after 32 s.
    ///
    /// A callee that has no ACK yet must wait for it (RFC 3261 §15): the BYE then goes out behind it.
    ///
    /// # Errors
    ///
    /// If there is no such dialog, it is not answered yet (`cancel` or `reject` it), or BYE is out already.
    pub fn bye(&mut self, now: Instant, dialog: DialogId) -> Result<(), CommandError> {
        let session = self.sessions.get_mut(&dialog).ok_or(CommandError::NoDialog(dialog))?;
        if session.state != State::Confirmed {
            return Err(CommandError::WrongState("bye", session.state.name()));
        }
        if session.unacked.as_ref().is_some_and(|unacked| unacked.initial) {
            session.bye_after_ack = true;
            return Ok(());
        }
        self.send_bye(now, dialog, EndCause::LocalBye);
        self.settle(now);
        Ok(())
    }

    /// Sends BYE. The session stays until the answer for `LocalBye` and `ForkLost`; an unanswered 2xx gets its ACK before.
    pub(crate) fn send_bye(&mut self, now: Instant, id: DialogId, cause: EndCause) {
        if let Some(AckDue { cseq, credentials }) =
            self.sessions.get_mut(&id).and_then(|session| session.ack_due.take())
        {
            self.send_ack(id, cseq, &credentials, None);
        }
        self.refuse_reoffer(now, id, 487, None);
        let sent = self
            .make_dialog_request(id, Method::Bye)
            .and_then(|(hop, request)| self.send_request(now, hop, request, Owner::Bye(id)));
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.state = State::Ending;
        session.unacked = None;
        session.timer = None;
        session.retry = None;
        if let Err(error) = sent {
            let cause =
                if cause == EndCause::LocalBye { EndCause::FlowLost { cause: error.to_string() } } else { cause };
            self.end_session(id, cause);
        }
    }

    /// Sends BYE and forgets the dialog at once: nobody waits for the answer.
    pub(crate) fn end_with_bye(&mut self, now: Instant, id: DialogId, cause: EndCause) {
        self.send_bye(now, id, cause.clone());
        self.end_session(id, cause);
    }

    /// The dialog is over; reported once.
    pub(crate) fn end_session(&mut self, id: DialogId, cause: EndCause) {
        let Some(session) = self.remove_session(id) else { return };
        if let Some(Leg::Callee(_)) = self.legs.get(&session.leg) {
            self.legs.remove(&session.leg);
        }
        self.emit(Event::Ended { dialog: id, cause });
    }

    pub(crate) fn handle_bye(&mut self, now: Instant, tx: ServerTx, request: &Request, id: DialogId) {
        self.reply(now, tx, request, 200);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let leg = session.leg;
        let early = session.state == State::Early;
        // Requests of the peer that are still open end with the dialog (RFC 3261 §15.1.2).
        self.refuse_reoffer(now, id, 487, None);
        let reason = request.headers.get("Reason").map(readable_reason);
        if early && matches!(self.legs.get(&leg), Some(Leg::Callee(_))) {
            self.refuse_call(now, leg, 487, "", &[]);
            self.emit(Event::Cancelled { leg, reason });
            return;
        }
        self.end_session(id, EndCause::RemoteBye { reason });
    }

    pub(crate) fn handle_bye_response(&mut self, id: DialogId, response: &Response) {
        if response.is_provisional() {
            return;
        }
        let Some(session) = self.sessions.get(&id) else { return };
        let lost = match self.legs.get(&session.leg) {
            Some(Leg::Caller(caller)) => caller.winner != Some(id),
            Some(Leg::Callee(_)) | None => false,
        };
        self.end_session(id, if lost { EndCause::ForkLost } else { EndCause::LocalBye });
    }

    /// 481 means that the peer has no such dialog, 408 that it is not there (RFC 3261 §12.2.1.2).
    pub(crate) fn handle_dialog_failure(&mut self, now: Instant, id: DialogId, status: u16) {
        if matches!(status, 408 | 481)
            && self.sessions.get(&id).is_some_and(|session| session.state == State::Confirmed)
        {
            self.end_with_bye(now, id, EndCause::Unreachable { status });
        }
    }
}
