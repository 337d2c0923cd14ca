//! Asking our servers again in the middle of a session: whose network has changed, ours or theirs?
//!
//! When the path in use is in doubt, every relay is asked for a sign of life with a Refresh, and one STUN server per socket
//! what it sees. An address other than before means that our NAT has forgotten us or moved (RFC 4787 §4): nobody else needs
//! to be waited for, an ICE restart is due at once. No answer means nothing by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{ServerId, ServerTransport};
use crate::event::SocketId;
use crate::local::Half;
use crate::pair::{Base, RelayId};
use crate::stun::{Builder, Class, Due, Message, Method, Timing, Transaction, TransactionId};

/// A few quick questions; after that the path has been judged anyway.
const TIMING: Timing = Timing { rto: Duration::from_millis(200), sends_max: 3, last_wait: Duration::from_millis(600) };

/// One question on one socket.
#[derive(Debug)]
pub(crate) struct Sounding {
    to: SocketAddr,
    /// What this server saw when we gathered.
    expected: SocketAddr,
    transaction: Transaction,
}

impl Half {
    /// Asks all relays, and a STUN server from each socket.
    pub(crate) fn verify_servers(&mut self, now: Instant) {
        self.rebound = false;
        for id in self.relays.keys().copied().collect::<Vec<_>>() {
            self.verify_relay(now, id);
        }
        let known = self.sockets.iter().filter_map(|(id, socket)| Some((*id, socket.seen?)));
        for (socket, (server, expected)) in known.collect::<Vec<_>>() {
            let Some(to) = self.servers.get(server.0).map(|server| server.addr) else { continue };
            let id = TransactionId::random(&mut self.rng);
            let request = Builder::new(Class::Request, Method::BINDING, id).fingerprint().build();
            let transaction = Transaction::new(now, id, request, TIMING);
            self.soundings.insert(socket, Sounding { to, expected, transaction });
        }
        self.poll_soundings(now);
    }

    pub(crate) fn poll_soundings(&mut self, now: Instant) {
        let mut sends = Vec::new();
        self.soundings.retain(|socket, sounding| {
            while let Some(due) = sounding.transaction.poll(now) {
                match due {
                    Due::Send(bytes) => sends.push((*socket, sounding.to, bytes.to_vec())),
                    Due::Expired => return false,
                }
            }
            true
        });
        for (socket, to, payload) in sends {
            self.transmit(now, Base::Socket(socket), to, payload);
        }
    }

    pub(crate) fn next_sounding_at(&self) -> Option<Instant> {
        self.soundings.values().map(|sounding| sounding.transaction.deadline()).min()
    }

    /// Takes a Binding response to a sounding. Says whether it was one.
    pub(crate) fn sounding_response(&mut self, socket: SocketId, message: &Message<'_>) -> bool {
        let is_it = |sounding: &Sounding| sounding.transaction.id() == message.transaction_id();
        if !self.soundings.get(&socket).is_some_and(is_it) {
            return false;
        }
        let Some(sounding) = self.soundings.remove(&socket) else { return false };
        if let (Class::Success, Some(mapped)) = (message.class(), message.xor_mapped_address())
            && mapped != sounding.expected
        {
            tracing::debug!(old = %sounding.expected, new = %mapped, "our address on the Internet has changed");
            self.rebound = true;
        }
        true
    }

    /// What a server saw of a socket, for comparison later.
    pub(crate) fn remember_seen(&mut self, id: SocketId, server: ServerId, mapped: SocketAddr) {
        let is_udp = self.servers.get(server.0).is_some_and(|server| server.transport == ServerTransport::Udp);
        if let Some(socket) = self.sockets.get_mut(&id).filter(|_| is_udp) {
            socket.seen.get_or_insert((server, mapped));
        }
    }

    /// Whether packets of a relay leave to this address from this socket.
    pub(crate) fn relay_is_at(&self, relay: RelayId, socket: SocketId, to: SocketAddr) -> bool {
        let Some(relay) = self.relays.get(&relay) else { return false };
        relay.socket() == Some(socket) && self.servers.get(relay.server.0).is_some_and(|server| server.addr == to)
    }
}

/// Questions under way, one per socket.
pub(crate) type Soundings = BTreeMap<SocketId, Sounding>;
