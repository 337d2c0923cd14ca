//! Credentials for challenges, RFC 3261 §22: which realms we know, and which requests carry their answer beforehand.
//!
//! A WWW challenge belongs to the host of the Request-URI that it was made for, a proxy challenge to every request.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;

use crate::digest::{self, Challenge};
use crate::event::Account;
use crate::message::{Method, Request, Response};

/// Realms remembered: a server that invents realms must not fill the memory.
const REALMS_MAX: usize = 32;

/// Which pair of header fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Server,
    Proxy,
}

impl Kind {
    fn challenge_header(self) -> &'static str {
        match self {
            Self::Server => "WWW-Authenticate",
            Self::Proxy => "Proxy-Authenticate",
        }
    }

    fn credentials_header(self) -> &'static str {
        match self {
            Self::Server => "Authorization",
            Self::Proxy => "Proxy-Authorization",
        }
    }
}

/// A realm that a request has answered already.
pub(crate) type Tried = Vec<(Kind, String)>;

#[derive(Debug)]
struct Known {
    session: digest::Session,
    /// Host of the Request-URI; `None` for proxies.
    host: Option<String>,
}

/// The accounts, and the nonces in use.
#[derive(Debug)]
pub(crate) struct Realms {
    accounts: Vec<Account>,
    known: BTreeMap<(Kind, String), Known>,
}

impl Realms {
    pub(crate) fn new(accounts: Vec<Account>) -> Self {
        Self { accounts, known: BTreeMap::new() }
    }

    /// Adds the credentials of every known realm that the request is for (RFC 3261 §22.2, §22.3), each with its next `nc`.
    pub(crate) fn authorize(&mut self, request: &mut Request) {
        request.headers.remove("Authorization");
        request.headers.remove("Proxy-Authorization");
        if matches!(request.method, Method::Ack | Method::Cancel) {
            return;
        }
        let uri = request.uri.to_string();
        let host = request.uri.host.to_string();
        for ((kind, _), known) in &mut self.known {
            if known.host.as_ref().is_none_or(|scope| scope.eq_ignore_ascii_case(&host)) {
                let value = known.session.authorize(&request.method, &uri, &request.body);
                request.headers.push(kind.credentials_header(), value.to_string());
            }
        }
    }

    /// Learns from a 401 or 407. True if the request is worth repeating: some challenge can be answered, and it
    /// is not one that the same credentials were refused for just now.
    pub(crate) fn learn(
        &mut self,
        request: &Request,
        response: &Response,
        tried: &mut Tried,
        rng: &mut ChaCha20Rng,
    ) -> bool {
        let kind = if response.status == 407 { Kind::Proxy } else { Kind::Server };
        let mut answered = false;
        for challenge in digest::challenges(&response.headers, kind.challenge_header()) {
            let key = (kind, challenge.realm.clone());
            let refused = tried.contains(&key) && !challenge.stale;
            if refused {
                self.known.remove(&key);
                continue;
            }
            let Some(account) = self.account(&challenge) else { continue };
            let session = digest::Session::new(challenge, &account.user, account.password.clone(), rng);
            let host = (kind == Kind::Server).then(|| request.uri.host.to_string());
            if self.known.len() >= REALMS_MAX {
                self.known.pop_first();
            }
            self.known.insert(key.clone(), Known { session, host });
            if !tried.contains(&key) {
                tried.push(key);
            }
            answered = true;
        }
        answered
    }

    fn account(&self, challenge: &Challenge) -> Option<&Account> {
        self.accounts.iter().find(|account| account.realm.as_ref().is_none_or(|realm| *realm == challenge.realm))
    }
}
