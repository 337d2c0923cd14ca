//! One call: its dialog, its negotiation and its state. The media half is [`Flow`].
//!
//! ```text
//!   dial.rs       Created ─ hop ─ gather ─ INVITE ─ 18x, 183 ─ 200          incoming.rs   INVITE ─ 180 ─ gather ─ 183 ─ answer ─ 200
//!   reoffer.rs    re-INVITE and UPDATE, both ways: hold, codec, keys, ICE restart
//!   transfer.rs   REFER, both ways
//!   announce.rs   the re-INVITE after promotion, and answering one
//!   repair.rs     what is done when a path dies or the network changes
//!   media_side.rs what may flow when, what media and ICE report       call.rs   what they share: state, timers, the end
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use ice::{LocalDescription, Path, PeerId};
use media::srtp::sdes::MasterKey;
use sip::Uri;
use sip::event::{DialogId, Hop, LegId, RequestId};

use super::account::Account;
use super::description::{Description, Direction as MediaWay, Origin};
use super::flow::Flow;
use super::media_side::STATS_EVERY;
use super::negotiate::Agreed;
use super::ports::Ports;
use super::reoffer::Pending;
use super::repair::Repair;
use super::transfer::{self, Referred};
use super::{phase, views};
use crate::api::{
    AccountId, CallChange, CallId, CallState, CallStats, Direction, EndReason, IceReport, MediaSource, PathPolicy,
    SrtpMode, Warning,
};

/// An ended call that is not torn down by then is forgotten all the same.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// What a call needs from its surroundings while it handles something.
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) ports: &'a mut Ports,
    pub(crate) account: &'a mut Account,
    /// Wall clock at one instant.
    pub(crate) wall: (Instant, media::NtpTime),
}

/// One remote party of an outgoing call: an early dialog, or the confirmed one.
#[derive(Debug)]
pub(crate) struct Fork {
    pub(crate) number: u32,
    /// `None`: a peer without ICE.
    pub(crate) peer: Option<PeerId>,
    pub(crate) agreed: Agreed,
    /// The nominated pairs, and whether a re-INVITE has to name them: forks conclude before one of them answers.
    pub(crate) concluded: Option<(Vec<Path>, bool)>,
    /// No pair works between us and it.
    pub(crate) has_failed: bool,
}

impl Fork {
    pub(crate) fn new(number: u32, peer: Option<PeerId>, agreed: Agreed) -> Self {
        Self { number, peer, agreed, concluded: None, has_failed: false }
    }
}

/// Random material of a call, drawn once.
#[derive(Debug, Clone)]
pub(crate) struct CallSeeds {
    pub(crate) ice: [u8; 32],
    pub(crate) media: [u8; 32],
    pub(crate) key: MasterKey,
    pub(crate) origin: u64,
    /// Canonical name in RTCP.
    pub(crate) cname: String,
}

/// How far the signalling of an outgoing call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The account is not ready, or the way to the target is being found.
    Waiting,
    /// Candidates are being gathered.
    Gathering,
    /// INVITE or 183 is out.
    Offered,
    /// 200 exchanged.
    Confirmed,
    /// Torn down, waiting for the last acknowledgements.
    Ending,
}

/// Things that happen at a time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    pub(crate) ring: Option<Instant>,
    pub(crate) answer: Option<Instant>,
    /// An incoming call waits for relay credentials until then.
    pub(crate) relays: Option<Instant>,
    pub(crate) stats: Option<Instant>,
    /// When an offer that came at a bad moment is tried again.
    pub(crate) offer: Option<Instant>,
    /// After a transfer the other side should have said BYE by then.
    pub(crate) transferred: Option<Instant>,
    pub(crate) end: Option<Instant>,
}

impl Timers {
    fn earliest(&self) -> Option<Instant> {
        let ways_out = [self.ring, self.transferred, self.end];
        [self.answer, self.relays, self.stats, self.offer].into_iter().chain(ways_out).flatten().min()
    }
}

