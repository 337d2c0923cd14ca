//! Finding another way: what is asked again while no path works, and better paths that turn up later.
//!
//! * While no path works, servers that did not answer are asked again twice a second, from sockets of their own where the
//!   old ones may be the trouble; what they give late is told ([`Event::LateCandidate`]), so that it can be offered.
//! * While media goes through a relay, pairs that would be better, and servers that never answered, are tried every few
//!   seconds: a firewall may open, a VPN may go. Where both sides renominate, the controlling side moves to a better pair
//!   once it has proved itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::candidate::Component;
use crate::check::{CheckFailure, Purpose};
use crate::config::ServerTransport;
use crate::description::Role;
use crate::event::{Event, PathClass, ServerCause, SocketId};
use crate::gather::AttemptState;
use crate::local::{Half, SocketState};
use crate::pair::{Base, PairId, PairState, RelayId};
use crate::peer::{Context, Session};
use crate::stun::{Builder, Class, Method, TransactionId};
use crate::turn::RelayCause;

/// Between questions to a server that does not answer, while no path works.
const RETRY: Duration = Duration::from_millis(500);

/// A question older than this is asked anew: the doubling waits of STUN would sleep through the server's return.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Between two looks for something better than a relay.
const HOPE_EVERY: Duration = Duration::from_millis(2500);

/// Better pairs looked at again, per component: the best few say whether the way is open.
const HOPES_MAX: usize = 6;

/// A better pair has to answer over this time before media moves to it.
const PROBATION: Duration = Duration::from_secs(2);

/// Servers asked in one look.
const ASKED_MAX: usize = 8;

impl Half {
    /// Takes out of the description what does not work any more or is on an address that is gone, and keeps it open for the
    /// session before the restart. A new allocation needs another 5-tuple than one that may still be there (437).
    pub(crate) fn retire(&mut self, now: Instant, keep: &BTreeSet<Base>) {
        for socket in self.sockets.values_mut() {
            socket.is_wanted &= self.interfaces.contains(&socket.ip);
            socket.seen = None;
        }
        for id in self.relays.keys().copied().collect::<Vec<_>>() {
            let Some(relay) = self.relays.get(&id) else { continue };
            if relay.relayed.is_none() {
                self.free_relay(now, id); // a question under way would compete with the new one
                continue;
            }
            let socket = relay.socket();
            let is_stranded = match socket {
                Some(socket) => self.sockets.get(&socket).is_none_or(|socket| !socket.is_wanted),
                None => relay.local.is_some_and(|local| !self.interfaces.contains(&local) && !local.is_loopback()),
            };
            if relay.is_suspect || is_stranded {
                self.retire_relay(now, id, socket, keep);
            }
        }
        for (id, socket) in &mut self.sockets {
            socket.is_kept = !socket.is_wanted && keep.contains(&Base::Socket(*id));
        }
    }

    fn retire_relay(&mut self, now: Instant, id: RelayId, socket: Option<SocketId>, keep: &BTreeSet<Base>) {
        if let Some(socket) = socket.and_then(|socket| self.sockets.get_mut(&socket)) {
            socket.is_wanted = false;
        }
        if let Some(relay) = self.relays.get_mut(&id) {
            relay.is_retired = true;
        }
        if !keep.contains(&Base::Relay(id)) {
            self.free_relay(now, id);
        }
    }

    /// Asks servers again that have not answered.
    pub(crate) fn retry_servers(&mut self, now: Instant) {
        if !self.is_repairing || self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.retry_at = Some(now + RETRY);
        let mut given_up = Vec::new();
        for attempt in &mut self.attempts {
            let is_old = attempt.started.is_some_and(|at| now >= at + RETRY_AFTER);
            let again = match &attempt.state {
                AttemptState::Failed(cause) => may_pass(cause),
                AttemptState::Binding(_) => is_old,
                AttemptState::Relay(id) => {
                    let is_udp = |relay: &crate::relay::Relay| relay.transport() == ServerTransport::Udp;
                    let again = is_old && self.relays.get(id).is_none_or(is_udp);
                    given_up.extend(again.then_some(*id));
                    again
                }
                AttemptState::Planned { .. } | AttemptState::Succeeded { .. } => false,
            };
            if again {
                attempt.state = AttemptState::Planned { at: now };
            }
        }
        for id in given_up {
            self.free_relay(now, id);
        }
    }

