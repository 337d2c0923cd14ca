//! Attributes with a structure: `rtpmap`, `fmtp`, direction, `rtcp`, `fingerprint`.
//!
//! The values of `a=candidate` and `a=crypto` are text here: `ice` and `media` read them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// `a=sendrecv` and its kin, RFC 8866 §6.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub const ALL: [Self; 4] = [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive];

    /// The attribute's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// True if the writer of the attribute sends media.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// True if the writer of the attribute wants to get media.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// From its two halves.
    pub fn from_halves(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// The same stream as the other side sees it.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self::from_halves(self.receives(), self.sends())
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `a=rtpmap:96 opus/48000/2`, RFC 8866 §6.6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpMap {
    pub payload_type: u8,
    /// As received; compare without case.
    pub encoding: String,
    pub clock_rate: u32,
    pub channels: u8,
}

impl RtpMap {
    /// Same codec: name without case, clock and channels.
    pub fn same_codec(&self, other: &Self) -> bool {
        self.encoding.eq_ignore_ascii_case(&other.encoding)
            && self.clock_rate == other.clock_rate
            && self.channels == other.channels
    }

    /// The static payload types of RFC 3551 §6 that need no `rtpmap`, as far as this phone meets them.
    pub fn well_known(payload_type: u8) -> Option<Self> {
        let (encoding, clock_rate) = match payload_type {
            0 => ("PCMU", 8000),
            3 => ("GSM", 8000),
            4 => ("G723", 8000),
            8 => ("PCMA", 8000),
            9 => ("G722", 8000),
            13 => ("CN", 8000),
            18 => ("G729", 8000),
            _ => return None,
        };
        Some(Self { payload_type, encoding: encoding.to_owned(), clock_rate, channels: 1 })
    }
}

impl FromStr for RtpMap {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (payload_type, codec) = text.trim().split_once(' ').ok_or(())?;
        let mut parts = codec.trim().split('/');
        let encoding = parts.next().filter(|name| !name.is_empty()).ok_or(())?.to_owned();
        let clock_rate = parts.next().and_then(|rate| rate.parse().ok()).filter(|rate| *rate > 0).ok_or(())?;
        let channels = parts.next().map_or(Ok(1), str::parse).map_err(|_| ())?;
        let payload_type = payload_type.parse().ok().filter(|pt| *pt < 128).ok_or(())?;
        Ok(Self { payload_type, encoding, clock_rate, channels })
    }
}

impl fmt::Display for RtpMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.payload_type, self.encoding, self.clock_rate)?;
        if self.channels > 1 { write!(f, "/{}", self.channels) } else { Ok(()) }
    }
}

/// `a=fmtp:96 name=value;name=value`, RFC 8866 §6.15; separators `;` and `; ` are both in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatParameters {
    pub payload_type: u8,
    /// Everything behind the payload type.
    pub text: String,
}

impl FormatParameters {
    /// The value of one parameter; empty if it stands without `=`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let pairs = self.text.split(';').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut found = pairs.filter(|(known, _)| known.trim().eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }
}

impl FromStr for FormatParameters {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (payload_type, rest) = text.trim().split_once(' ').ok_or(())?;
        let payload_type = payload_type.parse().map_err(|_| ())?;
        Ok(Self { payload_type, text: rest.trim().to_owned() })
    }
}

/// `a=rtcp:50188` or `a=rtcp:50188 IN IP4 198.51.100.20`, RFC 3605 §2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtcpAddress {
    pub port: u16,
    /// `None`: as in `c=`. A host name, which nobody sends, counts as none.
    pub ip: Option<IpAddr>,
}

impl FromStr for RtcpAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split_whitespace();
        let port = words.next().and_then(|port| port.parse().ok()).ok_or(())?;
        Ok(Self { port, ip: words.nth(2).and_then(|ip| ip.parse().ok()) })
    }
}

/// `a=fingerprint:sha-256 AA:BB…`, RFC 8122 §5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Lower case.
    pub hash: String,
    pub bytes: Vec<u8>,
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (hash, digits) = text.trim().split_once(' ').ok_or(())?;
        let bytes = digits.trim().split(':').map(|two| u8::from_str_radix(two, 16)).collect::<Result<_, _>>();
        Ok(Self { hash: hash.to_ascii_lowercase(), bytes: bytes.map_err(|_| ())? })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: Vec<String> = self.bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        write!(f, "{} {}", self.hash, digits.join(":"))
    }
}
