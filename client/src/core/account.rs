//! One account: its user agent, the connections of its signalling, and where a request goes.
//!
//! ```text
//!   with an edge      registration.rs keeps one connection; every request takes it
//!   without           each call finds its own way: an open socket, or a race to the target's address
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use sip::Uri;
use sip::endpoint::Endpoint;
use sip::event::{CommandError, DialogId, FlowId, Hop, Transport};

use super::connect::Line;
use super::flow::earlier;
use super::io::{Answer, Output, ResolveId, SocketId, StreamError, StreamId};

use super::ports::{Ports, socket_flow, stream_flow};
use super::registration::Registration;
use super::relays::Relays;
use super::route::Way;
use super::views;
use crate::api::{self, AccountChange, AccountConfig, AccountId, CallId, Secret, TransportChoice, Warning};

/// One open signalling connection.
#[derive(Debug, Clone)]
pub(crate) struct FlowInfo {
    pub(crate) transport: Transport,
    pub(crate) local: SocketAddr,
    /// Of a stream.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) line: Line,
}

/// Where a call's INVITE goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Ready(Hop),
    /// [`News::Hop`] will tell.
    Wait,
    Failed(String),
}

/// What the calls of an account must hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// The way of one call was found, or not.
    Hop(CallId, Result<Hop, String>),
    /// The account can be called from, or its relays are known now.
    Ready,
    /// The account cannot be used; the sentence says why.
    Unusable(String),
    /// A call that was asked for in the call `asked_in` is answered, or has failed.
    TransferOver { asked_in: CallId, answered: bool },
}

#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: AccountId,
    pub(crate) config: AccountConfig,
    pub(crate) endpoint: Endpoint,
    pub(crate) aor: Option<Uri>,
    pub(crate) relays: Relays,
    pub(crate) registration: Registration,
    pub(crate) flows: BTreeMap<FlowId, FlowInfo>,
    pub(crate) news: VecDeque<News>,
    pub(crate) ways: BTreeMap<CallId, Way>,
    pub(crate) interfaces: Vec<IpAddr>,
    listening: Option<SocketId>,
    /// Ports for audio that provisioning prescribes.
    pub(crate) provisioned_ports: Option<(u16, u16)>,
}

/// What an account is made from besides its configuration.
#[derive(Debug)]
pub(crate) struct AccountSetup {
    pub(crate) user_agent: String,
    pub(crate) interfaces: Vec<IpAddr>,
    pub(crate) unix: Duration,
    pub(crate) sip_seed: [u8; 32],
    pub(crate) seed: [u8; 32],
}

impl Account {
    pub(crate) fn new(
        now: Instant,
        id: AccountId,
        config: AccountConfig,
        setup: AccountSetup,
        ports: &mut Ports,
    ) -> Self {
        let aor: Option<Uri> = config.aor.parse().ok();
        let endpoint = Endpoint::new(endpoint_config(&config, aor.as_ref(), setup.user_agent), setup.sip_seed);
        let relays = Relays::new(now, setup.unix, id, &config.servers, ports);
        let mut account = Self {
            id,
            endpoint,
            aor,
            relays,
            registration: Registration::new(setup.seed),
            flows: BTreeMap::new(),
            news: VecDeque::new(),
            ways: BTreeMap::new(),
            interfaces: setup.interfaces,
            listening: None,
            provisioned_ports: None,
            config,
        };
        ports.account_event(id, AccountChange::Added { aor: account.config.aor.clone() });
        if let Some(local) = account.config.listen {
            let socket = ports.sip_socket(id);
            account.listening = Some(socket);
            ports.push(Output::OpenSocket { id: socket, bind: local, toward: None });
            let listener = ports.sip_listener(id);
            ports.push(Output::Listen { id: listener, bind: local, shared: false });
        }
        account
    }

    /// Whether requests go through a server of the account's domain.
    pub(crate) fn has_edge(&self) -> bool {
        self.config.register || self.config.edge.is_some()
    }

