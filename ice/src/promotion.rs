//! When to nominate what: one pure function of the pairs and the time (RFC 8445 §8.1.1, §12.1).
//!
//! The controlling side nominates once per session, as soon as
//!
//! * the best pair left of every component is valid, or
//! * the settle time since the first valid pair is over (a field of the dialect; its longest value while only relays work
//!   and something better is open, or if a better class is valid on one component already), or
//! * 8 s have passed since the checks began,
//!
//! and every component has a valid pair. Best means: all components on paths of one class if that is possible, then
//! direct before reflexive before relay/UDP before relay/TCP, then the pair priority.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::candidate::Component;
use crate::check::Purpose;
use crate::description::{NominatedPair, PairsVerdict, Role};
use crate::event::{Event, Path, PathCause, PathClass};
use crate::pair::{Pair, PairId, Rank};
use crate::peer::{Context, Session};
use crate::policy::{Dialect, Moves};

/// One pair that has not failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub id: PairId,
    pub component: Component,
    pub rank: Rank,
    pub is_valid: bool,
}

impl Entry {
    /// `None` for a failed pair.
    pub(crate) fn of(id: PairId, pair: &Pair) -> Option<Self> {
        let is_valid = pair.is_valid();
        (is_valid || pair.is_open()).then(|| Self { id, component: pair.component(), rank: pair.rank(), is_valid })
    }
}

/// When things began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub started: Instant,
    /// The first valid pair, and its round trip.
    pub first_valid: Option<(Instant, Duration)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Ask again when a pair changes, or at this instant.
    Wait(Option<Instant>),
    /// These pairs, one per component.
    Nominate(BTreeMap<Component, PairId>),
}

/// The promotion rule.
pub(crate) fn decide(
    entries: &[Entry],
    components: &[Component],
    times: Times,
    dialect: &Dialect,
    now: Instant,
) -> Decision {
    let (Some(chosen), Some((first_valid, rtt))) = (best_valid(entries, components), times.first_valid) else {
        return Decision::Wait(None);
    };
    let awaits_second_try = is_relayed_only(entries, components) || is_half_proven(entries, components);
    let settle = if awaits_second_try { dialect.settle.longest() } else { dialect.settle.after(rtt) };
    let settled_at = (first_valid + settle).min(times.started + dialect.nominate_latest);
    if now >= settled_at || is_best_left(entries, components) {
        return Decision::Nominate(chosen);
    }
    Decision::Wait(Some(settled_at))
}

/// The best valid pair of each component; of one class throughout if there is such a class.
pub(crate) fn best_valid(entries: &[Entry], components: &[Component]) -> Option<BTreeMap<Component, PairId>> {
    let best = |component: Component, class: Option<PathClass>| {
        let of_component = entries.iter().filter(|e| e.is_valid && e.component == component);
        of_component.filter(|e| class.is_none_or(|class| e.rank.class == class)).min_by_key(|e| e.rank)
    };
    let all = |class: Option<PathClass>| -> Option<BTreeMap<Component, PairId>> {
        components.iter().map(|c| best(*c, class).map(|e| (*c, e.id))).collect()
    };
    let classes = PathClass::ALL;
    classes.into_iter().find_map(|class| all(Some(class))).or_else(|| all(None))
}

/// Nothing works but relays, and a pair without one is open. A check that came before the other side had opened its filter
/// is sent again after 500 ms only (RFC 8445 §14.3): behind a NAT that maps per destination no check of the other side
/// stands in for it, and without this time such a pair would stay on the relay by the luck of a millisecond.
fn is_relayed_only(entries: &[Entry], components: &[Component]) -> bool {
    let direct = |e: &&Entry| e.rank.class < PathClass::RelayUdp;
    let of = |component: Component| entries.iter().filter(move |e| e.component == component).filter(direct);
    components.iter().all(|c| of(*c).next().is_some()) && components.iter().any(|c| !of(*c).any(|e| e.is_valid))
}

/// A better class is valid on one component and still open on the others: the second component's check may have been
/// dropped as above, and would push both onto a relay.
fn is_half_proven(entries: &[Entry], components: &[Component]) -> bool {
    let has = |component: Component, class: PathClass, valid: bool| {
        entries.iter().any(|e| e.component == component && e.rank.class == class && (e.is_valid || !valid))
    };
    let classes = PathClass::ALL;
    let shared = |class: PathClass, valid: bool| components.iter().all(|c| has(*c, class, valid));
    let now = classes.into_iter().find(|class| shared(*class, true));
    let better = classes.into_iter().filter(|class| now.is_none_or(|now| *class < now));
    better.into_iter().any(|class| shared(class, false) && components.iter().any(|c| has(*c, class, true)))
}

