//! Keeping the media of a running call alive: what is done when a path dies, the network changes or a better way opens.
//!
//! ```text
//!   the agent moves to a standby pair            nothing to do here but to tell it
//!   PathDead: silent ──────▶ the caller restarts ICE at once, the callee a second later (RFC 3261 §14.1: no glare)
//!             rebound ─────▶ our network: whoever sees it reconnects, re-registers and restarts at once
//!   addresses changed ─────▶ the same
//!   still broken ──────────▶ again every few seconds; what servers give late is offered at once
//!   a better way is open ──▶ ICE restart, while media goes on where it is
//! ```
//!
//! The signalling has to be alive for that: it is asked for a sign of life together with the path, and a dead connection is
//! replaced before media is given up. The re-INVITE waits for the registration.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ice::{Path, PathTrouble};

use super::call::{Call, Cx};
use super::reoffer::Pending;
use super::views;
use crate::api::{CallChange, Direction, EndReason, PathPolicy};

/// A lost path must be repaired within this time.
const REPAIR_PATIENCE: Duration = Duration::from_secs(20);
/// The caller begins; the callee only if nothing has come by then.
const DEFERENCE: Duration = Duration::from_millis(1500);
/// A restart that has not helped is followed by another one.
const AGAIN: Duration = Duration::from_secs(4);
/// Between two restarts for something better.
const BETTER_EVERY: Duration = Duration::from_secs(15);
/// Between two attempts to offer what came late.
const LATE_AGAIN: Duration = Duration::from_millis(100);
/// What one side gets late, the other one often gets at the same moment: the callee's offer waits for the caller's.
const LATE_DEFERENCE: Duration = Duration::from_millis(400);

/// How a call's media is being repaired.
#[derive(Debug, Default)]
pub(crate) struct Repair {
    /// Why the path in use is of no use, since it is not.
    pub(crate) cause: Option<String>,
    /// When ICE is restarted, again.
    pub(crate) restart_at: Option<Instant>,
    /// Candidates came up after the description had left; it is to be sent again from then on.
    pub(crate) late_at: Option<Instant>,
    /// The last restart for something better.
    better_at: Option<Instant>,
    /// Without a path the call ends then.
    pub(crate) give_up_at: Option<Instant>,
}

impl Repair {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.restart_at, self.late_at, self.give_up_at].into_iter().flatten().min()
    }
}

impl Call {
    /// The pair in use does not answer, and no standby does.
    pub(crate) fn path_dead(&mut self, cx: &mut Cx<'_>, path: &Path, trouble: PathTrouble) {
        if !self.is_confirmed() {
            return;
        }
        let cause = trouble.to_string();
        self.tell(cx, CallChange::PathLost { path: views::path(path), cause: cause.clone() });
        self.repair.cause = Some(cause);
        match trouble {
            PathTrouble::Rebound => {
                cx.account.reconnect(cx.now, "this host is seen at another address", cx.ports);
                self.restart_now(cx);
            }
            PathTrouble::Silent => {
                cx.account.check_signalling(cx.now);
                match self.direction {
                    Direction::Outgoing => self.restart_now(cx),
                    Direction::Incoming => self.repair.restart_at = Some(cx.now + DEFERENCE),
                }
            }
        }
    }

    /// Media goes somewhere that works, or works again where it went.
    pub(crate) fn path_works(&mut self) {
        self.repair = Repair { better_at: self.repair.better_at, ..Repair::default() };
    }

    /// RFC 7675 §5.1: nothing is sent any more, and an ICE restart is the way back. The caller starts it.
    pub(crate) fn consent_lost(&mut self, cx: &mut Cx<'_>, path: &Path) {
        self.has_path = false;
        self.apply_media(cx);
        let cause = "nobody answers there any more, or our relay is gone".to_owned();
        self.tell(cx, CallChange::PathLost { path: views::path(path), cause: cause.clone() });
        self.repair.cause = Some(cause);
        self.repair.give_up_at.get_or_insert(cx.now + REPAIR_PATIENCE);
        cx.account.check_signalling(cx.now);
        if self.direction == Direction::Outgoing || path.relay.is_some() {
            self.restart_now(cx);
        } else {
            self.repair.restart_at.get_or_insert(cx.now + DEFERENCE);
        }
    }

