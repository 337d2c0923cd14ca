//! Changing a running session, from either side: hold, codec, address, keys, ICE restart (RFC 3261 §14, RFC 3311, RFC 8839 §4.4).
//!
//! ```text
//!   a wish of ours (announce, hold, restart) ─▶ next_offer ─▶ re-INVITE ─▶ Reanswered ─▶ next_offer …     one at a time
//!   Reoffer ─▶ judged ─┬─▶ answered at once
//!                      ├─▶ new ufrag: our half restarts, answered when it has gathered
//!                      └─▶ a=remote-candidates not valid yet: answered when they are (announce.rs)
//! ```

use std::time::{Duration, Instant};

use ice::PairsVerdict;
use sip::event::{CommandError, DialogId};

use super::call::{Call, Cx, Stage};
use super::description::Description;
use super::negotiate::{self, Agreed, NegotiateError, OfferOptions};
use crate::api::{CallChange, CallState, Direction, EndReason};

/// An offer that meets another one is made again after this time.
const OFFER_AGAIN: Duration = Duration::from_millis(250);

/// A restart of the peer's, answered by us, gets this time to help.
const ANSWERED_RESTART: Duration = Duration::from_secs(4);
/// Until ICE is restarted again when there was nothing to offer.
const NO_NETWORK: Duration = Duration::from_secs(1);

/// The request has reached nobody who could judge it.
fn is_unheard(status: u16) -> bool {
    matches!(status, 408 | 430 | 480 | 500 | 502 | 503 | 504)
}

/// What keeps us from making the next offer.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Ours, with the nominated pair.
    Announce { since: Instant },
    /// Ours, holding or taking back.
    Hold { held: bool },
    /// Ours: our half of ICE is gathered anew; the offer goes out after that.
    RestartGathering,
    /// Ours, with the new half of ICE.
    Restart,
    /// Theirs, which restarts ICE: our half is gathered anew, then it is answered.
    AnswerAfterGathering(Box<Description>),
    /// Theirs, with `a=remote-candidates` that are still being checked.
    AwaitPairs(Box<Description>),
    /// Theirs without a description: we offered, the answer comes in the ACK.
    LateAnswer,
}

impl Call {
    /// The one place where an offer of ours inside the call is made.
    pub(crate) fn next_offer(&mut self, cx: &mut Cx<'_>) {
        let Some(dialog) = self.dialog.filter(|_| self.stage == Stage::Confirmed && self.pending.is_none()) else {
            return;
        };
        if self.restart_due {
            self.restart_due = false;
            let interfaces = self.hop.map(|hop| cx.account.media_interfaces(hop, self.from_address));
            let servers = cx.account.relays.servers(cx.now);
            if let Some(flow) = &mut self.flow {
                flow.agent_mut().set_servers(servers);
                flow.agent_mut().restart(cx.now, interfaces);
                self.pending = Some(Pending::RestartGathering);
            }
        } else if self.restart_offer_due {
            self.restart_offer_due = false;
            self.send_reoffer(cx, dialog, Pending::Restart, false);
        } else if self.repair.late_at.is_some_and(|at| at <= cx.now) {
            self.repair.late_at = None;
            self.send_reoffer(cx, dialog, Pending::Restart, false);
        } else if self.announce_due {
            self.announce_due = false;
            self.send_announce(cx, dialog);
        } else if let Some(held) = self.hold_due.take() {
            self.wishes.held = held;
            self.send_reoffer(cx, dialog, Pending::Hold { held }, false);
        }
    }

    /// A re-INVITE with everything as it is now.
    pub(crate) fn send_reoffer(&mut self, cx: &mut Cx<'_>, dialog: DialogId, pending: Pending, announce: bool) {
        let Some(text) = self.write_offer(announce) else { return };
        match cx.account.reinvite(cx.now, dialog, &text) {
            Ok(()) => self.pending = Some(pending),
            // The peer's own change, or a refresh, is under way; or the connection is being replaced: when it is
            // there, `signalling_is_back`.
            Err(CommandError::OfferPending(_) | CommandError::NoFlow(_)) => self.postpone_offer(cx, &pending),
            Err(error) => self.warn(cx, format!("the re-INVITE could not be sent: {error}")),
        }
    }

