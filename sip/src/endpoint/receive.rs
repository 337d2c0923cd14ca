//! Requests of others, RFC 3261 §8.2: what is refused before anybody looks at it, and who gets the rest.

use std::time::Instant;

use super::Endpoint;
use super::send::{ALLOW, SUPPORTED};
use crate::dialog::DialogKey;
use crate::event::DialogId;
use crate::header;
use crate::message::{Method, Request};
use crate::transaction::ServerTx;

/// Extensions that a request may require of us.
const UNDERSTOOD: [&str; 3] = ["100rel", "timer", "replaces"];

impl Endpoint {
    pub(crate) fn handle_request(&mut self, now: Instant, tx: ServerTx, request: &Request) {
        if request.method == Method::Cancel {
            return self.handle_cancel(now, tx, request);
        }
        if !request.uri.is_sip() {
            return self.reply(now, tx, request, 416);
        }
        let unknown: Vec<&str> = request
            .headers
            .values("Require")
            .filter(|tag| !UNDERSTOOD.iter().any(|known| tag.eq_ignore_ascii_case(known)))
            .collect();
        if !unknown.is_empty() {
            let mut response = self.make_response(request, 420, "");
            response.headers.push("Unsupported", unknown.join(", "));
            return self.transactions.respond(now, tx, response);
        }
        let tagged = request.headers.to().is_ok_and(|to| to.tag().is_some());
        if tagged {
            let id = DialogKey::of_request(&request.headers).and_then(|key| self.dialogs.get(&key).copied());
            return match id {
                Some(id) => self.handle_dialog_request(now, tx, request, id),
                None => self.handle_stray_request(now, tx, request),
            };
        }
        if self.transactions.is_merged(tx) {
            return self.reply(now, tx, request, 482); // RFC 3261 §8.2.2.2
        }
        match request.method {
            Method::Invite => self.handle_invite(now, tx, request),
            Method::Options => self.answer_options(now, tx, request),
            Method::Message => self.handle_message(now, tx, request),
            Method::Notify | Method::BeNotify => self.handle_notify(now, tx, request),
            Method::Bye | Method::Prack | Method::Update | Method::Info => self.reply(now, tx, request, 481),
            Method::Subscribe | Method::Publish => self.reply(now, tx, request, 489),
            // A transfer is a matter of a call.
            Method::Refer => self.reply(now, tx, request, 603),
            Method::Ack | Method::Cancel => {}
            Method::Register | Method::Service | Method::Other(_) => self.refuse_method(now, tx, request),
        }
    }

    fn handle_dialog_request(&mut self, now: Instant, tx: ServerTx, request: &Request, id: DialogId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.dialog.accept_cseq(crate::session::cseq_of(&request.headers)).is_err() {
            return self.reply(now, tx, request, 500); // RFC 3261 §12.2.2
        }
        match request.method {
            Method::Invite => self.handle_reinvite(now, tx, request, id),
            Method::Bye => self.handle_bye(now, tx, request, id),
            Method::Update => self.handle_update(now, tx, request, id),
            Method::Prack => self.handle_prack(now, tx, request, id),
            Method::Info => self.handle_info(now, tx, request, id),
            Method::Options => self.answer_options(now, tx, request),
            Method::Message => self.handle_message(now, tx, request),
            Method::Refer => self.handle_refer(now, tx, request, id),
            Method::Notify => {
                let refer = request
                    .headers
                    .parse_one::<header::Event>("Event")
                    .is_ok_and(|e| e.package.eq_ignore_ascii_case("refer"));
                if refer {
                    self.handle_refer_notify(now, tx, request, id);
                } else {
                    self.handle_notify(now, tx, request);
                }
            }
            Method::BeNotify => self.handle_notify(now, tx, request),
            Method::Subscribe | Method::Publish => self.reply(now, tx, request, 489),
            Method::Ack | Method::Cancel => {}
            Method::Register | Method::Service | Method::Other(_) => self.refuse_method(now, tx, request),
        }
    }

    /// A request for a dialog that does not exist (any more).
    fn handle_stray_request(&mut self, now: Instant, tx: ServerTx, request: &Request) {
        match request.method {
            Method::Notify | Method::BeNotify => self.handle_notify(now, tx, request),
            _ => self.reply(now, tx, request, 481),
        }
    }

    /// What we can do (RFC 3261 §11.2).
    fn answer_options(&mut self, now: Instant, tx: ServerTx, request: &Request) {
        let mut response = self.make_response(request, 200, "");
        response.headers.push("Allow", ALLOW);
        response.headers.push("Accept", "application/sdp");
        response.headers.push("Supported", SUPPORTED);
        if let Some((_, flow, _)) = self.transactions.server_request(tx) {
            let contact = self.contact_value(flow);
            response.headers.push("Contact", contact);
        }
        self.transactions.respond(now, tx, response);
    }

    fn refuse_method(&mut self, now: Instant, tx: ServerTx, request: &Request) {
        let mut response = self.make_response(request, 405, "");
        response.headers.push("Allow", ALLOW);
        self.transactions.respond(now, tx, response);
    }
}

/// What is wrong with a request that parsed: header fields that every request must have (RFC 3261 §8.1.1).
pub(super) fn fault(request: &Request) -> Option<String> {
    let headers = &request.headers;
    let checked = headers
        .via_top()
        .map(|_| ())
        .and_then(|()| headers.from().map(|_| ()))
        .and_then(|()| headers.to().map(|_| ()))
        .and_then(|()| headers.call_id().map(|_| ()));
    if let Err(error) = checked {
        return Some(error.reason);
    }
    match headers.cseq() {
        Err(error) => Some(error.reason),
        Ok(cseq) if cseq.method != request.method => Some("CSeq names another method".to_owned()),
        Ok(_) => None,
    }
}
