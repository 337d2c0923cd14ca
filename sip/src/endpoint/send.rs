//! Sending: common header fields (RFC 3261 §8.1.1), answers to challenges (§22), and who gets which response.

use std::time::Instant;

use super::{Endpoint, Owner, Pending};
use crate::auth::Tried;
use crate::event::{CommandError, Content, DialogId, Event, FlowId, Hop, OutOfDialog, RequestId};
use crate::header::{CSeq, NameAddr, RetryAfter};
use crate::message::{Headers, Method, Request, Response};
use crate::transaction::{ClientTx, ServerTx};
use crate::transport::choice::check_size;
use crate::uri::Uri;

/// What we can do (RFC 3261 §20.5). BENOTIFY is [MS-SIP].
pub(crate) const ALLOW: &str =
    "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, INFO, MESSAGE, NOTIFY, BENOTIFY, REFER";
/// Extensions that we understand (RFC 3261 §20.37).
pub(crate) const SUPPORTED: &str = "100rel, timer, replaces";
/// Repetitions of one request with other credentials: three proxies, each once stale.
const RETRIES_MAX: u8 = 6;

impl Endpoint {
    /// A request outside dialogs: From with a new tag, To, Call-ID, CSeq, the routes of the registration.
    pub(crate) fn make_request(&mut self, method: Method, uri: &Uri, hop: Hop) -> Request {
        let tag = self.token();
        let call_id = self.token() + &self.token();
        let mut request = Request::new(method.clone(), uri.clone());
        for route in self.service_route(hop.flow) {
            request.headers.push("Route", route);
        }
        let from = self.identity(hop.flow).with_tag(&tag);
        let mut to = uri.clone();
        to.headers.clear();
        request.headers.push("Max-Forwards", "70");
        request.headers.push("From", from.to_string());
        request.headers.push("To", NameAddr::new(to).to_string());
        request.headers.push("Call-ID", call_id);
        request.headers.push("CSeq", CSeq::new(1, method).to_string());
        request
    }

