//! Whether the path in use is alive, and what is done at once when it is not.
//!
//! ```text
//!            media due, none for 400 ms · a question unanswered for 400 ms · a send error
//!   Calm ───────────────────────────────────────────────────────────────▶ Doubt: every 200 ms the pair in use and
//!    ▲ ▲                     answer, or media on the pair in use            │      all standby pairs are checked
//!    │ └───────────────────────────────────────────────────────────────────┤
//!    │        a standby answered: move there, USE-CANDIDATE on it           │ 1 s without an answer
//!    └──────────────────────────────────────────────────────────────────────┤
//!                                                       none: PathDead ◀─────┘ (the owner restarts ICE; media goes on
//!                                                                               here until consent runs out)
//! ```
//!
//! Media is its own clock while it streams; in hold or with discontinuous transmission a question a second replaces it.
//! Where both sides renominate, the one that moves checks the standby pair with USE-CANDIDATE, whatever its role, and the
//! other one follows; where both move at once the controlling side's choice counts, because the controlled one waits for
//! it a little longer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::candidate::Component;
use crate::check::Purpose;
use crate::description::Role;
use crate::event::{Event, PathTrouble, SocketId};
use crate::pair::{Base, PairId};
use crate::peer::{Context, Session};

/// Media that is due and does not come for so long, or a question that is not answered: something may be wrong.
pub(crate) const DUE: Duration = Duration::from_millis(400);

/// Without media a question this often.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// From the first doubt to the verdict; three round trips on very long paths.
const DEAD_AFTER: Duration = Duration::from_secs(1);

/// Between two rounds of questions while in doubt, and after the verdict.
const ROUND: Duration = Duration::from_millis(200);
const ROUND_DEAD: Duration = Duration::from_millis(500);

/// The controlled side lets the controlling one choose first.
const DEFERENCE: Duration = Duration::from_millis(250);

/// After a move of our own, the other side's older wish is not followed.
const OWN_CHOICE_HOLDS: Duration = Duration::from_secs(2);

/// Packets of a stream follow each other within this time; so many in a row make one.
const STREAM_GAP: Duration = Duration::from_millis(200);
const STREAM_LEAST: u32 = 10;

/// The state of one component's path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    media_at: Option<Instant>,
    /// Media packets in a row that came no further apart than [`STREAM_GAP`].
    streak: u32,
    /// The last sign of life on the pair in use.
    alive_at: Instant,
    /// Since when a question has not been answered.
    asked_at: Option<Instant>,
    doubt: Option<Doubt>,
    /// When we chose the pair by ourselves.
    moved_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    since: Instant,
    again_at: Instant,
    rounds: u32,
    is_told: bool,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self { media_at: None, streak: 0, alive_at: now, asked_at: None, doubt: None, moved_at: None }
    }

    /// When something is due, and before that nothing.
    fn due_at(&self) -> Instant {
        if let Some(doubt) = self.doubt {
            return doubt.again_at;
        }
        let ask_at = self.asked_at.map_or(self.alive_at + ASK_EVERY, |at| at + DUE);
        match self.media_at.filter(|_| self.streak >= STREAM_LEAST) {
            Some(at) => at + DUE,
            None => ask_at,
        }
    }

    /// Since when its path is in doubt.
    pub(crate) fn doubted_since(&self) -> Option<Instant> {
        self.doubt.map(|doubt| doubt.since)
    }

    fn calm(&mut self, now: Instant) {
        (self.alive_at, self.asked_at, self.doubt) = (now, None, None);
    }
}

impl Session {
    fn is_watching(&self) -> bool {
        self.concluded_at.is_some() && !self.has_failed
    }

    pub(crate) fn liveness_at(&self) -> Option<Instant> {
        if !self.is_watching() {
            return None;
        }
        let on_path = self.watches.iter().filter(|(component, _)| self.paths.contains_key(component));
        on_path.map(|(_, watch)| watch.due_at()).min()
    }

    /// Asks, doubts and decides.
    pub(crate) fn run_liveness(&mut self, cx: &mut Context<'_>) {
        if !self.is_watching() || cx.half.is_plain {
            return;
        }
        for (component, id) in self.paths.clone() {
            let watch = self.watches.entry(component).or_insert_with(|| Watch::new(cx.now));
            if watch.due_at() > cx.now {
                continue;
            }
            let is_streaming = watch.streak >= STREAM_LEAST;
            if watch.doubt.is_some() {
                self.round(cx, component, id);
            } else if is_streaming || watch.asked_at.is_some() {
                self.begin_doubt(cx, component, id);
            } else {
                watch.asked_at = Some(cx.now);
                self.start_check(cx, id, Purpose::Consent);
            }
        }
    }

