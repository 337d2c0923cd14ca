//! A session description with its media sections, RFC 8866 §5, and a builder for our own.

use std::net::IpAddr;
use std::str::FromStr;

use sdp_types::{Attribute, Connection, Origin, Session, Time};

use super::attribute::{Direction, Fingerprint, FormatParameters, RtcpAddress, RtpMap};
use crate::parse::{bytes_from_text, text_from_bytes};

/// The largest description: what fits a message.
const DESCRIPTION_MAX: usize = crate::parse::MESSAGE_MAX;

/// The most media sections: a conference of the field has a handful.
const MEDIA_MAX: usize = 64;

/// The most lines: several hundred candidates on each of a few media sections.
const LINES_MAX: usize = 4096;

/// Why a session description was refused. A server answers 488 to it, or 400 if it is no description at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("session description cannot be read: {0}")]
    Syntax(String),
    #[error("session description has no {0} line (RFC 8866 §5)")]
    Missing(&'static str),
    #[error("session description has neither a session-level c= nor one in each media section (RFC 8866 §5.7)")]
    NoConnection,
    #[error("port {0} of a media section is beyond 65535")]
    Port(u32),
    #[error("session description is larger than allowed")]
    TooLarge,
}

/// A session description that was read and found complete, or one of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDescription {
    inner: Session,
}

impl SessionDescription {
    /// Reads and checks a description. Bytes that are not UTF-8 survive.
    ///
    /// # Errors
    ///
    /// [`SdpError`], see there.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        if bytes.len() > DESCRIPTION_MAX || bytes.split(|byte| *byte == b'\n').count() > LINES_MAX {
            return Err(SdpError::TooLarge);
        }
        let text = text_from_bytes(bytes);
        // sdp-types fills in what is missing; an offer without these lines is none.
        let has = |start: &str| text.lines().any(|line| line.starts_with(start));
        for (start, name) in [("v=", "v="), ("o=", "o="), ("s=", "s="), ("t=", "t="), ("m=", "m=")] {
            if !has(start) {
                return Err(SdpError::Missing(name));
            }
        }
        let inner = Session::parse(text.as_bytes()).map_err(|error| SdpError::Syntax(error.to_string()))?;
        if inner.medias.len() > MEDIA_MAX {
            return Err(SdpError::TooLarge);
        }
        for media in &inner.medias {
            let port = u32::from(media.port);
            if port > u32::from(u16::MAX) {
                return Err(SdpError::Port(port));
            }
            // A refused section (port 0) needs no address.
            if port != 0 && inner.connection.is_none() && media.connections.is_empty() {
                return Err(SdpError::NoConnection);
            }
        }
        Ok(Self { inner })
    }

    /// A description of our own: `o=- id version`, `s=-`, `c=` of `address`, `t=0 0`, no media yet.
    pub fn new(session_id: u64, version: u64, address: IpAddr) -> Self {
        let mut inner = Session::new(Origin::with_ip_addr(session_id, version, address), "-");
        inner.connection = Some(Connection::from_ip_addr(address));
        inner.times.push(Time::new(0, 0));
        Self { inner }
    }

    /// Adds a session-level attribute, `a=name` or `a=name:value`.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: Option<&str>) -> Self {
        self.inner.attributes.push(attribute(name, value));
        self
    }

    /// Adds a media section.
    #[must_use]
    pub fn media_section(mut self, section: MediaSection) -> Self {
        self.inner.medias.push(section.inner);
        self
    }

    /// The bytes of the description.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = self.inner.write(&mut bytes);
        bytes_from_text(&String::from_utf8_lossy(&bytes))
    }

    /// `o=` session id and version. The version need not count up: some peers always send the same one.
    pub fn origin(&self) -> (&str, u64) {
        (&self.inner.origin.sess_id, self.inner.origin.sess_version)
    }

    /// The same description with another `o=` version.
    #[must_use]
    pub fn with_version(mut self, version: u64) -> Self {
        self.inner.origin.sess_version = version;
        self
    }

    /// Session-level attributes in their order.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.inner.attributes.iter().map(|a| (a.attribute.as_str(), a.value.as_deref()))
    }

    /// The media sections in their order; an answer has to keep it (RFC 3264 §6).
    pub fn media(&self) -> impl Iterator<Item = Media<'_>> {
        self.inner.medias.iter().map(|media| Media { session: &self.inner, media })
    }

    /// The first audio section that is not refused.
    pub fn audio(&self) -> Option<Media<'_>> {
        self.media().find(|media| media.kind() == "audio" && media.port() != 0)
    }

    /// `a=ice-lite`, RFC 8839 §5.3.
    pub fn ice_lite(&self) -> bool {
        find(&self.inner.attributes, "ice-lite").is_some()
    }
}

