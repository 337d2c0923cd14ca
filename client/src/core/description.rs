//! A session description as call control sees it: one audio stream, everything else refused but kept in its place.
//!
//! RFC 8866 (syntax), RFC 8839 §5 (ICE), RFC 4568 §4 (keys), RFC 5761 §5.1.1 and RFC 3605 (RTCP), RFC 3264 §6 (order of streams).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ice::{Candidate, Component, Secret};

use super::negotiate::NegotiateError;

/// Streams beside the audio that are remembered; an honest offer has two or three.
const STREAMS_MAX: usize = 16;
/// Candidate lines read from one description; more would make more pairs than are ever checked.
const CANDIDATES_MAX: usize = 64;
/// Payload formats read from one description.
const FORMATS_MAX: usize = 64;

/// Profile of the audio stream: which packets flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Profile {
    Avp,
    Savp,
    /// With feedback (RFC 4585 §4), read and repeated; feedback is not sent.
    Avpf,
    Savpf,
    Other(String),
}

impl Profile {
    fn parse(text: &str) -> Self {
        match text {
            "RTP/AVP" => Self::Avp,
            "RTP/SAVP" => Self::Savp,
            "RTP/AVPF" => Self::Avpf,
            "RTP/SAVPF" => Self::Savpf,
            other => Self::Other(other.to_owned()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Avp => "RTP/AVP",
            Self::Savp => "RTP/SAVP",
            Self::Avpf => "RTP/AVPF",
            Self::Savpf => "RTP/SAVPF",
            Self::Other(other) => other,
        }
    }
}

/// Who sends (RFC 3264 §5.1), from the writer's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// From what each side is willing to do.
    pub(crate) fn of(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same stream seen from the other side.
    #[must_use]
    pub(crate) fn reversed(self) -> Self {
        Self::of(self.receives(), self.sends())
    }

    /// What is left if only what both allow happens.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self::of(self.sends() && other.sends(), self.receives() && other.receives())
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| direction.as_str() == text)
    }
}

/// One payload format with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rtpmap {
    pub(crate) payload_type: u8,
    pub(crate) encoding: String,
    pub(crate) clock_hz: u32,
    pub(crate) channels: u8,
    pub(crate) fmtp: Option<String>,
}

/// The ICE attributes of the audio stream (RFC 8839 §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IceAttributes {
    pub(crate) ufrag: String,
    pub(crate) pwd: Secret,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) options: Vec<String>,
    pub(crate) pacing: Option<Duration>,
    pub(crate) lite: bool,
    pub(crate) mismatch: bool,
    pub(crate) remote_candidates: Vec<(Component, SocketAddr)>,
}

/// A stream that is not ours: its `m=` line without the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtherStream {
    media: String,
    profile: String,
    formats: String,
}

/// One description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    /// Of the `m=` line; 0 refuses the stream.
    pub(crate) port: u16,
    /// Default destination; `None` if `c=` holds a name.
    pub(crate) rtp: Option<SocketAddr>,
    /// `a=rtcp`, else the port above.
    pub(crate) rtcp: Option<SocketAddr>,
    pub(crate) mux: bool,
    pub(crate) profile: Profile,
    pub(crate) direction: Direction,
    pub(crate) rtpmaps: Vec<Rtpmap>,
    /// Texts behind `a=crypto:`.
    pub(crate) crypto: Vec<String>,
    pub(crate) ice: Option<IceAttributes>,
    /// Other streams before and after the audio.
    pub(crate) refused_before: Vec<OtherStream>,
    pub(crate) refused_after: Vec<OtherStream>,
}

/// The constant part of our `o=` line and the counter in it (RFC 3264 §8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    id: u64,
    version: u64,
    last: String,
}

impl Origin {
    /// `id` is a random number.
    pub(crate) fn new(id: u64) -> Self {
        Self { id, version: 0, last: String::new() }
    }

