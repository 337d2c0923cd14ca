//! Which paths are allowed, and the numbers of the dialects.
//!
//! Peculiar peers are data, not branches: a [`Dialect`] is a row of numbers (RFC 8445 §14, §6.1.2.5; RFC 8863 §4;
//! [MS-ICE2]), chosen once from the peer's SDP.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::candidate::CandidateType;
use crate::config::ServerTransport;
use crate::stun::wire::{self, Wire};

/// Which local candidates may be used. The remote side is not bound by it.
///
/// Applied before pruning: with [`Policy::NoHost`] a reflexive candidate equal to its base stays, so that a host with a
/// public address can still be reached, and its `raddr` is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Policy {
    #[default]
    All,
    /// Addresses of the interfaces are not told: reflexive and relayed candidates only.
    NoHost,
    RelayOnly,
    /// Relays that are reached over TCP or TLS only.
    RelayTcpOnly,
}

impl Policy {
    /// Whether a local candidate of this kind may be offered and used; `relay` is the relay's transport.
    pub fn allows(self, kind: CandidateType, relay: Option<ServerTransport>) -> bool {
        match self {
            Self::All => true,
            Self::NoHost => kind != CandidateType::Host,
            Self::RelayOnly => relay.is_some(),
            Self::RelayTcpOnly => matches!(relay, Some(ServerTransport::Tcp | ServerTransport::Tls)),
        }
    }

    /// Whether UDP sockets are needed at all.
    pub(crate) fn uses_udp(self) -> bool {
        match self {
            Self::All | Self::NoHost | Self::RelayOnly => true,
            Self::RelayTcpOnly => false,
        }
    }

    /// Whether host or reflexive candidates can be used, so that reflexive addresses are asked for.
    pub(crate) fn uses_direct(self) -> bool {
        match self {
            Self::All | Self::NoHost => true,
            Self::RelayOnly | Self::RelayTcpOnly => false,
        }
    }

    /// Whether addresses of interfaces and NATs are hidden in `raddr` (RFC 8839 §5.1).
    pub(crate) fn hides_related(self) -> bool {
        self != Self::All
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::NoHost => "no-host",
            Self::RelayOnly => "relay-only",
            Self::RelayTcpOnly => "relay-tcp-only",
        })
    }
}

/// A policy name that is not one of the four.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path policy {0:?} is not one of all, no-host, relay-only, relay-tcp-only")]
pub struct PolicyError(String);

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        [Self::All, Self::NoHost, Self::RelayOnly, Self::RelayTcpOnly]
            .into_iter()
            .find(|policy| policy.to_string() == text)
            .ok_or_else(|| PolicyError(text.to_owned()))
    }
}

/// When sending moves to the nominated pair: the one point where the two worlds differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moves {
    /// RFC 8445 §12.1: once selected, the pair MUST be used.
    AtNomination,
    /// Lync: when the re-INVITE is answered, see [`Agent::announced`](crate::Agent::announced).
    AtAnswer,
}

/// How long the promotion waits for better pairs after the first valid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// A multiple of that pair's round trip, within limits.
    RoundTrips {
        times: u32,
        least: Duration,
        most: Duration,
    },
    Fixed(Duration),
}

impl Settle {
    /// The waiting time if one component has already shown that a better path exists.
    pub fn longest(self) -> Duration {
        match self {
            Self::RoundTrips { most, .. } => most,
            Self::Fixed(time) => time,
        }
    }

    /// The waiting time after a first valid pair with this round trip.
    pub fn after(self, rtt: Duration) -> Duration {
        match self {
            Self::RoundTrips { times, least, most } => (rtt * times).clamp(least, most),
            Self::Fixed(time) => time,
        }
    }
}