    /// Media of the peer, from where it came: how long it had been silent, if it was streaming.
    pub(crate) fn media_came(&mut self, cx: &mut Context<'_>, component: Component, base: Base, from: SocketAddr) {
        let now = cx.now;
        let is_in_use = self.paths.get(&component).and_then(|id| self.checklist.get(*id));
        let is_in_use = is_in_use.is_some_and(|pair| pair.base() == base && pair.remote.addr == from);
        let watch = self.watches.entry(component).or_insert_with(|| Watch::new(now));
        let is_stream = watch.media_at.is_some_and(|at| now.saturating_duration_since(at) <= STREAM_GAP);
        watch.streak = if is_stream { watch.streak.saturating_add(1) } else { 1 };
        watch.media_at = Some(now);
        if is_in_use {
            let was_told = watch.doubt.is_some_and(|doubt| doubt.is_told);
            watch.calm(now);
            self.tell_alive(cx, component, was_told);
        }
    }

    /// A check of a pair was answered.
    pub(crate) fn path_answered(&mut self, cx: &mut Context<'_>, id: PairId) {
        let Some(component) = self.checklist.get(id).map(crate::pair::Pair::component) else { return };
        if self.paths.get(&component) == Some(&id) {
            let Some(watch) = self.watches.get_mut(&component) else { return };
            let was_told = watch.doubt.is_some_and(|doubt| doubt.is_told);
            if watch.doubt.is_some() {
                watch.streak = 0; // the peer has simply stopped sending
            }
            watch.calm(cx.now);
            self.tell_alive(cx, component, was_told);
        } else if self.is_given_up(component, cx.now) {
            self.leave_dead_path(cx, component);
        }
    }

    fn tell_alive(&self, cx: &mut Context<'_>, component: Component, was_told: bool) {
        if was_told && let Some(path) = self.paths.get(&component).and_then(|id| self.path_of(*id)) {
            cx.half.event(Event::PathAlive { peer: cx.peer, component, path });
        }
    }

    /// Something says that the path does not work: it is checked now and not when media is missed.
    pub(crate) fn doubt_path(&mut self, cx: &mut Context<'_>, component: Component) {
        let Some(id) = self.paths.get(&component).copied().filter(|_| self.is_watching()) else { return };
        let watch = self.watches.entry(component).or_insert_with(|| Watch::new(cx.now));
        if watch.doubt.is_none() {
            self.begin_doubt(cx, component, id);
        }
    }

    /// A datagram of ours did not get through: was it for the path in use?
    pub(crate) fn send_failed(&mut self, cx: &mut Context<'_>, socket: SocketId, to: SocketAddr) {
        for (component, id) in self.paths.clone() {
            let Some(pair) = self.checklist.get(id) else { continue };
            let is_it = match pair.base() {
                Base::Socket(of) => of == socket && pair.remote.addr == to,
                Base::Relay(relay) => cx.half.relay_is_at(relay, socket, to),
                Base::Tcp(_) => false,
            };
            if is_it {
                self.doubt_path(cx, component);
            }
        }
    }

    fn begin_doubt(&mut self, cx: &mut Context<'_>, component: Component, id: PairId) {
        let Some(watch) = self.watches.get_mut(&component) else { return };
        tracing::debug!(peer = %cx.peer, %component, "no sign of life on the path in use: checking it and all standbys");
        watch.doubt = Some(Doubt { since: cx.now, again_at: cx.now, rounds: 0, is_told: false });
        cx.half.verify_servers(cx.now);
        self.round(cx, component, id);
    }