    /// The domain of the address of record.
    pub(crate) fn domain(&self) -> Option<String> {
        self.aor.as_ref().filter(|_| self.has_edge()).map(|aor| aor.host.to_string())
    }

    pub(crate) fn is_protected(&self, flow: FlowId) -> bool {
        self.plain_transport(flow).is_none()
    }

    /// The transport of a flow that anyone can read; loopback counts too.
    pub(crate) fn plain_transport(&self, flow: FlowId) -> Option<api::Transport> {
        let info = self.flows.get(&flow)?;
        (info.transport != Transport::Tls).then(|| views::sip_transport(info.transport))
    }

    /// The addresses to gather on: loopback, and nothing else, if the signalling is on loopback.
    pub(crate) fn media_interfaces(&self, hop: Hop, only: Option<IpAddr>) -> Vec<IpAddr> {
        if let Some(only) = only {
            return vec![only];
        }
        let local = self.flows.get(&hop.flow).map(|info| info.local.ip());
        if hop.to.ip().is_loopback() {
            let any =
                if hop.to.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]) };
            return vec![local.filter(IpAddr::is_loopback).unwrap_or(any)];
        }
        let mut list: Vec<_> = self.interfaces.iter().copied().filter(|address| !address.is_loopback()).collect();
        // The address that signalling uses is the likeliest to be reachable.
        if let Some(at) = local.and_then(|local| list.iter().position(|address| *address == local)) {
            list.swap(0, at);
        }
        list
    }

    /// TCP candidates make an offer too large for a datagram.
    pub(crate) fn has_room_for_tcp(&self, hop: Hop) -> bool {
        self.flows.get(&hop.flow).is_some_and(|info| info.transport != Transport::Udp)
    }

    pub(crate) fn port_range(&self) -> Option<RangeInclusive<u16>> {
        self.config.port_range.or(self.provisioned_ports).map(|(low, high)| low..=high)
    }

    /// A re-INVITE; on UDP a large one goes out in fragments, because the dialog's other end may listen to UDP only.
    pub(crate) fn reinvite(&mut self, now: Instant, dialog: DialogId, sdp: &str) -> Result<(), CommandError> {
        match self.endpoint.reinvite(now, dialog, Some(sdp.to_owned())) {
            Err(CommandError::TooLarge { .. }) => {
                self.endpoint.set_udp_limit(None);
                self.endpoint.reinvite(now, dialog, Some(sdp.to_owned()))
            }
            other => other,
        }
    }

    /// Registers a connection with the user agent.
    pub(crate) fn open_flow(
        &mut self,
        now: Instant,
        line: Line,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> FlowId {
        let (flow, remote) = match line {
            Line::Socket(id) => (socket_flow(id), None),
            Line::Stream(id) => (stream_flow(id), Some(remote)),
        };
        let local = self.visible(local);
        self.flows.insert(flow, FlowInfo { transport, local, remote, line });
        self.endpoint.handle_input(now, sip::event::Input::FlowOpened { flow, transport, local, remote });
        flow
    }

    /// `0.0.0.0` is no address to be called at: the best interface's stands for it.
    fn visible(&self, local: SocketAddr) -> SocketAddr {
        if !local.ip().is_unspecified() {
            return local;
        }
        let same_family = self.interfaces.iter().find(|address| address.is_ipv4() == local.is_ipv4());
        same_family.map_or(local, |address| SocketAddr::new(*address, local.port()))
    }

    pub(crate) fn socket_opened(&mut self, now: Instant, id: SocketId, local: SocketAddr, ports: &mut Ports) {
        if self.listening == Some(id) {
            self.open_flow(now, Line::Socket(id), Transport::Udp, local, local);
            ports.account_event(self.id, AccountChange::Listening { address: local });
            self.news.push_back(News::Ready);
            return;
        }
        self.line_opened(now, Line::Socket(id), local, ports);
    }

    pub(crate) fn socket_failed(&mut self, now: Instant, id: SocketId, cause: &str, ports: &mut Ports) {
        ports.forget_socket(id);
        if self.listening == Some(id) {
            self.listening = None;
            let address = self.config.listen.map(|listen| listen.to_string()).unwrap_or_default();
            let what = format!("cannot listen at {address}: {cause}; choose another address or port");
            ports.account_event(
                self.id,
                AccountChange::Warned { warning: Warning::PeerMisbehaves { what: what.clone() } },
            );
            self.news.push_back(News::Unusable(what));
            return;
        }
        self.line_closed(now, Line::Socket(id), &StreamError::Io(cause.to_owned()), ports);
    }

    pub(crate) fn stream_opened(&mut self, now: Instant, id: StreamId, local: SocketAddr, ports: &mut Ports) {
        self.line_opened(now, Line::Stream(id), local, ports);
    }

    /// A stream came in at the listening address.
    pub(crate) fn stream_accepted(&mut self, now: Instant, id: StreamId, local: SocketAddr, remote: SocketAddr) {
        self.open_flow(now, Line::Stream(id), Transport::Tcp, local, remote);
    }

    pub(crate) fn stream_closed(&mut self, now: Instant, id: StreamId, cause: &StreamError, ports: &mut Ports) {
        ports.forget_stream(id);
        self.line_closed(now, Line::Stream(id), cause, ports);
    }

    fn line_opened(&mut self, now: Instant, line: Line, local: SocketAddr, ports: &mut Ports) {
        if let Some((call, way)) = self.ways.iter_mut().find(|(_, way)| way.search.has(line)) {
            let call = *call;
            let outcome = way.search.opened(now, line, local, ports);
            return self.way_came_to(now, call, outcome);
        }
        if self.registration.has_line(line) {
            let outcome = self.registration.search_opened(now, line, local, ports);
            self.edge_search_came_to(now, outcome, ports);
        }
    }

    fn line_closed(&mut self, now: Instant, line: Line, cause: &StreamError, ports: &mut Ports) {
        if let Some((call, way)) = self.ways.iter_mut().find(|(_, way)| way.search.has(line)) {
            let call = *call;
            let outcome = way.search.failed(now, line, cause, ports);
            return self.way_came_to(now, call, outcome);
        }
        if self.registration.has_line(line) {
            let outcome = self.registration.search_failed(now, line, cause, ports);
            return self.edge_search_came_to(now, outcome, ports);
        }
        let Some(flow) = self.flows.iter().find(|(_, info)| info.line == line).map(|(flow, _)| *flow) else { return };
        self.flow_lost(now, flow, &cause.to_string(), ports);
    }

    /// A connection that stood is gone.
    pub(crate) fn flow_lost(&mut self, now: Instant, flow: FlowId, cause: &str, ports: &mut Ports) {
        self.flows.remove(&flow);
        self.endpoint.handle_input(now, sip::event::Input::FlowClosed { flow, cause: cause.to_owned() });
        self.edge_flow_lost(now, flow, cause, ports);
    }

    pub(crate) fn datagram(&mut self, now: Instant, id: SocketId, from: SocketAddr, bytes: &[u8]) {
        self.endpoint.handle_input(now, sip::event::Input::Datagram { flow: socket_flow(id), from, bytes });
    }

    pub(crate) fn stream_data(&mut self, now: Instant, id: StreamId, bytes: &[u8]) {
        self.endpoint.handle_input(now, sip::event::Input::Stream { flow: stream_flow(id), bytes });
    }

    pub(crate) fn resolved(&mut self, now: Instant, id: ResolveId, answer: &Answer, ports: &mut Ports) {
        if self.relays.resolved(id, answer) {
            self.relays_known(now, ports);
            return;
        }
        if let Some((call, way)) = self.ways.iter_mut().find(|(_, way)| way.search.asked(id)) {
            let call = *call;
            let outcome = way.search.answered(now, id, answer, ports);
            return self.way_came_to(now, call, outcome);
        }
        self.edge_resolved(now, id, answer, ports);
    }

    /// Sends what the user agent wants to send; everything else comes back.
    pub(crate) fn carry(
        &mut self,
        now: Instant,
        output: sip::event::Output,
        ports: &mut Ports,
    ) -> Option<sip::event::Output> {
        match output {
            sip::event::Output::Transmit { flow, to, bytes } => match self.flows.get(&flow).map(|info| info.line) {
                Some(Line::Socket(socket)) => ports.push(Output::Transmit { socket, to, payload: bytes }),
                Some(Line::Stream(id)) => ports.push(Output::StreamSend { id, payload: bytes }),
                None => {}
            },
            sip::event::Output::CloseFlow(flow) => {
                if let Some(info) = self.flows.get(&flow).cloned() {
                    match info.line {
                        Line::Socket(id) => ports.close_socket(id),
                        Line::Stream(id) => ports.close_stream(id),
                    }
                    self.flow_lost(now, flow, "no sign of life", ports);
                }
            }
            other @ (sip::event::Output::Event(_) | sip::event::Output::Timeout(_)) => return Some(other),
        }
        None
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, ports: &mut Ports) {
        self.endpoint.handle_input(now, sip::event::Input::Timeout);
        let calls: Vec<_> = self.ways.keys().copied().collect();
        for call in calls {
            let Some(way) = self.ways.get_mut(&call).filter(|way| way.search.deadline().is_some_and(|at| at <= now))
            else {
                continue;
            };
            let outcome = way.search.advance(now, ports);
            self.way_came_to(now, call, outcome);
        }
        self.registration_timeout(now, ports);
    }

    /// When this account wants to be woken, apart from its endpoint.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let ways = self.ways.values().filter_map(|way| way.search.deadline()).min();
        earlier(ways, self.registration.deadline())
    }

    /// The addresses of this host changed.
    pub(crate) fn interfaces_changed(&mut self, now: Instant, interfaces: &[IpAddr], ports: &mut Ports) {
        let first = self.interfaces.is_empty();
        self.interfaces = interfaces.to_vec();
        if !first {
            self.relays.forget_failures();
            self.network_changed(now, ports);
        }
    }

    /// Gives every connection back.
    pub(crate) fn close(&mut self, ports: &mut Ports) {
        for way in self.ways.values_mut() {
            way.search.cancel(ports);
        }
        self.ways.clear();
        for info in std::mem::take(&mut self.flows).into_values() {
            match info.line {
                Line::Socket(id) => ports.close_socket(id),
                Line::Stream(id) => ports.close_stream(id),
            }
        }
        self.registration.close(ports);
    }
}

