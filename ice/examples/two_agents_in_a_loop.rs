//! Two agents find each other in one loop, without a network: what one transmits is the other's datagram.
//!
//! `cargo run -p ice --example two_agents_in_a_loop`

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use ice::{Agent, Config, Event, Input, LocalDescription, Output, RemoteDescription, Role, SocketId};

struct Side {
    name: &'static str,
    agent: Agent,
    addr: SocketAddr,
    local: Option<LocalDescription>,
    deadline: Option<Instant>,
}

impl Side {
    fn new(name: &'static str, addr: &str, now: Instant, seed: u8) -> Result<Self, std::net::AddrParseError> {
        let addr: SocketAddr = addr.parse()?;
        let config = Config { interfaces: vec![addr.ip()], rtcp: false, ..Config::default() };
        Ok(Self { name, agent: Agent::new(now, config, [seed; 32]), addr, local: None, deadline: None })
    }

    /// Carries out what the agent wants; packets go to the other side's list.
    #[expect(clippy::print_stdout, reason = "an example shows what happens")]
    fn drain(&mut self, now: Instant, wire: &mut VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>) {
        loop {
            match self.agent.poll_output() {
                Output::OpenSocket { id, .. } => {
                    self.agent.handle_input(now, Input::SocketOpened { id, local: self.addr });
                }
                Output::Transmit { to, payload, .. } => wire.push_back((self.addr, to, payload)),
                Output::Event(Event::Gathered { local, .. }) => self.local = Some(local),
                Output::Event(event) => println!("{}: {event:?}", self.name),
                Output::Timeout(at) => {
                    self.deadline = at;
                    return;
                }
                Output::CloseSocket(_)
                | Output::Listen { .. }
                | Output::CloseListener(_)
                | Output::OpenStream { .. }
                | Output::CloseStream(_)
                | Output::StreamSend { .. }
                | Output::Data { .. } => {}
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[expect(clippy::disallowed_methods, reason = "the only clock: from here on time is added up")]
    let mut now = Instant::now();
    let mut wire = VecDeque::new();
    let mut sides = [Side::new("alice", "192.0.2.1:5000", now, 1)?, Side::new("bob", "192.0.2.2:5000", now, 2)?];
    for side in &mut sides {
        side.agent.gather(now);
        side.drain(now, &mut wire);
    }
    let [alice, bob] = &mut sides;
    let (offer, answer) = (alice.local.take().ok_or("no offer")?, bob.local.take().ok_or("no answer")?);
    bob.agent.add_remote(now, remote(offer), Role::Controlled);
    let peer = alice.agent.add_remote(now, remote(answer), Role::Controlling);
    alice.agent.choose(now, peer)?;
    for _ in 0..200 {
        for side in &mut sides {
            side.drain(now, &mut wire);
        }
        if let Some((from, to, payload)) = wire.pop_front() {
            for side in sides.iter_mut().filter(|side| side.addr == to) {
                side.agent.handle_input(now, Input::Datagram { socket: SocketId(0), from, payload: &payload });
            }
            continue;
        }
        let Some(at) = sides.iter().filter_map(|side| side.deadline).min() else { break };
        now = now.max(at);
        for side in &mut sides {
            side.agent.handle_input(now, Input::Timeout);
        }
    }
    Ok(())
}

/// What the other side reads from our SDP.
fn remote(local: LocalDescription) -> RemoteDescription {
    RemoteDescription {
        ufrag: local.ufrag,
        pwd: local.pwd,
        candidates: local.candidates,
        lite: false,
        ice2: true,
        renomination: true,
        pacing: Some(local.pacing),
        rtcp_mux: true,
    }
}
