//! An incoming call: from the INVITE to the 200 (RFC 3261 §13.3).
//!
//! ```text
//!   INVITE ─▶ 180 ─▶ gather ─▶ 183 + SDP, resent until the first check arrives ─▶ Answer ─▶ 200 + the same SDP
//! ```
//!
//! The 200 never leaves before the 183: its candidates must be checked while the phone still rings. A caller without ICE gets
//! no 183, because nothing is to be gained from it.

use std::time::Duration;

use sip::event::{DialogId, Incoming};
use sip::header::NameAddr;

use super::account::Account;
use super::call::{Call, CallSeeds, Cx, Fork, Stage};
use super::description::Description;
use super::dial::{RELAYS_PATIENCE, count_candidates};
use super::negotiate::{self, NegotiateError, OfferOptions};
use super::views;
use crate::api::{AnswerOptions, CallChange, CallId, CallState, Direction, EndReason};

/// How long a call rings that nobody answers and no CANCEL ends: as long as proxies wait (RFC 3261 §16.6, timer C). The
/// call of a caller that is gone, or of a forged INVITE, would else ring for ever.
const RING_LONGEST: Duration = Duration::from_mins(3);

impl Call {
    /// Takes an INVITE. What cannot be accepted at all is refused here and makes no call.
    pub(crate) fn incoming(cx: &mut Cx<'_>, id: CallId, incoming: &Incoming, seeds: CallSeeds) -> Option<Self> {
        let srtp = cx.account.config.srtp;
        let offer = incoming.sdp.as_deref().map(Description::read).transpose();
        let judged = offer.and_then(|offer| match offer {
            Some(offer) => negotiate::judge_offer(&offer, srtp).map(|agreed| Some((offer, agreed))),
            None => Ok(None),
        });
        let offer = match judged {
            Ok(offer) => offer,
            Err(error) => {
                refuse(cx, incoming, &error);
                return None;
            }
        };
        let peer = uri_of(&incoming.from);
        let mut call = Self::new(cx.now, id, Direction::Incoming, peer.clone(), cx.account, seeds);
        call.leg = Some(incoming.leg);
        call.dialog = Some(incoming.dialog);
        call.hop = Some(sip::event::Hop { flow: incoming.flow, to: incoming.source });
        call.timers.relays = Some(cx.now + RELAYS_PATIENCE);
        call.timers.ring = cx.account.config.auto_answer.is_none().then(|| cx.now + RING_LONGEST);
        call.early_source = early_source(cx.account);
        let automatic = cx.account.config.auto_answer.as_ref().and_then(|auto| auto.options.source.clone());
        if let Some(source) = automatic {
            // Also when a user takes the call before the clock does: the answer's own options come later and win.
            call.source = source;
        }
        call.tell(cx, CallChange::Created { account: call.account, direction: Direction::Incoming, peer });
        call.tell(cx, CallChange::State { state: CallState::Gathering });
        if let Some((offer, agreed)) = offer {
            call.tell(cx, received(&offer, &agreed));
            call.their_offer = Some(offer);
            call.forks.insert(incoming.dialog, Fork::new(0, None, agreed));
        }
        // Only a hint to the caller: whether it arrives changes nothing here.
        let _ = cx.account.endpoint.ring(cx.now, incoming.leg);
        call.gather_if_ready(cx, false);
        call.join_peer(cx);
        Some(call)
    }

    /// Checks of the caller may come before our answer has left: the agent must know its half by then (RFC 8445 §7.3).
    fn join_peer(&mut self, cx: &mut Cx<'_>) {
        let Some(dialog) = self.dialog.filter(|_| self.flow.is_some()) else { return };
        let Some(fork) = self.forks.get(&dialog).filter(|fork| fork.peer.is_none()) else { return };
        let agreed = fork.agreed.clone();
        self.start_session(cx, &agreed);
        if agreed.ice.is_some() {
            let peer = self.connect_peer(cx, &agreed);
            if let Some(fork) = self.forks.get_mut(&dialog) {
                fork.peer = peer;
            }
        }
    }

