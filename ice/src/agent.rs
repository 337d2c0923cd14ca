//! The facade: our half of ICE, and one [`PeerId`] for each remote description.
//!
//! ```text
//!   gather ──▶ Gathered ──▶ add_remote (one per early dialog) ──▶ PairValid, PathChanged{FirstValid}: send
//!     choose (the 200) ──▶ PathChanged{Promoted}, Concluded{announce} ──▶ … restart … ──▶ close ──▶ Closed
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::candidate::Component;
use crate::config::{Config, Server};
use crate::demux::{self, Packet};
use crate::description::{LocalDescription, NominatedPair, PairsVerdict, RemoteDescription, Role};
use crate::event::{Event, Input, Output, Path, PeerId, SocketId};
use crate::liveness;
use crate::local::Half;
use crate::pair::Base;
use crate::path::NotReady;
use crate::peer::{Context, Peer, Session};
use crate::plain::Plain;
use crate::responder::EarlyCheck;
use crate::stun::{Class, Message};

/// Early dialogs served at once; further ones are refused. [MS-ICE2] asks for 20.
const PEERS_MAX: usize = 20;

/// Servers of one agent: several edges with three transports each, and those that replaced them in a long call.
const SERVERS_MAX: usize = 32;

/// A method was called for a peer that does not exist (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no {0}: it was never added or has been dropped")]
pub struct NoSuchPeer(pub PeerId);

/// An ICE agent for one media stream.
///
/// Call order: [`gather`](Self::gather); wait for [`Event::Gathered`](crate::Event::Gathered);
/// [`add_remote`](Self::add_remote) for each answer (or for the offer, as soon as it is there);
/// [`choose`](Self::choose) when one has been accepted; [`close`](Self::close) and drain until
/// [`Event::Closed`](crate::Event::Closed).
#[derive(Debug)]
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) half: Half,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    pub(crate) early: VecDeque<EarlyCheck>,
    pub(crate) plain: BTreeMap<Component, Plain>,
    pub(crate) tie_breaker: u64,
    pub(crate) now: Instant,
    /// No transaction starts before this (RFC 8445 §14.2).
    pub(crate) pace_at: Instant,
    /// Whose turn was the last check.
    pub(crate) last_paced: Option<PeerId>,
    pub(crate) deadline: Option<Instant>,
    next_peer: u32,
    /// Packets that belonged to nothing, for the report.
    pub(crate) strays: u64,
}

impl Agent {
    /// An idle agent. The same seed, configuration and inputs give the same bytes.
    pub fn new(now: Instant, config: Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let tie_breaker = rng.next_u64();
        let half = Half::new(&config, rng);
        Self {
            config,
            half,
            peers: BTreeMap::new(),
            early: VecDeque::new(),
            plain: BTreeMap::new(),
            tie_breaker,
            now,
            pace_at: now,
            last_paced: None,
            deadline: None,
            next_peer: 0,
            strays: 0,
        }
    }

    /// Opens sockets and streams and asks the servers; ends with [`Event::Gathered`](crate::Event::Gathered).
    pub fn gather(&mut self, now: Instant) {
        self.half.start_gathering(now, &self.config);
        self.settle(now);
    }

    /// Our half as it is now: what a 183 or 200 repeats after [`Event::Gathered`](crate::Event::Gathered).
    pub fn local_description(&self) -> LocalDescription {
        self.half.description()
    }

    /// Adds a remote description and starts its checks at once (as candidates of ours come up). One per early dialog;
    /// the same agent serves all of them. `role` is `Controlling` for the initial offerer. A controlled agent has one
    /// peer only, which counts as chosen. Beyond 20 peers at once a further one is ignored: its id names nobody.
    pub fn add_remote(&mut self, now: Instant, remote: RemoteDescription, role: Role) -> PeerId {
        self.now = now;
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        self.end_plain();
        if remote.rtcp_mux {
            self.drop_rtcp();
        }
        if self.peers.len() < PEERS_MAX {
            let ours = self.config.pacing;
            let session = Session::new(&mut self.context(id), remote, role, ours);
            let mut peer = Peer::new(session);
            peer.chosen_at = (role == Role::Controlled).then_some(now);
            self.peers.insert(id, peer);
            self.replay_early_checks(id);
        }
        self.settle(now);
        id
    }

