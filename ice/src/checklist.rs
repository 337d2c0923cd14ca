//! The checklist: forming, pruning, unfreezing, and which pair is checked next (RFC 8445 §6.1.2, §6.1.4).
//!
//! One checklist serves both components of the one stream. Order of work: triggered checks first, then the best waiting
//! pair, then a frozen one whose foundation nobody is checking.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::candidate::{Candidate, CandidateTransport, CandidateType, Component, TcpType};
use crate::check::CheckFailure;
use crate::description::Role;
use crate::pair::{Base, LocalCandidate, Pair, PairId, PairState};
use crate::priority;

/// RFC 8445 §6.1.2.5 limits the pairs, 100 by default: each costs packets to an address that a stranger named.
pub(crate) const PAIRS_MAX: usize = 100;

/// Remote candidates kept: what an honest description of ten interfaces with both families, UDP and TCP has, and as many
/// again learnt from checks.
const REMOTE_MAX: usize = 256;

/// Whether a check can go out now: a relay needs the peer's permission first (RFC 8445 §7.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    Pending,
    Refused,
}

#[derive(Debug)]
pub(crate) struct Checklist {
    role: Role,
    pairs: BTreeMap<PairId, Pair>,
    remote: Vec<Candidate>,
    triggered: VecDeque<PairId>,
    next_id: u32,
    /// Pairs that did not fit, for the report.
    pub dropped_pairs: usize,
}

