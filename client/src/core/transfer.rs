//! Transfer: one side of a call asks the other to call somebody else instead, RFC 3515, RFC 5589 §6.1.
//!
//! ```text
//!   asked:   REFER ─▶ 202, NOTIFY 100 ─▶ a call to the target ─▶ NOTIFY 180 ─▶ NOTIFY 200 ─▶ BYE, theirs or after a while ours
//!                                                           └──▶ NOTIFY 486: the first call goes on
//!   asking:  REFER ─▶ 202 ─▶ their NOTIFYs are told; the user hangs up
//! ```
//!
//! A REFER is obeyed only inside an answered call, once at a time: the user is talking to whoever sends it. With `Replaces`
//! in the target (an attended transfer, RFC 5589 §7.1) the INVITE carries it on.

use std::time::{Duration, Instant};

use sip::Uri;
use sip::event::{DialogId, ReferId, RequestId};

use super::account::News;
use super::call::{Call, Cx};
use super::dial::parse_target;
use super::facade::Core;
use crate::api::{AccountId, CallChange, CallId, CommandError, DialOptions, EndReason};

/// A transferred call whose other side does not say BYE is ended by us: RFC 5589 §6.1 leaves it to the one who asked.
const BYE_PATIENCE: Duration = Duration::from_secs(4);

/// A REFER as the user agent reports it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) dialog: DialogId,
    pub(crate) refer: ReferId,
    pub(crate) to: String,
    /// Of the call that ours is to take the place of (RFC 3891 §6.1).
    pub(crate) replaces: Option<String>,
    pub(crate) by: Option<String>,
}

/// Who asked for a call, as the call itself knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Referred {
    /// The call in which it was asked for.
    pub(crate) call: CallId,
    refer: ReferId,
    /// The last status that was told.
    told: u16,
}

/// Header fields of an INVITE that a REFER asked for.
type Extra = Vec<(String, String)>;

impl Core {
    pub(super) fn transfer(&mut self, now: Instant, id: CallId, to: &str) -> Result<(), CommandError> {
        let call = self.expect(id, "it must be answered first", Call::is_confirmed)?;
        let of = self.known(call.account)?;
        let bad = |problem| CommandError::BadTarget { target: to.to_owned(), problem };
        let target = parse_target(to, of).map_err(bad)?;
        self.with_call(now, id, |call, cx| call.ask_for_transfer(cx, &target));
        Ok(())
    }

    /// The peer of a call wants us to call somebody else.
    pub(super) fn transfer_requested(&mut self, now: Instant, account: AccountId, request: Request) {
        let Request { dialog, refer, to, replaces, by } = request;
        let asked = self.call_of_dialog(account, dialog);
        let Some((id, target, options)) = asked.and_then(|id| self.may_be_transferred(id, &to)) else {
            self.with_account(account, |of, _| drop(of.endpoint.reject_refer(now, refer, 603)));
            if let Some(id) = asked {
                self.with_call(now, id, |call, cx| call.tell(cx, CallChange::TransferRequested { to, call: None }));
            }
            return;
        };
        self.with_account(account, |of, _| drop(of.endpoint.accept_refer(now, refer)));
        let new = self.next_call();
        self.with_call(now, id, |call, cx| {
            call.successor = Some(new);
            call.tell(cx, CallChange::TransferRequested { to, call: Some(new) });
        });
        // RFC 3892 §2.2: the target learns who sent us.
        let headers = [("Replaces", replaces), ("Referred-By", by)];
        let headers: Extra = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        self.add_call(now, account, new, |cx, seeds| {
            let referred = Referred { call: id, refer, told: 100 };
            Some(Call::dial_referred(cx, new, target, &options, seeds, (referred, headers)))
        });
    }

