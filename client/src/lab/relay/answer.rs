//! Requests and their answers: Binding, Allocate, Refresh, CreatePermission, ChannelBind. RFC 8656 §7.2, §8.2, §10.2, §12.2.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ice::stun::attribute::TRANSPORT_UDP;
use ice::stun::{
    Attribute, Builder, Class, Family, Fingerprint, Key, Message, Method, PasswordAlgorithm, TransactionId,
};
use tracing::debug;

use super::access::{Admitted, Denied};
use super::lease::{BindError, Lease};
use super::{Client, Output, Relay, RelayId};

const SOFTWARE: &str = "icephone relay";
/// Every second port is even: so many odd ones in a row do not happen. Then an odd one has to do.
const EVEN_TRIES_MAX: u8 = 16;

/// What became of a request whose credentials are good.
enum Verdict {
    Granted(Vec<Attribute<'static>>),
    Refused(u16),
    /// The relay socket is being opened; the answer follows.
    Later,
}

impl Relay {
    pub(super) fn handle_request(&mut self, now: Instant, client: Client, request: &Message<'_>) {
        let unknown = request.unknown_required();
        if !unknown.is_empty() {
            return self.refuse(now, client, request, 420, &[Attribute::UnknownAttributes(unknown)], None);
        }
        if request.method() == Method::BINDING {
            return self.handle_binding(now, client, request);
        }
        if let Some(fault) = self.faults.strike(request.method(), false) {
            let alternate: Vec<_> = fault.alternate.map(Attribute::AlternateServer).into_iter().collect();
            return self.refuse(now, client, request, fault.code, &alternate, None);
        }
        let admitted = match self.access.admit(now, &self.config, self.leases.get(&client), request) {
            Ok(admitted) => admitted,
            Err(Denied(code)) => return self.refuse(now, client, request, code, &[], None),
        };
        let verdict = match self.faults.strike(request.method(), true) {
            Some(fault) => Verdict::Refused(fault.code),
            None => self.judge(now, client, request, &admitted),
        };
        match verdict {
            Verdict::Granted(attributes) => self.grant(client, request, &attributes, &admitted),
            Verdict::Refused(code) => self.refuse(now, client, request, code, &[], Some(&admitted)),
            Verdict::Later => {}
        }
    }

    fn handle_binding(&mut self, now: Instant, client: Client, request: &Message<'_>) {
        if let Some(fault) = self.faults.strike(Method::BINDING, true) {
            return self.refuse(now, client, request, fault.code, &[], None);
        }
        let Some(remote) = self.remote(client) else { return };
        let answer = Builder::answer(Class::Success, request)
            .with(&Attribute::XorMappedAddress(remote))
            .with(&Attribute::Software(SOFTWARE));
        self.finish(client, request, answer);
    }

    fn judge(&mut self, now: Instant, client: Client, request: &Message<'_>, admitted: &Admitted) -> Verdict {
        if request.method() == Method::ALLOCATE {
            return self.judge_allocate(now, client, request, admitted);
        }
        let Some(lease) = self.leases.get_mut(&client).filter(|lease| lease.relayed.is_some()) else {
            return Verdict::Refused(437);
        };
        if lease.user() != admitted.user {
            return Verdict::Refused(441);
        }
        match request.method() {
            Method::REFRESH => {
                let is_free = request.lifetime() == Some(Duration::ZERO);
                let lifetime = if is_free { Duration::ZERO } else { self.lifetime(request) };
                if is_free {
                    self.remove(client, "freed by its client");
                } else if let Some(lease) = self.leases.get_mut(&client) {
                    lease.extend(now, lifetime);
                    self.expires_at(now + lifetime);
                }
                Verdict::Granted(vec![Attribute::Lifetime(lifetime)])
            }
            Method::CREATE_PERMISSION => judge_permission(now, lease, request),
            Method::CHANNEL_BIND => judge_channel(now, lease, request),
            _ => Verdict::Refused(400),
        }
    }

