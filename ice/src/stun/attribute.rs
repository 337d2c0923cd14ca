//! STUN attributes: the registry of RFC 8489 §18.3, RFC 8445 §16, RFC 8656 §18 and the Microsoft additions.
//!
//! [`Attribute`] is the typed view, for reading and for building. A value that breaks its format reads as
//! malformed; a type without a variant is kept whole as [`Attribute::Unknown`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::message::TransactionId;

/// Attribute type code, RFC 8489 §14.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeType(pub u16);

macro_rules! attribute_types {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        impl AttributeType {
            $(#[doc = concat!("`", $text, "`")] pub const $name: Self = Self($code);)*

            /// The name in the registry, if this crate knows the type.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

attribute_types! {
    MAPPED_ADDRESS = 0x0001, "MAPPED-ADDRESS";
    USERNAME = 0x0006, "USERNAME";
    MESSAGE_INTEGRITY = 0x0008, "MESSAGE-INTEGRITY";
    ERROR_CODE = 0x0009, "ERROR-CODE";
    UNKNOWN_ATTRIBUTES = 0x000A, "UNKNOWN-ATTRIBUTES";
    CHANNEL_NUMBER = 0x000C, "CHANNEL-NUMBER";
    LIFETIME = 0x000D, "LIFETIME";
    XOR_PEER_ADDRESS = 0x0012, "XOR-PEER-ADDRESS";
    DATA = 0x0013, "DATA";
    REALM = 0x0014, "REALM";
    NONCE = 0x0015, "NONCE";
    XOR_RELAYED_ADDRESS = 0x0016, "XOR-RELAYED-ADDRESS";
    REQUESTED_ADDRESS_FAMILY = 0x0017, "REQUESTED-ADDRESS-FAMILY";
    EVEN_PORT = 0x0018, "EVEN-PORT";
    REQUESTED_TRANSPORT = 0x0019, "REQUESTED-TRANSPORT";
    DONT_FRAGMENT = 0x001A, "DONT-FRAGMENT";
    MESSAGE_INTEGRITY_SHA256 = 0x001C, "MESSAGE-INTEGRITY-SHA256";
    PASSWORD_ALGORITHM = 0x001D, "PASSWORD-ALGORITHM";
    USERHASH = 0x001E, "USERHASH";
    XOR_MAPPED_ADDRESS = 0x0020, "XOR-MAPPED-ADDRESS";
    RESERVATION_TOKEN = 0x0022, "RESERVATION-TOKEN";
    PRIORITY = 0x0024, "PRIORITY";
    USE_CANDIDATE = 0x0025, "USE-CANDIDATE";
    CONNECTION_ID = 0x002A, "CONNECTION-ID";
    ADDITIONAL_ADDRESS_FAMILY = 0x8000, "ADDITIONAL-ADDRESS-FAMILY";
    ADDRESS_ERROR_CODE = 0x8001, "ADDRESS-ERROR-CODE";
    PASSWORD_ALGORITHMS = 0x8002, "PASSWORD-ALGORITHMS";
    ALTERNATE_DOMAIN = 0x8003, "ALTERNATE-DOMAIN";
    ICMP = 0x8004, "ICMP";
    SOFTWARE = 0x8022, "SOFTWARE";
    ALTERNATE_SERVER = 0x8023, "ALTERNATE-SERVER";
    FINGERPRINT = 0x8028, "FINGERPRINT";
    ICE_CONTROLLED = 0x8029, "ICE-CONTROLLED";
    ICE_CONTROLLING = 0x802A, "ICE-CONTROLLING";
    CANDIDATE_IDENTIFIER = 0x8054, "CANDIDATE-IDENTIFIER";
    IMPLEMENTATION_VERSION = 0x8070, "IMPLEMENTATION-VERSION";
    NOMINATION = 0xC001, "NOMINATION";
}

impl AttributeType {
    /// Whether a receiver that does not know the type must reject the message (RFC 8489 §14).
    pub fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:04x}", self.0),
        }
    }
}

impl fmt::Debug for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Address family, RFC 8489 §14.1 and RFC 8656 §18.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }
}

/// How the long-term key is derived, RFC 8489 §18.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PasswordAlgorithm {
    Md5,
    Sha256,
    /// Registered after this crate was written; never chosen.
    Other(u16),
}

