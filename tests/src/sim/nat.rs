//! A NAT as RFC 4787 describes them (and RFC 5382 for TCP): mapping × filtering × lifetime × hairpinning × ports.
//!
//! ```text
//!   mapping    key of the translation table              filtering   who may send to an internal endpoint
//!   EIM §4.1   internal endpoint                         EIF §5      anybody, once it has sent anything
//!   ADM        internal endpoint, remote address         ADF         addresses it has sent to
//!   APDM       internal endpoint, remote address+port    APDF        addresses and ports it has sent to
//! ```
//!
//! Filter state belongs to the *internal endpoint*, as RFC 4787 §5 words it, and not to one of its mappings: with
//! per-destination mappings on both sides that makes a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha20Rng;

use super::clock::secs;
use super::packet::{Packet, Protocol};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mapping {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filtering {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

/// What a NAT does, without its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    pub mapping: Mapping,
    pub filtering: Filtering,
    /// How long an idle UDP mapping and its filter entries live; only outbound packets refresh (RFC 4787 §4.3, REQ-6).
    pub udp_lifetime: Duration,
    /// Whether internal endpoints reach each other by their external addresses (RFC 4787 §6).
    pub hairpinning: bool,
    /// Whether the first mapping of a port keeps its number where it is free (RFC 4787 §4.2.1).
    pub port_preservation: bool,
}

impl Behaviour {
    /// Two minutes, the least that RFC 4787 §4.3 REQ-5 allows, no hairpinning, random ports.
    pub const fn new(mapping: Mapping, filtering: Filtering) -> Self {
        Self { mapping, filtering, udp_lifetime: secs(120), hairpinning: false, port_preservation: false }
    }

    /// The usual box at home: one mapping per endpoint, filtered by address and port, ports kept.
    pub const fn home() -> Self {
        let behaviour = Self::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
        Self { port_preservation: true, ..behaviour }
    }

    /// A new mapping per remote address and port.
    pub const fn symmetric() -> Self {
        Self::new(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent)
    }

    /// A carrier's NAT that obeys RFC 6888 §3: endpoint-independent both ways.
    pub const fn carrier() -> Self {
        let behaviour = Self::new(Mapping::EndpointIndependent, Filtering::EndpointIndependent);
        Self { hairpinning: true, ..behaviour }
    }
}

/// Established TCP connections are kept this long when idle (RFC 5382 §5, REQ-5).
const TCP_LIFETIME: Duration = secs(7440);

/// External ports come from here: never a well-known one.
const PORTS: std::ops::Range<u16> = 1024..65535;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    protocol: Protocol,
    internal: SocketAddr,
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Any,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    port: u16,
    expires: Instant,
}

#[derive(Debug)]
pub struct Nat {
    behaviour: Behaviour,
    external: IpAddr,
    rng: ChaCha20Rng,
    mappings: BTreeMap<Key, Entry>,
    ports: BTreeMap<(Protocol, u16), Key>,
    permits: BTreeMap<(Protocol, SocketAddr), BTreeMap<SocketAddr, Instant>>,
}

impl Nat {
    pub fn new(behaviour: Behaviour, external: IpAddr, rng: ChaCha20Rng) -> Self {
        let (mappings, ports, permits) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { behaviour, external, rng, mappings, ports, permits }
    }

    pub fn external(&self) -> IpAddr {
        self.external
    }

    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// Forgets everything, as after a loss of power.
    pub fn reboot(&mut self) {
        self.mappings.clear();
        self.ports.clear();
        self.permits.clear();
    }

    /// A new external address, as after a new lease; nothing that was mapped survives it.
    pub fn readdress(&mut self, external: IpAddr) {
        self.external = external;
        self.reboot();
    }

    /// How many mappings are alive at `now`.
    pub fn mapping_count(&self, now: Instant) -> usize {
        self.mappings.values().filter(|entry| entry.expires > now).count()
    }

