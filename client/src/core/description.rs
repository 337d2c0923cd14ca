//! A session description as call control sees it: one audio stream, everything else refused but kept in its place.
//!
//! RFC 8866 (syntax), RFC 8839 §5 (ICE), RFC 4568 §4 (keys), RFC 5761 §5.1.1 and RFC 3605 (RTCP), RFC 3264 §6 (order of streams).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ice::{Candidate, Component, Secret};
use sip::sdp::{Media, MediaSection, RtpMap, SessionDescription};

use super::negotiate::NegotiateError;

/// Streams beside the audio that are remembered; an honest offer has two or three.
const STREAMS_MAX: usize = 16;
/// Candidate lines read from one description: ten interfaces with both families, UDP and TCP, and some relays.
const CANDIDATES_MAX: usize = 200;
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
    /// `a=ice-mismatch` instead of the above: the default destination was none of the candidates.
    pub(crate) ice_mismatch: bool,
    /// Other streams before and after the audio.
    pub(crate) refused_before: Vec<MediaSection>,
    pub(crate) refused_after: Vec<MediaSection>,
}

/// The constant part of our `o=` line and the counter in it (RFC 3264 §8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    id: u64,
    version: u64,
    last: Option<SessionDescription>,
}

impl Origin {
    /// `id` is a random number.
    pub(crate) fn new(id: u64) -> Self {
        Self { id, version: 0, last: None }
    }

    /// The description as text. The version goes up by one whenever something differs from the last one.
    pub(crate) fn write(&mut self, description: &Description) -> String {
        let session = description.session(self.id);
        if self.last.as_ref() != Some(&session) {
            self.version += 1;
            self.last = Some(session.clone());
        }
        String::from_utf8_lossy(&session.with_version(self.version).to_bytes()).into_owned()
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
    fn session(&self, id: u64) -> SessionDescription {
        let address = self.rtp.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
        let mut session = SessionDescription::new(id, 0, address);
        if let Some(ice) = &self.ice {
            session = session.attribute("ice-options", Some(&ice.options.join(" ")));
            if let Some(pacing) = ice.pacing {
                session = session.attribute("ice-pacing", Some(&pacing.as_millis().to_string()));
            }
        }
        let streams =
            self.refused_before.iter().cloned().chain([self.audio()]).chain(self.refused_after.iter().cloned());
        streams.fold(session, SessionDescription::media_section)
    }

    fn audio(&self) -> MediaSection {
        let numbers: Vec<_> = self.rtpmaps.iter().map(|map| map.payload_type.to_string()).collect();
        let mut audio = MediaSection::new("audio", self.port, self.profile.as_str(), &numbers);
        if self.mux {
            audio = audio.attribute("rtcp-mux", None);
        }
        if let Some(rtcp) = self.rtcp {
            audio = audio.attribute("rtcp", Some(&format!("{} IN {}", rtcp.port(), typed(rtcp.ip()))));
        }
        for line in &self.crypto {
            audio = audio.attribute("crypto", Some(line));
        }
        for map in &self.rtpmaps {
            audio = audio.attribute("rtpmap", Some(&map.line()));
            if let Some(fmtp) = &map.fmtp {
                audio = audio.attribute("fmtp", Some(&format!("{} {fmtp}", map.payload_type)));
            }
        }
        audio = audio.attribute("ptime", Some("20")).attribute(self.direction.as_str(), None);
        match &self.ice {
            Some(ice) => ice.write(audio),
            None if self.ice_mismatch => audio.attribute("ice-mismatch", None),
            None => audio,
        }
    }

    /// Reads a description. Of several audio streams the first that is not refused counts.
    ///
    /// # Errors
    ///
    /// [`NegotiateError::Syntax`] or [`NegotiateError::NoAudio`].
    pub(crate) fn read(text: &str) -> Result<Self, NegotiateError> {
        let session =
            SessionDescription::parse(text.as_bytes()).map_err(|error| NegotiateError::Syntax(error.to_string()))?;
        let streams: Vec<Media<'_>> = session.media().take(STREAMS_MAX).collect();
        let is_audio = |stream: &Media<'_>| stream.kind() == "audio";
        let is_open = |stream: &Media<'_>| is_audio(stream) && stream.port() != 0;
        let at =
            streams.iter().position(is_open).or(streams.iter().position(is_audio)).ok_or(NegotiateError::NoAudio)?;
        let (before, audio_and_after) = streams.split_at(at);
        let (audio, after) = audio_and_after.split_first().ok_or(NegotiateError::NoAudio)?;
        Ok(Self {
            refused_before: before.iter().map(MediaSection::refused).collect(),
            refused_after: after.iter().map(MediaSection::refused).collect(),
            ..Self::read_audio(*audio, session.ice_lite())
        })
    }

    fn read_audio(audio: Media<'_>, lite: bool) -> Self {
        let rtp = audio.address().map(|address| SocketAddr::new(address, audio.port()));
        let codecs = audio.codecs().into_iter().take(FORMATS_MAX);
        Self {
            port: audio.port(),
            rtp,
            rtcp: rtp.and_then(|rtp| rtcp_address(audio, rtp)),
            mux: audio.rtcp_mux(),
            profile: Profile::parse(audio.protocol()),
            direction: Direction::of(audio.direction().sends(), audio.direction().receives()),
            rtpmaps: codecs.map(|map| Rtpmap::of(audio, map)).collect(),
            crypto: audio.crypto().map(str::to_owned).collect(),
            ice: IceAttributes::read(audio, lite),
            ice_mismatch: audio.ice_mismatch(),
            refused_before: Vec::new(),
            refused_after: Vec::new(),
        }
    }
}

/// RFC 3605 §2.1: port, and an address if it is another one; without the attribute the next port.
fn rtcp_address(audio: Media<'_>, rtp: SocketAddr) -> Option<SocketAddr> {
    match audio.rtcp() {
        Some(named) => Some(SocketAddr::new(named.ip.unwrap_or(rtp.ip()), named.port)),
        None => Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?)),
    }
}

