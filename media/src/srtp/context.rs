//! Protect and unprotect (RFC 3711 §3.3) over `webrtc-srtp`, with what the library leaves to its user:
//!
//! * the replay window is switched on, for RTP and RTCP;
//! * a packet of an unknown SSRC is first tried on a probe, so that forged packets leave no state behind and cannot set
//!   the window of a stream that has yet to begin;
//! * SRTCP without the E flag is refused (the library would take it unauthenticated);
//! * header extensions are hidden from the library's parser, which panics on malformed ones;
//! * an MKI is cut off before the tag (RFC 3711 §3.1).
//!
//! ```text
//!            set_keys(new)                  first packet under the new key
//!  old current ─────────▶ old retiring, new waiting ─────────▶ old late, new current ──500 ms──▶ old forgotten
//!                         both are tried                       old only for packets sent before the first new one
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;
use webrtc_util::marshal::Unmarshal;

use super::sdes::{MasterKey, Suite};
use crate::error::MediaError;
use crate::rtp::packet;

/// Packets behind the newest that are still accepted once; two and a half seconds of audio, so that a packet overtaken
/// on another path is not taken for a replay.
const REPLAY_WINDOW: usize = 128;
/// Keys tried for a packet: one per fork of a call, and those just replaced.
const KEYS_MAX: usize = 8; // a call forked wider than this hears its first eight
/// Authenticated sources per key before the oldest state is given up.
const SOURCES_MAX: usize = 16; // a peer changes its SSRC a few times in a call at most
/// Failed packets of unknown sources before the probe is made anew, because it remembers each of them.
const PROBES_MAX: usize = 64; // a few kilobytes
/// How long a replaced key serves packets that were sent before the first one under the new key: they travel on a
/// slower path.
const LATE: Duration = Duration::from_millis(500);
/// Authentication tag of SRTCP in all our suites (RFC 4568 §6.2).
const RTCP_TAG_BYTES: usize = 10;

/// Protects what we send, under one key.
pub struct Outbound {
    key: MasterKey,
    context: Context,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Outbound {
    /// A context whose rollover counters are 0.
    ///
    /// # Errors
    ///
    /// [`MediaError::Key`].
    pub fn new(key: MasterKey) -> Result<Self, MediaError> {
        let context = make_context(&key, "local")?;
        Ok(Self { key, context })
    }

    /// The key in use.
    pub fn key(&self) -> &MasterKey {
        &self.key
    }

    /// An RTP packet, protected; `None` once the key is used up (2^48 packets).
    pub fn protect_rtp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        self.context.encrypt_rtp(plain).ok().map(Vec::from)
    }

    /// An RTCP compound packet, protected.
    pub fn protect_rtcp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        self.context.encrypt_rtcp(plain).ok().map(Vec::from)
    }
}

/// Why a packet was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Too short, wrong version, or SRTCP that is not encrypted.
    Malformed,
    /// No key fits.
    Unauthentic,
    /// Came before.
    Replayed,
}

/// A packet in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The packet.
    pub plain: Bytes,
    /// Position of its key in the list last given, if this is the first packet under that key.
    pub confirmed: Option<usize>,
}

/// Unprotects what comes, trying several keys.
#[derive(Debug, Default)]
pub struct Inbound {
    keys: Vec<Key>,
    retired: Vec<Key>,
    /// Once a new key is in use: when, and the identity of its first packet.
    replaced: Option<(Instant, Option<(u16, u32)>)>,
}

struct Key {
    master: MasterKey,
    context: Context,
    probe: Context,
    probes: usize,
    rtp_sources: BTreeSet<u32>,
    rtcp_sources: BTreeSet<u32>,
    confirmed: bool,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("master", &self.master).field("confirmed", &self.confirmed).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rtp,
    Rtcp,
}

impl Inbound {
    /// Takes the peer's keys in place of the earlier ones. A key that stays keeps its state.
    ///
    /// # Errors
    ///
    /// [`MediaError::Key`]; then nothing has changed.
    pub fn set_keys(&mut self, keys: Vec<MasterKey>) -> Result<(), MediaError> {
        let mut made = Vec::new();
        for key in keys.iter().filter(|key| !self.keys.iter().any(|held| held.master == **key)).take(KEYS_MAX) {
            made.push(Key::new(key.clone())?);
        }
        let mut held = std::mem::take(&mut self.keys);
        held.append(&mut made);
        for key in keys.into_iter().take(KEYS_MAX) {
            if let Some(position) = held.iter().position(|candidate| candidate.master == key) {
                self.keys.push(held.swap_remove(position));
            }
        }
        let waits_for_new = self.keys.iter().any(|key| !key.confirmed);
        if waits_for_new {
            self.replaced = None;
            held.append(&mut self.retired);
            held.truncate(KEYS_MAX);
            self.retired = held;
        } else {
            self.retired.clear();
        }
        Ok(())
    }