    fn judge_allocate(&mut self, now: Instant, client: Client, request: &Message<'_>, admitted: &Admitted) -> Verdict {
        if let Some(lease) = self.leases.get(&client) {
            return match lease.transaction == request.transaction_id() {
                true if lease.relayed.is_some() => Verdict::Granted(self.allocated(client, lease)),
                true => Verdict::Later,
                false => Verdict::Refused(437),
            };
        }
        let wish = match Wish::read(request) {
            Ok(wish) => wish,
            Err(code) => return Verdict::Refused(code),
        };
        let Some(bind) = self.config.relay_addresses.iter().copied().find(|ip| Family::of(*ip) == wish.family) else {
            return Verdict::Refused(440);
        };
        if self.leases.values().filter(|lease| lease.user() == admitted.user).count() >= self.config.quota {
            return Verdict::Refused(486);
        }
        if self.leases.len() >= self.config.capacity {
            return Verdict::Refused(508);
        }
        let relay = self.open_relay(client, bind);
        let mut lease = Lease::new(now, admitted, relay, request, self.lifetime(request));
        lease.even_tries = if wish.is_even { EVEN_TRIES_MAX } else { 0 };
        self.expires_at(lease.expires_at);
        self.leases.insert(client, lease);
        Verdict::Later
    }

    fn open_relay(&mut self, client: Client, bind: IpAddr) -> RelayId {
        let relay = RelayId(self.next_id);
        self.next_id += 1;
        self.relays.insert(relay, client);
        self.outputs.push_back(Output::OpenRelay { relay, bind });
        relay
    }

    /// EVEN-PORT (RFC 8656 §7.2): an odd port is exchanged for another. Says whether it is.
    pub(super) fn exchange_odd_port(&mut self, client: Client, addr: SocketAddr) -> bool {
        let Some(lease) = self.leases.get_mut(&client) else { return false };
        if addr.port().is_multiple_of(2) || lease.even_tries == 0 {
            return false;
        }
        lease.even_tries -= 1;
        let odd = lease.relay;
        // The next one is opened first, else the system may give the same port again.
        let even = self.open_relay(client, addr.ip());
        if let Some(lease) = self.leases.get_mut(&client) {
            lease.relay = even;
        }
        self.relays.remove(&odd);
        self.outputs.push_back(Output::CloseRelay(odd));
        true
    }

    /// The relay socket is open: the Allocate that waited for it is answered.
    pub(super) fn confirm_allocation(&mut self, now: Instant, client: Client) {
        let Some(lease) = self.leases.get_mut(&client) else { return };
        // The client's lifetime begins with the answer, not with the opening of the socket.
        lease.extend(now, lease.lifetime);
        debug!(user = %lease.user(), relayed = ?lease.relayed, lifetime_s = lease.lifetime.as_secs(), "allocated");
        let (bytes, admitted) = (lease.request.clone(), lease.admitted.clone());
        let Some(attributes) = self.leases.get(&client).map(|lease| self.allocated(client, lease)) else { return };
        if let Ok(request) = Message::parse(&bytes) {
            self.grant(client, &request, &attributes, &admitted);
        }
    }

    /// No relay socket could be had.
    pub(super) fn refuse_opening(&mut self, client: Client, lease: &Lease) {
        let Ok(request) = Message::parse(&lease.request) else { return };
        let answer = Builder::answer(Class::Error, &request).with(&Attribute::ErrorCode(508, phrase(508)));
        self.finish(client, &request, answer);
    }

    fn allocated(&self, client: Client, lease: &Lease) -> Vec<Attribute<'static>> {
        let relayed = lease.relayed.map(Attribute::XorRelayedAddress);
        let mapped = self.remote(client).map(Attribute::XorMappedAddress);
        let lifetime = Some(Attribute::Lifetime(lease.lifetime));
        [relayed, mapped, lifetime].into_iter().flatten().collect()
    }

    /// RFC 8656 §7.2: what is asked for, but not less than the default and not more than the maximum.
    fn lifetime(&self, request: &Message<'_>) -> Duration {
        let asked = request.lifetime().unwrap_or(self.config.lifetime_default);
        asked.min(self.config.lifetime_max).max(self.config.lifetime_default)
    }

