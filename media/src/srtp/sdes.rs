//! Keys in SDP: the value of `a=crypto` (RFC 4568 §6, AES-256 by RFC 6188 §3).
//!
//! ```text
//! a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^31|1:1
//!          │ suite                          key ‖ salt, base64               lifetime │ MKI value:bytes
//!          tag: the answer repeats the tag of the line it takes (§5.1.2)
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Longest key and salt of any suite: what a caller draws at random for [`MasterKey::from_random`].
pub const KEY_AND_SALT_BYTES_MAX: usize = 46; // AES-256: 32 + 14

/// Crypto suites that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// The one every peer has (RFC 4568 §6.2.1).
    AesCm128HmacSha1_80,
    /// Shorter tag on RTP only; RTCP keeps 80 bits (RFC 4568 §6.2.2).
    AesCm128HmacSha1_32,
    /// RFC 6188 §3.
    AesCm256HmacSha1_80,
}

impl Suite {
    const ALL: [Self; 3] = [Self::AesCm128HmacSha1_80, Self::AesCm128HmacSha1_32, Self::AesCm256HmacSha1_80];

    /// The name in SDP.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
        }
    }

    /// Bytes of the master key alone.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 16,
            Self::AesCm256HmacSha1_80 => 32,
        }
    }

    /// Bytes of master key and master salt together.
    pub fn key_and_salt_bytes(self) -> usize {
        self.key_bytes() + 14
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }
}

/// A master key identifier that stands before the tag of every packet (RFC 3711 §3.1). Only its length matters to us:
/// it is cut off, because all keys we know are tried anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mki {
    /// The identifier.
    pub value: u128,
    /// Its length in each packet, 1..=128.
    pub bytes: usize,
}

/// Master key and salt of one direction. Zeroed when dropped, printed as `***`, compared in constant time.
#[derive(Clone)]
pub struct MasterKey {
    suite: Suite,
    key_and_salt: Zeroizing<Vec<u8>>,
    mki: Option<Mki>,
}

impl MasterKey {
    /// A key from random bytes (as many as the suite needs are used), without MKI.
    pub fn from_random(suite: Suite, random: &[u8; KEY_AND_SALT_BYTES_MAX]) -> Self {
        let key_and_salt = random.iter().copied().take(suite.key_and_salt_bytes()).collect();
        Self { suite, key_and_salt: Zeroizing::new(key_and_salt), mki: None }
    }

    /// The suite it belongs to.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The identifier its packets carry, if any.
    pub fn mki(&self) -> Option<Mki> {
        self.mki
    }

    /// Master key and master salt.
    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        self.key_and_salt.split_at_checked(self.suite.key_bytes()).unwrap_or((&[], &[]))
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.suite == other.suite && self.mki == other.mki && bool::from(self.key_and_salt.ct_eq(&other.key_and_salt))
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({} ***)", self.suite.name())
    }
}

/// One `a=crypto` line that we understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoAttribute {
    /// 1..=999999999, unique in its media description (RFC 4568 §4.1).
    pub tag: u32,
    /// Suite, key and MKI.
    pub key: MasterKey,
}

/// Why a line cannot be used. None of the messages holds key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdesError {
    /// Fewer than three fields.
    #[error("a=crypto needs a tag, a suite and a key, separated by one space each")]
    MissingField,
    /// The tag is no number of 1 to 9 digits.
    #[error("the a=crypto tag {0:?} is not a number of 1 to 9 digits")]
    Tag(String),
    /// A suite we do not have.
    #[error("crypto suite {0:?} is unknown; AES_CM_128_HMAC_SHA1_80 is understood by every peer")]
    Suite(String),
    /// Not exactly one `inline:` key.
    #[error("a=crypto must hold exactly one inline: key")]
    KeyMethod,
    /// Not base64, or not the length of the suite.
    #[error("the a=crypto key must be {expected} bytes in base64")]
    KeyLength {
        /// Key and salt bytes of the suite.
        expected: usize,
    },
    /// Neither `2^n` nor a number, or an MKI outside its range.
    #[error("the lifetime or MKI {0:?} of a=crypto cannot be read")]
    Lifetime(String),
    /// A session parameter that we must not ignore (RFC 4568 §6.3).
    #[error("the a=crypto session parameter {0:?} is not supported")]
    SessionParameter(String),
}

