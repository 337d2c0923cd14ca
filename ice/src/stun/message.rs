//! STUN messages: parse without copying, build with a [`Builder`]. RFC 8489 §5, §14.
//!
//! ```text
//!  0                   1                   2                   3
//!  |0 0|   message type (14 bits)  |       length, without header  |
//!  |                  magic cookie 0x2112A442                      |
//!  |                transaction id (96 bits)                       |
//!  |  attributes: type, length, value, padding to 4 bytes …        |
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;

pub use build::Builder;

use super::attribute::{Attribute, AttributeType, PasswordAlgorithm};
use super::integrity::{self, Fingerprint, Integrity, IntegrityError, Key};
use super::wire::{self, IntegrityInput, Wire};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 20;
/// RFC 8489 §5.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

const SHA1_ATTRIBUTE_BYTES: usize = 4 + 20;
const SHA256_ATTRIBUTE_BYTES: usize = 4 + 32;
const FINGERPRINT_ATTRIBUTE_BYTES: usize = 4 + 4;

/// RFC 8489 §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// A 12-bit method, RFC 8489 §18.2 and RFC 8656 §17.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Method(pub u16);

impl Method {
    pub const BINDING: Self = Self(0x001);
    pub const ALLOCATE: Self = Self(0x003);
    pub const REFRESH: Self = Self(0x004);
    pub const SEND: Self = Self(0x006);
    pub const DATA: Self = Self(0x007);
    pub const CREATE_PERMISSION: Self = Self(0x008);
    pub const CHANNEL_BIND: Self = Self(0x009);
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BINDING => f.write_str("Binding"),
            Self::ALLOCATE => f.write_str("Allocate"),
            Self::REFRESH => f.write_str("Refresh"),
            Self::SEND => f.write_str("Send"),
            Self::DATA => f.write_str("Data"),
            Self::CREATE_PERMISSION => f.write_str("CreatePermission"),
            Self::CHANNEL_BIND => f.write_str("ChannelBind"),
            Self(other) => write!(f, "method 0x{other:03x}"),
        }
    }
}

/// The last 16 bytes of the header: magic cookie and 96-bit id, or a 128-bit id in the dialects without cookie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId([u8; 16]);

impl TransactionId {
    /// A standard id behind the magic cookie.
    pub fn new(id: [u8; 12]) -> Self {
        let mut bytes = [0; 16];
        let cookie_then_id = MAGIC_COOKIE.to_be_bytes().into_iter().chain(id);
        bytes.iter_mut().zip(cookie_then_id).for_each(|(byte, value)| *byte = value);
        Self(bytes)
    }

    /// A random standard id. It must be hard to guess: RFC 8489 §5 rests on it.
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut id = [0; 12];
        rng.fill_bytes(&mut id);
        Self::new(id)
    }

    /// A random id as `wire` has it.
    pub fn random_for(wire: &Wire, rng: &mut impl Rng) -> Self {
        if wire.magic_cookie {
            return Self::random(rng);
        }
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        Self(id)
    }

    /// All 16 bytes as they stand in the header.
    pub fn header_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().skip(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why bytes are not a STUN message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{0} bytes are too few for a STUN header of 20")]
    TooShort(usize),
    #[error("the first two bits or the magic cookie are not those of STUN")]
    NotStun,
    #[error("the header announces {announced} bytes, {present} follow")]
    Length { announced: usize, present: usize },
    #[error("the attribute at byte {at} runs past the end of the message")]
    Attribute { at: usize },
}

/// A parsed message: a view of the received bytes. The structure is valid, values are checked when read.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: Method,
    id: TransactionId,
}

