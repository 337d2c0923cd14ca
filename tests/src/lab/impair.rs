//! What lines do to packets: loss and blockades by rules at the bridge port of a host, and the delay box.
//!
//! *Up* is from the host to the network, *down* is to the host.

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::netns::Namespace;
use super::network::{Host, Network, port_name};
use super::run::{now, tool};

/// What a blockade stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    Udp,
    Tcp,
    /// TCP to all ports but 443.
    TcpNot443,
    Icmp,
    /// Everything but ARP and neighbour discovery.
    All,
    /// Both relays, any protocol.
    Relays,
    /// The SIP server, any protocol.
    Sip,
}

const BLOCKS: [(Block, &str); 7] = [
    (Block::Udp, "udp"),
    (Block::Tcp, "tcp"),
    (Block::TcpNot443, "tcpnot443"),
    (Block::Icmp, "icmp"),
    (Block::All, "all"),
    (Block::Relays, "relays"),
    (Block::Sip, "sip"),
];

impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = BLOCKS.iter().find(|(_, name)| *name == text).map(|(block, _)| *block);
        found.ok_or_else(|| format!("nothing is called {text:?}; there are {}", BLOCKS.map(|(_, name)| name).join(" ")))
    }
}

impl Block {
    fn name(self) -> &'static str {
        BLOCKS.iter().find(|(block, _)| *block == self).map_or("", |(_, name)| name)
    }

    /// Matches for one direction, by the word for the far end of a packet and of its ports.
    fn matches(self, far: &str, far_port: &str) -> Vec<String> {
        let texts = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        match self {
            Self::Udp => texts(["ip protocol udp", "ip6 nexthdr udp"]),
            Self::Tcp => texts(["ip protocol tcp", "ip6 nexthdr tcp"]),
            Self::Icmp => texts(["ip protocol icmp", "icmpv6 type echo-request"]),
            Self::All => texts(["ether type ip", "ip6 nexthdr { tcp, udp }"]),
            Self::TcpNot443 => vec![format!("tcp {far_port} != 443")],
            Self::Relays => vec![
                format!("ip {far} {{ 203.0.113.11, 203.0.113.13 }}"),
                format!("ip6 {far} {{ 2001:db8:113::11, 2001:db8:113::13 }}"),
            ],
            Self::Sip => vec![format!("ip {far} 203.0.113.10"), format!("ip6 {far} 2001:db8:113::10")],
        }
    }
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
    Both,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "up" => Ok(Self::Up),
            "down" => Ok(Self::Down),
            "both" => Ok(Self::Both),
            _ => Err(format!("{text:?} is no direction; there are up down both")),
        }
    }
}

impl Network {
    /// Loses this share of the UDP packets at a host's line, independently and by chance. (The delay box repeats itself.)
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn set_loss(&self, host: Host, percent: f64, way: Way) -> Result<(), String> {
        let threshold = (percent * 100.0).round();
        let (holder, port) = self.port_of(host);
        let table = format!("loss_{}", port.replace('-', "_"));
        if threshold <= 0.0 {
            return holder.nft(&format!("table bridge {table} {{}}\ndelete table bridge {table}\n"));
        }
        let condition = format!("numgen random mod 10000 < {threshold}");
        let matches: Vec<String> = Block::Udp.matches("", "").iter().map(|udp| format!("{udp} {condition}")).collect();
        holder.nft(&port_rules(&table, &port, way, &matches, &matches))
    }

