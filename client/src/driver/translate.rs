//! From the driver's words to the core's.

use super::dns::{Answer as DnsAnswer, Failure, Record};
use super::pipe::StreamFailure;
use crate::core::{Answer, NaptrRecord, SrvRecord, StreamError, TlsRequest};

/// Why a stream ended, as the core knows it.
pub(super) fn stream_error(cause: StreamFailure) -> StreamError {
    match cause {
        StreamFailure::Closed => StreamError::Closed,
        StreamFailure::Refused => StreamError::Refused,
        StreamFailure::Timeout(_) => StreamError::Timeout,
        StreamFailure::Unreachable(_) => StreamError::Unreachable,
        StreamFailure::Reset => StreamError::Reset,
        StreamFailure::Certificate(text) => StreamError::Certificate(text),
        StreamFailure::Tls(text) => StreamError::Tls(text),
        StreamFailure::Io(text) => StreamError::Io(text),
        StreamFailure::Stuck => StreamError::Io("the other side stopped reading".to_owned()),
    }
}

/// What the DNS said, as the core knows it.
pub(super) fn answer(answer: DnsAnswer) -> Answer {
    let records = match answer {
        Ok(records) => records,
        Err(Failure::NoSuchName | Failure::NoData) => return Answer::Empty,
        Err(failure @ (Failure::NoServer(_) | Failure::Refused(_) | Failure::BadName(_))) => {
            return Answer::Failed(failure.to_string());
        }
    };
    let (mut addresses, mut servers, mut pointers) = (Vec::new(), Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Address(address) => addresses.push(address),
            Record::Srv { priority, weight, port, target } => {
                let target = if target == "." { String::new() } else { target };
                servers.push(SrvRecord { priority, weight, port, target });
            }
            Record::Naptr { order, preference, flags, service, replacement } => {
                let regexp = String::new(); // only the U-NAPTR and E.164 uses have one
                pointers.push(NaptrRecord { order, preference, flags, services: service, regexp, replacement });
            }
        }
    }
    if !servers.is_empty() {
        Answer::Srv(servers)
    } else if !pointers.is_empty() {
        Answer::Naptr(pointers)
    } else {
        Answer::Addresses(addresses)
    }
}

/// The names a certificate may carry, the one to send as SNI first.
pub(super) fn tls_names(request: TlsRequest) -> (String, Vec<String>) {
    (request.sni, request.names)
}
