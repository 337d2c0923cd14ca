//! The two formulas of RFC 8445 §5.1.2.1 and §6.1.2.3, and the preferences that go into them.

use crate::candidate::{CandidateType, Component};
use crate::config::ServerTransport;
use crate::description::Role;

/// Local preferences of relays over TCP and TLS lie below those over UDP, in steps of a quarter of the range.
const LOCAL_PREFERENCE_TCP: u16 = 0x7fff;
const LOCAL_PREFERENCE_TLS: u16 = 0x3fff;

/// Type preference, RFC 8445 §5.1.2.2.
pub(crate) fn type_preference(kind: CandidateType) -> u8 {
    match kind {
        CandidateType::Host => 126,
        CandidateType::PeerReflexive => 110,
        CandidateType::ServerReflexive => 100,
        CandidateType::Relayed => 0,
    }
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
pub(crate) fn candidate_priority(kind: CandidateType, local_preference: u16, component: Component) -> u32 {
    let kind = u32::from(type_preference(kind));
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
            assert_eq!(candidate_priority(kind, local, component), want, "{kind} {component}");
        }
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