    /// The description as text. The version goes up by one whenever the text differs from the last one.
    pub(crate) fn write(&mut self, description: &Description) -> String {
        let body = description.body();
        if body != self.last {
            self.version += 1;
            self.last.clone_from(&body);
        }
        let address = description.rtp.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
        format!("v=0\r\no=- {} {} IN {}\r\n{body}", self.id, self.version, typed(address))
    }
}

/// `IP4 192.0.2.1`.
fn typed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("IP4 {address}"),
        IpAddr::V6(address) => format!("IP6 {address}"),
    }
}

impl Description {
    /// Everything behind the `o=` line.
    fn body(&self) -> String {
        let mut text = String::from("s=-\r\n");
        let address = self.rtp.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
        // Writing into a String does not fail.
        let _ = write!(text, "c=IN {}\r\nt=0 0\r\n", typed(address));
        if let Some(ice) = &self.ice {
            let _ = write!(text, "a=ice-options:{}\r\n", ice.options.join(" "));
            if let Some(pacing) = ice.pacing {
                let _ = write!(text, "a=ice-pacing:{}\r\n", pacing.as_millis());
            }
        }
        for stream in &self.refused_before {
            stream.write(&mut text);
        }
        self.write_audio(&mut text);
        for stream in &self.refused_after {
            stream.write(&mut text);
        }
        text
    }

    fn write_audio(&self, text: &mut String) {
        let numbers: Vec<_> = self.rtpmaps.iter().map(|map| map.payload_type.to_string()).collect();
        let _ = write!(text, "m=audio {} {} {}\r\n", self.port, self.profile.as_str(), numbers.join(" "));
        if self.mux {
            text.push_str("a=rtcp-mux\r\n");
        }
        if let Some(rtcp) = self.rtcp {
            let _ = write!(text, "a=rtcp:{} IN {}\r\n", rtcp.port(), typed(rtcp.ip()));
        }
        for line in &self.crypto {
            let _ = write!(text, "a=crypto:{line}\r\n");
        }
        for map in &self.rtpmaps {
            let channels = if map.channels > 1 { format!("/{}", map.channels) } else { String::new() };
            let _ = write!(text, "a=rtpmap:{} {}/{}{channels}\r\n", map.payload_type, map.encoding, map.clock_hz);
            if let Some(fmtp) = &map.fmtp {
                let _ = write!(text, "a=fmtp:{} {fmtp}\r\n", map.payload_type);
            }
        }
        let _ = write!(text, "a=ptime:20\r\na={}\r\n", self.direction.as_str());
        if let Some(ice) = &self.ice {
            ice.write(text);
        }
    }

