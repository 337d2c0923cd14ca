//! UPDATE, RFC 3311: an offer, or a session timer refresh, without disturbing the INVITE. Answered at once, never by
//! asking a person (§5.2).

use std::time::Instant;

use super::State;
use crate::endpoint::Endpoint;
use crate::endpoint::send::Answer;
use crate::event::{CommandError, DialogId};
use crate::message::{Method, Request};
use crate::transaction::ServerTx;

impl Endpoint {
    /// UPDATE with an offer, or without one as a refresh. In an early dialog the first offer must have been answered.
    ///
    /// # Errors
    ///
    /// If the peer does not allow UPDATE, an offer is pending, or there is no such dialog.
    pub fn update(&mut self, now: Instant, dialog: DialogId, sdp: Option<String>) -> Result<(), CommandError> {
        let session = self.sessions.get(&dialog).ok_or(CommandError::NoDialog(dialog))?;
        let unanswered = session.state == State::Early && (session.local_sdp.is_none() || session.remote_sdp.is_none());
        if session.state == State::Ending || unanswered {
            return Err(CommandError::WrongState("UPDATE", session.state.name()));
        }
        if !session.peer.update {
            return Err(CommandError::WrongState("UPDATE", "the peer does not allow it"));
        }
        self.send_offer(now, dialog, Method::Update, sdp, false)?;
        self.settle(now);
        Ok(())
    }

    pub(crate) fn handle_update_response(&mut self, now: Instant, id: DialogId, answer: Answer<'_>) {
        if answer.response.is_provisional() || !self.is_current_offer(id, answer.tx) {
            return;
        }
        if !answer.response.is_success() {
            self.handle_offer_failure(now, id, answer);
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(outgoing) = session.outgoing.take() else { return };
        session.dialog.refresh_target(&answer.response.headers);
        self.finish_offer(now, id, &outgoing, answer);
    }

    pub(crate) fn handle_update(&mut self, now: Instant, tx: ServerTx, request: &Request, id: DialogId) {
        let Some(session) = self.sessions.get(&id) else { return };
        // Before the first answer nothing can be changed (RFC 3311 §5.2).
        let unanswered = session.state == State::Early && session.local_sdp.is_none() && !request.body.is_empty();
        match session.state {
            State::Ending => self.reply(now, tx, request, 481),
            State::Early if unanswered => {
                let mut response = self.make_response(request, 500, "");
                response.headers.push("Retry-After", "2");
                self.transactions.respond(now, tx, response);
            }
            State::Early | State::Confirmed => self.take_offer(now, tx, request, id),
        }
    }
}
