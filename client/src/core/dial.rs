//! An outgoing call: from the command to the 200 (RFC 3261 §13.2), with one ICE peer for each early dialog.

use std::time::Duration;

use ice::{LocalDescription, Role, ServerFailure};
use sip::Uri;
use sip::event::{CallFailed, CommandError, DialogId, Hop, Invite};

use super::account::{Account, Route};
use super::call::{Call, CallSeeds, Cx, Fork, Stage};
use super::description::{Description, IceAttributes};
use super::flow::Flow;
use super::negotiate::{self, Agreed, OfferOptions, Transport};
use super::ports::AgentOwner;
use super::transfer::Referred;
use super::views;
use crate::api::{CallChange, CallId, CallState, DialOptions, Direction, EndReason, PathPolicy, SrtpMode, Warning};

/// Early dialogs of one INVITE that are followed; a ring group has a dozen phones at most.
const FORKS_MAX: usize = 16;
/// 3xx that are followed one after another; RFC 3261 §8.1.3.4 leaves the number open, and a loop must end.
const REDIRECTS_MAX: usize = 5;
/// How long a call waits for relay credentials that are being fetched.
pub(crate) const RELAYS_PATIENCE: Duration = Duration::from_secs(3);

impl Call {
    /// Starts an outgoing call.
    pub(crate) fn dial(cx: &mut Cx<'_>, id: CallId, target: Uri, options: &DialOptions, seeds: CallSeeds) -> Self {
        let mut call = Self::outgoing(cx, id, target, options, seeds);
        call.route(cx, options.transport.map(super::account::wire_transport));
        call
    }

    /// Starts a call that the peer of another one asked for (RFC 3515 §2.4.4).
    pub(crate) fn dial_referred(
        cx: &mut Cx<'_>,
        id: CallId,
        target: Uri,
        options: &DialOptions,
        seeds: CallSeeds,
        (referred, headers): (Referred, Vec<(String, String)>),
    ) -> Self {
        let mut call = Self::outgoing(cx, id, target, options, seeds);
        (call.referred, call.headers) = (Some(referred), headers);
        call.route(cx, None);
        call
    }

    fn outgoing(cx: &mut Cx<'_>, id: CallId, target: Uri, options: &DialOptions, seeds: CallSeeds) -> Self {
        // A password in a URI is for the wire alone (RFC 3261 §19.1.1 discourages it altogether).
        let peer = Uri { password: None, ..target.clone() }.to_string();
        let mut call = Self::new(cx.now, id, Direction::Outgoing, peer.clone(), cx.account, seeds);
        call.target = Some(target);
        call.policy = options.policy.unwrap_or(call.policy);
        call.srtp = options.srtp.unwrap_or(call.srtp);
        if let Some(source) = &options.source {
            call.source = source.clone();
        }
        if let Some(patience) = options.ring_timeout_ms {
            call.ring_patience = Duration::from_millis(patience);
        }
        call.from_address = options.from_address;
        call.tell(cx, CallChange::Created { account: call.account, direction: Direction::Outgoing, peer });
        call.tell(cx, CallChange::State { state: CallState::Gathering });
        call
    }

    /// Finds out where the INVITE goes first.
    pub(crate) fn route(&mut self, cx: &mut Cx<'_>, transport: Option<sip::event::Transport>) {
        let Some(target) = self.target.clone() else { return };
        match cx.account.route(cx.now, self.id, &target, transport, cx.ports) {
            Route::Ready(hop) => self.hop_ready(cx, Ok(hop)),
            Route::Wait => {}
            Route::Failed(cause) => self.hop_ready(cx, Err(cause)),
        }
    }

    /// The way to the target is open, or is not there.
    pub(crate) fn hop_ready(&mut self, cx: &mut Cx<'_>, hop: Result<Hop, String>) {
        if !self.is_alive() {
            return;
        }
        match hop {
            Ok(hop) => {
                self.hop = Some(hop);
                // Counted from here, because the account may only just have been registered.
                self.timers.relays.get_or_insert(cx.now + RELAYS_PATIENCE);
                self.gather_if_ready(cx, false);
            }
            Err(cause) => self.end(cx, EndReason::Unreachable { target: self.peer.clone(), cause }),
        }
    }