/// One media section together with what it inherits from the session level.
#[derive(Debug, Clone, Copy)]
pub struct Media<'a> {
    session: &'a Session,
    media: &'a sdp_types::Media,
}

impl<'a> Media<'a> {
    /// `audio`, `video` …
    pub fn kind(&self) -> &'a str {
        &self.media.media
    }

    /// 0: refused, or closed.
    pub fn port(&self) -> u16 {
        self.media.port
    }

    /// `RTP/AVP`, `RTP/SAVP` …
    pub fn protocol(&self) -> &'a str {
        &self.media.proto
    }

    /// The formats as text, in order of preference.
    pub fn formats(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.media.fmt.split_whitespace()
    }

    /// Payload types in order of preference.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.formats().filter_map(|format| format.parse().ok()).filter(|pt| *pt < 128)
    }

    /// The address of `c=`; `None` if it is a host name.
    pub fn address(&self) -> Option<IpAddr> {
        let connection = self.media.connections.first().or(self.session.connection.as_ref())?;
        connection.connection_address.split('/').next().unwrap_or_default().parse().ok()
    }

    /// All attributes of the section in their order, known or not.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        self.media.attributes.iter().map(|a| (a.attribute.as_str(), a.value.as_deref()))
    }

    /// The values of an attribute of the section.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.attributes().filter(move |(known, _)| *known == name).map(|(_, value)| value.unwrap_or_default().trim())
    }

    /// The value of an attribute of the section.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.media
            .attributes
            .iter()
            .find(|a| a.attribute == name)
            .map(|a| a.value.as_deref().unwrap_or_default().trim())
    }

    /// The same, from the session level if the section has none.
    fn inherited(&self, name: &str) -> Option<&'a str> {
        self.value(name).or_else(|| find(&self.session.attributes, name))
    }

    fn typed<T: FromStr>(&self, name: &str) -> impl Iterator<Item = T> + use<'a, '_, T> {
        let name = name.to_owned();
        let attributes = self.attributes().filter(move |(known, _)| *known == name);
        attributes.filter_map(|(_, value)| value.and_then(|value| value.parse().ok()))
    }

    /// Direction as its writer sees it; `sendrecv` if nothing is said (RFC 8866 §6.7). A `c=` of 0.0.0.0 is the
    /// old way to put on hold (RFC 3264 §8.4): no media may be sent there.
    pub fn direction(&self) -> Direction {
        let said = Direction::ALL.into_iter().find(|direction| self.value(direction.as_str()).is_some());
        let inherited = || Direction::ALL.into_iter().find(|d| find(&self.session.attributes, d.as_str()).is_some());
        let direction = said.or_else(inherited).unwrap_or_default();
        let unspecified = self.address().is_some_and(|ip| ip.is_unspecified());
        // With ICE the default destination may be 0.0.0.0 port 9: the candidates count (RFC 8839 §4.2.1.2).
        if unspecified && self.ice_ufrag().is_none() {
            Direction::from_halves(direction.sends(), false)
        } else {
            direction
        }
    }

    /// The codecs in order of preference: each payload type of the `m=` line with its `rtpmap`, or the one that
    /// RFC 3551 §6 gives it; without either it is left out.
    pub fn codecs(&self) -> Vec<RtpMap> {
        let maps: Vec<RtpMap> = self.typed("rtpmap").collect();
        let map = |pt: u8| maps.iter().find(|map| map.payload_type == pt).cloned();
        self.payload_types().filter_map(|pt| map(pt).or_else(|| RtpMap::well_known(pt))).collect()
    }

    /// `a=fmtp` of a payload type.
    pub fn format_parameters(&self, payload_type: u8) -> Option<FormatParameters> {
        self.typed("fmtp").find(|fmtp: &FormatParameters| fmtp.payload_type == payload_type)
    }

    /// `a=ptime`, milliseconds.
    pub fn ptime_ms(&self) -> Option<u32> {
        self.value("ptime")?.parse().ok()
    }

    /// `a=maxptime`, milliseconds.
    pub fn maxptime_ms(&self) -> Option<u32> {
        self.value("maxptime")?.parse().ok()
    }

    /// `a=rtcp`, RFC 3605 §2.1.
    pub fn rtcp(&self) -> Option<RtcpAddress> {
        self.value("rtcp")?.parse().ok()
    }

    /// `a=rtcp-mux`, RFC 5761 §5.1.1.
    pub fn rtcp_mux(&self) -> bool {
        self.value("rtcp-mux").is_some()
    }

    /// The texts behind `a=crypto:`, RFC 4568 §9.1. `a=cryptoscale` is another attribute and not among them.
    pub fn crypto(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values("crypto")
    }

    /// The texts behind `a=candidate:`, RFC 8839 §5.1.
    pub fn candidates(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values("candidate")
    }

    /// `a=remote-candidates` as (component, address, port), RFC 8839 §5.2; host names are left out.
    pub fn remote_candidates(&self) -> Vec<(u16, IpAddr, u16)> {
        let words: Vec<&str> = self.value("remote-candidates").unwrap_or_default().split_whitespace().collect();
        let triple = |chunk: &[&str]| match chunk {
            [component, ip, port] => Some((component.parse().ok()?, ip.parse().ok()?, port.parse().ok()?)),
            _ => None,
        };
        words.chunks(3).filter_map(triple).collect()
    }

    pub fn ice_ufrag(&self) -> Option<&'a str> {
        self.inherited("ice-ufrag").filter(|text| !text.is_empty())
    }

    pub fn ice_pwd(&self) -> Option<&'a str> {
        self.inherited("ice-pwd").filter(|text| !text.is_empty())
    }

    /// The words of `a=ice-options`, of the section and of the session.
    pub fn ice_options(&self) -> Vec<&'a str> {
        let section = self.value("ice-options").unwrap_or_default().split_whitespace();
        let session = find(&self.session.attributes, "ice-options").unwrap_or_default().split_whitespace();
        section.chain(session).collect()
    }

    /// `a=ice-pacing`, milliseconds (RFC 8839 §5.5).
    pub fn ice_pacing_ms(&self) -> Option<u32> {
        self.inherited("ice-pacing")?.parse().ok()
    }

    /// `a=ice-mismatch`, RFC 8839 §5.3.
    pub fn ice_mismatch(&self) -> bool {
        self.value("ice-mismatch").is_some()
    }

    /// `a=setup`, RFC 4145 §4.
    pub fn setup(&self) -> Option<&'a str> {
        self.inherited("setup")
    }

    /// `a=fingerprint`, RFC 8122 §5.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.inherited("fingerprint")?.parse().ok()
    }
}

