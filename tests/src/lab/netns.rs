//! Network namespaces: a public network, and a home behind a router that masquerades.
//!
//! ```text
//!   home 192.168.77.10 ── 192.168.77.1 [router] 203.0.113.20 ──┐
//!                                          203.0.113.10 edge ──┼── bridge
//!                                          203.0.113.50 peer ──┘
//! ```

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::run::tool;

pub const EDGE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
pub const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);
pub const HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 10);

/// One namespace, removed with everything in it when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    fn create(name: String) -> Result<Self, String> {
        tool("ip", &["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `program`, to be run inside. `ip netns exec` becomes the program, so the child's id is the program's.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `ip` for this namespace.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String, String> {
        tool("ip", &[&["-n", self.name.as_str()], arguments].concat())
    }

    fn sysctl(&self, path: &str, value: &str) -> Result<(), String> {
        let set = format!("echo {value} > /proc/sys/{path}");
        tool("ip", &["netns", "exec", &self.name, "sh", "-c", &set]).map(|_| ())
    }

    fn nft(&self, rules: &str) -> Result<(), String> {
        let mut command = self.command(Path::new("nft"));
        let child = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("nft cannot be started: {error}"))?;
        if let Some(stdin) = child.stdin.as_mut() {
            stdin.write_all(rules.as_bytes()).map_err(|error| error.to_string())?;
        }
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr))) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What a failed test left running in it would keep it alive.
        if let Ok(pids) = tool("ip", &["netns", "pids", &self.name]) {
            for pid in pids.split_whitespace() {
                let _ = tool("kill", &["-KILL", pid]);
            }
        }
        let _ = tool("ip", &["netns", "del", &self.name]);
    }
}

/// The network of the picture above.
pub struct Network {
    pub home: Namespace,
    pub router: Namespace,
    pub edge: Namespace,
    pub peer: Namespace,
    _bridge: Namespace,
}

impl Network {
    /// Builds it.
    ///
    /// # Errors
    ///
    /// Why this machine does not allow it: not root, no `ip` or `nft`, or a kernel that refuses.
    pub fn build() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let create = |role: &str| Namespace::create(format!("icephone-{}-{number}-{role}", std::process::id()));
        let bridge = create("bridge")?;
        let network = Self {
            home: create("home")?,
            router: create("router")?,
            edge: create("edge")?,
            peer: create("peer")?,
            _bridge: bridge,
        };
        network.wire()?;
        Ok(network)
    }

    fn wire(&self) -> Result<(), String> {
        let bridge = &self._bridge;
        bridge.ip(&["link", "add", "br0", "type", "bridge"])?;
        bridge.ip(&["link", "set", "br0", "up"])?;
        // Where the kernel filters bridged packets too, the bridge would need rules of its own.
        let _ = bridge.sysctl("net/bridge/bridge-nf-call-iptables", "0");
        for (host, port, address) in
            [(&self.edge, "edge", EDGE), (&self.peer, "peer", PEER), (&self.router, "router", ROUTER)]
        {
            bridge.ip(&["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.name()])?;
            bridge.ip(&["link", "set", port, "master", "br0", "up"])?;
            host.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
            host.ip(&["link", "set", "eth0", "up"])?;
        }
        let (router, home) = (&self.router, &self.home);
        router.ip(&["link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", home.name()])?;
        router.ip(&["addr", "add", "192.168.77.1/24", "dev", "lan0"])?;
        router.ip(&["link", "set", "lan0", "up"])?;
        home.ip(&["addr", "add", &format!("{HOME}/24"), "dev", "eth0"])?;
        home.ip(&["link", "set", "eth0", "up"])?;
        home.ip(&["route", "add", "default", "via", "192.168.77.1"])?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        // The input chain drops: a packet that the router answered itself would leave an entry in its table that takes the
        // port away from a later outbound mapping.
        router.nft(
            "table ip nat {
               chain post { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }
               chain input { type filter hook input priority 0; policy drop;
                 iifname lo accept; iifname lan0 accept; ct state established,related accept; icmp type echo-request accept; }
               chain forward { type filter hook forward priority 0; policy drop;
                 ct state established,related accept; iifname lan0 oifname eth0 accept; }
             }",
        )
    }
}
