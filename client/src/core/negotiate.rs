//! Offer and answer (RFC 3264) for one audio stream, as pure functions of values.
//!
//! ```text
//!   make_offer ─▶ SDP ─▶ peer ─▶ SDP ─▶ apply_answer ─▶ Agreed      we call
//!   peer ─▶ SDP ─▶ judge_offer ─▶ Agreed ─▶ make_answer ─▶ SDP      we are called
//! ```
//!
//! Keys: RFC 4568 §5.1, §7.1. ICE: RFC 8839 §4. One port for RTP and RTCP: RFC 5761 §5.1.1. Syntax is `sip::sdp`.

use std::net::SocketAddr;

use ice::{CandidateTransport, Component, NominatedPair, RemoteDescription};
use media::srtp::sdes::{self, CryptoAttribute, MasterKey};
use media::{Codec, Format, Formats, TelephoneEvent};

use super::description::{Description, Direction, IceAttributes, Profile, Rtpmap};
use crate::api::SrtpMode;

/// Payload numbers of our offers (RFC 3551 §6 for the static ones).
const OPUS: u8 = 111;
const PCMU: u8 = 0;
const PCMA: u8 = 8;
const EVENT_48000: u8 = 110;
const EVENT_8000: u8 = 101;
/// Tag of the only crypto line we offer.
const OUR_TAG: u32 = 1;

/// Why two descriptions do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NegotiateError {
    #[error("the session description cannot be read: {0}")]
    Syntax(String),
    #[error("there is no audio stream in it")]
    NoAudio,
    #[error("the audio stream was refused")]
    Refused,
    #[error("no codec in common (the other side has {theirs}; this phone has opus, PCMU, PCMA)")]
    NoCodec { theirs: String },
    #[error("SRTP is required here, and the other side offers none; set srtp = \"optional\" to allow it")]
    SrtpMissing,
    #[error("the other side requires SRTP, and it is off here; set srtp = \"optional\" or \"required\"")]
    SrtpOff,
    #[error("the other side's SRTP keys cannot be used: {0}")]
    Keys(String),
    #[error("media over {0} is not supported")]
    Profile(String),
}

impl NegotiateError {
    /// Text of the Warning header beside a 488 (RFC 3261 §20.43).
    pub(crate) fn warning(&self) -> &'static str {
        match self {
            Self::Syntax(_) | Self::NoAudio | Self::Refused => "304 icephone \"Media type not available\"",
            Self::NoCodec { .. } => "305 icephone \"Incompatible media format\"",
            Self::SrtpMissing | Self::SrtpOff | Self::Keys(_) => "308 icephone \"Encryption levels not compatible\"",
            Self::Profile(_) => "302 icephone \"Incompatible transport protocol\"",
        }
    }
}

/// What both sides agreed on, from our point of view.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    pub(crate) formats: Formats,
    /// The peer's key and the tag of its line; `None`: no SRTP.
    pub(crate) crypto: Option<CryptoAttribute>,
    /// RTP and RTCP on one port.
    pub(crate) mux: bool,
    /// What we may do now: the peer's direction reversed.
    pub(crate) direction: Direction,
    /// `None`: the peer does not speak ICE (or something between us broke it).
    pub(crate) ice: Option<RemoteDescription>,
    /// Of a re-offer after nomination: the pairs the other side chose (RFC 8839 §4.4.1.2).
    pub(crate) nominated: Vec<NominatedPair>,
    /// Where a peer without ICE wants its packets. `None`: nowhere for the moment (hold by `0.0.0.0`).
    pub(crate) rtp: Option<SocketAddr>,
    pub(crate) rtcp: Option<SocketAddr>,
    /// The profile that was offered or answered, for our own next description.
    pub(crate) profile: Profile,
}

/// What we offer in every offer of ours: all codecs, digits for each clock rate (RFC 4733 §2.1).
pub(crate) fn our_rtpmaps() -> Vec<Rtpmap> {
    let map = |payload_type, encoding: &str, clock_hz, channels, fmtp: Option<&str>| Rtpmap {
        payload_type,
        encoding: encoding.to_owned(),
        clock_hz,
        channels,
        fmtp: fmtp.map(str::to_owned),
    };
    vec![
        map(OPUS, "opus", 48_000, 2, Some("useinbandfec=1;stereo=0")),
        map(PCMU, "PCMU", 8_000, 1, None),
        map(PCMA, "PCMA", 8_000, 1, None),
        map(EVENT_48000, "telephone-event", 48_000, 1, Some("0-16")),
        map(EVENT_8000, "telephone-event", 8_000, 1, Some("0-16")),
    ]
}

