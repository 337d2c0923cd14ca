//! Requests in flight: at most one per purpose, rebuilt under a new transaction when the server wants another nonce.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::stun::{Due, Transaction, TransactionId};

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    Allocate,
    Refresh,
    /// Refresh with LIFETIME 0.
    Free,
    Permit(IpAddr),
    Bind(SocketAddr),
}

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) transaction: Transaction,
    /// How often the server asked for another nonce.
    pub(super) rounds: u8,
    /// The request carried credentials.
    pub(super) is_signed: bool,
}

/// What one exchange wants at this moment.
#[derive(Debug)]
pub(super) enum Step {
    Send(Vec<u8>),
    Expired(Purpose, Exchange),
}

#[derive(Debug, Default)]
pub(super) struct Exchanges {
    list: BTreeMap<Purpose, Exchange>,
}

impl Exchanges {
    pub(super) fn insert(&mut self, purpose: Purpose, exchange: Exchange) {
        self.list.insert(purpose, exchange);
    }

    pub(super) fn get_mut(&mut self, purpose: Purpose) -> Option<&mut Exchange> {
        self.list.get_mut(&purpose)
    }

    pub(super) fn contains(&self, purpose: Purpose) -> bool {
        self.list.contains_key(&purpose)
    }

    pub(super) fn purpose_of(&self, id: TransactionId) -> Option<Purpose> {
        self.list.iter().find(|(_, exchange)| exchange.transaction.id() == id).map(|(purpose, _)| *purpose)
    }

    pub(super) fn remove(&mut self, purpose: Purpose) -> Option<Exchange> {
        self.list.remove(&purpose)
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// The next thing due at `now`; an expired exchange is taken out. Call until `None`.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Step> {
        let purpose = self.list.iter().find(|(_, exchange)| exchange.transaction.deadline() <= now)?.0;
        let purpose = *purpose;
        match self.list.get_mut(&purpose)?.transaction.poll(now)? {
            Due::Send(bytes) => Some(Step::Send(bytes.to_vec())),
            Due::Expired => Some(Step::Expired(purpose, self.list.remove(&purpose)?)),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<(Instant, Reason)> {
        let due =
            self.list.iter().map(|(purpose, exchange)| (exchange.transaction.deadline(), Reason::Resend(*purpose)));
        due.min_by_key(|(at, _)| *at)
    }
}

/// Why an allocation wants to be woken: "in 43 ms: permission for 192.0.2.1".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Resend(Purpose),
    Refresh,
    Expiry,
    Permission(IpAddr),
    Channel(SocketAddr),
    Keepalive,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resend(Purpose::Allocate) => f.write_str("Allocate unanswered"),
            Self::Resend(Purpose::Refresh) => f.write_str("Refresh unanswered"),
            Self::Resend(Purpose::Free) => f.write_str("Refresh with LIFETIME 0 unanswered"),
            Self::Resend(Purpose::Permit(address)) => write!(f, "CreatePermission for {address} unanswered"),
            Self::Resend(Purpose::Bind(peer)) => write!(f, "ChannelBind for {peer} unanswered"),
            Self::Refresh => f.write_str("refresh of the allocation"),
            Self::Expiry => f.write_str("end of the allocation"),
            Self::Permission(address) => write!(f, "permission for {address}"),
            Self::Channel(peer) => write!(f, "channel for {peer}"),
            Self::Keepalive => f.write_str("keepalive to the server"),
        }
    }
}
