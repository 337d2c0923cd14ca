//! What an edge lets out at all, before any translation. Answers come back through the NAT's own filter.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::packet::{Packet, Protocol};

const DNS: u16 = 53;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// No UDP in either direction but DNS, which the router forwards itself, as in many offices.
    pub udp_blocked: bool,
    /// Remote TCP ports that may be reached; `None` is all of them.
    pub tcp_ports: Option<BTreeSet<u16>>,
    /// Remote addresses that swallow everything sent to them, to play a server that is dead.
    pub black_holes: BTreeSet<std::net::IpAddr>,
}

impl Firewall {
    pub fn allows_out(&self, packet: &Packet) -> bool {
        self.allows(packet.protocol(), packet.to)
    }

    pub fn allows_in(&self, packet: &Packet) -> bool {
        match packet.protocol() {
            Protocol::Udp => !self.udp_blocked || packet.from.port() == DNS,
            Protocol::Tcp => true,
        }
    }

    fn allows(&self, protocol: Protocol, to: SocketAddr) -> bool {
        let open = match protocol {
            Protocol::Udp => !self.udp_blocked || to.port() == DNS,
            Protocol::Tcp => self.tcp_ports.as_ref().is_none_or(|ports| ports.contains(&to.port())),
        };
        open && !self.black_holes.contains(&to.ip())
    }
}

#[cfg(test)]
mod firewall_tests {
    use super::*;
    use crate::sim::packet::Segment;

    #[test]
    fn an_office_lets_out_tcp_to_443_only() {
        let office = Firewall { udp_blocked: true, tcp_ports: Some([443].into()), ..Firewall::default() };
        let (phone, web, sip) = ("10.0.0.1:9", "192.0.2.1:443", "192.0.2.1:5061");
        let [phone, web, sip]: [SocketAddr; 3] = [phone, web, sip].map(|text| text.parse().unwrap());
        assert!(office.allows_out(&Packet::tcp(phone, web, Segment::Syn)));
        assert!(!office.allows_out(&Packet::tcp(phone, sip, Segment::Syn)));
        assert!(!office.allows_out(&Packet::udp(phone, web, Vec::new())));
        assert!(!office.allows_in(&Packet::udp(web, phone, Vec::new())));
    }
}
