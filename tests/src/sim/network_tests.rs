//! The network alone: what two small programs see of each other through edges, lines and streams.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::clock::{ms, secs};
use super::host::{Input, Output, Program, StreamEnd, Tls};
use super::link::{Link, Loss};
use super::nat::{Behaviour, Filtering, Mapping};
use super::world::{Place, Sim, behind, public};

/// Answers every datagram and every byte, and remembers what happened.
#[derive(Default)]
struct Echo {
    outputs: VecDeque<Output>,
    seen: Vec<String>,
    sources: Vec<SocketAddr>,
    answers: bool,
}

impl Echo {
    fn on(address: IpAddr, tls: Tls) -> Self {
        let outputs = VecDeque::from([
            Output::OpenSocket { id: 1, bind: SocketAddr::new(address, 3478) },
            Output::Listen { id: 2, bind: SocketAddr::new(address, 443), tls },
        ]);
        Self { outputs, answers: true, ..Self::default() }
    }

    fn client() -> Self {
        Self {
            outputs: VecDeque::from([Output::OpenSocket { id: 1, bind: "0.0.0.0:5000".parse().unwrap() }]),
            ..Self::default()
        }
    }

    fn send(&mut self, to: SocketAddr, text: &str) {
        self.outputs.push_back(Output::Transmit { socket: 1, to, payload: text.as_bytes().to_vec() });
    }
}

impl Program for Echo {
    fn handle(&mut self, _now: Instant, input: Input<'_>) {
        match input {
            Input::Datagram { socket, from, payload } => {
                self.seen.push(format!("datagram {}", String::from_utf8_lossy(payload)));
                self.sources.push(from);
                if self.answers {
                    self.outputs.push_back(Output::Transmit { socket, to: from, payload: payload.to_vec() });
                }
            }
            Input::StreamData { id, bytes } => {
                self.seen.push(format!("data {}", bytes.len()));
                if self.answers {
                    self.outputs.push_back(Output::StreamSend { id, bytes: bytes.to_vec() });
                }
            }
            Input::StreamOpened { .. } => self.seen.push("opened".to_owned()),
            Input::StreamAccepted { remote, .. } => self.sources.push(remote),
            Input::StreamClosed { cause, .. } => self.seen.push(format!("closed {cause:?}")),
            Input::SocketFailed { cause, .. } => self.seen.push(cause),
            Input::SocketOpened { .. } | Input::Listening { .. } | Input::Timeout => {}
        }
    }

    fn poll(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Timeout(None))
    }
}

struct World {
    sim: Sim,
    server: super::host::HostId,
    phone: super::host::HostId,
    at: SocketAddr,
}

fn world(place: &Place, tls: Tls) -> World {
    let mut sim = Sim::new(1);
    let server = sim.host("server", &public(), |address| Echo::on(address, tls));
    let phone = sim.host("phone", place, |_| Echo::client());
    sim.run_for(ms(1));
    let at = SocketAddr::new(sim.address(server), 3478);
    World { sim, server, phone, at }
}

impl World {
    fn seen(&self) -> &[String] {
        &self.sim.program::<Echo>(self.phone).seen
    }

    fn connect(&mut self, port: u16, tls: Option<&str>) {
        let to = SocketAddr::new(self.at.ip(), port);
        let tls = tls.map(|name| vec![name.to_owned()]);
        self.sim.with(self.phone, |echo: &mut Echo, _| {
            echo.outputs.push_back(Output::OpenStream { id: 9, from: None, to, tls });
        });
    }
}

#[test]
fn a_datagram_goes_out_through_two_nats_and_its_answer_comes_back() {
    let mut world = world(&behind([Behaviour::home(), Behaviour::carrier()]), Tls::Plain);
    let at = world.at;
    world.sim.with(world.phone, |echo: &mut Echo, _| echo.send(at, "ping"));
    let took = world.sim.run_until(secs(1), |sim| !sim.program::<Echo>(world.phone).seen.is_empty()).unwrap();
    assert_eq!(took, ms(20), "four legs of 5 ms");
    assert_eq!(world.seen(), ["datagram ping"]);
    let source = world.sim.program::<Echo>(world.server).sources[0];
    assert_eq!(source.ip().to_string(), "203.0.113.11", "the outermost address is what the server sees");
    assert_ne!(source.port(), 5000, "the carrier keeps no ports");
}

#[test]
fn hosts_of_one_network_reach_each_other_directly_and_by_hairpin_only_where_the_nat_does_that() {
    for (name, behaviour, want) in [("home", Behaviour::home(), 0), ("carrier", Behaviour::carrier(), 1)] {
        let mut world = world(&behind([behaviour]), Tls::Plain);
        let second = world.sim.neighbour("second", world.phone, |_| Echo::client());
        world.sim.run_for(ms(1));
        let at = world.at;
        world.sim.with(second, |echo: &mut Echo, _| echo.send(at, "open"));
        world.sim.run_for(ms(50));
        let outside = world.sim.program::<Echo>(world.server).sources[0];
        let inside = SocketAddr::new(world.sim.address(second), 5000);
        world.sim.with(world.phone, |echo: &mut Echo, _| {
            echo.send(inside, "direct");
            echo.send(outside, "hairpin");
        });
        world.sim.run_for(ms(50));
        let seen = &world.sim.program::<Echo>(second).seen;
        assert!(seen.contains(&"datagram direct".to_owned()), "case: {name}");
        assert_eq!(seen.iter().filter(|line| *line == "datagram hairpin").count(), want, "case: {name}");
    }
}

