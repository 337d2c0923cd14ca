//! The user agent, RFC 3261 §8, §10-§15: registration, calls, requests in and out of dialogs. Sans-IO.
//!
//! ```text
//!   FlowOpened, Datagram, Stream ──▶ transport ──▶ transaction ──▶ session, dialog, register ──▶ Event
//!   Transmit, CloseFlow ◀── transport ◀── transaction ◀── session, dialog, register ◀── methods
//! ```

use std::time::Instant;

use crate::event::{
    CommandError, Config, Content, DialogId, FlowId, Hop, Input, Invite, Keepalive, LegId, OutOfDialog, Output,
    ReferId, Register, RequestId,
};
use crate::message::Method;
use crate::uri::Uri;

/// One user agent: one address of record, its registration and its calls.
#[derive(Debug)]
pub struct Endpoint {
    _config: Config,
}

type Done = Result<(), CommandError>;

impl Endpoint {
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let _ = seed;
        Self { _config: config }
    }
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        let _ = (now, input);
    }
    pub fn poll_output(&mut self) -> Output {
        Output::Timeout(None)
    }
    /// Keep-alive of a UDP hop; CRLF by default once the hop is registered.
    pub fn set_keepalive(&mut self, now: Instant, hop: Hop, keepalive: Keepalive) {
        let _ = (now, hop, keepalive);
    }
    /// The Contact that dialogs on `flow` carry now.
    pub fn contact(&self, flow: FlowId) -> Option<String> {
        let _ = flow;
        None
    }
    pub fn register(&mut self, now: Instant, register: Register) -> Done {
        let _ = now;
        Err(CommandError::NoFlow(register.hop.flow))
    }
    pub fn unregister(&mut self, now: Instant) -> Done {
        let _ = now;
        Ok(())
    }
    /// Any request outside dialogs.
    pub fn request(&mut self, now: Instant, request: OutOfDialog) -> Result<RequestId, CommandError> {
        let _ = now;
        Err(CommandError::NoFlow(request.hop.flow))
    }
    pub fn service(&mut self, now: Instant, hop: Hop, uri: Uri, content: Content) -> Result<RequestId, CommandError> {
        let _ = (now, uri, content);
        Err(CommandError::NoFlow(hop.flow))
    }
    pub fn options(&mut self, now: Instant, hop: Hop, uri: Uri) -> Result<RequestId, CommandError> {
        let _ = (now, uri);
        Err(CommandError::NoFlow(hop.flow))
    }
    pub fn message(&mut self, now: Instant, hop: Hop, uri: Uri, content: Content) -> Result<RequestId, CommandError> {
        let _ = (now, uri, content);
        Err(CommandError::NoFlow(hop.flow))
    }
    /// SUBSCRIBE with Expires 0; the state comes as [`Event::Notified`](crate::event::Event::Notified).
    pub fn subscribe_once(
        &mut self,
        now: Instant,
        request: OutOfDialog,
        package: &str,
    ) -> Result<RequestId, CommandError> {
        let _ = (now, package);
        Err(CommandError::NoFlow(request.hop.flow))
    }

    pub fn invite(&mut self, now: Instant, invite: Invite) -> Result<LegId, CommandError> {
        let _ = now;
        Err(CommandError::NoFlow(invite.hop.flow))
    }
    /// Gives up a call of ours: CANCEL, or BYE if the 2xx was faster.
    pub fn cancel(&mut self, now: Instant, leg: LegId) -> Done {
        let _ = now;
        Err(CommandError::NoLeg(leg))
    }
    /// 180 without SDP.
    pub fn ring(&mut self, now: Instant, leg: LegId) -> Done {
        let _ = now;
        Err(CommandError::NoLeg(leg))
    }
    /// 183 with SDP, resent until `stop_resending`, PRACK or the final answer.
    pub fn progress(&mut self, now: Instant, leg: LegId, sdp: String) -> Done {
        let _ = (now, sdp);
        Err(CommandError::NoLeg(leg))
    }
    pub fn stop_resending(&mut self, leg: LegId) {
        let _ = leg;
    }
    /// 200 with the answer, or with an offer when the INVITE had none.
    pub fn accept(&mut self, now: Instant, leg: LegId, sdp: String) -> Done {
        let _ = (now, sdp);
        Err(CommandError::NoLeg(leg))
    }
    /// Any 4xx-6xx; an empty `reason` stands for the usual phrase.
    pub fn reject(
        &mut self,
        now: Instant,
        leg: LegId,
        status: u16,
        reason: &str,
        headers: &[(String, String)],
    ) -> Done {
        let _ = (now, status, reason, headers);
        Err(CommandError::NoLeg(leg))
    }
    /// 302.
    pub fn redirect(&mut self, now: Instant, leg: LegId, contacts: &[Uri]) -> Done {
        let _ = (now, contacts);
        Err(CommandError::NoLeg(leg))
    }
    /// The ACK with our answer, after `Answered` or `Reanswered` with `offer: true`.
    pub fn ack(&mut self, now: Instant, dialog: DialogId, sdp: String) -> Done {
        let _ = (now, sdp);
        Err(CommandError::NoDialog(dialog))
    }
    pub fn reinvite(&mut self, now: Instant, dialog: DialogId, sdp: Option<String>) -> Done {
        let _ = (now, sdp);
        Err(CommandError::NoDialog(dialog))
    }
    pub fn update(&mut self, now: Instant, dialog: DialogId, sdp: Option<String>) -> Done {
        let _ = (now, sdp);
        Err(CommandError::NoDialog(dialog))
    }
    /// 200 with the answer (or our offer, when the re-INVITE had none).
    pub fn answer_reoffer(&mut self, now: Instant, dialog: DialogId, sdp: String) -> Done {
        let _ = (now, sdp);
        Err(CommandError::NoDialog(dialog))
    }
    pub fn reject_reoffer(&mut self, now: Instant, dialog: DialogId, status: u16) -> Done {
        let _ = (now, status);
        Err(CommandError::NoDialog(dialog))
    }
    pub fn bye(&mut self, now: Instant, dialog: DialogId) -> Done {
        let _ = now;
        Err(CommandError::NoDialog(dialog))
    }
    /// INFO, MESSAGE, OPTIONS, … inside a dialog.
    pub fn request_in_dialog(
        &mut self,
        now: Instant,
        dialog: DialogId,
        method: Method,
        headers: &[(String, String)],
        content: Option<Content>,
    ) -> Result<RequestId, CommandError> {
        let _ = (now, method, headers, content);
        Err(CommandError::NoDialog(dialog))
    }
    /// Moves the dialog to another hop, e.g. a TCP flow for a request that is too large for UDP, or a new flow after a reconnect.
    pub fn move_dialog(&mut self, now: Instant, dialog: DialogId, hop: Hop) -> Done {
        let _ = (now, hop);
        Err(CommandError::NoDialog(dialog))
    }
    /// Asks the peer to call `refer_to` (a URI, with `?Replaces=…` for an attended transfer).
    pub fn refer(&mut self, now: Instant, dialog: DialogId, refer_to: &str) -> Result<RequestId, CommandError> {
        let _ = (now, refer_to);
        Err(CommandError::NoDialog(dialog))
    }
    pub fn accept_refer(&mut self, now: Instant, refer: ReferId) -> Done {
        let _ = now;
        Err(CommandError::NoRefer(refer))
    }
    pub fn reject_refer(&mut self, now: Instant, refer: ReferId, status: u16) -> Done {
        let _ = (now, status);
        Err(CommandError::NoRefer(refer))
    }
    /// Tells the one who asked how the call to the target goes; a final status ends the subscription.
    pub fn notify_refer(&mut self, now: Instant, refer: ReferId, status: u16, reason: &str) -> Done {
        let _ = (now, status, reason);
        Err(CommandError::NoRefer(refer))
    }
    /// `Call-ID;to-tag=…;from-tag=…`: value of Replaces that names this dialog for the third party (RFC 3891 §6.1).
    pub fn replaces_value(&self, dialog: DialogId) -> Option<String> {
        let _ = dialog;
        None
    }
}
