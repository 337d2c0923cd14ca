//! The servers of `client::lab` on simulated hosts. Each adapter only renames: inputs, outputs, ids.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use client::lab;
use client::lab::dns::{Dns, Zone};
use client::lab::proxy::{self, Proxy};
use client::lab::relay::{self, Relay, RelayId};
use ice::{RelayCredentials, Secret, Server, ServerTransport};

use super::host::{Input, Output, Program, Tls};
use super::phone::UNIX_START;

/// The name in the relay's certificate.
pub const RELAY_NAME: &str = "turn.example.com";

const USER: &str = "cell";
const PASSWORD: &str = "cell-password";

/// The UDP socket that clients write to, and the listeners.
const UDP: u64 = 1;
const PLAIN: u64 = 2;
const BOTH: u64 = 3;
/// Relay sockets of the server are numbered from here.
const RELAYED_FROM: u64 = 1 << 20;

/// A relay on UDP 3478, TCP 3478, and TCP and TLS on 443.
pub struct RelayHost {
    relay: Relay,
    address: IpAddr,
    outputs: VecDeque<Output>,
    deadline: Option<Instant>,
    last: Instant,
}

impl RelayHost {
    /// A relay with one user, for bare agents.
    pub fn new(now: Instant, address: IpAddr, seed: [u8; 32]) -> Self {
        let mut config = relay::Config::new("example.com", address, (now, UNIX_START.as_secs()));
        config.users.insert(USER.to_owned(), Secret::new(PASSWORD));
        Self::with(now, address, config, seed)
    }

    /// A relay with a configuration of the caller's.
    pub fn with(now: Instant, address: IpAddr, config: relay::Config, seed: [u8; 32]) -> Self {
        let at = |port| SocketAddr::new(address, port);
        let outputs = VecDeque::from([
            Output::OpenSocket { id: UDP, bind: at(3478) },
            Output::Listen { id: PLAIN, bind: at(3478), tls: Tls::Plain },
            Output::Listen { id: BOTH, bind: at(443), tls: Tls::Both(vec![RELAY_NAME.to_owned()]) },
        ]);
        Self { relay: Relay::new(config, seed), address, outputs, deadline: None, last: now }
    }

    /// How agents reach it: over UDP and over TCP on 443.
    pub fn ice_servers(&self) -> Vec<Server> {
        let credentials = RelayCredentials { username: USER.to_owned(), password: Secret::new(PASSWORD) };
        let server = |port, transport| Server {
            name: RELAY_NAME.to_owned(),
            addr: SocketAddr::new(self.address, port),
            transport,
            credentials: Some(credentials.clone()),
            wait: true,
        };
        vec![server(3478, ServerTransport::Udp), server(443, ServerTransport::Tcp)]
    }

    /// Allocations that are held now.
    pub fn allocations(&self) -> usize {
        self.relay.allocations(self.last).len()
    }

    /// Direct access, for faults.
    pub fn relay(&mut self) -> &mut Relay {
        &mut self.relay
    }

    fn pump(&mut self) {
        loop {
            let output = match self.relay.poll_output() {
                relay::Output::Transmit { socket, to, bytes } => {
                    Output::Transmit { socket: u64::from(socket.0), to, payload: bytes }
                }
                relay::Output::StreamSend { stream, bytes } => Output::StreamSend { id: stream.0, bytes },
                relay::Output::CloseStream(stream) => Output::CloseStream { id: stream.0 },
                relay::Output::OpenRelay { relay, bind } => {
                    Output::OpenSocket { id: RELAYED_FROM + relay.0, bind: SocketAddr::new(bind, 0) }
                }
                relay::Output::CloseRelay(relay) => Output::CloseSocket { id: RELAYED_FROM + relay.0 },
                relay::Output::RelaySend { relay, to, bytes } => {
                    Output::Transmit { socket: RELAYED_FROM + relay.0, to, payload: bytes }
                }
                relay::Output::Timeout(at) => {
                    self.deadline = at;
                    return;
                }
            };
            self.outputs.push_back(output);
        }
    }
}

impl Program for RelayHost {
    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.last = now;
        let relayed = |id: u64| RelayId(id - RELAYED_FROM);
        let stream = relay::StreamId;
        let input = match input {
            Input::Datagram { socket, from, payload } if socket >= RELAYED_FROM => {
                relay::Input::RelayDatagram { relay: relayed(socket), from, bytes: payload }
            }
            Input::Datagram { socket: _, from, payload } => {
                relay::Input::Datagram { socket: relay::SocketId(1), from, bytes: payload }
            }
            Input::SocketOpened { id, local } if id >= RELAYED_FROM => {
                relay::Input::RelayOpened { relay: relayed(id), addr: local }
            }
            Input::SocketFailed { id, .. } if id >= RELAYED_FROM => relay::Input::RelayFailed { relay: relayed(id) },
            Input::SocketOpened { .. } | Input::StreamOpened { .. } | Input::Listening { .. } => return,
            Input::SocketFailed { cause, .. } => panic!("the relay has no socket: {cause}"),
            Input::StreamAccepted { id, local, remote, tls, .. } => {
                let transport = if tls { ServerTransport::Tls } else { ServerTransport::Tcp };
                relay::Input::StreamOpened { stream: stream(id), local, remote, transport }
            }
            Input::StreamData { id, bytes } => relay::Input::Stream { stream: stream(id), bytes },
            Input::StreamClosed { id, .. } => relay::Input::StreamClosed { stream: stream(id) },
            Input::Timeout => relay::Input::Timeout,
        };
        self.relay.handle_input(now, input);
        self.pump();
    }

    fn poll(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Timeout(self.deadline))
    }
}