    /// Reads a description. Of several audio streams the first that is not refused counts.
    ///
    /// # Errors
    ///
    /// [`NegotiateError::Syntax`] or [`NegotiateError::NoAudio`].
    pub(crate) fn read(text: &str) -> Result<Self, NegotiateError> {
        let lines: Vec<Line<'_>> =
            text.lines().map(str::trim_end).filter(|line| !line.is_empty()).filter_map(Line::of).collect();
        if lines.first().is_none_or(|line| line.kind != 'v') {
            return Err(NegotiateError::Syntax("it does not begin with v=0".to_owned()));
        }
        let mut sections: Vec<&[Line<'_>]> = Vec::new();
        let mut rest = lines.as_slice();
        while let Some(at) = rest.iter().skip(1).position(|line| line.kind == 'm') {
            let (section, tail) = rest.split_at(at + 1);
            sections.push(section);
            rest = tail;
        }
        sections.push(rest);
        let (session, streams) = sections.split_first().ok_or(NegotiateError::NoAudio)?;
        let streams = streams.get(..streams.len().min(STREAMS_MAX)).unwrap_or(streams);
        let is_audio = |section: &&[Line<'_>]| section.first().is_some_and(|line| line.value.starts_with("audio "));
        let is_open = |section: &&[Line<'_>]| is_audio(section) && stream_port(section) != Some(0);
        let at = streams.iter().position(is_open).or(streams.iter().position(is_audio));
        let at = at.ok_or(NegotiateError::NoAudio)?;
        let (before, audio_and_after) = streams.split_at(at);
        let (audio, after) = audio_and_after.split_first().ok_or(NegotiateError::NoAudio)?;
        let mut description = Self::read_audio(session, audio)?;
        description.refused_before = before.iter().filter_map(|stream| OtherStream::read(stream)).collect();
        description.refused_after = after.iter().filter_map(|stream| OtherStream::read(stream)).collect();
        Ok(description)
    }

    fn read_audio(session: &[Line<'_>], audio: &[Line<'_>]) -> Result<Self, NegotiateError> {
        let media = audio.first().map(|line| line.value).unwrap_or_default();
        let mut fields = media.split_ascii_whitespace().skip(1);
        let port = fields.next().and_then(|port| port.split('/').next()).and_then(|port| port.parse::<u16>().ok());
        let port = port.ok_or_else(|| NegotiateError::Syntax(format!("bad port in m={media}")))?;
        let profile = Profile::parse(fields.next().unwrap_or_default());
        let numbers: Vec<u8> =
            fields.take(FORMATS_MAX).filter_map(|number| number.parse().ok()).filter(|n| *n < 128).collect();
        let address = line_value(audio, 'c').or_else(|| line_value(session, 'c')).and_then(connection_address);
        let rtp = address.map(|address| SocketAddr::new(address, port));
        let direction = |section: &[Line<'_>]| attributes(section).find_map(|(name, _)| Direction::parse(name));
        Ok(Self {
            port,
            rtp,
            rtcp: read_rtcp(audio, rtp),
            mux: attributes(audio).any(|(name, _)| name == "rtcp-mux"),
            profile,
            direction: direction(audio).or_else(|| direction(session)).unwrap_or(Direction::SendRecv),
            rtpmaps: numbers.into_iter().filter_map(|number| read_rtpmap(audio, number)).collect(),
            crypto: attributes(audio)
                .filter(|(name, _)| *name == "crypto")
                .map(|(_, value)| value.to_owned())
                .collect(),
            ice: IceAttributes::read(session, audio),
            refused_before: Vec::new(),
            refused_after: Vec::new(),
        })
    }
}

/// One line, `m=audio 9 …`.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    kind: char,
    value: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (kind, value) = line.split_once('=')?;
        let mut letters = kind.chars();
        let kind = letters.next().filter(|_| letters.next().is_none())?;
        Some(Self { kind, value })
    }
}

/// The attributes of a section: name, and value or an empty text.
fn attributes<'a>(section: &[Line<'a>]) -> impl Iterator<Item = (&'a str, &'a str)> {
    section.iter().filter(|line| line.kind == 'a').map(|line| line.value.split_once(':').unwrap_or((line.value, "")))
}

fn attribute<'a>(section: &[Line<'a>], name: &str) -> Option<&'a str> {
    attributes(section).find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn line_value<'a>(section: &[Line<'a>], kind: char) -> Option<&'a str> {
    section.iter().find(|line| line.kind == kind).map(|line| line.value)
}

fn stream_port(section: &[Line<'_>]) -> Option<u16> {
    section.first()?.value.split_ascii_whitespace().nth(1)?.split('/').next()?.parse().ok()
}

/// `IN IP4 192.0.2.1[/ttl]`; a name gives `None`, names are not looked up for media.
fn connection_address(value: &str) -> Option<IpAddr> {
    value.split_ascii_whitespace().nth(2)?.split('/').next()?.parse().ok()
}

/// RFC 3605 §2.1: port, and an address if it is another one; without the attribute the next port.
fn read_rtcp(audio: &[Line<'_>], rtp: Option<SocketAddr>) -> Option<SocketAddr> {
    let rtp = rtp?;
    let Some(value) = attribute(audio, "rtcp") else {
        return Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?));
    };
    let port = value.split_ascii_whitespace().next()?.parse().ok()?;
    let address = value.split_once(' ').and_then(|(_, rest)| connection_address(rest)).unwrap_or(rtp.ip());
    Some(SocketAddr::new(address, port))
}

