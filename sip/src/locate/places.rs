//! From the configuration and the answers to hosts, ports and addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::weights::in_order;
use super::{
    Answer, Config, FAMILY_PATIENCE, Kind, LocateErrorKind, Locator, NAME_PATIENCE, NAPTR_LIMIT, Naptr, Output,
    PLACES_MAX, Place, Query, QueryId, RESOLVE_LIMIT, Service, Stage, TARGETS_MAX, Target, TargetId,
};
use crate::event::Transport;
use crate::uri::Host;

/// RFC 3261 §19.1.2 and §26.2.2.
fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp | Transport::Tcp => 5060,
        Transport::Tls => 5061,
    }
}

/// The transport where DNS does not tell it (RFC 3263 §4.1): TLS for `sips:`, else UDP. A server given by hand with
/// one of the two ports on which only TLS is spoken gets TLS.
fn implied_transport(config: &Config, port: Option<u16>) -> Transport {
    match (config.transport, config.secure, port) {
        (_, true, _) | (None, false, Some(443 | 5061)) => Transport::Tls,
        (Some(transport), false, _) => transport,
        (None, false, _) => Transport::Udp,
    }
}

/// How far the queries of one tier have come.
struct Tier {
    ids: Vec<QueryId>,
    waiting: bool,
    failed: bool,
}

impl Locator {
    /// The first queries, or none if the target is an address already.
    pub(super) fn begin(&mut self, now: Instant) {
        let config = self.config.clone();
        let given = match &config.edge {
            Some((host, port)) => Some((host.clone(), *port)),
            None if config.port.is_some() || config.domain.ip().is_some() => Some((config.domain.clone(), config.port)),
            None => None,
        };
        if let Some((host, port)) = given {
            self.stage = Stage::Connecting;
            let place = self.host_place(host, port, config.edge.is_some());
            self.add_places(now, vec![place]);
            self.advance(now);
            return;
        }
        let secure = config.secure || config.transport.is_none_or(|transport| transport == Transport::Tls);
        if secure && config.account {
            self.ask_service(now, Service::InternalTls, "_sipinternaltls._tcp");
            self.ask_service(now, Service::ExternalTls, "_sip._tls");
        }
        // A transport given by hand leaves nothing for NAPTR to tell (RFC 3263 §4.1).
        if config.transport.is_none() {
            self.ask(now, Service::Naptr, config.domain.to_string(), Kind::Naptr);
        }
        if secure {
            self.ask_service(now, Service::Sips, "_sips._tcp");
        }
        for (service, transport, prefix) in
            [(Service::Tcp, Transport::Tcp, "_sip._tcp"), (Service::Udp, Transport::Udp, "_sip._udp")]
        {
            if !config.secure && config.transport.is_none_or(|chosen| chosen == transport) {
                self.ask_service(now, service, prefix);
            }
        }
    }

    fn ask_service(&mut self, now: Instant, service: Service, prefix: &str) {
        let name = format!("{prefix}.{}", self.config.domain);
        self.ask(now, service, name, Kind::Srv);
    }

    fn ask(&mut self, now: Instant, service: Service, name: String, kind: Kind) {
        let id = QueryId(self.next_query);
        self.next_query += 1;
        self.outputs.push_back(Output::Resolve { query: id, name: name.clone(), kind });
        let limit = if kind == Kind::Naptr { NAPTR_LIMIT } else { RESOLVE_LIMIT };
        self.queries.insert(id, Query { service, name, kind, expires_at: now + limit, answer: None });
    }

    /// NAPTR may name other owners of the SRV records than the usual ones (RFC 3263 §4.1); those are asked too.
    pub(super) fn follow_naptr(&mut self, now: Instant, records: &[Naptr]) {
        let mut records: Vec<&Naptr> = records.iter().filter(|record| record.flags.eq_ignore_ascii_case("s")).collect();
        records.sort_by_key(|record| (record.order, record.preference));
        for record in records {
            let service = match record.service.to_ascii_uppercase().as_str() {
                "SIPS+D2T" => Service::Sips,
                "SIP+D2T" if !self.config.secure => Service::Tcp,
                "SIP+D2U" if !self.config.secure => Service::Udp,
                _ => continue,
            };
            let name = record.replacement.trim_end_matches('.').to_owned();
            let known = self.queries.values().any(|query| query.name.eq_ignore_ascii_case(&name));
            if !known && !name.is_empty() && self.queries.len() < PLACES_MAX {
                self.ask(now, service, name, Kind::Srv);
            }
        }
    }

