//! Long-term credentials, RFC 8489 §9.2: what a 401 or 438 teaches, and how the next request shows it.
//!
//! Also the time-limited form of the "TURN REST API" that coturn and the embedded relay accept.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::config::{RelayCredentials, Secret};
use crate::stun::{Attribute, Builder, Integrity, Key, Message, PasswordAlgorithm};

/// A nonce that starts so announces security features in its next four characters (RFC 8489 §9.2).
const NONCE_COOKIE: &[u8] = b"obMatJos2";

/// What one server wants to see, until it says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Session {
    user: String,
    pub(super) realm: Vec<u8>,
    nonce: Vec<u8>,
    /// As offered by the server, to be echoed; empty = the server knows MD5 and SHA-1 only.
    algorithms: Vec<PasswordAlgorithm>,
    chosen: PasswordAlgorithm,
    key: Key,
}

impl Session {
    /// Reads a 401 or 438; the error says what is missing in it.
    pub(super) fn from_challenge(answer: &Message<'_>, credentials: &RelayCredentials) -> Result<Self, &'static str> {
        let realm = answer.realm().ok_or("no REALM")?.to_vec();
        let nonce = answer.nonce().ok_or("no NONCE")?.to_vec();
        let algorithms = answer.password_algorithms().unwrap_or_default();
        if algorithms.is_empty() && announces_algorithms(&nonce) {
            // RFC 8489 §9.2.1: somebody took PASSWORD-ALGORITHMS out to weaken the hash.
            return Err("PASSWORD-ALGORITHMS announced in the nonce, but missing");
        }
        let known = [PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5];
        let best = known.into_iter().find(|algorithm| algorithms.contains(algorithm));
        let chosen = match best {
            Some(algorithm) => algorithm,
            None if algorithms.is_empty() => PasswordAlgorithm::Md5,
            None => return Err("only unknown PASSWORD-ALGORITHMS"),
        };
        let user = credentials.username.clone();
        let key = Key::long_term(user.as_bytes(), &realm, credentials.password.expose().as_bytes(), chosen);
        Ok(Self { user, realm, nonce, algorithms, chosen, key })
    }

    /// Appends USERNAME, REALM, NONCE, the algorithm, and the integrity.
    pub(super) fn sign<'k>(&'k self, request: Builder<'k>) -> Vec<u8> {
        let request = request
            .with(&Attribute::Username(self.user.as_bytes()))
            .with(&Attribute::Realm(&self.realm))
            .with(&Attribute::Nonce(&self.nonce));
        if self.algorithms.is_empty() {
            return request.integrity(Integrity::Sha1, &self.key).build();
        }
        request
            .with(&Attribute::PasswordAlgorithms(self.algorithms.clone()))
            .with(&Attribute::PasswordAlgorithm(self.chosen))
            .integrity(Integrity::Sha256, &self.key)
            .build()
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

/// Bit 0 of the 24 feature bits behind the nonce cookie (RFC 8489 §18.1): the last one says erratum 6290, the first one
/// says the example of RFC 8656 §20. Neither place has another meaning.
fn announces_algorithms(nonce: &[u8]) -> bool {
    let Some(features) = nonce.strip_prefix(NONCE_COOKIE).and_then(|rest| rest.get(..4)) else { return false };
    let bits = BASE64_STANDARD.decode(features).unwrap_or_default();
    matches!(bits.as_slice(), [first, _, last] if first & 0x80 != 0 || last & 0x01 != 0)
}

/// `<unix expiry>:<user>`: the user name of time-limited credentials.
pub fn rest_username(expiry_unix_s: u64, user: &str) -> String {
    format!("{expiry_unix_s}:{user}")
}

/// The password that belongs to such a name: base64 of HMAC-SHA1. Used as text, never decoded.
pub fn rest_password(secret: &Secret, username: &str) -> Secret {
    let Ok(mut mac) = <Hmac<Sha1> as KeyInit>::new_from_slice(secret.expose().as_bytes()) else {
        return Secret::new("");
    };
    mac.update(username.as_bytes());
    Secret::new(BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// When such a name expires, in Unix seconds. Like coturn: the digits may stand on either side of the colon.
pub fn rest_expiry(username: &str) -> Option<u64> {
    let (before, after) = username.split_once(':').unwrap_or((username, ""));
    before.parse().or_else(|_| after.parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_password_is_that_of_coturn() {
        let secret = Secret::new("edge-lab-secret");
        assert_eq!(rest_username(1_767_225_600, "alice"), "1767225600:alice");
        assert_eq!(rest_password(&secret, "1767225600:alice").expose(), "05jEHr12im4bMl4yybc+61bnap8=");
    }

    #[test]
    fn the_expiry_is_read_from_either_side() {
        let cases = [
            ("1767225600:alice", Some(1_767_225_600)),
            ("alice:1767225600", Some(1_767_225_600)),
            ("1767225600", Some(1_767_225_600)),
            ("alice", None),
            ("alice:bob", None),
        ];
        for (name, want) in cases {
            assert_eq!(rest_expiry(name), want, "case: {name}");
        }
    }

    #[test]
    fn only_the_nonce_cookie_announces_password_algorithms() {
        let cases = [
            ("obMatJos2gAAAxyz", true),
            ("obMatJos2AAABxyz", true),
            ("obMatJos2AAACxyz", false),
            ("obMatJos2AAAAxyz", false),
            ("gAAAxyz", false),
            ("obMatJos2", false),
        ];
        for (nonce, want) in cases {
            assert_eq!(announces_algorithms(nonce.as_bytes()), want, "case: {nonce}");
        }
    }
}
