//! Candidates and the text of their SDP line.
//!
//! RFC 8445 §5.1 says what a candidate is, RFC 8839 §5.1 how its line is written, RFC 6544 §4.5 adds TCP. Lync writes
//! `TCP-PASS`/`TCP-ACT` as the transport, always port numbers, and a trailing space; both forms are read, keyed on the
//! third token and on the `tcptype` extension.
//!
//! ```text
//! foundation component transport priority address port "typ" type ["raddr" address "rport" port] *(name value)
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Longest candidate line that is read, in bytes: an honest one stays below 250.
const LINE_MAX: usize = 1024;

/// Component of an RTP stream, RFC 8445 §5.1.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Component 1; carries RTCP too once `rtcp-mux` is agreed (RFC 5761 §5.1.3).
    Rtp,
    /// Component 2.
    Rtcp,
}

impl Component {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Rtp, Self::Rtcp];

    /// The number in candidate lines: 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Self::Rtp => 1,
            Self::Rtcp => 2,
        }
    }

    /// The component with this number; audio has no others.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Rtp),
            2 => Some(Self::Rtcp),
            _ => None,
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// Candidate types, RFC 8445 §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateType {
    Host,
    ServerReflexive,
    PeerReflexive,
    Relayed,
}

impl CandidateType {
    /// The token after `typ`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relayed => "relay",
        }
    }
}

impl fmt::Display for CandidateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

/// Who connects, RFC 6544 §4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TcpType {
    Active,
    Passive,
    SimultaneousOpen,
}

/// Transport between the candidate's address and the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateTransport {
    Udp,
    Tcp(TcpType),
}

/// One candidate as the other side sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// 1 to 32 characters of `[A-Za-z0-9+/]`; equal foundations share their fate (RFC 8445 §5.1.1.3).
    pub foundation: String,
    pub component: Component,
    pub transport: CandidateTransport,
    /// `1..=2^31 - 1`, larger is preferred (RFC 8445 §5.1.2).
    pub priority: u32,
    pub addr: SocketAddr,
    pub kind: CandidateType,
    /// `raddr` and `rport`: mandatory unless host; `0.0.0.0` port 9 hides it (RFC 8839 §5.1).
    pub related: Option<SocketAddr>,
}

impl Candidate {
    /// The address that says "there is one, and you are not told" (RFC 8839 §5.1), in the family of `like`.
    pub fn hidden_related(like: SocketAddr) -> SocketAddr {
        match like {
            SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9),
            SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 9),
        }
    }

    /// The value of `a=candidate` as Lync writes it: `TCP-PASS`/`TCP-ACT`, and a trailing space.
    pub fn to_microsoft_line(&self) -> String {
        let transport = match self.transport {
            CandidateTransport::Udp => "UDP",
            CandidateTransport::Tcp(TcpType::Active | TcpType::SimultaneousOpen) => "TCP-ACT",
            CandidateTransport::Tcp(TcpType::Passive) => "TCP-PASS",
        };
        format!("{} ", Line { candidate: self, transport, tcptype: None })
    }
}

impl fmt::Display for Candidate {
    /// The value of `a=candidate` (without the attribute's name), RFC 8839 §5.1 and RFC 6544 §4.5.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, tcptype) = match self.transport {
            CandidateTransport::Udp => ("UDP", None),
            CandidateTransport::Tcp(TcpType::Active) => ("TCP", Some("active")),
            CandidateTransport::Tcp(TcpType::Passive) => ("TCP", Some("passive")),
            CandidateTransport::Tcp(TcpType::SimultaneousOpen) => ("TCP", Some("so")),
        };
        Line { candidate: self, transport, tcptype }.fmt(f)
    }
}

struct Line<'a> {
    candidate: &'a Candidate,
    transport: &'a str,
    tcptype: Option<&'a str>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.candidate;
        let (ip, port) = (c.addr.ip(), c.addr.port());
        write!(f, "{} {} {} {} {ip} {port} typ {}", c.foundation, c.component, self.transport, c.priority, c.kind)?;
        if let Some(related) = c.related {
            write!(f, " raddr {} rport {}", related.ip(), related.port())?;
        }
        if let Some(tcptype) = self.tcptype {
            write!(f, " tcptype {tcptype}")?;
        }
        Ok(())
    }
}

