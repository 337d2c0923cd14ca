//! Consent: nothing is sent to a peer that has not answered for 30 s (RFC 7675 §5.1), which also keeps the NATs open
//! (RFC 8445 §11).
//!
//! The pair in use is asked every 4 to 6 s, a standby pair every 15 s. Whether a path is still good for a conversation is
//! decided faster, and elsewhere: see `liveness`.

use std::time::{Duration, Instant};

use rand::RngExt;

use crate::check::{CheckFailure, Purpose};
use crate::pair::PairId;
use crate::peer::{Context, Session};

/// Without an answer for so long, sending ends (RFC 7675 §5.1).
pub(crate) const EXPIRY: Duration = Duration::from_secs(30);

/// 5 s, randomised by 0.8 to 1.2 (RFC 7675 §5.1).
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 4000..=6000;

const STANDBY_INTERVAL: Duration = Duration::from_secs(15);

/// Freshness of one valid pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Consent {
    pub next_at: Instant,
    pub expires_at: Instant,
    pub answered_at: Instant,
    /// It has answered every question since then.
    pub proved_since: Option<Instant>,
}

impl Session {
    /// Begins to watch a pair; the check that made it valid counts as an answer.
    pub(crate) fn start_consent(&mut self, cx: &mut Context<'_>, id: PairId) {
        let next_at = cx.now + random_interval(cx);
        let fresh = Consent { next_at, expires_at: cx.now + EXPIRY, answered_at: cx.now, proved_since: None };
        let consent = self.consents.entry(id).or_insert(fresh);
        consent.next_at = consent.next_at.min(next_at);
    }

    pub(crate) fn renew_consent(&mut self, cx: &mut Context<'_>, id: PairId) {
        if let Some(consent) = self.consents.get_mut(&id) {
            consent.expires_at = cx.now + EXPIRY;
            consent.answered_at = cx.now;
            consent.proved_since.get_or_insert(cx.now);
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
            self.watch_standby(cx, id);
        }
    }

    /// Begins to watch a pair that stands by; how fresh its last answer is, is not known.
    pub(crate) fn watch_standby(&mut self, cx: &Context<'_>, id: PairId) {
        let next_at = cx.now + STANDBY_INTERVAL;
        let fresh = Consent { next_at, expires_at: cx.now + 2 * EXPIRY, answered_at: self.started, proved_since: None };
        self.consents.entry(id).or_insert(fresh);
    }

    pub(crate) fn consent_at(&self) -> Option<Instant> {
        self.consents.values().map(|c| c.next_at.min(c.expires_at)).min()
    }
}

fn random_interval(cx: &mut Context<'_>) -> Duration {
    Duration::from_millis(cx.half.rng.random_range(INTERVAL_MS))
}
