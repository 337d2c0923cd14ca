//! Keys, MESSAGE-INTEGRITY and FINGERPRINT: RFC 8489 §9, §14.5-§14.7, and the inputs of the Microsoft dialects.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::attribute::PasswordAlgorithm;
use super::wire::IntegrityInput;

/// XORed into the CRC so that it cannot collide with another protocol's (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Zero filling of the Microsoft dialects never exceeds one SHA-1 block.
const ZEROS: [u8; 64] = [0; 64];

/// Which integrity attribute is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY, RFC 8489 §14.5: what ICE and every deployed TURN server uses.
    #[default]
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256 alone, RFC 8489 §14.6: after a 401 that named PASSWORD-ALGORITHMS.
    Sha256,
}

/// Why a message is not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IntegrityError {
    #[error("the message carries no MESSAGE-INTEGRITY")]
    Missing,
    #[error("MESSAGE-INTEGRITY does not match: another password, or the message was changed on the way")]
    Mismatch,
}

/// What the FINGERPRINT of a received message says (RFC 8489 §14.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fingerprint {
    Absent,
    Valid,
    /// Matches the second CRC table of \[MS-ICE2\].
    Twin,
    Wrong,
}

/// An HMAC key. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// Short-term credentials: the password itself (RFC 8489 §9.1.1). ICE: the `ice-pwd` of the *responder*.
    pub fn short_term(password: &[u8]) -> Self {
        Self(password.to_vec())
    }

    /// Long-term credentials: hash of `user:realm:password` (RFC 8489 §9.2.2). Unknown algorithms count as MD5.
    pub fn long_term(user: &[u8], realm: &[u8], password: &[u8], algorithm: PasswordAlgorithm) -> Self {
        let parts = [user, b":", realm, b":", password];
        match algorithm {
            PasswordAlgorithm::Sha256 => {
                Self(parts.iter().fold(Sha256::new(), Digest::chain_update).finalize().to_vec())
            }
            PasswordAlgorithm::Md5 | PasswordAlgorithm::Other(_) => {
                Self(parts.iter().fold(Md5::new(), Digest::chain_update).finalize().to_vec())
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

/// HMAC-SHA1 over the part of the message before MESSAGE-INTEGRITY, with `length` in the header's length field.
pub(super) fn hmac_sha1(key: &Key, before: &[u8], length: u16, input: IntegrityInput) -> [u8; 20] {
    let Ok(mut mac) = <Hmac<Sha1> as KeyInit>::new_from_slice(&key.0) else { return [0; 20] };
    feed(&mut mac, before, length, input.multiple_of);
    mac.finalize().into_bytes().into()
}

/// HMAC-SHA256 over the part of the message before MESSAGE-INTEGRITY-SHA256. No dialect changes it.
pub(super) fn hmac_sha256(key: &Key, before: &[u8], length: u16) -> [u8; 32] {
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(&key.0) else { return [0; 32] };
    feed(&mut mac, before, length, 1);
    mac.finalize().into_bytes().into()
}

fn feed(mac: &mut impl Mac, before: &[u8], length: u16, multiple_of: usize) {
    let Some(([a, b, _, _], rest)) = before.split_first_chunk() else { return };
    mac.update(&[*a, *b]);
    mac.update(&length.to_be_bytes());
    mac.update(rest);
    let filling = before.len().next_multiple_of(multiple_of.max(1)) - before.len();
    mac.update(ZEROS.get(..filling).unwrap_or(&ZEROS));
}

/// Constant-time comparison. A SHA-256 value may be truncated to 16 bytes or more (RFC 8489 §14.6).
pub(super) fn is_same(computed: &[u8], received: &[u8]) -> bool {
    computed.get(..received.len()).is_some_and(|prefix| prefix.ct_eq(received).into())
}

/// FINGERPRINT value of `before` (everything in front of the attribute, header length already final).
pub(super) fn fingerprint(before: &[u8]) -> u32 {
    crc32fast::hash(before) ^ FINGERPRINT_XOR
}

/// The same over the table with the wrong entry 90 that old \[MS-ICE2\] peers compute with.
pub(super) fn twin_fingerprint(before: &[u8]) -> u32 {
    let crc = before.iter().fold(!0_u32, |crc, byte| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        TWIN_TABLE.get(usize::from(low)).copied().unwrap_or(0) ^ (crc >> 8)
    });
    !crc ^ FINGERPRINT_XOR
}

static TWIN_TABLE: [u32; 256] = twin_table();

#[expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "evaluated by the compiler: a mistake does not build"
)]
const fn twin_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0_u32;
    while index < 256 {
        let (mut crc, mut bit) = (index, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table[90] = 0x08BB_E8EA;
    table
}
