//! Calls, RFC 3261 §13-§15: one file per method, as in the RFC's chapters.
//!
//! ```text
//!   Leg (one INVITE)                          Session (one dialog)
//!     Caller: early dialogs, winner, CANCEL     Early ──2xx──▶ Confirmed ──BYE──▶ Ending ──▶ gone
//!     Callee: 1xx repeated or PRACKed             one offer at a time, ACK owed or awaited, session timer
//! ```
//!
//! [`invite`] and [`cancel`]: calling. [`accept`] and [`prack`]: being called. [`ack`]: the third message, both sides.
//! [`reinvite`], [`update`], [`refresh`]: changing and keeping a session. [`bye`]: ending it. [`refer`]: transfer.
//! [`service`] and [`message`]: requests outside dialogs.

use std::net::IpAddr;
use std::time::Instant;

use crate::dialog::Dialog;
use crate::endpoint::Endpoint;
use crate::event::{CommandError, DialogId, Hop, LegId, Transport};
use crate::header::CSeq;
use crate::message::{Method, Request, Response};
use crate::transaction::timers::{Resend, earliest};
use crate::transaction::{ClientTx, ServerTx};

pub mod accept;
pub mod ack;
pub mod bye;
pub mod cancel;
pub mod invite;
pub mod message;
pub mod prack;
pub mod refer;
pub mod refresh;
pub mod reinvite;
pub mod service;
pub mod update;

use accept::Callee;
use invite::Caller;
use refresh::SessionTimer;

/// One INVITE that makes dialogs.
#[derive(Debug)]
pub(crate) enum Leg {
    Caller(Caller),
    Callee(Box<Callee>),
}

impl Leg {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Caller(_) => None,
            Self::Callee(callee) => earliest(callee.provisional.deadline(), callee.expires_at),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Early,
    Confirmed,
    /// BYE is out.
    Ending,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Confirmed => "confirmed",
            Self::Ending => "ending",
        }
    }
}

/// Our 2xx to an INVITE, repeated until its ACK (RFC 3261 §13.3.1.4).
#[derive(Debug)]
pub(crate) struct Unacked {
    pub(crate) tx: ServerTx,
    pub(crate) response: Response,
    pub(crate) resend: Resend,
    pub(crate) fail_at: Instant,
    pub(crate) cseq: u32,
    /// Of the INVITE that made the dialog, not of a re-INVITE.
    pub(crate) initial: bool,
    /// The 2xx holds our offer: the ACK brings the answer.
    pub(crate) offered: bool,
}

/// A 2xx whose ACK waits for the owner's answer.
#[derive(Debug)]
pub(crate) struct AckDue {
    pub(crate) cseq: u32,
    /// Authorization lines of the INVITE: the ACK repeats them (RFC 3261 §22.1).
    pub(crate) credentials: Vec<(String, String)>,
}

/// The peer's re-INVITE or UPDATE that the owner has not answered.
#[derive(Debug)]
pub(crate) struct IncomingOffer {
    pub(crate) tx: ServerTx,
    pub(crate) request: Request,
    pub(crate) sdp: Option<String>,
}

/// Our re-INVITE or UPDATE under way.
#[derive(Debug)]
pub(crate) struct OutgoingOffer {
    pub(crate) tx: ClientTx,
    pub(crate) method: Method,
    pub(crate) sdp: Option<String>,
    /// Sent by the session timer, not by the owner.
    pub(crate) refresh: bool,
    pub(crate) sent_at: Instant,
}

/// What the peer says about itself in Allow and Supported.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    pub(crate) update: bool,
}

/// One dialog made by INVITE, and the session in it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) leg: LegId,
    pub(crate) dialog: Dialog,
    pub(crate) hop: Hop,
    /// The peer itself sits at the hop: no proxy in between.
    pub(crate) direct: bool,
    /// We sent the first INVITE: the longer back-off after 491 is ours (RFC 3261 §14.1).
    pub(crate) caller: bool,
    pub(crate) state: State,
    pub(crate) local_sdp: Option<String>,
    pub(crate) remote_sdp: Option<String>,
    pub(crate) peer: Peer,
    pub(crate) unacked: Option<Unacked>,
    pub(crate) last_ack: Option<(u32, Vec<u8>)>,
    pub(crate) ack_due: Option<AckDue>,
    pub(crate) incoming: Option<IncomingOffer>,
    pub(crate) outgoing: Option<OutgoingOffer>,
    /// A re-INVITE or UPDATE that met 491, and when it goes out again.
    pub(crate) retry: Option<(Instant, Method, Option<String>)>,
    pub(crate) timer: Option<SessionTimer>,
    /// `bye` was called before the ACK came (RFC 3261 §15).
    pub(crate) bye_after_ack: bool,
    /// RSeq of the last reliable 1xx taken (RFC 3262 §4).
    pub(crate) rseq: Option<u32>,
}

