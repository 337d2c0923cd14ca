//! Each server of the lab as the driver and the control socket see it.

use std::time::Instant;

use ice::ServerTransport;
use ice::stun::Method;
use serde_json::{Value, json};

use super::dns::Dns;
use super::driver::{Server, ServerInput, ServerOutput};
use super::mras;
use super::proxy::Proxy;
use super::relay::{self, Fault, Relay};
use super::{Input, Output, SocketId, StreamId};
use crate::driver::clock;

/// Questions and issued credentials shown in the list: the newest.
const SHOWN_MAX: usize = 50;

/// The name server.
#[derive(Debug)]
pub struct DnsServer(Dns);

impl DnsServer {
    /// Wraps it.
    pub fn new(dns: Dns) -> Self {
        Self(dns)
    }
}

impl Server for DnsServer {
    fn handle(&mut self, now: Instant, input: ServerInput<'_>) {
        if let Some(input) = ours(&input) {
            self.0.handle_input(now, input);
        }
    }

    fn poll(&mut self) -> ServerOutput {
        theirs(self.0.poll_output())
    }

    fn holdings(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }

    fn details(&self) -> Vec<(&'static str, Value)> {
        let asked: Vec<String> = self.0.asked().map(|(name, kind)| format!("{kind} {name}")).collect();
        let newest = asked.len().saturating_sub(SHOWN_MAX);
        vec![("questions", json!(asked.get(newest..)))]
    }

    fn fault(&mut self, words: &[&str]) -> Option<Result<(), String>> {
        match words {
            ["dns", "silent"] => self.0.faults_mut().silent = true,
            ["dns", "silent", name] => {
                self.0.faults_mut().silent_names.insert(name.to_ascii_lowercase());
            }
            ["dns", "broken", name] => {
                self.0.faults_mut().broken_names.insert(name.to_ascii_lowercase());
            }
            ["dns", "well"] => *self.0.faults_mut() = super::dns::Faults::default(),
            _ => return None,
        }
        Some(Ok(()))
    }

    fn faults(&self) -> &'static [&'static str] {
        &["dns silent", "dns silent NAME", "dns broken NAME", "dns well"]
    }
}

/// Registrar, proxy, provisioning and relay credentials: one SIP server.
#[derive(Debug)]
pub struct EdgeServer(Proxy);

impl EdgeServer {
    /// Wraps it.
    pub fn new(proxy: Proxy) -> Self {
        Self(proxy)
    }

    fn refuse(&mut self, method: &str, status: &str) -> Result<(), String> {
        let status: u16 = status.parse().map_err(|_| format!("{status:?} is no SIP status"))?;
        self.0.faults_mut().refuse.insert(method.to_ascii_uppercase(), status);
        Ok(())
    }

    fn break_mras(&mut self, status: &str) -> Result<(), String> {
        let status: u16 = status.parse().map_err(|_| format!("{status:?} is no SIP status"))?;
        self.0.mras_mut().set_fault(Some(mras::Fault::Status(status)));
        Ok(())
    }
}

impl Server for EdgeServer {
    fn handle(&mut self, now: Instant, input: ServerInput<'_>) {
        if let Some(input) = ours(&input) {
            self.0.handle_input(now, input);
        }
    }

    fn poll(&mut self) -> ServerOutput {
        theirs(self.0.poll_output())
    }

    fn holdings(&self) -> Vec<(&'static str, Value)> {
        let registrations: Vec<Value> = self
            .0
            .registrations(clock::now())
            .into_iter()
            .map(|one| {
                let transport = format!("{:?}", one.transport).to_lowercase();
                json!({ "user": one.user, "contact": one.contact, "transport": transport, "from": one.from })
            })
            .collect();
        vec![("registrations", json!(registrations)), ("services", json!(self.0.mras().requests()))]
    }

