//! SERVICE ([MS-SIPRE]) and SUBSCRIBE as a query: how relay credentials and provisioning documents are fetched.
//! The state comes as NOTIFY (RFC 6665 §4.1.2.4), as BENOTIFY, or inside the 200 (piggy-back); all are reported alike.

use std::time::{Duration, Instant};

use crate::endpoint::send::content_of;
use crate::endpoint::{Endpoint, Subscription};
use crate::event::{CommandError, Content, Event, Hop, OutOfDialog, RequestId};
use crate::header::{self, SubscriptionState};
use crate::message::{Method, Request, Response};
use crate::transaction::ServerTx;
use crate::uri::Uri;

/// How long a NOTIFY may follow its SUBSCRIBE: Timer N of RFC 6665 §4.1.2.4 (64·T1).
const NOTIFY_PATIENCE: Duration = Duration::from_secs(32);
/// Queries that wait for their state; provisioning needs one.
const SUBSCRIPTIONS_MAX: usize = 64;

impl Endpoint {
    /// SERVICE; the answer is [`Event::ResponseTo`].
    ///
    /// # Errors
    ///
    /// As [`Endpoint::request`].
    pub fn service(&mut self, now: Instant, hop: Hop, uri: Uri, content: Content) -> Result<RequestId, CommandError> {
        let wanted = OutOfDialog { method: Method::Service, uri, hop, headers: Vec::new(), content: Some(content) };
        self.request(now, wanted)
    }

    /// SUBSCRIBE with `Expires: 0` for the event `package`: a query. Its answer is [`Event::ResponseTo`], the state
    /// [`Event::Notified`] with the same id.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::request`], or if too many queries wait.
    pub fn subscribe_once(
        &mut self,
        now: Instant,
        mut wanted: OutOfDialog,
        package: &str,
    ) -> Result<RequestId, CommandError> {
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(CommandError::TooMany { what: "subscriptions", limit: SUBSCRIPTIONS_MAX });
        }
        wanted.method = Method::Subscribe;
        wanted.headers.push(("Event".to_owned(), package.to_owned()));
        wanted.headers.push(("Expires".to_owned(), "0".to_owned()));
        let request = self.request(now, wanted)?;
        let sent = self.pending.values().find(|pending| pending.owner == crate::endpoint::Owner::Request(request));
        if let Some(headers) = sent.map(|pending| &pending.request.headers)
            && let (Ok(call_id), Ok(from)) = (headers.call_id(), headers.from())
        {
            let local_tag = from.tag().unwrap_or_default().to_owned();
            let subscription = Subscription { request, local_tag, until: now + NOTIFY_PATIENCE };
            self.subscriptions.insert(call_id.to_owned(), subscription);
        }
        Ok(request)
    }

    /// The answer to a request outside dialogs; a document in the 200 to SUBSCRIBE is its state.
    pub(crate) fn handle_request_response(&mut self, request: RequestId, response: &Response, local: bool) {
        if response.is_provisional() {
            return;
        }
        self.report_response(request, response, local);
        let subscribed = self.subscriptions.iter().find(|(_, s)| s.request == request).map(|(key, _)| key.clone());
        let Some(call_id) = subscribed else { return };
        if !response.is_success() {
            self.subscriptions.remove(&call_id);
        } else if let Some(content) = content_of(&response.headers, &response.body) {
            let package = response.headers.get("Event").unwrap_or_default().to_owned();
            let state = response.headers.get("subscription-state").unwrap_or("terminated").to_owned();
            self.emit(Event::Notified { request: Some(request), package, state, content: Some(content) });
        }
    }

    /// NOTIFY outside our calls: 200 if we asked for it, else 481. BENOTIFY is never answered.
    pub(crate) fn handle_notify(&mut self, now: Instant, tx: ServerTx, request: &Request) {
        let headers = &request.headers;
        let to_tag = headers.to().ok().and_then(|to| to.tag().map(ToOwned::to_owned)).unwrap_or_default();
        let subscription = self.subscriptions.get(headers.get("Call-ID").unwrap_or_default());
        let found = subscription.filter(|subscription| subscription.local_tag == to_tag).map(|s| s.request);
        let answered = request.method == Method::Notify;
        let Some(id) = found else {
            if answered {
                self.reply(now, tx, request, 481);
            }
            return;
        };
        if answered {
            self.reply(now, tx, request, 200);
        }
        let state = headers.parse_one::<SubscriptionState>("Subscription-State").map(|state| state.state);
        let package = headers.parse_one::<header::Event>("Event").map(|event| event.package).unwrap_or_default();
        self.emit(Event::Notified {
            request: Some(id),
            package,
            state: state.unwrap_or_default(),
            content: content_of(headers, &request.body),
        });
    }
}
