//! A request and its branches, RFC 3261 §16.6-§16.10.
//!
//! ```text
//!   request ─▶ a branch per target ─┬─ 1xx ──────────▶ passed on at once
//!                                   ├─ 2xx ──────────▶ passed on at once, the others get CANCEL
//!                                   ├─ 6xx ──────────▶ the others get CANCEL
//!                                   └─ 3xx, 4xx, 5xx ▶ kept; when all have answered, the best is passed on (§16.7 step 6)
//! ```

use std::time::{Duration, Instant};

use sip::event::Hop;
use sip::header::{NameAddr, Reason};
use sip::message::{Method, Request, Response};
use sip::transaction::{ClientTx, ServerTx};
use sip::uri::{Host, Scheme, Uri};

use super::Proxy;

/// How long an INVITE may ring (RFC 3261 §16.6 step 11: more than 3 minutes).
const TIMER_C: Duration = Duration::from_secs(181);

/// Where one branch goes.
pub(super) struct Target {
    pub(super) hop: Hop,
    /// The Request-URI of the branch; `None` leaves it as it is.
    pub(super) uri: Option<Uri>,
    /// Routes to put before (RFC 3327 §5.4).
    pub(super) path: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    /// As soon as there is a provisional response (RFC 3261 §9.1).
    Wanted(CancelCause),
    Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CancelCause {
    /// The caller gave up, or nobody answered in time.
    Caller,
    /// Another branch has answered.
    Elsewhere,
}

#[derive(Debug)]
struct Branch {
    tx: ClientTx,
    /// Its final response, or the one that stands for it.
    outcome: Option<Response>,
    cancel: Cancel,
}

/// The response context of RFC 3261 §16.
#[derive(Debug)]
pub(super) struct Context {
    request: Request,
    branches: Vec<Branch>,
    /// A final response has gone back.
    answered: bool,
    timer_c: Option<Instant>,
}

impl Context {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timer_c.filter(|_| !self.answered)
    }
}

impl Proxy {
    /// Sends a copy of `request`, which came from `from`, to every target.
    pub(super) fn fork(&mut self, now: Instant, server: ServerTx, request: &Request, from: Hop, targets: Vec<Target>) {
        let invite = request.method == Method::Invite;
        let timer_c = invite.then(|| now + TIMER_C);
        let context = Context { request: request.clone(), branches: Vec::new(), answered: false, timer_c };
        self.contexts.insert(server, context);
        for target in targets {
            let hop = target.hop;
            let Some(copy) = self.copy_for(request, from, target) else {
                continue; // its flow is gone
            };
            let reliable = self.flows.get(&hop.flow).is_some_and(|flow| flow.transport.is_reliable());
            let tx = self.transactions.request(now, copy, hop, reliable);
            if let Some(context) = self.contexts.get_mut(&server) {
                self.branches.insert(tx, (server, context.branches.len()));
                context.branches.push(Branch { tx, outcome: None, cancel: Cancel::No });
            }
        }
        if self.contexts.get(&server).is_some_and(|context| context.branches.is_empty()) {
            self.transactions.respond(now, server, request.response(480, ""));
        }
    }

    /// RFC 3261 §16.6 steps 1 to 8.
    fn copy_for(&mut self, request: &Request, from: Hop, target: Target) -> Option<Request> {
        let via = self.via(target.hop)?;
        let mut copy = request.clone();
        if let Some(uri) = target.uri {
            copy.uri = uri;
        }
        let hops = copy.headers.max_forwards().ok().flatten().unwrap_or(71).saturating_sub(1);
        copy.headers.set("Max-Forwards", hops.to_string());
        copy.headers.remove("Proxy-Authorization");
        for route in target.path.iter().rev() {
            copy.headers.insert_first("Route", route.clone());
        }
        let forms_dialog = matches!(copy.method, Method::Invite | Method::Subscribe | Method::Refer);
        if forms_dialog && copy.headers.to().is_ok_and(|to| to.tag().is_none()) {
            // The caller's side first, then the callee's on top of it: each side meets its own flow last.
            for hop in [from, target.hop] {
                let route = self.record_route(hop)?;
                copy.headers.insert_first("Record-Route", route.to_string());
            }
        }
        copy.headers.insert_first("Via", via.to_string());
        Some(copy)
    }

    fn record_route(&self, hop: Hop) -> Option<NameAddr> {
        let flow = self.flows.get(&hop.flow)?;
        let mut uri = Uri::sip_at("", flow.local);
        uri.scheme = Scheme::Sip;
        uri.host = Host::Ip(flow.local.ip());
        uri.user = Some(self.token(hop));
        uri.params.set("transport", flow.transport.uri_name());
        uri.params.set_flag("lr");
        Some(NameAddr::new(uri))
    }

