//! Dialogs, RFC 3261 §12: Call-ID, tags, route set, remote target, sequence numbers.
//!
//! A dialog begins with a response that has a To tag: at the caller one per tag (forks), early with 101-199,
//! confirmed with 2xx. What happens inside is the session's business ([`crate::session`]).

use crate::error::ParseError;
use crate::header::{CSeq, NameAddr};
use crate::message::{Headers, Method, Request, Response};
use crate::uri::Uri;

/// The name of a dialog at our side (RFC 3261 §12).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DialogKey {
    pub call_id: String,
    pub local_tag: String,
    /// Empty for an old peer that has none (RFC 3261 §12.1.1).
    pub remote_tag: String,
}

impl DialogKey {
    /// The dialog that a received request names.
    pub fn of_request(headers: &Headers) -> Option<Self> {
        let local_tag = headers.to().ok()?.tag()?.to_owned();
        let remote_tag = headers.from().ok()?.tag().unwrap_or_default().to_owned();
        Some(Self { call_id: headers.call_id().ok()?.to_owned(), local_tag, remote_tag })
    }

    /// The dialog that a received response names.
    pub fn of_response(headers: &Headers) -> Option<Self> {
        let local_tag = headers.from().ok()?.tag()?.to_owned();
        let remote_tag = headers.to().ok()?.tag()?.to_owned();
        Some(Self { call_id: headers.call_id().ok()?.to_owned(), local_tag, remote_tag })
    }
}

/// A request came with a CSeq that is not above the last one (RFC 3261 §12.2.2): answer 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfOrder;

/// State of one dialog.
#[derive(Debug, Clone)]
pub struct Dialog {
    pub call_id: String,
    /// With our tag.
    pub local: NameAddr,
    /// With the peer's tag.
    pub remote: NameAddr,
    /// The peer's Contact: Request-URI of our requests.
    pub target: Uri,
    /// In the order in which our requests pass the proxies.
    pub routes: Vec<NameAddr>,
    /// The last number used.
    pub local_cseq: u32,
    pub remote_cseq: Option<u32>,
}

impl Dialog {
    /// At the caller, from a response with a To tag (RFC 3261 §12.1.2).
    ///
    /// # Errors
    ///
    /// If From, To, Call-ID or Record-Route of the response cannot be read.
    pub fn of_response(request: &Request, response: &Response) -> Result<Self, ParseError> {
        let headers = &response.headers;
        let target = headers.contacts()?.into_iter().next().map_or_else(|| request.uri.clone(), |contact| contact.uri);
        Ok(Self {
            call_id: headers.call_id()?.to_owned(),
            local: headers.from()?,
            remote: headers.to()?,
            target,
            routes: headers.record_routes()?.into_iter().rev().collect(),
            local_cseq: request.headers.cseq()?.number,
            remote_cseq: None,
        })
    }

    /// At the callee, from the request (RFC 3261 §12.1.1).
    ///
    /// # Errors
    ///
    /// If a header field is missing that a dialog needs.
    pub fn of_request(request: &Request, local_tag: &str) -> Result<Self, ParseError> {
        let headers = &request.headers;
        let contact = headers.contacts()?.into_iter().next();
        let contact = contact.ok_or_else(|| ParseError::bad("Contact is missing (RFC 3261 §8.1.1.8)"))?;
        Ok(Self {
            call_id: headers.call_id()?.to_owned(),
            local: headers.to()?.with_tag(local_tag),
            remote: headers.from()?,
            target: contact.uri,
            routes: headers.record_routes()?,
            local_cseq: 0,
            remote_cseq: Some(headers.cseq()?.number),
        })
    }

    pub fn key(&self) -> DialogKey {
        DialogKey {
            call_id: self.call_id.clone(),
            local_tag: self.local.tag().unwrap_or_default().to_owned(),
            remote_tag: self.remote.tag().unwrap_or_default().to_owned(),
        }
    }

    /// The 2xx brings the final route set and target of an early dialog (RFC 3261 §13.2.2.4).
    pub fn confirm(&mut self, response: &Response) {
        if let Ok(routes) = response.headers.record_routes() {
            self.routes = routes.into_iter().rev().collect();
        }
        self.refresh_target(&response.headers);
    }

    /// Target refresh: Contact of INVITE, UPDATE and of their 2xx (RFC 3261 §12.2).
    pub fn refresh_target(&mut self, headers: &Headers) {
        if let Some(contact) = headers.contacts().ok().and_then(|contacts| contacts.into_iter().next()) {
            self.target = contact.uri;
        }
    }