    pub(crate) fn next_retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.is_repairing && !self.attempts.is_empty())
    }

    /// Asks UDP servers from sockets whose reflexive address is not known: was the way blocked, and is it open now?
    fn ask_unknown(&mut self, now: Instant) {
        if !self.policy.uses_direct() {
            return;
        }
        let blind =
            self.sockets.iter().filter(|(_, s)| s.seen.is_none() && matches!(s.state, SocketState::Open { .. }));
        let blind: Vec<(SocketId, bool)> = blind.map(|(id, s)| (*id, s.ip.is_ipv4())).collect();
        let servers = self.servers.iter().filter(|server| server.transport == ServerTransport::Udp);
        let servers: Vec<_> = servers.map(|server| server.addr).take(ASKED_MAX).collect();
        for (socket, is_ipv4) in blind {
            for to in servers.iter().filter(|to| to.is_ipv4() == is_ipv4) {
                let id = TransactionId::random(&mut self.rng);
                self.hopes.insert(id, socket);
                let request = Builder::new(Class::Request, Method::BINDING, id).fingerprint().build();
                self.transmit(now, Base::Socket(socket), *to, request);
            }
        }
        while self.hopes.len() > 4 * ASKED_MAX {
            self.hopes.pop_first();
        }
    }

    /// Takes an answer to [`Self::ask_unknown`]. Says whether it was one.
    pub(crate) fn hope_answered(&mut self, socket: SocketId, id: TransactionId) -> bool {
        let is_ours = self.hopes.get(&id) == Some(&socket);
        if is_ours {
            self.hopes.clear();
            self.event(Event::BetterPossible);
        }
        is_ours
    }
}

/// Whether asking again may help.
fn may_pass(cause: &ServerCause) -> bool {
    match cause {
        ServerCause::Silent(_) | ServerCause::Socket(_) | ServerCause::Stream(_) => true,
        ServerCause::NoInterface | ServerCause::Status(_) => false,
        ServerCause::Relay(error) => matches!(error.cause, RelayCause::Silent { .. } | RelayCause::StreamClosed(_)),
    }
}

impl Session {
    /// The worst class of the paths in use.
    fn class_in_use(&self) -> Option<PathClass> {
        self.paths.values().filter_map(|id| self.checklist.get(*id)).map(crate::pair::Pair::class).max()
    }

    /// Pairs that would be better than what is in use, if the network let them: kept at the release.
    pub(crate) fn hopes(&self) -> BTreeSet<PairId> {
        let Some(class) = self.class_in_use().filter(|class| *class > PathClass::Reflexive && self.renominates())
        else {
            return BTreeSet::new();
        };
        let may_come = |state: PairState| match state {
            PairState::Frozen | PairState::Waiting | PairState::InProgress => true,
            PairState::Failed(cause) => matches!(cause, CheckFailure::NoAnswer | CheckFailure::ConsentLost),
            PairState::Succeeded { .. } => false,
        };
        let mut hopes = BTreeSet::new();
        for component in Component::ALL {
            let better = self.checklist.pairs().filter(|(_, pair)| {
                pair.component() == component
                    && pair.local.relay.is_none()
                    && pair.class() < class
                    && may_come(pair.state)
            });
            let mut better: Vec<_> = better.collect();
            better.sort_by_key(|(_, pair)| pair.rank());
            hopes.extend(better.into_iter().map(|(id, _)| id).take(HOPES_MAX));
        }
        hopes
    }

    pub(crate) fn hope_at(&self) -> Option<Instant> {
        let is_worth_it = self.is_released && self.class_in_use().is_some_and(|class| class > PathClass::Reflexive);
        self.hope_at.filter(|_| is_worth_it && !self.has_failed)
    }

    /// Tries the better pairs again, and moves to one that has proved itself.
    pub(crate) fn run_hopes(&mut self, cx: &mut Context<'_>) {
        if self.hope_at().is_none_or(|at| at > cx.now) {
            return;
        }
        self.hope_at = Some(cx.now + HOPE_EVERY);
        if self.is_broken(cx.now) {
            return;
        }
        for id in self.hopes() {
            self.start_check(cx, id, Purpose::Hope);
        }
        let Some(class) = self.class_in_use() else { return };
        let better = self.checklist.pairs().filter(|(_, pair)| pair.is_valid() && pair.class() < class);
        for id in better.map(|(id, _)| id).collect::<Vec<_>>() {
            self.watch_standby(cx, id);
            if let Some(consent) = self.consents.get_mut(&id).filter(|c| cx.now > c.answered_at + 2 * HOPE_EVERY) {
                consent.proved_since = None; // a question was not answered
            }
            self.start_check(cx, id, Purpose::Consent);
        }
        cx.half.ask_unknown(cx.now);
        self.promote_better(cx);
    }

    /// The controlling side renominates a better pair that has answered over some time and just now.
    fn promote_better(&mut self, cx: &mut Context<'_>) {
        if self.role != Role::Controlling || !self.renominates() {
            return;
        }
        for (component, used) in self.paths.clone() {
            let Some(class) = self.checklist.get(used).map(crate::pair::Pair::class) else { continue };
            let fresh = |id: PairId| {
                let proved = self.consents.get(&id).and_then(|consent| consent.proved_since);
                proved.is_some_and(|since| cx.now >= since + PROBATION)
            };
            let better = self.checklist.pairs().filter(|(id, pair)| {
                pair.component() == component && pair.is_valid() && pair.class() < class && fresh(*id)
            });
            if let Some((id, _)) = better.min_by_key(|(_, pair)| pair.rank()) {
                tracing::debug!(peer = %cx.peer, %component, "a better path works now: moving to it");
                self.take_over(cx, component, id);
            }
        }
    }
}