    /// Gathering has ended: the 183 leaves, or, without ICE, nothing but our ringing.
    pub(crate) fn send_progress(&mut self, cx: &mut Cx<'_>) {
        self.join_peer(cx);
        self.stage = Stage::Offered;
        if let Some(agreed) = self.agreed().filter(|agreed| agreed.ice.is_some()).cloned()
            && let Some((answer, text)) = self.write_answer(&agreed)
            && let Some(leg) = self.leg
        {
            let (bytes, crypto) = (text.len(), !answer.crypto.is_empty());
            match cx.account.endpoint.progress(cx.now, leg, text.clone()) {
                Ok(()) => {
                    let candidates = count_candidates(&answer);
                    self.tell(cx, CallChange::OfferSent { message: "183".to_owned(), candidates, crypto, bytes });
                }
                Err(error) => self.warn(cx, format!("the 183 could not be sent: {error}")),
            }
            self.answer_text = Some(text);
            if crypto {
                self.warn_of_plain_keys(cx);
            }
        }
        self.enter(cx, CallState::Ringing);
        if self.has_path {
            self.enter(cx, CallState::EarlyMedia);
        }
        self.apply_media(cx);
        if let Some(auto) = &cx.account.config.auto_answer {
            let at = self.created + Duration::from_millis(auto.after_ms);
            self.timers.answer = Some(at.max(cx.now));
        }
        if self.answer_wanted {
            self.answer(cx);
        }
    }

    fn write_answer(&mut self, agreed: &negotiate::Agreed) -> Option<(Description, String)> {
        let transport = self.transport(agreed.ice.is_some(), agreed.mux, false)?;
        let offer = self.their_offer.as_ref()?;
        let way = agreed.direction.and(self.our_way());
        let answer = negotiate::make_answer(offer, agreed, &self.seeds.key, way, transport);
        let text = self.origin.write(&answer);
        Some((answer, text))
    }

    /// The user (or the bot's clock) takes the call.
    pub(crate) fn take(&mut self, cx: &mut Cx<'_>, options: &AnswerOptions) {
        if let Some(source) = &options.source {
            self.source = source.clone();
        }
        self.answer(cx);
    }

    /// 200, as soon as the 183 has left.
    pub(crate) fn answer(&mut self, cx: &mut Cx<'_>) {
        self.timers.answer = None;
        if self.stage != Stage::Offered || self.direction != Direction::Incoming {
            self.answer_wanted = true;
            return;
        }
        let Some(leg) = self.leg else { return };
        let text = match (self.answer_text.clone(), self.agreed().cloned()) {
            (Some(text), _) => Some(text),
            (None, Some(agreed)) => self.write_answer(&agreed).map(|(_, text)| text),
            (None, None) => self.write_late_offer(),
        };
        let Some(text) = text else { return };
        let (bytes, plain) = (text.len(), self.agreed().is_some_and(|agreed| agreed.ice.is_none()));
        if let Err(error) = cx.account.endpoint.accept(cx.now, leg, text) {
            return self.end(cx, EndReason::Internal { what: format!("the 200 could not be sent: {error}") });
        }
        self.stage = Stage::Confirmed;
        self.timers.ring = None;
        self.answered = Some(cx.now);
        let candidates = self.local.as_ref().filter(|_| !plain).map_or(0, |local| local.candidates.len());
        let crypto = self.agreed().is_some_and(|agreed| agreed.crypto.is_some());
        self.tell(cx, CallChange::OfferSent { message: "200".to_owned(), candidates, crypto, bytes });
        if plain && let Some(agreed) = self.agreed().cloned() {
            self.connect_peer(cx, &agreed);
        }
        if let (Some(peer), Some(flow)) = (self.fork().and_then(|fork| fork.peer), &mut self.flow) {
            flow.choose(cx.now, peer);
        }
        self.enter(cx, CallState::Talking);
        self.apply_media(cx);
    }

