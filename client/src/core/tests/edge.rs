//! The lab's edge on the wire: registrar and proxy, relay service, relay, and a zone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::api::{AccountConfig, MediaSource, PathPolicy, Secret, TransportChoice};
use crate::core::provision::Location;
use crate::core::{Answer, RecordKind, SrvRecord};
use crate::lab::proxy::{self, Proxy};
use crate::lab::relay::{self, Relay, RelayId};
use crate::lab::{self, WallClock, mras, provisioning, registrar};

pub(super) const DOMAIN: &str = "example.test";
const MRAS_URI: &str = "sip:MRASLoc.example.test@example.test;gruu;opaque=srvr:MRAS:1";
const SECRET: &str = "edge-lab-secret";
pub(super) const UNIX: u64 = 1_767_225_600;

pub(super) fn ip() -> IpAddr {
    IpAddr::from([192, 0, 2, 100])
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(ip(), port)
}

/// What leaves the edge.
#[derive(Debug)]
pub(super) enum Leaves {
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Stream { stream: u64, bytes: Vec<u8> },
    Close { stream: u64 },
}

pub(super) struct Edge {
    pub(super) proxy: Proxy,
    pub(super) relay: Relay,
    relayed: BTreeMap<RelayId, SocketAddr>,
    next_port: u16,
    /// Streams that go to the relay.
    relay_streams: Vec<u64>,
    pub(super) wake: Option<Instant>,
}

impl Edge {
    /// Users alice and bob, password `secret`; relay credentials of `minutes`.
    pub(super) fn new(now: Instant, minutes: u32) -> Self {
        let password = || Secret::new("secret".to_owned());
        let users = [("alice".to_owned(), password()), ("bob".to_owned(), password())].into_iter().collect();
        let relays = vec![mras::RelayEntry {
            location: Location::Internet,
            host: "relay.example.test".to_owned(),
            udp_port: Some(3478),
            tcp_port: Some(3478),
        }];
        let config = proxy::Config {
            registrar: registrar::Config::new(DOMAIN, users),
            provisioning: provisioning::Config {
                mras_uri: Some(MRAS_URI.to_owned()),
                ..provisioning::Config::default()
            },
            mras: mras::Config { secret: Secret::new(SECRET.to_owned()), minutes, realm: None, relays },
            challenge_always: false,
            clock: WallClock { at: now, unix_s: UNIX },
        };
        let mut relay = relay::Config::new("relay.example.test", ip(), (now, UNIX));
        relay.secrets = vec![ice::Secret::new(SECRET)];
        let mut edge = Self {
            proxy: Proxy::new(config, [9; 32]),
            relay: Relay::new(relay, [8; 32]),
            relayed: BTreeMap::new(),
            next_port: 50_000,
            relay_streams: Vec::new(),
            wake: None,
        };
        let socket = lab::SocketId(0);
        edge.proxy.handle_input(now, lab::Input::SocketOpened { socket, local: at(5060) });
        edge
    }

    pub(super) fn has(&self, address: SocketAddr) -> bool {
        [at(5060), at(3478)].contains(&address) || self.relayed.values().any(|relayed| *relayed == address)
    }

    pub(super) fn listens(address: SocketAddr) -> bool {
        [at(5060), at(5061), at(3478)].contains(&address)
    }

    pub(super) fn datagram(&mut self, now: Instant, to: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        if to == at(5060) {
            self.proxy.handle_input(now, lab::Input::Datagram { socket: lab::SocketId(0), from, bytes });
        } else if to == at(3478) {
            self.relay.handle_input(now, relay::Input::Datagram { socket: relay::SocketId(0), from, bytes });
        } else if let Some((id, _)) = self.relayed.iter().find(|(_, address)| **address == to) {
            let relay = *id;
            self.relay.handle_input(now, relay::Input::RelayDatagram { relay, from, bytes });
        }
    }

    pub(super) fn accept(&mut self, now: Instant, stream: u64, local: SocketAddr, remote: SocketAddr, tls: bool) {
        if local == at(3478) {
            self.relay_streams.push(stream);
            let transport = if tls { ice::ServerTransport::Tls } else { ice::ServerTransport::Tcp };
            self.relay.handle_input(
                now,
                relay::Input::StreamOpened { stream: relay::StreamId(stream), local, remote, transport },
            );
        } else {
            self.proxy
                .handle_input(now, lab::Input::StreamOpened { stream: lab::StreamId(stream), local, remote, tls });
        }
    }

