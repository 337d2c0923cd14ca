//! One connectivity check: sent, sent again, answered (RFC 8445 §7.2).
//!
//! Ordinary checks, nominations and consent checks are the same Binding request; what differs is USE-CANDIDATE and what
//! the answer means.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::candidate::{Candidate, CandidateType};
use crate::description::Role;
use crate::pair::{Base, PairId, PairState};
use crate::peer::{Context, Session};
use crate::policy;
use crate::stun::message::fingerprint_twin;
use crate::stun::{
    Attribute, Builder, Class, Due, Integrity, Key, Message, Method, Timing, Transaction, TransactionId,
    wire::FingerprintUse,
};

/// How long the answer to a cancelled check is still welcome (RFC 8445 §7.3.1.4).
const CANCELLED_WAIT: Duration = Duration::from_secs(5);

/// A nomination repeats a check that has succeeded, so it is not given up easily: a new one each RTO, without the doubling
/// that would cost seconds on a bad line. After 8 s without an answer the next best pair gets its turn.
const NOMINATIONS_MAX: u32 = 16;

/// Checks in flight per session, cancelled ones included: pairs, and a few rounds of triggered checks.
const CHECKS_MAX: usize = 400;

/// Why a pair failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckFailure {
    /// No response within the time of the transaction.
    NoAnswer,
    /// The response came from another address than the request went to (RFC 8445 §7.2.5.2.1).
    Asymmetric,
    /// An error response other than 487.
    Status(u16),
    /// It works, but the policy forbids its local side.
    Policy,
    /// The relay did not permit the peer's address (RFC 8656 §9).
    Permission,
    /// The other end could not be connected to, or let the connection wait for 8 s (RFC 6544 §7.1).
    NotConnected,
    /// Not tried: too many connections at once, or to this address.
    TooManyConnections,
    /// Its TCP connection has ended.
    ConnectionLost,
    /// The relay or socket under it is gone.
    BaseLost,
    /// Valid once, but consent ran out or was revoked (RFC 7675 §5.1, §5.2).
    ConsentLost,
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("no answer"),
            Self::Asymmetric => f.write_str("answered from another address"),
            Self::Status(code) => write!(f, "refused with {code}"),
            Self::Policy => f.write_str("works, but the path policy forbids it"),
            Self::Permission => f.write_str("the relay does not permit this peer"),
            Self::NotConnected => f.write_str("no TCP connection"),
            Self::TooManyConnections => f.write_str("not tried: too many TCP connections"),
            Self::ConnectionLost => f.write_str("its TCP connection ended"),
            Self::BaseLost => f.write_str("its socket or relay is gone"),
            Self::ConsentLost => f.write_str("consent ran out"),
        }
    }
}

/// What the answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Connectivity,
    /// With USE-CANDIDATE: the controlling side's choice.
    Nomination,
    /// RFC 7675 §5.1: sent once, no retransmission.
    Consent,
    /// A better pair that has not worked so far, once.
    Hope,
}

#[derive(Debug)]
pub(crate) struct Check {
    pub pair: PairId,
    pub base: Base,
    pub to: SocketAddr,
    pub purpose: Purpose,
    /// The role it was sent in, for 487.
    pub role: Role,
    pub is_cancelled: bool,
    pub transaction: Transaction,
}

/// A nomination that is not answered yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeat {
    pub at: Instant,
    sent: u32,
}

impl Session {
    /// Nominates again, or gives up.
    pub(crate) fn run_repeats(&mut self, cx: &mut Context<'_>) {
        let due = self.repeats.iter().filter(|(_, repeat)| repeat.at <= cx.now);
        for (id, repeat) in due.map(|(id, repeat)| (*id, *repeat)).collect::<Vec<_>>() {
            if repeat.sent >= NOMINATIONS_MAX {
                self.repeats.remove(&id);
                self.pair_failed(cx, id, CheckFailure::NoAnswer);
            } else {
                self.start_check(cx, id, Purpose::Nomination);
            }
        }
    }

    /// Starts the next check, if there is one. Says whether a transaction began.
    pub(crate) fn start_next_check(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.has_failed {
            let half = &*cx.half;
            let Some(id) = self.checklist.take_next(|pair| half.readiness(pair)) else { return false };
            let is_valid = self.checklist.get(id).is_some_and(super::pair::Pair::is_valid);
            let is_nomination =
                is_valid && self.role == Role::Controlling && self.nominating.values().any(|n| *n == id);
            if is_nomination {
                return self.start_check(cx, id, Purpose::Nomination);
            }
            if !is_valid {
                return self.start_check(cx, id, Purpose::Connectivity);
            } // else it became valid while it waited in the queue
        }
        false
    }

