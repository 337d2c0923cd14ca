//! The cells of the laboratory: networks, servers, a call, and the path that its media must end on.
//!
//! The path follows from the definitions, not from what the phone does: a direct path exists wherever both sides have UDP (or
//! share a network), unless one maps per destination and the other filters by port (RFC 4787 §4.1, §5). Otherwise one relay is
//! enough; the side without UDP reaches it over a stream. Only two sides without UDP need a relay each.

use std::net::{IpAddr, SocketAddr};

use super::measured_call::{CallPlan, End, Measured};
use super::media_path::Way;
use super::nat::NatKind;
use super::network::{Families, Host, Plan};
use super::servers::Offer;

/// What the oracle says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No relay, and the address that each end sends to is of this kind.
    Direct(Far),
    /// One end on a relay over UDP, the other sends to the relay.
    OneRelay,
    /// This side on a relay over TCP or TLS, the other sends to the relay.
    StreamRelay(Side),
    /// Both sides on a relay over TCP or TLS.
    TwoStreamRelays,
    /// The lines lose so much that the best path may not prove itself while the phone waits for it.
    Anything,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Caller,
    Callee,
}

/// The kind of address that media is sent to on a direct path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Far {
    /// The other host's own address.
    Own,
    /// An address that a router gave it.
    Mapped,
    /// Whatever: one side is public.
    Any,
}

/// One cell.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The group of the list in `client/docs/laboratory.md`.
    pub group: u8,
    pub name: String,
    pub plan: Plan,
    pub offer: Offer,
    pub nats: Vec<(Host, NatKind)>,
    /// Words for the delay boxes.
    pub lines: Vec<(Host, &'static str)>,
    /// Routers with the SIP gateway on.
    pub gateways: Vec<Host>,
    pub call: CallPlan,
    pub expected: Expected,
    /// How alike a recording must be to what was said: lost sound cannot be recognised.
    pub likeness: f64,
    /// It runs in `tests/run`, and not only in `tests/run --all`.
    pub representative: bool,
}

/// What the first RTP both ways and the final path may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goals {
    pub first_ms: f64,
    pub final_ms: f64,
}

impl Cell {
    fn new(group: u8, name: &str, caller: Host, callee: Host, expected: Expected) -> Self {
        Self {
            group,
            name: name.to_owned(),
            plan: Plan::default(),
            offer: Offer::default(),
            nats: Vec::new(),
            lines: Vec::new(),
            gateways: Vec::new(),
            call: CallPlan::between(caller, callee),
            expected,
            likeness: 0.9,
            representative: false,
        }
    }

    fn representative(mut self) -> Self {
        self.representative = true;
        self
    }

    fn nat(mut self, host: Host, kind: NatKind) -> Self {
        self.nats.push((host, kind));
        self
    }

