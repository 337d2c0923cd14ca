//! Answering checks, and what they teach (RFC 8445 §7.3).
//!
//! ```text
//!   request ─▶ ours? ─▶ authentic? ─▶ roles agree? ─▶ 200 ─▶ learn remote candidate ─▶ triggered check, nomination
//!                │           │             └─ no: 487, or switch
//!                └───────────┴─ no: 400, 401
//! ```
//! A check that comes before the answer that names its sender is answered and remembered (RFC 8445 §7.3).

use std::net::SocketAddr;

use crate::agent::Agent;
use crate::candidate::{Candidate, CandidateTransport, CandidateType, Component, TcpType};
use crate::check::CheckFailure;
use crate::config::Secret;
use crate::description::Role;
use crate::event::{Event, PeerId};
use crate::pair::{Base, PairState};
use crate::peer::{Context, Session, ask_permission};
use crate::stun::{
    Attribute, AttributeType, Builder, Class, Fingerprint, Integrity, IntegrityError, Key, Message, Method,
    wire::FingerprintUse,
};

/// Checks remembered before their answer: several forks times pairs, the oldest goes first.
pub(crate) const EARLY_MAX: usize = 100;

/// Triggered checks of one pair that cut short a check in flight. Two or three open the NATs; without a limit two sides
/// whose answers get lost would trigger each other for ever.
const TRIGGERED_MAX: u8 = 8;

/// What a valid check says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub base: Base,
    pub from: SocketAddr,
    pub component: Component,
    pub priority: u32,
    pub use_candidate: bool,
    pub nomination: Option<u32>,
}

/// A check from a peer whose description has not come yet.
#[derive(Debug, Clone)]
pub(crate) struct EarlyCheck {
    pub local_ufrag: String,
    pub remote_ufrag: String,
    pub request: Request,
}

/// What the role attributes demand (RFC 8445 §7.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Roles {
    Agree,
    /// We switch.
    Switch,
    /// The other side must: 487.
    Refuse,
}

/// The table of RFC 8445 §7.3.1.1; `ours` is our tie-breaker.
pub(crate) fn compare_roles(role: Role, ours: u64, controlling: Option<u64>, controlled: Option<u64>) -> Roles {
    match (role, controlling, controlled) {
        (Role::Controlling, Some(theirs), _) if ours >= theirs => Roles::Refuse,
        (Role::Controlling, Some(_), _) => Roles::Switch,
        (Role::Controlled, _, Some(theirs)) if ours >= theirs => Roles::Switch,
        (Role::Controlled, _, Some(_)) => Roles::Refuse,
        (Role::Controlling, None, _) | (Role::Controlled, _, None) => Roles::Agree,
    }
}

/// Whose check it is.
enum Sender {
    /// Of this peer; true: of its session before the ICE restart.
    Known(PeerId, bool),
    /// Its description has not come yet; with the password that it must know.
    Early(Secret),
}

impl Agent {
    /// A Binding request from a peer.
    pub(crate) fn handle_request(&mut self, base: Base, from: SocketAddr, message: &Message<'_>) {
        let Some(component) = self.half.component_of(base) else { return };
        // A base that the policy keeps out of the description is not there for anybody.
        if self.half.candidate_of(base).is_none() || message.method() != Method::BINDING {
            return;
        }
        if message.fingerprint() == Fingerprint::Wrong {
            return;
        }
        let Some((local_ufrag, remote_ufrag)) = message.username().and_then(split_username) else {
            return self.refuse(base, from, message, 400, None);
        };
        let Some(sender) = self.find_sender(local_ufrag, remote_ufrag) else {
            return self.refuse(base, from, message, 401, None);
        };
        let pwd = match &sender {
            Sender::Early(pwd) => pwd.clone(),
            Sender::Known(peer, is_previous) => match self.session(*peer, *is_previous) {
                Some(session) => session.local.pwd.clone(),
                None => return,
            },
        };
        let key = Key::short_term(pwd.expose().as_bytes());
        match message.verify_as(self.config.dialect.wire, &key) {
            Ok(()) => {}
            Err(IntegrityError::Missing) => return self.refuse(base, from, message, 400, None),
            Err(IntegrityError::Mismatch) => return self.refuse(base, from, message, 401, None),
        }
        let unknown = message.unknown_required();
        if !unknown.is_empty() {
            return self.refuse_unknown(base, from, message, unknown, &key);
        }
        let request = Request {
            base,
            from,
            component,
            priority: message.priority().unwrap_or(1).clamp(1, 0x7fff_ffff),
            use_candidate: message.use_candidate(),
            nomination: message.nomination(),
        };
        match sender {
            Sender::Known(peer, is_previous) => self.known_check(peer, is_previous, request, message, &key),
            Sender::Early(_) => self.early_check(request, (local_ufrag, remote_ufrag), message, &key),
        }
    }