impl PasswordAlgorithm {
    fn code(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Md5,
            2 => Self::Sha256,
            other => Self::Other(other),
        }
    }
}

/// UDP's protocol number in REQUESTED-TRANSPORT, RFC 8656 §18.8.
pub const TRANSPORT_UDP: u8 = 17;

/// One attribute. Addresses of the XOR-… kinds are already un-XORed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute<'a> {
    MappedAddress(SocketAddr),
    /// Opaque: the Microsoft dialects pad it with NULs, see [`super::Wire`].
    Username(&'a [u8]),
    MessageIntegrity(&'a [u8]),
    MessageIntegritySha256(&'a [u8]),
    Fingerprint(u32),
    /// Code 300..=699 and reason phrase (RFC 8489 §14.8).
    ErrorCode(u16, &'a str),
    UnknownAttributes(Vec<AttributeType>),
    Realm(&'a [u8]),
    Nonce(&'a [u8]),
    PasswordAlgorithm(PasswordAlgorithm),
    PasswordAlgorithms(Vec<PasswordAlgorithm>),
    UserHash([u8; 32]),
    XorMappedAddress(SocketAddr),
    Software(&'a str),
    AlternateServer(SocketAddr),
    AlternateDomain(&'a str),
    ChannelNumber(u16),
    /// Whole seconds (RFC 8656 §18.2).
    Lifetime(Duration),
    XorPeerAddress(SocketAddr),
    Data(&'a [u8]),
    XorRelayedAddress(SocketAddr),
    RequestedAddressFamily(Family),
    AdditionalAddressFamily(Family),
    AddressErrorCode(Family, u16, &'a str),
    /// True: reserve the next port too (RFC 8656 §18.7).
    EvenPort(bool),
    /// IP protocol number, [`TRANSPORT_UDP`].
    RequestedTransport(u8),
    DontFragment,
    ReservationToken([u8; 8]),
    ConnectionId(u32),
    /// ICMP type, code and error data (RFC 8656 §18.13).
    Icmp(u8, u8, [u8; 4]),
    Priority(u32),
    UseCandidate,
    IceControlled(u64),
    IceControlling(u64),
    /// Renomination value of draft-thatcher-ice-renomination; larger wins.
    Nomination(u32),
    /// Foundation of the sender's candidate, NUL padded (\[MS-ICE2\] §2.2).
    CandidateIdentifier(&'a [u8]),
    ImplementationVersion(u32),
    Unknown(AttributeType, &'a [u8]),
}

impl<'a> Attribute<'a> {
    /// The type code under which the attribute is written.
    pub fn attribute_type(&self) -> AttributeType {
        match self {
            Self::MappedAddress(_) => AttributeType::MAPPED_ADDRESS,
            Self::Username(_) => AttributeType::USERNAME,
            Self::MessageIntegrity(_) => AttributeType::MESSAGE_INTEGRITY,
            Self::MessageIntegritySha256(_) => AttributeType::MESSAGE_INTEGRITY_SHA256,
            Self::Fingerprint(_) => AttributeType::FINGERPRINT,
            Self::ErrorCode(..) => AttributeType::ERROR_CODE,
            Self::UnknownAttributes(_) => AttributeType::UNKNOWN_ATTRIBUTES,
            Self::Realm(_) => AttributeType::REALM,
            Self::Nonce(_) => AttributeType::NONCE,
            Self::PasswordAlgorithm(_) => AttributeType::PASSWORD_ALGORITHM,
            Self::PasswordAlgorithms(_) => AttributeType::PASSWORD_ALGORITHMS,
            Self::UserHash(_) => AttributeType::USERHASH,
            Self::XorMappedAddress(_) => AttributeType::XOR_MAPPED_ADDRESS,
            Self::Software(_) => AttributeType::SOFTWARE,
            Self::AlternateServer(_) => AttributeType::ALTERNATE_SERVER,
            Self::AlternateDomain(_) => AttributeType::ALTERNATE_DOMAIN,
            Self::ChannelNumber(_) => AttributeType::CHANNEL_NUMBER,
            Self::Lifetime(_) => AttributeType::LIFETIME,
            Self::XorPeerAddress(_) => AttributeType::XOR_PEER_ADDRESS,
            Self::Data(_) => AttributeType::DATA,
            Self::XorRelayedAddress(_) => AttributeType::XOR_RELAYED_ADDRESS,
            Self::RequestedAddressFamily(_) => AttributeType::REQUESTED_ADDRESS_FAMILY,
            Self::AdditionalAddressFamily(_) => AttributeType::ADDITIONAL_ADDRESS_FAMILY,
            Self::AddressErrorCode(..) => AttributeType::ADDRESS_ERROR_CODE,
            Self::EvenPort(_) => AttributeType::EVEN_PORT,
            Self::RequestedTransport(_) => AttributeType::REQUESTED_TRANSPORT,
            Self::DontFragment => AttributeType::DONT_FRAGMENT,
            Self::ReservationToken(_) => AttributeType::RESERVATION_TOKEN,
            Self::ConnectionId(_) => AttributeType::CONNECTION_ID,
            Self::Icmp(..) => AttributeType::ICMP,
            Self::Priority(_) => AttributeType::PRIORITY,
            Self::UseCandidate => AttributeType::USE_CANDIDATE,
            Self::IceControlled(_) => AttributeType::ICE_CONTROLLED,
            Self::IceControlling(_) => AttributeType::ICE_CONTROLLING,
            Self::Nomination(_) => AttributeType::NOMINATION,
            Self::CandidateIdentifier(_) => AttributeType::CANDIDATE_IDENTIFIER,
            Self::ImplementationVersion(_) => AttributeType::IMPLEMENTATION_VERSION,
            Self::Unknown(attribute_type, _) => *attribute_type,
        }
    }

    /// Reads a value; `None` if it breaks the format of its type.
    pub(super) fn decode(attribute_type: AttributeType, value: &'a [u8], id: TransactionId) -> Option<Self> {
        Some(match attribute_type {
            AttributeType::MAPPED_ADDRESS => Self::MappedAddress(decode_address(value, None)?),
            AttributeType::USERNAME => Self::Username(value),
            AttributeType::MESSAGE_INTEGRITY => Self::MessageIntegrity(value),
            AttributeType::MESSAGE_INTEGRITY_SHA256 => Self::MessageIntegritySha256(value),
            AttributeType::FINGERPRINT => Self::Fingerprint(decode_u32(value)?),
            AttributeType::ERROR_CODE => decode_error(value).map(|(_, code, reason)| Self::ErrorCode(code, reason))?,
            AttributeType::UNKNOWN_ATTRIBUTES => Self::UnknownAttributes(decode_types(value)),
            AttributeType::REALM => Self::Realm(value),
            AttributeType::NONCE => Self::Nonce(value),
            AttributeType::PASSWORD_ALGORITHM => Self::PasswordAlgorithm(*decode_algorithms(value)?.first()?),
            AttributeType::PASSWORD_ALGORITHMS => Self::PasswordAlgorithms(decode_algorithms(value)?),
            AttributeType::USERHASH => Self::UserHash(value.try_into().ok()?),
            AttributeType::XOR_MAPPED_ADDRESS => Self::XorMappedAddress(decode_address(value, Some(id))?),
            AttributeType::SOFTWARE => Self::Software(std::str::from_utf8(value).ok()?),
            AttributeType::ALTERNATE_SERVER => Self::AlternateServer(decode_address(value, None)?),
            AttributeType::ALTERNATE_DOMAIN => Self::AlternateDomain(std::str::from_utf8(value).ok()?),
            other => return Self::decode_turn_or_ice(other, value, id),
        })
    }

    fn decode_turn_or_ice(attribute_type: AttributeType, value: &'a [u8], id: TransactionId) -> Option<Self> {
        Some(match attribute_type {
            AttributeType::CHANNEL_NUMBER => Self::ChannelNumber(u16::from_be_bytes(*value.first_chunk()?)),
            AttributeType::LIFETIME => Self::Lifetime(Duration::from_secs(u64::from(decode_u32(value)?))),
            AttributeType::XOR_PEER_ADDRESS => Self::XorPeerAddress(decode_address(value, Some(id))?),
            AttributeType::DATA => Self::Data(value),
            AttributeType::XOR_RELAYED_ADDRESS => Self::XorRelayedAddress(decode_address(value, Some(id))?),
            AttributeType::REQUESTED_ADDRESS_FAMILY => Self::RequestedAddressFamily(decode_family(value)?),
            AttributeType::ADDITIONAL_ADDRESS_FAMILY => Self::AdditionalAddressFamily(decode_family(value)?),
            AttributeType::ADDRESS_ERROR_CODE => {
                let (family, code, reason) = decode_error(value)?;
                Self::AddressErrorCode(Family::from_code(family)?, code, reason)
            }
            AttributeType::EVEN_PORT => Self::EvenPort(value.first()? & 0x80 != 0),
            AttributeType::REQUESTED_TRANSPORT => Self::RequestedTransport(*value.first()?),
            AttributeType::DONT_FRAGMENT => Self::DontFragment,
            AttributeType::RESERVATION_TOKEN => Self::ReservationToken(value.try_into().ok()?),
            AttributeType::CONNECTION_ID => Self::ConnectionId(decode_u32(value)?),
            AttributeType::ICMP => match *value {
                [_, _, kind, code, a, b, c, d] => Self::Icmp(kind, code, [a, b, c, d]),
                _ => return None,
            },
            AttributeType::PRIORITY => Self::Priority(decode_u32(value)?),
            AttributeType::USE_CANDIDATE => Self::UseCandidate,
            AttributeType::ICE_CONTROLLED => Self::IceControlled(u64::from_be_bytes(value.try_into().ok()?)),
            AttributeType::ICE_CONTROLLING => Self::IceControlling(u64::from_be_bytes(value.try_into().ok()?)),
            AttributeType::NOMINATION => Self::Nomination(decode_u32(value)?),
            AttributeType::CANDIDATE_IDENTIFIER => Self::CandidateIdentifier(value),
            AttributeType::IMPLEMENTATION_VERSION => Self::ImplementationVersion(decode_u32(value)?),
            other => Self::Unknown(other, value),
        })
    }

    /// Appends the value, without padding.
    pub(super) fn encode(&self, id: TransactionId, out: &mut Vec<u8>) {
        match self {
            Self::MappedAddress(address) | Self::AlternateServer(address) => encode_address(*address, None, out),
            Self::XorMappedAddress(address) | Self::XorPeerAddress(address) | Self::XorRelayedAddress(address) => {
                encode_address(*address, Some(id), out);
            }
            Self::Username(value)
            | Self::MessageIntegrity(value)
            | Self::MessageIntegritySha256(value)
            | Self::Realm(value)
            | Self::Nonce(value)
            | Self::Data(value)
            | Self::CandidateIdentifier(value)
            | Self::Unknown(_, value) => out.extend_from_slice(value),
            Self::Software(text) | Self::AlternateDomain(text) => out.extend_from_slice(text.as_bytes()),
            Self::Fingerprint(value)
            | Self::ConnectionId(value)
            | Self::Priority(value)
            | Self::Nomination(value)
            | Self::ImplementationVersion(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::ErrorCode(code, reason) => encode_error(0, *code, reason, out),
            Self::AddressErrorCode(family, code, reason) => encode_error(family.code(), *code, reason, out),
            Self::UnknownAttributes(types) => {
                out.extend(types.iter().flat_map(|attribute_type| attribute_type.0.to_be_bytes()));
            }
            Self::PasswordAlgorithm(algorithm) => encode_algorithm(*algorithm, out),
            Self::PasswordAlgorithms(list) => list.iter().for_each(|algorithm| encode_algorithm(*algorithm, out)),
            Self::UserHash(hash) => out.extend_from_slice(hash),
            Self::ChannelNumber(number) => out.extend_from_slice(&(u32::from(*number) << 16).to_be_bytes()),
            Self::Lifetime(lifetime) => {
                out.extend_from_slice(&u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
            }
            Self::RequestedAddressFamily(family) | Self::AdditionalAddressFamily(family) => {
                out.extend_from_slice(&[family.code(), 0, 0, 0]);
            }
            Self::EvenPort(reserve) => out.push(if *reserve { 0x80 } else { 0 }),
            Self::RequestedTransport(protocol) => out.extend_from_slice(&[*protocol, 0, 0, 0]),
            Self::DontFragment | Self::UseCandidate => {}
            Self::ReservationToken(token) => out.extend_from_slice(token),
            Self::Icmp(kind, code, [a, b, c, d]) => out.extend_from_slice(&[0, 0, *kind, *code, *a, *b, *c, *d]),
            Self::IceControlled(value) | Self::IceControlling(value) => out.extend_from_slice(&value.to_be_bytes()),
        }
    }
}

fn decode_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn decode_family(value: &[u8]) -> Option<Family> {
    Family::from_code(*value.first()?)
}

/// (family byte or 0, code, reason): ERROR-CODE and ADDRESS-ERROR-CODE share the layout (RFC 8489 §14.8).
fn decode_error(value: &[u8]) -> Option<(u8, u16, &str)> {
    let ([family, _, class, number], reason) = value.split_first_chunk()?;
    let class = u16::from(class & 0x07);
    if !(3..=6).contains(&class) || *number > 99 {
        return None;
    }
    // The phrase is for people: a server that sends Latin-1 must not cost us the code.
    Some((*family, class * 100 + u16::from(*number), std::str::from_utf8(reason).unwrap_or("")))
}

fn encode_error(family: u8, code: u16, reason: &str, out: &mut Vec<u8>) {
    let class = u8::try_from(code / 100 % 8).unwrap_or(0);
    let number = u8::try_from(code % 100).unwrap_or(0);
    out.extend_from_slice(&[family, 0, class, number]);
    out.extend_from_slice(reason.as_bytes());
}

fn decode_types(value: &[u8]) -> Vec<AttributeType> {
    let (pairs, _) = value.as_chunks::<2>();
    pairs.iter().map(|pair| AttributeType(u16::from_be_bytes(*pair))).collect()
}

/// RFC 8489 §14.11: algorithm, length of parameters, parameters padded to 4.
fn decode_algorithms(mut value: &[u8]) -> Option<Vec<PasswordAlgorithm>> {
    let mut list = Vec::new();
    while !value.is_empty() {
        let ([a, b, c, d], rest) = value.split_first_chunk()?;
        list.push(PasswordAlgorithm::from_code(u16::from_be_bytes([*a, *b])));
        let parameters = usize::from(u16::from_be_bytes([*c, *d])).next_multiple_of(4);
        value = rest.get(parameters..).or_else(|| rest.is_empty().then_some(rest))?;
    }
    Some(list)
}

fn encode_algorithm(algorithm: PasswordAlgorithm, out: &mut Vec<u8>) {
    out.extend_from_slice(&algorithm.code().to_be_bytes());
    out.extend_from_slice(&[0, 0]);
}

/// RFC 8489 §14.1, §14.2. The XOR key is the magic cookie and transaction id as they stand in the header,
/// which is also what the dialects without a cookie do.
fn decode_address(value: &[u8], xor: Option<TransactionId>) -> Option<SocketAddr> {
    let ([_, family, port_high, port_low], ip) = value.split_first_chunk()?;
    let key = xor.map_or([0; 16], TransactionId::header_bytes);
    let [k0, k1, k2, k3, ..] = key;
    let port = u16::from_be_bytes([port_high ^ k0, port_low ^ k1]);
    let ip = match Family::from_code(*family)? {
        Family::V4 => {
            let [a, b, c, d]: [u8; 4] = ip.try_into().ok()?;
            IpAddr::V4(Ipv4Addr::new(a ^ k0, b ^ k1, c ^ k2, d ^ k3))
        }
        Family::V6 => {
            let mut octets: [u8; 16] = ip.try_into().ok()?;
            octets.iter_mut().zip(key).for_each(|(octet, key)| *octet ^= key);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    };
    Some(SocketAddr::new(ip, port))
}

fn encode_address(address: SocketAddr, xor: Option<TransactionId>, out: &mut Vec<u8>) {
    let key = xor.map_or([0; 16], TransactionId::header_bytes);
    out.extend_from_slice(&[0, Family::of(address.ip()).code()]);
    let port = address.port().to_be_bytes();
    out.extend(port.iter().zip(key).map(|(byte, key)| byte ^ key));
    match address.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets().iter().zip(key).map(|(byte, key)| byte ^ key)),
        IpAddr::V6(ip) => out.extend(ip.octets().iter().zip(key).map(|(byte, key)| byte ^ key)),
    }
}
