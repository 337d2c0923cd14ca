//! Transfer: REFER and its NOTIFYs, RFC 3515. Whom to call and when to hang up is the owner's (RFC 5589).

use std::time::Instant;

use crate::endpoint::{Endpoint, Owner};
use crate::event::{CommandError, DialogId, Event, ReferId, RequestId};
use crate::header::{NameAddr, SubscriptionState};
use crate::message::{Method, Request, Response, reason_phrase};
use crate::transaction::ServerTx;

/// Transfers that wait for an answer or report; one call has one.
const REFERS_MAX: usize = 256;

/// A REFER that we received.
#[derive(Debug)]
pub(crate) struct Refer {
    pub(crate) dialog: DialogId,
    tx: ServerTx,
    request: Request,
    accepted: bool,
}

impl Endpoint {
    /// Asks the peer to call `refer_to`: a URI, or an address in angle brackets, with `?Replaces=…` for an attended
    /// transfer. The answer is [`Event::ResponseTo`], the progress [`Event::TransferProgress`].
    ///
    /// # Errors
    ///
    /// If there is no such dialog, or `refer_to` is no URI.
    pub fn refer(&mut self, now: Instant, dialog: DialogId, refer_to: &str) -> Result<RequestId, CommandError> {
        let text = refer_to.trim();
        let uri = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
        let uri: crate::uri::Uri = uri.parse().map_err(|_| CommandError::BadUri(refer_to.to_owned()))?;
        let flow = self.sessions.get(&dialog).ok_or(CommandError::NoDialog(dialog))?.hop.flow;
        let by = NameAddr::new(self.identity(flow).uri).to_string();
        let headers = [("Refer-To".to_owned(), NameAddr::new(uri).to_string()), ("Referred-By".to_owned(), by)];
        self.request_in_dialog(now, dialog, Method::Refer, &headers, None)
    }

    pub(crate) fn handle_refer(&mut self, now: Instant, tx: ServerTx, request: &Request, dialog: DialogId) {
        let mut targets = request.headers.get_all("Refer-To");
        let target = targets.next().and_then(|value| value.parse::<NameAddr>().ok());
        // Exactly one Refer-To (RFC 3515 §2.4.2).
        let Some(target) = target.filter(|_| targets.next().is_none()) else {
            return self.reply(now, tx, request, 400);
        };
        if self.refers.len() >= REFERS_MAX {
            return self.reply(now, tx, request, 503);
        }
        let mut uri = target.uri;
        let replaces = uri.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
        let replaces = replaces.map(|(_, value)| String::from_utf8_lossy(&crate::uri::unescape(value)).into_owned());
        uri.headers.clear();
        let refer = ReferId(self.take_id());
        self.refers.insert(refer, Refer { dialog, tx, request: request.clone(), accepted: false });
        let referred_by = request.headers.get("Referred-By").map(ToOwned::to_owned);
        self.emit(Event::TransferRequested { dialog, refer, refer_to: uri.to_string(), replaces, referred_by });
    }

    /// 202, and the NOTIFY that RFC 3515 §2.4.4 wants at once.
    ///
    /// # Errors
    ///
    /// If there is no such transfer, or it is accepted already.
    pub fn accept_refer(&mut self, now: Instant, refer: ReferId) -> Result<(), CommandError> {
        let entry = self.refers.get_mut(&refer).ok_or(CommandError::NoRefer(refer))?;
        if std::mem::replace(&mut entry.accepted, true) {
            return Err(CommandError::WrongState("accept", "accepted"));
        }
        let (tx, dialog, request) = (entry.tx, entry.dialog, entry.request.clone());
        let response = self.make_dialog_response(dialog, &request, 202);
        self.transactions.respond(now, tx, response);
        self.notify_refer(now, refer, 100, "")
    }

    /// Refuses a transfer, e.g. with 603.
    ///
    /// # Errors
    ///
    /// If there is no such transfer.
    pub fn reject_refer(&mut self, now: Instant, refer: ReferId, status: u16) -> Result<(), CommandError> {
        let entry = self.refers.remove(&refer).ok_or(CommandError::NoRefer(refer))?;
        self.reply(now, entry.tx, &entry.request, status.clamp(400, 699));
        self.settle(now);
        Ok(())
    }

    /// Tells the one who asked how the call to the target goes (RFC 3515 §2.4.5); a final status ends it.
    ///
    /// # Errors
    ///
    /// If there is no such transfer, or its dialog has ended.
    pub fn notify_refer(
        &mut self,
        now: Instant,
        refer: ReferId,
        status: u16,
        reason: &str,
    ) -> Result<(), CommandError> {
        let entry = self.refers.get(&refer).ok_or(CommandError::NoRefer(refer))?;
        let (dialog, number) = (entry.dialog, super::cseq_of(&entry.request.headers));
        let (hop, mut request) = self.make_dialog_request(dialog, Method::Notify)?;
        let state = if status < 200 { "active;expires=60" } else { "terminated;reason=noresource" };
        request.headers.push("Event", format!("refer;id={number}"));
        request.headers.push("Subscription-State", state);
        let reason = if reason.is_empty() { reason_phrase(status) } else { reason };
        request.set_body("message/sipfrag;version=2.0", format!("SIP/2.0 {status} {reason}\r\n").into_bytes());
        self.send_request(now, hop, request, Owner::Notify(refer))?;
        if status >= 200 {
            self.refers.remove(&refer);
        }
        self.settle(now);
        Ok(())
    }

    /// Nobody wants to know any more (RFC 6665 §4.2.2).
    pub(crate) fn handle_notify_response(&mut self, refer: ReferId, response: &Response) {
        if response.status >= 300 {
            self.refers.remove(&refer);
        }
    }

    /// NOTIFY about our REFER.
    pub(crate) fn handle_refer_notify(&mut self, now: Instant, tx: ServerTx, request: &Request, dialog: DialogId) {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let line = body.lines().next().unwrap_or_default();
        let mut words = line.splitn(3, ' ');
        let status = words.nth(1).and_then(|text| text.parse::<u16>().ok());
        let Some(status) = status.filter(|_| line.starts_with("SIP/2.0 ")) else {
            return self.reply(now, tx, request, 400);
        };
        self.reply(now, tx, request, 200);
        let reason = words.next().unwrap_or_default().to_owned();
        let state = request.headers.parse_one::<SubscriptionState>("Subscription-State");
        let terminated = state.is_ok_and(|state| state.is_terminated()) || status >= 200;
        self.emit(Event::TransferProgress { dialog, status, reason, terminated });
    }
}
