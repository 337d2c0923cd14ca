//! What the servers turned out to be: told once to the owner, and listed with causes in the report.

use std::time::{Duration, Instant};

use crate::config::{Server, ServerId, ServerTransport};
use crate::event::{Event, ServerCause, ServerFailure, ServerOutcome};
use crate::gather::{Attempt, AttemptState};
use crate::local::{Half, SocketState};

impl Half {
    /// Tells once what a server turned out to be: what it was configured for decides.
    pub(crate) fn probe(&mut self, now: Instant, server: ServerId) {
        if self.probes.contains_key(&server) {
            return;
        }
        let Some(config) = self.servers.get(server.0) else { return };
        let wants_relay = config.credentials.is_some();
        let of_server = || self.attempts.iter().filter(|a| a.server == server && a.is_relay() == wants_relay);
        let transport = self
            .relays
            .values()
            .find(|r| r.server == server && r.relayed.is_some())
            .map(super::relay::Relay::transport);
        let outcome = if of_server().any(|a| matches!(a.state, AttemptState::Succeeded { .. })) {
            ServerOutcome::Works(transport.unwrap_or(config.transport))
        } else if of_server().all(|a| !a.is_open()) {
            let Some(cause) = of_server().find_map(failure) else { return };
            ServerOutcome::Failed(cause)
        } else {
            return;
        };
        let started = of_server().filter_map(|a| a.started).min().unwrap_or(now);
        let took = now.saturating_duration_since(started);
        self.probes.insert(server, (outcome.clone(), took));
        self.event(Event::ServerProbed { server, outcome, took });
    }

    /// Servers that gave nothing for at least one component, with the cause.
    pub(crate) fn failures(&self, took: Duration) -> Vec<ServerFailure> {
        self.servers_with_ids().into_iter().filter_map(|(id, server)| self.failure_of(id, server, took)).collect()
    }

    fn failure_of(&self, id: ServerId, server: Server, took: Duration) -> Option<ServerFailure> {
        let wants_relay = server.credentials.is_some();
        let is_useless = !wants_relay && (!self.policy.uses_direct() || server.transport != ServerTransport::Udp);
        let of_server = || self.attempts.iter().filter(|a| a.server == id && a.is_relay() == wants_relay);
        if is_useless || of_server().any(|a| matches!(a.state, AttemptState::Succeeded { .. })) {
            return None;
        }
        if self.components.iter().all(|c| self.has_relay(id, *c)) && wants_relay && of_server().next().is_none() {
            return None; // kept from before an ICE restart
        }
        let silent = of_server().any(Attempt::is_open).then_some(ServerCause::Silent(took));
        let cause = of_server().find_map(failure).or(silent).unwrap_or(ServerCause::NoInterface);
        Some(ServerFailure { server: id, name: server.name, addr: server.addr, transport: server.transport, cause })
    }

    /// Host candidates that there could have been.
    pub(crate) fn unavailable(&self) -> Vec<String> {
        let sockets = self.sockets.values().filter_map(|socket| match &socket.state {
            SocketState::Failed { cause } => Some(format!("{} udp {}: {cause}", socket.component, socket.ip)),
            SocketState::Opening { .. } | SocketState::Open { .. } => None,
        });
        let endpoints = self.endpoints.values();
        let endpoints = endpoints.filter_map(|e| Some(format!("{} tcp {}: {}", e.component, e.ip, e.failure()?)));
        sockets.chain(endpoints).collect()
    }

    /// Why a server has no candidate, or what it gave: a line of the report.
    pub(crate) fn server_outcome(&self, id: ServerId) -> (String, bool) {
        let Some(server) = self.servers.get(id.0).cloned() else { return (String::new(), false) };
        let relayed: Vec<String> =
            self.relays.values().filter(|r| r.server == id).filter_map(|r| Some(r.relayed?.to_string())).collect();
        if !relayed.is_empty() {
            return (format!("relay {}", relayed.join(", ")), true);
        }
        match self.probes.get(&id) {
            Some((ServerOutcome::Works(transport), _)) => (format!("works over {transport}"), true),
            Some((ServerOutcome::Failed(cause), _)) => (cause.to_string(), false),
            None => match self.failure_of(id, server, self.gathered_in.unwrap_or_default()) {
                Some(failure) => (failure.cause.to_string(), false),
                None => ("not asked".to_owned(), false),
            },
        }
    }
}

fn failure(attempt: &Attempt) -> Option<ServerCause> {
    match &attempt.state {
        AttemptState::Failed(cause) => Some(cause.clone()),
        AttemptState::Planned { .. }
        | AttemptState::Binding(_)
        | AttemptState::Relay(_)
        | AttemptState::Succeeded { .. } => None,
    }
}