fn read_rtpmap(audio: &[Line<'_>], number: u8) -> Option<Rtpmap> {
    let of_number = |name: &str| {
        let values =
            attributes(audio).filter(|(found, _)| *found == name).filter_map(|(_, value)| value.split_once(' '));
        values.into_iter().find(|(found, _)| found.parse() == Ok(number)).map(|(_, rest)| rest.trim())
    };
    // RFC 3551 §6: static numbers need no rtpmap.
    let static_map = match number {
        0 => Some("PCMU/8000"),
        8 => Some("PCMA/8000"),
        _ => None,
    };
    let map = of_number("rtpmap").or(static_map)?;
    let mut parts = map.split('/');
    Some(Rtpmap {
        payload_type: number,
        encoding: parts.next()?.to_owned(),
        clock_hz: parts.next()?.trim().parse().ok()?,
        channels: parts.next().and_then(|channels| channels.trim().parse().ok()).unwrap_or(1),
        fmtp: of_number("fmtp").map(str::to_owned),
    })
}

impl OtherStream {
    fn read(section: &[Line<'_>]) -> Option<Self> {
        let mut fields = section.first()?.value.splitn(4, ' ');
        let media = fields.next()?.to_owned();
        let _port = fields.next()?;
        Some(Self { media, profile: fields.next()?.to_owned(), formats: fields.next().unwrap_or("0").to_owned() })
    }

    /// Port 0: refused (RFC 3264 §6).
    fn write(&self, text: &mut String) {
        let first = self.formats.split(' ').next().unwrap_or("0");
        let _ = write!(text, "m={} 0 {} {first}\r\n", self.media, self.profile);
    }
}

impl IceAttributes {
    fn read(session: &[Line<'_>], audio: &[Line<'_>]) -> Option<Self> {
        let either = |name| attribute(audio, name).or_else(|| attribute(session, name));
        let candidates = attributes(audio).filter(|(name, _)| *name == "candidate");
        let options = either("ice-options").unwrap_or_default();
        Some(Self {
            ufrag: either("ice-ufrag").map(str::trim).filter(|ufrag| !ufrag.is_empty())?.to_owned(),
            pwd: Secret::new(either("ice-pwd").map(str::trim).filter(|pwd| !pwd.is_empty())?),
            candidates: candidates.take(CANDIDATES_MAX).filter_map(|(_, value)| value.parse().ok()).collect(),
            options: options.split_ascii_whitespace().map(str::to_owned).collect(),
            pacing: either("ice-pacing").and_then(|text| text.trim().parse().ok()).map(Duration::from_millis),
            lite: either("ice-lite").is_some(),
            mismatch: attribute(audio, "ice-mismatch").is_some(),
            remote_candidates: attribute(audio, "remote-candidates").map(read_remote_candidates).unwrap_or_default(),
        })
    }

    fn write(&self, text: &mut String) {
        let _ = write!(text, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.pwd.expose());
        for candidate in &self.candidates {
            let _ = write!(text, "a=candidate:{candidate}\r\n");
        }
        if !self.remote_candidates.is_empty() {
            let list = self.remote_candidates.iter();
            let list: Vec<_> =
                list.map(|(c, address)| format!("{} {} {}", c.number(), address.ip(), address.port())).collect();
            let _ = write!(text, "a=remote-candidates:{}\r\n", list.join(" "));
        }
    }
}

/// Groups of component, address, port (RFC 8839 §5.2).
fn read_remote_candidates(value: &str) -> Vec<(Component, SocketAddr)> {
    let fields: Vec<_> = value.split_ascii_whitespace().take(6).collect();
    let group = |group: &[&str]| match group {
        [component, address, port] => {
            let component = Component::from_number(component.parse().ok()?)?;
            Some((component, SocketAddr::new(address.parse().ok()?, port.parse().ok()?)))
        }
        _ => None,
    };
    fields.chunks(3).filter_map(group).collect()
}
