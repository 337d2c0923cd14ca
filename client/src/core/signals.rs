//! What the user agent of an account tells, brought to the account or to the call it concerns.

use std::time::Instant;

use sip::event::{DialogId, EndCause, Event, Incoming, LegId};

use super::account::Account;
use super::call::Call;
use super::credentials::Answered;
use super::facade::Core;
use super::transfer::Request;
use crate::api::{AccountId, CallChange, CallId, EndReason};

impl Core {
    pub(crate) fn sip_event(&mut self, now: Instant, account: AccountId, event: Event) {
        match event {
            Event::Registered(facts) => self.with_account(account, |of, ports| of.registered(now, &facts, ports)),
            Event::RegistrationFailed(facts) => {
                self.with_account(account, |of, ports| of.registration_failed(now, &facts, ports));
            }
            Event::Unregistered => self.with_account(account, Account::unregistered),
            Event::ResponseTo { request, status, reason, content, .. } => {
                let answer = Answered { request, status, reason: &reason, content: content.as_ref() };
                self.with_account(account, |of, ports| of.response(now, &answer, ports));
                self.refer_answered(now, account, request, (status, reason));
            }
            Event::Notified { package, content, .. } => {
                self.with_account(account, |of, ports| of.notified(now, &package, content.as_ref(), ports));
            }
            Event::Incoming(incoming) => self.incoming(now, account, &incoming),
            Event::Progress { .. }
            | Event::Answered { .. }
            | Event::Failed(_)
            | Event::Cancelled { .. }
            | Event::Confirmed { .. } => {
                self.leg_event(now, account, event);
            }
            Event::Reoffer { .. }
            | Event::Reanswered { .. }
            | Event::Reconfirmed { .. }
            | Event::ReofferFailed { .. }
            | Event::TransferProgress { .. }
            | Event::Ended { .. } => self.dialog_event(now, account, event),
            Event::TransferRequested { dialog, refer, refer_to: to, replaces, referred_by: by } => {
                self.transfer_requested(now, account, Request { dialog, refer, to, replaces, by });
            }
            Event::ProgressConfirmed { .. }
            | Event::SessionRefreshed { .. }
            | Event::Info { .. }
            | Event::Message { .. }
            | Event::FlowDead { .. }
            | Event::Trace { .. } => {}
        }
    }

    fn incoming(&mut self, now: Instant, account: AccountId, incoming: &Incoming) {
        let running = u32::try_from(self.calls_of(account).len()).unwrap_or(u32::MAX);
        let Some(of) = self.accounts.get_mut(&account) else { return };
        if running >= of.config.calls_max || self.stop_at.is_some() {
            let _ = of.endpoint.reject(now, incoming.leg, 486, "", &[]);
            return;
        }
        let id = self.next_call();
        self.add_call(now, account, id, |cx, seeds| Call::incoming(cx, id, incoming, seeds));
    }

    /// Events of one INVITE.
    fn leg_event(&mut self, now: Instant, account: AccountId, event: Event) {
        let leg = match &event {
            Event::Progress { leg, .. }
            | Event::Answered { leg, .. }
            | Event::Cancelled { leg, .. }
            | Event::Confirmed { leg, .. } => *leg,
            Event::Failed(failed) => failed.leg,
            _ => return, // sorted by the caller
        };
        let Some(id) = self.call_of_leg(account, leg) else {
            // A 200 to a call that is forgotten (its CANCEL came too late) must not stay open.
            if let Event::Answered { dialog, .. } = event {
                self.with_account(account, |of, _| drop(of.endpoint.bye(now, dialog)));
            }
            return;
        };
        self.with_call(now, id, |call, cx| match event {
            Event::Progress { dialog, status, sdp, .. } => call.progress(cx, dialog, status, sdp.as_deref()),
            Event::Answered { dialog, sdp, .. } => call.accepted(cx, dialog, sdp.as_deref()),
            Event::Failed(failed) => call.failed(cx, &failed),
            Event::Cancelled { reason, .. } => call.cancelled(cx, reason.as_deref()),
            Event::Confirmed { dialog, sdp, .. } => call.confirmed(cx, dialog, sdp.as_deref()),
            _ => {} // sorted by the caller
        });
    }

    /// Events inside a dialog.
    fn dialog_event(&mut self, now: Instant, account: AccountId, event: Event) {
        let dialog = match &event {
            Event::Reoffer { dialog, .. }
            | Event::Reanswered { dialog, .. }
            | Event::Reconfirmed { dialog, .. }
            | Event::ReofferFailed { dialog, .. }
            | Event::TransferProgress { dialog, .. }
            | Event::Ended { dialog, .. } => *dialog,
            _ => return, // sorted by the caller
        };
        let Some(id) = self.call_of_dialog(account, dialog) else { return };
        self.with_call(now, id, |call, cx| match event {
            Event::Reoffer { sdp, .. } => call.reoffered(cx, dialog, sdp.as_deref()),
            Event::Reanswered { sdp, .. } => call.reanswered(cx, sdp.as_deref()),
            Event::Reconfirmed { sdp, .. } => call.reconfirmed(cx, sdp.as_deref()),
            Event::ReofferFailed { status, reason, .. } => call.reoffer_failed(cx, status, &reason),
            Event::TransferProgress { status, reason, .. } => {
                call.tell(cx, CallChange::TransferProgress { status, phrase: reason });
            }
            Event::Ended { cause, .. } => call.dialog_ended(cx, dialog, cause),
            _ => {} // sorted by the caller
        });
    }

    fn call_of_leg(&self, account: AccountId, leg: LegId) -> Option<CallId> {
        self.calls.values().find(|call| call.account == account && call.leg == Some(leg)).map(|call| call.id)
    }

    pub(super) fn call_of_dialog(&self, account: AccountId, dialog: DialogId) -> Option<CallId> {
        let has = |call: &&Call| call.dialog == Some(dialog) || call.forks.contains_key(&dialog);
        self.calls.values().filter(|call| call.account == account).find(has).map(|call| call.id)
    }
}

impl Call {
    fn dialog_ended(&mut self, cx: &mut super::call::Cx<'_>, dialog: DialogId, cause: EndCause) {
        if !self.is_alive() {
            return self.signalling_ended(cx);
        }
        if self.dialog != Some(dialog) || cause == EndCause::ForkLost {
            // One of several early dialogs is over; its checks end with it.
            if let Some(fork) = self.forks.remove(&dialog)
                && let (Some(peer), Some(flow)) = (fork.peer, &mut self.flow)
            {
                flow.agent_mut().remove_remote(cx.now, peer);
            }
            return;
        }
        let reason = match cause {
            EndCause::RemoteBye { .. } | EndCause::ForkLost => EndReason::RemoteHangup,
            EndCause::LocalBye => EndReason::LocalHangup,
            EndCause::NoAck => {
                EndReason::Unreachable { target: self.peer.clone(), cause: "no ACK to our 200 in 32 s".to_owned() }
            }
            EndCause::SessionExpired => EndReason::SessionExpired,
            EndCause::Unreachable { status } => {
                EndReason::SignallingLost { cause: format!("a request in the call was answered {status}") }
            }
            EndCause::FlowLost { cause } => EndReason::SignallingLost { cause },
        };
        self.signalling_done = true;
        self.tear_down(cx, reason);
        self.signalling_ended(cx);
    }
}
