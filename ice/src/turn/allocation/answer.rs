//! What the answers of the server mean. RFC 8656 §7.3, §7.4, §8.4, §10.3, §12.3; RFC 8489 §9.2.5, §10.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::{debug, trace};

use super::{
    Allocation, Event, LIFETIME_DEFAULT, Lease, REDIRECTS_MAX, REFRESH_LEAST, REFRESH_MARGIN, ROUNDS_MAX, State,
};
use crate::config::ServerTransport;
use crate::stun::{Class, Message};
use crate::turn::auth::Session;
use crate::turn::error::RelayCause;
use crate::turn::exchange::{Exchange, Purpose};

impl Allocation {
    pub(super) fn handle_answer(&mut self, now: Instant, message: &Message<'_>) {
        let Some(purpose) = self.purpose_of(message.transaction_id()) else {
            trace!(?message, "answer to nothing in flight");
            return;
        };
        if !self.is_authentic(purpose, message) {
            debug!(?message, "answer with wrong or missing integrity dropped");
            return;
        }
        let Some(exchange) = self.take_exchange(purpose) else { return };
        let (rounds, was_signed, rtt) = (exchange.rounds, exchange.is_signed, exchange.transaction.rtt(now));
        match message.error_code() {
            Some((code, reason)) if message.class() == Class::Error => match code {
                401 if !was_signed || self.is_other_realm(message) => self.sign_in(now, purpose, rounds, message),
                438 => self.sign_in(now, purpose, rounds, message),
                300 if purpose == Purpose::Allocate => self.redirect(now, message),
                code => {
                    let user = &self.config.credentials.username;
                    self.refused(now, purpose, RelayCause::from_code(code, reason, user));
                }
            },
            Some(_) | None if message.class() == Class::Success => self.granted(now, purpose, message, rtt),
            Some(_) | None => self.refused(now, purpose, RelayCause::BadAnswer { what: "ERROR-CODE" }),
        }
    }

    fn take_exchange(&mut self, purpose: Purpose) -> Option<Exchange> {
        if !matches!(self.state, State::Silent(_)) {
            return self.exchanges.remove(purpose);
        }
        match std::mem::replace(&mut self.state, State::Allocating) {
            State::Silent(late) => Some(late),
            State::Allocating | State::AwaitingStream | State::Allocated(_) | State::Freeing | State::Closed => None,
        }
    }

    /// RFC 8489 §9.2.5: a success must be signed once we signed; an error response may come without integrity,
    /// because a server that does not know us has no key.
    fn is_authentic(&self, purpose: Purpose, message: &Message<'_>) -> bool {
        let Some(session) = &self.session else {
            return message.class() == Class::Error || purpose == Purpose::Allocate;
        };
        match message.integrity() {
            Some(_) => message.verify(session.key()).is_ok(),
            None => message.class() == Class::Error,
        }
    }

    fn is_other_realm(&self, message: &Message<'_>) -> bool {
        self.session.as_ref().is_some_and(|session| message.realm().is_some_and(|realm| realm != session.realm))
    }

    fn sign_in(&mut self, now: Instant, purpose: Purpose, rounds: u8, challenge: &Message<'_>) {
        if rounds >= ROUNDS_MAX {
            self.refused(now, purpose, RelayCause::AlwaysStale { rounds });
            return;
        }
        match Session::from_challenge(challenge, &self.config.credentials) {
            Ok(session) => {
                self.session = Some(session);
                let is_ending = matches!(self.state, State::Freeing) && purpose != Purpose::Free;
                if is_ending { self.close(Event::Freed) } else { self.start(now, purpose, rounds + 1) }
            }
            Err(what) => self.refused(now, purpose, RelayCause::BadChallenge { what }),
        }
    }

    /// RFC 8656 §7.3, RFC 8489 §10.
    fn redirect(&mut self, now: Instant, message: &Message<'_>) {
        let Some(to) = message.alternate_server().filter(|to| to.is_ipv4() == self.config.server.is_ipv4()) else {
            return self.give_up(RelayCause::BadRedirect);
        };
        if self.servers.len() > REDIRECTS_MAX || self.servers.contains(&to) {
            return self.give_up(RelayCause::TooManyRedirects { to });
        }
        if matches!(self.state, State::Freeing) {
            return self.close(Event::Freed);
        }
        self.servers.push(to);
        self.config.server = to;
        // Nonce and realm are the other server's business.
        self.session = None;
        self.push_event(Event::Redirected { to });
        match self.config.transport {
            ServerTransport::Udp => self.start(now, Purpose::Allocate, 0),
            ServerTransport::Tcp | ServerTransport::Tls => self.state = State::AwaitingStream,
        }
    }