fn is_best_left(entries: &[Entry], components: &[Component]) -> bool {
    components.iter().all(|component| {
        let left = entries.iter().filter(|e| e.component == *component);
        left.min_by_key(|e| (e.rank, !e.is_valid)).is_some_and(|e| e.is_valid)
    })
}

/// Losers stay open for packets under way (RFC 8445 §8.3).
pub(crate) const RELEASE_AFTER: Duration = Duration::from_secs(3);

impl Session {
    fn entries(&self) -> Vec<Entry> {
        self.checklist.pairs().filter_map(|(id, pair)| Entry::of(id, pair)).collect()
    }

    fn decision(&self, components: &[Component], dialect: &Dialect, now: Instant) -> Decision {
        let is_ours = self.role == Role::Controlling && self.concluded_at.is_none() && self.nominating.is_empty();
        let open: Vec<Component> = components.iter().copied().filter(|c| !self.selected.contains_key(c)).collect();
        if !is_ours || open.is_empty() {
            return Decision::Wait(None);
        }
        let times = Times { started: self.started, first_valid: self.first_valid };
        decide(&self.entries(), &open, times, dialect, now)
    }

    /// Nominates when the rule says so.
    pub(crate) fn run_promotion(&mut self, cx: &mut Context<'_>) {
        let components = self.components(cx.half);
        if let Decision::Nominate(chosen) = self.decision(&components, &cx.dialect, cx.now) {
            tracing::debug!(peer = %cx.peer, ?chosen, "nominating");
            // Pushed to the front one after the other: in reverse, so that RTP goes first.
            for id in chosen.values().rev() {
                self.checklist.trigger(*id, true);
            }
            self.nominating = chosen;
        }
    }

    /// When the rule has to be asked again though nothing happens.
    pub(crate) fn promotion_at(&self, dialect: &Dialect, components: &[Component]) -> Option<Instant> {
        // Before any instant: what is left is the waiting time.
        match self.decision(components, dialect, self.started) {
            Decision::Wait(at) => at,
            Decision::Nominate(_) => None,
        }
    }

    /// A valid pair was nominated, by us or by the other side (RFC 8445 §8.1.1, §7.3.1.5). Of several the last counts
    /// where both sides renominate, else the one with the highest priority (aggressive peers, RFC 5245 §8.1.1.2).
    pub(crate) fn nominate(&mut self, cx: &mut Context<'_>, id: PairId) {
        let renominates = self.renominates();
        let Some(pair) = self.checklist.get_mut(id) else { return };
        pair.nominated = true;
        let (component, priority, nomination) = (pair.component(), pair.priority, pair.nomination);
        if self.nominating.get(&component) == Some(&id) {
            self.nominating.remove(&component);
        }
        let current = self.selected.get(&component).copied();
        let loses_to = |other: &Pair| match (self.role, renominates) {
            (Role::Controlling, _) => false,
            (Role::Controlled, true) => other.nomination > nomination,
            (Role::Controlled, false) => other.priority >= priority,
        };
        if current == Some(id) || current.and_then(|other| self.checklist.get(other)).is_some_and(loses_to) {
            return;
        }
        self.selected.insert(component, id);
        let cause = match (self.is_restart, self.concluded_at) {
            (_, Some(_)) => PathCause::Renominated,
            (true, None) => PathCause::Restarted,
            (false, None) => PathCause::Promoted,
        };
        let is_moving = cx.dialect.moves == Moves::AtNomination || !self.paths.contains_key(&component);
        if is_moving && (self.paths.get(&component) != Some(&id) || self.concluded_at.is_none()) {
            self.set_path(cx, component, id, cause);
        }
        self.conclude_if_complete(cx);
    }

    /// Every component has its nominated pair: checking is over.
    pub(crate) fn conclude_if_complete(&mut self, cx: &mut Context<'_>) {
        let components = self.components(cx.half);
        let selected: Vec<Path> = components.iter().filter_map(|c| self.path_of(*self.selected.get(c)?)).collect();
        if self.concluded_at.is_some() || selected.len() < components.len() {
            return;
        }
        self.concluded_at = Some(cx.now);
        if !self.renominates() {
            self.checklist.stop();
            self.checks.retain(|_, check| check.purpose != Purpose::Connectivity || check.is_cancelled);
            self.drop_unfinished();
        } // else what may stand by is still being checked, until the release
        let announce = self.role == Role::Controlling;
        cx.half.event(Event::Concluded { peer: cx.peer, announce, selected });
    }