/// Whether the other side offers candidates over TCP (RFC 6544 §4.5); if not, ours would be in vain.
pub(crate) fn has_tcp(ice: &IceAttributes) -> bool {
    ice.candidates.iter().any(|candidate| candidate.transport != CandidateTransport::Udp)
}

/// The codec behind a payload number, if it is one of ours.
fn codec_of(map: &Rtpmap) -> Option<Codec> {
    let is = |name: &str, clock_hz| map.encoding.eq_ignore_ascii_case(name) && map.clock_hz == clock_hz;
    if is("opus", 48_000) {
        Some(Codec::Opus)
    } else if is("PCMU", 8_000) {
        Some(Codec::Pcmu)
    } else if is("PCMA", 8_000) {
        Some(Codec::Pcma)
    } else {
        None
    }
}

/// The formats of `maps` that carry audio we understand, in their order. RFC 5761 §4: never 64 to 95.
fn audio_formats(maps: &[Rtpmap]) -> impl Iterator<Item = Format> + '_ {
    let usable = maps.iter().filter(|map| !(64..=95).contains(&map.payload_type));
    usable.filter_map(|map| codec_of(map).map(|codec| Format { payload_type: map.payload_type, codec }))
}

fn events(maps: &[Rtpmap]) -> Vec<TelephoneEvent> {
    let events = maps.iter().filter(|map| map.encoding.eq_ignore_ascii_case("telephone-event"));
    events.map(|map| TelephoneEvent { payload_type: map.payload_type, clock_hz: map.clock_hz }).collect()
}

/// The digits to send beside `codec`: those with its clock, else any.
fn event_for(codec: Codec, events: &[TelephoneEvent]) -> Option<TelephoneEvent> {
    events.iter().find(|event| event.clock_hz == codec.clock_hz()).or(events.first()).copied()
}

/// Our side of an offer.
#[derive(Debug, Clone)]
pub(crate) struct OfferOptions<'a> {
    pub(crate) srtp: SrtpMode,
    /// Our sending key; kept over all offers of a call.
    pub(crate) key: &'a MasterKey,
    pub(crate) mux: bool,
    pub(crate) direction: Direction,
    /// What was agreed before, on a re-offer: profile and keys stay.
    pub(crate) before: Option<&'a Agreed>,
}

/// Where we receive, and what ICE says about it.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    pub(crate) rtp: SocketAddr,
    pub(crate) rtcp: Option<SocketAddr>,
    pub(crate) ice: Option<IceAttributes>,
}

/// An offer of everything we can do (RFC 3264 §5, §8).
pub(crate) fn make_offer(options: &OfferOptions<'_>, transport: Transport) -> Description {
    let protected = match (options.before, options.srtp) {
        (Some(before), _) => before.crypto.is_some(),
        (None, SrtpMode::Required | SrtpMode::Optional) => true,
        (None, SrtpMode::Off) => false,
    };
    let profile = match (options.before, options.srtp) {
        (Some(before), _) => before.profile.clone(),
        (None, SrtpMode::Required) => Profile::Savp,
        (None, SrtpMode::Optional | SrtpMode::Off) => Profile::Avp,
    };
    let key = options.key.clone();
    let tag = options.before.and_then(|before| before.crypto.as_ref()).map_or(OUR_TAG, |crypto| crypto.tag);
    let crypto = protected.then(|| CryptoAttribute::new(tag, key).to_value().to_string());
    describe(profile, our_rtpmaps(), crypto, options.mux, options.direction, transport)
}