/// Why a candidate line was not used. The rest of the description is: unknown kinds of candidates must be ignored
/// (RFC 8839 §5.1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CandidateError {
    #[error("candidate line of {0} bytes is too long")]
    TooLong(usize),
    #[error("candidate line ends before its {0}")]
    Missing(&'static str),
    #[error("candidate {what} {value:?} is not valid")]
    Invalid { what: &'static str, value: String },
    #[error("candidate transport {0:?} is not known")]
    UnknownTransport(String),
    #[error("candidate type {0:?} is not known")]
    UnknownType(String),
    #[error("candidate address {0:?} is a name: names are ignored (RFC 8839 §5.1)")]
    Name(String),
}

impl FromStr for Candidate {
    type Err = CandidateError;

    /// Reads the value of `a=candidate`; a leading `a=` and `candidate:` are tolerated.
    ///
    /// # Errors
    ///
    /// [`CandidateError`] names the field; the caller ignores the line and goes on.
    fn from_str(line: &str) -> Result<Self, CandidateError> {
        if line.len() > LINE_MAX {
            return Err(CandidateError::TooLong(line.len()));
        }
        let line = line.trim();
        let name = ["a=candidate:", "candidate:"].into_iter().find(|name| line.starts_with(name));
        let line = name.and_then(|name| line.strip_prefix(name)).unwrap_or(line);
        let mut fields = line.split_ascii_whitespace();
        let mut next = |what| fields.next().ok_or(CandidateError::Missing(what));

        let foundation = parse_foundation(next("foundation")?)?;
        let component = next("component")?;
        let transport = next("transport")?;
        let priority = parse_priority(next("priority")?)?;
        let address = next("address")?;
        let port = next("port")?;
        let typ = next("typ")?;
        if !typ.eq_ignore_ascii_case("typ") {
            return Err(invalid("keyword", typ));
        }
        let kind = parse_type(next("type")?)?;
        let component =
            component.parse().ok().and_then(Component::from_number).ok_or_else(|| invalid("component", component))?;
        let addr = parse_address(address, port)?;
        let extensions = Extensions::read(fields);
        let transport = parse_transport(transport, extensions.tcptype)?;
        let related = extensions.related();
        Ok(Self { foundation, component, transport, priority, addr, kind, related })
    }
}

/// The name-value pairs after the type; unknown ones are ignored (RFC 8839 §5.1).
#[derive(Default)]
struct Extensions<'a> {
    raddr: Option<&'a str>,
    rport: Option<&'a str>,
    tcptype: Option<&'a str>,
}

impl<'a> Extensions<'a> {
    fn read(mut fields: impl Iterator<Item = &'a str>) -> Self {
        let mut extensions = Self::default();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match name.to_ascii_lowercase().as_str() {
                "raddr" => extensions.raddr = Some(value),
                "rport" => extensions.rport = Some(value),
                "tcptype" => extensions.tcptype = Some(value),
                _ => {}
            }
        }
        extensions
    }

    /// Only for diagnosis, so one that cannot be read is as good as none.
    fn related(&self) -> Option<SocketAddr> {
        let ip = self.raddr?.parse().ok()?;
        let port = self.rport?.parse().ok()?;
        Some(SocketAddr::new(ip, port))
    }
}

fn invalid(what: &'static str, value: &str) -> CandidateError {
    CandidateError::Invalid { what, value: value.to_owned() }
}

fn parse_foundation(field: &str) -> Result<String, CandidateError> {
    // Lync and some SBCs go beyond the alphabet or the length; equality is all we need of it. A colon would be taken for the
    // end of the attribute's name the next time, and a control character for a space.
    let is_plain = field.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if field.is_empty() || field.len() > 64 || !is_plain {
        return Err(invalid("foundation", field));
    }
    Ok(field.to_owned())
}

fn parse_priority(field: &str) -> Result<u32, CandidateError> {
    // Ten digits can exceed the range, and then the pair priority of RFC 8445 §6.1.2.3 would overflow its 64 bits.
    let priority = field.parse().ok().filter(|p| (1..=0x7fff_ffff_u32).contains(p));
    priority.ok_or_else(|| invalid("priority", field))
}

fn parse_address(address: &str, port: &str) -> Result<SocketAddr, CandidateError> {
    let Ok(ip) = address.parse::<IpAddr>() else {
        return Err(CandidateError::Name(address.to_owned()));
    };
    let port = port.parse().map_err(|_| invalid("port", port))?;
    Ok(SocketAddr::new(ip, port))
}