impl<'a> Message<'a> {
    /// Parses exactly one standard message: a datagram, or one frame of a stream.
    ///
    /// # Errors
    ///
    /// [`ParseError`] says where the bytes stop being a STUN message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_as(&wire::RFC8489, bytes)
    }

    /// The same in a dialect.
    ///
    /// # Errors
    ///
    /// [`ParseError`] says where the bytes stop being a STUN message.
    pub fn parse_as(wire: &Wire, bytes: &'a [u8]) -> Result<Self, ParseError> {
        let Some(([t0, t1, l0, l1], rest)) = bytes.split_first_chunk() else {
            return Err(ParseError::TooShort(bytes.len()));
        };
        let Some((id, attributes)) = rest.split_first_chunk::<16>() else {
            return Err(ParseError::TooShort(bytes.len()));
        };
        let message_type = u16::from_be_bytes([*t0, *t1]);
        if message_type & 0xc000 != 0 || (wire.magic_cookie && !id.starts_with(&MAGIC_COOKIE.to_be_bytes())) {
            return Err(ParseError::NotStun);
        }
        let announced = usize::from(u16::from_be_bytes([*l0, *l1]));
        if announced != attributes.len() || announced % 4 != 0 {
            return Err(ParseError::Length { announced, present: attributes.len() });
        }
        let (class, method) = split_type(message_type);
        let message = Self { bytes, class, method, id: TransactionId(*id) };
        let mut walk = message.walk();
        walk.by_ref().for_each(drop);
        if walk.rest.is_empty() {
            Ok(message)
        } else {
            Err(ParseError::Attribute { at: bytes.len() - walk.rest.len() })
        }
    }

    pub fn class(&self) -> Class {
        self.class
    }

    pub fn method(&self) -> Method {
        self.method
    }

    pub fn transaction_id(&self) -> TransactionId {
        self.id
    }

    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Attributes in order, typed; malformed ones are skipped. What stands behind MESSAGE-INTEGRITY is not
    /// authentic and not shown, except MESSAGE-INTEGRITY-SHA256 and FINGERPRINT (RFC 8489 §14.5).
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let id = self.id;
        let mut sealed: Option<AttributeType> = None;
        self.walk().filter_map(move |raw| {
            let is_seal = matches!(
                raw.attribute_type,
                AttributeType::MESSAGE_INTEGRITY | AttributeType::MESSAGE_INTEGRITY_SHA256 | AttributeType::FINGERPRINT
            );
            if sealed.is_some() && !is_seal {
                return None;
            }
            if is_seal {
                sealed = Some(raw.attribute_type);
            }
            Attribute::decode(raw.attribute_type, raw.value, id)
        })
    }

    /// Types below 0x8000 that are not in `known` and that this crate cannot read: a request with one is answered
    /// 420, a response with one has failed, an indication with one is dropped (RFC 8489 §6.3).
    pub fn unknown_required(&self) -> Vec<AttributeType> {
        let unknown = self.attributes().filter_map(|attribute| match attribute {
            Attribute::Unknown(attribute_type, _) => Some(attribute_type),
            _ => None,
        });
        unknown.filter(|attribute_type| attribute_type.is_comprehension_required()).collect()
    }

    /// Checks MESSAGE-INTEGRITY-SHA256 if present, else MESSAGE-INTEGRITY (RFC 8489 §9.1.3).
    ///
    /// # Errors
    ///
    /// [`IntegrityError`] tells a missing from a wrong one.
    pub fn verify(&self, key: &Key) -> Result<(), IntegrityError> {
        self.verify_as(&wire::RFC8489, key)
    }

    /// The same with the hash input of a dialect.
    ///
    /// # Errors
    ///
    /// [`IntegrityError`] tells a missing from a wrong one.
    pub fn verify_as(&self, wire: &Wire, key: &Key) -> Result<(), IntegrityError> {
        let is_good = if let Some(raw) = self.find(AttributeType::MESSAGE_INTEGRITY_SHA256) {
            let length = length_until(raw.at, SHA256_ATTRIBUTE_BYTES - 32 + raw.value.len());
            let computed = integrity::hmac_sha256(key, self.before(raw.at), length);
            (16..=32).contains(&raw.value.len()) && integrity::is_same(&computed, raw.value)
        } else if let Some(raw) = self.find(AttributeType::MESSAGE_INTEGRITY) {
            let computed = self.sha1_before(raw.at, wire.integrity, key);
            raw.value.len() == computed.len() && integrity::is_same(&computed, raw.value)
        } else {
            return Err(IntegrityError::Missing);
        };
        if is_good { Ok(()) } else { Err(IntegrityError::Mismatch) }
    }

    /// Which integrity attribute the sender used, to answer in kind.
    pub fn integrity(&self) -> Option<Integrity> {
        if self.find(AttributeType::MESSAGE_INTEGRITY_SHA256).is_some() {
            return Some(Integrity::Sha256);
        }
        self.find(AttributeType::MESSAGE_INTEGRITY).map(|_| Integrity::Sha1)
    }

    /// RFC 8489 §14.7; it must be the last attribute.
    pub fn fingerprint(&self) -> Fingerprint {
        let Some(raw) = self.find(AttributeType::FINGERPRINT) else { return Fingerprint::Absent };
        let before = self.before(raw.at);
        match <[u8; 4]>::try_from(raw.value).map(u32::from_be_bytes) {
            _ if raw.at + FINGERPRINT_ATTRIBUTE_BYTES != self.bytes.len() => Fingerprint::Wrong,
            Ok(value) if value == integrity::fingerprint(before) => Fingerprint::Valid,
            Ok(value) if value == integrity::twin_fingerprint(before) => Fingerprint::Twin,
            Ok(_) | Err(_) => Fingerprint::Wrong,
        }
    }

    fn sha1_before(&self, at: usize, input: IntegrityInput, key: &Key) -> [u8; 20] {
        let whole = length_until(self.bytes.len(), 0);
        let length = if input.final_length { whole } else { length_until(at, SHA1_ATTRIBUTE_BYTES) };
        integrity::hmac_sha1(key, self.before(at), length, input)
    }

    fn before(&self, at: usize) -> &'a [u8] {
        self.bytes.get(..at).unwrap_or(self.bytes)
    }

    fn find(&self, attribute_type: AttributeType) -> Option<RawAttribute<'a>> {
        self.walk().find(|raw| raw.attribute_type == attribute_type)
    }

    fn walk(&self) -> Walk<'a> {
        Walk { rest: self.bytes.get(HEADER_BYTES..).unwrap_or_default(), at: HEADER_BYTES }
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident -> $type:ty = $pattern:pat => $value:expr;)*) => {
        /// First attribute of its kind, if present and well formed.
        impl<'a> Message<'a> {
            $($(#[$doc])* pub fn $name(&self) -> Option<$type> {
                self.attributes().find_map(|attribute| match attribute {
                    $pattern => Some($value),
                    _ => None,
                })
            })*
        }
    };
}