    /// A request inside the dialog with the next CSeq; Via, Contact and body are the caller's (RFC 3261 §12.2.1.1).
    pub fn make_request(&mut self, method: Method) -> Request {
        self.local_cseq = self.local_cseq.saturating_add(1).min(0x7fff_ffff);
        self.make_numbered(method, self.local_cseq)
    }

    /// The ACK to a 2xx: CSeq of its INVITE (RFC 3261 §13.2.2.4).
    pub fn make_ack(&self, invite_cseq: u32) -> Request {
        self.make_numbered(Method::Ack, invite_cseq)
    }

    /// Accepts a request if its CSeq is above the last one.
    ///
    /// # Errors
    ///
    /// [`OutOfOrder`] otherwise.
    pub fn accept_cseq(&mut self, number: u32) -> Result<(), OutOfOrder> {
        if self.remote_cseq.is_some_and(|last| number <= last) {
            return Err(OutOfOrder);
        }
        self.remote_cseq = Some(number);
        Ok(())
    }

    fn make_numbered(&self, method: Method, number: u32) -> Request {
        let (uri, routes) = self.request_uri_and_routes();
        let mut request = Request::new(method.clone(), uri);
        for route in routes {
            request.headers.push("Route", route);
        }
        request.headers.push("Max-Forwards", "70");
        request.headers.push("From", self.local.to_string());
        request.headers.push("To", self.remote.to_string());
        request.headers.push("Call-ID", self.call_id.clone());
        request.headers.push("CSeq", CSeq::new(number, method).to_string());
        request
    }

    /// A first route without `lr` is a strict router: it becomes the Request-URI and the target goes last (RFC 3261 §12.2.1.1).
    fn request_uri_and_routes(&self) -> (Uri, Vec<String>) {
        match self.routes.split_first() {
            Some((first, rest)) if !first.uri.is_loose_router() => {
                let mut uri = first.uri.clone();
                uri.headers.clear();
                uri.params.remove("method");
                let target = NameAddr::new(self.target.clone()).to_string();
                (uri, rest.iter().map(ToString::to_string).chain([target]).collect())
            }
            Some(_) | None => (self.target.clone(), self.routes.iter().map(ToString::to_string).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::parse::parse_message;

    fn response(record_routes: &str) -> (Request, Response) {
        let request = "INVITE sip:bob@example.test SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\nFrom: <sip:alice@example.test>;tag=a\r\nTo: <sip:bob@example.test>\r\nCall-ID: c1\r\nCSeq: 7 INVITE\r\n\r\n";
        let response = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\n{record_routes}From: <sip:alice@example.test>;tag=a\r\nTo: <sip:bob@example.test>;tag=b\r\nCall-ID: c1\r\nCSeq: 7 INVITE\r\nContact: <sip:bob@10.0.0.2:5080>\r\n\r\n"
        );
        match (parse_message(request.as_bytes()).unwrap(), parse_message(response.as_bytes()).unwrap()) {
            (Message::Request(request), Message::Response(response)) => (request, response),
            _ => panic!("not a request and a response"),
        }
    }

    #[test]
    fn requests_follow_the_route_set_as_12_2_1_1_says() {
        let cases = [
            ("no route", "", "sip:bob@10.0.0.2:5080", Vec::new()),
            (
                "loose routers, reversed at the caller",
                "Record-Route: <sip:p2.example.test;lr>, <sip:p1.example.test;lr>\r\n",
                "sip:bob@10.0.0.2:5080",
                vec!["<sip:p1.example.test;lr>", "<sip:p2.example.test;lr>"],
            ),
            (
                "a strict router comes into the Request-URI",
                "Record-Route: <sip:p2.example.test;lr>\r\nRecord-Route: <sip:p1.example.test>\r\n",
                "sip:p1.example.test",
                vec!["<sip:p2.example.test;lr>", "<sip:bob@10.0.0.2:5080>"],
            ),
        ];
        for (name, record_routes, uri, routes) in cases {
            let (request, response) = response(record_routes);
            let mut dialog = Dialog::of_response(&request, &response).unwrap();
            let bye = dialog.make_request(Method::Bye);
            assert_eq!(bye.uri.to_string(), uri, "case: {name}");
            assert_eq!(bye.headers.get_all("Route").collect::<Vec<_>>(), routes, "case: {name}");
            assert_eq!(bye.headers.get("CSeq"), Some("8 BYE"), "case: {name}");
        }
    }

    #[test]
    fn a_request_with_an_old_cseq_is_out_of_order() {
        let (request, response) = response("");
        let mut dialog = Dialog::of_response(&request, &response).unwrap();
        assert_eq!(dialog.accept_cseq(3), Ok(()));
        assert_eq!(dialog.accept_cseq(3), Err(OutOfOrder));
        assert_eq!(dialog.accept_cseq(4), Ok(()));
    }
}