impl CryptoAttribute {
    /// A line of our own.
    pub fn new(tag: u32, key: MasterKey) -> Self {
        Self { tag, key }
    }

    /// Reads the text behind `a=crypto:`.
    ///
    /// # Errors
    ///
    /// [`SdesError`]; a line that fails is skipped by an answerer, and fails the call if it is the answer.
    pub fn parse(value: &str) -> Result<Self, SdesError> {
        let mut fields = value.split_ascii_whitespace();
        let (Some(tag), Some(suite), Some(key)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(SdesError::MissingField);
        };
        let is_tag = (1..=9).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_digit());
        let tag = tag.parse().ok().filter(|_| is_tag).ok_or_else(|| SdesError::Tag(tag.chars().take(20).collect()))?;
        let suite = Suite::from_name(suite).ok_or_else(|| SdesError::Suite(suite.chars().take(40).collect()))?;
        let key = parse_key(suite, key)?;
        for parameter in fields {
            check_session_parameter(parameter)?;
        }
        Ok(Self { tag, key })
    }

    /// Writes the text behind `a=crypto:`. It holds the key: for SDP only, never for a log.
    pub fn to_value(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(STANDARD_NO_PAD.encode(self.key.key_and_salt.as_slice()));
        let mki = self.key.mki.map(|mki| format!("|2^31|{}:{}", mki.value, mki.bytes)).unwrap_or_default();
        Zeroizing::new(format!("{} {} inline:{}{mki}", self.tag, self.key.suite.name(), key.as_str()))
    }
}

/// Picks the line to answer: the first without MKI, else the first that can be read (a Lync peer offers the same key
/// twice, the second time without MKI).
pub fn choose<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<CryptoAttribute> {
    let readable: Vec<_> = values.into_iter().filter_map(|value| CryptoAttribute::parse(value).ok()).collect();
    let plain = readable.iter().find(|attribute| attribute.key.mki.is_none());
    plain.or(readable.first()).cloned()
}

fn parse_key(suite: Suite, parameter: &str) -> Result<MasterKey, SdesError> {
    let inline = match parameter.split_at_checked(7) {
        Some((method, rest)) if method.eq_ignore_ascii_case("inline:") && !rest.contains(';') => rest,
        Some(_) | None => return Err(SdesError::KeyMethod), // several keys in a line need an MKI on our side
    };
    let mut parts = inline.split('|');
    let expected = suite.key_and_salt_bytes();
    let encoded = parts.next().unwrap_or_default();
    let decoded = if encoded.ends_with('=') { STANDARD.decode(encoded) } else { STANDARD_NO_PAD.decode(encoded) };
    let key_and_salt = Zeroizing::new(decoded.map_err(|_| SdesError::KeyLength { expected })?);
    if key_and_salt.len() != expected {
        return Err(SdesError::KeyLength { expected });
    }
    let mut mki = None;
    for part in parts {
        let unreadable = || SdesError::Lifetime(part.chars().take(40).collect());
        if let Some((value, bytes)) = part.split_once(':') {
            let value = value.parse().map_err(|_| unreadable())?;
            let bytes = bytes.parse().ok().filter(|bytes| (1..=128).contains(bytes)).ok_or_else(unreadable)?;
            mki = Some(Mki { value, bytes });
        } else {
            let digits = part.strip_prefix("2^").unwrap_or(part);
            digits.parse::<u64>().map_err(|_| unreadable())?;
        }
    }
    Ok(MasterKey { suite, key_and_salt, mki })
}