impl Session {
    pub(crate) fn new(leg: LegId, dialog: Dialog, hop: Hop, caller: bool) -> Self {
        Self {
            leg,
            dialog,
            hop,
            direct: false,
            caller,
            state: State::Early,
            local_sdp: None,
            remote_sdp: None,
            peer: Peer::default(),
            unacked: None,
            last_ack: None,
            ack_due: None,
            incoming: None,
            outgoing: None,
            retry: None,
            timer: None,
            bye_after_ack: false,
            rseq: None,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let unacked = self.unacked.as_ref().map(|unacked| unacked.resend.at.min(unacked.fail_at));
        let retry = self.retry.as_ref().map(|(at, ..)| *at);
        let timer = self.timer.as_ref().map(SessionTimer::deadline);
        [unacked, retry, timer].into_iter().flatten().min()
    }

    /// Our own offer is on its way: a re-INVITE, or an UPDATE or 2xx with SDP.
    pub(crate) fn has_offered(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|out| out.method == Method::Invite || out.sdp.is_some())
            || self.unacked.as_ref().is_some_and(|unacked| unacked.offered)
    }

    /// We owe an answer.
    pub(crate) fn owes_answer(&self) -> bool {
        self.incoming.is_some() || self.ack_due.is_some()
    }

    /// Where requests of this dialog go. Without routes that is the peer's Contact (RFC 3261 §12.2.1.1); with routes,
    /// or when the Contact is a name, it is where the dialog came from; a stream is kept (RFC 5626 §5.3).
    pub(crate) fn next_hop(&self, transport: Transport) -> Hop {
        if transport != Transport::Udp || self.direct || !self.dialog.routes.is_empty() {
            return self.hop;
        }
        let target = &self.dialog.target;
        // A private address that came from a public one cannot be reached: its NAT forwards the public one.
        let reachable = |ip: &IpAddr| !is_private(*ip) || is_private(self.hop.to.ip());
        let to = target.host.ip().filter(reachable);
        let to = to.map(|ip| (ip, target.port.unwrap_or(transport.default_port())).into());
        Hop { flow: self.hop.flow, to: to.unwrap_or(self.hop.to) }
    }

    pub(crate) fn learn_peer(&mut self, headers: &crate::message::Headers) {
        if headers.contains("Allow") {
            self.peer.update = headers.lists("Allow", "UPDATE");
        }
    }
}

impl Endpoint {
    /// A request inside a dialog and the hop it goes to; Contact where it refreshes the target.
    pub(crate) fn make_dialog_request(&mut self, id: DialogId, method: Method) -> Result<(Hop, Request), CommandError> {
        let session = self.sessions.get_mut(&id).ok_or(CommandError::NoDialog(id))?;
        let flow = self.flows.get(&session.hop.flow).ok_or(CommandError::NoFlow(session.hop.flow))?;
        let hop = session.next_hop(flow.transport);
        let refreshes_target = !matches!(method, Method::Bye | Method::Prack);
        let mut request = session.dialog.make_request(method);
        if refreshes_target {
            request.headers.push("Contact", self.contact_value(hop.flow));
        }
        Ok((hop, request))
    }

    /// Drives what sessions wait for: repeated 2xx, postponed re-INVITEs, session timers.
    pub(crate) fn run_sessions(&mut self, now: Instant) {
        let due: Vec<DialogId> =
            self.sessions.iter().filter(|(_, s)| s.deadline().is_some_and(|at| at <= now)).map(|(id, _)| *id).collect();
        for id in due {
            self.run_unacked(now, id);
            self.run_retry(now, id);
            self.run_session_timer(now, id);
        }
        self.settle(now);
    }

    pub(crate) fn insert_session(&mut self, session: Session) -> DialogId {
        let id = DialogId(self.take_id());
        self.dialogs.insert(session.dialog.key(), id);
        self.sessions.insert(id, session);
        id
    }

    pub(crate) fn remove_session(&mut self, id: DialogId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.dialogs.remove(&session.dialog.key());
        self.refers.retain(|_, refer| refer.dialog != id);
        Some(session)
    }

    /// Moves the dialog to another hop: a TCP flow for a request that is too large for UDP, or a new flow after a reconnect.
    ///
    /// # Errors
    ///
    /// If there is no such dialog or flow.
    pub fn move_dialog(&mut self, _now: Instant, dialog: DialogId, hop: Hop) -> Result<(), CommandError> {
        if !self.flows.contains_key(&hop.flow) {
            return Err(CommandError::NoFlow(hop.flow));
        }
        let session = self.sessions.get_mut(&dialog).ok_or(CommandError::NoDialog(dialog))?;
        session.hop = hop;
        session.direct = true;
        Ok(())
    }

    /// `Call-ID;to-tag=…;from-tag=…`: the Replaces value that names this dialog for its peer (RFC 3891 §3):
    /// to-tag is the tag of the peer that will receive it.
    pub fn replaces_value(&self, dialog: DialogId) -> Option<String> {
        let key = self.sessions.get(&dialog)?.dialog.key();
        Some(format!("{};to-tag={};from-tag={}", key.call_id, key.remote_tag, key.local_tag))
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// CSeq number of a message that was checked before; 0 if it has none.
pub(crate) fn cseq_of(headers: &crate::message::Headers) -> u32 {
    headers.cseq().map_or(0, |CSeq { number, .. }| number)
}