// ---- DNS and SIP -------------------------------------------------------------------------------------------------

/// The SIP domain of a simulated town.
pub const DOMAIN: &str = "example.com";
/// The host that `_sip._tls` and the others lead to; its certificate carries this name.
pub const SIP_HOST: &str = "sip.example.com";

const DNS_UDP: u64 = 1;
const SIP_UDP: u64 = 2;
const DNS_TCP: u64 = 3;
const SIP_TCP: u64 = 4;
const SIP_TLS: u64 = 5;
const SIP_TLS_443: u64 = 6;

/// Name server and SIP server on one host: DNS 53, SIP 5060 (UDP, TCP), 5061 and 443 (TLS).
pub struct EdgeHost {
    pub dns: Dns,
    pub proxy: Proxy,
    dns_streams: BTreeSet<u64>,
    outputs: VecDeque<Output>,
    deadlines: [Option<Instant>; 2],
}

impl EdgeHost {
    pub fn new(address: IpAddr, relay: IpAddr, config: proxy::Config, seed: [u8; 32]) -> Self {
        let at = |port| SocketAddr::new(address, port);
        let names = || Tls::Only(vec![SIP_HOST.to_owned(), DOMAIN.to_owned()]);
        let outputs = VecDeque::from([
            Output::OpenSocket { id: DNS_UDP, bind: at(53) },
            Output::OpenSocket { id: SIP_UDP, bind: at(5060) },
            Output::Listen { id: DNS_TCP, bind: at(53), tls: Tls::Plain },
            Output::Listen { id: SIP_TCP, bind: at(5060), tls: Tls::Plain },
            Output::Listen { id: SIP_TLS, bind: at(5061), tls: names() },
            Output::Listen { id: SIP_TLS_443, bind: at(443), tls: names() },
        ]);
        let (dns, proxy) = (Dns::new(zone(address, relay)), Proxy::new(config, seed));
        Self { dns, proxy, dns_streams: BTreeSet::new(), outputs, deadlines: [None; 2] }
    }

    fn pump(&mut self) {
        for server in 0..2 {
            loop {
                let output = if server == 0 { self.dns.poll_output() } else { self.proxy.poll_output() };
                self.outputs.push_back(match output {
                    lab::Output::Transmit { socket, to, bytes } => {
                        Output::Transmit { socket: socket.0, to, payload: bytes }
                    }
                    lab::Output::StreamSend { stream, bytes } => Output::StreamSend { id: stream.0, bytes },
                    lab::Output::CloseStream { stream } => Output::CloseStream { id: stream.0 },
                    lab::Output::Timeout(at) => {
                        self.deadlines[server] = at;
                        break;
                    }
                });
            }
        }
    }
}

/// The names of the town, as an administrator would write them.
fn zone(edge: IpAddr, relay: IpAddr) -> Zone {
    let mut zone = Zone::new();
    zone.address(SIP_HOST, edge).address(RELAY_NAME, relay);
    for (service, port) in [("_sip._tls", 443), ("_sips._tcp", 5061), ("_sip._tcp", 5060), ("_sip._udp", 5060)] {
        zone.srv(&format!("{service}.{DOMAIN}"), 1, 1, port, SIP_HOST).expect("a domain name");
    }
    zone
}

impl Program for EdgeHost {
    fn handle(&mut self, now: Instant, input: Input<'_>) {
        let stream = lab::StreamId;
        let socket_of = lab::SocketId;
        let (is_dns, input) = match input {
            Input::Datagram { socket, from, payload } => {
                (socket == DNS_UDP, lab::Input::Datagram { socket: socket_of(socket), from, bytes: payload })
            }
            Input::SocketOpened { id, local } => {
                (id == DNS_UDP, lab::Input::SocketOpened { socket: socket_of(id), local })
            }
            Input::SocketFailed { cause, .. } => panic!("the edge has no socket: {cause}"),
            Input::StreamAccepted { listener, id, local, remote, tls } => {
                if listener == DNS_TCP {
                    self.dns_streams.insert(id);
                }
                (listener == DNS_TCP, lab::Input::StreamOpened { stream: stream(id), local, remote, tls })
            }
            Input::StreamData { id, bytes } => {
                (self.dns_streams.contains(&id), lab::Input::Stream { stream: stream(id), bytes })
            }
            Input::StreamClosed { id, .. } => {
                (self.dns_streams.remove(&id), lab::Input::StreamClosed { stream: stream(id) })
            }
            Input::StreamOpened { .. } | Input::Listening { .. } => return,
            Input::Timeout => {
                self.dns.handle_input(now, lab::Input::Timeout);
                (false, lab::Input::Timeout)
            }
        };
        if is_dns {
            self.dns.handle_input(now, input);
        } else {
            self.proxy.handle_input(now, input);
        }
        self.pump();
    }

    fn poll(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadlines.into_iter().flatten().min()))
    }
}
