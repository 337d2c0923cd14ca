//! Where the INVITE of a call goes first: the account's edge, an open connection, or one that is made for it.

use std::net::SocketAddr;
use std::time::Instant;

use rand::RngExt as _;
use sip::Uri;
use sip::event::{Hop, Transport};
use sip::locate::{self, TargetId};

use super::account::{Account, FlowInfo, News, Route};
use super::connect::{Outcome, Search, describe};
use super::ports::Ports;
use crate::api::{CallId, TransportChoice};

/// A call's own way to its target. It is kept while the call lives: the server may turn out to be of no use.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) search: Search,
    selected: Option<TargetId>,
    /// What to use if the race is lost: the UDP hop that was too small (RFC 3261 §18.1.1).
    fallback: Option<Hop>,
}

impl Account {
    /// Where a call to `target` goes, or the start of finding out.
    pub(crate) fn route(
        &mut self,
        now: Instant,
        call: CallId,
        target: &Uri,
        transport: Option<Transport>,
        ports: &mut Ports,
    ) -> Route {
        if self.has_edge() {
            return self.registration.route();
        }
        let explicit = transport.is_some();
        let transport = transport.unwrap_or_else(|| self.direct_transport(target));
        let address = target.host.ip().map(|ip| SocketAddr::new(ip, target.port.unwrap_or(transport.default_port())));
        if let Some(hop) = address.and_then(|address| self.open_hop(transport, address)) {
            return Route::Ready(hop);
        }
        let by_name = target.host.ip().is_none();
        let chosen = target.transport().is_some() || self.config.transport != TransportChoice::Auto;
        // A name says by its records how it is reached, unless somebody has said so already.
        let wanted = (!by_name || chosen || explicit).then_some(transport);
        let config = locate::Config { transport: wanted, ..locate::Config::uri(target) };
        self.start_way(now, call, config, address, None, ports);
        Route::Wait
    }

    /// RFC 3263 §4.1 for numeric targets: UDP, unless the URI or the configuration says otherwise.
    fn direct_transport(&self, target: &Uri) -> Transport {
        if target.scheme == sip::Scheme::Sips {
            return Transport::Tls;
        }
        match (target.transport().as_deref(), self.config.transport) {
            (Some("tcp"), _) | (None, TransportChoice::Tcp) => Transport::Tcp,
            (Some("tls"), _) | (None, TransportChoice::Tls) => Transport::Tls,
            (Some(_), _) | (None, TransportChoice::Auto | TransportChoice::Udp) => Transport::Udp,
        }
    }

    /// An open flow that reaches `address`: a stream to it, or a UDP socket of its family and on its side of loopback.
    fn open_hop(&self, transport: Transport, address: SocketAddr) -> Option<Hop> {
        let fits = |info: &&FlowInfo| {
            info.transport == transport
                && match info.remote {
                    Some(remote) => remote == address,
                    None => {
                        info.local.is_ipv4() == address.is_ipv4()
                            && info.local.ip().is_loopback() == address.ip().is_loopback()
                    }
                }
        };
        let (flow, _) = self.flows.iter().find(|(_, info)| fits(info))?;
        Some(Hop { flow: *flow, to: address })
    }

    fn bind_for(&self, address: Option<SocketAddr>) -> Option<SocketAddr> {
        let listen =
            self.config.listen.filter(|listen| address.is_none_or(|address| address.is_ipv4() == listen.is_ipv4()))?;
        Some(SocketAddr::new(listen.ip(), 0))
    }

    fn start_way(
        &mut self,
        now: Instant,
        call: CallId,
        config: locate::Config,
        address: Option<SocketAddr>,
        fallback: Option<Hop>,
        ports: &mut Ports,
    ) {
        let seed = self.registration.rng.random();
        let mut search = Search::new(now, self.id, config, self.bind_for(address), seed);
        let outcome = search.advance(now, ports);
        self.ways.insert(call, Way { search, selected: None, fallback });
        self.way_came_to(now, call, outcome);
    }

    /// The INVITE is too large for UDP: the same server over TCP, and if there is none, in fragments after all.
    pub(crate) fn move_to_tcp(&mut self, now: Instant, call: CallId, hop: Hop, ports: &mut Ports) {
        if self.ways.get(&call).is_some_and(|way| way.selected.is_none()) {
            return; // on its way already
        }
        if let Some(hop) = self.open_hop(Transport::Tcp, hop.to) {
            self.news.push_back(News::Hop(call, Ok(hop)));
            return;
        }
        let host = sip::Host::Ip(hop.to.ip());
        let config = locate::Config {
            domain: host.clone(),
            port: Some(hop.to.port()),
            edge: Some((host, Some(hop.to.port()))),
            transport: Some(Transport::Tcp),
            secure: false,
            account: false,
        };
        self.start_way(now, call, config, Some(hop.to), Some(hop), ports);
    }

    /// The server of a call is silent, or says 503: on with the next one of the same name (RFC 3263 §4.3), if there is one.
    pub(crate) fn next_way(&mut self, now: Instant, call: CallId, ports: &mut Ports) -> bool {
        let Some(way) = self.ways.get_mut(&call) else { return false };
        let Some(selected) = way.selected.take() else { return false };
        let outcome = way.search.give_up_selected(now, selected, "no answer, or 503", ports);
        if matches!(outcome, Outcome::Lost(_)) {
            self.ways.remove(&call);
            return false;
        }
        self.way_came_to(now, call, outcome);
        true
    }

    /// The call does not need its way any more.
    pub(crate) fn cancel_race(&mut self, call: CallId, ports: &mut Ports) {
        if let Some(mut way) = self.ways.remove(&call) {
            way.search.cancel(ports);
        }
    }

    pub(crate) fn way_came_to(&mut self, now: Instant, call: CallId, outcome: Outcome) {
        match outcome {
            Outcome::Running => {}
            Outcome::Won { target, line, local } => {
                if let Some(way) = self.ways.get_mut(&call) {
                    (way.selected, way.fallback) = (Some(target.id), None);
                }
                let flow = self.open_flow(now, line, target.transport, local, target.address);
                self.news.push_back(News::Hop(call, Ok(Hop { flow, to: target.address })));
            }
            Outcome::Lost(lost) => {
                if let Some(hop) = self.ways.remove(&call).and_then(|way| way.fallback) {
                    self.endpoint.set_udp_limit(None);
                    self.news.push_back(News::Hop(call, Ok(hop)));
                    return;
                }
                let certificate = lost.certificate.map(|(target, cause)| {
                    format!(
                        "the certificate of {} was refused: {cause}; check tls.ca and the server's name",
                        describe(&target)
                    )
                });
                self.news.push_back(News::Hop(call, Err(certificate.unwrap_or_else(|| lost.error.to_string()))));
            }
        }
    }
}
