//! The media half of one call: where it flows (`ice::Agent`) and what flows (`media::Session`), joined.
//!
//! ```text
//!   socket ─▶ Agent ─▶ Data ─▶ Session ─▶ Play          microphone ─▶ Session ─▶ Packet ─▶ Agent ─▶ socket
//! ```
//!
//! Exchanges values with its call and nothing else, so that it could run elsewhere than the dialog.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ice::{Agent, PeerId, RemoteDescription, Role};
use media::srtp::sdes::MasterKey;
use media::{Formats, MediaError, Session, Source};

use super::io::Frame;

/// What comes out of [`Flow::poll`].
#[derive(Debug)]
pub(crate) enum FlowOutput {
    /// Sockets, streams and packets that the agent asks for.
    Ice(ice::Output),
    IceEvent(ice::Event),
    MediaEvent(media::Event),
    Play(Box<Frame>),
    Timeout(Option<Instant>),
}

/// What a session is made from once a description of the peer is there.
#[derive(Debug, Clone)]
pub(crate) struct SessionSetup {
    pub(crate) formats: Formats,
    pub(crate) protection: media::Protection,
    pub(crate) mux: bool,
    pub(crate) cname: String,
    pub(crate) source: Source,
    pub(crate) wall: (Instant, media::NtpTime),
}

/// Agent and session of one call.
#[derive(Debug)]
pub(crate) struct Flow {
    agent: Agent,
    session: Option<Session>,
    media_seed: [u8; 32],
    /// After the answer only this peer is heard.
    chosen: Option<PeerId>,
    /// Media packets that could not be sent because no path was there.
    unsent: u64,
}

impl Flow {
    /// An idle flow; [`Flow::gather`] comes next.
    pub(crate) fn new(now: Instant, config: ice::Config, ice_seed: [u8; 32], media_seed: [u8; 32]) -> Self {
        Self { agent: Agent::new(now, config, ice_seed), session: None, media_seed, chosen: None, unsent: 0 }
    }

    pub(crate) fn gather(&mut self, now: Instant) {
        self.agent.gather(now);
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(crate) fn agent_mut(&mut self) -> &mut Agent {
        &mut self.agent
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Makes the session, once.
    ///
    /// # Errors
    ///
    /// [`MediaError`] if a codec cannot be set up.
    pub(crate) fn start_session(&mut self, now: Instant, setup: SessionSetup) -> Result<(), MediaError> {
        if self.session.is_some() {
            return Ok(());
        }
        let config = media::Config {
            formats: setup.formats,
            protection: setup.protection,
            mux: setup.mux,
            cname: setup.cname,
            source: setup.source,
            wall: setup.wall,
            ..media::Config::new(now)
        };
        self.session = Some(Session::new(now, config, self.media_seed)?);
        Ok(())
    }

    /// One more remote description: the answer, or one of several early ones.
    pub(crate) fn add_peer(&mut self, now: Instant, remote: RemoteDescription, role: Role) -> PeerId {
        self.agent.add_remote(now, remote, role)
    }

    /// The dialog of this peer was confirmed.
    pub(crate) fn choose(&mut self, now: Instant, peer: PeerId) {
        self.chosen = Some(peer);
        // A peer that is gone has no dialog either, so there is nobody to tell.
        let _ = self.agent.choose(now, peer);
    }

    /// The other side has no ICE: plain symmetric RTP.
    pub(crate) fn use_plain(
        &mut self,
        now: Instant,
        media: Option<SocketAddr>,
        control: Option<SocketAddr>,
        mux: bool,
    ) {
        if mux {
            self.agent.set_mux(now);
        }
        if let Some(address) = media {
            self.agent.use_plain(now, ice::Component::Rtp, address);
        }
        if let Some(address) = control.filter(|_| !mux) {
            self.agent.use_plain(now, ice::Component::Rtcp, address);
        }
    }

    /// Keys of the peer, or of all forks before one is chosen.
    ///
    /// # Errors
    ///
    /// [`MediaError::Key`].
    pub(crate) fn set_remote_keys(&mut self, now: Instant, keys: Vec<MasterKey>) -> Result<(), MediaError> {
        self.session.as_mut().map_or(Ok(()), |session| session.set_remote_keys(now, keys))
    }

    pub(crate) fn microphone(&mut self, now: Instant, frame: &Frame) {
        if let Some(session) = &mut self.session {
            session.handle_input(now, media::Input::Microphone(frame));
        }
    }

    pub(crate) fn handle_ice(&mut self, now: Instant, input: ice::Input<'_>) {
        self.agent.handle_input(now, input);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.agent.handle_input(now, ice::Input::Timeout);
        if let Some(session) = &mut self.session {
            session.handle_input(now, media::Input::Timeout);
        }
    }

    pub(crate) fn set_ice_rtt(&mut self, now: Instant, rtt: Duration) {
        if let Some(session) = &mut self.session {
            session.set_ice_rtt(now, rtt);
        }
    }

    /// Ends media (RTCP BYE) and frees allocations, sockets and streams; ends with `ice::Event::Closed`.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            session.stop(now);
            // The BYE must be on its way before the path is torn down.
            while let media::Output::Packet { component, payload } = session.poll_output() {
                let _ = self.agent.send(now, ice_component(component), &payload);
            }
        }
        self.agent.close(now);
    }

    /// The next thing to do; media is passed between the two halves on the way. Drain until [`FlowOutput::Timeout`].
    pub(crate) fn poll(&mut self, now: Instant) -> FlowOutput {
        loop {
            let agent_at = match self.agent.poll_output() {
                ice::Output::Data { peer, component, payload } => {
                    self.receive(now, peer, component, &payload);
                    continue;
                }
                ice::Output::Event(event) => return FlowOutput::IceEvent(event),
                ice::Output::Timeout(at) => at,
                other => return FlowOutput::Ice(other),
            };
            let Some(session) = &mut self.session else { return FlowOutput::Timeout(agent_at) };
            match session.poll_output() {
                media::Output::Packet { component, payload } => {
                    if self.agent.send(now, ice_component(component), &payload).is_err() {
                        self.unsent += 1;
                    }
                }
                media::Output::Play(frame) => return FlowOutput::Play(frame),
                media::Output::Said(_) => {}
                media::Output::Event(event) => return FlowOutput::MediaEvent(event),
                media::Output::Timeout(at) => return FlowOutput::Timeout(earlier(agent_at, at)),
            }
        }
    }

    /// Before the answer every fork is heard (the session tells them apart by their keys), after it only the chosen one.
    fn receive(&mut self, now: Instant, peer: Option<PeerId>, component: ice::Component, payload: &[u8]) {
        let wanted = peer.is_none() || self.chosen.is_none() || self.chosen == peer;
        if let Some(session) = self.session.as_mut().filter(|_| wanted) {
            let component = match component {
                ice::Component::Rtp => media::Component::Rtp,
                ice::Component::Rtcp => media::Component::Rtcp,
            };
            session.handle_input(now, media::Input::Packet { component, payload });
        }
    }
}

fn ice_component(component: media::Component) -> ice::Component {
    match component {
        media::Component::Rtp => ice::Component::Rtp,
        media::Component::Rtcp => ice::Component::Rtcp,
    }
}

/// The earlier of two moments, where `None` is never.
pub(crate) fn earlier(left: Option<Instant>, right: Option<Instant>) -> Option<Instant> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (one, None) | (None, one) => one,
    }
}
