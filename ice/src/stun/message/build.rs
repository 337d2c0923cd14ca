//! Building messages: attributes, then integrity, then FINGERPRINT. RFC 8489 §14.5-§14.7.

use super::{
    Class, FINGERPRINT_ATTRIBUTE_BYTES, HEADER_BYTES, Message, Method, SHA1_ATTRIBUTE_BYTES, SHA256_ATTRIBUTE_BYTES,
    TransactionId, join_type,
};
use crate::stun::attribute::Attribute;
use crate::stun::integrity::{self, Integrity, Key};
use crate::stun::wire::{self, Wire};

/// A message's length field has 16 bits and is a multiple of 4.
const ATTRIBUTES_MAX: usize = 65_532;

/// Builds one message: attributes in the order given, then integrity, then FINGERPRINT.
#[derive(Debug)]
pub struct Builder<'k> {
    pub(super) bytes: Vec<u8>,
    id: TransactionId,
    wire: &'static Wire,
    pub(super) seal: Option<(&'k Key, Integrity)>,
    fingerprint: bool,
    /// Zero as RFC 8489 §14 demands; only the samples of RFC 5769 §2 differ.
    pub(super) padding: u8,
}

impl<'k> Builder<'k> {
    pub fn new(class: Class, method: Method, id: TransactionId) -> Self {
        Self::new_as(&wire::RFC8489, class, method, id)
    }

    /// The same in a dialect.
    pub fn new_as(wire: &'static Wire, class: Class, method: Method, id: TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&join_type(class, method).to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&id.header_bytes());
        Self { bytes, id, wire, seal: None, fingerprint: false, padding: 0 }
    }

    /// The answer to `request`: same method and transaction.
    pub fn answer(class: Class, request: &Message<'_>) -> Self {
        Self::answer_as(&wire::RFC8489, class, request)
    }

    /// The same in a dialect; where that wants it, with its IMPLEMENTATION-VERSION and the USERNAME echoed.
    pub fn answer_as(wire: &'static Wire, class: Class, request: &Message<'_>) -> Self {
        let answer = Self::new_as(wire, class, request.method(), request.transaction_id());
        let echo = request.username().filter(|_| wire.echo_username && class == Class::Success);
        answer
            .with_some(echo.map(Attribute::Username))
            .with_some(wire.implementation_version.map(Attribute::ImplementationVersion))
    }

    /// Appends an attribute. One that would burst the 16-bit length of the message is left out.
    #[must_use]
    pub fn with(mut self, attribute: &Attribute<'_>) -> Self {
        let start = self.bytes.len();
        self.push(attribute);
        let sealed = self.bytes.len() - HEADER_BYTES + SHA256_ATTRIBUTE_BYTES + FINGERPRINT_ATTRIBUTE_BYTES;
        if sealed > ATTRIBUTES_MAX {
            self.bytes.truncate(start);
        }
        self
    }

    /// The same if there is one.
    #[must_use]
    pub fn with_some(self, attribute: Option<Attribute<'_>>) -> Self {
        match attribute {
            Some(attribute) => self.with(&attribute),
            None => self,
        }
    }

    /// MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 with this key.
    #[must_use]
    pub fn integrity(mut self, integrity: Integrity, key: &'k Key) -> Self {
        self.seal = Some((key, integrity));
        self
    }

    /// FINGERPRINT as the last attribute, unless the dialect has none.
    #[must_use]
    pub fn fingerprint(mut self) -> Self {
        self.fingerprint = self.wire.fingerprint != wire::FingerprintUse::Absent;
        self
    }

    pub fn build(mut self) -> Vec<u8> {
        let print_bytes = if self.fingerprint { FINGERPRINT_ATTRIBUTE_BYTES } else { 0 };
        match self.seal {
            Some((key, Integrity::Sha1)) => {
                let input = self.wire.integrity;
                let behind = if input.final_length { print_bytes } else { 0 };
                let length = self.length_with(SHA1_ATTRIBUTE_BYTES + behind);
                let mac = integrity::hmac_sha1(key, &self.bytes, length, input);
                self.push(&Attribute::MessageIntegrity(&mac));
            }
            Some((key, Integrity::Sha256)) => {
                let length = self.length_with(SHA256_ATTRIBUTE_BYTES);
                let mac = integrity::hmac_sha256(key, &self.bytes, length);
                self.push(&Attribute::MessageIntegritySha256(&mac));
            }
            None => {}
        }
        let length = self.length_with(print_bytes);
        put_u16(&mut self.bytes, 2, length);
        if self.fingerprint {
            let crc = integrity::fingerprint(&self.bytes);
            self.push(&Attribute::Fingerprint(crc));
        }
        self.bytes
    }

    pub(super) fn push(&mut self, attribute: &Attribute<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&attribute.attribute_type().0.to_be_bytes());
        self.bytes.extend_from_slice(&[0, 0]);
        match attribute {
            Attribute::Username(text) | Attribute::CandidateIdentifier(text) => {
                self.bytes.extend_from_slice(&self.wire.pad_text(text));
            }
            other => other.encode(self.id, &mut self.bytes),
        }
        let length = u16::try_from(self.bytes.len() - start - 4).unwrap_or(u16::MAX);
        put_u16(&mut self.bytes, start + 2, length);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), self.padding);
    }

    pub(super) fn length_with(&self, more: usize) -> u16 {
        u16::try_from(self.bytes.len() - HEADER_BYTES + more).unwrap_or(u16::MAX)
    }
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}