    /// RFC 3261 §16.7.
    pub(super) fn response(&mut self, now: Instant, tx: ClientTx, mut response: Response) {
        let Some((server, index)) = self.branches.get(&tx).copied() else {
            return; // to our own NOTIFY or CANCEL
        };
        response.headers.pop_first_value("Via");
        if response.is_provisional() {
            self.provisional(now, server, index, response);
            return;
        }
        let Some(context) = self.contexts.get_mut(&server) else {
            return;
        };
        let invite = context.request.method == Method::Invite;
        if let Some(branch) = context.branches.get_mut(index) {
            branch.outcome = Some(response.clone());
        }
        if response.is_success() {
            // Every 2xx to an INVITE goes back, repetitions and those of other branches too (§16.7 step 5).
            if invite || !context.answered {
                context.answered = true;
                self.transactions.respond(now, server, response);
            }
            self.cancel_branches(now, server, CancelCause::Elsewhere);
            return;
        }
        if response.status >= 600 {
            self.cancel_branches(now, server, CancelCause::Elsewhere);
        }
        self.conclude(now, server);
    }

    fn provisional(&mut self, now: Instant, server: ServerTx, index: usize, response: Response) {
        let Some(context) = self.contexts.get_mut(&server) else {
            return;
        };
        let Some(branch) = context.branches.get_mut(index) else {
            return;
        };
        let cancel = match branch.cancel {
            Cancel::Wanted(cause) => Some((branch.tx, cause)),
            Cancel::No | Cancel::Sent => None,
        };
        if let Some((tx, cause)) = cancel {
            branch.cancel = Cancel::Sent;
            self.send_cancel(now, tx, cause);
            return;
        }
        // 100 is per hop; any other restarts timer C and goes back (§16.7 steps 2 and 5).
        if response.status > 100 && branch.outcome.is_none() && !context.answered {
            context.timer_c = context.timer_c.map(|_| now + TIMER_C);
            self.transactions.respond(now, server, response);
        }
    }

    /// No response, or no way to get one.
    pub(super) fn branch_failed(&mut self, now: Instant, tx: ClientTx, status: u16) {
        let Some((server, index)) = self.branches.get(&tx).copied() else {
            return;
        };
        if let Some(context) = self.contexts.get_mut(&server)
            && let Some(branch) = context.branches.get_mut(index)
        {
            branch.outcome.get_or_insert_with(|| context.request.response(status, ""));
        }
        self.conclude(now, server);
    }

    /// Sends the best response once every branch has one.
    fn conclude(&mut self, now: Instant, server: ServerTx) {
        let Some(context) = self.contexts.get_mut(&server) else {
            return;
        };
        if context.answered || context.branches.iter().any(|branch| branch.outcome.is_none()) {
            return;
        }
        context.answered = true;
        let outcomes: Vec<Response> = context.branches.iter().filter_map(|branch| branch.outcome.clone()).collect();
        let response = best(outcomes).unwrap_or_else(|| context.request.response(480, ""));
        self.transactions.respond(now, server, response);
    }

    /// CANCEL from the caller (RFC 3261 §16.10).
    pub(super) fn cancel(&mut self, now: Instant, tx: ServerTx, request: &Request) {
        let invite = self.transactions.find_cancelled(request);
        let status = if invite.is_some() { 200 } else { 481 };
        self.transactions.respond(now, tx, request.response(status, ""));
        if let Some(server) = invite {
            self.cancel_branches(now, server, CancelCause::Caller);
            self.conclude(now, server);
        }
    }

    fn cancel_branches(&mut self, now: Instant, server: ServerTx, cause: CancelCause) {
        let Some(context) = self.contexts.get_mut(&server) else {
            return;
        };
        if context.request.method != Method::Invite {
            return;
        }
        let mut proceeding = Vec::new();
        for branch in &mut context.branches {
            if branch.outcome.is_some() || branch.cancel != Cancel::No {
                continue;
            }
            if self.transactions.client_is_proceeding(branch.tx) {
                branch.cancel = Cancel::Sent;
                proceeding.push(branch.tx);
            } else {
                branch.cancel = Cancel::Wanted(cause);
                // Who has not even said 100 would keep the caller waiting for 32 s.
                branch.outcome = Some(context.request.response(487, ""));
            }
        }
        for tx in proceeding {
            self.send_cancel(now, tx, cause);
        }
    }

