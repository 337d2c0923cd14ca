//! The addresses of this host, and the news that they changed.
//!
//! Asked four times a second: portable, needs no rights, costs one system call, and is short against the two seconds in which
//! a call has to be on its new address. A change is reported when two looks in a row agree, so that an interface coming up in
//! steps is one event.
//!
//! Sleep is noticed here too: the wall clock goes on while the host is suspended, the monotonic one stands (on Linux).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::clock;
use super::pipe::{PipeEvent, PipeSender};

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The wall clock may be set by hand or by NTP; a jump this large between two looks is a sleep, or as good as one.
const JUMP: Duration = Duration::from_secs(5);

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
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut clocks = (clock::now(), clock::since_unix_epoch());
    loop {
        ticks.tick().await;
        let before = std::mem::replace(&mut clocks, (clock::now(), clock::since_unix_epoch()));
        if has_slept(before, clocks) && !sink.deliver(PipeEvent::Woken).await {
            return;
        }
        if let Some(settled) = changes.look(addresses())
            && !sink.deliver(PipeEvent::Interfaces(settled)).await
        {
            return;
        }
    }
}

/// More time has passed on the wall than for this process.
fn has_slept(before: (Instant, Duration), now: (Instant, Duration)) -> bool {
    let awake = now.0.saturating_duration_since(before.0);
    now.1.saturating_sub(before.1) > awake + JUMP
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
    fn a_wall_clock_that_runs_ahead_is_a_sleep_and_one_that_is_set_a_little_is_none() {
        let (start, wall) = (clock::now(), Duration::from_secs(1_000_000));
        let after = |awake: u64, wall_s: u64| (start + Duration::from_secs(awake), wall + Duration::from_secs(wall_s));
        for (name, now, slept) in [
            ("a quarter of a second", after(0, 0), false),
            ("a busy machine", after(60, 60), false),
            ("the clock was set", after(1, 4), false),
            ("a night", after(1, 30_000), true),
        ] {
            assert_eq!(has_slept((start, wall), now), slept, "case: {name}");
        }
    }

    #[test]
    fn link_local_addresses_are_not_offered() {
        for (text, usable) in [("fe80::1", false), ("169.254.3.4", false), ("127.0.0.1", true), ("2001:db8::1", true)] {
            assert_eq!(is_usable(text.parse().unwrap()), usable, "{text}");
        }
    }
}
