//! Who may do what: long-term credentials (RFC 8489 §9.2.4), static or time-limited, and nonces with a lifetime.

use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use ice::Secret;
use ice::stun::{Attribute, Integrity, Key, Message, PasswordAlgorithm};
use ice::turn::auth;
use rand::Rng;
use sha1::Sha1;
use subtle::ConstantTimeEq;

use super::Config;
use super::lease::Lease;

/// Nonce cookie with the bit for PASSWORD-ALGORITHMS set (RFC 8489 §9.2, §18.1, erratum 6290).
const SHA256_NONCE_PREFIX: &str = "obMatJos2AAAB";

/// A request whose credentials are good.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) key: Key,
    pub(super) integrity: Integrity,
}

/// Error code of a request whose credentials are not; 401 and 438 carry a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denied(pub(super) u16);

#[derive(Debug)]
pub(super) struct Access {
    /// Nonces are signed, not stored: `<issued, ms since the start><HMAC>`.
    nonce_key: [u8; 32],
    nonce_lifetime: Duration,
    start: Instant,
    start_unix_s: u64,
    offers_sha256: bool,
}

impl Access {
    pub(super) fn new(config: &Config, rng: &mut impl Rng) -> Self {
        let (start, start_unix_s) = config.clock;
        let (nonce_lifetime, offers_sha256) = (config.nonce_lifetime, config.offers_sha256);
        let mut access = Self { nonce_key: [0; 32], nonce_lifetime, start, start_unix_s, offers_sha256 };
        access.renew(rng);
        access
    }

    /// Makes all nonces stale.
    pub(super) fn renew(&mut self, rng: &mut impl Rng) {
        rng.fill_bytes(&mut self.nonce_key);
    }

    pub(super) fn make_nonce(&self, now: Instant) -> String {
        let issued_ms = now.saturating_duration_since(self.start).as_millis();
        self.sign_nonce(&format!("{issued_ms:012x}"))
    }

    pub(super) fn offers_sha256(&self) -> bool {
        self.offers_sha256
    }

    /// RFC 8489 §9.2.4, in its order. `lease` is the allocation that the request speaks of, if there is one.
    pub(super) fn admit(
        &self,
        now: Instant,
        config: &Config,
        lease: Option<&Lease>,
        request: &Message<'_>,
    ) -> Result<Admitted, Denied> {
        let integrity = request.integrity().ok_or(Denied(401))?;
        let (Some(user), Some(realm), Some(nonce)) = (request.username(), request.realm(), request.nonce()) else {
            return Err(Denied(400));
        };
        if !self.is_fresh(now, nonce) {
            return Err(Denied(438));
        }
        let user = std::str::from_utf8(user).map_err(|_| Denied(401))?;
        let running = lease.filter(|lease| lease.user() == user).map(|lease| vec![lease.admitted.password.clone()]);
        let algorithm = chosen_algorithm(request);
        if integrity == Integrity::Sha256 && !self.offers_sha256 {
            return Err(Denied(401));
        }
        let candidates = running.unwrap_or_else(|| self.passwords(now, config, user));
        let good = candidates.into_iter().find_map(|password| {
            let key = Key::long_term(user.as_bytes(), realm, password.expose().as_bytes(), algorithm);
            request.verify(&key).is_ok().then_some((password, key))
        });
        let (password, key) = good.filter(|_| realm == config.realm.as_bytes()).ok_or(Denied(401))?;
        Ok(Admitted { user: user.to_owned(), password, key, integrity })
    }

    /// What the user's password may be today.
    fn passwords(&self, now: Instant, config: &Config, user: &str) -> Vec<Secret> {
        if let Some(password) = config.users.get(user) {
            return vec![password.clone()];
        }
        let unix_s = self.start_unix_s + now.saturating_duration_since(self.start).as_secs();
        match auth::rest_expiry(user) {
            Some(expiry) if unix_s < expiry => {
                config.secrets.iter().map(|secret| auth::rest_password(secret, user)).collect()
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn is_fresh(&self, now: Instant, nonce: &[u8]) -> bool {
        let Ok(nonce) = std::str::from_utf8(nonce) else { return false };
        let body = if self.offers_sha256 { nonce.strip_prefix(SHA256_NONCE_PREFIX) } else { Some(nonce) };
        let Some((issued, _)) = body.and_then(|body| body.split_at_checked(12)) else { return false };
        let Ok(issued_ms) = u64::from_str_radix(issued, 16) else { return false };
        let is_ours: bool = self.sign_nonce(issued).as_bytes().ct_eq(nonce.as_bytes()).into();
        let age = now.saturating_duration_since(self.start).saturating_sub(Duration::from_millis(issued_ms));
        is_ours && age <= self.nonce_lifetime
    }

    fn sign_nonce(&self, issued: &str) -> String {
        let prefix = if self.offers_sha256 { SHA256_NONCE_PREFIX } else { "" };
        let Ok(mut mac) = <Hmac<Sha1> as KeyInit>::new_from_slice(&self.nonce_key) else { return String::new() };
        mac.update(issued.as_bytes());
        let tag = mac.finalize().into_bytes();
        let tag = tag.first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight));
        format!("{prefix}{issued}{tag:016x}")
    }
}

fn chosen_algorithm(request: &Message<'_>) -> PasswordAlgorithm {
    let chosen = request.attributes().find_map(|attribute| match attribute {
        Attribute::PasswordAlgorithm(algorithm) => Some(algorithm),
        _ => None,
    });
    chosen.unwrap_or(PasswordAlgorithm::Md5)
}