    fn flags(mut self, flags: &[&str]) -> Self {
        self.call.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    fn planned(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(&mut self.plan);
        self
    }

    fn offering(mut self, change: impl FnOnce(&mut Offer)) -> Self {
        change(&mut self.offer);
        self
    }

    fn gateway(mut self, host: Host) -> Self {
        self.gateways.push(host);
        self
    }

    /// Both homes' lines to the Internet are bad in the same way.
    fn lines(mut self, words: &'static str, likeness: f64) -> Self {
        self.lines = vec![(Host::NatA, words), (Host::NatB, words)];
        self.likeness = likeness;
        self
    }

    /// Whether the lines lose packets by themselves.
    pub fn loses(&self) -> bool {
        self.lines.iter().any(|(_, words)| words.contains("loss=") || words.contains("ge="))
    }

    /// The goals of a cell; none where the lines are slow or lose packets.
    pub fn goals(&self) -> Option<Goals> {
        let corporate = [self.call.caller, self.call.callee].contains(&Host::Corp);
        let first_ms = if corporate { 500.0 } else { 100.0 };
        self.lines.is_empty().then_some(Goals { first_ms, final_ms: 1500.0 })
    }

    /// Compares what the wire says with what must be.
    ///
    /// # Errors
    ///
    /// How they differ.
    pub fn judge(&self, measured: &Measured) -> Result<(), String> {
        let [caller, callee] = &measured.ends;
        let ways = [caller.way, callee.way];
        if !self.expected.allows(ways) {
            return Err(format!("expected {:?}, but the media went {} and {}", self.expected, ways[0], ways[1]));
        }
        if let Expected::Direct(far) = self.expected {
            measured.ends.iter().try_for_each(|end| far.check(end))?;
        }
        if !self.loses() {
            let lost: usize = measured.ends.iter().map(|end| end.lost).sum();
            if lost > 0 {
                return Err(format!("{lost} packets lost"));
            }
        }
        if self.plan.overlap {
            measured.ends.iter().try_for_each(no_pair_with_itself)?;
        }
        measured.check_speech(self.likeness)
    }
}

/// Two hosts with the same private address cannot have a pair of host candidates: whoever answers is the phone itself.
fn no_pair_with_itself(end: &End) -> Result<(), String> {
    let valid = end.events.iter().filter(|event| event["event"] == "pair-valid");
    match valid.map(|event| &event["path"]["name"]).find(|name| *name == "host-host") {
        Some(_) => Err("a pair of host candidates validated between hosts of the same address".to_owned()),
        None => Ok(()),
    }
}

impl Expected {
    fn allows(self, ways: [Way; 2]) -> bool {
        let stream = |way: Way| way == Way::RelayTcp || way == Way::RelayTls;
        let [caller, callee] = ways;
        let caller_stream = stream(caller) && callee == Way::Direct;
        let callee_stream = stream(callee) && caller == Way::Direct;
        match self {
            Self::Direct(_) => ways == [Way::Direct; 2],
            Self::OneRelay => ways.contains(&Way::RelayUdp) && ways.contains(&Way::Direct),
            Self::StreamRelay(Side::Caller) => caller_stream,
            Self::StreamRelay(Side::Callee) => callee_stream,
            Self::Anything => true,
            Self::TwoStreamRelays => stream(caller) && stream(callee),
        }
    }
}

impl Far {
    fn check(self, end: &End) -> Result<(), String> {
        let remote = end.remote.ok_or("nothing was sent")?;
        let right = match self {
            Self::Own => !is_router(remote),
            Self::Mapped => is_router(remote),
            Self::Any => true,
        };
        if !right || is_relay(remote) {
            return Err(format!("media went to {remote}, expected an address of kind {self:?}"));
        }
        Ok(())
    }
}

fn last_byte(address: SocketAddr) -> Option<u8> {
    match address.ip() {
        IpAddr::V4(ip) if ip.octets()[..3] == [203, 0, 113] => Some(ip.octets()[3]),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn is_router(address: SocketAddr) -> bool {
    matches!(last_byte(address), Some(20 | 30 | 40 | 60))
}

/// Whether it belongs to one of the relays.
pub fn is_relay(address: SocketAddr) -> bool {
    matches!(last_byte(address), Some(11 | 13))
}

/// The way of an end in few words: `direct→srflx`, `relay(tcp)→host`.
pub fn way_in_words(end: &End) -> String {
    let far = match end.remote {
        Some(remote) if is_relay(remote) => "relay",
        Some(remote) if is_router(remote) => "srflx",
        Some(_) => "host",
        None => "nobody",
    };
    format!("{}→{far}", end.way)
}

/// Every cell.
pub fn cells() -> Vec<Cell> {
    let mut all = vec![
        Cell::new(1, "same LAN", Host::Alice, Host::Carol, Expected::Direct(Far::Own)).representative(),
        Cell::new(1, "home → public", Host::Alice, Host::Dave, Expected::Direct(Far::Any)).representative(),
        Cell::new(1, "public → home", Host::Dave, Host::Bob, Expected::Direct(Far::Any)),
    ];
    all.extend(nat_cells());
    all.extend(same_address_cells());
    all.extend(stream_cells());
    all.extend(signalling_cells());
    all.extend(line_cells());
    all.extend(edge_cells());
    all.extend(gateway_cells());
    all
}

const HOMES: (Host, Host) = (Host::Alice, Host::Bob);

fn between_homes(group: u8, name: &str, expected: Expected) -> Cell {
    Cell::new(group, name, HOMES.0, HOMES.1, expected)
}

/// A direct path through two routers.
const THROUGH_NATS: Expected = Expected::Direct(Far::Mapped);

fn nat_cells() -> Vec<Cell> {
    let kinds = [NatKind::PortRestricted, NatKind::AddressRestricted, NatKind::FullCone, NatKind::Symmetric];
    let maps_per_destination = |kind| kind == NatKind::Symmetric;
    let filters_by_port = |kind| kind == NatKind::PortRestricted || kind == NatKind::Symmetric;
    let mut all = Vec::new();
    for a in kinds {
        for b in kinds {
            let none = maps_per_destination(a) && filters_by_port(b) || maps_per_destination(b) && filters_by_port(a);
            let expected = if none { Expected::OneRelay } else { THROUGH_NATS };
            let cell = between_homes(2, &format!("{a} → {b}"), expected).nat(Host::NatA, a).nat(Host::NatB, b);
            let shown = [(NatKind::PortRestricted, NatKind::PortRestricted), (NatKind::Symmetric, NatKind::Symmetric)];
            let shown = shown.contains(&(a, b)) || (a, b) == (NatKind::FullCone, NatKind::Symmetric);
            all.push(if shown { cell.representative() } else { cell });
        }
    }
    let behind = |routers: Vec<Host>| move |plan: &mut Plan| plan.behind_carrier = routers;
    all.push(
        between_homes(2, "home behind a carrier → home", THROUGH_NATS)
            .planned(behind(vec![Host::NatA]))
            .representative(),
    );
    // The carrier's NAT does not hairpin, and no server tells an address on its inside.
    let both = between_homes(2, "two homes behind one carrier", Expected::OneRelay);
    all.push(both.planned(behind(vec![Host::NatA, Host::NatB])));
    all
}

fn same_address_cells() -> Vec<Cell> {
    let overlap = |plan: &mut Plan| plan.overlap = true;
    let relayed = between_homes(3, "same address, both symmetric", Expected::OneRelay).planned(overlap);
    vec![
        between_homes(3, "same address in both homes", THROUGH_NATS).planned(overlap).representative(),
        relayed.nat(Host::NatA, NatKind::Symmetric).nat(Host::NatB, NatKind::Symmetric),
    ]
}

fn stream_cells() -> Vec<Cell> {
    let (caller, callee) = (Expected::StreamRelay(Side::Caller), Expected::StreamRelay(Side::Callee));
    let inside = |plan: &mut Plan| plan.inside_names = true;
    vec![
        between_homes(4, "no UDP → home", caller).nat(Host::NatA, NatKind::NoUdp),
        between_homes(4, "home → no UDP", callee).nat(Host::NatB, NatKind::NoUdp),
        between_homes(4, "no UDP → no UDP", Expected::TwoStreamRelays)
            .nat(Host::NatA, NatKind::NoUdp)
            .nat(Host::NatB, NatKind::NoUdp),
        Cell::new(4, "corporate → home", Host::Corp, Host::Alice, caller).representative(),
        Cell::new(4, "home → corporate", Host::Alice, Host::Corp, callee).representative(),
        // Inside, the edge's inner leg relays over UDP.
        Cell::new(4, "corporate, inner names → home", Host::Corp, Host::Bob, Expected::OneRelay).planned(inside),
    ]
}

fn signalling_cells() -> Vec<Cell> {
    let families = |families| move |plan: &mut Plan| plan.families = families;
    let v6 = Expected::Direct(Far::Own);
    vec![
        between_homes(5, "TLS and SRTP", THROUGH_NATS).flags(&["--transport", "tls", "--srtp", "required"]),
        between_homes(5, "SIP over UDP, long INVITE", THROUGH_NATS).flags(&["--transport", "udp"]).representative(),
        between_homes(5, "SIP over TCP", THROUGH_NATS).flags(&["--transport", "tcp"]),
        between_homes(5, "no SRTP", THROUGH_NATS).flags(&["--srtp", "off"]),
        between_homes(5, "IPv6 only", v6).planned(families(Families::V6)).representative(),
        between_homes(5, "dual stack", v6).planned(families(Families::Dual)),
        between_homes(5, "provisioned by NOTIFY", THROUGH_NATS)
            .offering(|offer| offer.piggyback = false)
            .representative(),
    ]
}

fn line_cells() -> Vec<Cell> {
    let cell = |name: &str| between_homes(6, name, THROUGH_NATS);
    vec![
        cell("5 % loss").lines("up.loss=5 proto=udp seed=1", 0.8).representative(),
        between_homes(6, "20 % loss", Expected::Anything).lines("up.loss=20 proto=udp seed=2", 0.6),
        cell("80 ms, 20 ms jitter").lines("delay=40 jitter=10 seed=3", 0.8),
        cell("bursts of loss").lines("up.ge=2,30,0,90 proto=udp seed=4", 0.6),
        cell("reordering").lines("reorder=5,30 order=0 proto=udp seed=5", 0.8),
        cell("duplication").lines("dup=5 proto=udp seed=6", 0.9),
    ]
}

fn edge_cells() -> Vec<Cell> {
    let none = |offer: &mut Offer| offer.mras = false;
    vec![
        Cell::new(7, "no relay service, same LAN", Host::Alice, Host::Carol, Expected::Direct(Far::Own)).offering(none),
        Cell::new(7, "no relay service, home → public", Host::Alice, Host::Dave, Expected::Direct(Far::Any))
            .offering(none)
            .representative(),
        between_homes(7, "edge without TCP", THROUGH_NATS).offering(|offer| offer.relay_tcp = false),
        // Without STUN over UDP no phone knows the address that its router gives it, and no relay lets in what it was not told of.
        between_homes(7, "edge without UDP", Expected::TwoStreamRelays).offering(|offer| offer.relay_udp = false),
    ]
}

fn gateway_cells() -> Vec<Cell> {
    let cell = |name: &str, transport| between_homes(9, name, THROUGH_NATS).flags(&["--transport", transport]);
    vec![
        cell("SIP gateway at the caller, UDP", "udp").gateway(Host::NatA).representative(),
        cell("SIP gateway at the callee, UDP", "udp").gateway(Host::NatB),
        cell("SIP gateway at both, TCP", "tcp").gateway(Host::NatA).gateway(Host::NatB),
        cell("SIP gateway at both, TLS", "tls").gateway(Host::NatA).gateway(Host::NatB),
    ]
}

#[cfg(test)]
mod cell_tests {
    use super::*;

    #[test]
    fn the_oracle_knows_what_a_relay_is_needed_for() {
        let all = cells();
        let expected = |name: &str| all.iter().find(|cell| cell.name == name).map(|cell| cell.expected);
        for (name, wanted) in [
            ("prc → prc", THROUGH_NATS),
            ("sym → acone", THROUGH_NATS),
            ("cone → sym", THROUGH_NATS),
            ("sym → prc", Expected::OneRelay),
            ("sym → sym", Expected::OneRelay),
        ] {
            assert_eq!(expected(name), Some(wanted), "{name}");
        }
        let names: std::collections::BTreeSet<&str> = all.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "every cell has a name of its own");
    }
}