    /// The wish stays; its offer leaves when the other one is over.
    fn postpone_offer(&mut self, cx: &Cx<'_>, pending: &Pending) {
        match pending {
            Pending::Announce { .. } => self.announce_due = true,
            Pending::Hold { held } => {
                self.wishes.held = !held;
                self.hold_due.get_or_insert(*held);
            }
            Pending::Restart => self.restart_offer_due = true,
            Pending::RestartGathering
            | Pending::AnswerAfterGathering(_)
            | Pending::AwaitPairs(_)
            | Pending::LateAnswer => return,
        }
        self.timers.offer = Some(cx.now + OFFER_AGAIN);
    }

    /// Our offer inside the call. Keys, profile and ICE credentials stay what they are (RFC 4568 §7.1.4 as peers practise it).
    fn write_offer(&mut self, announce: bool) -> Option<String> {
        let before = self.agreed().cloned();
        let with_ice = before.as_ref().is_none_or(|agreed| agreed.ice.is_some());
        let mux = before.as_ref().is_none_or(|agreed| agreed.mux);
        let transport = self.transport(with_ice, mux, announce)?;
        let way = self.our_way();
        let options =
            OfferOptions { srtp: self.srtp_mode(), key: &self.seeds.key, mux, direction: way, before: before.as_ref() };
        let offer = negotiate::make_offer(&options, transport);
        let text = self.origin.write(&offer);
        self.offer = Some(offer);
        Some(text)
    }

    /// The answer to an offer of ours inside the call.
    pub(crate) fn reanswered(&mut self, cx: &mut Cx<'_>, sdp: Option<&str>) {
        let pending = self.pending.take();
        if !self.is_alive() {
            return;
        }
        let agreed = sdp.ok_or_else(|| NegotiateError::Syntax("there is none".to_owned())).and_then(|sdp| {
            let answer = Description::read(sdp)?;
            let offer = self.offer.as_ref().ok_or(NegotiateError::NoAudio)?;
            negotiate::apply_answer(offer, &answer, self.srtp_mode())
        });
        match agreed {
            Ok(agreed) => self.adopt(cx, agreed),
            Err(error) => self.warn(cx, format!("the answer to our re-INVITE cannot be used: {error}")),
        }
        match pending {
            Some(Pending::Announce { since }) => self.announce_answered(cx, since),
            Some(Pending::Hold { .. }) => self.tell_hold(cx),
            Some(
                Pending::Restart
                | Pending::RestartGathering
                | Pending::AnswerAfterGathering(_)
                | Pending::AwaitPairs(_)
                | Pending::LateAnswer,
            )
            | None => {}
        }
        self.next_offer(cx);
    }

    /// Our offer was refused: the session is as before (RFC 3261 §14.1).
    pub(crate) fn reoffer_failed(&mut self, cx: &mut Cx<'_>, status: u16, reason: &str) {
        match self.pending.take() {
            // The peer's change came in between (RFC 3261 §14.1): ours is still wanted.
            Some(pending) if status == 491 && self.is_alive() => return self.postpone_offer(cx, &pending),
            // The message did not get through; a restart is wanted all the more.
            Some(pending @ (Pending::Restart | Pending::Announce { .. })) if is_unheard(status) && self.is_alive() => {
                return self.postpone_offer(cx, &pending);
            }
            Some(Pending::Hold { held }) => {
                self.wishes.held = !held;
                self.warn(cx, format!("the other side refused to change the hold: {status} {reason}"));
            }
            Some(Pending::Announce { .. }) => {
                self.warn(cx, format!("the re-INVITE with the chosen path was refused: {status} {reason}"));
            }
            Some(_) | None => self.warn(cx, format!("our re-INVITE was refused: {status} {reason}")),
        }
        if self.is_alive() {
            self.apply_media(cx);
            self.next_offer(cx);
        }
    }