/// Reads the peer's offer.
///
/// # Errors
///
/// [`NegotiateError`]: answer 488 with its [`NegotiateError::warning`].
pub(crate) fn judge_offer(offer: &Description, srtp: SrtpMode) -> Result<Agreed, NegotiateError> {
    if offer.port == 0 {
        return Err(NegotiateError::Refused);
    }
    let crypto = match (&offer.profile, srtp) {
        (Profile::Other(name), _) => return Err(NegotiateError::Profile(name.clone())),
        (Profile::Savp | Profile::Savpf, SrtpMode::Off) => return Err(NegotiateError::SrtpOff),
        (Profile::Savp | Profile::Savpf, SrtpMode::Required | SrtpMode::Optional) => Some(choose_key(offer)?),
        (Profile::Avp | Profile::Avpf, SrtpMode::Off) => None,
        (Profile::Avp | Profile::Avpf, SrtpMode::Optional) => choose_key(offer).ok(),
        (Profile::Avp | Profile::Avpf, SrtpMode::Required) => {
            let key = if offer.crypto.is_empty() { Err(NegotiateError::SrtpMissing) } else { choose_key(offer) };
            Some(key?)
        }
    };
    let send = audio_formats(&offer.rtpmaps).next().ok_or_else(|| no_codec(offer))?;
    let all_events = events(&offer.rtpmaps);
    let send_event = event_for(send.codec, &all_events);
    // The answer repeats the numbers of the offer (RFC 3264 §6.1), so both sides use the same ones.
    let formats = Formats { send, send_event, receive: vec![send], receive_events: send_event.into_iter().collect() };
    Ok(agree(offer, formats, crypto, offer.mux))
}

fn choose_key(description: &Description) -> Result<CryptoAttribute, NegotiateError> {
    let first = description.crypto.first().ok_or(NegotiateError::SrtpMissing)?;
    sdes::choose(description.crypto.iter().map(String::as_str)).ok_or_else(|| {
        let error = CryptoAttribute::parse(first).err();
        NegotiateError::Keys(error.map_or_else(|| "no line fits".to_owned(), |error| error.to_string()))
    })
}

fn no_codec(description: &Description) -> NegotiateError {
    let names = description.rtpmaps.iter().map(|map| map.encoding.as_str()).take(10);
    NegotiateError::NoCodec { theirs: names.collect::<Vec<_>>().join(", ") }
}

/// Our answer to an offer that was judged good (RFC 3264 §6): one codec, its digits, the tag of the chosen key line.
pub(crate) fn make_answer(
    offer: &Description,
    agreed: &Agreed,
    key: &MasterKey,
    direction: Direction,
    transport: Transport,
) -> Description {
    let used = |map: &&Rtpmap| {
        let number = map.payload_type;
        number == agreed.formats.send.payload_type
            || agreed.formats.send_event.is_some_and(|event| number == event.payload_type)
    };
    let rtpmaps = offer.rtpmaps.iter().filter(used).map(|map| Rtpmap { fmtp: our_fmtp(map), ..map.clone() }).collect();
    let crypto = agreed.crypto.as_ref().map(|theirs| {
        let ours = MasterKey::clone(key);
        CryptoAttribute::new(theirs.tag, ours).to_value().to_string()
    });
    let mut answer = describe(offer.profile.clone(), rtpmaps, crypto, agreed.mux, direction, transport);
    // The offerer is told why there is no ICE (RFC 8839 §4.2.5).
    answer.ice_mismatch = offer.ice.as_ref().is_some_and(|ice| is_mismatch(offer, ice));
    answer.refused_before.clone_from(&offer.refused_before);
    answer.refused_after.clone_from(&offer.refused_after);
    answer
}

fn our_fmtp(map: &Rtpmap) -> Option<String> {
    let ours = our_rtpmaps();
    let same = ours.iter().find(|our| our.encoding.eq_ignore_ascii_case(&map.encoding) && our.clock_hz == map.clock_hz);
    same.and_then(|our| our.fmtp.clone())
}

/// Reads the answer to an offer of ours.
///
/// # Errors
///
/// [`NegotiateError`]: the call must be given up.
pub(crate) fn apply_answer(
    offer: &Description,
    answer: &Description,
    srtp: SrtpMode,
) -> Result<Agreed, NegotiateError> {
    if answer.port == 0 {
        return Err(NegotiateError::Refused);
    }
    if let Profile::Other(name) = &answer.profile {
        return Err(NegotiateError::Profile(name.clone()));
    }
    let crypto = match (offer.crypto.is_empty(), answer.crypto.first()) {
        (false, Some(line)) => Some(answered_key(offer, line)?),
        (false, None) if srtp == SrtpMode::Required => return Err(NegotiateError::SrtpMissing),
        (true, _) | (false, None) => None,
    };
    let send = audio_formats(&answer.rtpmaps).next().ok_or_else(|| no_codec(answer))?;
    let formats = Formats {
        send,
        send_event: event_for(send.codec, &events(&answer.rtpmaps)),
        receive: audio_formats(&offer.rtpmaps).collect(),
        receive_events: events(&offer.rtpmaps),
    };
    Ok(agree(answer, formats, crypto, offer.mux && answer.mux))
}

