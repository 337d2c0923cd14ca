//! What a request is for, RFC 3261 §16.3-§16.5: one of the services here, a user, or the other side of a dialog.

use std::net::SocketAddr;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sip::event::{FlowId, Hop, Transport};
use sip::header::Event;
use sip::message::{Method, Request, Response};
use sip::transaction::ServerTx;
use sip::uri::Uri;

use super::Proxy;
use super::fork::Target;
use crate::core::provision::{MRAS_TYPE, PROVISIONING_EVENT};
use crate::lab::registrar::Verdict;

/// Bytes of the signature in a flow token.
const TOKEN_MAC: usize = 10;

/// What the Routes of a request say.
enum Routed {
    /// No Route, or only ours without a token: by Request-URI.
    Freely,
    /// Inside a dialog: over this flow.
    Over(Hop),
    /// The flow of the dialog is gone.
    FlowLost,
    /// To somebody else's proxy.
    Abroad,
}

impl Proxy {
    pub(super) fn request(&mut self, now: Instant, tx: ServerTx, mut request: Request) {
        let Some((_, flow, from)) = self.transactions.server_request(tx) else {
            return;
        };
        let hop = Hop { flow, to: from };
        if request.method == Method::Cancel {
            return self.cancel(now, tx, &request);
        }
        if let Some(response) = self.refuse(&request) {
            return self.transactions.respond(now, tx, response);
        }
        match self.take_routes(&mut request) {
            Routed::Over(target) => {
                let targets = vec![Target { hop: target, uri: None, path: Vec::new() }];
                return self.fork(now, tx, &request, hop, targets);
            }
            Routed::FlowLost => match self.contact_hop(&request.uri) {
                // The phone came back over another connection: the dialog goes on there.
                Some(target) => {
                    let targets = vec![Target { hop: target, uri: None, path: Vec::new() }];
                    return self.fork(now, tx, &request, hop, targets);
                }
                None => return self.transactions.respond(now, tx, request.response(430, "")),
            },
            Routed::Abroad => return self.transactions.respond(now, tx, request.response(403, "Not our route")),
            Routed::Freely => {}
        }
        if let Some(target) = self.contact_hop(&request.uri).filter(|_| !self.is_ours(&request.uri)) {
            let targets = vec![Target { hop: target, uri: None, path: Vec::new() }];
            return self.fork(now, tx, &request, hop, targets);
        }
        if !self.is_ours(&request.uri) {
            return self.transactions.respond(now, tx, request.response(404, "Not our domain"));
        }
        self.serve(now, tx, &request, hop);
    }

    /// Requests for our own domain.
    fn serve(&mut self, now: Instant, tx: ServerTx, request: &Request, hop: Hop) {
        if request.method == Method::Register {
            let transport = self.flows.get(&hop.flow).map_or(Transport::Udp, |flow| flow.transport);
            let mut response = self.registrar.register(now, request, hop, transport);
            if response.is_success() {
                self.provisioning.add_hints(&mut response);
            }
            return self.answer(now, tx, response);
        }
        if request.method == Method::Options && request.uri.user.is_none() {
            let mut response = request.response(200, "");
            response.headers.push("Allow", "INVITE, ACK, CANCEL, BYE, REGISTER, OPTIONS, SUBSCRIBE, NOTIFY, SERVICE");
            return self.answer(now, tx, response);
        }
        if let Some(response) = self.demand_password(now, request, hop) {
            return self.answer(now, tx, response);
        }
        let package = request.headers.parse_one::<Event>("Event").map(|event| event.package);
        let provisioning = package.is_ok_and(|package| package.eq_ignore_ascii_case(PROVISIONING_EVENT));
        match request.method {
            Method::Subscribe if provisioning => self.provision(now, tx, request, hop),
            Method::Service if self.is_mras(&request.uri) => {
                let answer = self.mras.answer(self.clock.unix_s(now), &request.body);
                let mut response = request.response(answer.status, "");
                if !answer.body.is_empty() {
                    response.set_body(MRAS_TYPE, answer.body);
                }
                self.answer(now, tx, response);
            }
            _ => {
                let user = request.uri.user_text();
                let bindings = self.registrar.of_user(&user);
                if bindings.is_empty() {
                    let status = if self.registrar.knows(&user) { 480 } else { 404 };
                    return self.answer(now, tx, request.response(status, ""));
                }
                let reach = |binding: crate::lab::registrar::Binding| Target {
                    hop: binding.hop,
                    uri: Some(binding.contact.uri),
                    path: binding.path,
                };
                let targets = bindings.into_iter().map(reach).collect();
                self.fork(now, tx, request, hop, targets);
            }
        }
    }

    fn provision(&mut self, now: Instant, tx: ServerTx, request: &Request, hop: Hop) {
        let tag = self.tag();
        let (response, notify) = self.provisioning.answer(request, &tag);
        self.answer(now, tx, response);
        if let Some(mut notify) = notify
            && let Some(via) = self.via(hop)
        {
            notify.headers.insert_first("Via", via.to_string());
            notify.headers.push("Max-Forwards", "70");
            if notify.method == Method::BeNotify {
                // Never answered, hence no transaction.
                self.behind.push((hop, notify.to_bytes()));
            } else {
                let reliable = via.transport != "UDP";
                self.transactions.request(now, notify, hop, reliable);
            }
        }
    }