getters! {
    /// Without the NUL padding of the Microsoft dialects.
    username -> &'a [u8] = Attribute::Username(value) => wire::unpad_text(value);
    realm -> &'a [u8] = Attribute::Realm(value) => value;
    nonce -> &'a [u8] = Attribute::Nonce(value) => value;
    /// Code 300..=699 and reason phrase.
    error_code -> (u16, &'a str) = Attribute::ErrorCode(code, reason) => (code, reason);
    xor_mapped_address -> SocketAddr = Attribute::XorMappedAddress(address) => address;
    mapped_address -> SocketAddr = Attribute::MappedAddress(address) => address;
    xor_relayed_address -> SocketAddr = Attribute::XorRelayedAddress(address) => address;
    xor_peer_address -> SocketAddr = Attribute::XorPeerAddress(address) => address;
    data -> &'a [u8] = Attribute::Data(value) => value;
    lifetime -> Duration = Attribute::Lifetime(lifetime) => lifetime;
    channel_number -> u16 = Attribute::ChannelNumber(number) => number;
    alternate_server -> SocketAddr = Attribute::AlternateServer(address) => address;
    password_algorithms -> Vec<PasswordAlgorithm> = Attribute::PasswordAlgorithms(list) => list;
    software -> &'a str = Attribute::Software(text) => text;
    priority -> u32 = Attribute::Priority(value) => value;
    ice_controlling -> u64 = Attribute::IceControlling(value) => value;
    ice_controlled -> u64 = Attribute::IceControlled(value) => value;
    nomination -> u32 = Attribute::Nomination(value) => value;
    implementation_version -> u32 = Attribute::ImplementationVersion(value) => value;
    candidate_identifier -> &'a [u8] = Attribute::CandidateIdentifier(value) => wire::unpad_text(value);
}

impl Message<'_> {
    /// USE-CANDIDATE is present (RFC 8445 §7.1.2).
    pub fn use_candidate(&self) -> bool {
        self.attributes().any(|attribute| attribute == Attribute::UseCandidate)
    }
}

impl fmt::Debug for Message<'_> {
    /// Method, class, id and attribute types: values may be secret or long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?} ", self.method, self.class, self.id)?;
        f.debug_list().entries(self.walk().map(|raw| raw.attribute_type)).finish()
    }
}

struct RawAttribute<'a> {
    attribute_type: AttributeType,
    value: &'a [u8],
    /// Offset of the type field in the message.
    at: usize,
}

/// Walks type, length, value, padding; stops where the structure breaks, leaving `rest` not empty.
struct Walk<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Walk<'a> {
    type Item = RawAttribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let ([t0, t1, l0, l1], body) = self.rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (padded, rest) = body.split_at_checked(length.next_multiple_of(4))?;
        let attribute_type = AttributeType(u16::from_be_bytes([*t0, *t1]));
        let raw = RawAttribute { attribute_type, value: padded.get(..length)?, at: self.at };
        self.at += 4 + padded.len();
        self.rest = rest;
        Some(raw)
    }
}

/// The length field of a message that ends `more` bytes behind offset `at`.
fn length_until(at: usize, more: usize) -> u16 {
    u16::try_from(at + more - HEADER_BYTES).unwrap_or(u16::MAX)
}

/// RFC 8489 §5, Figure 3: the two class bits sit at 4 and 8 of the type.
fn split_type(message_type: u16) -> (Class, Method) {
    let class = match (message_type & 0x0100 != 0, message_type & 0x0010 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    };
    let method = (message_type & 0x000f) | ((message_type & 0x00e0) >> 1) | ((message_type & 0x3e00) >> 2);
    (class, Method(method))
}

fn join_type(class: Class, Method(method): Method) -> u16 {
    let class = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    class | (method & 0x000f) | ((method & 0x0070) << 1) | ((method & 0x0f80) << 2)
}

/// The second copy of a message for old \[MS-ICE2\] peers: the last four bytes hold the CRC of the other table.
/// `None` if the message does not end in FINGERPRINT.
pub fn fingerprint_twin(message: &[u8]) -> Option<Vec<u8>> {
    let parsed = Message::parse(message).ok()?;
    let raw = parsed.find(AttributeType::FINGERPRINT)?;
    let before = parsed.before(raw.at);
    let mut twin = message.get(..message.len().checked_sub(4)?)?.to_vec();
    twin.extend_from_slice(&integrity::twin_fingerprint(before).to_be_bytes());
    Some(twin)
}

mod build;
#[cfg(test)]
mod tests;