    /// Gathers as soon as the way is known and the relays are (or, with `force`, are waited for no longer).
    pub(crate) fn gather_if_ready(&mut self, cx: &mut Cx<'_>, force: bool) {
        let Some(hop) = self.hop.filter(|_| self.stage == Stage::Waiting) else { return };
        if self.local.is_some() {
            return self.send_invite(cx); // the hop changed after gathering
        }
        if !cx.account.relays.is_settled() && !force {
            return;
        }
        self.timers.relays = None;
        self.stage = Stage::Gathering;
        self.gather(cx, hop);
    }

    pub(crate) fn gather(&mut self, cx: &mut Cx<'_>, hop: Hop) {
        let config = ice::Config {
            interfaces: cx.account.media_interfaces(hop, self.from_address),
            servers: cx.account.relays.servers(cx.now),
            policy: views::policy(self.policy),
            rtcp: self.their_offer.as_ref().is_none_or(|offer| !offer.mux),
            port_range: cx.account.port_range(),
            tcp: match &self.their_offer {
                Some(offer) => offer.ice.as_ref().is_some_and(negotiate::has_tcp),
                None => cx.account.has_room_for_tcp(hop),
            },
            ..ice::Config::default()
        };
        if config.servers.is_empty() && self.policy == PathPolicy::All {
            let cause = cx.account.relays.why_none();
            self.tell(cx, CallChange::Warned { warning: Warning::HostCandidatesOnly { cause } });
        }
        let mut flow = Flow::new(cx.now, config, self.seeds.ice, self.seeds.media);
        flow.gather(cx.now);
        self.flow = Some(flow);
    }

    /// All candidates are known, or the gathering time is over.
    pub(crate) fn gathered(
        &mut self,
        cx: &mut Cx<'_>,
        local: LocalDescription,
        failures: &[ServerFailure],
        took: Duration,
    ) {
        if !self.is_alive() {
            return;
        }
        let report = self.ice_report();
        let servers = if report.servers.is_empty() {
            failures.iter().map(|failure| views::server_failure(failure, took)).collect()
        } else {
            report.servers.clone()
        };
        let candidates = views::own_candidates(&local);
        self.tell(cx, CallChange::Gathered { candidates, servers, took_ms: views::millis(took) });
        if local.candidates.is_empty() && self.stage != Stage::Confirmed {
            let cause = failures.first().map_or_else(|| cx.account.relays.why_none(), ToString::to_string);
            return self.end(cx, EndReason::NoRelay { cause, report: Box::new(report) });
        }
        self.local = Some(local);
        match (self.stage, self.direction) {
            (Stage::Gathering, Direction::Outgoing) => self.send_invite(cx),
            (Stage::Gathering, Direction::Incoming) => self.send_progress(cx),
            (Stage::Confirmed, _) => self.regathered(cx),
            (Stage::Waiting | Stage::Offered | Stage::Ending, _) => {}
        }
    }

    /// SRTP as this call may still offer it.
    pub(crate) fn srtp_mode(&self) -> SrtpMode {
        if self.srtp_given_up { SrtpMode::Off } else { self.srtp }
    }