    pub(crate) fn start_check(&mut self, cx: &mut Context<'_>, id: PairId, purpose: Purpose) -> bool {
        let active = self.checklist.active();
        let Some(pair) = self.checklist.get_mut(id) else { return false };
        let rto = policy::check_rto(self.pacing, active);
        let timing = match purpose {
            Purpose::Connectivity => {
                pair.state = PairState::InProgress;
                match pair.base() {
                    Base::Socket(_) | Base::Relay(_) => Timing::udp(rto),
                    Base::Tcp(_) => Timing::RELIABLE,
                }
            }
            Purpose::Nomination => {
                self.nominations += 1;
                let repeat = self.repeats.entry(id).or_insert(Repeat { at: cx.now, sent: 0 });
                *repeat = Repeat { at: cx.now + rto, sent: repeat.sent + 1 };
                Timing { rto, sends_max: 1, last_wait: rto * NOMINATIONS_MAX }
            }
            Purpose::Consent | Purpose::Hope => Timing { rto, sends_max: 1, last_wait: crate::consent::EXPIRY },
        };
        let (base, to) = (pair.base(), pair.remote.addr);
        let (priority, foundation) = (pair.local.check_priority(), pair.local.candidate.foundation.clone());
        let transaction_id = TransactionId::random_for(cx.dialect.wire, &mut cx.half.rng);
        let request = self.make_request(cx, transaction_id, purpose, priority, &foundation);
        let transaction = Transaction::new(cx.now, transaction_id, request, timing);
        if self.checks.len() >= CHECKS_MAX {
            let oldest = self
                .checks
                .iter()
                .min_by_key(|(_, check)| (!check.is_cancelled, check.transaction.started()))
                .map(|(id, _)| *id);
            oldest.and_then(|id| self.checks.remove(&id));
        }
        let check = Check { pair: id, base, to, purpose, role: self.role, is_cancelled: false, transaction };
        self.checks.insert(transaction_id, check);
        self.poll_checks(cx);
        true
    }

    fn make_request(
        &self,
        cx: &Context<'_>,
        id: TransactionId,
        purpose: Purpose,
        priority: u32,
        foundation: &str,
    ) -> Vec<u8> {
        let wire = cx.dialect.wire;
        let key = Key::short_term(self.remote.pwd.expose().as_bytes());
        let username = wire.pad_text(format!("{}:{}", self.remote.ufrag, self.local.ufrag).as_bytes());
        let foundation = wire.pad_text(foundation.as_bytes());
        let role = match self.role {
            Role::Controlling => Attribute::IceControlling(*cx.tie_breaker),
            Role::Controlled => Attribute::IceControlled(*cx.tie_breaker),
        };
        let is_nomination = purpose == Purpose::Nomination;
        let nomination = is_nomination && self.renominates();
        let builder = Builder::new_as(wire, Class::Request, Method::BINDING, id)
            .with(&Attribute::Username(&username))
            .with_some(wire.ice_attributes.then_some(Attribute::Priority(priority)))
            .with_some(wire.ice_attributes.then_some(role))
            .with_some(is_nomination.then_some(Attribute::UseCandidate))
            .with_some(nomination.then_some(Attribute::Nomination(self.nominations)))
            .with_some(wire.candidate_identifier.then_some(Attribute::CandidateIdentifier(&foundation)))
            .with_some(wire.implementation_version.map(Attribute::ImplementationVersion))
            .integrity(Integrity::Sha1, &key);
        match wire.fingerprint {
            FingerprintUse::Absent => builder.build(),
            FingerprintUse::Crc32 | FingerprintUse::Crc32AndTwin => builder.fingerprint().build(),
        }
    }

    /// Sends what is due and fails what was never answered.
    pub(crate) fn poll_checks(&mut self, cx: &mut Context<'_>) {
        let (mut sends, mut expired) = (Vec::new(), Vec::new());
        for (id, check) in &mut self.checks {
            while let Some(due) = check.transaction.poll(cx.now) {
                match due {
                    Due::Send(bytes) => sends.push((check.base, check.to, bytes.to_vec())),
                    Due::Expired => {
                        expired.push(*id);
                        break;
                    }
                }
            }
        }
        for (base, to, bytes) in sends {
            let twin = match cx.dialect.wire.fingerprint {
                FingerprintUse::Crc32AndTwin => fingerprint_twin(&bytes),
                FingerprintUse::Absent | FingerprintUse::Crc32 => None,
            };
            cx.half.transmit(cx.now, base, to, bytes);
            if let Some(twin) = twin {
                cx.half.transmit(cx.now, base, to, twin);
            }
        }
        for id in expired {
            let Some(check) = self.checks.remove(&id) else { continue };
            match check.purpose {
                Purpose::Connectivity if !check.is_cancelled => {
                    self.pair_failed(cx, check.pair, CheckFailure::NoAnswer);
                }
                Purpose::Connectivity | Purpose::Nomination | Purpose::Consent | Purpose::Hope => {}
            }
        }
    }