/// The numbers of one kind of peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    pub name: &'static str,
    /// Ta of a peer that does not name one (RFC 8445 §14.2).
    pub default_pacing: Duration,
    /// From the start of the checks until the session fails (RFC 8863 §4; [MS-ICE2]).
    pub patience: Duration,
    pub settle: Settle,
    /// From the start of the checks: nominate what is there.
    pub nominate_latest: Duration,
    pub moves: Moves,
    /// The bytes of the checks.
    pub wire: &'static Wire,
}

impl Dialect {
    /// The standard: RFC 8445, RFC 8863.
    pub const RFC8445: Self = Self {
        name: "rfc8445",
        default_pacing: Duration::from_millis(50),
        patience: Duration::from_millis(39_500),
        settle: Settle::RoundTrips { times: 4, least: Duration::from_millis(300), most: Duration::from_secs(1) },
        nominate_latest: Duration::from_secs(8),
        moves: Moves::AtNomination,
        wire: &wire::RFC8489,
    };

    /// Lync and Skype for Business, [MS-ICE2].
    pub const MS_ICE2: Self = Self {
        name: "ms-ice2",
        default_pacing: Duration::from_millis(20),
        patience: Duration::from_secs(10),
        settle: Settle::Fixed(Duration::from_secs(3)),
        nominate_latest: Duration::from_secs(8),
        moves: Moves::AtAnswer,
        wire: &wire::MS_ICE2,
    };

    /// Office Communications Server 2007, [MS-ICE].
    pub const MS_ICE: Self = Self { name: "ms-ice", wire: &wire::MS_ICE, ..Self::MS_ICE2 };
}

/// Smallest RTO of a check or of gathering (RFC 8445 §14.3).
pub(crate) const RTO_LEAST: Duration = Duration::from_millis(500);

/// Ta of all agents together is never smaller (RFC 8445 §14.2).
pub(crate) const PACING_LEAST: Duration = Duration::from_millis(5);

/// RFC 8445 §14.3: `max(500 ms, Ta * N * (waiting + in progress))`, N = 1 checklist.
pub(crate) fn check_rto(pacing: Duration, active: usize) -> Duration {
    let active = u32::try_from(active).unwrap_or(u32::MAX).min(1000);
    RTO_LEAST.max(pacing * active)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settle_time_is_four_round_trips_within_300_ms_and_1_s() {
        let cases = [(0, 300), (50, 300), (100, 400), (200, 800), (400, 1000)];
        for (rtt, want) in cases {
            let settle = Dialect::RFC8445.settle.after(Duration::from_millis(rtt));
            assert_eq!(settle, Duration::from_millis(want), "rtt {rtt} ms");
        }
        assert_eq!(Dialect::MS_ICE2.settle.after(Duration::from_millis(1)), Duration::from_secs(3));
    }

    #[test]
    fn the_rto_of_a_check_grows_with_the_list_and_is_never_below_500_ms() {
        assert_eq!(check_rto(Duration::from_millis(5), 10), Duration::from_millis(500));
        assert_eq!(check_rto(Duration::from_millis(50), 24), Duration::from_millis(1200));
    }

    #[test]
    fn policies_bind_by_type_and_relay_transport() {
        use CandidateType::{Host, PeerReflexive, Relayed, ServerReflexive};
        use ServerTransport::{Tcp, Tls, Udp};
        let cases = [
            (Policy::All, [true, true, true, true, true, true]),
            (Policy::NoHost, [false, true, true, true, true, true]),
            (Policy::RelayOnly, [false, false, false, true, true, true]),
            (Policy::RelayTcpOnly, [false, false, false, false, true, true]),
        ];
        let ends = [
            (Host, None),
            (ServerReflexive, None),
            (PeerReflexive, None),
            (Relayed, Some(Udp)),
            (Relayed, Some(Tcp)),
            (Relayed, Some(Tls)),
        ];
        for (policy, want) in cases {
            assert_eq!(ends.map(|(kind, relay)| policy.allows(kind, relay)), want, "{policy}");
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("relay".parse::<Policy>().is_err());
    }
}
