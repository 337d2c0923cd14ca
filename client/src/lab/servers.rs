//! The lab's servers put together: which there are, what they know of each other, in the order of their sockets.

use std::fmt::Write as _;

use super::driver::Server;
use super::running::Addresses;
use crate::cli::args::LabArgs;

/// What servers are made from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The command line.
    pub args: &'a LabArgs,
    /// Where everything listens.
    pub addresses: &'a Addresses,
    /// User and password of each account.
    pub passwords: &'a [(String, String)],
}

/// Names that the certificate carries: the domain, its SIP host, its relays.
pub fn host_names(domain: &str, relays: usize) -> Vec<String> {
    let fixed = [domain.to_owned(), edge_host(domain)];
    fixed.into_iter().chain((0..relays).map(|index| relay_host(domain, index))).collect()
}

fn edge_host(domain: &str) -> String {
    format!("edge.{domain}")
}

fn relay_host(domain: &str, index: usize) -> String {
    if index == 0 { format!("relay.{domain}") } else { format!("relay{}.{domain}", index + 1) }
}

/// Makes the servers, in the order of their sockets.
///
/// # Errors
///
/// A sentence: the domain is not a domain name.
pub fn assemble(setup: &Setup<'_>) -> Result<Vec<Box<dyn Server>>, String> {
    // The servers follow as they come; until then the lab only binds.
    let _ = (setup.args, setup.addresses, setup.passwords);
    Ok(Vec::new())
}

/// Bytes as hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
