//! Foundations: equal for candidates of the same type, base address, server and protocol (RFC 8445 §5.1.1.3), so that
//! one success predicts another.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::candidate::{CandidateTransport, CandidateType};
use crate::config::ServerTransport;

/// What makes two candidates alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Likeness {
    pub kind: CandidateType,
    pub transport: CandidateTransport,
    pub base: IpAddr,
    /// Server and protocol that gave the address.
    pub server: Option<(IpAddr, ServerTransport)>,
}

/// Numbers the likenesses 1, 2, 3 … in the order of their appearance.
#[derive(Debug, Default)]
pub(crate) struct Foundations {
    known: BTreeMap<Likeness, u32>,
}

impl Foundations {
    /// The foundation of a local candidate.
    pub(crate) fn get(&mut self, likeness: Likeness) -> String {
        let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.known.entry(likeness).or_insert(next).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::TcpType;

    #[test]
    fn foundations_differ_by_type_base_server_and_protocol() {
        let mut foundations = Foundations::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let server = |transport| Some((ip("203.0.113.10"), transport));
        let transport = CandidateTransport::Udp;
        let likeness = |kind, base, server| Likeness { kind, transport, base: ip(base), server };
        let cases = [
            ("first", likeness(CandidateType::Host, "10.0.0.5", None), "1"),
            ("other base", likeness(CandidateType::Host, "10.0.1.5", None), "2"),
            ("other type", likeness(CandidateType::Relayed, "10.0.0.5", server(ServerTransport::Udp)), "3"),
            ("other protocol", likeness(CandidateType::Relayed, "10.0.0.5", server(ServerTransport::Tcp)), "4"),
            (
                "over TCP",
                Likeness {
                    transport: CandidateTransport::Tcp(TcpType::Passive),
                    ..likeness(CandidateType::Host, "10.0.0.5", None)
                },
                "5",
            ),
            ("the first again", likeness(CandidateType::Host, "10.0.0.5", None), "1"),
        ];
        for (name, likeness, want) in cases {
            assert_eq!(foundations.get(likeness), want, "case: {name}");
        }
    }
}
