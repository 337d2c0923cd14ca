//! A name server for one test: dnsmasq with nothing but the given records.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::loopback::wait_bound;
use crate::lab::run::Process;

const DNS_PORT: u16 = 53;

/// A running dnsmasq. Dropped, it is killed.
pub struct Zone {
    _process: Process,
    address: SocketAddr,
}

impl Zone {
    /// Serves `records` of `domain`, options of dnsmasq without their dashes: `srv-host=…`, `address=…`. What is not there does
    /// not exist; without a domain of its own dnsmasq would refuse to answer instead.
    ///
    /// # Errors
    ///
    /// If it does not listen.
    pub fn start(at: Ipv4Addr, domain: &str, records: &[String]) -> Result<Self, String> {
        let (listen, local) = (format!("--listen-address={at}"), format!("--local=/{domain}/"));
        // An empty pid file: several that start at once would fight for the default one.
        let fixed = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="];
        let fixed = fixed.into_iter().chain(["--bind-interfaces", "--user=root", &listen, &local]);
        let arguments: Vec<_> =
            fixed.map(ToOwned::to_owned).chain(records.iter().map(|record| format!("--{record}"))).collect();
        let mut process = Process::start(None, Path::new("dnsmasq"), &arguments);
        let address = SocketAddr::new(IpAddr::V4(at), DNS_PORT);
        wait_bound(address).map_err(|error| format!("{error}\n{}", process.output().join("\n")))?;
        Ok(Self { _process: process, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