    fn details(&self) -> Vec<(&'static str, Value)> {
        let (clients, servers) = self.0.transactions();
        vec![("transactions", json!(clients + servers)), ("streams", json!(self.0.streams()))]
    }

    fn fault(&mut self, words: &[&str]) -> Option<Result<(), String>> {
        match words {
            ["sip", "silent"] => self.0.faults_mut().silent = true,
            ["sip", "silent", method] => {
                self.0.faults_mut().silent_methods.insert(method.to_ascii_uppercase());
            }
            ["sip", "refuse", method, status] => return Some(self.refuse(method, status)),
            ["sip", "disconnect"] => self.0.close_streams(),
            ["sip", "well"] => *self.0.faults_mut() = super::proxy::Faults::default(),
            ["mras", "refuse", status] => return Some(self.break_mras(status)),
            ["mras", "garbage"] => self.0.mras_mut().set_fault(Some(mras::Fault::Garbage)),
            ["mras", "reason", reason @ ..] => {
                self.0.mras_mut().set_fault(Some(mras::Fault::Reason(reason.join(" "))));
            }
            ["mras", "well"] => self.0.mras_mut().set_fault(None),
            _ => return None,
        }
        Some(Ok(()))
    }

    fn faults(&self) -> &'static [&'static str] {
        &[
            "sip silent",
            "sip silent METHOD",
            "sip refuse METHOD STATUS",
            "sip disconnect",
            "sip well",
            "mras refuse STATUS",
            "mras garbage",
            "mras reason TEXT",
            "mras well",
        ]
    }
}

/// One relay.
#[derive(Debug)]
pub struct RelayServer {
    relay: Relay,
    index: usize,
}

impl RelayServer {
    /// Wraps it; relays are numbered from 0 and named from 1.
    pub fn new(relay: Relay, index: usize) -> Self {
        Self { relay, index }
    }

    fn is_named(&self, word: &str) -> bool {
        word == "relay" || word.strip_prefix("relay").and_then(|number| number.parse().ok()) == Some(self.index + 1)
    }

    fn refuse(&mut self, code: &str) -> Result<(), String> {
        let code = code.parse().ok().filter(|code| (300..700).contains(code));
        let code: u16 = code.ok_or_else(|| "a STUN error code is 300 to 699".to_owned())?;
        self.relay.faults().inject(Fault::always(Method::ALLOCATE, code));
        Ok(())
    }
}

impl Server for RelayServer {
    fn handle(&mut self, now: Instant, input: ServerInput<'_>) {
        let stream_id = relay::StreamId;
        let input = match input {
            ServerInput::Datagram { socket, from, bytes } => {
                relay::Input::Datagram { socket: relay::SocketId(socket), from, bytes }
            }
            ServerInput::StreamOpened { stream, local, remote, tls } => {
                let transport = if tls { ServerTransport::Tls } else { ServerTransport::Tcp };
                relay::Input::StreamOpened { stream: stream_id(stream), local, remote, transport }
            }
            ServerInput::Stream { stream, bytes } => relay::Input::Stream { stream: stream_id(stream), bytes },
            ServerInput::StreamClosed { stream } => relay::Input::StreamClosed { stream: stream_id(stream) },
            ServerInput::Opened { socket, local } => {
                relay::Input::RelayOpened { relay: relay::RelayId(socket), addr: local }
            }
            ServerInput::OpenFailed { socket } => relay::Input::RelayFailed { relay: relay::RelayId(socket) },
            ServerInput::Extra { socket, from, bytes } => {
                relay::Input::RelayDatagram { relay: relay::RelayId(socket), from, bytes }
            }
            ServerInput::Timeout => relay::Input::Timeout,
            ServerInput::Listening { .. } => return,
        };
        self.relay.handle_input(now, input);
    }

