//! SIP, SIPS, tel and other URIs, RFC 3261 §19.1, RFC 3966.
//!
//! User part, parameters and headers keep their escapes: an unescaped `%41` would have to be escaped again in the
//! same way for every comparison on the other side to hold (RFC 4475 §3.1.1.3). Comparison unescapes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::error::ParseError;
use crate::header::params::Params;
use crate::header::syntax;

/// The scheme of a URI.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    /// Anything else, lower case. A server answers 416 to it in a Request-URI (RFC 3261 §8.2.2.1).
    Other(String),
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sip => "sip",
            Self::Sips => "sips",
            Self::Tel => "tel",
            Self::Other(name) => name,
        })
    }
}

/// A host name or an address literal. IPv6 stands without brackets here and is written with them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    Name(String),
    Ip(IpAddr),
}

impl Host {
    /// The address, if this is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::Ip(ip) => Some(*ip),
        }
    }

    /// True for the host of a URI that has none (tel, other schemes).
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Name(name) if name.is_empty())
    }

    /// Same name ignoring case and a closing dot, or same address.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(left), Self::Name(right)) => {
                left.trim_end_matches('.').eq_ignore_ascii_case(right.trim_end_matches('.'))
            }
            (Self::Ip(left), Self::Ip(right)) => left == right,
            (Self::Name(_), Self::Ip(_)) | (Self::Ip(_), Self::Name(_)) => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl FromStr for Host {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Some(inner) = text.strip_prefix('[') {
            let literal = inner.strip_suffix(']').ok_or_else(|| ParseError::bad("IPv6 address without ']'"))?;
            let ip: Ipv6Addr = literal.parse().map_err(|_| ParseError::bad("host is not an IPv6 address"))?;
            return Ok(Self::Ip(IpAddr::V6(ip)));
        }
        if let Ok(ip) = text.parse::<std::net::Ipv4Addr>() {
            return Ok(Self::Ip(IpAddr::V4(ip)));
        }
        // '_' is no host name character, but it is in the names of real machines.
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if text.is_empty() || !text.chars().all(fits) || text.starts_with('.') {
            return Err(ParseError::bad("host is neither a name nor an address"));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

/// Reads `host[:port]`, as in a Via or after the `@` of a URI.
///
/// # Errors
///
/// If the host is no name or address, or the port is not within `0..=65535`.
pub fn parse_host_port(text: &str) -> Result<(Host, Option<u16>), ParseError> {
    let colon = match text.rfind(']') {
        Some(bracket) => text.get(bracket..).and_then(|rest| rest.find(':')).map(|at| at + bracket),
        None => text.find(':'),
    };
    let Some((host, port)) = colon.and_then(|at| text.split_at_checked(at)) else {
        return Ok((text.trim().parse()?, None));
    };
    let digits = port.trim_start_matches(':').trim();
    let port = Some(digits).filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
    let port = port.and_then(|d| d.parse().ok()).ok_or_else(|| ParseError::bad("port is not a number up to 65535"))?;
    Ok((host.trim().parse()?, Some(port)))
}

/// A URI. Text parts keep their escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    pub scheme: Scheme,
    /// The user of sip and sips; the number of tel; all behind the colon of other schemes.
    pub user: Option<String>,
    pub password: Option<String>,
    /// An empty name for tel and other schemes.
    pub host: Host,
    pub port: Option<u16>,
    pub params: Params,
    /// What follows `?`: name and value, with escapes.
    pub headers: Vec<(String, String)>,
}

impl Uri {
    /// `sip:user@host`, or `sip:host` for an empty user.
    pub fn sip(user: &str, host: Host) -> Self {
        let user = Some(user).filter(|user| !user.is_empty()).map(escape_user);
        let none = Params::default();
        Self { scheme: Scheme::Sip, user, password: None, host, port: None, params: none, headers: Vec::new() }
    }

    /// `sip:user@address:port`.
    pub fn sip_at(user: &str, address: SocketAddr) -> Self {
        Self { port: Some(address.port()), ..Self::sip(user, address.ip().into()) }
    }

    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// `transport` parameter in lower case.
    pub fn transport(&self) -> Option<String> {
        self.params.get("transport").map(str::to_ascii_lowercase)
    }

    /// Loose routing (RFC 3261 §19.1.1).
    pub fn is_loose_router(&self) -> bool {
        self.params.contains("lr")
    }

    /// The user with its escapes resolved; bytes that are not UTF-8 become U+FFFD. For people, not for comparing.
    pub fn user_text(&self) -> String {
        String::from_utf8_lossy(&unescape(self.user.as_deref().unwrap_or_default())).into_owned()
    }

    /// `user@host` without scheme, parameters and headers: the address of record as people write it.
    pub fn address_of_record(&self) -> String {
        match (&self.user, self.is_sip()) {
            (Some(user), true) => format!("{user}@{}", self.host),
            (None, true) => self.host.to_string(),
            (user, false) => user.clone().unwrap_or_default(),
        }
    }

    /// Comparison of RFC 3261 §19.1.4. Not transitive, hence no `PartialEq`.
    pub fn equivalent(&self, other: &Self) -> bool {
        if self.scheme != other.scheme || !self.host.same(&other.host) || self.port != other.port {
            return false;
        }
        let text = |part: &Option<String>| part.as_deref().map(unescape);
        if text(&self.user) != text(&other.user) || text(&self.password) != text(&other.password) {
            return false;
        }
        // user, ttl, method, maddr (and by erratum transport) count even when only one side has them.
        let must_match = |name: &str| ["user", "ttl", "method", "maddr", "transport"].contains(&name);
        let agree = |left: &Params, right: &Params| {
            left.iter().all(|(name, value)| match right.entry(name) {
                Some(found) => same_escaped(value.unwrap_or_default(), found.unwrap_or_default()),
                None => !must_match(&name.to_ascii_lowercase()),
            })
        };
        agree(&self.params, &other.params) && agree(&other.params, &self.params) && self.same_headers(other)
    }

    fn same_headers(&self, other: &Self) -> bool {
        let has = |list: &[(String, String)], (name, value): &(String, String)| {
            list.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && unescape(v) == unescape(value))
        };
        self.headers.len() == other.headers.len() && self.headers.iter().all(|header| has(&other.headers, header))
    }

    fn parse_sip(scheme: Scheme, rest: &str) -> Result<Self, ParseError> {
        let (userinfo, rest) = match rest.split_once('@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, rest),
        };
        let (user, password) = match userinfo.map(|info| info.split_once(':').unwrap_or((info, ""))) {
            Some(("", _)) => return Err(ParseError::bad("URI with '@' but without a user")),
            Some((user, password)) => (Some(user.to_owned()), Some(password).filter(|p| !p.is_empty())),
            None => (None, None),
        };
        if !user.iter().all(|user| well_escaped(user)) {
            return Err(ParseError::bad("broken escape in the user of a URI"));
        }
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, parse_headers(headers)?),
            None => (rest, Vec::new()),
        };
        let (host_port, params) = match rest.split_once(';') {
            Some((host_port, params)) => (host_port, Params::parse(params)?),
            None => (rest, Params::default()),
        };
        let (host, port) = parse_host_port(host_port)?;
        Ok(Self { scheme, user, password: password.map(str::to_owned), host, port, params, headers })
    }
}

