//! What differs between the STUN dialects, as data: RFC 8489, and \[MS-ICE2\] and \[MS-ICE\] of the Lync family.
//!
//! A [`Wire`] is chosen once per peer from its SDP. Codec and agent consult its fields and never ask who the peer is.

/// What MESSAGE-INTEGRITY is computed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntegrityInput {
    /// Header length while hashing: true = of the whole message, false = ends with MESSAGE-INTEGRITY (RFC 8489 §14.5).
    pub final_length: bool,
    /// The input is filled with zeros to a multiple of this many bytes; 1 = no filling.
    pub multiple_of: usize,
}

/// Whether checks carry FINGERPRINT, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FingerprintUse {
    /// draft-06 messages have none.
    Absent,
    /// RFC 8489 §14.7.
    Crc32,
    /// A second copy follows whose CRC comes from a table with one wrong entry, until the peer
    /// shows its IMPLEMENTATION-VERSION.
    Crc32AndTwin,
}

/// One dialect.
#[expect(clippy::struct_excessive_bools, reason = "a row of a table, each column with its own meaning")]
#[derive(Debug, PartialEq, Eq)]
pub struct Wire {
    pub name: &'static str,
    /// Whether the header has the magic cookie; without it the transaction id has 16 bytes.
    pub magic_cookie: bool,
    pub integrity: IntegrityInput,
    pub fingerprint: FingerprintUse,
    /// USERNAME and CANDIDATE-IDENTIFIER are NUL-padded to a multiple of this, and the padding counts in their length.
    pub text_multiple_of: usize,
    /// IMPLEMENTATION-VERSION sent in every request and response.
    pub implementation_version: Option<u32>,
    /// CANDIDATE-IDENTIFIER is sent in requests.
    pub candidate_identifier: bool,
    /// Success responses repeat the request's USERNAME.
    pub echo_username: bool,
    /// PRIORITY, USE-CANDIDATE and the role attributes are sent.
    pub ice_attributes: bool,
}

const RFC_INPUT: IntegrityInput = IntegrityInput { final_length: false, multiple_of: 1 };

/// The standard: RFC 8489 §14 with RFC 8445 §16.
pub static RFC8489: Wire = Wire {
    name: "RFC 8489",
    magic_cookie: true,
    integrity: RFC_INPUT,
    fingerprint: FingerprintUse::Crc32,
    text_multiple_of: 1,
    implementation_version: None,
    candidate_identifier: false,
    echo_username: false,
    ice_attributes: true,
};

/// \[MS-ICE2\] up to IMPLEMENTATION-VERSION 2.
pub static MS_ICE2: Wire = Wire {
    name: "MS-ICE2",
    magic_cookie: true,
    integrity: IntegrityInput { final_length: true, multiple_of: 64 },
    fingerprint: FingerprintUse::Crc32AndTwin,
    text_multiple_of: 4,
    implementation_version: Some(2),
    candidate_identifier: true,
    echo_username: true,
    ice_attributes: true,
};

/// \[MS-ICE\], draft-ietf-mmusic-ice-06.
pub static MS_ICE: Wire = Wire {
    name: "MS-ICE",
    magic_cookie: false,
    integrity: IntegrityInput { final_length: false, multiple_of: 64 },
    fingerprint: FingerprintUse::Absent,
    text_multiple_of: 4,
    implementation_version: None,
    candidate_identifier: false,
    echo_username: true,
    ice_attributes: false,
};

impl Wire {
    /// `text` as this dialect writes it into USERNAME and CANDIDATE-IDENTIFIER.
    pub fn pad_text(&self, text: &[u8]) -> Vec<u8> {
        let mut padded = text.to_vec();
        padded.resize(text.len().next_multiple_of(self.text_multiple_of), 0);
        padded
    }
}

/// A received USERNAME without the padding of the Microsoft dialects. No user name ends in NUL.
pub fn unpad_text(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    value.get(..end).unwrap_or(value)
}
