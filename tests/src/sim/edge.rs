//! The servers of `client::lab` on simulated hosts. Each adapter only renames: inputs, outputs, ids.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

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
            Input::SocketOpened { .. } | Input::StreamOpened { .. } => return,
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