/// The media side as the user wants it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) muted: bool,
    pub(crate) held: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts; the state itself is one value")]
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) account: AccountId,
    pub(crate) direction: Direction,
    /// The other party as people write it.
    pub(crate) peer: String,
    pub(crate) target: Option<Uri>,
    pub(crate) created: Instant,
    pub(crate) answered: Option<Instant>,
    /// Our 200 was acknowledged: the caller is where its messages say it is.
    pub(crate) acknowledged: bool,
    pub(crate) state: CallState,
    pub(crate) stage: Stage,
    pub(crate) seeds: CallSeeds,
    pub(crate) policy: PathPolicy,
    pub(crate) srtp: SrtpMode,
    pub(crate) source: MediaSource,
    /// What is sent before the answer.
    pub(crate) early_source: media::Source,
    pub(crate) ring_patience: Duration,
    pub(crate) from_address: Option<std::net::IpAddr>,
    pub(crate) hop: Option<Hop>,
    pub(crate) flow: Option<Flow>,
    pub(crate) local: Option<LocalDescription>,
    /// The pairs that were nominated; descriptions after that name only these.
    pub(crate) selected: Vec<Path>,
    pub(crate) origin: Origin,
    pub(crate) leg: Option<LegId>,
    pub(crate) forks: BTreeMap<DialogId, Fork>,
    pub(crate) dialog: Option<DialogId>,
    /// Our last offer.
    pub(crate) offer: Option<Description>,
    /// The peer's last offer.
    pub(crate) their_offer: Option<Description>,
    pub(crate) invited: Option<Instant>,
    /// Our 183 or 200 as text, repeated unchanged.
    pub(crate) answer_text: Option<String>,
    pub(crate) answer_wanted: bool,
    pub(crate) pending: Option<Pending>,
    pub(crate) announce_due: bool,
    pub(crate) hold_due: Option<bool>,
    pub(crate) restart_due: bool,
    /// Our half of ICE is new and the offer with it has not left.
    pub(crate) restart_offer_due: bool,
    pub(crate) wishes: Wishes,
    pub(crate) held_by_peer: bool,
    pub(crate) has_path: bool,
    pub(crate) sending: bool,
    pub(crate) real_source_on: bool,
    pub(crate) media_told: bool,
    pub(crate) timers: Timers,
    pub(crate) repair: Repair,
    pub(crate) end_reason: Option<EndReason>,
    pub(crate) last_report: (CallStats, IceReport),
    pub(crate) signalling_done: bool,
    /// After a 488 to an offer of optional SRTP: the next offer has none.
    pub(crate) srtp_given_up: bool,
    /// Where it has been sent on to (RFC 3261 §8.1.3.4): nobody is asked twice.
    pub(crate) redirects: Vec<Uri>,
    /// Who asked for this call by REFER.
    pub(crate) referred: Option<Referred>,
    /// Further header fields of its INVITE.
    pub(crate) headers: Vec<(String, String)>,
    /// The call that its peer asked for instead.
    pub(crate) successor: Option<CallId>,
    /// Our own REFER, until it is answered.
    pub(crate) refer: Option<RequestId>,
    pub(crate) over: bool,
}

