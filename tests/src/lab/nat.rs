//! What the routers do to packets: translation and filtering by kind, the life of mappings, the SIP gateway of the kernel.
//!
//! Mapping and filtering in the words of RFC 4787 §4.1 and §5; measured with `netlab natcheck`. No kind hairpins.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::network::{Host, Network};

/// What a router does to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NatKind {
    /// Endpoint-independent mapping, address and port-dependent filtering.
    PortRestricted,
    /// Address and port-dependent mapping and filtering.
    Symmetric,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// As `PortRestricted`; UDP from inside is dropped.
    NoUdp,
    /// As `PortRestricted`; only TCP to port 443 is let out.
    Tcp443,
    /// Neither translates nor filters: private addresses are unroutable beyond it.
    Open,
}

pub const KINDS: [(NatKind, &str); 7] = [
    (NatKind::PortRestricted, "prc"),
    (NatKind::Symmetric, "sym"),
    (NatKind::FullCone, "cone"),
    (NatKind::AddressRestricted, "acone"),
    (NatKind::NoUdp, "noudp"),
    (NatKind::Tcp443, "tcp443"),
    (NatKind::Open, "open"),
];

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for NatKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = KINDS.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind);
        found.ok_or_else(|| format!("no kind {text:?}; there are {}", KINDS.map(|(_, name)| name).join(" ")))
    }
}

/// Seconds that the kernel keeps an idle mapping: with traffic one way, and both ways.
const LIFE_S: (u32, u32) = (30, 120);

impl Network {
    /// Makes a router one of this kind. Every mapping is forgotten.
    ///
    /// # Errors
    ///
    /// If the host is behind no router, or what `nft` said.
    pub fn set_nat(&self, host: Host, kind: NatKind) -> Result<(), String> {
        let router = router_of(host)?;
        self.host(router).nft(&self.rules(router, kind))?;
        self.flush_mappings(router)
    }

    /// How long an idle UDP mapping lives.
    ///
    /// # Errors
    ///
    /// If the host is behind no router.
    pub fn set_mapping_life(&self, host: Host, seconds: u32) -> Result<(), String> {
        let router = self.host(router_of(host)?);
        let key = "net/netfilter/nf_conntrack_udp_timeout";
        router.sysctls(&format!("{key} {seconds}\n{key}_stream {seconds}\n"))
    }

    /// The router forgets all mappings.
    ///
    /// # Errors
    ///
    /// If the host is behind no router, or what `conntrack` said.
    pub fn flush_mappings(&self, host: Host) -> Result<(), String> {
        self.host(router_of(host)?).forget_connections()
    }

    /// Switches the kernel's application-layer gateway: it rewrites SIP to and from port 5060, as home routers do.
    ///
    /// # Errors
    ///
    /// If the host is behind no router, or the kernel has no such gateway.
    pub fn set_gateway(&self, host: Host, on: bool) -> Result<(), String> {
        let router = self.host(router_of(host)?);
        let mut rules = "table ip sipgateway {}\ndelete table ip sipgateway\n".to_owned();
        if on {
            rules += "table ip sipgateway {
  ct helper sip-udp { type \"sip\" protocol udp; }
  ct helper sip-tcp { type \"sip\" protocol tcp; }
  chain pre { type filter hook prerouting priority -150;
    udp dport 5060 ct helper set \"sip-udp\"; tcp dport 5060 ct helper set \"sip-tcp\"; }
}\n";
        }
        router.nft(&rules)?;
        router.forget_connections()
    }

    /// The input chains drop: a packet that the router answered itself (ICMP unreachable) would leave an entry in its table
    /// that takes the port away from a later outbound mapping, and hole punching would fail.
    fn rules(&self, router: Host, kind: NatKind) -> String {
        let lan = self.lan(router);
        let life = LIFE_S.1;
        let masquerade = match kind {
            NatKind::Open => "",
            NatKind::Symmetric => "oifname eth0 masquerade fully-random;",
            NatKind::PortRestricted
            | NatKind::FullCone
            | NatKind::AddressRestricted
            | NatKind::NoUdp
            | NatKind::Tcp443 => "oifname eth0 masquerade;",
        };
        let (translate_back, learns) = match kind {
            NatKind::FullCone => ("iifname eth0 meta l4proto udp dnat to udp dport map @owner;", true),
            NatKind::AddressRestricted => {
                ("iifname eth0 ip saddr . udp dport @spoken dnat to udp dport map @owner;", true)
            }
            NatKind::PortRestricted | NatKind::Symmetric | NatKind::NoUdp | NatKind::Tcp443 | NatKind::Open => {
                ("", false)
            }
        };
        // Which port belongs to whom, and who was spoken to from it: filled by the packets that pass.
        let learn = if learns {
            format!(
                "chain learn {{ type filter hook postrouting priority 90; oifname eth0 meta l4proto udp ip saddr {}.0/24
                   update @owner {{ udp sport : ip saddr }} update @spoken {{ ip daddr . udp sport }}; }}",
                lan.v4
            )
        } else {
            String::new()
        };
        let refuse = match kind {
            NatKind::NoUdp => "iifname brlan meta l4proto udp drop;",
            NatKind::Tcp443 => {
                "iifname brlan tcp dport != 443 drop; iifname brlan meta l4proto != { tcp, ipv6-icmp } drop;"
            }
            NatKind::PortRestricted
            | NatKind::Symmetric
            | NatKind::FullCone
            | NatKind::AddressRestricted
            | NatKind::Open => "",
        };
        let policy = if kind == NatKind::Open { "accept" } else { "drop" };
        format!(
            "table ip nat {{}}\ndelete table ip nat\ntable inet filter {{}}\ndelete table inet filter
table ip nat {{
  map owner {{ type inet_service : ipv4_addr; flags dynamic,timeout; timeout {life}s; size 65535; }}
  set spoken {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout {life}s; size 65535; }}
  chain pre {{ type nat hook prerouting priority dstnat; {translate_back} }}
  {learn}
  chain post {{ type nat hook postrouting priority srcnat; {masquerade} }}
}}
table inet filter {{
  chain input {{ type filter hook input priority 0; policy drop;
    iifname {{ lo, brlan }} accept; ct state established,related accept; icmp type echo-request accept; meta l4proto ipv6-icmp accept; }}
  chain forward {{ type filter hook forward priority 0; policy {policy};
    {refuse}
    ct state established,related accept; ct status dnat accept; iifname brlan oifname eth0 accept; meta l4proto ipv6-icmp accept; }}
}}\n"
        )
    }
}

/// The router that a host is behind.
///
/// # Errors
///
/// If there is none.
pub fn router_of(host: Host) -> Result<Host, String> {
    host.router().ok_or_else(|| format!("{host} is behind no router"))
}