    /// Pairs whose check was in flight will not be answered any more.
    fn drop_unfinished(&mut self) {
        let open = self.checklist.pairs().filter(|(_, pair)| pair.is_open()).map(|(id, _)| id).collect();
        self.forget(&open);
    }

    /// Pairs named by the other side's `remote-candidates` (RFC 8839 §4.4.2): it controls, and they are nominated.
    pub(crate) fn await_pairs(&mut self, cx: &mut Context<'_>, pairs: &[NominatedPair]) -> PairsVerdict {
        if self.role == Role::Controlling && !self.remote.lite {
            self.switch_role(cx);
        }
        self.awaited = pairs.to_vec();
        let verdict = self.verdict(cx);
        self.adopt_if_valid(cx, verdict);
        verdict
    }

    pub(crate) fn run_awaited(&mut self, cx: &mut Context<'_>) {
        if self.awaited.is_empty() {
            return;
        }
        let verdict = self.verdict(cx);
        if verdict != PairsVerdict::Pending {
            self.adopt_if_valid(cx, verdict);
            cx.half.event(Event::RemoteCandidates { peer: cx.peer, verdict });
        }
    }

    fn adopt_if_valid(&mut self, cx: &mut Context<'_>, verdict: PairsVerdict) {
        match verdict {
            PairsVerdict::Pending => {}
            PairsVerdict::Failed => self.awaited.clear(),
            PairsVerdict::Valid => {
                for wanted in std::mem::take(&mut self.awaited) {
                    if let Some(id) = self.find_nominated(wanted) {
                        self.nominate(cx, id);
                    }
                }
            }
        }
    }

    fn verdict(&self, cx: &Context<'_>) -> PairsVerdict {
        let components = self.components(cx.half);
        let mut verdict = PairsVerdict::Valid;
        for wanted in self.awaited.iter().filter(|pair| components.contains(&pair.component)) {
            let is_over = self.concluded_at.is_some() || self.has_failed;
            match self.find_nominated(*wanted).and_then(|id| self.checklist.get(id)) {
                Some(pair) if pair.is_valid() => {}
                Some(pair) if pair.is_open() => verdict = PairsVerdict::Pending,
                None if !is_over => verdict = PairsVerdict::Pending,
                Some(_) | None => return PairsVerdict::Failed,
            }
        }
        verdict
    }

