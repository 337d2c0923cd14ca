//! What must come out between two edges, from the definitions of RFC 4787 §4.1 and §5 alone.
//!
//! A direct path exists unless one side maps per destination and the other filters by port (the port that the check comes
//! from is then not the one that was written to), or both map per address and port (each answer leaves through a mapping
//! that the check was not sent to, which RFC 8445 §7.2.5.2.1 forbids to accept).

use std::fmt;

use super::nat::{Behaviour, Filtering, Mapping};

/// One side of a cell: what stands between the host and the Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Nat(Mapping, Filtering),
    /// As the home NAT, but no UDP passes.
    UdpBlocked,
}

/// The class of a path: the worse of its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathClass {
    Direct,
    Reflexive,
    RelayUdp,
    /// Between hosts over TCP: where one of them can be reached without a NAT (RFC 6544 §4.1).
    DirectTcp,
    RelayTcp,
}

impl Side {
    /// The ten sides of the matrix: three mappings times three filterings, and UDP blocked.
    pub fn all() -> Vec<Self> {
        let mappings = [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
        let filterings =
            [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
        let nats = mappings.into_iter().flat_map(|m| filterings.into_iter().map(move |f| Self::Nat(m, f)));
        nats.chain([Self::UdpBlocked]).collect()
    }

    pub fn behaviour(self) -> Behaviour {
        match self {
            Self::Nat(mapping, filtering) => Behaviour::new(mapping, filtering),
            Self::UdpBlocked => Behaviour::home(),
        }
    }
}

/// `apdm/adf`: mapping and filtering in the abbreviations of RFC 4787's readers.
impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Nat(mapping, filtering) = self else { return f.pad("no-udp") };
        let mapping = match mapping {
            Mapping::EndpointIndependent => "eim",
            Mapping::AddressDependent => "adm",
            Mapping::AddressAndPortDependent => "apdm",
        };
        let filtering = match filtering {
            Filtering::EndpointIndependent => "eif",
            Filtering::AddressDependent => "adf",
            Filtering::AddressAndPortDependent => "apdf",
        };
        f.pad(&format!("{mapping}/{filtering}"))
    }
}

impl fmt::Display for PathClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "host",
            Self::Reflexive => "srflx",
            Self::RelayUdp => "relay",
            Self::DirectTcp => "host-tcp",
            Self::RelayTcp => "relay-tcp",
        })
    }
}

/// The class of the best path between two hosts, each behind its own edge, with a relay on the Internet.
pub fn best_path(left: Side, right: Side) -> PathClass {
    let (Side::Nat(left_mapping, left_filtering), Side::Nat(right_mapping, right_filtering)) = (left, right) else {
        return PathClass::RelayTcp;
    };
    let per_destination = |mapping| mapping != Mapping::EndpointIndependent;
    let by_port = |filtering| filtering == Filtering::AddressAndPortDependent;
    let blocked = per_destination(left_mapping) && by_port(right_filtering)
        || per_destination(right_mapping) && by_port(left_filtering)
        || left_mapping == Mapping::AddressAndPortDependent && right_mapping == Mapping::AddressAndPortDependent;
    if blocked { PathClass::RelayUdp } else { PathClass::Reflexive }
}

#[cfg(test)]
mod oracle_tests {
    use super::*;

    #[test]
    fn the_well_known_cells_are_as_everybody_knows_them() {
        use Filtering::{AddressAndPortDependent as Apdf, EndpointIndependent as Eif};
        use Mapping::{AddressAndPortDependent as Apdm, EndpointIndependent as Eim};
        let cases = [
            ("two home routers", Side::Nat(Eim, Apdf), Side::Nat(Eim, Apdf), PathClass::Reflexive),
            ("symmetric and full cone", Side::Nat(Apdm, Apdf), Side::Nat(Eim, Eif), PathClass::Reflexive),
            ("symmetric and home router", Side::Nat(Apdm, Apdf), Side::Nat(Eim, Apdf), PathClass::RelayUdp),
            ("two symmetric ones", Side::Nat(Apdm, Apdf), Side::Nat(Apdm, Apdf), PathClass::RelayUdp),
            ("an office", Side::UdpBlocked, Side::Nat(Eim, Eif), PathClass::RelayTcp),
        ];
        for (name, left, right, want) in cases {
            assert_eq!(best_path(left, right), want, "case: {name}");
            assert_eq!(best_path(right, left), want, "case: {name}, mirrored");
        }
    }

    #[test]
    fn of_the_81_cells_with_udp_as_many_need_a_relay_as_the_definitions_say() {
        let sides = Side::all();
        assert_eq!(sides.len(), 10);
        let cells = sides.iter().flat_map(|left| sides.iter().map(move |right| best_path(*left, *right)));
        let count = |class| cells.clone().filter(|cell| *cell == class).count();
        assert_eq!(count(PathClass::RelayTcp), 19);
        assert_eq!(count(PathClass::RelayUdp) + count(PathClass::Reflexive), 81);
        assert_eq!(count(PathClass::RelayUdp), 36);
    }
}