    pub(super) fn stream(&mut self, now: Instant, stream: u64, bytes: &[u8]) {
        if self.relay_streams.contains(&stream) {
            self.relay.handle_input(now, relay::Input::Stream { stream: relay::StreamId(stream), bytes });
        } else {
            self.proxy.handle_input(now, lab::Input::Stream { stream: lab::StreamId(stream), bytes });
        }
    }

    pub(super) fn closed(&mut self, now: Instant, stream: u64) {
        if self.relay_streams.contains(&stream) {
            self.relay.handle_input(now, relay::Input::StreamClosed { stream: relay::StreamId(stream) });
        } else {
            self.proxy.handle_input(now, lab::Input::StreamClosed { stream: lab::StreamId(stream) });
        }
    }

    pub(super) fn time(&mut self, now: Instant) {
        self.proxy.handle_input(now, lab::Input::Timeout);
        self.relay.handle_input(now, relay::Input::Timeout);
    }

    /// Everything that wants to leave now.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<Leaves> {
        let mut leaves = Vec::new();
        let proxy_at = loop {
            match self.proxy.poll_output() {
                lab::Output::Transmit { to, bytes, .. } => leaves.push(Leaves::Datagram { from: at(5060), to, bytes }),
                lab::Output::StreamSend { stream, bytes } => leaves.push(Leaves::Stream { stream: stream.0, bytes }),
                lab::Output::CloseStream { stream } => leaves.push(Leaves::Close { stream: stream.0 }),
                lab::Output::Timeout(at) => break at,
            }
        };
        let relay_at = loop {
            match self.relay.poll_output() {
                relay::Output::Transmit { to, bytes, .. } => {
                    leaves.push(Leaves::Datagram { from: at(3478), to, bytes });
                }
                relay::Output::StreamSend { stream, bytes } => leaves.push(Leaves::Stream { stream: stream.0, bytes }),
                relay::Output::CloseStream(stream) => leaves.push(Leaves::Close { stream: stream.0 }),
                relay::Output::OpenRelay { relay, .. } => {
                    let addr = at(self.next_port);
                    self.next_port += 1;
                    self.relayed.insert(relay, addr);
                    self.relay.handle_input(now, relay::Input::RelayOpened { relay, addr });
                }
                relay::Output::CloseRelay(relay) => drop(self.relayed.remove(&relay)),
                relay::Output::RelaySend { relay, to, bytes } => {
                    if let Some(from) = self.relayed.get(&relay).copied() {
                        leaves.push(Leaves::Datagram { from, to, bytes });
                    }
                }
                relay::Output::Timeout(at) => break at,
            }
        };
        self.wake = crate::core::flow::earlier(proxy_at, relay_at);
        leaves
    }
}

/// What the zone answers.
pub(super) fn resolve(name: &str, kind: RecordKind) -> Answer {
    let srv =
        |port| Answer::Srv(vec![SrvRecord { priority: 10, weight: 10, port, target: "edge.example.test".to_owned() }]);
    match (name, kind) {
        ("_sip._tls.example.test", RecordKind::Srv) => srv(5061),
        ("_sip._tcp.example.test" | "_sip._udp.example.test", RecordKind::Srv) => srv(5060),
        // Two servers of one name, the first of which is to be avoided.
        ("_sip._udp.two.example.test", RecordKind::Srv) => {
            let server = |priority, host: &str| SrvRecord {
                priority,
                weight: 10,
                port: 5060,
                target: format!("{host}.two.example.test"),
            };
            Answer::Srv(vec![server(10, "first"), server(20, "second")])
        }
        ("first.two.example.test", RecordKind::A) => Answer::Addresses(vec![IpAddr::from([192, 0, 2, 50])]),
        ("second.two.example.test", RecordKind::A) => Answer::Addresses(vec![IpAddr::from([192, 0, 2, 2])]),
        ("edge.example.test" | "relay.example.test", RecordKind::A) => Answer::Addresses(vec![ip()]),
        _ => Answer::Empty,
    }
}

/// An account of the edge.
pub(super) fn account(user: &str, transport: TransportChoice, policy: PathPolicy) -> AccountConfig {
    AccountConfig {
        aor: format!("sip:{user}@{DOMAIN}"),
        password: Some(Secret::new("secret".to_owned())),
        transport,
        policy,
        source: MediaSource::Tone { hz: 600.0 },
        ..AccountConfig::default()
    }
}

/// Long enough for DNS, handshakes, REGISTER, SUBSCRIBE, SERVICE and a probe.
pub(super) const SETTLED: Duration = Duration::from_secs(2);
