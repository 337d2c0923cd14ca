//! MESSAGE (RFC 3428) and INFO (RFC 6086): answered at once, reported to the owner.

use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::endpoint::send::content_of;
use crate::event::{CommandError, Content, DialogId, Event, Hop, OutOfDialog, RequestId};
use crate::message::{Method, Request};
use crate::transaction::ServerTx;
use crate::uri::Uri;

impl Endpoint {
    /// MESSAGE outside dialogs; the answer is [`Event::ResponseTo`].
    ///
    /// # Errors
    ///
    /// As [`Endpoint::request`].
    pub fn message(&mut self, now: Instant, hop: Hop, uri: Uri, content: Content) -> Result<RequestId, CommandError> {
        let wanted = OutOfDialog { method: Method::Message, uri, hop, headers: Vec::new(), content: Some(content) };
        self.request(now, wanted)
    }

    pub(crate) fn handle_message(&mut self, now: Instant, tx: ServerTx, request: &Request) {
        self.reply(now, tx, request, 200);
        let from = request.headers.get("From").unwrap_or_default().to_owned();
        self.emit(Event::Message { from, content: content_of(&request.headers, &request.body) });
    }

    pub(crate) fn handle_info(&mut self, now: Instant, tx: ServerTx, request: &Request, dialog: DialogId) {
        self.reply(now, tx, request, 200);
        let headers = Box::new(request.headers.clone());
        self.emit(Event::Info { dialog, headers, content: content_of(&request.headers, &request.body) });
    }
}