    /// An RTP packet in the clear.
    ///
    /// # Errors
    ///
    /// [`Rejection`].
    pub fn unprotect_rtp(&mut self, now: Instant, bytes: &[u8]) -> Result<Accepted, Rejection> {
        packet::header_bytes(bytes).ok_or(Rejection::Malformed)?;
        let identity = packet::identity(bytes).ok_or(Rejection::Malformed)?;
        self.unprotect(now, Kind::Rtp, bytes, Some(identity))
    }

    /// An RTCP packet in the clear.
    ///
    /// # Errors
    ///
    /// [`Rejection`].
    pub fn unprotect_rtcp(&mut self, now: Instant, bytes: &[u8]) -> Result<Accepted, Rejection> {
        if bytes.len() < 8 + 4 + RTCP_TAG_BYTES || bytes.first().is_none_or(|first| first >> 6 != 2) {
            return Err(Rejection::Malformed);
        }
        self.unprotect(now, Kind::Rtcp, bytes, None)
    }

    fn unprotect(
        &mut self,
        now: Instant,
        kind: Kind,
        bytes: &[u8],
        identity: Option<(u16, u32)>,
    ) -> Result<Accepted, Rejection> {
        let mut rejection = Rejection::Unauthentic;
        for (index, key) in self.keys.iter_mut().enumerate() {
            match key.unprotect(kind, bytes) {
                Ok(plain) => {
                    let is_first = !std::mem::replace(&mut key.confirmed, true);
                    if is_first && !self.retired.is_empty() {
                        self.replaced = Some((now, identity));
                    }
                    return Ok(Accepted { plain, confirmed: is_first.then_some(index) });
                }
                Err(Rejection::Unauthentic) => {}
                Err(other) => rejection = other,
            }
        }
        self.forget_retired(now);
        if let Some((_, Some(first))) = self.replaced {
            let is_later =
                identity.is_some_and(|(sequence, ssrc)| ssrc == first.1 && sequence.wrapping_sub(first.0) < 0x8000);
            if is_later {
                return Err(rejection);
            }
        }
        for key in &mut self.retired {
            match key.unprotect(kind, bytes) {
                Ok(plain) => return Ok(Accepted { plain, confirmed: None }),
                Err(Rejection::Unauthentic) => {}
                Err(other) => rejection = other,
            }
        }
        Err(rejection)
    }

    fn forget_retired(&mut self, now: Instant) {
        if self.replaced.is_some_and(|(at, _)| now.saturating_duration_since(at) > LATE) {
            self.retired.clear();
            self.replaced = None;
        }
    }
}

impl Key {
    fn new(master: MasterKey) -> Result<Self, MediaError> {
        let (context, probe) = (make_context(&master, "remote")?, make_probe(&master)?);
        let empty = BTreeSet::new;
        Ok(Self { master, context, probe, probes: 0, rtp_sources: empty(), rtcp_sources: empty(), confirmed: false })
    }

    fn unprotect(&mut self, kind: Kind, bytes: &[u8]) -> Result<Bytes, Rejection> {
        let tag_bytes = match kind {
            Kind::Rtp => rtp_tag_bytes(self.master.suite()),
            Kind::Rtcp => RTCP_TAG_BYTES,
        };
        let stripped;
        let bytes = match self.master.mki() {
            Some(mki) => {
                stripped = strip_mki(kind, bytes, tag_bytes, mki.bytes).ok_or(Rejection::Malformed)?;
                stripped.as_slice()
            }
            None => bytes,
        };
        let ssrc = ssrc_of(kind, bytes).ok_or(Rejection::Malformed)?;
        let known = match kind {
            Kind::Rtp => self.rtp_sources.contains(&ssrc),
            Kind::Rtcp => self.rtcp_sources.contains(&ssrc),
        };
        if !known {
            self.renew_probe();
            decrypt(&mut self.probe, kind, bytes, tag_bytes)?;
            self.admit(kind, ssrc);
        }
        decrypt(&mut self.context, kind, bytes, tag_bytes)
    }

    fn renew_probe(&mut self) {
        self.probes += 1;
        if self.probes > PROBES_MAX
            && let Ok(probe) = make_probe(&self.master)
        {
            (self.probe, self.probes) = (probe, 0);
        }
    }

