//! The lab's registrar: who is where, RFC 3261 §10.3, with flows (RFC 5626), Path (RFC 3327), and digest (RFC 8760).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use sip::digest::{Algorithm, Challenge, Credentials, Qop};
use sip::event::{FlowId, Hop, Transport};
use sip::header::NameAddr;
use sip::message::{Request, Response};

use crate::api::Secret;

/// How long a nonce is good; then the same password is asked for again with `stale=true`.
const NONCE_LIFE: Duration = Duration::from_mins(5);
/// Nonces that are remembered; the oldest goes first.
const NONCES_MAX: usize = 4096;
/// Contacts of one user, and users with contacts.
const BINDINGS_MAX: usize = 16;

/// What may be registered.
#[derive(Debug, Clone)]
pub struct Config {
    /// The domain, also the digest realm.
    pub domain: String,
    /// User name and password.
    pub users: BTreeMap<String, Secret>,
    /// Offered in this order, which is the order of preference (RFC 8760 §2.4).
    pub algorithms: Vec<Algorithm>,
    /// Seconds: shortest (423 below it), longest, and the one for those who do not ask.
    pub min_expires: u32,
    pub max_expires: u32,
    pub default_expires: u32,
}

impl Config {
    pub fn new(domain: &str, users: BTreeMap<String, Secret>) -> Self {
        let algorithms = vec![Algorithm::Sha256, Algorithm::Md5];
        Self { domain: domain.to_owned(), users, algorithms, min_expires: 10, max_expires: 3600, default_expires: 3600 }
    }
}

/// One contact of one user.
#[derive(Debug, Clone)]
pub struct Binding {
    pub user: String,
    pub contact: NameAddr,
    /// The flow it registered over: requests go back the same way (RFC 5626 §5.3).
    pub hop: Hop,
    pub transport: Transport,
    pub expires_at: Instant,
    /// Values of Path, to be sent as Route (RFC 3327 §5.4).
    pub path: Vec<String>,
    instance: Option<String>,
    reg_id: Option<String>,
    call_id: String,
    cseq: u32,
}

/// Whether a request carries the password of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The user's name.
    Accepted(String),
    Refused {
        /// Password right, nonce too old or used twice.
        stale: bool,
    },
}

#[derive(Debug)]
struct Nonce {
    made_at: Instant,
    highest_nc: u32,
}

#[derive(Debug)]
pub struct Registrar {
    config: Config,
    bindings: BTreeMap<String, Vec<Binding>>,
    nonces: BTreeMap<String, Nonce>,
    nonce_order: VecDeque<String>,
    rng: ChaCha20Rng,
}

