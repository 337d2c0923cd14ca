//! The addresses of this host, and the news that they changed.
//!
//! Asked once a second: portable, needs no rights, and a second is short against the time a Wi-Fi hand-over takes.
//! A change is reported when two looks in a row agree, so that an interface coming up in steps is one event.

use std::net::IpAddr;
use std::time::Duration;

use super::pipe::{PipeEvent, PipeSender};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The usable addresses now, in a stable order: loopback last, no link-local IPv6 (it would need a zone in SDP).
pub fn addresses() -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|ip| is_usable(*ip))
        .collect();
    all.sort_by_key(|ip| (ip.is_loopback(), *ip));
    all.dedup();
    all
}

fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}

/// Reports every change of [`addresses`] after `known`, until the loop is gone.
pub async fn watch(known: Vec<IpAddr>, sink: PipeSender) {
    let mut changes = Debounce::new(known);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        if let Some(settled) = changes.look(addresses())
            && !sink.deliver(PipeEvent::Interfaces(settled)).await
        {
            return;
        }
    }
}

#[derive(Debug)]
struct Debounce {
    reported: Vec<IpAddr>,
    seen: Vec<IpAddr>,
}

impl Debounce {
    fn new(known: Vec<IpAddr>) -> Self {
        Self { seen: known.clone(), reported: known }
    }

    fn look(&mut self, now: Vec<IpAddr>) -> Option<Vec<IpAddr>> {
        let settled = now == self.seen && now != self.reported;
        self.seen = now;
        settled.then(|| {
            self.reported.clone_from(&self.seen);
            self.reported.clone()
        })
    }
}

#[cfg(test)]
mod interfaces_tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_change_is_reported_once_and_only_when_it_lasts() {
        let (home, away) = (list(&["10.0.0.1"]), list(&["10.0.0.1", "192.0.2.1"]));
        let mut changes = Debounce::new(home.clone());
        assert_eq!(changes.look(home.clone()), None);
        assert_eq!(changes.look(away.clone()), None);
        assert_eq!(changes.look(home.clone()), None);
        assert_eq!(changes.look(home.clone()), None, "a blink is no change");
        assert_eq!(changes.look(away.clone()), None);
        assert_eq!(changes.look(away.clone()), Some(away.clone()));
        assert_eq!(changes.look(away), None);
    }

    #[test]
    fn link_local_addresses_are_not_offered() {
        for (text, usable) in [("fe80::1", false), ("169.254.3.4", false), ("127.0.0.1", true), ("2001:db8::1", true)] {
            assert_eq!(is_usable(text.parse().unwrap()), usable, "{text}");
        }
    }
}