    /// An authentic packet of a new source has come.
    fn admit(&mut self, kind: Kind, ssrc: u32) {
        if self.rtp_sources.len() + self.rtcp_sources.len() >= SOURCES_MAX
            && let Ok(context) = make_context(&self.master, "remote")
        {
            self.context = context;
            self.rtp_sources.clear();
            self.rtcp_sources.clear();
        }
        match kind {
            Kind::Rtp => self.rtp_sources.insert(ssrc),
            Kind::Rtcp => self.rtcp_sources.insert(ssrc),
        };
    }
}

fn make_context(key: &MasterKey, direction: &'static str) -> Result<Context, MediaError> {
    let (master_key, master_salt) = key.parts();
    let rtp_window = Some(srtp_replay_protection(REPLAY_WINDOW));
    let control_window = Some(srtcp_replay_protection(REPLAY_WINDOW));
    Context::new(master_key, master_salt, profile_of(key.suite()), rtp_window, control_window)
        .map_err(|error| MediaError::Key { direction, cause: error.to_string() })
}

/// A context without window: a forged packet, which the library shows to the window before it authenticates it, cannot
/// make it refuse what comes next.
fn make_probe(key: &MasterKey) -> Result<Context, MediaError> {
    let (master_key, master_salt) = key.parts();
    Context::new(master_key, master_salt, profile_of(key.suite()), None, None)
        .map_err(|error| MediaError::Key { direction: "remote", cause: error.to_string() })
}

fn profile_of(suite: Suite) -> ProtectionProfile {
    match suite {
        Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::AesCm256HmacSha1_80 => ProtectionProfile::Aes256CmHmacSha1_80,
    }
}

fn rtp_tag_bytes(suite: Suite) -> usize {
    match suite {
        Suite::AesCm128HmacSha1_80 | Suite::AesCm256HmacSha1_80 => 10,
        Suite::AesCm128HmacSha1_32 => 4,
    }
}

fn ssrc_of(kind: Kind, bytes: &[u8]) -> Option<u32> {
    let at = match kind {
        Kind::Rtp => bytes.get(8..12),
        Kind::Rtcp => bytes.get(4..8),
    };
    at?.first_chunk::<4>().map(|ssrc| u32::from_be_bytes(*ssrc))
}

/// Takes the MKI out from before the tag, where it stands in SRTP and SRTCP alike (RFC 3711 §3.1, §3.4).
fn strip_mki(kind: Kind, bytes: &[u8], tag_bytes: usize, mki_bytes: usize) -> Option<Vec<u8>> {
    let (head, tag) = bytes.split_at_checked(bytes.len().checked_sub(tag_bytes)?)?;
    let head = head.get(..head.len().checked_sub(mki_bytes)?)?;
    let shortest = match kind {
        Kind::Rtp => packet::header_bytes(head)?,
        Kind::Rtcp => 8 + 4,
    };
    (head.len() >= shortest).then(|| [head, tag].concat())
}

fn decrypt(context: &mut Context, kind: Kind, bytes: &[u8], tag_bytes: usize) -> Result<Bytes, Rejection> {
    let result = match kind {
        Kind::Rtp => {
            let length = packet::header_bytes(bytes).filter(|length| length + tag_bytes <= bytes.len());
            let mut header = bytes.get(..length.ok_or(Rejection::Malformed)?).unwrap_or_default().to_vec();
            hide_extension(&mut header);
            let Ok(header) = Unmarshal::unmarshal(&mut header.as_slice()) else { return Err(Rejection::Malformed) };
            context.decrypt_rtp_with_header(bytes, &header)
        }
        Kind::Rtcp => {
            let flag = bytes.len().checked_sub(tag_bytes + 4).and_then(|at| bytes.get(at));
            if flag.is_none_or(|byte| byte & 0x80 == 0) {
                return Err(Rejection::Malformed);
            }
            context.decrypt_rtcp(bytes)
        }
    };
    result.map_err(|error| match error {
        webrtc_srtp::Error::SrtpSsrcDuplicated(..) | webrtc_srtp::Error::SrtcpSsrcDuplicated(..) => Rejection::Replayed,
        _ => Rejection::Unauthentic,
    })
}

/// Gives the extension a profile that the library does not look into. Only the header's length is needed from it.
fn hide_extension(header: &mut [u8]) {
    let Some(first) = header.first().copied().filter(|first| first & 0x10 != 0) else { return };
    let at = 12 + 4 * usize::from(first & 0x0f);
    if let Some(profile) = header.get_mut(at..at + 2) {
        profile.fill(0);
    }
}

#[cfg(test)]
mod tests;