    /// With the names answered so far: connect, wait, or stop.
    pub(super) fn decide(&mut self, now: Instant) {
        for secure in [true, false] {
            let Tier { ids, waiting, failed } = self.tier(secure);
            // Only TLS names are worth starting with before all are answered.
            let impatient = secure && self.found_at.is_some_and(|at| now >= at + NAME_PATIENCE);
            if waiting && !impatient {
                return;
            }
            let places = self.places_of(&ids);
            if !places.is_empty() {
                self.stage = Stage::Connecting;
                self.add_places(now, places);
                return;
            }
            // What is not known to be absent must not be passed over for something less secure.
            if failed {
                self.fail(LocateErrorKind::DnsFailed);
                return;
            }
        }
        let refused = self.queries.values().any(|query| matches!(&query.answer, Some((_, Answer::Srv(_)))));
        if refused {
            self.fail(LocateErrorKind::NotOffered);
            return;
        }
        self.stage = Stage::Connecting;
        let place = self.host_place(self.config.domain.clone(), None, false);
        self.add_places(now, vec![place]);
    }

    /// The queries for TLS names (NAPTR may still bring one), or those for TCP and UDP.
    fn tier(&self, secure: bool) -> Tier {
        let mut tier = Tier { ids: Vec::new(), waiting: false, failed: false };
        for (id, query) in &self.queries {
            let belongs = match query.service {
                Service::InternalTls | Service::ExternalTls | Service::Sips | Service::Naptr => secure,
                Service::Tcp | Service::Udp => !secure,
                Service::Address => false,
            };
            if belongs {
                tier.ids.push(*id);
                tier.waiting |= query.answer.is_none();
                tier.failed |= query.kind == Kind::Srv && matches!(query.answer, Some((_, Answer::Failed(_))));
            }
        }
        tier
    }

    fn host_place(&self, host: Host, port: Option<u16>, by_hand: bool) -> Place {
        let transport = implied_transport(&self.config, port);
        let port = port.unwrap_or_else(|| default_port(transport));
        Place { host, port, transport, source: None, internal: false, by_hand }
    }

    /// The servers of these SRV answers: by service in the order of preference, then as RFC 2782 says.
    pub(super) fn places_of(&mut self, ids: &[QueryId]) -> Vec<Place> {
        let mut found = Vec::new();
        for id in ids {
            if let Some(Query { service, name, answer: Some((_, Answer::Srv(records))), .. }) = self.queries.get(id) {
                found.push((*service, name.clone(), records.clone()));
            }
        }
        found.sort_by_key(|(service, ..)| *service);
        let mut places = Vec::new();
        for (service, name, records) in found {
            let transport = match service {
                Service::Tcp => Transport::Tcp,
                Service::Udp => Transport::Udp,
                Service::InternalTls | Service::ExternalTls | Service::Sips | Service::Naptr | Service::Address => {
                    Transport::Tls
                }
            };
            for record in in_order(records, &mut self.rng) {
                let target = record.target.trim_end_matches('.');
                let Ok(host) = target.parse::<Host>() else {
                    continue; // "." or no host name
                };
                let internal = service == Service::InternalTls;
                let source = Some(name.clone());
                places.push(Place { host, port: record.port, transport, source, internal, by_hand: false });
            }
        }
        places
    }