    /// Translates a packet that leaves: the source becomes the external address and the mapped port.
    pub fn outbound(&mut self, now: Instant, packet: Packet) -> Packet {
        let protocol = packet.protocol();
        let internal = packet.from;
        let expires = now + self.lifetime(protocol);
        let scope = match self.behaviour.mapping {
            Mapping::EndpointIndependent => Scope::Any,
            Mapping::AddressDependent => Scope::Address(packet.to.ip()),
            Mapping::AddressAndPortDependent => Scope::Endpoint(packet.to),
        };
        let key = Key { protocol, internal, scope };
        self.expire(now, key);
        let port = if let Some(entry) = self.mappings.get_mut(&key) {
            entry.expires = expires;
            entry.port
        } else {
            let port = self.free_port(now, protocol, internal.port());
            self.mappings.insert(key, Entry { port, expires });
            self.ports.insert((protocol, port), key);
            port
        };
        self.permits.entry((protocol, internal)).or_default().insert(packet.to, expires);
        Packet { from: SocketAddr::new(self.external, port), ..packet }
    }

    /// Translates a packet that arrives at the external address, or says why it is dropped.
    pub fn inbound(&mut self, now: Instant, packet: Packet) -> Result<Packet, Dropped> {
        let protocol = packet.protocol();
        let key = *self.ports.get(&(protocol, packet.to.port())).ok_or(Dropped::NoMapping)?;
        let alive = self.mappings.get(&key).is_some_and(|entry| entry.expires > now);
        if !alive {
            self.expire(now, key);
            return Err(Dropped::Expired);
        }
        let permits = self.permits.entry((protocol, key.internal)).or_default();
        permits.retain(|_, expires| *expires > now);
        let allowed = match self.behaviour.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => permits.keys().any(|permit| permit.ip() == packet.from.ip()),
            Filtering::AddressAndPortDependent => permits.contains_key(&packet.from),
        };
        if allowed { Ok(Packet { to: key.internal, ..packet }) } else { Err(Dropped::Filtered) }
    }

    fn lifetime(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Udp => self.behaviour.udp_lifetime,
            Protocol::Tcp => TCP_LIFETIME,
        }
    }

    fn expire(&mut self, now: Instant, key: Key) {
        if self.mappings.get(&key).is_some_and(|entry| entry.expires <= now)
            && let Some(entry) = self.mappings.remove(&key)
        {
            self.ports.remove(&(key.protocol, entry.port));
        }
    }

    fn free_port(&mut self, now: Instant, protocol: Protocol, wanted: u16) -> u16 {
        let (mappings, behaviour) = (&self.mappings, self.behaviour);
        let taken = |port: u16, ports: &BTreeMap<(Protocol, u16), Key>| {
            let owner = ports.get(&(protocol, port));
            owner.and_then(|key| mappings.get(key)).is_some_and(|entry| entry.expires > now)
        };
        if behaviour.port_preservation && !taken(wanted, &self.ports) {
            return wanted;
        }
        let mut tried = BTreeSet::new();
        loop {
            let port = self.rng.random_range(PORTS);
            if !taken(port, &self.ports) {
                return port;
            }
            tried.insert(port);
            assert!(tried.len() < PORTS.len(), "a NAT ran out of ports");
        }
    }
}

/// Why a NAT let a packet fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    NoMapping,
    Expired,
    Filtered,
}

#[cfg(test)]
mod nat_tests {
    use super::*;
    use crate::sim::clock::{epoch, ms};
    use rand::SeedableRng;

    const PHONE: &str = "192.168.1.10:5000";
    const SERVER: &str = "203.0.113.1:3478";
    const SERVER_OTHER_PORT: &str = "203.0.113.1:3479";
    const OTHER: &str = "203.0.113.2:3478";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn nat(behaviour: Behaviour) -> Nat {
        Nat::new(behaviour, "198.51.100.1".parse().unwrap(), ChaCha20Rng::from_seed([7; 32]))
    }

    fn out(nat: &mut Nat, now: Instant, to: &str) -> SocketAddr {
        nat.outbound(now, Packet::udp(address(PHONE), address(to), vec![1])).from
    }

    fn back(nat: &mut Nat, now: Instant, from: &str, to: SocketAddr) -> Result<SocketAddr, Dropped> {
        nat.inbound(now, Packet::udp(address(from), to, vec![1])).map(|packet| packet.to)
    }