impl FromStr for Uri {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        // Blanks would let a URI end early in a start line or a header field (RFC 4475 §3.1.2.8, §3.1.2.15).
        if text.chars().any(|c| c.is_ascii_control() || matches!(c, ' ' | '<' | '>' | '"')) {
            return Err(ParseError::bad("URI with a blank, a quote or an angle bracket in it"));
        }
        let (scheme, rest) = text.split_once(':').ok_or_else(|| ParseError::bad("URI without a scheme"))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(fits) || rest.is_empty() {
            return Err(ParseError::bad("URI without a scheme"));
        }
        let (scheme, split_params) = match scheme.to_ascii_lowercase().as_str() {
            "sip" => return Self::parse_sip(Scheme::Sip, rest),
            "sips" => return Self::parse_sip(Scheme::Sips, rest),
            "tel" => (Scheme::Tel, true),
            other => (Scheme::Other(other.to_owned()), false),
        };
        let (user, params) = match rest.split_once(';').filter(|_| split_params) {
            Some((number, params)) => (number, Params::parse(params)?),
            None => (rest, Params::default()),
        };
        let host = Host::Name(String::new());
        Ok(Self { scheme, user: Some(user.to_owned()), password: None, host, port: None, params, headers: Vec::new() })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        if let Some(user) = &self.user {
            f.write_str(user)?;
            if let Some(password) = &self.password {
                write!(f, ":{password}")?;
            }
            if self.is_sip() {
                f.write_str("@")?;
            }
        }
        write!(f, "{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)?;
        for (position, (name, value)) in self.headers.iter().enumerate() {
            write!(f, "{}{name}={value}", if position == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

fn parse_headers(text: &str) -> Result<Vec<(String, String)>, ParseError> {
    let pairs = text.split('&').map(|pair| pair.split_once('=').filter(|(name, _)| !name.is_empty()));
    let owned = pairs.map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())));
    owned.collect::<Option<Vec<_>>>().ok_or_else(|| ParseError::bad("URI header without '='"))
}

fn well_escaped(text: &str) -> bool {
    let hex = |part: Option<&str>| part.is_some_and(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
    text.split('%').skip(1).all(|after| hex(after.get(..2)))
}

fn same_escaped(left: &str, right: &str) -> bool {
    unescape(left).eq_ignore_ascii_case(&unescape(right))
}

/// Resolves `%41`. A `%` that no two hex digits follow stands for itself.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().filter(|_| *first == b'%');
        let value = digits.and_then(|two| std::str::from_utf8(two).ok()).and_then(|two| {
            let plain = two.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u8::from_str_radix(two, 16).ok()).flatten()
        });
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    bytes
}

/// Escapes what may not stand in the user of a SIP URI (RFC 3261 §25.1 `user`).
pub fn escape_user(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// True if the text may stand as a parameter name or value without quotes.
pub(crate) fn is_plain_parameter(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| syntax::is_token_char(c) || "[]/:&$()#@?\\".contains(c) || !c.is_ascii())
}