    /// Our transport addresses: everything before nomination, only the nominated pair after it (RFC 8839 §4.4.1.2).
    pub(crate) fn transport(&self, with_ice: bool, mux: bool, announce: bool) -> Option<Transport> {
        let local = self.local.as_ref()?;
        let wanted = |component| !mux || component == ice::Component::Rtp;
        let selected = |component| self.selected.iter().find(|path| path.component == component);
        let address = |component| match selected(component) {
            Some(path) => Some(path.local.addr),
            None => local.defaults.get(&component).copied(),
        };
        let candidates: Vec<_> = if self.selected.is_empty() {
            local.candidates.iter().filter(|candidate| wanted(candidate.component)).cloned().collect()
        } else {
            self.selected.iter().filter(|path| wanted(path.component)).map(|path| path.local.clone()).collect()
        };
        let remote_candidates = self.selected.iter().filter(|path| announce && wanted(path.component));
        let ice = with_ice.then(|| IceAttributes {
            ufrag: local.ufrag.clone(),
            pwd: local.pwd.clone(),
            candidates,
            options: local.options.iter().map(|option| (*option).to_owned()).collect(),
            pacing: Some(local.pacing),
            lite: false,
            mismatch: false,
            remote_candidates: remote_candidates.map(|path| (path.component, path.remote.addr)).collect(),
        });
        Some(Transport {
            rtp: address(ice::Component::Rtp)?,
            rtcp: address(ice::Component::Rtcp).filter(|_| !mux),
            ice,
        })
    }

    /// The first offer. Mux is offered, and component 2 too, in case the peer cannot (RFC 5761 §5.1.1).
    fn send_invite(&mut self, cx: &mut Cx<'_>) {
        let (Some(target), Some(hop)) = (self.target.clone(), self.hop) else { return };
        let Some(mut transport) = self.transport(true, false, false) else { return };
        let default_rtcp = self.local.as_ref().and_then(|local| local.defaults.get(&ice::Component::Rtcp).copied());
        transport.rtcp = default_rtcp;
        let way = self.our_way();
        let options =
            OfferOptions { srtp: self.srtp_mode(), key: &self.seeds.key, mux: true, direction: way, before: None };
        let offer = negotiate::make_offer(&options, transport);
        let sdp = self.origin.write(&offer);
        let bytes = sdp.len();
        match cx.account.endpoint.invite(cx.now, Invite { target, hop, sdp: Some(sdp), headers: self.headers.clone() })
        {
            Ok(leg) => {
                self.leg = Some(leg);
                self.stage = Stage::Offered;
                self.invited = Some(cx.now);
                self.timers.ring = Some(cx.now + self.ring_patience);
                self.enter(cx, CallState::Inviting);
                let (candidates, crypto) = (count_candidates(&offer), !offer.crypto.is_empty());
                self.tell(cx, CallChange::OfferSent { message: "INVITE".to_owned(), candidates, crypto, bytes });
                if crypto {
                    self.warn_of_plain_keys(cx);
                }
                self.offer = Some(offer);
            }
            Err(CommandError::TooLarge { .. }) => {
                // RFC 3261 §18.1.1: larger than 1300 bytes goes over TCP.
                self.stage = Stage::Waiting;
                cx.account.move_to_tcp(cx.now, self.id, hop, cx.ports);
            }
            Err(error) => self.end(cx, EndReason::Unreachable { target: self.peer.clone(), cause: error.to_string() }),
        }
    }

    /// A provisional response.
    pub(crate) fn progress(&mut self, cx: &mut Cx<'_>, dialog: Option<DialogId>, status: u16, sdp: Option<&str>) {
        if !self.is_alive() {
            return;
        }
        if let (Some(dialog), Some(sdp)) = (dialog, sdp)
            && !self.forks.contains_key(&dialog)
            && let Err(error) = self.add_fork(cx, dialog, sdp, status)
        {
            self.warn(cx, format!("the {status} cannot be used: {error}"));
        }
        self.tell_referrer(cx, status);
        if status == 180 || (status == 183 && self.state == CallState::Inviting) {
            self.enter(cx, CallState::Ringing);
        }
        if self.has_path {
            self.enter(cx, CallState::EarlyMedia);
        }
    }