    fn known_check(&mut self, peer: PeerId, is_previous: bool, request: Request, message: &Message<'_>, key: &Key) {
        let (base, from) = (request.base, request.from);
        let Some(role) = self.session(peer, is_previous).map(|s| (s.role, s.remote.lite)) else { return };
        let roles = compare_roles(role.0, self.tie_breaker, message.ice_controlling(), message.ice_controlled());
        match roles {
            Roles::Refuse => return self.refuse(base, from, message, 487, Some(key)),
            Roles::Switch if !role.1 => {
                self.with_session(peer, is_previous, Session::switch_role);
            }
            Roles::Switch | Roles::Agree => {}
        }
        if self.session(peer, is_previous).is_some_and(|session| session.forbids(&request)) {
            return self.refuse(base, from, message, 403, Some(key));
        }
        self.half.prove_connection(base, from);
        self.accept(&request, message, key);
        if let Some(peer_state) = self.peers.get_mut(&peer)
            && !peer_state.is_reached
        {
            peer_state.is_reached = true;
            self.half.event(Event::RemoteReached { peer });
        }
        self.with_session(peer, is_previous, |session, cx| session.check_received(cx, &request));
    }

    fn early_check(&mut self, request: Request, ufrags: (&str, &str), message: &Message<'_>, key: &Key) {
        // Without a description we are the offerer, hence controlling.
        if self.peers.is_empty() {
            let (ours, theirs) = (self.tie_breaker, message.ice_controlling());
            if compare_roles(Role::Controlling, ours, theirs, None) == Roles::Refuse {
                return self.refuse(request.base, request.from, message, 487, Some(key));
            }
        }
        self.half.prove_connection(request.base, request.from);
        self.accept(&request, message, key);
        if self.early.len() >= EARLY_MAX {
            self.early.pop_front();
        }
        let (local_ufrag, remote_ufrag) = (ufrags.0.to_owned(), ufrags.1.to_owned());
        self.early.push_back(EarlyCheck { local_ufrag, remote_ufrag, request });
    }

    /// The description came: its checks count now.
    pub(crate) fn replay_early_checks(&mut self, peer: PeerId) {
        let Some(session) = self.session(peer, false) else { return };
        let (local, remote) = (session.local.ufrag.clone(), session.remote.ufrag.clone());
        let is_ours = |early: &EarlyCheck| early.local_ufrag == local && early.remote_ufrag == remote;
        let (ours, rest): (Vec<_>, Vec<_>) = self.early.drain(..).partition(is_ours);
        self.early = rest.into();
        if !ours.is_empty()
            && let Some(state) = self.peers.get_mut(&peer)
            && !state.is_reached
        {
            state.is_reached = true;
            self.half.event(Event::RemoteReached { peer });
        }
        for early in ours {
            self.with_session(peer, false, |session, cx| session.check_received(cx, &early.request));
        }
    }

    fn find_sender(&self, local_ufrag: &str, remote_ufrag: &str) -> Option<Sender> {
        for (id, peer) in &self.peers {
            let is_it = |s: &Session| s.local.ufrag == local_ufrag && s.remote.ufrag == remote_ufrag;
            if is_it(&peer.session) {
                return Some(Sender::Known(*id, false));
            }
            if peer.previous.as_ref().is_some_and(is_it) {
                return Some(Sender::Known(*id, true));
            }
        }
        if self.half.credentials.ufrag == local_ufrag {
            return Some(Sender::Early(self.half.credentials.pwd.clone()));
        }
        let mut sessions = self.peers.values().flat_map(super::peer::Peer::sessions);
        sessions.find(|s| s.local.ufrag == local_ufrag).map(|s| Sender::Early(s.local.pwd.clone()))
    }

    fn accept(&mut self, request: &Request, message: &Message<'_>, key: &Key) {
        let answer = Builder::answer_as(self.config.dialect.wire, Class::Success, message)
            .with(&Attribute::XorMappedAddress(request.from))
            .integrity(message.integrity().unwrap_or(Integrity::Sha1), key);
        self.reply(request.base, request.from, answer);
    }

    fn refuse(&mut self, base: Base, to: SocketAddr, message: &Message<'_>, code: u16, key: Option<&Key>) {
        let reason = match code {
            400 => "Bad Request",
            401 => "Unauthenticated",
            403 => "Forbidden",
            487 => "Role Conflict",
            _ => "Refused",
        };
        let answer = Builder::answer_as(self.config.dialect.wire, Class::Error, message)
            .with(&Attribute::ErrorCode(code, reason));
        match key {
            Some(key) => self.reply(base, to, answer.integrity(Integrity::Sha1, key)),
            None => self.reply(base, to, answer),
        }
    }

    fn refuse_unknown(
        &mut self,
        base: Base,
        to: SocketAddr,
        message: &Message<'_>,
        unknown: Vec<AttributeType>,
        key: &Key,
    ) {
        let answer = Builder::answer_as(self.config.dialect.wire, Class::Error, message)
            .with(&Attribute::ErrorCode(420, "Unknown Attribute"))
            .with(&Attribute::UnknownAttributes(unknown))
            .integrity(Integrity::Sha1, key);
        self.reply(base, to, answer);
    }