    /// Whom to call how, if this call may be transferred now.
    fn may_be_transferred(&self, id: CallId, to: &str) -> Option<(CallId, Uri, DialOptions)> {
        let call = self.calls.get(&id).filter(|call| call.is_alive() && call.is_confirmed())?;
        let of = self.accounts.get(&call.account).filter(|of| of.config.transfers)?;
        // For a moment there are two calls where one was.
        let room = u32::try_from(self.calls_of(call.account).len()).is_ok_and(|calls| calls <= of.config.calls_max);
        if call.successor.is_some() || self.stop_at.is_some() || !room {
            return None;
        }
        let target = parse_target(to, of).ok()?;
        let options = DialOptions {
            source: Some(call.source.clone()),
            policy: Some(call.policy),
            srtp: Some(call.srtp),
            transport: None,
            from_address: call.from_address,
            ring_timeout_ms: None,
        };
        Some((id, target, options))
    }

    /// Our REFER was answered. Only a refusal is news: what was accepted is reported by NOTIFY.
    pub(super) fn refer_answered(
        &mut self,
        now: Instant,
        account: AccountId,
        request: RequestId,
        (status, phrase): (u16, String),
    ) {
        let asked = self.calls.values().find(|call| call.account == account && call.refer == Some(request));
        let Some(id) = asked.map(|call| call.id) else { return };
        self.with_call(now, id, |call, cx| {
            call.refer = None;
            if status >= 300 {
                call.tell(cx, CallChange::TransferProgress { status, phrase });
            }
        });
    }

    /// A call that was asked for is answered, or has failed.
    pub(super) fn transfer_over(&mut self, now: Instant, asked_in: CallId, answered: bool) {
        self.with_call(now, asked_in, |call, cx| {
            if answered {
                call.timers.transferred = call.is_alive().then(|| cx.now + BYE_PATIENCE);
            } else {
                call.successor = None;
            }
        });
    }
}

impl Call {
    /// The peer is asked to call `target`; its NOTIFYs tell how that goes.
    fn ask_for_transfer(&mut self, cx: &mut Cx<'_>, target: &Uri) {
        let Some(dialog) = self.dialog else { return };
        match cx.account.endpoint.refer(cx.now, dialog, &target.to_string()) {
            Ok(request) => self.refer = Some(request),
            Err(error) => self.warn(cx, format!("the transfer could not be asked for: {error}")),
        }
    }

    /// Whoever asked for this call is told how it goes (RFC 3515 §2.4.5).
    pub(crate) fn tell_referrer(&mut self, cx: &mut Cx<'_>, status: u16) {
        let Some(referred) = self.referred.as_mut().filter(|referred| referred.told < 200) else { return };
        if referred.told == status {
            return;
        }
        referred.told = status;
        let (call, refer) = (referred.call, referred.refer);
        // It may have hung up by now, and then nobody wants to know.
        let _ = cx.account.endpoint.notify_refer(cx.now, refer, status, "");
        if status >= 200 {
            cx.account.news.push_back(News::TransferOver { asked_in: call, answered: status < 300 });
        }
    }
}

/// The end of a call as the status that is told to whoever asked for it.
pub(crate) fn status_of(reason: &EndReason) -> u16 {
    match reason {
        EndReason::Busy { status, .. }
        | EndReason::Credentials { status, .. }
        | EndReason::UnknownUser { status, .. }
        | EndReason::Rejected { status, .. }
        | EndReason::Declined { status } => *status,
        EndReason::NotAcceptable { .. } => 488,
        EndReason::NoAnswer { .. } => 408,
        EndReason::Unreachable { .. } => 503,
        EndReason::LocalHangup | EndReason::RemoteHangup | EndReason::Cancelled | EndReason::AnsweredElsewhere => 487,
        EndReason::NoPath { .. }
        | EndReason::NoRelay { .. }
        | EndReason::PathLost { .. }
        | EndReason::SessionExpired
        | EndReason::SignallingLost { .. }
        | EndReason::Internal { .. } => 500,
    }
}
