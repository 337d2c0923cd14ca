//! DNS questions on the wire: hickory's resolver, on the system's name servers or on the one that `dns` names.
//!
//! "No such name", "no such records" and "no server answered" are three different answers, because they have three
//! different remedies.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};

use super::pipe::{PipeEvent, PipeSender};

/// One try at one server. Two tries: a user waits at most about 5 s to hear that DNS is down.
const TRY_LIMIT: Duration = Duration::from_millis(1500);
const TRIES: usize = 2;
/// A question without an answer is asked a second time beside the first: one lost packet must not hold a call up for a
/// whole try. Answers of a slow server to the first one still count.
const AGAIN_AFTER: Duration = Duration::from_millis(400);

/// The record types that finding a SIP server needs (RFC 3263 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Servers of a service (RFC 2782).
    Srv,
    /// Transports of a domain (RFC 3403 §4).
    Naptr,
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An address of either family.
    Address(IpAddr),
    /// A server of a service, as RFC 2782 writes it.
    Srv {
        /// Lower is tried first.
        priority: u16,
        /// Share among equals.
        weight: u16,
        /// Port of the service.
        port: u16,
        /// Host, without the final dot.
        target: String,
    },
    /// RFC 3403 §4.1.
    Naptr {
        /// Lower is used first.
        order: u16,
        /// Lower is preferred.
        preference: u16,
        /// `s`, `a`, `u` or empty.
        flags: String,
        /// For example `SIPS+D2T`.
        service: String,
        /// Next name to ask, without the final dot.
        replacement: String,
    },
}

/// What came back: records with the seconds they may be kept, or why there are none.
pub type Answer = Result<Vec<Record>, Failure>;

/// Why there are no records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// NXDOMAIN.
    #[error("no such name")]
    NoSuchName,
    /// The name exists, records of this type do not.
    #[error("no such records")]
    NoData,
    /// No server answered; the text names the servers and the cause.
    #[error("no DNS server answered ({0})")]
    NoServer(String),
    /// A server answered that it cannot (SERVFAIL, REFUSED).
    #[error("the DNS server answered {0}")]
    Refused(String),
    /// The question cannot be asked.
    #[error("{0:?} is no host name")]
    BadName(String),
}

/// Asks questions for one account.
#[derive(Debug, Clone)]
pub struct Dns {
    inner: Arc<Inner>,
}

#[derive(Debug)]
enum Inner {
    /// Two of them, because one does not send a question that is under way.
    Ready {
        resolver: Box<TokioResolver>,
        again: Box<TokioResolver>,
        servers: String,
    },
    Unusable(String),
}

impl Dns {
    /// Asks `server`, or the system's name servers.
    pub fn new(server: Option<SocketAddr>) -> Self {
        let servers = server.map_or_else(|| "the system's name servers".to_owned(), |s| s.to_string());
        let inner = match (build(server), build(server)) {
            (Ok(resolver), Ok(again)) => Inner::Ready { resolver: Box::new(resolver), again: Box::new(again), servers },
            (Err(error), _) | (_, Err(error)) => Inner::Unusable(error.to_string()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Asks one question; the answer arrives at the loop as `id`.
    pub fn spawn(&self, id: u64, name: String, kind: Kind, sink: PipeSender) {
        let dns = self.clone();
        tokio::spawn(async move {
            let answer = dns.ask(&name, kind).await;
            sink.deliver(PipeEvent::Resolved { id, answer }).await;
        });
    }

    /// Asks one question.
    ///
    /// # Errors
    ///
    /// [`Failure`]: no name, no records, no server.
    pub async fn ask(&self, name: &str, kind: Kind) -> Answer {
        let (resolver, again, servers) = match &*self.inner {
            Inner::Ready { resolver, again, servers } => (resolver, again, servers),
            Inner::Unusable(cause) => return Err(Failure::NoServer(cause.clone())),
        };
        let mut asked = Name::from_utf8(name).map_err(|_| Failure::BadName(name.to_owned()))?;
        // A name with a dot is complete: search lists would only leak it to other domains.
        asked.set_fqdn(name.contains('.'));
        if let Some(local) = loopback(name, kind) {
            return Ok(vec![Record::Address(local)]);
        }
        let wanted = match kind {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Srv => RecordType::SRV,
            Kind::Naptr => RecordType::NAPTR,
        };
        let second = async {
            tokio::time::sleep(AGAIN_AFTER).await;
            again.lookup(asked.clone(), wanted).await
        };
        let lookup = tokio::select! {
            answer = resolver.lookup(asked.clone(), wanted) => answer,
            answer = second => answer,
        };
        let lookup = lookup.map_err(|error| failure(&error, servers))?;
        let records: Vec<Record> = lookup.answers().iter().filter_map(|record| own(&record.data, kind)).collect();
        if records.is_empty() {
            return Err(Failure::NoData);
        }
        Ok(records)
    }
}

/// `localhost` never leaves the host (RFC 6761 §6.3).
fn loopback(name: &str, kind: Kind) -> Option<IpAddr> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name != "localhost" && !name.ends_with(".localhost") {
        return None;
    }
    match kind {
        Kind::A => Some(IpAddr::from([127, 0, 0, 1])),
        Kind::Aaaa => Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])),
        Kind::Srv | Kind::Naptr => None,
    }
}