    #[test]
    fn mappings_are_reused_as_rfc_4787_section_4_1_defines() {
        let cases = [
            ("endpoint independent", Mapping::EndpointIndependent, true, true),
            ("address dependent", Mapping::AddressDependent, true, false),
            ("address and port dependent", Mapping::AddressAndPortDependent, false, false),
        ];
        for (name, mapping, same_for_port, same_for_address) in cases {
            let mut nat = nat(Behaviour::new(mapping, Filtering::EndpointIndependent));
            let first = out(&mut nat, epoch(), SERVER);
            assert_eq!(out(&mut nat, epoch(), SERVER), first, "case: {name}, same destination");
            assert_eq!(out(&mut nat, epoch(), SERVER_OTHER_PORT) == first, same_for_port, "case: {name}, other port");
            assert_eq!(out(&mut nat, epoch(), OTHER) == first, same_for_address, "case: {name}, other address");
        }
    }

    #[test]
    fn filtering_admits_whom_rfc_4787_section_5_defines() {
        let (yes, no) = (Ok(address(PHONE)), Err(Dropped::Filtered));
        let cases = [
            ("endpoint independent", Filtering::EndpointIndependent, yes, yes),
            ("address dependent", Filtering::AddressDependent, yes, no),
            ("address and port dependent", Filtering::AddressAndPortDependent, no, no),
        ];
        for (name, filtering, other_port, other_address) in cases {
            let mut nat = nat(Behaviour::new(Mapping::EndpointIndependent, filtering));
            let mapped = out(&mut nat, epoch(), SERVER);
            assert_eq!(back(&mut nat, epoch(), SERVER, mapped), yes, "case: {name}, whom it wrote to");
            assert_eq!(back(&mut nat, epoch(), SERVER_OTHER_PORT, mapped), other_port, "case: {name}, other port");
            assert_eq!(back(&mut nat, epoch(), OTHER, mapped), other_address, "case: {name}, other address");
        }
    }

    #[test]
    fn filter_state_belongs_to_the_internal_endpoint_not_to_one_of_its_mappings() {
        let mut nat = nat(Behaviour::symmetric());
        let towards_server = out(&mut nat, epoch(), SERVER);
        out(&mut nat, epoch(), OTHER);
        assert_eq!(back(&mut nat, epoch(), OTHER, towards_server), Ok(address(PHONE)));
    }

    #[test]
    fn an_idle_mapping_dies_and_only_outbound_packets_keep_it() {
        let mut nat = nat(Behaviour { udp_lifetime: secs(30), ..Behaviour::home() });
        let mapped = out(&mut nat, epoch(), SERVER);
        assert_eq!(mapped.port(), 5000, "the port is kept");
        assert_eq!(back(&mut nat, epoch() + secs(29), SERVER, mapped), Ok(address(PHONE)));
        assert_eq!(back(&mut nat, epoch() + secs(30), SERVER, mapped), Err(Dropped::Expired));
        let mapped = out(&mut nat, epoch() + secs(31), SERVER);
        out(&mut nat, epoch() + secs(60), SERVER);
        assert_eq!(back(&mut nat, epoch() + secs(89), SERVER, mapped), Ok(address(PHONE)));
        assert_eq!(nat.mapping_count(epoch() + secs(91)), 0);
    }

    #[test]
    fn a_reboot_forgets_and_an_unknown_port_leads_nowhere() {
        let mut nat = nat(Behaviour::carrier());
        let mapped = out(&mut nat, epoch(), SERVER);
        nat.reboot();
        assert_eq!(back(&mut nat, epoch() + ms(1), SERVER, mapped), Err(Dropped::NoMapping));
    }

    #[test]
    fn tcp_and_udp_mappings_are_apart() {
        let mut nat = nat(Behaviour::home());
        let mapped = out(&mut nat, epoch(), SERVER);
        let segment = Packet::tcp(address(SERVER), mapped, crate::sim::packet::Segment::Syn);
        assert_eq!(nat.inbound(epoch(), segment), Err(Dropped::NoMapping));
    }
}