impl Registrar {
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let rng = ChaCha20Rng::from_seed(seed);
        Self { config, bindings: BTreeMap::new(), nonces: BTreeMap::new(), nonce_order: VecDeque::new(), rng }
    }

    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    pub fn domain(&self) -> &str {
        &self.config.domain
    }

    pub fn knows(&self, user: &str) -> bool {
        self.config.users.contains_key(user)
    }

    /// All bindings, by user.
    pub fn list(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.values().flatten()
    }

    /// The bindings of one user, best `q` first.
    pub fn of_user(&self, user: &str) -> Vec<Binding> {
        let mut list = self.bindings.get(user).cloned().unwrap_or_default();
        list.sort_by_key(|binding| std::cmp::Reverse(binding.contact.q_thousandths()));
        list
    }

    /// The user who registered over this flow, if any.
    pub fn user_of_hop(&self, hop: Hop) -> Option<&str> {
        self.list().find(|binding| binding.hop == hop).map(|binding| binding.user.as_str())
    }

    /// When the next binding ends.
    pub fn deadline(&self) -> Option<Instant> {
        self.list().map(|binding| binding.expires_at).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.retain(|binding| binding.expires_at > now);
    }

    /// A stream is gone, and with it the way to whoever registered over it.
    pub fn flow_closed(&mut self, flow: FlowId) {
        self.retain(|binding| binding.hop.flow != flow);
    }

    fn retain(&mut self, keep: impl Fn(&Binding) -> bool) {
        for list in self.bindings.values_mut() {
            list.retain(&keep);
        }
        self.bindings.retain(|_, list| !list.is_empty());
    }

    /// Checks Authorization (or Proxy-Authorization) of a request.
    pub fn check(&mut self, now: Instant, request: &Request, header: &str) -> Verdict {
        let refused = |stale| Verdict::Refused { stale };
        let Some(credentials) = Credentials::find(&request.headers, header, &self.config.domain) else {
            return refused(false);
        };
        let user = credentials.username.split('@').next().unwrap_or_default().to_owned();
        let Some(password) = self.config.users.get(&user) else {
            return refused(false);
        };
        let password = sip::digest::Secret::new(password.expose());
        if !credentials.verify(&password, &request.method, &request.body) {
            return refused(false);
        }
        let Some(nonce) = self.nonces.get_mut(&credentials.nonce) else {
            return refused(true);
        };
        let nc = credentials.protection.as_ref().map_or(nonce.highest_nc.saturating_add(1), |protection| protection.nc);
        // A repeated nc would be somebody's copy of an earlier request (RFC 7616 §5.5).
        if now.saturating_duration_since(nonce.made_at) > NONCE_LIFE || nc <= nonce.highest_nc {
            return refused(true);
        }
        nonce.highest_nc = nc;
        Verdict::Accepted(user)
    }

    /// 401, or 407 for a proxy, with one challenge for each algorithm.
    pub fn challenge(&mut self, now: Instant, request: &Request, proxy: bool, stale: bool) -> Response {
        let (status, header) = if proxy { (407, "Proxy-Authenticate") } else { (401, "WWW-Authenticate") };
        let mut response = request.response(status, "");
        for algorithm in self.config.algorithms.clone() {
            let nonce = format!("{:032x}", self.rng.random::<u128>());
            if self.nonce_order.len() >= NONCES_MAX
                && let Some(oldest) = self.nonce_order.pop_front()
            {
                self.nonces.remove(&oldest);
            }
            self.nonce_order.push_back(nonce.clone());
            self.nonces.insert(nonce.clone(), Nonce { made_at: now, highest_nc: 0 });
            let realm = self.config.domain.clone();
            let challenge = Challenge { realm, nonce, opaque: None, stale, algorithm, qop: vec![Qop::Auth] };
            response.headers.push(header, challenge.to_value().to_string());
        }
        response
    }

    /// Handles REGISTER. `hop` is where it came from.
    pub fn register(&mut self, now: Instant, request: &Request, hop: Hop, transport: Transport) -> Response {
        let user = match self.check(now, request, "Authorization") {
            Verdict::Accepted(user) => user,
            Verdict::Refused { stale } => return self.challenge(now, request, false, stale),
        };
        let Ok(to) = request.headers.to() else {
            return request.response(400, "");
        };
        if to.uri.user_text() != user {
            return request.response(403, "Forbidden: not your address of record");
        }
        match self.update(now, request, &user, hop, transport) {
            Ok(()) => self.bound(now, request, &user),
            Err(response) => *response,
        }
    }

    /// RFC 3261 §10.3 steps 6 and 7: all changes or none.
    fn update(
        &mut self,
        now: Instant,
        request: &Request,
        user: &str,
        hop: Hop,
        transport: Transport,
    ) -> Result<(), Box<Response>> {
        let bad = |status| Box::new(request.response(status, ""));
        let headers = &request.headers;
        let (Ok(contacts), Ok(default), Ok(cseq), Ok(call_id)) =
            (headers.contacts(), headers.expires(), headers.cseq(), headers.call_id())
        else {
            return Err(bad(400));
        };
        let mut list = self.bindings.get(user).cloned().unwrap_or_default();
        let is_late = |binding: &Binding| binding.call_id == call_id && binding.cseq >= cseq.number;
        if headers.contact_is_star() {
            if default != Some(0) {
                return Err(bad(400));
            }
            if list.iter().any(is_late) {
                return Err(bad(500));
            }
            list.clear();
        }
        for contact in contacts {
            let asked = contact.expires().or(default).unwrap_or(self.config.default_expires);
            if asked != 0 && asked < self.config.min_expires {
                let mut response = request.response(423, "");
                response.headers.push("Min-Expires", self.config.min_expires.to_string());
                return Err(Box::new(response));
            }
            let instance = contact.params.get("+sip.instance").map(str::to_owned);
            let reg_id = contact.params.get("reg-id").map(str::to_owned);
            let same = |known: &Binding| match (&instance, &known.instance) {
                // The same device, perhaps from another address (RFC 5626 §6).
                (Some(ours), Some(theirs)) => ours == theirs && reg_id == known.reg_id,
                (Some(_), None) | (None, Some(_)) => false,
                (None, None) => known.contact.uri.equivalent(&contact.uri),
            };
            if list.iter().any(|known| same(known) && is_late(known)) {
                return Err(bad(500));
            }
            list.retain(|known| !same(known));
            if asked == 0 {
                continue;
            }
            if list.len() >= BINDINGS_MAX {
                return Err(bad(503));
            }
            list.push(Binding {
                user: user.to_owned(),
                contact: contact.clone(),
                hop,
                transport,
                expires_at: now + Duration::from_secs(u64::from(asked.min(self.config.max_expires))),
                path: headers.values("Path").map(str::to_owned).collect(),
                instance,
                reg_id,
                call_id: call_id.to_owned(),
                cseq: cseq.number,
            });
        }
        self.bindings.insert(user.to_owned(), list);
        self.bindings.retain(|_, list| !list.is_empty());
        Ok(())
    }

    /// 200 with every binding and its remaining time.
    fn bound(&self, now: Instant, request: &Request, user: &str) -> Response {
        let mut response = request.response(200, "");
        for binding in self.bindings.get(user).into_iter().flatten() {
            let mut contact = binding.contact.clone();
            // Rounded up, so that a client that trusts the number is never late by a fraction.
            let left = binding.expires_at.saturating_duration_since(now).as_millis().div_ceil(1000);
            contact.params.set("expires", left.to_string());
            response.headers.push("Contact", contact.to_string());
        }
        for path in request.headers.values("Path") {
            response.headers.push("Path", path);
        }
        let outbound = request.headers.lists("Supported", "outbound")
            && self.bindings.get(user).into_iter().flatten().any(|binding| binding.reg_id.is_some());
        if outbound {
            response.headers.push("Require", "outbound");
        }
        response
    }
}

/// A line of the listing of what is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub user: String,
    pub contact: String,
    pub transport: Transport,
    pub from: SocketAddr,
    pub expires_in: Duration,
}
