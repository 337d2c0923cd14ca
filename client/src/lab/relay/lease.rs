//! One allocation as the server keeps it: lifetime, permissions, channels. RFC 8656 §3.2, §9, §12.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ice::ServerTransport;
use ice::stun::{Message, TransactionId};
use ice::turn::channel;

use super::RelayId;
use super::access::Admitted;

/// RFC 8656 §9.
const PERMISSION_LIFETIME: Duration = Duration::from_mins(5);
/// Peers that one client may name; ICE needs a few dozen.
const PERMISSIONS_MAX: usize = 256;
/// Channels that one client may bind.
const CHANNELS_MAX: usize = 256;

/// An allocation, for people and for tests that ask what is left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub user: String,
    /// `None` if its connection is just closing.
    pub client: Option<SocketAddr>,
    pub transport: ServerTransport,
    /// `None` while the relay socket is being opened.
    pub relayed: Option<SocketAddr>,
    pub age: Duration,
    pub expires_in: Duration,
    pub permissions: Vec<IpAddr>,
    pub channels: Vec<SocketAddr>,
    /// Payload bytes from the client to peers, and from peers to the client.
    pub out_bytes: u64,
    pub in_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Lease {
    /// Kept, so that a running allocation outlives the expiry of its credentials.
    pub(super) admitted: Admitted,
    pub(super) relay: RelayId,
    pub(super) relayed: Option<SocketAddr>,
    /// EVEN-PORT was asked for: so many more sockets are opened until one has an even port.
    pub(super) even_tries: u8,
    /// The Allocate that made it: its retransmission gets the same answer again (RFC 8656 §7.2).
    pub(super) request: Vec<u8>,
    pub(super) transaction: TransactionId,
    pub(super) lifetime: Duration,
    pub(super) expires_at: Instant,
    created_at: Instant,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
    out_bytes: u64,
    in_bytes: u64,
}

/// The client bound a channel in a way RFC 8656 §12.2 forbids (400), or too many (508).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BindError {
    Conflict,
    TooMany,
}

impl Lease {
    pub(super) fn new(
        now: Instant,
        admitted: &Admitted,
        relay: RelayId,
        request: &Message<'_>,
        lifetime: Duration,
    ) -> Self {
        Self {
            admitted: admitted.clone(),
            relay,
            relayed: None,
            even_tries: 0,
            request: request.as_bytes().to_vec(),
            transaction: request.transaction_id(),
            lifetime,
            expires_at: now + lifetime,
            created_at: now,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            out_bytes: 0,
            in_bytes: 0,
        }
    }

    pub(super) fn user(&self) -> &str {
        &self.admitted.user
    }

    pub(super) fn extend(&mut self, now: Instant, lifetime: Duration) {
        self.lifetime = lifetime;
        self.expires_at = now + lifetime;
    }

    /// False if there are too many.
    pub(super) fn permit(&mut self, now: Instant, address: IpAddr) -> bool {
        self.permissions.retain(|_, until| now < *until);
        if self.permissions.len() >= PERMISSIONS_MAX && !self.permissions.contains_key(&address) {
            return false;
        }
        self.permissions.insert(address, now + PERMISSION_LIFETIME);
        true
    }

    pub(super) fn permits(&self, now: Instant, address: IpAddr) -> bool {
        self.permissions.get(&address).is_some_and(|until| now < *until)
    }

    /// Binds or renews; permits the peer's address as well.
    pub(super) fn bind(&mut self, now: Instant, number: u16, peer: SocketAddr) -> Result<(), BindError> {
        self.channels.retain(|_, (_, until)| now < *until);
        let is_conflict = |(other, (bound, _)): (&u16, &(SocketAddr, Instant))| (*other == number) != (*bound == peer);
        if !channel::NUMBERS.contains(&number) || self.channels.iter().any(is_conflict) {
            return Err(BindError::Conflict);
        }
        if self.channels.len() >= CHANNELS_MAX || !self.permit(now, peer.ip()) {
            return Err(BindError::TooMany);
        }
        self.channels.insert(number, (peer, now + channel::LIFETIME));
        Ok(())
    }

    pub(super) fn channel_peer(&self, now: Instant, number: u16) -> Option<SocketAddr> {
        self.channels.get(&number).filter(|(_, until)| now < *until).map(|(peer, _)| *peer)
    }

    pub(super) fn channel_number(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        let bound = self.channels.iter().find(|(_, (bound, until))| *bound == peer && now < *until);
        bound.map(|(number, _)| *number)
    }

    pub(super) fn count_out(&mut self, payload_bytes: usize) {
        self.out_bytes = self.out_bytes.saturating_add(u64::try_from(payload_bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn count_in(&mut self, payload_bytes: usize) {
        self.in_bytes = self.in_bytes.saturating_add(u64::try_from(payload_bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn holding(&self, now: Instant, client: Option<SocketAddr>, transport: ServerTransport) -> Holding {
        let live = |until: &Instant| now < *until;
        Holding {
            user: self.admitted.user.clone(),
            client,
            transport,
            relayed: self.relayed,
            age: now.saturating_duration_since(self.created_at),
            expires_in: self.expires_at.saturating_duration_since(now),
            permissions: self.permissions.iter().filter(|(_, until)| live(until)).map(|(ip, _)| *ip).collect(),
            channels: self.channels.values().filter(|(_, until)| live(until)).map(|(peer, _)| *peer).collect(),
            out_bytes: self.out_bytes,
            in_bytes: self.in_bytes,
        }
    }
}