    /// Queues servers behind those that are known and asks for their addresses.
    pub(super) fn add_places(&mut self, now: Instant, places: Vec<Place>) {
        for place in places {
            if self.places.len() >= PLACES_MAX {
                return;
            }
            if let Host::Name(name) = &place.host
                && !self.queries.values().any(|query| query.service == Service::Address && query.name == *name)
            {
                self.ask(now, Service::Address, name.clone(), Kind::A);
                self.ask(now, Service::Address, name.clone(), Kind::Aaaa);
            }
            self.places.push_back(place);
        }
    }

    /// Turns servers into targets, in order, as far as their addresses are known.
    pub(super) fn expand(&mut self, now: Instant) {
        while let Some(place) = self.places.front() {
            let Some(addresses) = self.addresses(now, &place.host) else {
                return; // its turn has come, its addresses have not
            };
            let Some(place) = self.places.pop_front() else {
                return;
            };
            let names = self.certificate_names(&place);
            for ip in addresses {
                if self.targets.len() >= TARGETS_MAX {
                    break;
                }
                if self.is_target(&place, ip) {
                    continue;
                }
                let id = TargetId(self.next_target);
                self.next_target += 1;
                self.targets.push_back(Target {
                    id,
                    transport: place.transport,
                    address: SocketAddr::new(ip, place.port),
                    host: place.host.to_string(),
                    names: names.clone(),
                    source: place.source.clone(),
                    internal: place.internal,
                });
            }
        }
    }

    /// Whether another name has led there already: a silent server would cost its time twice.
    fn is_target(&self, place: &Place, ip: IpAddr) -> bool {
        let (address, host) = (SocketAddr::new(ip, place.port), place.host.to_string());
        let tried = self.tried.iter().map(|(target, _)| target);
        let mut known = self.targets.iter().chain(self.running.values()).chain(&self.selected).chain(tried);
        known.any(|t| t.transport == place.transport && t.address == address && t.host == host)
    }

    /// `None` while they are waited for; IPv6 and IPv4 take turns, as RFC 8305 §4 has it.
    fn addresses(&self, now: Instant, host: &Host) -> Option<Vec<IpAddr>> {
        let name = match host {
            Host::Ip(ip) => return Some(vec![*ip]),
            Host::Name(name) => name,
        };
        let queries = || self.queries.values().filter(|q| q.service == Service::Address && q.name == *name);
        let complete = queries().all(|query| query.answer.is_some());
        let first = queries().filter_map(|query| query.answer.as_ref()).filter(|(_, answer)| answer.is_found());
        let enough = first.map(|(at, _)| *at).min().is_some_and(|at| now >= at + FAMILY_PATIENCE);
        if !complete && !enough {
            return None;
        }
        let of = |kind: Kind| {
            let query = queries().find(|query| query.kind == kind);
            match query.and_then(|query| query.answer.as_ref()) {
                Some((_, Answer::Addresses(list))) => list.clone(),
                Some(_) | None => Vec::new(),
            }
        };
        let (mut six, mut four) = (of(Kind::Aaaa).into_iter(), of(Kind::A).into_iter());
        let mut turns = Vec::new();
        loop {
            let pair = [six.next(), four.next()];
            if pair == [None, None] {
                return Some(turns);
            }
            turns.extend(pair.into_iter().flatten());
        }
    }

    /// When the first of two address families has been waited for long enough.
    pub(super) fn family_deadline(&self) -> Option<Instant> {
        let Host::Name(name) = &self.places.front()?.host else {
            return None;
        };
        let queries = self.queries.values().filter(|q| q.service == Service::Address && q.name == *name);
        let answers = queries.filter_map(|query| query.answer.as_ref());
        answers.filter(|(_, answer)| answer.is_found()).map(|(at, _)| *at + FAMILY_PATIENCE).min()
    }

    fn certificate_names(&self, place: &Place) -> Vec<String> {
        let domain = self.config.domain.to_string().to_ascii_lowercase();
        let host = place.host.to_string().to_ascii_lowercase();
        let inside = host.strip_suffix(&domain).is_some_and(|front| front.ends_with('.'));
        let mut names = vec![domain];
        if (place.by_hand || inside) && !names.contains(&host) {
            names.push(host);
        }
        names
    }
}
