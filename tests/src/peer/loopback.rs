//! Loopback addresses: every test has its own, so that all of them can use the well-known ports at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::lab::run::now;

/// A network of 254 hosts in 127/8 (RFC 6890 §2.2.2: all of it is this machine).
#[derive(Debug, Clone, Copy)]
pub struct Loopback {
    second: u8,
    third: u8,
}

impl Loopback {
    /// Another one each time, and in each process.
    #[expect(clippy::new_without_default, reason = "no two are alike")]
    pub fn new() -> Self {
        static USED: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id().wrapping_mul(64).wrapping_add(USED.fetch_add(1, Ordering::Relaxed));
        let [_, _, second, third] = number.to_be_bytes();
        // 127.0.0/24 is what everybody uses.
        Self { second: second | 1, third }
    }

    pub fn host(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, self.third, last)
    }
}

/// Waits until somebody has bound this UDP address.
///
/// # Errors
///
/// If nobody has after ten seconds.
pub fn wait_bound(address: SocketAddr) -> Result<(), String> {
    let SocketAddr::V4(v4) = address else { return Err(format!("{address} is not IPv4")) };
    // The kernel prints the address as the number it has in memory.
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port());
    let until = now() + Duration::from_secs(10);
    loop {
        let table = std::fs::read_to_string("/proc/net/udp").map_err(|error| format!("/proc/net/udp: {error}"))?;
        if table.lines().any(|line| line.split_whitespace().nth(1) == Some(&wanted)) {
            return Ok(());
        }
        if now() >= until {
            return Err(format!("nobody has bound {address}"));
        }
        std::thread::yield_now();
    }
}