    /// Our address may be written as the other side sees it or as we know it.
    fn find_nominated(&self, wanted: NominatedPair) -> Option<PairId> {
        let is_it = |pair: &Pair| {
            let local = &pair.local;
            pair.component() == wanted.component
                && pair.remote.addr == wanted.remote
                && [pair.local_end().addr, local.candidate.addr, local.base_addr].contains(&wanted.local)
        };
        let found = self.checklist.pairs().filter(|(_, pair)| is_it(pair));
        found.min_by_key(|(_, pair)| (!pair.is_valid(), pair.rank())).map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;

    fn entry(id: u32, component: Component, class: PathClass, is_valid: bool) -> Entry {
        Entry { id: PairId(id), component, rank: Rank { class, priority: Reverse(u64::from(1000 - id)) }, is_valid }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn nomination_waits_for_better_pairs_until_the_settle_time_is_over() {
        use Component::Rtp;
        use PathClass::{Direct, Reflexive, RelayUdp};
        let start = crate::epoch();
        let valid_at = start + ms(100);
        let times = Times { started: start, first_valid: Some((valid_at, ms(100))) };
        let settled = valid_at + ms(400);
        let second_try = valid_at + ms(1000);
        let nominate = |id| Decision::Nominate(BTreeMap::from([(Rtp, PairId(id))]));
        let cases = [
            ("the best is valid", vec![entry(1, Rtp, Direct, true), entry(2, Rtp, Reflexive, false)], 100, nominate(1)),
            (
                "a better one is open",
                vec![entry(1, Rtp, Direct, false), entry(2, Rtp, Reflexive, true)],
                100,
                Decision::Wait(Some(settled)),
            ),
            (
                "a better one is still open when it has settled",
                vec![entry(1, Rtp, Direct, false), entry(2, Rtp, Reflexive, true)],
                500,
                nominate(2),
            ),
            (
                "only a relay works: the direct check gets its second try",
                vec![entry(1, Rtp, Reflexive, false), entry(2, Rtp, RelayUdp, true)],
                500,
                Decision::Wait(Some(second_try)),
            ),
            (
                "only a relay works after the second try too",
                vec![entry(1, Rtp, Reflexive, false), entry(2, Rtp, RelayUdp, true)],
                1100,
                nominate(2),
            ),
            (
                "a better relay is open",
                vec![entry(1, Rtp, RelayUdp, false), entry(2, Rtp, PathClass::RelayTcp, true)],
                100,
                Decision::Wait(Some(settled)),
            ),
            ("the better one failed", vec![entry(2, Rtp, RelayUdp, true)], 101, nominate(2)),
            ("none is valid", vec![entry(1, Rtp, Direct, false)], 9000, Decision::Wait(None)),
        ];
        for (name, entries, at, want) in cases {
            let got = decide(&entries, &[Rtp], times, &Dialect::RFC8445, start + ms(at));
            assert_eq!(got, want, "case: {name}");
        }
    }

    #[test]
    fn both_components_need_a_valid_pair_and_share_the_class_if_they_can() {
        use Component::{Rtcp, Rtp};
        use PathClass::{Direct, RelayUdp};
        let start = crate::epoch();
        let times = Times { started: start, first_valid: Some((start, ms(10))) };
        let late = start + ms(9000);
        let one = [entry(1, Rtp, Direct, true), entry(2, Rtcp, RelayUdp, false)];
        assert_eq!(decide(&one, &[Rtp, Rtcp], times, &Dialect::RFC8445, late), Decision::Wait(None));

        let mixed = [entry(1, Rtp, Direct, true), entry(2, Rtcp, RelayUdp, true), entry(3, Rtp, RelayUdp, true)];
        let want = BTreeMap::from([(Rtp, PairId(3)), (Rtcp, PairId(2))]);
        assert_eq!(decide(&mixed, &[Rtp, Rtcp], times, &Dialect::RFC8445, late), Decision::Nominate(want));

        let unlike = [entry(1, Rtp, Direct, true), entry(2, Rtcp, RelayUdp, true)];
        let want = BTreeMap::from([(Rtp, PairId(1)), (Rtcp, PairId(2))]);
        assert_eq!(decide(&unlike, &[Rtp, Rtcp], times, &Dialect::RFC8445, late), Decision::Nominate(want));
    }

    #[test]
    fn a_component_that_lags_behind_gets_the_longest_settle_time() {
        use Component::{Rtcp, Rtp};
        use PathClass::{Direct, Reflexive, RelayUdp};
        let start = crate::epoch();
        let times = Times { started: start, first_valid: Some((start, ms(10))) };
        let relays = [entry(8, Rtp, RelayUdp, true), entry(9, Rtcp, RelayUdp, true)];
        let wait = |more: &[Entry]| match decide(
            &[relays.as_slice(), more].concat(),
            &[Rtp, Rtcp],
            times,
            &Dialect::RFC8445,
            start + ms(100),
        ) {
            Decision::Wait(Some(at)) => (at - start).as_millis(),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(&[entry(1, Rtp, Reflexive, true), entry(2, Rtcp, Reflexive, false)]), 1000);
        assert_eq!(wait(&[entry(1, Rtp, Direct, false), entry(2, Rtcp, Direct, false)]), 1000, "only relays work");
        let dead = [entry(3, Rtp, Direct, false), entry(4, Rtcp, Direct, false)];
        let lagging = [entry(1, Rtp, Reflexive, true), entry(2, Rtcp, Reflexive, false)];
        assert_eq!(wait(&[dead, lagging].concat()), 1000, "below a class that nobody reaches");
        let mixed = wait(&[entry(1, Rtp, Reflexive, true), entry(2, Rtcp, Direct, false)]);
        assert_eq!(mixed, 1000, "no class is shared, but only relays work for one component");
    }

    #[test]
    fn a_microsoft_peer_gets_three_seconds_and_nobody_more_than_eight() {
        use Component::Rtp;
        let start = crate::epoch();
        let open = [entry(1, Rtp, PathClass::Direct, false), entry(2, Rtp, PathClass::Reflexive, true)];
        let wait = |first_valid: u64, dialect: &Dialect| {
            let times = Times { started: start, first_valid: Some((start + ms(first_valid), ms(10))) };
            match decide(&open, &[Rtp], times, dialect, start + ms(first_valid)) {
                Decision::Wait(Some(at)) => (at - start).as_millis(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wait(0, &Dialect::MS_ICE2), 3000);
        assert_eq!(wait(6000, &Dialect::MS_ICE2), 8000);
        assert_eq!(wait(0, &Dialect::RFC8445), 300);
    }
}
