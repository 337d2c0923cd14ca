//! Via, RFC 3261 §20.42, with `received` and `rport` (RFC 3581).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::params::Params;
use super::syntax;
use crate::error::ParseError;
use crate::uri::{Host, parse_host_port};

/// What every branch made by RFC 3261 rules begins with (§8.1.1.7).
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// One hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// `UDP`, `TCP`, `TLS` …, as received.
    pub transport: String,
    pub host: Host,
    pub port: Option<u16>,
    pub params: Params,
}

impl Via {
    /// `SIP/2.0/transport host:port;branch=…`; `rport` is asked for, as a client behind a NAT must (RFC 3581 §3).
    pub fn new(transport: &str, sent_by: SocketAddr, branch: &str) -> Self {
        let mut params = Params::default();
        params.set("branch", branch);
        params.set_flag("rport");
        Self { transport: transport.to_owned(), host: sent_by.ip().into(), port: Some(sent_by.port()), params }
    }

    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch")
    }

    pub fn received(&self) -> Option<IpAddr> {
        let text = self.params.get("received")?;
        text.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// The port the server saw, if it told.
    pub fn rport(&self) -> Option<u16> {
        self.params.get("rport")?.parse().ok()
    }

    /// `sent-by`: host and port, the port 5060 or 5061 if none is given (RFC 3261 §18.2.2).
    pub fn sent_by(&self) -> (Host, u16) {
        let default = if self.transport.eq_ignore_ascii_case("TLS") { 5061 } else { 5060 };
        (self.host.clone(), self.port.unwrap_or(default))
    }

    /// What a server adds on reception: `received` if the address differs from sent-by or `rport` was asked for,
    /// and then the port (RFC 3261 §18.2.1, RFC 3581 §4).
    pub fn set_source(&mut self, source: SocketAddr) {
        let asked = self.params.contains("rport");
        if asked {
            self.params.set("rport", source.port().to_string());
        }
        if asked || self.host.ip() != Some(source.ip()) {
            self.params.set("received", source.ip().to_string());
        }
    }
}

impl FromStr for Via {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::bad("Via does not begin with SIP/2.0/transport and a host");
        let mut parts = text.splitn(3, '/');
        let (name, version) = (parts.next().unwrap_or_default().trim(), parts.next().unwrap_or_default().trim());
        let rest = parts.next().ok_or_else(bad)?.trim_start();
        if !name.eq_ignore_ascii_case("SIP") || version != "2.0" {
            return Err(bad());
        }
        let (transport, rest) = rest.split_once([' ', '\t']).ok_or_else(bad)?;
        if !syntax::is_token(transport) {
            return Err(bad());
        }
        let (sent_by, params) = match rest.split_once(';') {
            Some((sent_by, params)) => (sent_by, Params::parse(params)?),
            None => (rest, Params::default()),
        };
        let (host, port) = parse_host_port(sent_by.trim())?;
        Ok(Self { transport: transport.to_owned(), host, port, params })
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)
    }
}
