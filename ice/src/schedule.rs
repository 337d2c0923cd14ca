//! What is due: after every input the agent settles, and says when it wants to be called next.
//!
//! Pacing is one for the whole agent (RFC 8445 §14.2): gathering first, then the peers in turn, each with its own Ta.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use crate::agent::{Agent, DEADLINE_LEAST};
use crate::event::{Event, PeerId};
use crate::gather;
use crate::local::News;
use crate::pair::Base;
use crate::peer::Peer;
use crate::promotion::RELEASE_AFTER;

/// Queued pairs that turn out to need no check any more are skipped; more than all pairs there cannot be.
const STARTS_MAX: usize = 1000;

/// One input leads to few rounds of news; this many mean a loop, which then goes on at the next deadline.
const ROUNDS_MAX: usize = 64;

impl Agent {
    /// Does everything that is due at `now`.
    pub(crate) fn settle(&mut self, now: Instant) {
        self.now = now;
        for _ in 0..ROUNDS_MAX {
            self.half.start_streams(now);
            self.half.poll_bindings(now);
            self.half.poll_soundings(now);
            self.half.poll_relays(now);
            self.half.poll_connections(now);
            self.half.keep_alive(now);
            self.half.retry_servers(now);
            self.take_news();
            self.run_peers();
            self.half.is_repairing = self.is_repairing();
            self.pace();
            self.half.check_gathered(now);
            self.half.check_closing(now);
            if self.half.news.is_empty() {
                break;
            }
        }
        self.deadline = self.next_deadline().map(|at| at.max(now + DEADLINE_LEAST));
    }

    fn take_news(&mut self) {
        while let Some(news) = self.half.news.pop_front() {
            match news {
                News::Candidate => self.each_session(super::peer::Session::form),
                News::Packet { base, from, payload } => self.packet(base, from, &payload),
                News::Disconnected { base, remote, cause } => {
                    self.each_session(|session, cx| session.disconnected(cx, base, remote, cause));
                }
                News::BaseLost(base) => self.each_session(|session, cx| session.base_lost(cx, base)),
                News::SessionFailed(peer) if self.fall_back(peer) => {}
                News::SessionFailed(peer) => {
                    let report = self.report();
                    self.half.event(Event::Failed { peer, report });
                }
            }
        }
    }

    /// An ICE restart came to nothing while the path before it still works: it stays (RFC 8445 §9).
    fn fall_back(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        match peer.previous.take_if(|previous| !previous.paths.is_empty()) {
            Some(previous) => peer.session = previous,
            None => return false,
        }
        true
    }

    /// Whether a restart is under way because nothing works.
    fn is_repairing(&self) -> bool {
        let is_new = |peer: &Peer| peer.session.local != self.half.credentials || peer.session.is_restart;
        let works = |session: &crate::peer::Session| !session.paths.is_empty() && !session.is_broken(self.now);
        self.peers.values().any(|peer| is_new(peer) && !peer.sessions().any(works))
    }

    fn each_session(&mut self, mut act: impl FnMut(&mut crate::peer::Session, &mut crate::peer::Context<'_>)) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            for is_previous in [false, true] {
                self.with_session(id, is_previous, &mut act);
            }
        }
    }

    fn run_peers(&mut self) {
        self.each_session(super::peer::Session::run);
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(mut peer) = self.peers.remove(&id) else { continue };
            let now = self.now;
            let is_broken = peer.sessions().any(|session| session.has_moved || session.is_broken(now));
            peer.is_broken |= is_broken;
            peer.session.has_moved = false;
            peer.settle_restart(&mut self.context(id));
            // A restart that is being gathered needs what the old session has.
            let is_current = peer.session.local == self.half.credentials;
            let is_released = is_current && release_if_due(&mut peer, self.now);
            self.peers.insert(id, peer);
            if is_released {
                let (keep, links) = (self.bases_in_use(), self.links_in_use());
                self.half.retain_bases(self.now, &keep, &links);
            }
        }
    }

    /// Which bases are used towards which addresses: TCP connections are kept by it.
    fn links_in_use(&self) -> BTreeSet<(Base, SocketAddr)> {
        let sessions = self.peers.values().flat_map(Peer::sessions);
        sessions
            .flat_map(|session| session.checklist.pairs())
            .map(|(_, pair)| (pair.base(), pair.remote.addr))
            .collect()
    }

    /// Starts transactions, Ta apart.
    fn pace(&mut self) {
        for _ in 0..STARTS_MAX {
            if self.now < self.pace_at {
                return;
            }
            if self.half.start_attempt(self.now) {
                self.pace_at = self.now + gather::PACING;
            } else if let Some(id) = self.next_to_check() {
                self.last_paced = Some(id);
                let pacing =
                    self.with_session(id, false, |session, cx| session.start_next_check(cx).then_some(session.pacing));
                if let Some(Some(pacing)) = pacing {
                    self.pace_at = self.now + pacing;
                }
            } else {
                return;
            }
        }
    }

    /// The peer after the last one that has something to check; sessions before a restart check no more.
    fn next_to_check(&mut self) -> Option<PeerId> {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        let after = ids.iter().copied().filter(|id| Some(*id) > self.last_paced);
        let before = ids.iter().copied().filter(|id| Some(*id) <= self.last_paced);
        let order: Vec<PeerId> = after.chain(before).collect();
        order.into_iter().find(|id| {
            let half = &self.half;
            self.peers.get_mut(id).is_some_and(|peer| peer.session.has_next(half))
        })
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let mut deadlines = vec![
            self.half.next_attempt_at().map(|at| at.max(self.pace_at)),
            self.half.next_binding_at(),
            self.half.next_sounding_at(),
            self.half.next_retry_at(),
            self.half.next_relay_at(),
            self.half.next_connection_at(),
            self.half.next_gathering_at(),
            self.half.keepalive_at,
            self.half.closing,
        ];
        if self.next_to_check().is_some() {
            deadlines.push(Some(self.pace_at));
        }
        for peer in self.peers.values() {
            for session in peer.sessions() {
                let components = session.components(&self.half);
                deadlines.push(session.deadline(&self.config.dialect, &components));
            }
        }
        deadlines.into_iter().flatten().min()
    }
}

/// 3 s after the session has concluded and its dialog is the confirmed one. Says whether that is now.
fn release_if_due(peer: &mut Peer, now: Instant) -> bool {
    let session = &mut peer.session;
    let (Some(concluded_at), Some(chosen_at)) = (session.concluded_at, peer.chosen_at) else { return false };
    if session.is_released || peer.previous.is_some() {
        return false;
    }
    let at = concluded_at.max(chosen_at) + RELEASE_AFTER;
    session.release_at = Some(at);
    if now < at {
        return false;
    }
    session.release(now);
    true
}