impl Checklist {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            pairs: BTreeMap::new(),
            remote: Vec::new(),
            triggered: VecDeque::new(),
            next_id: 0,
            dropped_pairs: 0,
        }
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (PairId, &Pair)> {
        self.pairs.iter().map(|(id, pair)| (*id, pair))
    }

    pub(crate) fn get(&self, id: PairId) -> Option<&Pair> {
        self.pairs.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: PairId) -> Option<&mut Pair> {
        self.pairs.get_mut(&id)
    }

    pub(crate) fn remote(&self) -> &[Candidate] {
        &self.remote
    }

    /// Adds a remote candidate unless its address is known for the component; a signalled one replaces what was learnt
    /// from a check (RFC 8445 §7.3.1.3).
    pub(crate) fn add_remote(&mut self, candidate: Candidate) -> bool {
        let same = |c: &Candidate| {
            c.addr == candidate.addr && c.component == candidate.component && c.transport == candidate.transport
        };
        if let Some(known) = self.remote.iter_mut().find(|c| same(c)) {
            if known.kind != CandidateType::PeerReflexive || candidate.kind == CandidateType::PeerReflexive {
                return false;
            }
            known.clone_from(&candidate);
            for pair in self.pairs.values_mut().filter(|p| same(&p.remote)) {
                pair.remote.clone_from(&candidate);
                pair.priority = priority::pair_priority(self.role, pair.local.candidate.priority, candidate.priority);
            }
            return true;
        }
        if self.remote.len() >= REMOTE_MAX {
            return false;
        }
        self.remote.push(candidate);
        true
    }

    /// Whether the peer may send from this address.
    pub(crate) fn knows_remote(&self, addr: SocketAddr, component: Component) -> bool {
        self.remote.iter().any(|c| c.addr == addr && c.component == component)
    }

    /// Pairs local candidates with remote ones that have no pair yet, and unfreezes one of each foundation. Returns the
    /// new pairs.
    pub(crate) fn form(&mut self, local: &[LocalCandidate]) -> Vec<PairId> {
        let mut added = Vec::new();
        for remote in self.remote.clone() {
            for local in local.iter().filter(|l| can_pair(&l.candidate, &remote)) {
                added.extend(self.add_pair(local, &remote));
            }
        }
        self.prune();
        added.retain(|id| self.pairs.contains_key(id));
        self.unfreeze_idle_foundations();
        added
    }

    /// One pair per base and remote address: a reflexive candidate is replaced by its base, and of two such pairs the one
    /// with the higher priority stays (RFC 8445 §6.1.2.4).
    pub(crate) fn add_pair(&mut self, local: &LocalCandidate, remote: &Candidate) -> Option<PairId> {
        let known = self.find(local.base, remote.addr);
        if let Some(pair) = known.and_then(|id| self.pairs.get_mut(&id)) {
            if pair.local.candidate.priority < local.candidate.priority && !pair.is_valid() {
                let (state, nominate) = (pair.state, pair.nominate_when_valid);
                *pair = Pair::new(local.clone(), remote.clone(), self.role);
                pair.state = state;
                pair.nominate_when_valid = nominate;
            }
            return None;
        }
        let id = PairId(self.next_id);
        self.next_id += 1;
        self.pairs.insert(id, Pair::new(local.clone(), remote.clone(), self.role));
        Some(id)
    }

    pub(crate) fn find(&self, base: Base, remote: SocketAddr) -> Option<PairId> {
        self.pairs().find(|(_, pair)| pair.base() == base && pair.remote.addr == remote).map(|(id, _)| id)
    }

    /// Puts a pair into the triggered-check queue (RFC 8445 §7.3.1.4). Nominations go before other triggered checks.
    pub(crate) fn trigger(&mut self, id: PairId, urgent: bool) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if !pair.is_valid() {
            pair.state = PairState::Waiting;
        }
        if let Some(at) = self.triggered.iter().position(|queued| *queued == id) {
            if !urgent {
                return;
            }
            self.triggered.remove(at);
        }
        if urgent {
            self.triggered.push_front(id);
        } else {
            self.triggered.push_back(id);
        }
    }

    /// Takes the pair to check next, if there is one (RFC 8445 §6.1.4.2).
    pub(crate) fn take_next(&mut self, readiness: impl Fn(&Pair) -> Readiness) -> Option<PairId> {
        let id = self.next(readiness)?;
        self.triggered.retain(|queued| *queued != id);
        Some(id)
    }

    /// Whether [`Self::take_next`] has something, without taking it.
    pub(crate) fn next(&mut self, readiness: impl Fn(&Pair) -> Readiness) -> Option<PairId> {
        let is_ready = |id: &PairId| self.pairs.get(id).is_some_and(|pair| readiness(pair) == Readiness::Ready);
        if let Some(id) = self.triggered.iter().copied().find(|id| is_ready(id)) {
            return Some(id);
        }
        if let Some(id) = self.best_waiting(&readiness) {
            return Some(id);
        }
        self.unfreeze_idle_foundations();
        self.best_waiting(&readiness)
    }

    fn best_waiting(&self, readiness: impl Fn(&Pair) -> Readiness) -> Option<PairId> {
        let is_ready = |pair: &Pair| pair.state == PairState::Waiting && readiness(pair) == Readiness::Ready;
        let ready = self.pairs().filter(|(_, pair)| is_ready(pair));
        // Connections over TCP are the last resort but one: they wait until UDP and the relays have had their turn.
        let is_udp = |pair: &Pair| pair.local.candidate.transport == CandidateTransport::Udp;
        ready.max_by_key(|(id, pair)| (is_udp(pair), pair.priority, std::cmp::Reverse(*id))).map(|(id, _)| id)
    }

    /// A check succeeded: all pairs of its foundation may be checked (RFC 8445 §7.2.5.3.3).
    pub(crate) fn unfreeze_like(&mut self, id: PairId) {
        let Some(model) = self.pairs.get(&id).cloned() else { return };
        for pair in self.pairs.values_mut() {
            if pair.state == PairState::Frozen && pair.has_foundation_of(&model) {
                pair.state = PairState::Waiting;
            }
        }
    }

    /// One pair of each foundation that nobody waits for or checks: the lowest component, then the highest priority
    /// (RFC 8445 §6.1.2.6).
    fn unfreeze_idle_foundations(&mut self) {
        let busy = |pair: &&Pair| matches!(pair.state, PairState::Waiting | PairState::InProgress);
        let mut claimed: Vec<Pair> = self.pairs.values().filter(busy).cloned().collect();
        let mut frozen: Vec<(PairId, Pair)> =
            self.pairs().filter(|(_, p)| p.state == PairState::Frozen).map(|(id, p)| (id, p.clone())).collect();
        frozen.sort_by_key(|(_, pair)| (pair.component(), std::cmp::Reverse(pair.priority)));
        for (id, pair) in frozen {
            if claimed.iter().any(|other| other.has_foundation_of(&pair)) {
                continue;
            }
            if let Some(chosen) = self.pairs.get_mut(&id) {
                chosen.state = PairState::Waiting;
            }
            claimed.push(pair);
        }
    }

    /// Drops the worst unchecked pairs above the limit (RFC 8445 §6.1.2.5).
    fn prune(&mut self) {
        let surplus = self.pairs.len().saturating_sub(PAIRS_MAX);
        if surplus == 0 {
            return;
        }
        // The relays have the lowest priority and work where nothing else does: the best pair of each two types stays.
        let mut best = BTreeMap::new();
        for pair in self.pairs.values() {
            let best = best.entry(kind_of(pair)).or_insert(pair.priority);
            *best = pair.priority.max(*best);
        }
        let is_unchecked = |pair: &Pair| matches!(pair.state, PairState::Frozen | PairState::Waiting);
        let rank = |pair: &Pair| (best.get(&kind_of(pair)) == Some(&pair.priority), pair.priority);
        let mut unchecked: Vec<_> =
            self.pairs().filter(|(_, pair)| is_unchecked(pair)).map(|(id, pair)| (rank(pair), id)).collect();
        unchecked.sort_unstable();
        let gone: BTreeSet<PairId> = unchecked.into_iter().take(surplus).map(|(_, id)| id).collect();
        self.dropped_pairs += gone.len();
        self.retain(|id, _| !gone.contains(&id));
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(PairId, &Pair) -> bool) {
        self.pairs.retain(|id, pair| keep(*id, pair));
        let pairs = &self.pairs;
        self.triggered.retain(|queued| pairs.contains_key(queued));
    }

    /// Nothing is checked any more but what is triggered from now on.
    pub(crate) fn stop(&mut self) {
        self.triggered.clear();
        let unchecked = |pair: &Pair| matches!(pair.state, PairState::Frozen | PairState::Waiting);
        self.retain(|_, pair| !unchecked(pair));
    }

    /// Pairs that nobody answered get another chance.
    pub(crate) fn revive_unanswered(&mut self) {
        for pair in self.pairs.values_mut().filter(|pair| pair.state == PairState::Failed(CheckFailure::NoAnswer)) {
            pair.state = PairState::Frozen;
        }
        self.unfreeze_idle_foundations();
    }

    /// Waiting and in-progress pairs, for the RTO (RFC 8445 §14.3).
    pub(crate) fn active(&self) -> usize {
        self.pairs.values().filter(|p| matches!(p.state, PairState::Waiting | PairState::InProgress)).count()
    }

    /// The role switched: all priorities change (RFC 8445 §7.3.1.1).
    pub(crate) fn set_role(&mut self, role: Role) {
        self.role = role;
        for pair in self.pairs.values_mut() {
            pair.priority = priority::pair_priority(role, pair.local.candidate.priority, pair.remote.priority);
        }
    }
}