    /// Responds with a To tag, as a server that is the end of the road must (RFC 3261 §8.2.6.2).
    fn answer(&mut self, now: Instant, tx: ServerTx, mut response: Response) {
        if let Ok(to) = response.headers.to()
            && to.tag().is_none()
        {
            let tag = self.tag();
            response.headers.set("To", to.with_tag(&tag).to_string());
        }
        response.headers.push("Server", "icephone-lab");
        self.transactions.respond(now, tx, response);
    }

    /// RFC 3261 §16.3, and injected refusals.
    fn refuse(&self, request: &Request) -> Option<Response> {
        if let Some(status) = self.faults.refuse.get(request.method.as_str()) {
            return Some(request.response(*status, ""));
        }
        if !request.uri.is_sip() {
            return Some(request.response(416, ""));
        }
        if request.headers.max_forwards().ok().flatten() == Some(0) {
            return Some(request.response(483, ""));
        }
        let unknown: Vec<&str> = request
            .headers
            .values("Proxy-Require")
            .filter(|option| !option.eq_ignore_ascii_case("ms-benotify"))
            .collect();
        if unknown.is_empty() {
            return None;
        }
        let mut response = request.response(420, "");
        response.headers.push("Unsupported", unknown.join(", "));
        Some(response)
    }

    /// 407, unless the caller has registered over this very flow, or sends the password.
    fn demand_password(&mut self, now: Instant, request: &Request, hop: Hop) -> Option<Response> {
        let from = request.headers.from().ok()?.uri.user_text();
        if !self.challenge_always && self.registrar.user_of_hop(hop) == Some(from.as_str()) {
            return None;
        }
        match self.registrar.check(now, request, "Proxy-Authorization") {
            Verdict::Accepted(user) if user == from => None,
            Verdict::Accepted(_) => Some(request.response(403, "Forbidden: not your address of record")),
            Verdict::Refused { stale } => Some(self.registrar.challenge(now, request, true, stale)),
        }
    }

    /// Takes our own Routes off the top (RFC 3261 §16.4); the last of them knows the flow.
    fn take_routes(&self, request: &mut Request) -> Routed {
        let mut verdict = Routed::Freely;
        loop {
            let Ok(routes) = request.headers.routes() else {
                return verdict;
            };
            let Some(route) = routes.first() else {
                return verdict;
            };
            if !self.is_ours(&route.uri) {
                // Behind our own route lies the path a phone has registered (RFC 3327 §5.4), reached over its flow.
                return if matches!(verdict, Routed::Freely) { Routed::Abroad } else { verdict };
            }
            if let Some(token) = &route.uri.user {
                verdict = match self.read_token(token) {
                    Some(hop) if self.flows.contains_key(&hop.flow) => Routed::Over(hop),
                    Some(_) | None => Routed::FlowLost,
                };
            }
            request.headers.pop_first_value("Route");
        }
    }

    /// Our domain, a host in it, or one of our addresses.
    fn is_ours(&self, uri: &Uri) -> bool {
        if let Some(ip) = uri.host.ip() {
            let port = uri.port.unwrap_or(if uri.transport().as_deref() == Some("tls") { 5061 } else { 5060 });
            return self.locals.contains(&SocketAddr::new(ip, port));
        }
        let host = uri.host.to_string().to_ascii_lowercase();
        let domain = self.registrar.domain().to_ascii_lowercase();
        host == domain || host.strip_suffix(&domain).is_some_and(|front| front.ends_with('.'))
    }

    fn is_mras(&self, uri: &Uri) -> bool {
        let ours = self.provisioning.mras_uri.as_deref().and_then(|text| text.parse::<Uri>().ok());
        ours.is_some_and(|ours| ours.user == uri.user && ours.host.same(&uri.host))
    }

    /// The flow of the phone that registered this contact.
    fn contact_hop(&self, uri: &Uri) -> Option<Hop> {
        self.registrar.list().find(|binding| binding.contact.uri.equivalent(uri)).map(|binding| binding.hop)
    }

    /// Forwards an ACK to a 2xx, which has no transaction (RFC 3261 §16.11).
    pub(super) fn acknowledge(&mut self, mut request: Request) {
        let target = match self.take_routes(&mut request) {
            Routed::Over(target) => Some(target),
            Routed::FlowLost | Routed::Freely => self.contact_hop(&request.uri),
            Routed::Abroad => None,
        };
        if let Some(target) = target
            && let Some(via) = self.via(target)
        {
            request.headers.insert_first("Via", via.to_string());
            self.transmit(target, request.to_bytes());
        }
    }

    /// Flow and address, signed, as the user part of our Record-Route (RFC 5626 §5.2).
    pub(super) fn token(&self, hop: Hop) -> String {
        let text = format!("{}|{}", hop.flow.0, hop.to);
        let signed = [self.sign(text.as_bytes()).as_slice(), text.as_bytes()].concat();
        URL_SAFE_NO_PAD.encode(signed)
    }

    fn read_token(&self, token: &str) -> Option<Hop> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (mac, text) = bytes.split_at_checked(TOKEN_MAC)?;
        if self.sign(text) != mac {
            return None;
        }
        let (flow, to) = std::str::from_utf8(text).ok()?.split_once('|')?;
        Some(Hop { flow: FlowId(flow.parse().ok()?), to: to.parse().ok()? })
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        // An HMAC takes a key of any length.
        let tag = Hmac::<Sha1>::new_from_slice(&self.token_key).map(|mut mac| {
            mac.update(text);
            mac.finalize().into_bytes().to_vec()
        });
        let mut tag = tag.unwrap_or_default();
        tag.truncate(TOKEN_MAC);
        tag
    }
}