    /// Takes a response. Says whether it was to a check of this session.
    pub(crate) fn handle_response(
        &mut self,
        cx: &mut Context<'_>,
        base: Base,
        from: SocketAddr,
        message: &Message<'_>,
    ) -> bool {
        let Some(check) = self.checks.get(&message.transaction_id()) else { return false };
        let key = Key::short_term(self.remote.pwd.expose().as_bytes());
        let is_authentic = message.verify_as(cx.dialect.wire, &key).is_ok();
        let code = message.error_code().map(|(code, _)| code);
        // A success or a role conflict must be signed; a refusal comes from one who does not know us (RFC 8489 §9.1.4).
        if !is_authentic && (message.class() == Class::Success || code == Some(487)) {
            tracing::trace!(%from, "response with wrong integrity dropped");
            return true;
        }
        let is_symmetric = check.base == base && check.to == from;
        let Some(check) = self.checks.remove(&message.transaction_id()) else { return true };
        match (message.class(), code) {
            (Class::Success, _) if !is_symmetric => self.check_failed(cx, &check, CheckFailure::Asymmetric),
            (Class::Success, _) => match message.xor_mapped_address() {
                Some(mapped) => self.check_succeeded(cx, &check, mapped),
                None => self.check_failed(cx, &check, CheckFailure::Status(400)),
            },
            (Class::Error, Some(487)) => self.role_conflict(cx, &check),
            (Class::Error, Some(403)) if is_authentic && check.purpose == Purpose::Consent => {
                self.lose_pair(cx, check.pair, CheckFailure::ConsentLost);
            }
            (Class::Error, code) if is_symmetric => {
                self.check_failed(cx, &check, CheckFailure::Status(code.unwrap_or(0)));
            }
            (Class::Error | Class::Request | Class::Indication, _) => {}
        }
        true
    }

    fn check_failed(&mut self, cx: &mut Context<'_>, check: &Check, cause: CheckFailure) {
        match check.purpose {
            Purpose::Connectivity if check.is_cancelled => {} // its successor decides
            Purpose::Connectivity | Purpose::Nomination => self.pair_failed(cx, check.pair, cause),
            // Only time or a 403 ends consent (RFC 7675 §5.1).
            Purpose::Hope | Purpose::Consent => {}
        }
    }

    /// RFC 8445 §7.2.5.1: the other side insists on our role.
    fn role_conflict(&mut self, cx: &mut Context<'_>, check: &Check) {
        if self.role == check.role {
            self.switch_role(cx);
            *cx.tie_breaker = rand::Rng::next_u64(&mut cx.half.rng);
        }
        self.checklist.trigger(check.pair, false);
    }

    pub(crate) fn switch_role(&mut self, cx: &mut Context<'_>) {
        self.role = self.role.switched();
        tracing::debug!(peer = %cx.peer, role = ?self.role, "role switched");
        self.checklist.set_role(self.role);
        self.nominating.clear();
        self.repeats.clear();
    }

    /// RFC 8445 §7.2.5.3: the pair is valid with the address that the other side saw.
    fn check_succeeded(&mut self, cx: &mut Context<'_>, check: &Check, mapped: SocketAddr) {
        let rtt = check.transaction.rtt(cx.now);
        let id = check.pair;
        let Some(pair) = self.checklist.get(id) else { return };
        let was_valid = pair.is_valid();
        if !was_valid && check.purpose == Purpose::Consent {
            return; // failed meanwhile
        }
        if !was_valid {
            match self.seen_as(cx, id, mapped) {
                Ok(seen_as) => self.set_seen_as(id, seen_as),
                Err(cause) => return self.pair_failed(cx, id, cause),
            }
        }
        let Some(pair) = self.checklist.get_mut(id) else { return };
        pair.state = PairState::Succeeded { rtt };
        let is_named = std::mem::take(&mut pair.nominate_when_valid);
        if check.purpose == Purpose::Hope {
            self.watch_standby(cx, id);
        }
        self.renew_consent(cx, id);
        if was_valid {
            self.notice_rebinding(cx, id, mapped);
        }
        self.path_answered(cx, id);
        if !was_valid {
            self.cancel_checks(cx.now, id);
            self.checklist.unfreeze_like(id);
            self.first_valid.get_or_insert((cx.now, rtt));
            self.event_pair_valid(cx, id);
            self.use_first_valid(cx);
        }
        if check.purpose == Purpose::Nomination {
            self.repeats.remove(&id);
        }
        if is_named || (check.purpose == Purpose::Nomination && self.role == Role::Controlling) {
            self.nominate(cx, id);
        }
    }

