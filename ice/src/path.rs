//! Where each component sends now (RFC 8445 §12): the first valid pair, then the nominated one.

use std::time::Duration;

use crate::candidate::Component;
use crate::check::{CheckFailure, Purpose};
use crate::description::Role;
use crate::event::{Event, Path, PathCause};
use crate::liveness::Watch;
use crate::pair::{Pair, PairId, PairState};
use crate::peer::{Context, Session};

/// There is no path to send on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("component {0} has no valid pair yet")]
    NoValidPair(Component),
    #[error("consent ran out on component {0}: restart ICE")]
    NoConsent(Component),
    #[error("the agent is closed")]
    Closed,
}

/// A standby that has answered so recently needs no proof.
const FRESH: Duration = Duration::from_secs(1);

impl Session {
    /// The pair as a path, if it is valid.
    pub(crate) fn path_of(&self, id: PairId) -> Option<Path> {
        let pair = self.checklist.get(id)?;
        let PairState::Succeeded { rtt } = pair.state else { return None };
        Some(Path {
            component: pair.component(),
            local: pair.local_end().clone(),
            remote: pair.remote.clone(),
            class: pair.class(),
            relay: pair.local.relay,
            rtt,
        })
    }

    /// Early media: components without a path take their best valid pair; others stay where they are, no hopping.
    pub(crate) fn use_first_valid(&mut self, cx: &mut Context<'_>) {
        if self.holds_back {
            return;
        }
        for component in self.components(cx.half) {
            if self.paths.contains_key(&component) || self.concluded_at.is_some() {
                continue;
            }
            if let Some(id) = self.best_valid(component) {
                let was_lost = self.lost.remove(&component);
                let cause = match (self.is_restart, was_lost) {
                    (true, _) => PathCause::Restarted,
                    (false, true) => PathCause::Replaced,
                    (false, false) => PathCause::FirstValid,
                };
                self.set_path(cx, component, id, cause);
            }
        }
    }

    /// The best valid pair of a component.
    pub(crate) fn best_valid(&self, component: Component) -> Option<PairId> {
        let usable = |pair: &Pair| pair.is_valid() && pair.component() == component;
        self.checklist.pairs().filter(|(_, pair)| usable(pair)).min_by_key(|(_, p)| p.rank()).map(|(id, _)| id)
    }

    /// Who takes over from a pair that is gone: if that was in doubt already, only one that has answered since.
    fn standby_for(&self, component: Component, gone: PairId) -> Option<PairId> {
        let since = self.watches.get(&component).and_then(Watch::doubted_since);
        let is_alive = |id: PairId| {
            let answered_at = self.consents.get(&id).map(|consent| consent.answered_at);
            since.is_none_or(|since| answered_at.is_some_and(|at| at >= since))
        };
        let usable =
            |id: PairId, pair: &Pair| id != gone && pair.is_valid() && pair.component() == component && is_alive(id);
        self.checklist.pairs().filter(|(id, pair)| usable(*id, pair)).min_by_key(|(_, p)| p.rank()).map(|(id, _)| id)
    }

    pub(crate) fn set_path(&mut self, cx: &mut Context<'_>, component: Component, id: PairId, cause: PathCause) {
        let (Some(path), Some(pair)) = (self.path_of(id), self.checklist.get(id)) else { return };
        let (base, remote) = (pair.base(), pair.remote.addr);
        if let Some(old) = self.paths.insert(component, id).filter(|old| *old != id)
            && let Some(consent) = self.consents.get_mut(&old)
        {
            consent.proved_since = None; // whatever it was left for, it has to prove itself again
        }
        self.lost.remove(&component);
        self.watch_path(cx, component, false);
        self.start_consent(cx, id);
        cx.half.bind_channel(cx.now, base, remote);
        tracing::debug!(peer = %cx.peer, %component, %path, ?cause, "path changed");
        cx.half.event(Event::PathChanged { peer: cx.peer, component, path, cause });
    }

    /// A valid pair died: another takes over where that is allowed, else sending stops (RFC 7675 §5.1).
    pub(crate) fn lose_pair(&mut self, cx: &mut Context<'_>, id: PairId, cause: CheckFailure) {
        let path = self.path_of(id);
        let Some(pair) = self.checklist.get_mut(id) else { return };
        let component = pair.component();
        pair.state = PairState::Failed(cause);
        self.consents.remove(&id);
        self.repeats.remove(&id);
        self.checks.retain(|_, check| check.pair != id);
        self.nominating.retain(|_, nominated| *nominated != id);
        let was_selected = self.selected.get(&component) == Some(&id);
        if was_selected {
            self.selected.remove(&component);
        }
        if self.paths.get(&component) != Some(&id) {
            return;
        }
        self.paths.remove(&component);
        let is_concluded = self.concluded_at.is_some();
        let standby = self.standby_for(component, id).filter(|_| !is_concluded || self.renominates());
        match (standby, path) {
            (Some(next), _) if is_concluded => self.take_over(cx, component, next),
            (Some(next), _) => self.set_path(cx, component, next, PathCause::Replaced),
            (None, Some(path)) if is_concluded => {
                self.lost.insert(component);
                if !cx.half.is_plain {
                    cx.half.event(Event::ConsentLost { peer: cx.peer, component, path });
                }
            }
            (None, _) => {
                self.lost.insert(component);
            }
        }
    }

    /// A standby pair becomes the one in use; the other side is told with a nomination, whatever our role.
    pub(crate) fn take_over(&mut self, cx: &mut Context<'_>, component: Component, id: PairId) {
        self.selected.insert(component, id);
        self.set_path(cx, component, id, PathCause::Renominated);
        self.watch_path(cx, component, true);
        if self.consents.get(&id).is_none_or(|consent| consent.answered_at + FRESH < cx.now) {
            self.doubt_path(cx, component); // it worked when it was last asked, which is some time ago
        }
        if self.renominates() || self.role == Role::Controlling {
            self.start_check(cx, id, Purpose::Nomination);
        }
    }

    /// The re-INVITE was answered: dialects that wait for it move now ([MS-ICE2]).
    pub(crate) fn move_to_selected(&mut self, cx: &mut Context<'_>) {
        for (component, id) in self.selected.clone() {
            if self.paths.get(&component) != Some(&id) {
                let cause = if self.is_restart { PathCause::Restarted } else { PathCause::Promoted };
                self.set_path(cx, component, id, cause);
            }
        }
    }
}