impl Rtpmap {
    fn of(audio: Media<'_>, map: RtpMap) -> Self {
        let fmtp = audio.format_parameters(map.payload_type).map(|parameters| parameters.text);
        Self {
            payload_type: map.payload_type,
            encoding: map.encoding,
            clock_hz: map.clock_rate,
            channels: map.channels,
            fmtp,
        }
    }

    fn line(&self) -> String {
        let (payload_type, encoding) = (self.payload_type, self.encoding.clone());
        RtpMap { payload_type, encoding, clock_rate: self.clock_hz, channels: self.channels }.to_string()
    }
}

impl IceAttributes {
    fn read(audio: Media<'_>, lite: bool) -> Option<Self> {
        let remote_candidates = audio.remote_candidates().into_iter().take(2).filter_map(|(component, ip, port)| {
            Some((Component::from_number(component.into())?, SocketAddr::new(ip, port)))
        });
        Some(Self {
            ufrag: audio.ice_ufrag()?.to_owned(),
            pwd: Secret::new(audio.ice_pwd()?),
            candidates: audio.candidates().take(CANDIDATES_MAX).filter_map(|line| line.parse().ok()).collect(),
            options: audio.ice_options().into_iter().map(str::to_owned).collect(),
            pacing: audio.ice_pacing_ms().map(|ms| Duration::from_millis(ms.into())),
            lite,
            mismatch: audio.ice_mismatch(),
            remote_candidates: remote_candidates.collect(),
        })
    }

    fn write(&self, audio: MediaSection) -> MediaSection {
        let mut audio = audio.attribute("ice-ufrag", Some(&self.ufrag)).attribute("ice-pwd", Some(self.pwd.expose()));
        for candidate in &self.candidates {
            audio = audio.attribute("candidate", Some(&candidate.to_string()));
        }
        if self.remote_candidates.is_empty() {
            return audio;
        }
        let list = self.remote_candidates.iter();
        let list: Vec<_> =
            list.map(|(c, address)| format!("{} {} {}", c.number(), address.ip(), address.port())).collect();
        audio.attribute("remote-candidates", Some(&list.join(" ")))
    }
}
