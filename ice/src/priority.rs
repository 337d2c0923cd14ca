//! The two formulas of RFC 8445 §5.1.2.1 and §6.1.2.3, and the preferences that go into them.

use crate::candidate::{CandidateTransport, CandidateType, Component, TcpType};
use crate::config::ServerTransport;
use crate::description::Role;

/// Local preferences of relays over TCP and TLS lie below those over UDP, in steps of a quarter of the range.
const LOCAL_PREFERENCE_TCP: u16 = 0x7fff;
const LOCAL_PREFERENCE_TLS: u16 = 0x3fff;

/// Type preference, RFC 8445 §5.1.2.2; over TCP half of it, as UDP is better for media (RFC 6544 §4.2).
pub(crate) fn type_preference(kind: CandidateType, transport: CandidateTransport) -> u8 {
    let over_udp = match kind {
        CandidateType::Host => 126,
        CandidateType::PeerReflexive => 110,
        CandidateType::ServerReflexive => 100,
        CandidateType::Relayed => 0,
    };
    match transport {
        CandidateTransport::Udp => over_udp,
        CandidateTransport::Tcp(_) => over_udp / 2,
    }
}

/// `2^13 * direction + other`, RFC 6544 §4.2: of a host's candidates active ones pass most firewalls.
pub(crate) fn tcp_local_preference(kind: TcpType, index: usize) -> u16 {
    let direction: u16 = match kind {
        TcpType::Active => 6,
        TcpType::Passive => 4,
        TcpType::SimultaneousOpen => 2,
    };
    (direction << 13) + 0x1fff_u16.saturating_sub(u16::try_from(index).unwrap_or(u16::MAX))
}

/// Whether a relayed candidate's priority is one that [`local_preference`] gives to relays over TCP and TLS.
pub(crate) fn is_below_udp_relays(priority: u32) -> bool {
    priority >> 8 <= u32::from(LOCAL_PREFERENCE_TCP)
}

/// Local preference: 65535 for the best address, one less for each further one (RFC 8445 §5.1.2.1 wants them unique;
/// RFC 8421 §4 leaves the order of the families to the host, that is to the order of the configured interfaces).
pub(crate) fn local_preference(index: usize, relay: Option<ServerTransport>) -> u16 {
    let most = match relay {
        None | Some(ServerTransport::Udp) => u16::MAX,
        Some(ServerTransport::Tcp) => LOCAL_PREFERENCE_TCP,
        Some(ServerTransport::Tls) => LOCAL_PREFERENCE_TLS,
    };
    most.saturating_sub(u16::try_from(index).unwrap_or(u16::MAX))
}

/// `2^24 * type + 2^8 * local + (256 - component)`, RFC 8445 §5.1.2.1.
pub(crate) fn candidate_priority(
    kind: CandidateType,
    transport: CandidateTransport,
    local_preference: u16,
    component: Component,
) -> u32 {
    let kind = u32::from(type_preference(kind, transport));
    (kind << 24) + (u32::from(local_preference) << 8) + (256 - u32::from(component.number()))
}

/// `2^32 * min(G,D) + 2 * max(G,D) + (G > D ? 1 : 0)`, RFC 8445 §6.1.2.3; G is the controlling side's.
pub(crate) fn pair_priority(role: Role, local: u32, remote: u32) -> u64 {
    let (g, d) = match role {
        Role::Controlling => (u64::from(local), u64::from(remote)),
        Role::Controlled => (u64::from(remote), u64::from(local)),
    };
    (g.min(d) << 32) + 2 * g.max(d) + u64::from(g > d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_priorities_are_those_of_the_worked_example() {
        use CandidateType::{Host, PeerReflexive, Relayed, ServerReflexive};
        let cases = [
            (Host, 65535, Component::Rtp, 2_130_706_431),
            (Host, 65535, Component::Rtcp, 2_130_706_430),
            (ServerReflexive, 65535, Component::Rtp, 1_694_498_815),
            (ServerReflexive, 65535, Component::Rtcp, 1_694_498_814),
            (Relayed, 65535, Component::Rtp, 16_777_215),
            (Relayed, 65535, Component::Rtcp, 16_777_214),
            (PeerReflexive, 65535, Component::Rtp, 1_862_270_975),
        ];
        for (kind, local, component, want) in cases {
            let udp = CandidateTransport::Udp;
            assert_eq!(candidate_priority(kind, udp, local, component), want, "{kind} {component}");
        }
    }

    #[test]
    fn tcp_candidates_rank_below_udp_ones_of_their_type_and_by_direction_among_themselves() {
        use TcpType::{Active, Passive, SimultaneousOpen};
        let of = |kind: TcpType, index| {
            let preference = tcp_local_preference(kind, index);
            candidate_priority(CandidateType::Host, CandidateTransport::Tcp(kind), preference, Component::Rtp)
        };
        assert_eq!((tcp_local_preference(Active, 0), tcp_local_preference(Passive, 1)), (0xdfff, 0x9ffe));
        let udp = |kind| candidate_priority(kind, CandidateTransport::Udp, u16::MAX, Component::Rtp);
        let order = [
            udp(CandidateType::Host),
            udp(CandidateType::ServerReflexive),
            of(Active, 0),
            of(Active, 1),
            of(Passive, 0),
            of(SimultaneousOpen, 0),
            udp(CandidateType::Relayed),
        ];
        assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
    }

    #[test]
    fn both_sides_compute_the_same_pair_priority() {
        let (g, d) = (2_130_706_431, 1_694_498_815);
        let want = (u64::from(d) << 32) + 2 * u64::from(g) + 1;
        assert_eq!(pair_priority(Role::Controlling, g, d), want);
        assert_eq!(pair_priority(Role::Controlled, d, g), want);
        assert_eq!(pair_priority(Role::Controlling, d, g), want - 1, "the controlled side's is larger: no bonus");
        assert_eq!(pair_priority(Role::Controlling, 0x7fff_ffff, 0x7fff_ffff), (0x7fff_ffff << 32) + 0xffff_fffe);
    }

    #[test]
    fn relays_rank_udp_tcp_tls_and_every_address_has_its_own_preference() {
        use ServerTransport::{Tcp, Tls, Udp};
        assert_eq!(local_preference(0, None), 65535);
        assert_eq!(local_preference(1, None), 65534);
        let best = [Udp, Tcp, Tls].map(|transport| local_preference(0, Some(transport)));
        assert!(best.is_sorted_by(|a, b| a > b), "{best:?}");
    }
}