fn build(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(address) => {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = address.port();
            }
            let server = NameServerConfig::new(address.ip(), true, connections);
            let config = ResolverConfig::from_name_servers(vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = TRY_LIMIT;
    options.attempts = TRIES;
    options.edns0 = true;
    builder.build()
}

fn failure(error: &NetError, servers: &str) -> Failure {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Failure::NoSuchName,
            ResponseCode::NoError => Failure::NoData,
            other => Failure::Refused(other.to_string()),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => Failure::Refused(code.to_string()),
        NetError::Timeout => Failure::NoServer(format!("{servers}: no answer")),
        other => Failure::NoServer(format!("{servers}: {other}")),
    }
}

fn own(data: &RData, kind: Kind) -> Option<Record> {
    match (data, kind) {
        (RData::A(a), Kind::A) => Some(Record::Address(IpAddr::V4(a.0))),
        (RData::AAAA(aaaa), Kind::Aaaa) => Some(Record::Address(IpAddr::V6(aaaa.0))),
        (RData::SRV(srv), Kind::Srv) => {
            Some(Record::Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target: host(&srv.target) })
        }
        (RData::NAPTR(naptr), Kind::Naptr) => Some(Record::Naptr {
            order: naptr.order,
            preference: naptr.preference,
            flags: String::from_utf8_lossy(&naptr.flags).into_owned(),
            service: String::from_utf8_lossy(&naptr.services).into_owned(),
            replacement: host(&naptr.replacement),
        }),
        _ => None,
    }
}

/// A name as SIP writes it: no final dot. The root itself stays a dot (RFC 2782: the service is not available).
fn host(name: &Name) -> String {
    let text = name.to_utf8();
    match text.trim_end_matches('.') {
        "" => ".".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

#[cfg(test)]
mod dns_tests {
    use tokio::net::UdpSocket;

    use super::*;

    /// A server on a free port that answers every question with these bytes after the copied question.
    async fn server(flags: u16, answers: u16, records: &'static [u8]) -> SocketAddr {
        server_behind_loss(0, flags, answers, records).await
    }

    /// The same, but so many questions get lost first.
    async fn server_behind_loss(mut lost: u32, flags: u16, answers: u16, records: &'static [u8]) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0u8; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if lost > 0 {
                    lost -= 1;
                    continue;
                }
                let end = 12 + buffer[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
                let mut reply = buffer[..2].to_vec();
                reply.extend(flags.to_be_bytes());
                reply.extend([0, 1]);
                reply.extend(answers.to_be_bytes());
                reply.extend([0, 0, 0, 0]);
                reply.extend(&buffer[12..end]);
                reply.extend(records);
                let _ = socket.send_to(&reply, from).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn an_srv_record_comes_back_with_its_fields_and_no_final_dot() {
        // name pointer, SRV, IN, ttl 60, 15 bytes: priority 1, weight 2, port 5061, "edge.test".
        let record = b"\xc0\x0c\0\x21\0\x01\0\0\0\x3c\0\x11\0\x01\0\x02\x13\xc5\x04edge\x04test\0";
        let dns = Dns::new(Some(server(0x8580, 1, record).await));
        let want = Record::Srv { priority: 1, weight: 2, port: 5061, target: "edge.test".into() };
        let answer = dns.ask("_sip._tls.example.test", Kind::Srv).await;
        assert_eq!(answer, Ok(vec![want]));
    }

    #[tokio::test]
    async fn no_name_no_data_and_no_server_are_told_apart() {
        let none = Dns::new(Some(server(0x8583, 0, b"").await));
        let answer = none.ask("nobody.test", Kind::A).await;
        assert_eq!(answer, Err(Failure::NoSuchName));
        let empty = Dns::new(Some(server(0x8580, 0, b"").await));
        assert_eq!(empty.ask("here.test", Kind::A).await, Err(Failure::NoData));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let dead = Dns::new(Some(address)).ask("here.test", Kind::A).await;
        let Err(Failure::NoServer(text)) = dead else {
            panic!("{dead:?}");
        };
        assert!(text.starts_with(&address.to_string()), "{text}");
    }

    #[tokio::test]
    async fn one_lost_question_does_not_cost_a_whole_try() {
        let record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";
        let dns = Dns::new(Some(server_behind_loss(1, 0x8580, 1, record).await));
        let want = Ok(vec![Record::Address("192.0.2.7".parse().unwrap())]);
        let answer = tokio::time::timeout(AGAIN_AFTER * 3, dns.ask("turn.test", Kind::A)).await;
        assert_eq!(answer.expect("long before the first try is given up"), want);
    }

    #[tokio::test]
    async fn localhost_is_answered_without_asking_anyone() {
        let dns = Dns::new(Some("127.0.0.1:1".parse().unwrap()));
        let want = Ok(vec![Record::Address("127.0.0.1".parse().unwrap())]);
        assert_eq!(dns.ask("localhost", Kind::A).await, want);
    }
}