    fn reply(&mut self, base: Base, to: SocketAddr, answer: Builder<'_>) {
        let bytes = match self.config.dialect.wire.fingerprint {
            FingerprintUse::Absent => answer.build(),
            FingerprintUse::Crc32 | FingerprintUse::Crc32AndTwin => answer.fingerprint().build(),
        };
        // A relay can only answer whom it permits; a check could not have come in otherwise.
        self.half.transmit(self.now, base, to, bytes);
    }
}

impl Session {
    /// The pair works, but our policy rules it out: the other side must not count on it.
    fn forbids(&self, request: &Request) -> bool {
        let pair = self.checklist.find(request.base, request.from).and_then(|id| self.checklist.get(id));
        pair.is_some_and(|pair| pair.state == PairState::Failed(CheckFailure::Policy))
    }

    /// Learns from a valid check (RFC 8445 §7.3.1.3 to §7.3.1.5).
    pub(crate) fn check_received(&mut self, cx: &mut Context<'_>, request: &Request) {
        if self.has_failed || !self.components(cx.half).contains(&request.component) {
            return;
        }
        let Some(local) = cx.half.candidate_of(request.base).cloned() else { return };
        let Some(remote) = self.remote_of(request, local.candidate.transport) else { return };
        let id = match self.checklist.find(request.base, request.from) {
            Some(id) => id,
            // After the conclusion only a nomination is a reason for a new pair, and a peer that may move without one.
            None if self.concluded_at.is_some() && !request.use_candidate && !self.renominates() => return,
            None => match self.checklist.add_pair(&local, &remote) {
                Some(id) => id,
                None => return,
            },
        };
        ask_permission(cx, request.base, request.from.ip());
        // A path that has died is left by whoever notices, in either role.
        let may_name = match self.role {
            Role::Controlled => true,
            Role::Controlling => {
                self.renominates() && self.concluded_at.is_some() && !self.insists(request.component, cx.now)
            }
        };
        let is_naming = request.use_candidate && may_name;
        let Some(pair) = self.checklist.get_mut(id) else { return };
        if is_naming {
            pair.nomination = request.nomination.unwrap_or(pair.nomination);
        }
        match pair.state {
            PairState::Succeeded { .. } if is_naming => self.nominate(cx, id),
            // What the policy forbids stays forbidden.
            PairState::Succeeded { .. } | PairState::Failed(CheckFailure::Policy) => {}
            PairState::InProgress | PairState::Frozen | PairState::Waiting | PairState::Failed(_) => {
                pair.nominate_when_valid |= is_naming;
                pair.triggered = pair.triggered.saturating_add(1);
                if pair.state == PairState::InProgress && pair.triggered > TRIGGERED_MAX {
                    return;
                }
                self.cancel_checks(cx.now, id);
                self.checklist.trigger(id, false);
            }
        }
    }

    /// The candidate that the check came from: a peer-reflexive one if it is new (RFC 8445 §7.3.1.3).
    fn remote_of(&mut self, request: &Request, ours: CandidateTransport) -> Option<Candidate> {
        let transport = opposite(ours);
        let same =
            |c: &&Candidate| c.addr == request.from && c.component == request.component && c.transport == transport;
        if let Some(known) = self.checklist.remote().iter().find(same) {
            return Some(known.clone());
        }
        self.learnt += 1;
        let candidate = Candidate {
            // '+' cannot clash with an honest peer's numbering, and no other candidate is to share its fate.
            foundation: format!("prflx+{}", self.learnt),
            component: request.component,
            transport,
            priority: request.priority,
            addr: request.from,
            kind: CandidateType::PeerReflexive,
            related: None,
        };
        self.checklist.add_remote(candidate.clone()).then_some(candidate)
    }
}

/// What a candidate that reaches ours is (RFC 6544 §7.2).
fn opposite(ours: CandidateTransport) -> CandidateTransport {
    match ours {
        CandidateTransport::Udp => CandidateTransport::Udp,
        CandidateTransport::Tcp(kind) => CandidateTransport::Tcp(match kind {
            TcpType::Active => TcpType::Passive,
            TcpType::Passive => TcpType::Active,
            TcpType::SimultaneousOpen => TcpType::SimultaneousOpen,
        }),
    }
}

/// `ours:theirs` (RFC 8445 §7.2.2).
fn split_username(username: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(username).ok()?.split_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_conflicts_are_decided_by_the_tie_breaker() {
        use Role::{Controlled, Controlling};
        let cases = [
            ("both control, ours is larger", Controlling, 9, Some(5), None, Roles::Refuse),
            ("both control, equal", Controlling, 5, Some(5), None, Roles::Refuse),
            ("both control, ours is smaller", Controlling, 1, Some(5), None, Roles::Switch),
            ("none controls, ours is larger", Controlled, 9, None, Some(5), Roles::Switch),
            ("none controls, ours is smaller", Controlled, 1, None, Some(5), Roles::Refuse),
            ("we control", Controlling, 1, None, Some(5), Roles::Agree),
            ("they control", Controlled, 1, Some(5), None, Roles::Agree),
            ("no attribute", Controlled, 1, None, None, Roles::Agree),
        ];
        for (name, role, ours, controlling, controlled, want) in cases {
            assert_eq!(compare_roles(role, ours, controlling, controlled), want, "case: {name}");
        }
    }
}
