//! One remote description and its checklist; with forking there are several, all served by our one half
//! (RFC 3261 §13.2.2.4).
//!
//! ```text
//!   Peer ── session ──── checklist, checks in flight, paths, consent
//!      └─── previous ─── the session before an ICE restart, used until the new one has its nominated pairs
//!
//!   Session:  checking ──first valid──▶ sending ──nomination──▶ concluded ──3 s──▶ released
//!                └── 39.5 s without a valid pair for every component ──▶ failed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::candidate::{Candidate, Component};
use crate::check::{Check, CheckFailure, Repeat};
use crate::checklist::{Checklist, Readiness};
use crate::consent::Consent;
use crate::description::{NominatedPair, RemoteDescription, Role};
use crate::event::{Event, PathClass, PeerId};
use crate::liveness::Watch;
use crate::local::{Credentials, Half, News};
use crate::pair::{Base, LocalCandidate, Pair, PairId, PairState, RelayEnd};
use crate::policy::Dialect;
use crate::stun::TransactionId;

/// The slowest pace a peer may ask for: a check a second. Any more and it would stop the other forks, which share the
/// pacing with it (RFC 8445 §14.2).
const PACING_MOST: Duration = Duration::from_secs(1);

/// What a session needs from its surroundings.
pub(crate) struct Context<'a> {
    pub now: Instant,
    pub half: &'a mut Half,
    pub dialect: Dialect,
    pub tie_breaker: &'a mut u64,
    pub peer: PeerId,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub session: Session,
    pub previous: Option<Session>,
    /// Its dialog is the confirmed one, since then.
    pub chosen_at: Option<Instant>,
    pub is_reached: bool,
    /// Last media of component 1.
    pub media_at: Option<Instant>,
    /// A path did not work since then.
    pub is_broken: bool,
}

impl Peer {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, previous: None, chosen_at: None, is_reached: false, media_at: None, is_broken: false }
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = &Session> {
        std::iter::once(&self.session).chain(self.previous.as_ref())
    }

    /// An ICE restart: the new session checks, the old one goes on carrying media (RFC 8445 §9).
    pub(crate) fn restart(&mut self, mut session: Session) {
        session.is_restart = true;
        session.patience_from = Some(session.started);
        let old = std::mem::replace(&mut self.session, session);
        if !old.paths.is_empty() || self.previous.is_none() {
            self.previous = Some(old); // else the one before still carries the media
        }
        self.session.holds_back = self.previous.as_ref().is_some_and(|p| !p.paths.is_empty());
    }

    /// Drops the old session when the new one carries everything, and stops waiting when the old one is dead.
    pub(crate) fn settle_restart(&mut self, cx: &mut Context<'_>) {
        let Some(previous) = &self.previous else { return };
        let components = self.session.components(cx.half);
        if components.iter().all(|c| self.session.paths.contains_key(c)) {
            self.previous = None;
        } else if self.session.holds_back && (previous.paths.is_empty() || previous.is_given_up_by(cx.now)) {
            self.session.holds_back = false;
            self.session.use_first_valid(cx);
        }
    }
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub(crate) struct Session {
    pub local: Credentials,
    pub remote: RemoteDescription,
    pub role: Role,
    pub checklist: Checklist,
    /// Ta: the larger of both sides' values.
    pub pacing: Duration,
    pub started: Instant,
    /// The time to fail counts from here. `None` at the answerer while it rings: a caller that the 183 does not reach
    /// begins its checks with the 200.
    pub patience_from: Option<Instant>,
    pub checks: BTreeMap<TransactionId, Check>,
    /// Where media goes.
    pub paths: BTreeMap<Component, PairId>,
    /// Nominated and used, or to be used when the re-INVITE is answered.
    pub selected: BTreeMap<Component, PairId>,
    /// Nomination checks to send or in flight.
    pub nominating: BTreeMap<Component, PairId>,
    /// Nominations without an answer.
    pub repeats: BTreeMap<PairId, Repeat>,
    pub first_valid: Option<(Instant, Duration)>,
    pub concluded_at: Option<Instant>,
    pub release_at: Option<Instant>,
    pub is_released: bool,
    pub has_failed: bool,
    pub is_restart: bool,
    /// The session before the restart still carries the media.
    pub holds_back: bool,
    /// Components that had a path and lost it.
    pub lost: BTreeSet<Component>,
    pub consents: BTreeMap<PairId, Consent>,
    /// Signs of life on the paths in use.
    pub watches: BTreeMap<Component, Watch>,
    /// When better pairs are tried again.
    pub hope_at: Option<Instant>,
    /// Media goes another way than before.
    pub has_moved: bool,
    /// Pairs of a `remote-candidates` offer that wait for their checks.
    pub awaited: Vec<NominatedPair>,
    /// Counts our nominations, for NOMINATION.
    pub nominations: u32,
    /// Numbers the foundations of peer-reflexive candidates.
    pub learnt: u32,
}