    /// ICE begins again, unless that is under way.
    pub(crate) fn restart_now(&mut self, cx: &mut Cx<'_>) {
        self.repair.restart_at = self.repair.cause.is_some().then(|| cx.now + AGAIN);
        let is_under_way = matches!(
            self.pending,
            Some(Pending::RestartGathering | Pending::Restart | Pending::AnswerAfterGathering(_))
        );
        if !is_under_way && !self.restart_offer_due {
            self.restart_due = true;
            self.next_offer(cx);
        }
    }

    /// A candidate that the peer does not know. Worth an offer only while nothing works.
    pub(crate) fn late_candidate(&mut self, cx: &mut Cx<'_>) {
        if self.repair.cause.is_none() || !self.is_confirmed() {
            return;
        }
        self.local = self.flow.as_ref().map(|flow| flow.agent().local_description());
        let wait = if self.direction == Direction::Outgoing { Duration::ZERO } else { LATE_DEFERENCE };
        self.repair.late_at.get_or_insert(cx.now + wait);
        self.next_offer(cx);
    }

    /// Something better than a relay may be possible now.
    pub(crate) fn better_possible(&mut self, cx: &mut Cx<'_>) {
        let is_recent = self.repair.better_at.is_some_and(|at| cx.now < at + BETTER_EVERY);
        if self.is_confirmed() && self.repair.cause.is_none() && !is_recent {
            self.repair.better_at = Some(cx.now);
            cx.account.relays.forget_failures(); // who was silent is worth waiting for again
            self.restart_now(cx);
        }
    }

    /// The addresses of this host changed: ICE starts again on what there is now (RFC 8445 §9), while media stays where it is
    /// as long as that works.
    pub(super) fn network_changed(&mut self, cx: &mut Cx<'_>) {
        if !self.is_confirmed() {
            return;
        }
        let here = |address: &SocketAddr| address.ip().is_loopback() || cx.account.interfaces.contains(&address.ip());
        let candidates = self.local.iter().flat_map(|local| &local.candidates);
        let gone = candidates.filter(|c| c.kind == ice::CandidateType::Host).any(|candidate| !here(&candidate.addr));
        // Without host candidates (policy) only the base of the path tells, and that is what `related` hides: restart.
        let hidden = self.policy != PathPolicy::All;
        if gone || hidden {
            self.repair.cause.get_or_insert_with(|| "an address of this host is gone".to_owned());
        }
        self.restart_now(cx);
    }

    /// The host has slept: connections and mappings are gone, and nobody has told.
    pub(super) fn woken(&mut self, cx: &mut Cx<'_>) {
        if self.is_confirmed() {
            self.repair.cause.get_or_insert_with(|| "this host was suspended".to_owned());
            self.restart_now(cx);
        }
    }

    /// Media of the peer is back after a break.
    pub(crate) fn media_gap(&mut self, cx: &mut Cx<'_>, length: Duration, path: &Path) {
        let cause = self.repair.cause.clone().unwrap_or_else(|| "the path before died".to_owned());
        self.tell(cx, CallChange::MediaGap { length_ms: views::millis(length), path: views::path(path), cause });
    }

    /// What the repair has due.
    pub(crate) fn run_repair(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        if self.repair.restart_at.take_if(|at| *at <= now).is_some() {
            self.restart_now(cx);
        }
        if self.repair.late_at.is_some_and(|at| at <= now) {
            self.next_offer(cx);
            // Something else is being negotiated: a little later.
            self.repair.late_at = self.repair.late_at.map(|at| at.max(now + LATE_AGAIN));
        }
        if self.repair.give_up_at.take_if(|at| *at <= now).is_some() {
            let report = Box::new(self.ice_report());
            self.end(cx, EndReason::PathLost { report });
        }
    }

    /// The connection to the server is there again: what could not be said is said now.
    pub(crate) fn signalling_is_back(&mut self, cx: &mut Cx<'_>) {
        if self.is_confirmed() {
            self.timers.offer = None;
            self.next_offer(cx);
        }
    }
}
