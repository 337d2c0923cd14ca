//! Two ICE agents, a network of two hosts, and a clock that is only a number: no socket, no thread, no waiting.
//!
//! `cargo run -p ice --example two_agents_in_a_loop` prints what each side tells, in virtual milliseconds.
#![expect(clippy::print_stdout, reason = "an example shows something")]

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ice::{Agent, Component, Config, Event, Input, LocalDescription, Output, RemoteDescription, Role, SocketId};

/// One way through the network.
const LATENCY: Duration = Duration::from_millis(10);

/// What is on its way: when it arrives, from where, to where.
type Wire = VecDeque<(Instant, SocketAddr, SocketAddr, Vec<u8>)>;

struct Host {
    name: &'static str,
    agent: Agent,
    sockets: BTreeMap<SocketAddr, SocketId>,
    deadline: Option<Instant>,
    gathered: Option<LocalDescription>,
    has_concluded: bool,
    has_heard: bool,
}

impl Host {
    fn new(now: Instant, name: &'static str, ip: IpAddr, seed: u8) -> Self {
        let config = Config { interfaces: vec![ip], rtcp: false, ..Config::default() };
        let mut agent = Agent::new(now, config, [seed; 32]);
        agent.gather(now);
        let (sockets, deadline, gathered) = (BTreeMap::new(), None, None);
        Self { name, agent, sockets, deadline, gathered, has_concluded: false, has_heard: false }
    }

    /// Does what the agent wants, until it wants nothing more before its deadline.
    fn drain(&mut self, now: Instant, start: Instant, wire: &mut Wire) {
        let at = (now - start).as_millis();
        loop {
            match self.agent.poll_output() {
                Output::OpenSocket { id, bind } => {
                    let local = SocketAddr::new(bind.ip(), 5000);
                    self.sockets.insert(local, id);
                    self.agent.handle_input(now, Input::SocketOpened { id, local });
                }
                Output::Transmit { socket, to, payload } => {
                    let from = self.sockets.iter().find(|(_, id)| **id == socket).map(|(local, _)| *local);
                    wire.extend(from.map(|from| (now + LATENCY, from, to, payload)));
                }
                Output::Data { payload, .. } => {
                    let text = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    println!("{at:>5} ms  {}  hears {text:?}", self.name);
                    self.has_heard = true;
                }
                Output::Event(event) => self.tell(at, event),
                Output::Timeout(deadline) => return self.deadline = deadline,
                Output::CloseSocket(_)
                | Output::OpenStream { .. }
                | Output::CloseStream(_)
                | Output::StreamSend { .. } => {} // relays only
            }
        }
    }

    fn tell(&mut self, at: u128, event: Event) {
        let name = self.name;
        match event {
            Event::Gathered { local, .. } => self.gathered = Some(local),
            Event::PathChanged { path, cause, .. } => println!("{at:>5} ms  {name}  sends on {path} ({cause:?})"),
            Event::Concluded { announce, .. } => {
                println!("{at:>5} ms  {name}  has concluded; to be announced with a re-INVITE: {announce}");
                self.has_concluded = true;
            }
            Event::PairValid { path, .. } => println!("{at:>5} ms  {name}  {path} is valid"),
            other => println!("{at:>5} ms  {name}  {other:?}"),
        }
    }
}

/// What SDP would carry to the other side.
fn signalled(local: &LocalDescription) -> RemoteDescription {
    RemoteDescription {
        ufrag: local.ufrag.clone(),
        pwd: local.pwd.clone(),
        candidates: local.candidates.clone(),
        lite: false,
        ice2: true,
        renomination: true,
        pacing: Some(local.pacing),
        rtcp_mux: true,
    }
}

#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing; it is only added to")]
fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let (mut now, mut wire) = (start, Wire::new());
    let mut alice = Host::new(now, "alice", IpAddr::from([10, 0, 0, 1]), 1);
    let mut bob = Host::new(now, "bob  ", IpAddr::from([10, 0, 0, 2]), 2);
    alice.drain(now, start, &mut wire);
    bob.drain(now, start, &mut wire);
    let (Some(offer), Some(answer)) = (&alice.gathered, &bob.gathered) else { return Err("nothing gathered".into()) };
    bob.agent.add_remote(now, signalled(offer), Role::Controlled);
    let peer = alice.agent.add_remote(now, signalled(answer), Role::Controlling);
    alice.agent.choose(now, peer)?;

    let mut has_spoken = false;
    while !bob.has_heard {
        alice.drain(now, start, &mut wire);
        bob.drain(now, start, &mut wire);
        if alice.has_concluded && !has_spoken {
            alice.agent.send(now, Component::Rtp, b"\x80\x00hello")?; // the first two bytes say "RTP"
            alice.drain(now, start, &mut wire);
            has_spoken = true;
        }
        // The next thing to happen: a packet arrives, or somebody's time has come.
        let arrival = wire.front().map(|(at, ..)| *at);
        let next = [arrival, alice.deadline, bob.deadline].into_iter().flatten().min();
        now = next.ok_or("nothing will ever happen")?.max(now);
        if let Some((_, from, to, payload)) = wire.pop_front_if(|(at, ..)| *at <= now) {
            let host = if alice.sockets.contains_key(&to) { &mut alice } else { &mut bob };
            if let Some(socket) = host.sockets.get(&to).copied() {
                host.agent.handle_input(now, Input::Datagram { socket, from, payload: &payload });
            }
        } else {
            alice.agent.handle_input(now, Input::Timeout);
            bob.agent.handle_input(now, Input::Timeout);
        }
    }
    Ok(())
}