    /// Stops something at a host's line, beside what is stopped already.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn block(&self, host: Host, what: Block, way: Way) -> Result<(), String> {
        let (holder, port) = self.port_of(host);
        let table = block_table(&port, what);
        let (up, down) = (what.matches("daddr", "dport"), what.matches("saddr", "sport"));
        holder.nft(&port_rules(&table, &port, way, &up, &down))
    }

    /// Lets everything pass at a host's line.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn unblock(&self, host: Host) -> Result<(), String> {
        let (holder, port) = self.port_of(host);
        let mut rules = String::new();
        for (what, _) in BLOCKS {
            let table = block_table(&port, what);
            let _ = writeln!(rules, "table bridge {table} {{}}\ndelete table bridge {table}");
        }
        holder.nft(&rules)
    }

    /// Puts a delay box into a host's line, or changes the one there: `delay=40 jitter=15 loss=1 seed=7 …`, the words that
    /// `tests/lab/delaybox.py` lists. `off` takes it out.
    ///
    /// # Errors
    ///
    /// What it does not understand, or what `ip` said.
    pub fn set_delay(&self, host: Host, words: &[&str]) -> Result<(), String> {
        let (holder, port) = self.port_of(host);
        let daemon = format!("delay-{port}");
        if words == ["off"] {
            self.stop_daemon(&daemon, Signal::SIGTERM);
            let _ = holder.ip(&["link", "set", &port, "master", self.bridge_of(host)]);
            let _ = holder.ip(&["link", "del", &format!("bd-{host}")]);
            return Ok(());
        }
        let config = self.folder().join(format!("{daemon}.json"));
        let script = self.write_script("delaybox.py", include_str!("../../lab/delaybox.py"))?;
        let config = config.to_string_lossy();
        let mut making = vec![script.as_str(), "--make-config", &config];
        making.extend(words);
        tool("/usr/bin/python3", &making)?;
        if self.is_running(&daemon) {
            self.signal_daemon(&daemon, Signal::SIGHUP);
            return Ok(());
        }
        let [near, far] = [format!("ta-{host}"), format!("tb-{host}")];
        let statistics = self.folder().join(format!("{daemon}.stats"));
        let arguments = [&script, "--config", &config, "--tap", &near, &far, "--stats", &statistics.to_string_lossy()];
        self.start_daemon(&daemon, self.holder_of(host), "/usr/bin/python3", &arguments)?;
        self.insert_box(host, &holder, &port, &near, &far)
    }

    /// The port moves to a bridge of its own, whose other port is the box's near end; the far end takes its place.
    fn insert_box(&self, host: Host, holder: &Namespace, port: &str, near: &str, far: &str) -> Result<(), String> {
        let until = now() + Duration::from_secs(5);
        while holder.ip(&["link", "show", far]).is_err() {
            if now() > until {
                return Err(format!("the delay box did not start: {}", self.log_of(&format!("delay-{port}"))));
            }
        }
        let (own, main) = (format!("bd-{host}"), self.bridge_of(host));
        holder.ip_batch(&format!(
            "link add {own} type bridge stp_state 0 forward_delay 0\nlink set {own} up\nlink set {near} master {own} up\n\
             link set {far} master {main} up\nlink set {port} master {own}\n"
        ))
    }

    /// The namespace whose bridge holds the port that leads to a host, and the port.
    pub(super) fn port_of(&self, host: Host) -> (Namespace, String) {
        (self.host(self.holder_of(host)), port_name(host))
    }

    fn holder_of(&self, host: Host) -> Host {
        match host.router() {
            Some(router) if router != host => router,
            Some(router) if self.plan.behind_carrier.contains(&router) => Host::Carrier,
            Some(_) | None => Host::Internet,
        }
    }

    fn bridge_of(&self, host: Host) -> &'static str {
        if self.holder_of(host) == Host::Internet { "br0" } else { "brlan" }
    }
}

fn block_table(port: &str, what: Block) -> String {
    format!("block_{}_{}", port.replace('-', "_"), what.name())
}

/// A table that drops what comes from a port and matches `up`, and what goes to it and matches `down`.
fn port_rules(table: &str, port: &str, way: Way, up: &[String], down: &[String]) -> String {
    let rules = |word: &str, matches: &[String]| {
        matches.iter().fold(String::new(), |text, condition| format!("{text} {word} \"{port}\" {condition} drop;"))
    };
    let up = if way == Way::Down { String::new() } else { rules("iifname", up) };
    let down = if way == Way::Up { String::new() } else { rules("oifname", down) };
    format!(
        "table bridge {table} {{}}\ndelete table bridge {table}\ntable bridge {table} {{
  chain through {{ type filter hook forward priority 0; {up} {down} }}
  chain to {{ type filter hook input priority 0; {up} }}
  chain from {{ type filter hook output priority 0; {down} }}
}}\n"
    )
}
