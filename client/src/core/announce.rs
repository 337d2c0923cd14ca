//! The re-INVITE after promotion (RFC 8839 §4.4.1.2): it names the chosen pair and nothing else, once per ICE session, sent by the
//! controlling side when the ACK has left and the pair is nominated. And answering one: not before the named pairs are valid here
//! (RFC 8839 §4.4.2).

use std::time::Instant;

use ice::{PairsVerdict, Path, PeerId};
use sip::event::DialogId;

use super::call::{Call, Cx};
use super::negotiate;
use super::reoffer::Pending;
use super::views;
use crate::api::CallChange;

impl Call {
    /// Every component has its nominated pair.
    pub(crate) fn concluded(&mut self, cx: &mut Cx<'_>, peer: PeerId, announce: bool, selected: Vec<Path>) {
        if !self.is_alive() {
            return;
        }
        if let Some(fork) = self.forks.values_mut().find(|fork| fork.peer == Some(peer)) {
            fork.concluded = Some((selected.clone(), announce));
        }
        // The pairs of another fork count if its dialog is the one that answers.
        if self.fork().and_then(|fork| fork.peer) == Some(peer) {
            self.promoted(cx, peer, announce, selected);
        }
    }

    /// The pairs of the dialog that counts: descriptions name them from now on.
    pub(crate) fn promoted(&mut self, cx: &mut Cx<'_>, peer: PeerId, announce: bool, selected: Vec<Path>) {
        let standby = self.standby(peer, &selected);
        let main = selected.iter().find(|path| path.component == ice::Component::Rtp).map(views::path);
        self.selected = selected;
        if let Some(path) = main {
            let after_ms = self.age(cx.now);
            self.tell(cx, CallChange::Promoted { path, after_ms, standby });
        }
        if announce {
            self.announce_due = true;
            self.next_offer(cx);
        }
    }

    /// Valid pairs of other classes than the selected one: they may take over without signalling.
    fn standby(&self, peer: PeerId, selected: &[Path]) -> Vec<crate::api::PathView> {
        let renominates = self.agreed().and_then(|agreed| agreed.ice.as_ref()).is_some_and(|ice| ice.renomination);
        let Some(report) = self.flow.as_ref().filter(|_| renominates).map(|flow| flow.agent().report()) else {
            return Vec::new();
        };
        let class = selected.first().map(|path| path.class);
        let pairs = report.peers.iter().filter(|of| of.peer == peer).flat_map(|of| &of.pairs);
        let valid =
            pairs.filter(|pair| matches!(pair.state, ice::PairView::Succeeded { .. }) && Some(pair.class) != class);
        let mut list: Vec<_> = valid.filter(|pair| pair.component == ice::Component::Rtp).collect();
        list.sort_by_key(|pair| (pair.class, std::cmp::Reverse(pair.priority)));
        list.dedup_by_key(|pair| pair.class);
        list.into_iter().map(|pair| views::pair(pair).path).collect()
    }

    pub(crate) fn send_announce(&mut self, cx: &mut Cx<'_>, dialog: DialogId) {
        self.send_reoffer(cx, dialog, Pending::Announce { since: cx.now }, true);
    }

    /// Dialects that move their media at this moment move now.
    pub(crate) fn announce_answered(&mut self, cx: &mut Cx<'_>, since: Instant) {
        if let (Some(peer), Some(flow)) = (self.fork().and_then(|fork| fork.peer), &mut self.flow) {
            flow.agent_mut().announced(cx.now, peer);
        }
        self.tell(cx, CallChange::Announced { by_us: true, took_ms: views::ms(since, cx.now) });
    }

    /// The pairs named by the peer's re-INVITE are decided: it can be answered.
    pub(crate) fn pairs_judged(&mut self, cx: &mut Cx<'_>, verdict: PairsVerdict) {
        if verdict == PairsVerdict::Pending || !matches!(self.pending, Some(Pending::AwaitPairs(_))) {
            return;
        }
        let (Some(dialog), Some(Pending::AwaitPairs(offer))) = (self.dialog, self.pending.take()) else { return };
        match negotiate::judge_offer(&offer, self.srtp) {
            Ok(agreed) => self.answer_reoffer(cx, dialog, *offer, agreed, Some(verdict)),
            Err(error) => self.warn(cx, error.to_string()),
        }
    }
}