/// The transport of the API as `sip` knows it.
pub(crate) fn wire_transport(transport: api::Transport) -> Transport {
    match transport {
        api::Transport::Udp => Transport::Udp,
        api::Transport::Tcp => Transport::Tcp,
        api::Transport::Tls => Transport::Tls,
    }
}

fn endpoint_config(config: &AccountConfig, aor: Option<&Uri>, user_agent: String) -> sip::event::Config {
    let user = aor.map(Uri::user_text).filter(|user| !user.is_empty()).unwrap_or_else(|| "icephone".to_owned());
    let auth_user = config.auth_user.clone().unwrap_or_else(|| user.clone());
    let password = config.password.as_ref().map(Secret::expose);
    let accounts = password.map(|password| sip::event::Account {
        realm: None,
        user: auth_user,
        password: sip::event::Secret::new(password),
    });
    sip::event::Config {
        user_agent,
        aor: aor.cloned(),
        display_name: config.display_name.clone(),
        user,
        accounts: accounts.into_iter().collect(),
        // `udp` is obeyed with fragments; `auto` moves what is too large to TCP (RFC 3261 §18.1.1).
        udp_limit_bytes: (config.transport != TransportChoice::Udp).then_some(1300),
        reliable_progress: false,
        ..sip::event::Config::default()
    }
}