    /// RFC 3261 §9.1: the same Via, Route, From, To, Call-ID and CSeq number as the branch.
    fn send_cancel(&mut self, now: Instant, tx: ClientTx, cause: CancelCause) {
        let Some((invite, hop)) = self.transactions.client_request(tx) else {
            return;
        };
        let mut cancel = Request::new(Method::Cancel, invite.uri.clone());
        if let Some(via) = invite.headers.values("Via").next() {
            cancel.headers.push("Via", via);
        }
        for name in ["Route", "From", "To", "Call-ID"] {
            for value in invite.headers.get_all(name) {
                cancel.headers.push(name, value);
            }
        }
        let number = invite.headers.cseq().map_or(1, |cseq| cseq.number);
        cancel.headers.push("CSeq", format!("{number} CANCEL"));
        cancel.headers.push("Max-Forwards", "70");
        if cause == CancelCause::Elsewhere {
            let text = Some("Call completed elsewhere".to_owned());
            cancel.headers.push("Reason", Reason { protocol: "SIP".to_owned(), cause: Some(200), text }.to_string());
        }
        let reliable = self.flows.get(&hop.flow).is_some_and(|flow| flow.transport.is_reliable());
        self.transactions.request(now, cancel, hop, reliable);
        self.transactions.client_cancelled(now, tx);
    }

    /// Timer C (RFC 3261 §16.8).
    pub(super) fn expire_branches(&mut self, now: Instant) {
        let due = |context: &Context| context.deadline().is_some_and(|at| now >= at);
        let expired: Vec<ServerTx> = self.contexts.iter().filter(|(_, c)| due(c)).map(|(server, _)| *server).collect();
        for server in expired {
            if let Some(context) = self.contexts.get_mut(&server) {
                context.timer_c = None;
            }
            self.cancel_branches(now, server, CancelCause::Caller);
            self.conclude(now, server);
        }
    }
}

/// RFC 3261 §16.7 steps 6 and 7: 6xx before all, else the lowest class, inside 4xx those that tell how to repeat;
/// challenges of all branches are put together; a 503 of one branch is no 503 of ours.
fn best(outcomes: Vec<Response>) -> Option<Response> {
    let rank = |response: &Response| match response.status {
        600.. => (0, 0),
        401 | 407 => (response.status / 100, 0),
        415 | 420 | 484 => (response.status / 100, 1),
        // What stands for a branch that never spoke says least.
        408 => (response.status / 100, 9),
        // Our own CANCEL made it: anything a phone said by itself is better.
        487 => (response.status / 100, 8),
        status => (status / 100, 2),
    };
    let challenges: Vec<(String, String)> = outcomes
        .iter()
        .filter(|response| matches!(response.status, 401 | 407))
        .flat_map(|response| response.headers.iter())
        .filter(|h| ["WWW-Authenticate", "Proxy-Authenticate"].iter().any(|name| name.eq_ignore_ascii_case(&h.name)))
        .map(|header| (header.name.clone(), header.value.clone()))
        .collect();
    let mut chosen = outcomes.into_iter().min_by_key(rank)?;
    match chosen.status {
        401 | 407 => {
            chosen.headers.remove("WWW-Authenticate");
            chosen.headers.remove("Proxy-Authenticate");
            for (name, value) in challenges {
                chosen.headers.push(name, value);
            }
        }
        503 => {
            chosen.status = 500;
            "Server Internal Error".clone_into(&mut chosen.reason);
        }
        _ => {}
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_response_is_the_one_of_rfc_3261_section_16_7() {
        let cases: [(&str, &[u16], u16); 8] = [
            ("6xx wins", &[404, 603, 302], 603),
            ("the lowest class", &[503, 404], 404),
            ("redirection before refusal", &[486, 302], 302),
            ("a challenge before other 4xx", &[404, 407], 407),
            ("what was said before silence", &[408, 486], 486),
            ("what was said before our own cancelling", &[487, 486], 486),
            ("503 becomes 500", &[503], 500),
            ("the first of equals", &[486, 404], 486),
        ];
        let request = Request::new(Method::Invite, "sip:bob@lab.test".parse().unwrap());
        for (name, statuses, want) in cases {
            let outcomes = statuses.iter().map(|status| request.response(*status, "")).collect();
            assert_eq!(best(outcomes).unwrap().status, want, "case: {name}");
        }
    }

    #[test]
    fn challenges_of_all_branches_are_put_together() {
        let request = Request::new(Method::Invite, "sip:bob@lab.test".parse().unwrap());
        let mut outcomes = Vec::new();
        for realm in ["a", "b"] {
            let mut response = request.response(407, "");
            response.headers.push("Proxy-Authenticate", format!("Digest realm=\"{realm}\", nonce=\"1\""));
            outcomes.push(response);
        }
        assert_eq!(best(outcomes).unwrap().headers.get_all("Proxy-Authenticate").count(), 2);
    }
}