    /// Our address of record, with display name and `epid`, without a tag.
    pub(crate) fn identity(&self, flow: FlowId) -> NameAddr {
        let uri = self.config.aor.clone().unwrap_or_else(|| {
            let host = self.flows.get(&flow).map(|flow| flow.contact_address().ip());
            Uri::sip(&self.config.user, host.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()).into())
        });
        let mut identity = NameAddr::new(uri);
        identity.display_name = self.config.display_name.clone().unwrap_or_default();
        if let Some(epid) = &self.config.epid {
            identity.params.set("epid", epid.clone());
        }
        identity
    }

    /// GRUU of the registration on this flow, else user and address with `transport=`.
    pub(crate) fn contact_value(&self, flow: FlowId) -> String {
        if let Some(gruu) = self.gruu(flow) {
            return format!("<{gruu}>");
        }
        NameAddr::new(self.contact_uri(flow)).to_string()
    }

    pub(crate) fn contact_uri(&self, id: FlowId) -> Uri {
        let address = self.flows.get(&id).map(crate::transport::flow::Flow::contact_address);
        let unspecified = (std::net::Ipv4Addr::UNSPECIFIED, 5060).into();
        let mut uri = Uri::sip_at(&self.config.user, address.unwrap_or(unspecified));
        let transport = self.transport_of(id);
        if transport.is_reliable() {
            uri.params.set("transport", transport.uri_name());
        }
        uri
    }

    /// Adds Via, credentials and User-Agent, and starts the transaction.
    pub(crate) fn send_request(
        &mut self,
        now: Instant,
        hop: Hop,
        request: Request,
        owner: Owner,
    ) -> Result<ClientTx, CommandError> {
        let limit = self.config.udp_limit_bytes;
        self.send_with(now, hop, request, Pass { owner, retries: 0, tried: Tried::new(), limit })
    }

    fn send_with(
        &mut self,
        now: Instant,
        hop: Hop,
        mut request: Request,
        pass: Pass,
    ) -> Result<ClientTx, CommandError> {
        let branch = format!("{}{}", crate::header::via::MAGIC_COOKIE, self.token());
        let flow = self.flows.get(&hop.flow).ok_or(CommandError::NoFlow(hop.flow))?;
        let (transport, via) = (flow.transport, flow.via(&branch));
        request.headers.insert_first("Via", via.to_string());
        self.realms.authorize(&mut request);
        if !request.headers.contains("User-Agent") {
            request.headers.push("User-Agent", self.config.user_agent.clone());
        }
        check_size(transport, request.to_bytes().len(), pass.limit)?;
        let Pass { owner, retries, tried, limit: _ } = pass;
        let tx = self.transactions.request(now, request.clone(), hop, transport.is_reliable());
        self.pending.insert(tx, Pending { owner, request, hop, retries, tried });
        Ok(tx)
    }

    /// Sends the request of `tx` once more, changed: new branch, next CSeq, same Call-ID and From (RFC 3261 §8.1.3.5).
    /// False if it cannot be: too often, or the flow is gone.
    pub(crate) fn send_again(&mut self, now: Instant, tx: ClientTx, change: impl FnOnce(&mut Headers)) -> bool {
        let Some(pending) = self.pending.get(&tx) else { return false };
        if pending.retries >= RETRIES_MAX {
            return false;
        }
        let (hop, owner, retries, tried) = (pending.hop, pending.owner, pending.retries + 1, pending.tried.clone());
        let mut request = pending.request.clone();
        request.headers.pop_first_value("Via");
        let Ok(cseq) = request.headers.cseq() else { return false };
        let number = self.next_cseq(owner, cseq.number);
        request.headers.set("CSeq", CSeq::new(number, cseq.method).to_string());
        change(&mut request.headers);
        let owner = if let Owner::Register(_) = owner { Owner::Register(number) } else { owner };
        // The size was accepted once; the margin of RFC 3261 §18.1.1 is for what credentials add.
        let Ok(again) = self.send_with(now, hop, request, Pass { owner, retries, tried, limit: None }) else {
            return false;
        };
        // The old transaction lives on to absorb repetitions, but is nobody's any more.
        self.pending.remove(&tx);
        self.rebind(owner, tx, again);
        true
    }

    /// The owner knows its transaction by number: tell it the new one.
    fn rebind(&mut self, owner: Owner, old: ClientTx, new: ClientTx) {
        match owner {
            Owner::Invite(leg) => self.rebind_leg(leg, old, new),
            Owner::Reinvite(dialog) | Owner::Update(dialog) => self.rebind_reoffer(dialog, new),
            Owner::Register(number) => self.rebind_registration(number),
            Owner::Bye(_)
            | Owner::Prack(_)
            | Owner::Cancel
            | Owner::Notify(_)
            | Owner::InDialog(..)
            | Owner::Request(_) => {}
        }
    }

    fn next_cseq(&mut self, owner: Owner, last: u32) -> u32 {
        let dialog = match owner {
            Owner::Reinvite(dialog)
            | Owner::Update(dialog)
            | Owner::Bye(dialog)
            | Owner::InDialog(dialog, _)
            | Owner::Prack(dialog) => Some(dialog),
            Owner::Notify(refer) => self.refers.get(&refer).map(|refer| refer.dialog),
            Owner::Register(_) | Owner::Invite(_) | Owner::Cancel | Owner::Request(_) => None,
        };
        let next = last.saturating_add(1);
        match dialog.and_then(|id| self.sessions.get_mut(&id)) {
            Some(session) => {
                session.dialog.local_cseq = session.dialog.local_cseq.saturating_add(1).max(next);
                session.dialog.local_cseq
            }
            None => next,
        }
    }

    /// Answers of the network. 401 and 407 are settled here for every method, the rest goes to the owner.
    pub(crate) fn handle_response(&mut self, now: Instant, tx: ClientTx, response: &Response, local: bool) {
        if matches!(response.status, 401 | 407) && !local && self.answer_challenge(now, tx, response) {
            return;
        }
        let Some(pending) = self.pending.get(&tx) else { return };
        let (owner, refused) = (pending.owner, matches!(response.status, 401 | 407));
        let answer = Answer { tx, response, local };
        match owner {
            Owner::Register(number) => self.handle_register_response(now, number, response, local, refused),
            Owner::Invite(leg) => self.handle_invite_response(now, leg, answer),
            Owner::Reinvite(dialog) => self.handle_reinvite_response(now, dialog, answer),
            Owner::Update(dialog) => self.handle_update_response(now, dialog, answer),
            Owner::Bye(dialog) => self.handle_bye_response(dialog, response),
            Owner::Prack(_) | Owner::Cancel => {}
            Owner::Notify(refer) => self.handle_notify_response(refer, response),
            Owner::InDialog(dialog, request) => {
                self.report_response(request, response, local);
                self.handle_dialog_failure(now, dialog, response.status);
            }
            Owner::Request(request) => self.handle_request_response(request, response, local),
        }
    }

    /// No answer at all: as if this status had come (RFC 3261 §8.1.3.1).
    pub(crate) fn handle_no_answer(&mut self, now: Instant, tx: ClientTx, status: u16, cause: &str) {
        let Some(pending) = self.pending.get(&tx) else { return };
        let response = pending.request.response(status, cause);
        self.handle_response(now, tx, &response, true);
    }

    /// The transaction is over.
    pub(crate) fn forget_request(&mut self, tx: ClientTx) {
        if let Some(pending) = self.pending.remove(&tx)
            && let Owner::Invite(leg) = pending.owner
        {
            self.forget_caller(leg, tx);
        }
    }

    fn answer_challenge(&mut self, now: Instant, tx: ClientTx, response: &Response) -> bool {
        let Some(pending) = self.pending.get_mut(&tx) else { return false };
        if !self.realms.learn(&pending.request, response, &mut pending.tried, &mut self.rng) {
            return false;
        }
        self.send_again(now, tx, |_| {})
    }

    /// A final answer to a request that the owner asked for.
    pub(crate) fn report_response(&mut self, request: RequestId, response: &Response, local: bool) {
        if response.is_provisional() {
            return;
        }
        self.emit(Event::ResponseTo {
            request,
            status: response.status,
            reason: response.reason.clone(),
            headers: Box::new(response.headers.clone()),
            content: content_of(&response.headers, &response.body),
            local,
        });
    }

    /// An answer with our To tag, Server and Allow as RFC 3261 §8.2.6 wants them.
    pub(crate) fn make_response(&mut self, request: &Request, status: u16, reason: &str) -> Response {
        let mut response = request.response(status, reason);
        if status > 100
            && let Ok(to) = response.headers.to()
            && to.tag().is_none()
        {
            let tag = self.token();
            response.headers.set("To", to.with_tag(&tag).to_string());
        }
        response.headers.push("Server", self.config.user_agent.clone());
        response
    }

    /// Answers a request without further ado.
    pub(crate) fn reply(&mut self, now: Instant, tx: ServerTx, request: &Request, status: u16) {
        let response = self.make_response(request, status, "");
        self.transactions.respond(now, tx, response);
    }

    /// Any request outside dialogs, answered by [`Event::ResponseTo`].
    ///
    /// # Errors
    ///
    /// If the flow is not open, or the request too large for UDP.
    pub fn request(&mut self, now: Instant, wanted: OutOfDialog) -> Result<RequestId, CommandError> {
        let OutOfDialog { method, uri, hop, headers, content } = wanted;
        if !self.flows.contains_key(&hop.flow) {
            return Err(CommandError::NoFlow(hop.flow));
        }
        let mut request = self.make_request(method, &uri, hop);
        request.headers.push("Contact", self.contact_value(hop.flow));
        add_headers(&mut request.headers, &headers);
        add_content(&mut request, content);
        let id = RequestId(self.take_id());
        self.send_request(now, hop, request, Owner::Request(id))?;
        self.settle(now);
        Ok(id)
    }

    /// OPTIONS outside dialogs (RFC 3261 §11.1).
    ///
    /// # Errors
    ///
    /// As [`Endpoint::request`].
    pub fn options(&mut self, now: Instant, hop: Hop, uri: Uri) -> Result<RequestId, CommandError> {
        let headers = vec![("Accept".to_owned(), "application/sdp".to_owned())];
        self.request(now, OutOfDialog { method: Method::Options, uri, hop, headers, content: None })
    }

    /// Any other request inside a dialog: INFO, MESSAGE, OPTIONS.
    ///
    /// # Errors
    ///
    /// If there is no such dialog, or its flow is gone.
    pub fn request_in_dialog(
        &mut self,
        now: Instant,
        dialog: DialogId,
        method: Method,
        headers: &[(String, String)],
        content: Option<Content>,
    ) -> Result<RequestId, CommandError> {
        let id = RequestId(self.take_id());
        let (hop, mut request) = self.make_dialog_request(dialog, method)?;
        add_headers(&mut request.headers, headers);
        add_content(&mut request, content);
        self.send_request(now, hop, request, Owner::InDialog(dialog, id))?;
        self.settle(now);
        Ok(id)
    }
}

