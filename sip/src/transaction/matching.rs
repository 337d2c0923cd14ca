//! Which transaction owns a message, RFC 3261 §17.1.3 and §17.2.3.

use crate::message::{Headers, Method, Request, Response};

/// Answers carry the branch of our top Via and the method in CSeq (RFC 3261 §17.1.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey {
    branch: String,
    method: String,
}

impl ClientKey {
    pub fn of_request(request: &Request) -> Self {
        Self { branch: branch(&request.headers).unwrap_or_default(), method: request.method.to_string() }
    }

    pub fn of_response(response: &Response) -> Option<Self> {
        Some(Self { branch: branch(&response.headers)?, method: cseq_method(&response.headers)? })
    }
}

/// Requests match by branch, sent-by and method, where ACK counts as INVITE (RFC 3261 §17.2.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerKey {
    Branch {
        branch: String,
        sent_by: String,
        method: String,
    },
    /// Peers from before RFC 3261 §17.2.3 make no unique branch: what then identifies a transaction.
    Old {
        uri: String,
        from_tag: String,
        call_id: String,
        cseq: u32,
        method: String,
        via: String,
    },
}

impl ServerKey {
    pub fn of_request(request: &Request) -> Self {
        Self::make(request, if request.method == Method::Ack { &Method::Invite } else { &request.method })
    }

    /// The key of the INVITE that this CANCEL is about (RFC 3261 §9.2).
    pub fn of_cancelled(cancel: &Request) -> Self {
        Self::make(cancel, &Method::Invite)
    }

    fn make(request: &Request, method: &Method) -> Self {
        let method = method.to_string();
        let headers = &request.headers;
        if let Some(branch) = branch(headers)
            && branch.starts_with("z9hG4bK")
        {
            return Self::Branch { branch, sent_by: sent_by(headers), method };
        }
        Self::Old {
            uri: request.uri.to_string(),
            from_tag: tag(headers, "From").unwrap_or_default(),
            call_id: headers.get("Call-ID").unwrap_or_default().to_owned(),
            cseq: cseq_number(headers).unwrap_or_default(),
            method,
            via: headers.get("Via").unwrap_or_default().to_owned(),
        }
    }
}

/// What makes two requests one that came by two ways (RFC 3261 §8.2.2.2): only for requests without a To tag.
pub(super) fn identity(request: &Request) -> Option<(String, String, u32, String)> {
    let headers = &request.headers;
    if tag(headers, "To").is_some() {
        return None;
    }
    let call_id = headers.get("Call-ID")?.to_owned();
    Some((call_id, tag(headers, "From")?, cseq_number(headers)?, request.method.to_string()))
}

/// The number of CSeq.
pub fn cseq_number(headers: &Headers) -> Option<u32> {
    headers.cseq().ok().map(|cseq| cseq.number)
}

fn cseq_method(headers: &Headers) -> Option<String> {
    headers.cseq().ok().map(|cseq| cseq.method.to_string())
}

fn branch(headers: &Headers) -> Option<String> {
    headers.via_top().ok()?.branch().map(ToOwned::to_owned)
}

fn sent_by(headers: &Headers) -> String {
    headers
        .via_top()
        .map(|via| {
            let (host, port) = via.sent_by();
            format!("{host}:{port}")
        })
        .unwrap_or_default()
}

fn tag(headers: &Headers, name: &str) -> Option<String> {
    let value = if name == "To" { headers.to() } else { headers.from() };
    value.ok()?.tag().map(ToOwned::to_owned)
}