fn parse_type(field: &str) -> Result<CandidateType, CandidateError> {
    match field.to_ascii_lowercase().as_str() {
        "host" => Ok(CandidateType::Host),
        "srflx" => Ok(CandidateType::ServerReflexive),
        "prflx" => Ok(CandidateType::PeerReflexive),
        "relay" => Ok(CandidateType::Relayed),
        _ => Err(CandidateError::UnknownType(field.to_owned())),
    }
}

fn parse_transport(field: &str, tcptype: Option<&str>) -> Result<CandidateTransport, CandidateError> {
    let lower = field.to_ascii_lowercase();
    match (lower.as_str(), tcptype.map(str::to_ascii_lowercase).as_deref()) {
        ("udp", _) => Ok(CandidateTransport::Udp),
        ("tcp", Some("active")) | ("tcp-act", _) => Ok(CandidateTransport::Tcp(TcpType::Active)),
        ("tcp", Some("passive")) | ("tcp-pass", _) => Ok(CandidateTransport::Tcp(TcpType::Passive)),
        ("tcp", Some("so")) => Ok(CandidateTransport::Tcp(TcpType::SimultaneousOpen)),
        _ => Err(CandidateError::UnknownTransport(field.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_rfc_8839_and_rfc_6544_are_read_and_written_unchanged() {
        let lines = [
            "1 1 UDP 2130706431 10.0.0.5 50016 typ host",
            "2 2 UDP 1694498814 203.0.113.7 50003 typ srflx raddr 10.0.0.5 rport 50017",
            "3 1 UDP 16777215 203.0.113.10 49800 typ relay raddr 203.0.113.7 rport 50002",
            "4 1 TCP 1054867455 10.0.0.5 9 typ host tcptype active",
            "5 1 TCP 1050673151 10.0.0.5 50030 typ host tcptype passive",
            "6 1 UDP 2130706431 2001:db8::1 50016 typ host",
        ];
        for line in lines {
            let candidate: Candidate = line.parse().unwrap();
            assert_eq!(candidate.to_string(), line);
        }
    }

    #[test]
    fn the_lines_of_lync_are_read_and_written_unchanged() {
        let lines = [
            "1 1 UDP 2130706431 10.0.0.5 50016 typ host ",
            "2 1 TCP-PASS 174456319 198.51.100.21 52210 typ relay raddr 203.0.113.7 rport 50019 ",
            "6 2 TCP-ACT 1684796414 203.0.113.7 50019 typ srflx raddr 10.0.0.5 rport 50019 ",
        ];
        for line in lines {
            let candidate: Candidate = line.parse().unwrap();
            assert_eq!(candidate.to_microsoft_line(), line);
        }
    }

    #[test]
    fn a_line_that_cannot_be_used_names_its_field() {
        let cases = [
            ("a name", "1 1 UDP 1 host.local 9 typ host", "is a name"),
            ("component 3", "1 3 UDP 1 10.0.0.1 9 typ host", "component \"3\""),
            ("priority 0", "1 1 UDP 0 10.0.0.1 9 typ host", "priority"),
            ("priority 2^31", "1 1 UDP 2147483648 10.0.0.1 9 typ host", "priority"),
            ("port 65536", "1 1 UDP 1 10.0.0.1 65536 typ host", "port"),
            ("transport", "1 1 SCTP 1 10.0.0.1 9 typ host", "transport \"SCTP\""),
            ("type", "1 1 UDP 1 10.0.0.1 9 typ guess", "type \"guess\""),
            ("short", "1 1 UDP 1 10.0.0.1", "its port"),
            ("tcp without tcptype", "1 1 TCP 1 10.0.0.1 9 typ host", "transport \"TCP\""),
        ];
        for (name, line, want) in cases {
            let error = line.parse::<Candidate>().unwrap_err().to_string();
            assert!(error.contains(want), "case {name}: {error}");
        }
    }

    #[test]
    fn unknown_extensions_and_the_attribute_name_are_tolerated() {
        let line = "a=candidate:1 1 udp 1 10.0.0.1 9 typ srflx raddr 10.0.0.2 rport 3 generation 0 network-cost 50";
        let candidate: Candidate = line.parse().unwrap();
        assert_eq!(candidate.related, Some("10.0.0.2:3".parse().unwrap()));
        assert_eq!(candidate.transport, CandidateTransport::Udp);
    }
}