/// The suite of the answer must be that of an offered line. The tag should be, too (RFC 4568 §5.1.3), but there are peers that
/// answer with the number that the line has in their own list; the key is as good.
fn answered_key(offer: &Description, line: &str) -> Result<CryptoAttribute, NegotiateError> {
    let answered = CryptoAttribute::parse(line).map_err(|error| NegotiateError::Keys(error.to_string()))?;
    let offered = offer.crypto.iter().filter_map(|line| CryptoAttribute::parse(line).ok());
    let fitting: Vec<_> = offered.filter(|line| line.key.suite() == answered.key.suite()).collect();
    match fitting.iter().find(|line| line.tag == answered.tag).or(fitting.first()) {
        Some(line) => Ok(CryptoAttribute { tag: line.tag, ..answered }),
        None => Err(NegotiateError::Keys(format!(
            "the answer names the suite of line {}, which was not offered",
            answered.tag
        ))),
    }
}

fn agree(theirs: &Description, formats: Formats, crypto: Option<CryptoAttribute>, mux: bool) -> Agreed {
    let control = if mux { theirs.rtp } else { theirs.rtcp };
    let rtp = theirs.rtp.filter(|address| !address.ip().is_unspecified());
    let ice = remote_ice(theirs, mux);
    // RFC 3264 §8.4: the old way to hold. With ICE the same address only says that the default is not known yet.
    let nowhere = ice.is_none() && rtp.is_none();
    let direction = theirs.direction.reversed();
    Agreed {
        formats,
        crypto,
        mux,
        direction: if nowhere { direction.and(Direction::RecvOnly) } else { direction },
        ice,
        nominated: nominated(theirs),
        rtp,
        rtcp: control.filter(|address| !address.ip().is_unspecified()),
        profile: theirs.profile.clone(),
    }
}

/// The ICE half of a description; `None` without ICE, or if something on the way changed the addresses (RFC 8839 §4.2.5).
fn remote_ice(theirs: &Description, mux: bool) -> Option<RemoteDescription> {
    let ice = theirs.ice.as_ref().filter(|ice| !ice.mismatch)?;
    if is_mismatch(theirs, ice) {
        return None;
    }
    let candidates = ice.candidates.iter().filter(|line| !mux || line.component == Component::Rtp).cloned().collect();
    Some(RemoteDescription {
        ufrag: ice.ufrag.clone(),
        pwd: ice.pwd.clone(),
        candidates,
        lite: ice.lite,
        ice2: ice.options.iter().any(|option| option == "ice2"),
        renomination: ice.options.iter().any(|option| option == "renomination"),
        pacing: ice.pacing,
        rtcp_mux: mux,
    })
}

/// The default destination must be among the candidates (RFC 8839 §4.2.5). A trickling peer names port 9 and no address.
pub(crate) fn is_mismatch(theirs: &Description, ice: &IceAttributes) -> bool {
    let Some(default) = theirs.rtp.filter(|address| !address.ip().is_unspecified() && address.port() != 9) else {
        return false;
    };
    let of_rtp = ice.candidates.iter().filter(|candidate| candidate.component == Component::Rtp);
    let tcp_default = ice
        .candidates
        .iter()
        .any(|candidate| candidate.transport != CandidateTransport::Udp && candidate.addr == default);
    !tcp_default && !of_rtp.into_iter().any(|candidate| candidate.addr == default)
}

fn nominated(theirs: &Description) -> Vec<NominatedPair> {
    let Some(ice) = &theirs.ice else { return Vec::new() };
    let default = |component| match component {
        Component::Rtp => theirs.rtp,
        Component::Rtcp => theirs.rtcp,
    };
    let pair = |(component, local): &(Component, SocketAddr)| {
        default(*component).map(|remote| NominatedPair { component: *component, local: *local, remote })
    };
    ice.remote_candidates.iter().filter_map(pair).collect()
}

fn describe(
    profile: Profile,
    rtpmaps: Vec<Rtpmap>,
    crypto: Option<String>,
    mux: bool,
    direction: Direction,
    transport: Transport,
) -> Description {
    Description {
        port: transport.rtp.port(),
        rtp: Some(transport.rtp),
        rtcp: transport.rtcp,
        mux,
        profile,
        direction,
        rtpmaps,
        crypto: crypto.into_iter().collect(),
        ice: transport.ice,
        ice_mismatch: false,
        refused_before: Vec::new(),
        refused_after: Vec::new(),
    }
}
