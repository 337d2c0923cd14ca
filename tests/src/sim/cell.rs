//! One cell of the NAT matrix: two bare agents, each behind its own edge, and a relay on the Internet.

use std::fmt::Write as _;
use std::time::Duration;

use ice::{Component, PathClass as IceClass, Role, Server};

use super::agent::{AgentHost, as_remote, config};
use super::clock::{ms, secs};
use super::edge::RelayHost;
use super::host::HostId;
use super::invariants;
use super::oracle::{PathClass, Side, best_path};
use super::world::{Place, Sim, behind, public};

/// What a description needs from one side to the other: INVITE and answer through the proxy.
const SIGNALLING: Duration = ms(20);

/// What came out of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    pub class: PathClass,
    /// From the answer's arrival to the first media packet in the second direction.
    pub first_media: Duration,
    /// From the answer's arrival to the last side's promotion.
    pub promoted: Duration,
    /// Equal if and only if every byte was.
    pub hash: u64,
}

/// How a cell is run.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub seed: u64,
    /// RTP and RTCP on one component.
    pub mux: bool,
    /// The left side called.
    pub left_controls: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self { seed: 1, mux: true, left_controls: true }
    }
}

pub fn place(side: Side) -> Place {
    match side {
        Side::Nat(..) => behind([side.behaviour()]),
        Side::UdpBlocked => behind([side.behaviour()]).udp_blocked(),
    }
}

pub fn class_of(class: IceClass) -> PathClass {
    match class {
        IceClass::Direct => PathClass::Direct,
        IceClass::Reflexive => PathClass::Reflexive,
        IceClass::RelayUdp => PathClass::RelayUdp,
        IceClass::DirectTcp => PathClass::DirectTcp,
        IceClass::RelayTcp => PathClass::RelayTcp,
    }
}

/// A relay with one user, on the Internet.
pub fn add_relay(sim: &mut Sim, name: &str) -> HostId {
    let (now, seed) = (sim.now, sim.seed());
    sim.host(name, &public(), |address| RelayHost::new(now, address, seed))
}

/// Two agents with their world.
pub struct Pair {
    pub sim: Sim,
    pub relay: HostId,
    pub left: HostId,
    pub right: HostId,
}

impl Pair {
    /// A relay on the Internet and both agents, which have gathered.
    ///
    /// # Errors
    ///
    /// The end of the trace, if one of them did not.
    pub fn gathered(places: [&Place; 2], setting: Setting) -> Result<Self, String> {
        let mut sim = Sim::new(setting.seed);
        let relay = add_relay(&mut sim, "relay");
        let servers = sim.program::<RelayHost>(relay).ice_servers();
        Self::join(sim, relay, &servers, places)
    }

    /// Two agents in a world that is there already, which have gathered from `servers`.
    ///
    /// # Errors
    ///
    /// The end of the trace, if one of them did not.
    pub fn join(mut sim: Sim, relay: HostId, servers: &[Server], places: [&Place; 2]) -> Result<Self, String> {
        let now = sim.now;
        let seeds = [sim.seed(), sim.seed()];
        let make = |seed| {
            let servers = servers.to_vec();
            move |address| AgentHost::new(now, config(address, servers), seed)
        };
        let left = sim.host("left", places[0], make(seeds[0]));
        let right = sim.host("right", places[1], make(seeds[1]));
        for host in [left, right] {
            sim.with(host, |agent: &mut AgentHost, now| agent.gather(now));
        }
        let ready = |sim: &Sim, host: HostId| sim.program::<AgentHost>(host).local().is_some();
        sim.run_until(secs(2), |sim| ready(sim, left) && ready(sim, right))?;
        Ok(Self { sim, relay, left, right })
    }

    /// The callee starts with the offer, the caller with the answer.
    pub fn start(&mut self, setting: Setting) {
        let (caller, callee) = if setting.left_controls { (self.left, self.right) } else { (self.right, self.left) };
        let description =
            |sim: &Sim, host| as_remote(sim.program::<AgentHost>(host).local().expect("gathered"), setting.mux);
        let (offer, answer) = (description(&self.sim, caller), description(&self.sim, callee));
        self.sim.with(callee, |agent: &mut AgentHost, now| agent.start(now, offer, Role::Controlled));
        self.sim.run_for(SIGNALLING);
        self.sim.with(caller, |agent: &mut AgentHost, now| agent.start(now, answer, Role::Controlling));
    }

    pub fn agent(&self, host: HostId) -> &AgentHost {
        self.sim.program(host)
    }

    pub fn is_concluded(&self) -> bool {
        [self.left, self.right].iter().all(|host| self.agent(*host).concluded().is_some())
    }

    /// Ends both sides and lets the last packets pass.
    pub fn close(&mut self) {
        for host in [self.left, self.right] {
            self.sim.with(host, |agent: &mut AgentHost, now| agent.close(now));
        }
        self.sim.run_for(secs(5));
    }
}

/// Runs one cell to its end and checks every invariant.
///
/// # Errors
///
/// What was wrong, with the tables of both agents and the end of the trace.
pub fn run(left: Side, right: Side, setting: Setting) -> Result<Cell, String> {
    let mut pair = Pair::gathered([&place(left), &place(right)], setting)?;
    pair.start(setting);
    let started = pair.sim.now;
    let (a, b) = (pair.left, pair.right);
    let promoted = pair
        .sim
        .run_until(secs(30), |sim| [a, b].iter().all(|host| sim.program::<AgentHost>(*host).concluded().is_some()));
    let explained = |pair: &Pair, what: String| {
        let mut text = format!("{left} and {right}: {what}\n");
        for host in [a, b] {
            let _ = writeln!(text, "{:?}\n{}", host, pair.agent(host).agent().report());
        }
        text + &pair.sim.trace.tail(60)
    };
    let promoted = promoted.map_err(|_| explained(&pair, "not concluded within 30 s".to_owned()))?;
    pair.sim.run_for(secs(5));
    invariants::check_running(&pair, best_path(left, right)).map_err(|what| explained(&pair, what))?;
    let components = if setting.mux { vec![Component::Rtp] } else { vec![Component::Rtp, Component::Rtcp] };
    let firsts: Vec<_> = [a, b]
        .iter()
        .flat_map(|host| components.iter().map(|component| pair.agent(*host).first_media.get(component).copied()))
        .collect();
    let Some(first) = firsts.iter().copied().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max()) else {
        return Err(explained(&pair, "no media on some component".to_owned()));
    };
    let classes = [a, b].map(|host| pair.agent(host).path(Component::Rtp).map(|path| class_of(path.class)));
    // The worse end: how the other side reaches its relay, nobody tells.
    let class = classes.into_iter().flatten().max().ok_or_else(|| explained(&pair, "no path".to_owned()))?;
    pair.close();
    invariants::check_closed(&pair).map_err(|what| explained(&pair, what))?;
    let first_media = first.saturating_duration_since(started);
    Ok(Cell { class, first_media, promoted, hash: pair.sim.trace.hash() })
}