impl Session {
    pub(crate) fn new(cx: &mut Context<'_>, remote: RemoteDescription, role: Role, ours: Duration) -> Self {
        // A lite peer never nominates, whoever offered (RFC 8445 §6.1.1).
        let role = if remote.lite { Role::Controlling } else { role };
        let pacing = ours.max(remote.pacing.unwrap_or(cx.dialect.default_pacing).min(PACING_MOST));
        let mut session = Self {
            local: cx.half.credentials.clone(),
            remote,
            role,
            checklist: Checklist::new(role),
            pacing,
            started: cx.now,
            patience_from: (role == Role::Controlling).then_some(cx.now),
            checks: BTreeMap::new(),
            paths: BTreeMap::new(),
            selected: BTreeMap::new(),
            nominating: BTreeMap::new(),
            repeats: BTreeMap::new(),
            first_valid: None,
            concluded_at: None,
            release_at: None,
            is_released: false,
            has_failed: false,
            is_restart: false,
            holds_back: false,
            lost: BTreeSet::new(),
            consents: BTreeMap::new(),
            watches: BTreeMap::new(),
            hope_at: None,
            has_moved: false,
            awaited: Vec::new(),
            nominations: 0,
            learnt: 0,
        };
        session.merge(cx, session.remote.candidates.clone());
        session
    }

    /// Takes the candidates of a description; known ones change nothing.
    pub(crate) fn merge(&mut self, cx: &mut Context<'_>, candidates: Vec<Candidate>) {
        for candidate in candidates {
            self.checklist.add_remote(candidate);
        }
        self.form(cx);
    }

    /// Pairs what is new on either side, and asks the relays for permissions.
    pub(crate) fn form(&mut self, cx: &mut Context<'_>) {
        if self.is_over() || self.has_failed {
            return;
        }
        let lasting = cx.half.local_candidates().iter().filter(|c| !cx.half.is_ending(c.base));
        let local: Vec<LocalCandidate> = lasting.cloned().collect();
        let added = self.checklist.form(&local);
        for id in added {
            if let Some((base, remote)) = self.checklist.get(id).map(|p| (p.base(), p.remote.addr)) {
                ask_permission(cx, base, remote.ip());
            }
        }
    }

    /// The components that both sides have (RFC 8445 §6.1.2.2): RTP always.
    pub(crate) fn components(&self, half: &Half) -> Vec<Component> {
        let told = &self.remote.candidates;
        let has = |c: &Component| *c == Component::Rtp || told.is_empty() || told.iter().any(|r| r.component == *c);
        half.components.iter().copied().filter(has).collect()
    }

    /// Whether both sides announced that a standby pair may take over.
    pub(crate) fn renominates(&self) -> bool {
        self.remote.renomination
    }

    /// No new pairs: the nominated ones are in use, and what stands by has been found.
    pub(crate) fn is_over(&self) -> bool {
        self.concluded_at.is_some() && (self.is_released || !self.renominates())
    }

    /// Whether a check could go out now.
    pub(crate) fn has_next(&mut self, half: &Half) -> bool {
        !self.has_failed && self.checklist.next(|pair| half.readiness(pair)).is_some()
    }

    /// Everything that is due.
    pub(crate) fn run(&mut self, cx: &mut Context<'_>) {
        if self.has_failed {
            return;
        }
        self.fail_refused(cx);
        self.poll_checks(cx);
        self.run_repeats(cx);
        self.run_liveness(cx);
        self.run_hopes(cx);
        self.run_consent(cx);
        self.run_promotion(cx);
        self.run_awaited(cx);
        self.run_patience(cx);
    }

    /// Pairs whose relay does not let the peer through.
    fn fail_refused(&mut self, cx: &mut Context<'_>) {
        let refused = self.checklist.pairs().filter(|(_, pair)| {
            matches!(pair.state, PairState::Waiting | PairState::Frozen)
                && cx.half.readiness(pair) == Readiness::Refused
        });
        for id in refused.map(|(id, _)| id).collect::<Vec<_>>() {
            self.pair_failed(cx, id, CheckFailure::Permission);
        }
    }

    /// RFC 8863 §4: pairs may still come up, so failing waits its time even if every check has failed.
    fn run_patience(&mut self, cx: &mut Context<'_>) {
        let Some(from) = self.patience_from else { return };
        if self.concluded_at.is_some() || cx.now < from + cx.dialect.patience {
            return;
        }
        let is_valid = |component: &Component| {
            self.checklist.pairs().any(|(_, pair)| pair.component() == *component && pair.is_valid())
        };
        if !self.components(cx.half).iter().all(is_valid) {
            self.has_failed = true;
            self.checks.clear();
            self.paths.clear();
            cx.half.news.push_back(News::SessionFailed(cx.peer));
        }
    }