    /// The INVITE had no offer: the 200 carries ours (RFC 3264 §4, RFC 3261 §13.3.1.4).
    fn write_late_offer(&mut self) -> Option<String> {
        let transport = self.transport(true, false, false)?;
        let way = self.our_way();
        let options =
            OfferOptions { srtp: self.srtp_mode(), key: &self.seeds.key, mux: true, direction: way, before: None };
        let offer = negotiate::make_offer(&options, transport);
        let text = self.origin.write(&offer);
        self.offer = Some(offer);
        Some(text)
    }

    /// The ACK came. With a late offer it brings the answer.
    pub(crate) fn confirmed(&mut self, cx: &mut Cx<'_>, dialog: DialogId, sdp: Option<&str>) {
        if !self.is_alive() {
            return;
        }
        self.acknowledged = true;
        if self.forks.is_empty() {
            let answer = sdp.ok_or_else(|| NegotiateError::Syntax("the ACK has none".to_owned()));
            let agreed = answer.and_then(Description::read).and_then(|answer| {
                let offer = self.offer.as_ref().ok_or(NegotiateError::NoAudio)?;
                negotiate::apply_answer(offer, &answer, self.srtp_mode()).map(|agreed| (answer, agreed))
            });
            match agreed {
                Ok((answer, agreed)) => self.late_answer(cx, dialog, &answer, agreed),
                Err(error) => return self.end(cx, EndReason::NotAcceptable { problem: error.to_string() }),
            }
        }
        self.apply_media(cx);
        self.next_offer(cx);
    }

    fn late_answer(&mut self, cx: &mut Cx<'_>, dialog: DialogId, answer: &Description, agreed: negotiate::Agreed) {
        self.tell(cx, received(answer, &agreed));
        self.start_session(cx, &agreed);
        let peer = self.connect_peer(cx, &agreed);
        if let (Some(peer), Some(flow)) = (peer, &mut self.flow) {
            flow.choose(cx.now, peer);
        }
        self.forks.insert(dialog, Fork::new(0, peer, agreed));
        self.apply_media(cx);
    }

    /// The caller gave up.
    pub(crate) fn cancelled(&mut self, cx: &mut Cx<'_>, reason: Option<&str>) {
        // RFC 3326 §2: another device of ours took it.
        let elsewhere =
            reason.is_some_and(|reason| reason.contains("cause=200") || reason.contains("completed elsewhere"));
        self.signalling_done = true;
        self.tear_down(cx, if elsewhere { EndReason::AnsweredElsewhere } else { EndReason::Cancelled });
        self.signalling_ended(cx);
    }
}

/// What is sent before the answer: the media of a bot, else the ringing the caller should hear.
fn early_source(account: &Account) -> media::Source {
    match &account.config.auto_answer {
        Some(auto) => views::source(auto.options.source.as_ref().unwrap_or(&account.config.source)),
        None => media::Source::Ringback,
    }
}

fn received(description: &Description, agreed: &negotiate::Agreed) -> CallChange {
    CallChange::AnswerReceived {
        message: "INVITE".to_owned(),
        early_dialog: 0,
        candidates: description.ice.as_ref().map(|ice| views::candidates(&ice.candidates)).unwrap_or_default(),
        ice: agreed.ice.is_some(),
        rtcp_mux: agreed.mux,
        crypto: agreed.crypto.is_some(),
        took_ms: 0,
    }
}

fn refuse(cx: &mut Cx<'_>, incoming: &Incoming, error: &NegotiateError) {
    let headers = [("Warning".to_owned(), error.warning().to_owned())];
    let _ = cx.account.endpoint.reject(cx.now, incoming.leg, 488, "", &headers);
    let what = format!("a call from {} was refused: {error}", uri_of(&incoming.from));
    let warning = crate::api::Warning::PeerMisbehaves { what };
    cx.ports.account_event(cx.account.id, crate::api::AccountChange::Warned { warning });
}

/// The URI inside a From value.
fn uri_of(from: &str) -> String {
    // Read by the grammar: a quoted display name may hold anything, another address in angle brackets too.
    from.parse::<NameAddr>().map_or_else(|_| "an unknown caller".to_owned(), |address| address.uri.to_string())
}
