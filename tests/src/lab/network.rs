//! The networks of the laboratory, made of namespaces.
//!
//! ```text
//!                  inet: br0 = "the Internet", 203.0.113.0/24 and 2001:db8:113::/64
//!      ┌──────────┬──────────┬──────────┬──────────┬──────────┬──────────┐
//!   natA .20   natB .30   fwC .40    dave .50   edge .10-.12  spare .13  (carrier .60, where asked for)
//!      │          │          │      (public)    SIP, names,   second        │ 100.64.0.0/24
//!   192.168.1/24  10.0.0/24  172.16.0/24        relay .11     relay       natA or natB, or both
//!    │      │     │          │
//!  alice  carol  bob        corp ── the edge's inner leg 172.16.0.5
//!   .10    .11    .10        .10
//! ```
//!
//! Nothing is added to the machine's own namespace: no link, no address, no rule. IPv6 is off unless asked for: then every
//! network has `2001:db8:X::/64` with X = a, b, c behind the routers, which filter but do not translate it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::nat::NatKind;
use super::netns::{self, Namespace};

/// A host or a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Host {
    Internet,
    Edge,
    Spare,
    Dave,
    NatA,
    Alice,
    Carol,
    NatB,
    Bob,
    FirewallC,
    Corp,
    Carrier,
}

/// Every host with the name that people use.
pub const HOSTS: [(Host, &str); 12] = [
    (Host::Internet, "inet"),
    (Host::Edge, "edge"),
    (Host::Spare, "spare"),
    (Host::Dave, "dave"),
    (Host::NatA, "natA"),
    (Host::Alice, "alice"),
    (Host::Carol, "carol"),
    (Host::NatB, "natB"),
    (Host::Bob, "bob"),
    (Host::FirewallC, "fwC"),
    (Host::Corp, "corp"),
    (Host::Carrier, "carrier"),
];

/// Those with a user on them.
pub const USERS: [Host; 5] = [Host::Alice, Host::Carol, Host::Bob, Host::Dave, Host::Corp];
pub const ROUTERS: [Host; 4] = [Host::NatA, Host::NatB, Host::FirewallC, Host::Carrier];

impl Host {
    pub fn name(self) -> &'static str {
        HOSTS.iter().find(|(host, _)| *host == self).map_or("", |(_, name)| name)
    }

    /// The router that this host is behind; a router is its own.
    pub fn router(self) -> Option<Self> {
        match self {
            Self::Alice | Self::Carol | Self::NatA => Some(Self::NatA),
            Self::Bob | Self::NatB => Some(Self::NatB),
            Self::Corp | Self::FirewallC => Some(Self::FirewallC),
            Self::Carrier => Some(Self::Carrier),
            Self::Internet | Self::Edge | Self::Spare | Self::Dave => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = HOSTS.iter().find(|(_, name)| *name == text).map(|(host, _)| *host);
        found.ok_or_else(|| {
            let names: Vec<&str> = HOSTS.iter().map(|(_, name)| *name).collect();
            format!("no host {text:?}; there are {}", names.join(" "))
        })
    }
}

/// The IP versions of the hosts that have a user. The servers have both, unless it is IPv4 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Families {
    #[default]
    V4,
    V6,
    Dual,
}

/// What is laid when the networks are built.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Plan {
    pub families: Families,
    /// Both homes have the same subnet, and bob has alice's very address.
    pub overlap: bool,
    /// Routers that are behind the carrier's.
    pub behind_carrier: Vec<Host>,
    /// The corporate network's own names: `_sipinternaltls._tcp` leads to the edge's inner leg.
    pub inside_names: bool,
}

/// The networks. Dropped, they are removed, if this program made them for itself.
pub struct Network {
    owner: String,
    owned: bool,
    pub plan: Plan,
}

impl Network {
    /// Builds them for as long as this program keeps them.
    ///
    /// # Errors
    ///
    /// Why this machine does not allow it: not root, no `ip` or `nft`, or a kernel that refuses.
    pub fn build(plan: Plan) -> Result<Self, String> {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        let owner = format!("{}-{}", std::process::id(), NETWORKS.fetch_add(1, Ordering::Relaxed));
        netns::sweep();
        netns::remove_on_signal(&owner);
        Self::build_for(owner, true, plan)
    }

    /// Builds them under a name; they stay until somebody removes them.
    ///
    /// # Errors
    ///
    /// As [`Self::build`].
    pub fn build_named(name: &str, plan: Plan) -> Result<Self, String> {
        Self::build_for(name.to_owned(), false, plan)
    }