/// Descriptions hold the keys of the media, so that only the state is shown.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// A call in its first state; nothing has been told or sent.
    pub(crate) fn new(
        now: Instant,
        id: CallId,
        direction: Direction,
        peer: String,
        account: &Account,
        seeds: CallSeeds,
    ) -> Self {
        let config = &account.config;
        Self {
            id,
            account: account.id,
            direction,
            peer,
            target: None,
            created: now,
            answered: None,
            acknowledged: false,
            state: CallState::Gathering,
            stage: Stage::Waiting,
            origin: Origin::new(seeds.origin),
            seeds,
            policy: config.policy,
            srtp: config.srtp,
            source: config.source.clone(),
            early_source: media::Source::Silence,
            ring_patience: Duration::from_millis(config.ring_timeout_ms),
            from_address: None,
            hop: None,
            flow: None,
            local: None,
            selected: Vec::new(),
            leg: None,
            forks: BTreeMap::new(),
            dialog: None,
            offer: None,
            their_offer: None,
            invited: None,
            answer_text: None,
            answer_wanted: false,
            pending: None,
            announce_due: false,
            hold_due: None,
            restart_due: false,
            restart_offer_due: false,
            wishes: Wishes::default(),
            held_by_peer: false,
            has_path: false,
            sending: false,
            real_source_on: false,
            media_told: false,
            timers: Timers::default(),
            repair: Repair::default(),
            end_reason: None,
            last_report: (CallStats::default(), IceReport::default()),
            signalling_done: false,
            srtp_given_up: false,
            redirects: Vec::new(),
            referred: None,
            headers: Vec::new(),
            successor: None,
            refer: None,
            over: false,
        }
    }

    pub(crate) fn tell(&self, cx: &mut Cx<'_>, change: CallChange) {
        cx.ports.call_event(self.id, change);
    }

    pub(crate) fn warn(&self, cx: &mut Cx<'_>, what: impl Into<String>) {
        self.tell(cx, CallChange::Warned { warning: Warning::PeerMisbehaves { what: what.into() } });
    }

    /// Moves on, if the table allows it.
    pub(crate) fn enter(&mut self, cx: &mut Cx<'_>, state: CallState) {
        if self.state != state && phase::may_follow(self.state, state) {
            self.state = state;
            self.tell(cx, CallChange::State { state });
        }
    }

    /// Milliseconds since the call was created.
    pub(crate) fn age(&self, now: Instant) -> u64 {
        views::ms(self.created, now)
    }

    /// The fork that counts: the confirmed one, else the first.
    pub(crate) fn fork(&self) -> Option<&Fork> {
        match self.dialog {
            Some(dialog) => self.forks.get(&dialog),
            None => self.forks.values().min_by_key(|fork| fork.number),
        }
    }

    pub(crate) fn agreed(&self) -> Option<&Agreed> {
        self.fork().map(|fork| &fork.agreed)
    }

    /// Nothing has left for the other side yet, and candidates are not being gathered.
    pub(crate) fn is_waiting(&self) -> bool {
        self.stage == Stage::Waiting
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.stage != Stage::Ending
    }

    /// When this call wants to be woken, apart from its flow.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        super::flow::earlier(self.timers.earliest(), self.repair.deadline())
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let due = |timer: &mut Option<Instant>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.timers.ring) {
            let waited_s = self.ring_patience.as_secs();
            let reason = match self.direction {
                Direction::Outgoing => EndReason::NoAnswer { target: self.peer.clone(), waited_s },
                Direction::Incoming => EndReason::Cancelled,
            };
            self.end(cx, reason);
        }
        if due(&mut self.timers.relays) {
            self.gather_if_ready(cx, true);
        }
        if due(&mut self.timers.answer) {
            self.answer(cx);
        }
        if due(&mut self.timers.offer) {
            self.next_offer(cx);
        }
        self.run_repair(cx);
        if due(&mut self.timers.transferred) {
            self.end(cx, EndReason::LocalHangup);
        }
        if due(&mut self.timers.stats) {
            let stats = Box::new(self.stats(now));
            self.tell(cx, CallChange::Stats { stats });
            self.timers.stats = self.is_alive().then(|| now + STATS_EVERY);
        }
        if due(&mut self.timers.end) {
            if self.flow.take().is_some() {
                cx.ports.close_all_of(super::ports::AgentOwner::Call(self.id));
            }
            self.signalling_done = true;
            self.finish_if_done(cx);
        }
    }

    pub(crate) fn stats(&self, now: Instant) -> CallStats {
        let session = self.flow.as_ref().and_then(Flow::session);
        session.map_or_else(CallStats::default, |session| views::stats(&session.stats(now)))
    }

    pub(crate) fn ice_report(&self) -> IceReport {
        self.flow.as_ref().map_or_else(IceReport::default, |flow| views::report(&flow.agent().report()))
    }

    /// Ends the call from our side, whatever its state asks for: CANCEL, a refusal or BYE.
    pub(crate) fn end(&mut self, cx: &mut Cx<'_>, reason: EndReason) {
        if !self.is_alive() {
            return;
        }
        self.hang_up_signalling(cx, &reason);
        self.tear_down(cx, reason);
    }

    fn hang_up_signalling(&mut self, cx: &mut Cx<'_>, reason: &EndReason) {
        let (now, endpoint) = (cx.now, &mut cx.account.endpoint);
        let confirmed = self.dialog.filter(|_| self.stage == Stage::Confirmed);
        let done = match (confirmed, self.leg, self.direction) {
            (Some(dialog), _, _) => endpoint.bye(now, dialog).is_err(),
            (None, Some(leg), Direction::Outgoing) => endpoint.cancel(now, leg).is_err(),
            (None, Some(leg), Direction::Incoming) => {
                let status = match reason {
                    EndReason::Declined { status } => *status,
                    EndReason::NotAcceptable { .. } => 488,
                    EndReason::NoPath { .. } | EndReason::NoRelay { .. } | EndReason::Internal { .. } => 500,
                    _ => 480,
                };
                let _ = endpoint.reject(now, leg, status, "", &[]);
                true
            }
            (None, None, _) => true,
        };
        self.signalling_done = done;
    }

    /// Media and ICE are given back; the call is over when both halves say so.
    pub(crate) fn tear_down(&mut self, cx: &mut Cx<'_>, reason: EndReason) {
        if !self.is_alive() {
            return;
        }
        self.stage = Stage::Ending;
        self.enter(cx, CallState::Ending);
        self.last_report = (self.stats(cx.now), self.ice_report());
        self.tell_referrer(cx, transfer::status_of(&reason));
        self.end_reason = Some(reason);
        self.timers = Timers { end: Some(cx.now + END_PATIENCE), ..Timers::default() };
        self.repair = Repair::default();
        cx.account.cancel_race(self.id, cx.ports);
        match &mut self.flow {
            Some(flow) => flow.close(cx.now),
            None => self.finish_if_done(cx),
        }
    }

    /// The dialog or the INVITE is over as far as the other side is concerned.
    pub(crate) fn signalling_ended(&mut self, cx: &mut Cx<'_>) {
        self.signalling_done = true;
        self.finish_if_done(cx);
    }

    pub(crate) fn finish_if_done(&mut self, cx: &mut Cx<'_>) {
        if self.stage != Stage::Ending || self.over || self.flow.is_some() || !self.signalling_done {
            return;
        }
        self.over = true;
        self.timers = Timers::default();
        self.state = CallState::Ended;
        let reason = self.end_reason.clone().unwrap_or(EndReason::LocalHangup);
        let (stats, report) = std::mem::take(&mut self.last_report);
        let duration_ms = self.answered.map(|at| views::ms(at, cx.now)).unwrap_or_default();
        self.tell(cx, CallChange::Ended { reason, stats: Box::new(stats), report: Box::new(report), duration_ms });
    }

    /// What our next description says about who sends.
    pub(crate) fn our_way(&self) -> MediaWay {
        if self.wishes.held { MediaWay::SendOnly } else { MediaWay::SendRecv }
    }
}
