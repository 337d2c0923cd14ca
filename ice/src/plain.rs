//! A peer without ICE: symmetric RTP from our default candidate (RFC 4961 §4).
//!
//! Sends to the address of the SDP until a packet comes from elsewhere: then to its source, as behind a NAT the SDP names
//! an address that nobody can reach. A source that has latched keeps the place until it is silent for 2 s.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::agent::{Agent, destination};
use crate::candidate::{CandidateTransport, Component};
use crate::event::Output;
use crate::pair::Base;

/// A latched source gives way to another after this silence: media comes every 20 ms, RTCP every 5 s.
const fn latch_silence(component: Component) -> Duration {
    match component {
        Component::Rtp => Duration::from_secs(2),
        Component::Rtcp => Duration::from_secs(15),
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain {
    pub base: Option<Base>,
    pub remote: SocketAddr,
    latched_at: Option<Instant>,
}

impl Agent {
    /// The other side does not do ICE: sends to `remote` from our default candidate and takes what comes, following
    /// the source of its first packet. Again with another address after a re-INVITE that names one. A later description
    /// with ICE ends it; until then the paths of an earlier one are neither used nor missed.
    pub fn use_plain(&mut self, now: Instant, component: Component, remote: SocketAddr) {
        self.now = now;
        let base = self.plain_base(component, remote);
        self.plain.insert(component, Plain { base, remote, latched_at: None });
        self.half.is_plain = true;
        self.open_for(base, remote);
        self.settle(now);
    }

    /// The base of the default destination that our SDP names; of the peer's address family.
    fn plain_base(&self, component: Component, remote: SocketAddr) -> Option<Base> {
        // After the conclusion our SDP names the selected pair.
        let selected = self.peers.values().find_map(|peer| destination(peer, component)).map(|(base, _)| base);
        let told = selected.or_else(|| self.half.told_defaults.get(&component).copied());
        let same_family =
            |base: &Base| self.half.candidate_of(*base).is_some_and(|c| c.base_addr.is_ipv4() == remote.is_ipv4());
        told.filter(same_family).or_else(|| {
            let of_family = |c: &&crate::pair::LocalCandidate| {
                c.candidate.component == component
                    && c.candidate.transport == CandidateTransport::Udp
                    && c.base_addr.is_ipv4() == remote.is_ipv4()
            };
            self.half.local_candidates().iter().find(of_family).map(|c| c.base)
        })
    }

    fn open_for(&mut self, base: Option<Base>, remote: SocketAddr) {
        if let Some(Base::Relay(relay)) = base {
            self.half.permit(self.now, relay, remote.ip());
            self.half.bind_channel(self.now, Base::Relay(relay), remote);
        }
    }

    /// Says whether there was a plain destination.
    pub(crate) fn send_plain(&mut self, component: Component, payload: &[u8]) -> bool {
        let Some(mut plain) = self.plain.get(&component).copied() else { return false };
        if plain.base.is_none() {
            plain.base = self.plain_base(component, plain.remote);
            self.plain.insert(component, plain);
            self.open_for(plain.base, plain.remote);
        }
        let Some(base) = plain.base else { return false };
        self.half.transmit(self.now, base, plain.remote, payload.to_vec());
        true
    }

    /// Media from a source that no ICE peer knows. `carrier` is the component of its socket, `component` what the packet is.
    pub(crate) fn receive_plain(
        &mut self,
        carrier: Component,
        component: Component,
        base: Base,
        from: SocketAddr,
        payload: &[u8],
    ) {
        let now = self.now;
        let Some(plain) = self.plain.get_mut(&carrier) else { return };
        if plain.base != Some(base) {
            return;
        }
        let silence = latch_silence(carrier);
        let is_held = plain.latched_at.is_some_and(|at| now < at + silence);
        if from != plain.remote {
            if is_held {
                return;
            }
            tracing::debug!(%component, %from, "plain media comes from another address: sending there");
            plain.remote = from;
        }
        plain.latched_at = Some(now);
        self.half.out.push_back(Output::Data { peer: None, component, payload: payload.to_vec() });
    }
}