    /// One more answer: a dialog, a key, an ICE peer.
    fn add_fork(
        &mut self,
        cx: &mut Cx<'_>,
        dialog: DialogId,
        sdp: &str,
        status: u16,
    ) -> Result<(), negotiate::NegotiateError> {
        let Some(offer) = self.offer.as_ref().filter(|_| self.forks.len() < FORKS_MAX) else { return Ok(()) };
        let answer = Description::read(sdp)?;
        let agreed = negotiate::apply_answer(offer, &answer, self.srtp_mode())?;
        let number = u32::try_from(self.forks.len()).unwrap_or(u32::MAX);
        let candidates = answer.ice.as_ref().map(|ice| views::candidates(&ice.candidates)).unwrap_or_default();
        let took_ms = self.invited.map(|at| views::ms(at, cx.now)).unwrap_or_default();
        let change = CallChange::AnswerReceived {
            message: status.to_string(),
            early_dialog: number,
            candidates,
            ice: agreed.ice.is_some(),
            rtcp_mux: agreed.mux,
            crypto: agreed.crypto.is_some(),
            took_ms,
        };
        self.tell(cx, change);
        self.start_session(cx, &agreed);
        let peer = self.connect_peer(cx, &agreed);
        self.forks.insert(dialog, Fork::new(number, peer, agreed));
        let keys = self.forks.values().filter_map(|fork| fork.agreed.crypto.as_ref()).map(|crypto| crypto.key.clone());
        let keys: Vec<_> = keys.collect();
        if let Some(flow) = &mut self.flow {
            flow.set_remote_keys(cx.now, keys).map_err(|error| negotiate::NegotiateError::Keys(error.to_string()))?;
        }
        self.apply_media(cx);
        Ok(())
    }

    /// Starts the checks towards a description of the peer, or plain media if it has no ICE.
    pub(crate) fn connect_peer(&mut self, cx: &mut Cx<'_>, agreed: &Agreed) -> Option<ice::PeerId> {
        let flow = self.flow.as_mut()?;
        if let Some(remote) = agreed.ice.clone() {
            // RFC 8445 §6.1.1: whoever made the offer, which is the callee if the INVITE had none.
            let offerer = self.their_offer.is_none();
            let role = if offerer || remote.lite { Role::Controlling } else { Role::Controlled };
            return Some(flow.add_peer(cx.now, remote, role));
        }
        flow.use_plain(cx.now, agreed.rtp, agreed.rtcp, agreed.mux);
        self.has_path = agreed.rtp.is_some();
        if let Some(remote) = agreed.rtp {
            self.tell(cx, CallChange::NoIce { remote });
        }
        None
    }

    /// 2xx: this dialog is the call, every other one is lost.
    pub(crate) fn accepted(&mut self, cx: &mut Cx<'_>, dialog: DialogId, sdp: Option<&str>) {
        if !self.is_alive() {
            self.dialog = Some(dialog);
            let _ = cx.account.endpoint.bye(cx.now, dialog);
            return;
        }
        self.dialog = Some(dialog);
        let other_answer = self.other_answer(dialog, sdp);
        if !self.forks.contains_key(&dialog) {
            let result = sdp.map(|sdp| self.add_fork(cx, dialog, sdp, 200));
            let problem = match result {
                Some(Ok(())) => None,
                Some(Err(error)) => Some(error.to_string()),
                None => Some("the 200 has no session description".to_owned()),
            };
            if let Some(problem) = problem {
                return self.end(cx, EndReason::NotAcceptable { problem });
            }
        }
        self.forks.retain(|id, _| *id == dialog);
        self.stage = Stage::Confirmed;
        self.answered = Some(cx.now);
        self.timers.ring = None;
        self.settle_on_fork(cx);
        if let Some(agreed) = other_answer {
            self.adopt(cx, agreed);
        }
        self.enter(cx, CallState::Talking);
        self.apply_media(cx);
        self.tell_referrer(cx, 200);
        self.next_offer(cx);
    }