#[test]
fn nobody_gets_in_unasked() {
    let mut world =
        world(&behind([Behaviour::new(Mapping::EndpointIndependent, Filtering::EndpointIndependent)]), Tls::Plain);
    let nat: SocketAddr = SocketAddr::new(world.sim.nat(world.phone).external(), 5000);
    world.sim.with(world.server, |echo: &mut Echo, _| echo.send(nat, "surprise"));
    world.sim.run_for(secs(1));
    assert!(world.seen().is_empty());
}

#[test]
fn streams_connect_through_a_nat_and_tls_costs_one_round_trip_more() {
    let names = vec!["turn.example.com".to_owned()];
    let cases = [
        ("plain", Tls::Plain, None, 20, "opened"),
        ("tls", Tls::Only(names.clone()), Some("turn.example.com"), 40, "opened"),
        ("tls where both are spoken", Tls::Both(names.clone()), Some("turn.example.com"), 40, "opened"),
        (
            "another name",
            Tls::Only(names.clone()),
            Some("sip.example.com"),
            40,
            "closed Certificate(\"certificate for turn.example.com and not sip.example.com\")",
        ),
        ("no tls there", Tls::Plain, Some("a"), 40, "closed Certificate(\"the server does not speak TLS\")"),
    ];
    for (name, listener, tls, took, want) in cases {
        let mut world = world(&behind([Behaviour::home()]), listener);
        world.connect(443, tls);
        let phone = world.phone;
        let result = world.sim.run_until(secs(1), |sim| !sim.program::<Echo>(phone).seen.is_empty());
        assert_eq!(result, Ok(ms(took)), "case: {name}");
        assert_eq!(world.seen(), [want], "case: {name}");
    }
}

#[test]
fn data_comes_back_whole_over_a_lossy_line_and_the_end_is_told() {
    let lossy = Link { loss: Loss::Uniform(0.2), jitter: ms(20), ..Link::with_latency(ms(10)) };
    let mut world = world(&behind([Behaviour::home()]).link(lossy), Tls::Both(vec!["a".to_owned()]));
    world.connect(443, None);
    world.sim.run_for(secs(5));
    world.sim.with(world.phone, |echo: &mut Echo, _| {
        echo.outputs.push_back(Output::StreamSend { id: 9, bytes: vec![7; 3000] });
    });
    world.sim.run_for(secs(5));
    assert_eq!(world.seen(), ["opened", "data 1400", "data 1400", "data 200"]);
    assert_eq!(world.sim.open_streams(world.server), 1);
    world.sim.with(world.phone, |echo: &mut Echo, _| echo.outputs.push_back(Output::CloseStream { id: 9 }));
    world.sim.run_for(secs(5));
    assert_eq!((world.sim.open_streams(world.server), world.sim.open_streams(world.phone)), (0, 0));
}

#[test]
fn a_closed_port_refuses_and_a_blocked_one_is_silent() {
    let mut refused = world(&behind([Behaviour::home()]), Tls::Plain);
    refused.connect(81, None);
    refused.sim.run_for(secs(1));
    assert_eq!(refused.seen(), [format!("closed {:?}", StreamEnd::Refused)]);
    let mut blocked = world(&behind([Behaviour::home()]).udp_blocked().tcp_only([443]), Tls::Plain);
    blocked.connect(81, None);
    blocked.sim.run_for(secs(14));
    assert!(blocked.seen().is_empty());
    blocked.sim.run_for(secs(2));
    assert_eq!(blocked.seen(), [format!("closed {:?}", StreamEnd::TimedOut)]);
}

#[test]
fn a_rebooted_nat_breaks_streams_and_the_next_byte_says_so() {
    let mut world =
        world(&behind([Behaviour::new(Mapping::EndpointIndependent, Filtering::AddressDependent)]), Tls::Plain);
    world.connect(443, None);
    world.sim.run_for(secs(1));
    world.sim.nat(world.phone).reboot();
    world.sim.with(world.phone, |echo: &mut Echo, _| {
        echo.outputs.push_back(Output::StreamSend { id: 9, bytes: vec![1] });
    });
    world.sim.run_for(secs(1));
    assert_eq!(world.seen(), ["opened", "closed Reset"]);
}

#[test]
fn a_port_in_use_and_a_foreign_address_cannot_be_bound() {
    let mut world = world(&public(), Tls::Plain);
    for (id, bind) in [(2, "0.0.0.0:5000"), (3, "192.0.2.1:5001")] {
        let bind = bind.parse().unwrap();
        world.sim.with(world.phone, |echo: &mut Echo, _| echo.outputs.push_back(Output::OpenSocket { id, bind }));
    }
    world.sim.run_for(ms(1));
    assert_eq!(world.seen(), ["address already in use", "cannot assign the requested address"]);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_does_not() {
    let run = |seed: u64| {
        let mut sim = Sim::new(seed);
        let server = sim.host("server", &public(), |address| Echo::on(address, Tls::Plain));
        let line = Link { loss: Loss::Uniform(0.1), jitter: ms(30), reorder: 0.1, ..Link::with_latency(ms(20)) };
        let phone = sim.host("phone", &behind([Behaviour::symmetric()]).link(line), |_| Echo::client());
        sim.run_for(ms(1));
        let at = SocketAddr::new(sim.address(server), 3478);
        for number in 0..200 {
            sim.with(phone, |echo: &mut Echo, _| echo.send(at, &format!("packet {number}")));
            sim.run_for(ms(20));
        }
        (sim.trace.hash(), sim.trace.packets())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
