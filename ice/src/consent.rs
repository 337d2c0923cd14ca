//! Consent: nothing is sent to a peer that has not answered for 30 s (RFC 7675 §5.1), which also keeps the NATs open
//! (RFC 8445 §11).
//!
//! The pair in use is asked every 4 to 6 s, a standby pair every 15 s. Where both sides renominate, two unanswered
//! questions on the pair in use are enough to try the standby.

use std::time::{Duration, Instant};

use rand::RngExt;

use crate::check::{CheckFailure, Purpose};
use crate::description::Role;
use crate::pair::PairId;
use crate::peer::{Context, Session};

/// Without an answer for so long, sending ends (RFC 7675 §5.1).
pub(crate) const EXPIRY: Duration = Duration::from_secs(30);

/// 5 s, randomised by 0.8 to 1.2 (RFC 7675 §5.1).
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 4000..=6000;

const STANDBY_INTERVAL: Duration = Duration::from_secs(15);

/// Two questions without an answer, the second one with time to come back.
const SUSPECT_AFTER: Duration = Duration::from_secs(11);

/// Between attempts to move away from a suspect pair.
const RESCUE_INTERVAL: Duration = Duration::from_secs(3);

/// Freshness of one valid pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "instants are named so everywhere")]
pub(crate) struct Consent {
    pub next_at: Instant,
    pub expires_at: Instant,
    pub answered_at: Instant,
    /// When a standby pair was last asked to take over from this one.
    rescue_at: Option<Instant>,
}

impl Session {
    /// Begins to watch a pair; the check that made it valid counts as an answer.
    pub(crate) fn start_consent(&mut self, cx: &mut Context<'_>, id: PairId) {
        let next_at = cx.now + random_interval(cx);
        let fresh = Consent { next_at, expires_at: cx.now + EXPIRY, answered_at: cx.now, rescue_at: None };
        let consent = self.consents.entry(id).or_insert(fresh);
        consent.next_at = consent.next_at.min(next_at);
    }

    pub(crate) fn renew_consent(&mut self, cx: &mut Context<'_>, id: PairId) {
        if let Some(consent) = self.consents.get_mut(&id) {
            consent.expires_at = cx.now + EXPIRY;
            consent.answered_at = cx.now;
            consent.rescue_at = None;
        }
    }

    pub(crate) fn run_consent(&mut self, cx: &mut Context<'_>) {
        self.watch_standbys(cx);
        let due = self.consents.iter().filter(|(_, c)| c.next_at <= cx.now || c.expires_at <= cx.now);
        for (id, consent) in due.map(|(id, c)| (*id, *c)).collect::<Vec<_>>() {
            if consent.expires_at <= cx.now {
                self.lose_pair(cx, id, CheckFailure::ConsentLost);
                continue;
            }
            let is_used = self.is_used(id);
            let interval = if is_used { random_interval(cx) } else { STANDBY_INTERVAL };
            if let Some(consent) = self.consents.get_mut(&id) {
                consent.next_at = cx.now + interval;
            }
            self.start_check(cx, id, Purpose::Consent);
            if is_used {
                self.rescue(cx, id, consent);
            }
        }
    }

    fn is_used(&self, id: PairId) -> bool {
        self.paths.values().chain(self.selected.values()).any(|used| *used == id)
    }

    /// After the release only pairs in use and standbys are left.
    fn watch_standbys(&mut self, cx: &mut Context<'_>) {
        if !self.is_released || !self.renominates() {
            return;
        }
        let unwatched = self.checklist.pairs().filter(|(id, p)| p.is_valid() && !self.consents.contains_key(id));
        for id in unwatched.map(|(id, _)| id).collect::<Vec<_>>() {
            let next_at = cx.now + STANDBY_INTERVAL;
            let expires_at = cx.now + 2 * EXPIRY;
            self.consents.insert(id, Consent { next_at, expires_at, answered_at: cx.now, rescue_at: None });
        }
    }

    /// The pair in use is silent: the controlling side nominates a standby pair, and moves if that is answered.
    fn rescue(&mut self, cx: &mut Context<'_>, id: PairId, consent: Consent) {
        let is_suspect = cx.now >= consent.answered_at + SUSPECT_AFTER;
        let is_recent = consent.rescue_at.is_some_and(|at| cx.now < at + RESCUE_INTERVAL);
        let may = self.renominates() && self.role == Role::Controlling && self.concluded_at.is_some();
        if !is_suspect || is_recent || !may {
            return;
        }
        let Some(component) = self.checklist.get(id).map(super::pair::Pair::component) else { return };
        if let Some(consent) = self.consents.get_mut(&id) {
            consent.rescue_at = Some(cx.now);
        }
        if let Some(standby) = self.best_valid(component, Some(id)) {
            tracing::debug!(peer = %cx.peer, %component, "pair in use is silent: nominating the standby");
            self.start_check(cx, standby, Purpose::Nomination);
        }
    }

    pub(crate) fn consent_at(&self) -> Option<Instant> {
        self.consents.values().map(|c| c.next_at.min(c.expires_at)).min()
    }
}

fn random_interval(cx: &mut Context<'_>) -> Duration {
    Duration::from_millis(cx.half.rng.random_range(INTERVAL_MS))
}