    fn granted(&mut self, now: Instant, purpose: Purpose, message: &Message<'_>, rtt: Duration) {
        match purpose {
            Purpose::Allocate => self.allocated(now, message, rtt),
            Purpose::Refresh => {
                let lifetime = message.lifetime().unwrap_or(LIFETIME_DEFAULT);
                if let State::Allocated(lease) = &mut self.state {
                    lease.expires_at = now + lifetime;
                    lease.refresh_at = Some(now + refresh_after(lifetime));
                    self.is_verifying = false;
                    self.push_event(Event::Alive);
                }
            }
            Purpose::Free => self.close(Event::Freed),
            Purpose::Permit(address) => self.permitted(now, address),
            Purpose::Bind(peer) => {
                let is_news = self.channels.confirm(now, peer);
                self.permitted(now, peer.ip());
                if is_news {
                    self.push_event(Event::ChannelReady(peer));
                }
            }
        }
    }

    fn allocated(&mut self, now: Instant, message: &Message<'_>, rtt: Duration) {
        if matches!(self.state, State::Freeing) {
            return self.start(now, Purpose::Free, 0);
        }
        let Some(relayed) = message.xor_relayed_address() else {
            return self.give_up(RelayCause::BadAnswer { what: "XOR-RELAYED-ADDRESS" });
        };
        let Some(mapped) = message.xor_mapped_address() else {
            return self.give_up(RelayCause::BadAnswer { what: "XOR-MAPPED-ADDRESS" });
        };
        let lifetime = message.lifetime().unwrap_or(LIFETIME_DEFAULT);
        let refresh_at = Some(now + refresh_after(lifetime));
        self.state = State::Allocated(Lease { relayed, expires_at: now + lifetime, refresh_at });
        debug!(%relayed, %mapped, lifetime_s = lifetime.as_secs(), "allocated");
        self.push_event(Event::Allocated { relayed, mapped, lifetime, rtt });
        let wanted: Vec<IpAddr> = self.permissions.wanted().collect();
        for address in wanted {
            self.start(now, Purpose::Permit(address), 0);
        }
    }

    fn permitted(&mut self, now: Instant, address: IpAddr) {
        if self.permissions.confirm(now, address) {
            self.push_event(Event::PermissionReady(address));
        }
    }

    pub(super) fn refused(&mut self, now: Instant, purpose: Purpose, cause: RelayCause) {
        debug!(?purpose, %cause, "refused");
        // 437 and 441 speak of the allocation, whatever was asked.
        let is_gone = matches!(cause, RelayCause::Mismatch | RelayCause::WrongCredentials);
        match purpose {
            Purpose::Free => self.close(Event::Freed),
            Purpose::Allocate if matches!(self.state, State::Freeing) => self.close(Event::Freed),
            Purpose::Allocate => self.give_up(cause),
            Purpose::Refresh | Purpose::Permit(_) | Purpose::Bind(_) if is_gone => self.give_up(cause),
            // Most likely the credentials have expired: what was granted is still ours to its end (RFC 8656 §8.4).
            Purpose::Refresh if matches!(cause, RelayCause::Unauthorized { .. } | RelayCause::Forbidden) => {
                let error = self.error(cause);
                self.push_event(Event::Ending(error));
            }
            Purpose::Refresh => self.retry_refresh(now),
            Purpose::Permit(address) => {
                self.permissions.remove(address);
                let error = self.error(cause);
                self.push_event(Event::PermissionFailed(address, error));
            }
            Purpose::Bind(peer) => {
                self.channels.give_up(now, peer);
                let error = self.error(cause);
                self.push_event(Event::ChannelFailed(peer, error));
            }
        }
    }

    /// A refusal that may pass (500, a stale nonce too often): again at half of what is left.
    fn retry_refresh(&mut self, now: Instant) {
        self.is_verifying = false;
        if let State::Allocated(lease) = &mut self.state {
            let left = lease.expires_at.saturating_duration_since(now);
            lease.refresh_at = (left > Duration::from_secs(2)).then(|| now + left / 2);
        }
    }
}

/// One minute before the end; a short lifetime at its half.
fn refresh_after(lifetime: Duration) -> Duration {
    let early = if lifetime > 2 * REFRESH_MARGIN { lifetime.saturating_sub(REFRESH_MARGIN) } else { lifetime / 2 };
    early.max(REFRESH_LEAST)
}