    fn grant(&mut self, client: Client, request: &Message<'_>, attributes: &[Attribute<'_>], admitted: &Admitted) {
        let answer = attributes.iter().fold(Builder::answer(Class::Success, request), Builder::with);
        let answer = answer.with(&Attribute::Software(SOFTWARE)).integrity(admitted.integrity, &admitted.key);
        self.finish(client, request, answer);
    }

    fn refuse(
        &mut self,
        now: Instant,
        client: Client,
        request: &Message<'_>,
        code: u16,
        attributes: &[Attribute<'_>],
        admitted: Option<&Admitted>,
    ) {
        debug!(method = ?request.method(), code, "request refused");
        let is_challenge = matches!(code, 401 | 438);
        let mut answer = Builder::answer(Class::Error, request).with(&Attribute::ErrorCode(code, phrase(code)));
        if is_challenge {
            let nonce = self.access.make_nonce(now);
            answer =
                answer
                    .with(&Attribute::Realm(self.config.realm.as_bytes()))
                    .with(&Attribute::Nonce(nonce.as_bytes()))
                    .with_some(self.access.offers_sha256().then(|| {
                        Attribute::PasswordAlgorithms(vec![PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5])
                    }));
        }
        answer = attributes.iter().fold(answer, Builder::with).with(&Attribute::Software(SOFTWARE));
        // A challenge tells a client what its key must be made of: it cannot be signed with it.
        let seal: Option<(&Key, _)> = admitted.filter(|_| !is_challenge).map(|who| (&who.key, who.integrity));
        match seal {
            Some((key, integrity)) => self.finish(client, request, answer.integrity(integrity, key)),
            None => self.finish(client, request, answer),
        }
    }

    fn finish(&mut self, client: Client, request: &Message<'_>, answer: Builder<'_>) {
        let answer = if request.fingerprint() == Fingerprint::Absent { answer } else { answer.fingerprint() };
        self.send(client, answer.build());
    }
}

/// What an Allocate asks for, or the error code that it gets.
struct Wish {
    family: Family,
    is_even: bool,
}

impl Wish {
    fn read(request: &Message<'_>) -> Result<Self, u16> {
        let (mut transport, mut family, mut is_even) = (None, Family::V4, false);
        for attribute in request.attributes() {
            match attribute {
                Attribute::RequestedTransport(protocol) => transport = Some(protocol),
                Attribute::RequestedAddressFamily(wanted) => family = wanted,
                Attribute::EvenPort(false) => is_even = true,
                // No port pairs and no reservations here.
                Attribute::EvenPort(true) | Attribute::ReservationToken(_) => return Err(508),
                _ => {}
            }
        }
        match transport {
            None => Err(400),
            Some(TRANSPORT_UDP) => Ok(Self { family, is_even }),
            Some(_) => Err(442),
        }
    }
}

/// RFC 8656 §10.2: all addresses or none.
fn judge_permission(now: Instant, lease: &mut Lease, request: &Message<'_>) -> Verdict {
    let peers: Vec<SocketAddr> = request
        .attributes()
        .filter_map(|attribute| match attribute {
            Attribute::XorPeerAddress(peer) => Some(peer),
            _ => None,
        })
        .collect();
    if peers.is_empty() {
        return Verdict::Refused(400);
    }
    if peers.iter().any(|peer| is_other_family(lease, *peer)) {
        return Verdict::Refused(443);
    }
    let are_permitted = peers.iter().all(|peer| lease.permit(now, peer.ip()));
    if are_permitted { Verdict::Granted(Vec::new()) } else { Verdict::Refused(508) }
}

fn judge_channel(now: Instant, lease: &mut Lease, request: &Message<'_>) -> Verdict {
    let (Some(number), Some(peer)) = (request.channel_number(), request.xor_peer_address()) else {
        return Verdict::Refused(400);
    };
    if is_other_family(lease, peer) {
        return Verdict::Refused(443);
    }
    match lease.bind(now, number, peer) {
        Ok(()) => Verdict::Granted(Vec::new()),
        Err(BindError::Conflict) => Verdict::Refused(400),
        Err(BindError::TooMany) => Verdict::Refused(508),
    }
}

fn is_other_family(lease: &Lease, peer: SocketAddr) -> bool {
    lease.relayed.is_some_and(|relayed| relayed.is_ipv4() != peer.is_ipv4())
}

/// RFC 8656 §11.3.
pub(super) fn data_indication(id: TransactionId, from: SocketAddr, payload: &[u8]) -> Vec<u8> {
    Builder::new(Class::Indication, Method::DATA, id)
        .with(&Attribute::XorPeerAddress(from))
        .with(&Attribute::Data(payload))
        .build()
}

/// RFC 8489 §14.8, RFC 8656 §19.
fn phrase(code: u16) -> &'static str {
    match code {
        300 => "Try Alternate",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        420 => "Unknown Attribute",
        437 => "Allocation Mismatch",
        438 => "Stale Nonce",
        440 => "Address Family not Supported",
        441 => "Wrong Credentials",
        442 => "Unsupported Transport Protocol",
        443 => "Peer Address Family Mismatch",
        486 => "Allocation Quota Reached",
        508 => "Insufficient Capacity",
        _ => "Server Error",
    }
}