    /// The other side sees a valid pair of ours at another address than before (RFC 8445 §7.2.5.3.1): a NAT has forgotten
    /// us. It sends to the old address until it is told; a check that names the pair shows it the new one.
    fn notice_rebinding(&mut self, cx: &mut Context<'_>, id: PairId, mapped: SocketAddr) {
        let Some(pair) = self.checklist.get(id).filter(|pair| pair.local_end().addr != mapped) else { return };
        let (component, old) = (pair.component(), pair.local_end().addr);
        let Ok(seen_as) = self.seen_as(cx, id, mapped) else { return };
        tracing::debug!(peer = %cx.peer, %old, new = %mapped, "seen at another address than before");
        self.set_seen_as(id, seen_as);
        if self.paths.get(&component) == Some(&id) && self.renominates() && self.concluded_at.is_some() {
            self.start_check(cx, id, Purpose::Nomination);
        }
    }

    fn set_seen_as(&mut self, id: PairId, seen_as: Candidate) {
        if let Some(pair) = self.checklist.get_mut(id) {
            pair.seen_as = Some(seen_as);
        }
    }

    /// The local candidate with the mapped address; a new peer-reflexive one if there is none (RFC 8445 §7.2.5.3.1).
    fn seen_as(&self, cx: &mut Context<'_>, id: PairId, mapped: SocketAddr) -> Result<Candidate, CheckFailure> {
        let Some((local, remote)) = self.checklist.get(id).map(|pair| (pair.local.clone(), pair.remote.addr)) else {
            return Err(CheckFailure::BaseLost);
        };
        let base_addr = cx.half.sent_from(local.base, remote).unwrap_or(local.base_addr);
        let component = local.candidate.component;
        let known = cx.half.local_candidates().iter().map(|c| &c.candidate);
        let transport = local.candidate.transport;
        let mut known = known.filter(|c| c.addr == mapped && c.component == component && c.transport == transport);
        if let Some(known) = known.next() {
            return Ok(known.clone());
        }
        let kind = if mapped == base_addr && local.relay.is_none() {
            CandidateType::Host
        } else {
            CandidateType::PeerReflexive
        };
        if !cx.half.policy.allows(kind, local.relay) {
            return Err(CheckFailure::Policy);
        }
        // An active end has the port of its connection.
        match (mapped == base_addr, local.base) {
            (false, _) => Ok(cx.half.peer_reflexive(&local, mapped)),
            (true, Base::Tcp(_)) => Ok(Candidate { addr: mapped, ..local.candidate }),
            (true, Base::Socket(_) | Base::Relay(_)) => Ok(local.candidate),
        }
    }

    /// Other checks of the pair stop being sent.
    pub(crate) fn cancel_checks(&mut self, now: Instant, id: PairId) {
        let of_pair = |check: &&mut Check| check.pair == id && check.purpose == Purpose::Connectivity;
        for check in self.checks.values_mut().filter(of_pair) {
            check.is_cancelled = true;
            check.transaction.cancel(now + CANCELLED_WAIT);
        }
    }

    /// The TCP connection of a pair has ended, or there will be none.
    pub(crate) fn disconnected(&mut self, cx: &mut Context<'_>, base: Base, remote: SocketAddr, cause: CheckFailure) {
        if let Some(id) = self.checklist.find(base, remote) {
            self.checks.retain(|_, check| check.pair != id);
            self.pair_failed(cx, id, cause);
        }
    }

    /// A pair cannot be used (any more).
    pub(crate) fn pair_failed(&mut self, cx: &mut Context<'_>, id: PairId, cause: CheckFailure) {
        let Some(pair) = self.checklist.get(id) else { return };
        if pair.is_valid() {
            return self.lose_pair(cx, id, cause);
        }
        if let Some(pair) = self.checklist.get_mut(id) {
            pair.state = PairState::Failed(cause);
            tracing::debug!(peer = %cx.peer, remote = %pair.remote.addr, %cause, "pair failed");
        }
    }
}