    /// Checks the pair in use, and the standbys that have not answered since the doubt began.
    fn round(&mut self, cx: &mut Context<'_>, component: Component, id: PairId) {
        let dead_after = self.dead_after(id);
        let Some(doubt) = self.watches.get_mut(&component).and_then(|watch| watch.doubt.as_mut()) else { return };
        let since = doubt.since;
        let is_dead = cx.now >= since + dead_after;
        doubt.rounds += 1;
        let rounds = doubt.rounds;
        doubt.again_at = cx.now + if doubt.is_told { ROUND_DEAD } else { ROUND };
        if !is_dead && doubt.again_at > since + dead_after {
            doubt.again_at = since + dead_after;
        }
        let silent = |id: &PairId| self.consents.get(id).is_none_or(|consent| consent.answered_at < since);
        let standbys = self.checklist.pairs().filter(|(_, pair)| pair.is_valid() && pair.component() == component);
        let asked: Vec<PairId> = standbys.map(|(id, _)| id).filter(|other| *other == id || silent(other)).collect();
        for pair in asked {
            self.watch_standby(cx, pair);
            self.start_check(cx, pair, Purpose::Consent);
        }
        let is_rebound = cx.half.rebound && rounds > 1;
        if is_dead || is_rebound {
            self.leave_dead_path(cx, component);
        }
        if is_rebound {
            self.tell_dead(cx, component, PathTrouble::Rebound);
        }
    }

    fn dead_after(&self, id: PairId) -> Duration {
        self.path_of(id).map_or(DEAD_AFTER, |path| DEAD_AFTER.max(path.rtt * 3))
    }

    /// Whether the time for an answer is over.
    pub(crate) fn is_given_up(&self, component: Component, now: Instant) -> bool {
        let Some(doubt) = self.watches.get(&component).and_then(|watch| watch.doubt) else { return false };
        self.paths.get(&component).is_some_and(|id| now >= doubt.since + self.dead_after(*id))
    }

    /// Whether a path of this session is past its time.
    pub(crate) fn is_given_up_by(&self, now: Instant) -> bool {
        self.watches.keys().any(|component| self.is_given_up(*component, now))
    }

    /// Whether a path of this session does not work.
    pub(crate) fn is_broken(&self, now: Instant) -> bool {
        let is_told = |watch: &Watch| watch.doubt.is_some_and(|doubt| doubt.is_told);
        !self.lost.is_empty() || self.is_given_up_by(now) || self.watches.values().any(is_told)
    }

    /// The verdict: to the best standby that has answered, or the owner has to find another way.
    fn leave_dead_path(&mut self, cx: &mut Context<'_>, component: Component) {
        let Some(id) = self.paths.get(&component).copied() else { return };
        let dead_after = self.dead_after(id);
        let Some(doubt) = self.watches.get(&component).and_then(|watch| watch.doubt) else { return };
        let deference = if self.role == Role::Controlled { DEFERENCE } else { Duration::ZERO };
        let answered = |id: PairId| self.consents.get(&id).is_some_and(|consent| consent.answered_at >= doubt.since);
        let standby = self
            .checklist
            .pairs()
            .filter(|(other, pair)| *other != id && pair.is_valid() && pair.component() == component)
            .filter(|(other, _)| self.renominates() && answered(*other))
            .min_by_key(|(_, pair)| pair.rank())
            .map(|(other, _)| other);
        match standby {
            Some(standby) if cx.now >= doubt.since + dead_after + deference => {
                tracing::debug!(peer = %cx.peer, %component, "the path in use is dead: moving to a standby");
                self.take_over(cx, component, standby);
            }
            Some(_) => {}
            None if cx.now < doubt.since + dead_after => {}
            None => self.tell_dead(cx, component, PathTrouble::Silent),
        }
    }

    /// There is nothing to move to: the owner is told, once.
    pub(crate) fn tell_dead(&mut self, cx: &mut Context<'_>, component: Component, trouble: PathTrouble) {
        let Some(path) = self.paths.get(&component).and_then(|id| self.path_of(*id)) else { return };
        let Some(doubt) = self.watches.get_mut(&component).and_then(|watch| watch.doubt.as_mut()) else { return };
        if !std::mem::replace(&mut doubt.is_told, true) {
            cx.half.event(Event::PathDead { peer: cx.peer, component, path, trouble });
        }
    }

    /// Another pair carries the component from now on; `by_us` if the choice was ours.
    pub(crate) fn watch_path(&mut self, cx: &Context<'_>, component: Component, by_us: bool) {
        let watch = self.watches.entry(component).or_insert_with(|| Watch::new(cx.now));
        watch.calm(cx.now);
        watch.streak = 0;
        watch.moved_at = by_us.then_some(cx.now);
        self.has_moved = true;
    }

    /// Both moved at once: the controlling side's choice counts.
    pub(crate) fn insists(&self, component: Component, now: Instant) -> bool {
        let moved_at = self.watches.get(&component).and_then(|watch| watch.moved_at);
        self.role == Role::Controlling && moved_at.is_some_and(|at| now < at + OWN_CHOICE_HOLDS)
    }
}
