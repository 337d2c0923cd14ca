//! The lab's name server: one zone, authoritative, RFC 1035 over UDP and TCP, on hickory's wire types.
//!
//! Answers that do not fit the client's UDP size (512 bytes, or what EDNS says) are truncated, so that it comes again
//! by TCP. A name without any record is NXDOMAIN, a name with records of other types is NODATA (RFC 2308 §2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use hickory_proto::op::{Edns, Message, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NAPTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Input, Output, StreamId};

/// Seconds a record may be kept: short, a test changes its zone.
const TTL: u32 = 5;

/// The size of a UDP answer without EDNS (RFC 1035 §2.3.4), and the most we send with it.
const UDP_PLAIN: u16 = 512;
const UDP_MAX: u16 = 1232; // fits the least MTU of IPv6, as resolvers agreed on the DNS flag day of 2020

/// The most streams that are served at once; a stub resolver has one.
const STREAMS_MAX: usize = 256;

/// The types the zone knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Address,
    Srv,
    Naptr,
}

/// The records of the lab's domain. Names are compared without case and without the final dot.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    records: BTreeMap<String, Vec<RData>>,
}

/// A name that cannot stand in a DNS message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a domain name")]
pub struct NameError(pub String);

impl Zone {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an A or AAAA record.
    pub fn address(&mut self, name: &str, ip: IpAddr) -> &mut Self {
        let data = match ip {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        self.add(name, data)
    }

    /// Adds an SRV record, for example of `_sip._tls.example.test`. The target `.` says that there is no such service.
    ///
    /// # Errors
    ///
    /// If the target is not a domain name.
    pub fn srv(
        &mut self,
        name: &str,
        priority: u16,
        weight: u16,
        port: u16,
        target: &str,
    ) -> Result<&mut Self, NameError> {
        let target = absolute(target)?;
        Ok(self.add(name, RData::SRV(SRV::new(priority, weight, port, target))))
    }

    /// Adds a NAPTR record with flag `s`, as RFC 3263 §4.1 uses it.
    ///
    /// # Errors
    ///
    /// If the replacement is not a domain name.
    pub fn naptr(&mut self, name: &str, order: u16, service: &str, replacement: &str) -> Result<&mut Self, NameError> {
        let replacement = absolute(replacement)?;
        let (flags, services): (Box<[u8]>, Box<[u8]>) = (b"s".as_slice().into(), service.as_bytes().into());
        Ok(self.add(name, RData::NAPTR(NAPTR::new(order, 50, flags, services, Box::default(), replacement))))
    }

    /// Removes the records of one type, as a fault; the name goes with the last of them.
    pub fn remove(&mut self, name: &str, kind: Kind) -> &mut Self {
        let key = key(name);
        if let Some(list) = self.records.get_mut(&key) {
            list.retain(|data| kind_of(data) != Some(kind));
            if list.is_empty() {
                self.records.remove(&key);
            }
        }
        self
    }

    /// Every name with its records as text, in order.
    pub fn list(&self) -> Vec<(String, String)> {
        let each = |(name, list): (&String, &Vec<RData>)| {
            list.iter().map(|data| (name.clone(), format!("{} {data}", data.record_type()))).collect::<Vec<_>>()
        };
        self.records.iter().flat_map(each).collect()
    }

    fn add(&mut self, name: &str, data: RData) -> &mut Self {
        self.records.entry(key(name)).or_default().push(data);
        self
    }

    /// True for a name above an existing one (`_tls.example.test`): it exists without records (RFC 8020 §2).
    fn is_empty_non_terminal(&self, name: &str) -> bool {
        let suffix = format!(".{name}");
        self.records.keys().any(|known| known.ends_with(&suffix))
    }
}

/// Ways to be a bad name server.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// No answer at all.
    pub silent: bool,
    /// SERVFAIL for these names (lower case, no final dot).
    pub broken_names: BTreeSet<String>,
    /// No answer for these names.
    pub silent_names: BTreeSet<String>,
}

/// The name server. See the module's text.
#[derive(Debug)]
pub struct Dns {
    zone: Zone,
    faults: Faults,
    /// The unread bytes of each stream.
    streams: BTreeMap<StreamId, Vec<u8>>,
    outputs: VecDeque<Output>,
    /// Every question: name and type.
    asked: VecDeque<(String, String)>,
}

/// The most questions that are remembered.
const ASKED_MAX: usize = 1024;

impl Dns {
    pub fn new(zone: Zone) -> Self {
        let (streams, outputs, asked) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        Self { zone, faults: Faults::default(), streams, outputs, asked }
    }

    pub fn zone_mut(&mut self) -> &mut Zone {
        &mut self.zone
    }

    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    pub fn faults_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// The latest questions (name, type), the oldest first.
    pub fn asked(&self) -> impl Iterator<Item = &(String, String)> {
        self.asked.iter()
    }

