//! The lab's servers put together: which there are, what they know of each other, in the order of their sockets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use sip::digest::Algorithm;

use super::adapters::{DnsServer, EdgeServer, RelayServer};
use super::dns::{self, Dns};
use super::driver::Server;
use super::mras::{self, RelayEntry};
use super::proxy::{self, Proxy};
use super::relay::{self, Relay};
use super::running::Addresses;
use super::{WallClock, provisioning, registrar};
use crate::api::Secret;
use crate::cli::args::{DigestArg, LabArgs};
use crate::core::provision::Location;
use crate::driver::clock;

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

/// Makes the servers: name server, SIP, relays.
///
/// # Errors
///
/// A sentence: the domain is not a domain name.
pub fn assemble(setup: &Setup<'_>) -> Result<Vec<Box<dyn Server>>, String> {
    // What the relay and the credentials service share; nobody else ever sees it.
    let secret = hexadecimal(&clock::seed());
    let now = clock::now();
    let wall = WallClock { at: now, unix_s: clock::since_unix_epoch().as_secs() };
    let mut servers: Vec<Box<dyn Server>> = vec![
        Box::new(DnsServer::new(Dns::new(zone(setup)?))),
        Box::new(EdgeServer::new(Proxy::new(edge(setup, &secret, wall), clock::seed()))),
    ];
    for index in 0..setup.addresses.relays.len() {
        let relay = Relay::new(relay(setup, &secret, wall), clock::seed());
        servers.push(Box::new(RelayServer::new(relay, index)));
    }
    Ok(servers)
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

fn zone(setup: &Setup<'_>) -> Result<dns::Zone, String> {
    let (domain, at) = (&setup.args.domain, setup.addresses);
    let offers = dns::Offers { udp: Some(at.sip), tcp: Some(at.sip), tls: Some(at.sip_tls), inside: setup.args.inside };
    let mut zone = dns::lab_zone(domain, &edge_host(domain), offers)
        .map_err(|error| format!("--domain: {error}; write something like lab.test"))?;
    for (index, (plain, _)) in at.relays.iter().enumerate() {
        zone.address(&relay_host(domain, index), plain.ip());
    }
    Ok(zone)
}

fn edge(setup: &Setup<'_>, secret: &str, clock: WallClock) -> proxy::Config {
    let args = setup.args;
    let users: BTreeMap<String, Secret> =
        setup.passwords.iter().map(|(user, password)| (user.clone(), Secret::new(password.clone()))).collect();
    let mut registrar = registrar::Config::new(&args.domain, users);
    registrar.algorithms = match args.digest {
        DigestArg::Both => vec![Algorithm::Sha256, Algorithm::Md5],
        DigestArg::Md5 => vec![Algorithm::Md5],
        DigestArg::Sha256 => vec![Algorithm::Sha256],
    };
    let mras_uri = format!("sip:mras.{domain}@{domain};gruu;opaque=srvr:MRAS:lab", domain = args.domain);
    let provisioning = provisioning::Config {
        mras_uri: (!args.no_mras).then_some(mras_uri),
        remote_user: !args.inside,
        ..provisioning::Config::default()
    };
    let relays = setup.addresses.relays.iter().enumerate().map(|(index, (plain, tls))| RelayEntry {
        location: if args.inside { Location::Intranet } else { Location::Internet },
        host: relay_host(&args.domain, index),
        udp_port: Some(plain.port()),
        tcp_port: Some(if args.relay_tls { tls.port() } else { plain.port() }),
    });
    let mras = mras::Config {
        secret: Secret::new(secret.to_owned()),
        minutes: args.credential_minutes,
        realm: None,
        relays: relays.collect(),
    };
    proxy::Config { registrar, provisioning, mras, challenge_always: false, clock }
}

fn relay(setup: &Setup<'_>, secret: &str, wall: WallClock) -> relay::Config {
    let address: IpAddr = setup.args.relay_address.unwrap_or(setup.args.address);
    let mut config = relay::Config::new(&setup.args.domain, address, (wall.at, wall.unix_s));
    config.secrets = vec![ice::Secret::new(secret.to_owned())];
    config
}