/// A media section of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaSection {
    inner: sdp_types::Media,
}

impl MediaSection {
    /// `m=kind port protocol formats`.
    pub fn new(kind: &str, port: u16, protocol: &str, formats: &[String]) -> Self {
        let inner = sdp_types::Media {
            media: kind.to_owned(),
            port,
            num_ports: None,
            proto: protocol.to_owned(),
            fmt: formats.join(" "),
            media_title: None,
            connections: Vec::new(),
            bandwidths: Vec::new(),
            key: None,
            attributes: Vec::new(),
        };
        Self { inner }
    }

    /// The same `m=` line with port 0: refused (RFC 3264 §6).
    pub fn refused(offered: &Media<'_>) -> Self {
        let formats: Vec<String> = offered.formats().take(1).map(str::to_owned).collect();
        Self::new(offered.kind(), 0, offered.protocol(), &formats)
    }

    /// A `c=` line of its own.
    #[must_use]
    pub fn connection(mut self, address: IpAddr) -> Self {
        self.inner.connections = vec![Connection::from_ip_addr(address)];
        self
    }

    /// Adds `a=name` or `a=name:value`.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: Option<&str>) -> Self {
        self.inner.attributes.push(attribute(name, value));
        self
    }
}

fn attribute(name: &str, value: Option<&str>) -> Attribute {
    Attribute { attribute: name.to_owned(), value: value.map(str::to_owned) }
}

fn find<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|a| a.attribute == name).map(|a| a.value.as_deref().unwrap_or_default().trim())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