    pub fn handle_input(&mut self, _now: Instant, input: Input<'_>) {
        match input {
            Input::Datagram { socket, from, bytes } => {
                if let Some(bytes) = self.answer(bytes, true) {
                    self.outputs.push_back(Output::Transmit { socket, to: from, bytes });
                }
            }
            Input::StreamOpened { stream, .. } => {
                if self.streams.len() >= STREAMS_MAX {
                    self.outputs.push_back(Output::CloseStream { stream });
                } else {
                    self.streams.insert(stream, Vec::new());
                }
            }
            Input::Stream { stream, bytes } => self.read_stream(stream, bytes),
            Input::StreamClosed { stream } => {
                self.streams.remove(&stream);
            }
            Input::SocketOpened { .. } | Input::Timeout => {}
        }
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Timeout(None))
    }

    /// Messages on streams have two bytes of length before them (RFC 1035 §4.2.2).
    fn read_stream(&mut self, stream: StreamId, bytes: &[u8]) {
        let Some(buffer) = self.streams.get_mut(&stream) else {
            return;
        };
        buffer.extend_from_slice(bytes);
        let mut questions = Vec::new();
        while let Some((length, rest)) = buffer.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(question) = rest.get(..length) else {
                break;
            };
            questions.push(question.to_vec());
            buffer.drain(..length + 2);
        }
        for question in questions {
            if let Some(answer) = self.answer(&question, false)
                && let Ok(length) = u16::try_from(answer.len())
            {
                let bytes = [length.to_be_bytes().as_slice(), &answer].concat();
                self.outputs.push_back(Output::StreamSend { stream, bytes });
            }
        }
    }

    fn answer(&mut self, bytes: &[u8], udp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(bytes).ok()?;
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&question.metadata);
        answer.metadata.authoritative = true;
        let query = question.queries.first()?.clone();
        let name = key(&query.name().to_ascii());
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((name.clone(), query.query_type().to_string()));
        if self.faults.silent || self.faults.silent_names.contains(&name) {
            return None;
        }
        answer.add_query(query.clone());
        if question.metadata.op_code != OpCode::Query {
            answer.metadata.response_code = ResponseCode::NotImp;
        } else if self.faults.broken_names.contains(&name) {
            answer.metadata.response_code = ResponseCode::ServFail;
        } else {
            self.fill(&mut answer, &name, query.name(), query.query_type());
        }
        let mut limit = UDP_PLAIN;
        if let Some(edns) = &question.edns {
            limit = edns.max_payload().clamp(UDP_PLAIN, UDP_MAX);
            let mut ours = Edns::new();
            ours.set_max_payload(UDP_MAX);
            answer.set_edns(ours);
        }
        let encoded = answer.to_vec().ok()?;
        if udp && encoded.len() > usize::from(limit) { answer.truncate().to_vec().ok() } else { Some(encoded) }
    }

    fn fill(&self, answer: &mut Message, key: &str, name: &Name, kind: RecordType) {
        let records = self.zone.records.get(key);
        let found = records.into_iter().flatten().filter(|data| data.record_type() == kind || kind == RecordType::ANY);
        let found: Vec<Record> = found.map(|data| Record::from_rdata(name.clone(), TTL, data.clone())).collect();
        if !found.is_empty() {
            // Addresses of SRV targets spare the client a question (RFC 2782 "Additional data").
            for record in &found {
                if let RData::SRV(srv) = &record.data {
                    let target = &srv.target;
                    let addresses = self.zone.records.get(&self::key(&target.to_ascii())).into_iter().flatten();
                    let addresses = addresses.filter(|data| kind_of(data) == Some(Kind::Address));
                    answer.add_additionals(addresses.map(|data| Record::from_rdata(target.clone(), TTL, data.clone())));
                }
            }
            answer.add_answers(found);
            return;
        }
        if records.is_none() && !self.zone.is_empty_non_terminal(key) {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        // Without an SOA a stub resolver could not tell how long the absence holds (RFC 2308 §3).
        let soa = SOA::new(name.clone(), name.clone(), 1, 60, 60, 60, TTL);
        answer.add_authority(Record::from_rdata(name.clone(), TTL, RData::SOA(soa)));
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn absolute(name: &str) -> Result<Name, NameError> {
    let mut parsed = Name::from_ascii(name).map_err(|_| NameError(name.to_owned()))?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

fn kind_of(data: &RData) -> Option<Kind> {
    match data.record_type() {
        RecordType::A | RecordType::AAAA => Some(Kind::Address),
        RecordType::SRV => Some(Kind::Srv),
        RecordType::NAPTR => Some(Kind::Naptr),
        _ => None,
    }
}

/// Where the proxy of the lab listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offers {
    /// `None`: no such transport, hence no names for it.
    pub udp: Option<SocketAddr>,
    pub tcp: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
    /// With `_sipinternaltls._tcp`, as a zone for inside has.
    pub inside: bool,
}

/// A zone with every name that leads to the lab's proxy, which is `host` (a name inside `domain` for TLS).
///
/// # Errors
///
/// If one of the two is not a domain name.
pub fn lab_zone(domain: &str, host: &str, offers: Offers) -> Result<Zone, NameError> {
    let mut zone = Zone::new();
    let inside = offers.tls.filter(|_| offers.inside);
    let names = [
        (inside, "_sipinternaltls._tcp", None),
        (offers.tls, "_sip._tls", None),
        (offers.tls, "_sips._tcp", Some((10, "SIPS+D2T"))),
        (offers.tcp, "_sip._tcp", Some((20, "SIP+D2T"))),
        (offers.udp, "_sip._udp", Some((30, "SIP+D2U"))),
    ];
    let mut addresses = BTreeSet::new();
    for (address, prefix, service) in names {
        let Some(address) = address else {
            continue;
        };
        let name = format!("{prefix}.{domain}");
        zone.srv(&name, 0, 0, address.port(), host)?;
        if let Some((order, service)) = service {
            zone.naptr(domain, order, service, &name)?;
        }
        addresses.insert(address.ip());
    }
    for ip in addresses {
        zone.address(host, ip);
    }
    Ok(zone)
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