    pub(crate) fn deadline(&self, cx_dialect: &Dialect, components: &[Component]) -> Option<Instant> {
        if self.has_failed {
            return None;
        }
        let checks = self.checks.values().map(|check| check.transaction.deadline()).min();
        let is_waiting = self.concluded_at.is_none() && !self.all_valid(components);
        let patience = self.patience_from.filter(|_| is_waiting).map(|from| from + cx_dialect.patience);
        let promotion = self.promotion_at(cx_dialect, components);
        let repeat = self.repeats.values().map(|repeat| repeat.at).min();
        [checks, patience, promotion, repeat, self.consent_at(), self.liveness_at(), self.hope_at(), self.release_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The answer has been accepted: what went unanswered while it rang is checked again, and the time to fail begins.
    pub(crate) fn confirm(&mut self, cx: &mut Context<'_>) {
        if self.patience_from.is_none() {
            self.patience_from = Some(cx.now);
            self.checklist.revive_unanswered();
        }
    }

    fn all_valid(&self, components: &[Component]) -> bool {
        components.iter().all(|c| self.checklist.pairs().any(|(_, p)| p.component() == *c && p.is_valid()))
    }

    /// Component 2 is not needed any more.
    pub(crate) fn drop_rtcp(&mut self, cx: &mut Context<'_>) {
        let gone: BTreeSet<PairId> =
            self.checklist.pairs().filter(|(_, p)| p.component() == Component::Rtcp).map(|(id, _)| id).collect();
        self.forget(&gone);
        for map in [&mut self.paths, &mut self.selected, &mut self.nominating] {
            map.remove(&Component::Rtcp);
        }
        self.lost.remove(&Component::Rtcp);
        self.awaited.retain(|pair| pair.component == Component::Rtp);
        self.conclude_if_complete(cx);
    }

    /// Removes pairs with everything that hangs on them.
    pub(crate) fn forget(&mut self, pairs: &BTreeSet<PairId>) {
        self.checklist.retain(|id, _| !pairs.contains(&id));
        self.checks.retain(|_, check| !pairs.contains(&check.pair));
        self.consents.retain(|id, _| !pairs.contains(id));
        self.repeats.retain(|id, _| !pairs.contains(id));
    }

    /// A socket or relay is gone.
    pub(crate) fn base_lost(&mut self, cx: &mut Context<'_>, base: Base) {
        let on_base = self.checklist.pairs().filter(|(_, pair)| pair.base() == base);
        for id in on_base.map(|(id, _)| id).collect::<Vec<_>>() {
            self.lose_pair(cx, id, CheckFailure::BaseLost);
        }
    }

    /// 3 s after conclusion only the pairs in use and their standbys stay (RFC 8445 §8.3).
    pub(crate) fn release(&mut self, now: Instant) {
        self.is_released = true;
        self.release_at = None;
        self.hope_at = Some(now);
        let mut keep = self.kept_pairs();
        keep.extend(self.hopes());
        let gone = self.checklist.pairs().map(|(id, _)| id).filter(|id| !keep.contains(id)).collect();
        self.forget(&gone);
    }

    /// The pairs in use, and towards a peer that renominates standbys: the best valid pair of each class, through each
    /// relay of either side, and around the relays in use.
    fn kept_pairs(&self) -> BTreeSet<PairId> {
        let used: BTreeSet<PairId> = self.paths.values().chain(self.selected.values()).copied().collect();
        let mut keep = used.clone();
        if !self.renominates() {
            return keep;
        }
        let used_pairs = || used.iter().filter_map(|id| self.checklist.get(*id));
        let is_around = |pair: &Pair| {
            let of_component = used_pairs().filter(|used| used.component() == pair.component());
            let mut avoided = of_component.flat_map(Pair::relays).map(RelayEnd::ip);
            avoided.all(|ip| pair.relays().iter().all(|relay| relay.ip() != ip))
        };
        let mut best = BTreeMap::new();
        for (id, pair) in self.checklist.pairs().filter(|(_, pair)| pair.is_valid()) {
            let mut merits = vec![Merit::Class(pair.class())];
            merits.extend(pair.relays().into_iter().map(Merit::Through));
            merits.extend(is_around(pair).then_some(Merit::Around));
            for merit in merits {
                let slot = best.entry((pair.component(), merit)).or_insert((pair.rank(), id));
                *slot = (*slot).min((pair.rank(), id));
            }
        }
        keep.extend(best.into_values().map(|(_, id)| id));
        keep
    }

    /// What our half must keep for this session.
    pub(crate) fn bases(&self) -> impl Iterator<Item = Base> {
        self.checklist.pairs().map(|(_, pair)| pair.base())
    }

    pub(crate) fn event_pair_valid(&self, cx: &mut Context<'_>, id: PairId) {
        if let Some(path) = self.path_of(id) {
            cx.half.event(Event::PairValid { peer: cx.peer, component: path.component, path });
        }
    }
}

/// What a standby pair is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Merit {
    Class(PathClass),
    /// Through this relay.
    Through(RelayEnd),
    /// Without the relays in use.
    Around,
}

/// Relays let a peer through only after CreatePermission, the peer's relays included (RFC 8445 §7.2.1).
pub(crate) fn ask_permission(cx: &mut Context<'_>, base: Base, peer: std::net::IpAddr) {
    match base {
        Base::Relay(relay) => cx.half.permit(cx.now, relay, peer),
        Base::Socket(_) | Base::Tcp(_) => {}
    }
}