    /// Takes over the outcome of an offer and answer inside the call.
    pub(crate) fn adopt(&mut self, cx: &mut Cx<'_>, mut agreed: Agreed) {
        let (now, Some(dialog)) = (cx.now, self.dialog) else { return };
        let Some(fork) = self.forks.get_mut(&dialog) else { return };
        let key_changed = agreed.crypto.as_ref().map(|c| &c.key) != fork.agreed.crypto.as_ref().map(|c| &c.key);
        let address_changed = agreed.rtp != fork.agreed.rtp;
        agreed.nominated.clear();
        let (peer, ours) = (fork.peer, agreed.crypto.is_some().then(|| self.seeds.key.clone()));
        fork.agreed = agreed.clone();
        let Some(flow) = &mut self.flow else { return };
        match (peer, agreed.ice.clone()) {
            (Some(peer), Some(remote)) => {
                let _ = flow.agent_mut().update_remote(now, peer, remote);
            }
            // RFC 8839 §4.4.3.1.3: something between us took ICE out; plain media goes on.
            (Some(_) | None, None) if address_changed => flow.use_plain(now, agreed.rtp, agreed.rtcp, agreed.mux),
            (Some(_) | None, None) | (None, Some(_)) => {}
        }
        let mut outcome = Ok(());
        if key_changed {
            outcome = flow.set_remote_keys(now, agreed.crypto.map(|crypto| crypto.key).into_iter().collect());
        }
        if let Some(session) = flow.session_mut() {
            outcome =
                outcome.and_then(|()| session.set_local_key(ours)).and_then(|()| session.set_formats(agreed.formats));
        }
        if let Err(error) = outcome {
            return self.end(cx, EndReason::Internal { what: error.to_string() });
        }
        self.apply_media(cx);
    }

    /// The peer wants to change the session, or wants an offer.
    pub(crate) fn reoffered(&mut self, cx: &mut Cx<'_>, dialog: DialogId, sdp: Option<&str>) {
        if !self.is_alive() {
            let _ = cx.account.endpoint.reject_reoffer(cx.now, dialog, 481);
            return;
        }
        let Some(sdp) = sdp else {
            if let Some(text) = self.write_offer(false) {
                match cx.account.endpoint.answer_reoffer(cx.now, dialog, text) {
                    Ok(()) => self.pending = Some(Pending::LateAnswer),
                    Err(error) => self.warn(cx, error.to_string()),
                }
            }
            return;
        };
        match self.judge_reoffer(sdp) {
            Ok((offer, agreed)) => self.handle_reoffer(cx, dialog, offer, agreed),
            Err(error) => {
                let _ = cx.account.endpoint.reject_reoffer(cx.now, dialog, 488);
                self.warn(cx, format!("a change of the session was refused: {error}"));
            }
        }
    }

    fn judge_reoffer(&self, sdp: &str) -> Result<(Description, Agreed), NegotiateError> {
        let offer = Description::read(sdp)?;
        let agreed = negotiate::judge_offer(&offer, self.srtp)?;
        Ok((offer, agreed))
    }

    fn handle_reoffer(&mut self, cx: &mut Cx<'_>, dialog: DialogId, offer: Description, agreed: Agreed) {
        let before = self.agreed().and_then(|agreed| agreed.ice.as_ref()).map(|ice| ice.ufrag.clone());
        let restarts = agreed.ice.as_ref().zip(before).is_some_and(|(ice, before)| ice.ufrag != before);
        let servers = cx.account.relays.servers(cx.now);
        if restarts && let Some(flow) = &mut self.flow {
            // Theirs does what ours was to do.
            (self.restart_due, self.restart_offer_due) = (false, false);
            self.repair.restart_at = self.repair.restart_at.map(|at| at.max(cx.now + ANSWERED_RESTART));
            let interfaces = self.hop.map(|hop| cx.account.media_interfaces(hop, self.from_address));
            flow.agent_mut().set_servers(servers);
            flow.agent_mut().restart(cx.now, interfaces);
            self.pending = Some(Pending::AnswerAfterGathering(Box::new(offer)));
            return;
        }
        let peer = self.fork().and_then(|fork| fork.peer);
        let verdict = match (peer, &mut self.flow, agreed.nominated.is_empty()) {
            (Some(peer), Some(flow), false) => flow.agent_mut().await_pairs(cx.now, peer, &agreed.nominated).ok(),
            (Some(_) | None, _, _) => None,
        };
        if verdict == Some(PairsVerdict::Pending) {
            self.pending = Some(Pending::AwaitPairs(Box::new(offer)));
            return;
        }
        self.answer_reoffer(cx, dialog, offer, agreed, verdict);
    }