    /// RFC 3261 §13.2.1 lets the 200 only repeat the SDP of the 183, but a PBX without ICE may play its announcements from
    /// another address than the one the person speaks from.
    fn other_answer(&self, dialog: DialogId, sdp: Option<&str>) -> Option<Agreed> {
        let fork = self.forks.get(&dialog).filter(|fork| fork.peer.is_none())?;
        let answer = Description::read(sdp?).ok()?;
        let agreed = negotiate::apply_answer(self.offer.as_ref()?, &answer, self.srtp_mode()).ok()?;
        let differs = agreed.rtp != fork.agreed.rtp || agreed.formats != fork.agreed.formats;
        differs.then_some(Agreed { ice: None, mux: fork.agreed.mux, ..agreed })
    }

    /// Media and ICE follow the fork that answered.
    fn settle_on_fork(&mut self, cx: &mut Cx<'_>) {
        let (now, Some(fork)) = (cx.now, self.fork()) else { return };
        let (peer, agreed, concluded) = (fork.peer, fork.agreed.clone(), fork.concluded.clone());
        let ours = agreed.crypto.is_some().then(|| self.seeds.key.clone());
        let Some(flow) = &mut self.flow else { return };
        if let Some(peer) = peer {
            flow.choose(now, peer);
        }
        let keys = agreed.crypto.map(|crypto| crypto.key).into_iter().collect();
        let mut outcome = flow.set_remote_keys(now, keys);
        if let Some(session) = flow.session_mut() {
            session.set_mux(agreed.mux);
            outcome =
                outcome.and_then(|()| session.set_local_key(ours)).and_then(|()| session.set_formats(agreed.formats));
        }
        self.has_path = match peer {
            Some(peer) => flow.agent().path(peer, ice::Component::Rtp).is_some(),
            None => self.has_path,
        };
        if let Err(error) = outcome {
            return self.end(cx, EndReason::Internal { what: error.to_string() });
        }
        match (peer, concluded) {
            (Some(peer), Some((selected, announce))) if selected != self.selected => {
                self.promoted(cx, peer, announce, selected);
            }
            (Some(_), Some(_)) => {}
            // What was nominated belongs to a fork that lost.
            (Some(_) | None, _) => {
                self.selected.clear();
                self.announce_due = false;
            }
        }
    }

    /// The INVITE was refused, or nobody answered it.
    pub(crate) fn failed(&mut self, cx: &mut Cx<'_>, failed: &CallFailed) {
        if !self.is_alive() {
            return self.signalling_ended(cx);
        }
        self.leg = None;
        let optional = self.srtp == SrtpMode::Optional && !self.srtp_given_up;
        if failed.status == 488 && optional && !failed.local {
            self.srtp_given_up = true;
            return self.send_invite(cx);
        }
        if (300..400).contains(&failed.status)
            && let Some(target) = self.next_target(&failed.redirect)
        {
            return self.redirected(cx, target);
        }
        if matches!(failed.status, 408 | 503) && (failed.local || failed.status == 503) && self.try_next_server(cx) {
            return;
        }
        self.signalling_done = true;
        let reason = self.why(failed);
        self.tear_down(cx, reason);
    }

    /// The first Contact of a 3xx that has not been called yet (RFC 3261 §8.1.3.4).
    fn next_target(&self, contacts: &[String]) -> Option<Uri> {
        if self.redirects.len() >= REDIRECTS_MAX {
            return None;
        }
        // A sips: URI asks for TLS all the way (RFC 3261 §8.1.3.4); a 3xx does not take that back.
        let secure = self.target.as_ref().is_some_and(|target| target.scheme == sip::Scheme::Sips);
        let called = |uri: &Uri| self.target.as_ref() == Some(uri) || self.redirects.contains(uri);
        let uris = contacts.iter().filter_map(|contact| contact.parse::<Uri>().ok());
        uris.filter(|uri| uri.is_sip() && !uri.host.is_empty() && (!secure || uri.scheme == sip::Scheme::Sips))
            .find(|uri| !called(uri))
    }

