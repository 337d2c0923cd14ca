//! Permissions, RFC 8656 §9: per peer *address*, the port does not count; 300 s, renewed after 240.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// One minute before the 300 s of RFC 8656 §9 are over. ChannelData does not renew them.
const RENEW_AFTER: Duration = Duration::from_mins(4);
/// Each remote candidate address costs one; SDP from the network must not make us ask without end.
const PERMISSIONS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, Default)]
struct Permission {
    is_ready: bool,
    renew_at: Option<Instant>,
}

/// The client's table.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    by_address: BTreeMap<IpAddr, Permission>,
}

impl Permissions {
    /// Notes the wish; true if the server is to be asked.
    pub(super) fn want(&mut self, address: IpAddr) -> bool {
        if self.by_address.contains_key(&address) || self.by_address.len() >= PERMISSIONS_MAX {
            return false;
        }
        self.by_address.insert(address, Permission::default());
        true
    }

    /// The server granted it; true if it is news.
    pub(super) fn confirm(&mut self, now: Instant, address: IpAddr) -> bool {
        if !self.by_address.contains_key(&address) && self.by_address.len() >= PERMISSIONS_MAX {
            return false;
        }
        let permission = self.by_address.entry(address).or_default();
        let is_news = !permission.is_ready;
        *permission = Permission { is_ready: true, renew_at: Some(now + RENEW_AFTER) };
        is_news
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        self.by_address.remove(&address);
    }

    pub(super) fn is_ready(&self, address: IpAddr) -> bool {
        self.by_address.get(&address).is_some_and(|permission| permission.is_ready)
    }

    /// Asked for and not yet answered: what a redirected allocation asks for again.
    pub(super) fn wanted(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.iter().filter(|(_, permission)| !permission.is_ready).map(|(address, _)| *address)
    }

    /// Takes the addresses whose permission is to be renewed now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let due = self.by_address.iter_mut().filter(|(_, permission)| permission.renew_at.is_some_and(|at| at <= now));
        due.map(|(address, permission)| {
            permission.renew_at = None;
            *address
        })
        .collect()
    }

    pub(super) fn next_renewal(&self) -> Option<(Instant, IpAddr)> {
        self.by_address.iter().filter_map(|(address, permission)| Some((permission.renew_at?, *address))).min()
    }
}
