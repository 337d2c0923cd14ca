//! The facade: our half of ICE, and one [`PeerId`] for each remote description.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::candidate::Component;
use crate::config::Config;
use crate::description::{NominatedPair, PairsVerdict, RemoteDescription, Role};
use crate::event::{Event, Input, Output, Path, PeerId};
use crate::path::NotReady;
use crate::report::IceReport;

/// A method was called for a peer that does not exist (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no {0}: it was never added or has been dropped")]
pub struct NoSuchPeer(pub PeerId);

/// An ICE agent for one media stream.
///
/// Call order: [`gather`](Self::gather); wait for [`Event::Gathered`]; [`add_remote`](Self::add_remote) for each answer
/// (or for the offer, as soon as it is there); [`choose`](Self::choose) when one has been accepted;
/// [`close`](Self::close) and drain until [`Event::Closed`].
#[derive(Debug)]
pub struct Agent {
    config: Config,
    rng: ChaCha20Rng,
    outputs: VecDeque<Output>,
}

impl Agent {
    /// An idle agent. The same seed, configuration and inputs give the same bytes.
    pub fn new(_now: Instant, config: Config, seed: [u8; 32]) -> Self {
        Self { config, rng: ChaCha20Rng::from_seed(seed), outputs: VecDeque::new() }
    }

    /// Opens sockets and streams and asks the servers; ends with [`Event::Gathered`].
    pub fn gather(&mut self, _now: Instant) {
        let _ = (&self.config, &self.rng);
    }

    /// Adds a remote description and starts its checks at once (as candidates of ours come up). One per early dialog;
    /// the same agent serves all of them. `role` is `Controlling` for the initial offerer.
    pub fn add_remote(&mut self, _now: Instant, _remote: RemoteDescription, _role: Role) -> PeerId {
        PeerId(0)
    }

    /// A later description of the same dialog: merges candidates if ufrag and pwd are the same; else it is an ICE
    /// restart (call [`restart`](Self::restart) first, if we did not start it) and the old pair is used until a new one
    /// is nominated.
    ///
    /// # Errors
    ///
    /// [`NoSuchPeer`].
    pub fn update_remote(&mut self, _now: Instant, peer: PeerId, _remote: RemoteDescription) -> Result<(), NoSuchPeer> {
        Err(NoSuchPeer(peer))
    }

    /// The dialog of `peer` was confirmed: others are dropped. Until then nothing of our half is released.
    ///
    /// # Errors
    ///
    /// [`NoSuchPeer`].
    pub fn choose(&mut self, _now: Instant, peer: PeerId) -> Result<(), NoSuchPeer> {
        Err(NoSuchPeer(peer))
    }

    /// The dialog of `peer` ended without an answer.
    pub fn remove_remote(&mut self, _now: Instant, _peer: PeerId) {}

    /// RTP and RTCP share component 1 from now on: sockets and allocations of component 2 are released at once.
    pub fn set_mux(&mut self, _now: Instant) {}

    /// Starts an ICE restart of our half: new ufrag and pwd, dead candidates gathered again on `config`'s interfaces
    /// (replaced by `interfaces` if given); ends with [`Event::Gathered`]. The old pairs go on until the new session has
    /// its own.
    pub fn restart(&mut self, _now: Instant, _interfaces: Option<Vec<std::net::IpAddr>>) {}

    /// The re-INVITE that announced the nominated pairs was answered: dialects that move at the answer move now.
    pub fn announced(&mut self, _now: Instant, _peer: PeerId) {}

    /// Whether the pairs named by a `remote-candidates` offer are valid here (RFC 8839 §4.4.2). Makes us controlled.
    ///
    /// # Errors
    ///
    /// [`NoSuchPeer`].
    pub fn await_pairs(
        &mut self,
        _now: Instant,
        peer: PeerId,
        _pairs: &[NominatedPair],
    ) -> Result<PairsVerdict, NoSuchPeer> {
        Err(NoSuchPeer(peer))
    }

    /// The other side does not do ICE: sends to `remote` from our default candidate and takes what comes, following
    /// the source of its first packet (symmetric RTP, RFC 4961 §4).
    pub fn use_plain(&mut self, _now: Instant, _component: Component, _remote: SocketAddr) {}

    /// Sends media on the path of the component; before [`choose`](Self::choose) to every peer that has one. With mux
    /// agreed, RTCP goes out on component 1.
    ///
    /// # Errors
    ///
    /// [`NotReady`] says why nothing was sent.
    pub fn send(&mut self, _now: Instant, component: Component, _payload: &[u8]) -> Result<(), NotReady> {
        Err(NotReady::NoValidPair(component))
    }

    /// The pair in use, per component.
    pub fn path(&self, _peer: PeerId, _component: Component) -> Option<Path> {
        None
    }

    /// Everything known, for people.
    pub fn report(&self) -> IceReport {
        IceReport::default()
    }

    /// Frees allocations, closes sockets and streams; ends with [`Event::Closed`] within 2 s.
    pub fn close(&mut self, _now: Instant) {
        self.outputs.push_back(Output::Event(Event::Closed));
    }

    /// Takes what happened outside. Bad bytes are counted and dropped.
    pub fn handle_input(&mut self, _now: Instant, _input: Input<'_>) {}

    /// The next thing to do; drain until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Timeout(None))
    }
}