/// RFC 8445 §6.1.2.2: same component, transport and family; link-local IPv6 only with link-local.
fn can_pair(local: &Candidate, remote: &Candidate) -> bool {
    use CandidateTransport::{Tcp, Udp};
    use TcpType::{Active, Passive, SimultaneousOpen};
    // A passive candidate of ours waits for the other side's checks (RFC 6544 §6.2).
    let fits = matches!(
        (local.transport, remote.transport),
        (Udp, Udp) | (Tcp(Active), Tcp(Passive)) | (Tcp(SimultaneousOpen), Tcp(SimultaneousOpen))
    );
    let is_usable = remote.addr.port() != 0 && !remote.addr.ip().is_unspecified() && !remote.addr.ip().is_multicast();
    fits && is_usable
        && local.component == remote.component
        && local.addr.is_ipv4() == remote.addr.is_ipv4()
        && is_link_local(local.addr.ip()) == is_link_local(remote.addr.ip())
}

/// Pairs that have all this in common can stand for each other.
fn kind_of(pair: &Pair) -> impl Ord + use<> {
    let (local, remote) = (&pair.local.candidate, &pair.remote);
    (local.component, local.kind, local.transport, pair.local.relay, remote.kind, remote.addr.is_ipv4())
}

/// `fe80::/10`, RFC 4291 §2.5.6.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