    /// The INVITE goes to somebody else; what the first one had begun is forgotten.
    fn redirected(&mut self, cx: &mut Cx<'_>, target: Uri) {
        self.tell(cx, CallChange::Redirected { to: Uri { password: None, ..target.clone() }.to_string() });
        self.redirects.extend(self.target.replace(target));
        self.forget_forks(cx);
        self.stage = Stage::Waiting;
        self.hop = None;
        self.route(cx, None);
    }

    /// RFC 3263 §4.3: a server that is silent, or says 503, is followed by the next one that its name has.
    fn try_next_server(&mut self, cx: &mut Cx<'_>) -> bool {
        if !cx.account.next_way(cx.now, self.id, cx.ports) {
            return false;
        }
        self.forget_forks(cx);
        self.stage = Stage::Waiting;
        self.hop = None;
        true
    }

    /// Early dialogs of an INVITE that has failed.
    fn forget_forks(&mut self, cx: &mut Cx<'_>) {
        for fork in std::mem::take(&mut self.forks).into_values() {
            if let (Some(peer), Some(flow)) = (fork.peer, &mut self.flow) {
                flow.agent_mut().remove_remote(cx.now, peer);
            }
        }
        self.has_path = false;
    }

    fn why(&self, failed: &CallFailed) -> EndReason {
        let (target, status, phrase) = (self.peer.clone(), failed.status, failed.reason.clone());
        match status {
            486 | 600 => EndReason::Busy { target, status, phrase },
            401 | 407 => EndReason::Credentials { target, status },
            404 | 410 | 484 | 485 | 604 => EndReason::UnknownUser { target, status, phrase },
            408 if failed.local => {
                EndReason::Unreachable { target, cause: "no answer to the INVITE in 32 s".to_owned() }
            }
            503 if failed.local => EndReason::Unreachable { target, cause: phrase },
            408 | 480 if self.state == CallState::Ringing || self.state == CallState::EarlyMedia => {
                let waited_s = self.invited.map_or(0, |at| views::ms(at, self.created.max(at)) / 1000);
                EndReason::NoAnswer { target, waited_s }
            }
            488 | 606 => {
                let detail = failed.warning.clone().unwrap_or(phrase);
                EndReason::NotAcceptable { problem: format!("{target} refuses our offer ({status} {detail})") }
            }
            _ => EndReason::Rejected { target, status, phrase },
        }
    }

    /// The agent's outputs belong to this call.
    pub(crate) fn agent_owner(&self) -> AgentOwner {
        AgentOwner::Call(self.id)
    }
}

/// Candidates in a description.
pub(crate) fn count_candidates(description: &Description) -> usize {
    description.ice.as_ref().map_or(0, |ice| ice.candidates.len())
}

/// What a user typed, as a URI: complete, or a user name in the account's domain.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse_target(text: &str, account: &Account) -> Result<Uri, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let has_scheme = ["sip:", "sips:", "tel:"].iter().any(|scheme| text.to_ascii_lowercase().starts_with(scheme));
    let complete = match (has_scheme, text.contains('@'), account.domain()) {
        (true, _, _) => text.to_owned(),
        (false, true, _) => format!("sip:{text}"),
        (false, false, Some(domain)) => format!("sip:{text}@{domain}"),
        (false, false, None) => return Err("without an account it must be complete, like sip:bob@192.0.2.7".to_owned()),
    };
    let uri: Uri = complete.parse().map_err(|error: sip::ParseError| error.to_string())?;
    match (uri.is_sip(), account.domain()) {
        (true, _) if uri.host.is_empty() => Err("it has no host".to_owned()),
        (true, _) => Ok(uri),
        (false, Some(domain)) => {
            // RFC 3261 §19.1.6: a telephone number as a SIP URI of our own domain.
            let number: String =
                uri.user.unwrap_or_default().chars().filter(|c| c.is_ascii_digit() || *c == '+').collect();
            format!("sip:{number}@{domain};user=phone").parse().map_err(|error: sip::ParseError| error.to_string())
        }
        (false, None) => Err("a telephone number needs an account".to_owned()),
    }
}