    fn build_for(owner: String, owned: bool, plan: Plan) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        let network = Self { owner, owned, plan };
        std::fs::create_dir_all(network.folder())
            .map_err(|error| format!("{}: {error}", network.folder().display()))?;
        let built = network.lay();
        if built.is_err() && !owned {
            netns::remove_owner(&network.owner);
        }
        built.map(|()| network)
    }

    /// Those that exist under a name.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn attach(name: &str) -> Result<Self, String> {
        let path = netns::folder_of(name).join("plan.json");
        let text = std::fs::read_to_string(&path).map_err(|_| format!("there is no laboratory {name:?}"))?;
        let plan = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { owner: name.to_owned(), owned: false, plan })
    }

    pub fn host(&self, host: Host) -> Namespace {
        Namespace::named(&self.owner, host.name())
    }

    /// Configurations, logs and process ids.
    pub fn folder(&self) -> PathBuf {
        netns::folder_of(&self.owner)
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    pub fn has_v6(&self) -> bool {
        self.plan.families != Families::V4
    }

    fn lay(&self) -> Result<(), String> {
        let text = serde_json::to_string(&self.plan).map_err(|error| error.to_string())?;
        std::fs::write(self.folder().join("plan.json"), text).map_err(|error| error.to_string())?;
        for (host, _) in HOSTS {
            let namespace = self.host(host);
            namespace.create()?;
            namespace.sysctls(&self.settings())?;
            namespace.ip(&["link", "set", "lo", "up"])?;
        }
        self.lay_internet()?;
        for (router, home) in [(Host::NatA, LAN_A), (Host::NatB, self.lan_b()), (Host::FirewallC, LAN_C)] {
            self.lay_home(router, home)?;
        }
        self.lay_inner_leg()?;
        for router in ROUTERS {
            self.host(router).sysctls("net/ipv4/ip_forward 1\nnet/ipv6/conf/all/forwarding 1\n")?;
            self.set_nat(router, if router == Host::FirewallC { NatKind::Tcp443 } else { NatKind::PortRestricted })?;
        }
        self.write_name_servers()
    }

    /// No filter of another layer may meet bridged frames, and answers may leave by another link than questions came.
    fn settings(&self) -> String {
        let no_v6 = u8::from(!self.has_v6());
        let mut settings = String::new();
        for scope in ["all", "default"] {
            settings += &format!("net/ipv6/conf/{scope}/disable_ipv6 {no_v6}\nnet/ipv6/conf/{scope}/accept_dad 0\n");
            settings += &format!("net/ipv6/conf/{scope}/accept_ra 0\nnet/ipv4/conf/{scope}/rp_filter 0\n");
        }
        for table in ["ip", "ip6", "arp"] {
            settings += &format!("net/bridge/bridge-nf-call-{table}tables 0\n");
        }
        settings
    }

    fn lay_internet(&self) -> Result<(), String> {
        let internet = self.host(Host::Internet);
        let mut lines = bridge("br0", "203.0.113.1/24", 0xff);
        // The Internet knows no private addresses: it drops them silently.
        lines +=
            "route add blackhole 10.0.0.0/8\nroute add blackhole 172.16.0.0/12\nroute add blackhole 192.168.0.0/16\n";
        lines += "route add blackhole 100.64.0.0/10\n";
        if self.has_v6() {
            lines += "addr add 2001:db8:113::1/64 dev br0 nodad\n";
        }
        for (host, addresses) in WAN {
            if host == Host::Carrier && self.plan.behind_carrier.is_empty() {
                continue;
            }
            if !self.plan.behind_carrier.contains(&host) {
                lines += &port(&port_name(host), &self.host(host), "eth0", "br0");
                self.address_wan(&internet, &mut lines, host, addresses)?;
            }
        }
        internet.sysctls("net/ipv4/ip_forward 1\nnet/ipv6/conf/all/forwarding 1\n")?;
        if self.has_v6() {
            lines += "route add 2001:db8:a::/64 via 2001:db8:113::20\nroute add 2001:db8:b::/64 via 2001:db8:113::30\n";
            lines += "route add 2001:db8:c::/64 via 2001:db8:113::40\n";
        }
        internet.ip_batch(&lines)?;
        if self.plan.behind_carrier.is_empty() { Ok(()) } else { self.lay_carrier() }
    }

    /// Lays the lines collected so far and gives the host behind the port its addresses.
    fn address_wan(
        &self,
        internet: &Namespace,
        lines: &mut String,
        host: Host,
        addresses: &[u8],
    ) -> Result<(), String> {
        internet.ip_batch(&std::mem::take(lines))?;
        let mut inside = String::new();
        let both = host != Host::Dave || self.plan.families != Families::V6;
        for last in addresses {
            if both {
                inside += &format!("addr add 203.0.113.{last}/24 dev eth0\n");
            }
            if self.has_v6() {
                inside += &format!("addr add 2001:db8:113::{last}/64 dev eth0 nodad\n");
            }
        }
        inside += "link set eth0 up\n";
        if both {
            inside += "route add default via 203.0.113.1\n";
        }
        if self.has_v6() {
            inside += "route add default via 2001:db8:113::1\n";
        }
        self.host(host).ip_batch(&inside)
    }

    /// The carrier's network is a LAN like the others, with routers as its hosts. It carries IPv4 only.
    fn lay_carrier(&self) -> Result<(), String> {
        let carrier = self.host(Host::Carrier);
        let mut lines = bridge("brlan", "100.64.0.1/24", 0x60);
        for router in &self.plan.behind_carrier {
            lines += &port(&port_name(*router), &self.host(*router), "eth0", "brlan");
        }
        carrier.ip_batch(&lines)?;
        for router in &self.plan.behind_carrier {
            let last = if *router == Host::NatA { 20 } else { 30 };
            let lines =
                format!("addr add 100.64.0.{last}/24 dev eth0\nlink set eth0 up\nroute add default via 100.64.0.1\n");
            self.host(*router).ip_batch(&lines)?;
        }
        Ok(())
    }

    fn lay_home(&self, router: Host, home: Lan) -> Result<(), String> {
        let namespace = self.host(router);
        let mut lines = bridge("brlan", &format!("{}.1/24", home.v4), home.mac);
        if self.has_v6() {
            lines += &format!("addr add {}::1/64 dev brlan nodad\n", home.v6);
        }
        for (host, _) in home.hosts {
            lines += &port(&port_name(*host), &self.host(*host), "eth0", "brlan");
        }
        namespace.ip_batch(&lines)?;
        for (host, last) in home.hosts {
            let mut lines = "link set eth0 up\n".to_owned();
            if self.plan.families != Families::V6 {
                lines += &format!("addr add {0}.{last}/24 dev eth0\nroute add default via {0}.1\n", home.v4);
            }
            if self.has_v6() {
                lines += &format!("addr add {0}::{last}/64 dev eth0 nodad\nroute add default via {0}::1\n", home.v6);
            }
            self.host(*host).ip_batch(&lines)?;
        }
        Ok(())
    }

    /// The edge reaches into the corporate network, as an edge with two legs does.
    fn lay_inner_leg(&self) -> Result<(), String> {
        let edge = self.host(Host::Edge);
        self.host(Host::FirewallC).ip_batch(&port("v-edge", &edge, "inner0", "brlan"))?;
        edge.ip_batch("addr add 172.16.0.5/24 dev inner0\nlink set inner0 up\n")
    }

    /// The LAN of a router.
    pub fn lan(&self, router: Host) -> Lan {
        match router {
            Host::NatB => self.lan_b(),
            Host::FirewallC => LAN_C,
            Host::Carrier => Lan { v4: "100.64.0", v6: "2001:db8:d", mac: 0x60, hosts: &[] },
            _ => LAN_A,
        }
    }

    fn lan_b(&self) -> Lan {
        let v4 = if self.plan.overlap { LAN_A.v4 } else { "10.0.0" };
        Lan { v4, v6: "2001:db8:b", mac: 0xb0, hosts: &[(Host::Bob, 10)] }
    }

    /// Every host asks its router, and those on the Internet the edge.
    fn write_name_servers(&self) -> Result<(), String> {
        for (host, _) in HOSTS {
            let server = match host.router().filter(|router| *router != host && *router != Host::Carrier) {
                Some(router) if self.plan.families == Families::V6 => format!("{}::1", self.lan(router).v6),
                Some(router) => format!("{}.1", self.lan(router).v4),
                None if self.plan.families == Families::V6 && host == Host::Dave => "2001:db8:113::10".to_owned(),
                None => "203.0.113.10".to_owned(),
            };
            let folder = self.host(host).files();
            std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            let text = format!("nameserver {server}\noptions timeout:2 attempts:2\n");
            std::fs::write(folder.join("resolv.conf"), text).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.owned {
            netns::remove_owner(&self.owner);
            netns::forget_owner(&self.owner);
        }
    }
}

/// A network behind a router: its prefixes, the last byte of its bridge's hardware address, its hosts.
#[derive(Debug, Clone, Copy)]
pub struct Lan {
    pub v4: &'static str,
    pub v6: &'static str,
    mac: u8,
    hosts: &'static [(Host, u8)],
}

const LAN_A: Lan = Lan { v4: "192.168.1", v6: "2001:db8:a", mac: 0xa0, hosts: &[(Host::Alice, 10), (Host::Carol, 11)] };
const LAN_C: Lan = Lan { v4: "172.16.0", v6: "2001:db8:c", mac: 0xc0, hosts: &[(Host::Corp, 10)] };

/// Hosts on the Internet, with the last parts of their addresses of both versions.
const WAN: [(Host, &[u8]); 7] = [
    (Host::Edge, &[10, 11, 12]),
    (Host::Spare, &[13]),
    (Host::Dave, &[50]),
    (Host::NatA, &[20]),
    (Host::NatB, &[30]),
    (Host::FirewallC, &[40]),
    (Host::Carrier, &[60]),
];

/// The name of the bridge port that leads to a host: what is done to its line is done there.
pub fn port_name(host: Host) -> String {
    format!("v-{}", host.name())
}

/// A bridge with a hardware address of its own: one without takes the lowest of its ports, and would change it when the
/// delay box adds one, which leaves every neighbour with a stale entry.
fn bridge(name: &str, address: &str, mac: u8) -> String {
    format!(
        "link add {name} address 02:00:00:00:00:{mac:02x} type bridge stp_state 0 forward_delay 0\n\
         addr add {address} dev {name}\nlink set {name} up\n"
    )
}

fn port(name: &str, host: &Namespace, inside: &str, bridge: &str) -> String {
    format!("link add {name} type veth peer name {inside} netns {}\nlink set {name} master {bridge} up\n", host.name())
}