    /// 200 with our answer; what was agreed holds from now on.
    pub(crate) fn answer_reoffer(
        &mut self,
        cx: &mut Cx<'_>,
        dialog: DialogId,
        offer: Description,
        mut agreed: Agreed,
        verdict: Option<PairsVerdict>,
    ) {
        // RFC 8839 §4.4.3.2: pairs that cannot be used are as if they had not been named.
        if verdict == Some(PairsVerdict::Failed) {
            self.restart_due = true;
        }
        // What is agreed on mux and ICE of this call stays agreed if the peer only repeats itself.
        let had_ice = self.agreed().is_some_and(|before| before.ice.is_some());
        let Some(transport) = self.transport(had_ice && offer.ice.is_some(), agreed.mux, false) else { return };
        let way = agreed.direction.and(self.our_way());
        let answer = negotiate::make_answer(&offer, &agreed, &self.seeds.key, way, transport);
        let text = self.origin.write(&answer);
        if let Err(error) = cx.account.endpoint.answer_reoffer(cx.now, dialog, text) {
            return self.warn(cx, format!("the re-INVITE could not be answered: {error}"));
        }
        let announced = !agreed.nominated.is_empty();
        let held = !offer.direction.receives() || offer.rtp.is_some_and(|address| address.ip().is_unspecified());
        if !had_ice {
            agreed.ice = None;
        }
        self.their_offer = Some(offer);
        self.adopt(cx, agreed);
        if announced {
            self.tell(cx, CallChange::Announced { by_us: false, took_ms: 0 });
        }
        if held != self.held_by_peer {
            self.held_by_peer = held;
            self.tell_hold(cx);
        }
        self.next_offer(cx);
    }

    /// The answer in the ACK to a re-INVITE that had no description.
    pub(crate) fn reconfirmed(&mut self, cx: &mut Cx<'_>, sdp: Option<&str>) {
        if matches!(self.pending, Some(Pending::LateAnswer)) {
            self.reanswered(cx, sdp);
        }
    }

    pub(crate) fn tell_hold(&mut self, cx: &mut Cx<'_>) {
        let (by_us, by_peer) = (self.wishes.held, self.held_by_peer);
        self.apply_media(cx);
        self.tell(cx, CallChange::Hold { by_us, by_peer });
        self.enter(cx, if by_us || by_peer { CallState::Held } else { CallState::Talking });
    }

    /// Our half of ICE is new (restart): the offer or the answer that waited for it leaves.
    pub(crate) fn regathered(&mut self, cx: &mut Cx<'_>) {
        self.selected.clear();
        self.repair.late_at = None;
        let Some(dialog) = self.dialog else { return };
        match self.pending.take() {
            // No network at all: when there is one again, or a little later.
            Some(Pending::RestartGathering) if self.has_no_candidates() => {
                self.repair.restart_at = Some(cx.now + NO_NETWORK);
            }
            Some(Pending::RestartGathering) => self.send_reoffer(cx, dialog, Pending::Restart, false),
            Some(Pending::AnswerAfterGathering(offer)) => match negotiate::judge_offer(&offer, self.srtp) {
                Ok(agreed) => self.answer_reoffer(cx, dialog, *offer, agreed, None),
                Err(error) => self.warn(cx, error.to_string()),
            },
            other => self.pending = other,
        }
    }

    /// Asks for a hold or takes it back.
    pub(crate) fn hold(&mut self, cx: &mut Cx<'_>, held: bool) {
        self.hold_due = (self.wishes.held != held).then_some(held);
        self.next_offer(cx);
    }

    fn has_no_candidates(&self) -> bool {
        self.local.as_ref().is_none_or(|local| local.candidates.is_empty())
    }

    /// Whether the user may still do something with the call.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.stage == Stage::Confirmed
    }

    pub(crate) fn is_outgoing(&self) -> bool {
        self.direction == Direction::Outgoing
    }
}