/// What a request carries from one attempt to the next.
struct Pass {
    owner: Owner,
    retries: u8,
    tried: Tried,
    limit: Option<usize>,
}

/// A response together with its transaction; `local` if it was made here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) tx: ClientTx,
    pub(crate) response: &'a Response,
    pub(crate) local: bool,
}

pub(crate) fn add_headers(headers: &mut Headers, more: &[(String, String)]) {
    for (name, value) in more {
        headers.push(name.clone(), value.clone());
    }
}

pub(crate) fn add_content(request: &mut Request, content: Option<Content>) {
    if let Some(content) = content {
        request.set_body(&content.content_type, content.bytes);
    }
}

pub(crate) fn content_of(headers: &Headers, body: &[u8]) -> Option<Content> {
    let content_type = headers.get("Content-Type")?.to_owned();
    (!body.is_empty()).then(|| Content { content_type, bytes: body.to_vec() })
}

/// The SDP of a message: its body, or that part of a multipart body.
pub(crate) fn sdp_of(headers: &Headers, body: &[u8]) -> Option<String> {
    let bytes = crate::multipart::session_description(headers, body)?;
    Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.trim().is_empty())
}

/// Retry-After as a duration (RFC 3261 §20.33).
pub(crate) fn retry_after(headers: &Headers) -> Option<std::time::Duration> {
    let value: RetryAfter = headers.get("Retry-After")?.parse().ok()?;
    Some(std::time::Duration::from_secs(value.delay.into()))
}

/// What explains a refusal to people.
pub(crate) fn diagnostics(headers: &Headers) -> Option<String> {
    let names = ["ms-diagnostics", "ms-diagnostics-public", "Warning"];
    names.into_iter().find_map(|name| headers.get(name)).map(ToOwned::to_owned)
}

/// Contacts of a 3xx.
pub(crate) fn redirect_contacts(response: &Response) -> Vec<String> {
    if !(300..400).contains(&response.status) {
        return Vec::new();
    }
    response.headers.contacts().unwrap_or_default().iter().map(|contact| contact.uri.to_string()).collect()
}