    fn poll(&mut self) -> ServerOutput {
        match self.relay.poll_output() {
            relay::Output::Transmit { socket, to, bytes } => ServerOutput::Transmit { socket: socket.0, to, bytes },
            relay::Output::StreamSend { stream, bytes } => ServerOutput::StreamSend { stream: stream.0, bytes },
            relay::Output::CloseStream(stream) => ServerOutput::CloseStream(stream.0),
            relay::Output::OpenRelay { relay, bind } => ServerOutput::Open { socket: relay.0, bind },
            relay::Output::CloseRelay(relay) => ServerOutput::Close(relay.0),
            relay::Output::RelaySend { relay, to, bytes } => ServerOutput::Extra { socket: relay.0, to, bytes },
            relay::Output::Timeout(at) => ServerOutput::Timeout(at),
        }
    }

    fn holdings(&self) -> Vec<(&'static str, Value)> {
        let allocations: Vec<Value> = self
            .relay
            .allocations(clock::now())
            .into_iter()
            .map(|one| {
                let transport = format!("{:?}", one.transport).to_lowercase();
                json!({
                    "relay": self.index + 1,
                    "user": one.user,
                    "client": one.client,
                    "transport": transport,
                    "relayed": one.relayed,
                    "permissions": one.permissions,
                    "channels": one.channels,
                })
            })
            .collect();
        vec![("allocations", json!(allocations))]
    }

    fn details(&self) -> Vec<(&'static str, Value)> {
        let bytes = self.relay.allocations(clock::now()).iter().map(|one| one.in_bytes + one.out_bytes).sum::<u64>();
        vec![("relayed_bytes", json!([bytes]))]
    }

    fn fault(&mut self, words: &[&str]) -> Option<Result<(), String>> {
        let (name, rest) = words.split_first()?;
        if !self.is_named(name) {
            return None;
        }
        match rest {
            ["mute"] => self.relay.faults().is_mute = true,
            ["blackhole"] => self.relay.faults().is_blackhole = true,
            ["refuse", code] => return Some(self.refuse(code)),
            ["stale-nonces"] => self.relay.expire_nonces(),
            ["restart"] => self.relay.forget_allocations(),
            ["well"] => self.relay.faults().clear(),
            _ => return None,
        }
        Some(Ok(()))
    }

    fn faults(&self) -> &'static [&'static str] {
        &[
            "relay[N] mute",
            "relay[N] blackhole",
            "relay[N] refuse CODE",
            "relay[N] stale-nonces",
            "relay[N] restart",
            "relay[N] well",
        ]
    }
}

/// The inputs that the name server and the SIP server understand.
fn ours<'a>(input: &ServerInput<'a>) -> Option<Input<'a>> {
    Some(match *input {
        ServerInput::Listening { socket, local } => Input::SocketOpened { socket: SocketId(u64::from(socket)), local },
        ServerInput::Datagram { socket, from, bytes } => {
            Input::Datagram { socket: SocketId(u64::from(socket)), from, bytes }
        }
        ServerInput::StreamOpened { stream, local, remote, tls } => {
            Input::StreamOpened { stream: StreamId(stream), local, remote, tls }
        }
        ServerInput::Stream { stream, bytes } => Input::Stream { stream: StreamId(stream), bytes },
        ServerInput::StreamClosed { stream } => Input::StreamClosed { stream: StreamId(stream) },
        ServerInput::Timeout => Input::Timeout,
        ServerInput::Opened { .. } | ServerInput::OpenFailed { .. } | ServerInput::Extra { .. } => return None,
    })
}

fn theirs(output: Output) -> ServerOutput {
    match output {
        Output::Transmit { socket, to, bytes } => {
            // Only numbers that the driver gave come back.
            ServerOutput::Transmit { socket: u32::try_from(socket.0).unwrap_or(u32::MAX), to, bytes }
        }
        Output::StreamSend { stream, bytes } => ServerOutput::StreamSend { stream: stream.0, bytes },
        Output::CloseStream { stream } => ServerOutput::CloseStream(stream.0),
        Output::Timeout(at) => ServerOutput::Timeout(at),
    }
}