/// RFC 4568 §6.3: what is unknown and does not begin with `-` makes the line unusable; so do weaker protection, FEC
/// order and key derivation rates, which we do not have. A window size hint is satisfied by our window.
fn check_session_parameter(parameter: &str) -> Result<(), SdesError> {
    let ignorable = parameter.starts_with('-') || parameter.starts_with("WSH=") || parameter == "KDR=0";
    if ignorable { Ok(()) } else { Err(SdesError::SessionParameter(parameter.chars().take(40).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC_4568: &str = "1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

    #[test]
    fn the_example_of_the_rfc_is_read_and_written_byte_for_byte() {
        let attribute = CryptoAttribute::parse(RFC_4568).unwrap();
        assert_eq!((attribute.tag, attribute.key.suite()), (1, Suite::AesCm128HmacSha1_80));
        let (key, salt) = attribute.key.parts();
        assert_eq!((key, salt), (b"YS___semctl () {".as_slice(), b"\t220;}\n}\nunles".as_slice()));
        assert_eq!(attribute.to_value().as_str(), RFC_4568);
    }

    #[test]
    fn lifetime_and_mki_are_read_in_every_combination() {
        for (suffix, want) in
            [("", None), ("|2^31", None), ("|1048576", None), ("|2^31|1:1", Some(1)), ("|1:4", Some(4))]
        {
            let attribute = CryptoAttribute::parse(&format!("{RFC_4568}{suffix}")).unwrap();
            assert_eq!(attribute.key.mki().map(|mki| mki.bytes), want, "case: {suffix}");
        }
    }

    #[test]
    fn unusable_lines_say_why_and_never_show_the_key() {
        let key = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
        let cases = [
            ("", SdesError::MissingField),
            ("x AES_CM_128_HMAC_SHA1_80 inline:AA", SdesError::Tag("x".to_owned())),
            ("1 F8_128_HMAC_SHA1_80 inline:AA", SdesError::Suite("F8_128_HMAC_SHA1_80".to_owned())),
            ("1 AES_CM_128_HMAC_SHA1_80 uri:AA", SdesError::KeyMethod),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:AAAA", SdesError::KeyLength { expected: 30 }),
            ("1 AES_256_CM_HMAC_SHA1_80 inline:AAAA", SdesError::KeyLength { expected: 46 }),
        ];
        for (value, want) in cases {
            assert_eq!(CryptoAttribute::parse(value), Err(want), "case: {value}");
        }
        for (suffix, name) in
            [(" UNENCRYPTED_SRTCP", "weak"), (" KDR=3", "rate"), (" NEW", "unknown"), ("|2^31|1:999", "mki")]
        {
            let message = CryptoAttribute::parse(&format!("{RFC_4568}{suffix}")).unwrap_err().to_string();
            assert!(!message.contains(key), "case: {name}");
        }
        assert!(CryptoAttribute::parse(&format!("{RFC_4568} WSH=128 -x")).is_ok());
    }

    #[test]
    fn a_key_prints_no_secret_and_equals_only_itself() {
        let attribute = CryptoAttribute::parse(RFC_4568).unwrap();
        assert_eq!(format!("{:?}", attribute.key), "MasterKey(AES_CM_128_HMAC_SHA1_80 ***)");
        let other = MasterKey::from_random(Suite::AesCm128HmacSha1_80, &[7; KEY_AND_SALT_BYTES_MAX]);
        assert_ne!(attribute.key, other);
        assert_eq!(other, other.clone());
    }

    #[test]
    fn of_a_lync_offer_the_line_without_mki_is_taken() {
        let key = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
        let lines = [
            format!("2 AES_CM_128_HMAC_SHA1_80 inline:{key}|2^31|1:1"),
            format!("3 AES_CM_128_HMAC_SHA1_80 inline:{key}|2^31"),
        ];
        assert_eq!(choose(lines.iter().map(String::as_str)).unwrap().tag, 3);
        assert_eq!(choose(lines.iter().take(1).map(String::as_str)).unwrap().tag, 2);
        assert!(choose(["9 X inline:y"]).is_none());
    }
}