    /// A later description of the same dialog: merges candidates if ufrag and pwd are the same; else it is an ICE
    /// restart (call [`restart`](Self::restart) first, if we did not start it) and the old pair is used until a new one
    /// is nominated.
    ///
    /// # Errors
    ///
    /// [`NoSuchPeer`].
    pub fn update_remote(&mut self, now: Instant, id: PeerId, remote: RemoteDescription) -> Result<(), NoSuchPeer> {
        self.now = now;
        let Some(peer) = self.peers.get(&id) else { return Err(NoSuchPeer(id)) };
        let known = &peer.session.remote;
        let is_restart = known.ufrag != remote.ufrag || known.pwd != remote.pwd;
        let role = peer.session.role;
        self.end_plain();
        if remote.rtcp_mux {
            self.drop_rtcp();
        }
        if is_restart {
            let ours = self.config.pacing;
            let session = Session::new(&mut self.context(id), remote, role, ours);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.restart(session);
            }
            self.replay_early_checks(id);
        } else {
            self.with_session(id, false, |session, cx| session.merge(cx, remote.candidates));
        }
        self.settle(now);
        Ok(())
    }

    fn end_plain(&mut self) {
        self.plain.clear();
        self.half.is_plain = false;
    }

    /// The dialog of `peer` was confirmed: others are dropped. Until then nothing of our half is released, and the
    /// answerer's side does not fail, however long it rings.
    ///
    /// # Errors
    ///
    /// [`NoSuchPeer`].
    pub fn choose(&mut self, now: Instant, id: PeerId) -> Result<(), NoSuchPeer> {
        self.now = now;
        let Some(peer) = self.peers.get_mut(&id) else { return Err(NoSuchPeer(id)) };
        peer.chosen_at.get_or_insert(now);
        self.peers.retain(|other, _| *other == id);
        self.with_session(id, false, Session::confirm);
        self.early.clear();
        self.settle(now);
        Ok(())
    }

    /// The dialog of `peer` ended without an answer.
    pub fn remove_remote(&mut self, now: Instant, peer: PeerId) {
        self.peers.remove(&peer);
        self.settle(now);
    }

    /// RTP and RTCP share component 1 from now on: sockets and allocations of component 2 are released at once.
    /// Implied by a description with [`RemoteDescription::rtcp_mux`].
    pub fn set_mux(&mut self, now: Instant) {
        self.now = now;
        self.drop_rtcp();
        self.settle(now);
    }

    fn drop_rtcp(&mut self) {
        self.half.drop_rtcp(self.now);
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            for is_previous in [false, true] {
                self.with_session(id, is_previous, Session::drop_rtcp);
            }
        }
    }

    /// Starts an ICE restart of our half: new ufrag and pwd, what is missing is gathered again (on `interfaces` if they
    /// have changed); ends with [`Event::Gathered`](crate::Event::Gathered). The old pairs go on until the new session
    /// has its own.
    pub fn restart(&mut self, now: Instant, interfaces: Option<Vec<IpAddr>>) {
        let keep = self.bases_in_use();
        self.half.restart(now, interfaces, &self.config, &keep);
        self.settle(now);
    }

    /// The servers as they are now: new credentials of known ones count from the next gathering on (relays that there are go
    /// on with theirs, RFC 8656 §5), new servers are added behind them.
    pub fn set_servers(&mut self, servers: Vec<Server>) {
        for server in servers {
            let key = |s: &Server| (s.name.clone(), s.addr, s.transport);
            let known = &mut self.half.servers;
            if let Some(at) = known.iter().position(|s| key(s) == key(&server)) {
                known.splice(at..=at, [server]);
            } else if known.len() < SERVERS_MAX {
                known.push(server);
            }
        }
    }

    /// The re-INVITE that announced the nominated pairs was answered: dialects that move at the answer move now.
    pub fn announced(&mut self, now: Instant, peer: PeerId) {
        self.now = now;
        self.with_session(peer, false, Session::move_to_selected);
        self.settle(now);
    }

    /// Whether the pairs named by a `remote-candidates` offer are valid here (RFC 8839 §4.4.2). Makes us controlled.
    /// After [`PairsVerdict::Pending`] the verdict comes as
    /// [`Event::RemoteCandidates`](crate::Event::RemoteCandidates).
    ///
    /// # Errors
    ///
    /// [`NoSuchPeer`].
    pub fn await_pairs(
        &mut self,
        now: Instant,
        peer: PeerId,
        pairs: &[NominatedPair],
    ) -> Result<PairsVerdict, NoSuchPeer> {
        self.now = now;
        let verdict = self.with_session(peer, false, |session, cx| session.await_pairs(cx, pairs));
        self.settle(now);
        verdict.ok_or(NoSuchPeer(peer))
    }

    /// Sends media on the path of the component; before [`choose`](Self::choose) to every peer that has one. With mux
    /// agreed, RTCP goes out on component 1.
    ///
    /// # Errors
    ///
    /// [`NotReady`] says why nothing was sent.
    pub fn send(&mut self, now: Instant, component: Component, payload: &[u8]) -> Result<(), NotReady> {
        self.now = now;
        if self.half.closing.is_some() || self.half.is_closed {
            return Err(NotReady::Closed);
        }
        let component = if self.half.mux { Component::Rtp } else { component };
        if self.send_plain(component, payload) {
            return Ok(());
        }
        let targets: Vec<(Base, SocketAddr)> =
            self.peers.values().filter_map(|peer| destination(peer, component)).collect();
        if targets.is_empty() {
            let is_lost = self.peers.values().any(|peer| peer.session.lost.contains(&component));
            let cause = if is_lost { NotReady::NoConsent } else { NotReady::NoValidPair };
            return Err(cause(component));
        }
        for (base, to) in targets {
            self.half.transmit(now, base, to, payload.to_vec());
        }
        Ok(())
    }

    /// The pair in use, per component.
    pub fn path(&self, peer: PeerId, component: Component) -> Option<Path> {
        let component = if self.half.mux { Component::Rtp } else { component };
        let mut sessions = self.peers.get(&peer)?.sessions();
        sessions.find_map(|session| session.path_of(*session.paths.get(&component)?))
    }

    /// Our role towards a peer: may have changed by a role conflict.
    pub fn role(&self, peer: PeerId) -> Option<Role> {
        self.peers.get(&peer).map(|peer| peer.session.role)
    }

    /// Frees allocations, closes sockets and streams; ends with [`Event::Closed`](crate::Event::Closed) within 2 s.
    pub fn close(&mut self, now: Instant) {
        self.peers.clear();
        self.early.clear();
        self.plain.clear();
        self.half.close(now);
        self.settle(now);
    }

    /// Takes what happened outside. Bad bytes are counted and dropped.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        self.now = now;
        let is_early = self.deadline.is_none_or(|at| now < at);
        if is_early && matches!(input, Input::Timeout) {
            return; // the owner's other clocks, fifty times a second in a call
        }
        if let Input::SendFailed { socket, to, .. } = &input {
            self.send_failed(*socket, *to);
        }
        if let Some((socket, from, payload)) = self.half.handle_input(now, input) {
            let is_sound = matches!(demux::classify(payload), Packet::Rtp | Packet::Rtcp);
            self.packet(Base::Socket(socket), from, payload);
            if is_early && is_sound && self.plain.is_empty() {
                return; // media changes nothing here
            }
        }
        self.settle(now);
    }

    /// The next thing to do; drain until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        self.half.out.pop_front().unwrap_or(Output::Timeout(self.deadline))
    }

    /// A packet from a peer, by socket or through a relay.
    pub(crate) fn packet(&mut self, base: Base, from: SocketAddr, payload: &[u8]) {
        match demux::classify(payload) {
            Packet::Stun => match Message::parse_as(self.config.dialect.wire, payload) {
                Ok(message) => self.stun(base, from, &message),
                Err(error) => {
                    self.strays += 1;
                    tracing::trace!(%from, %error, "not STUN");
                }
            },
            Packet::Rtp | Packet::Dtls => self.data(base, from, payload, false),
            Packet::Rtcp => self.data(base, from, payload, true),
            Packet::Zrtp | Packet::TurnChannel | Packet::Unknown => self.strays += 1,
        }
    }

    fn stun(&mut self, base: Base, from: SocketAddr, message: &Message<'_>) {
        match message.class() {
            Class::Request => self.handle_request(base, from, message),
            Class::Success | Class::Error => {
                for id in self.peers.keys().copied().collect::<Vec<_>>() {
                    for is_previous in [false, true] {
                        let handle = |session: &mut Session, cx: &mut Context<'_>| {
                            session.handle_response(cx, base, from, message)
                        };
                        if self.with_session(id, is_previous, handle) == Some(true) {
                            return;
                        }
                    }
                }
                self.strays += 1;
            }
            Class::Indication => {} // a keepalive
        }
    }

    /// Media: from an address that a peer has, or from a plain peer.
    fn data(&mut self, base: Base, from: SocketAddr, payload: &[u8], is_rtcp: bool) {
        let Some(carrier) = self.half.component_of(base) else { return };
        let knows = |peer: &Peer| peer.sessions().any(|s| s.checklist.knows_remote(from, carrier));
        let peer = self.peers.iter().find(|(_, peer)| knows(peer)).map(|(id, _)| *id);
        let component = if self.half.mux && is_rtcp { Component::Rtcp } else { carrier };
        if let Some(peer) = peer {
            if !is_rtcp && carrier == Component::Rtp {
                self.media_came(peer, base, from);
            }
            self.half.out.push_back(Output::Data { peer: Some(peer), component, payload: payload.to_vec() });
        } else if self.plain.contains_key(&carrier) {
            self.receive_plain(carrier, component, base, from, payload);
        } else {
            self.strays += 1;
        }
    }

    /// Media is the sign of life of its path; after a break its length is told.
    fn media_came(&mut self, id: PeerId, base: Base, from: SocketAddr) {
        let now = self.now;
        for is_previous in [false, true] {
            self.with_session(id, is_previous, |session, cx| session.media_came(cx, Component::Rtp, base, from));
        }
        let path = self.path(id, Component::Rtp);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let length = peer.media_at.replace(now).map(|at| now.saturating_duration_since(at));
        let was_broken = std::mem::take(&mut peer.is_broken);
        let length = length.filter(|length| was_broken && *length >= liveness::DUE);
        if let (Some(length), Some(path)) = (length, path) {
            self.half.event(Event::MediaGap { peer: id, component: Component::Rtp, length, path });
        }
    }

    /// A datagram did not leave, or came back as an ICMP error: the paths that it belongs to are looked at.
    fn send_failed(&mut self, socket: SocketId, to: SocketAddr) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            for is_previous in [false, true] {
                self.with_session(id, is_previous, |session, cx| session.send_failed(cx, socket, to));
            }
        }
    }

    pub(crate) fn context(&mut self, peer: PeerId) -> Context<'_> {
        Context {
            now: self.now,
            half: &mut self.half,
            dialect: self.config.dialect,
            tie_breaker: &mut self.tie_breaker,
            peer,
        }
    }

    pub(crate) fn session(&self, peer: PeerId, is_previous: bool) -> Option<&Session> {
        let peer = self.peers.get(&peer)?;
        if is_previous { peer.previous.as_ref() } else { Some(&peer.session) }
    }

    pub(crate) fn with_session<T>(
        &mut self,
        id: PeerId,
        is_previous: bool,
        act: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(&id)?;
        let session = if is_previous { peer.previous.as_mut()? } else { &mut peer.session };
        let mut context = Context {
            now: self.now,
            half: &mut self.half,
            dialect: self.config.dialect,
            tie_breaker: &mut self.tie_breaker,
            peer: id,
        };
        Some(act(session, &mut context))
    }

    /// What all peers together still need.
    pub(crate) fn bases_in_use(&self) -> BTreeSet<Base> {
        let sessions = self.peers.values().flat_map(Peer::sessions);
        let plain = self.plain.values().filter_map(|plain| plain.base);
        sessions.flat_map(Session::bases).chain(plain).collect()
    }
}

/// Where a peer gets media now.
pub(crate) fn destination(peer: &Peer, component: Component) -> Option<(Base, SocketAddr)> {
    peer.sessions().find_map(|session| {
        let pair = session.checklist.get(*session.paths.get(&component)?)?;
        Some((pair.base(), pair.remote.addr))
    })
}

/// Deadlines are never in the past, so that a driver cannot spin.
pub(crate) const DEADLINE_LEAST: Duration = Duration::from_millis(1);
