//! Flows (RFC 5626 §3.1): a UDP socket or one stream, what others see of it, and what keeps it alive.
//!
//! Responses go back to where the request came from (RFC 3581 §4, RFC 3261 §18.2.2). Streams are pinged with CRLF CRLF
//! (RFC 5626 §4.4.1), UDP hops with CRLF below the 30 s that a NAT may keep a mapping.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha20Rng;

use super::stream::Framer;
use crate::event::{Keepalive, Transport};
use crate::header::Via;
use crate::message::Request;

/// How long a pong may take (RFC 5626 §4.4.1).
const PONG_PATIENCE: Duration = Duration::from_secs(10);

/// Until the first ping of a stream.
const FIRST_PING: Duration = Duration::from_secs(1);

/// One flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) transport: Transport,
    pub(crate) local: SocketAddr,
    pub(crate) remote: Option<SocketAddr>,
    /// Where a registrar saw us, on UDP: Contact from then on.
    pub(crate) public: Option<SocketAddr>,
    pub(crate) framer: Framer,
    pub(crate) pings: Option<Pings>,
}

impl Flow {
    pub(crate) fn new(transport: Transport, local: SocketAddr, remote: Option<SocketAddr>) -> Self {
        Self { transport, local, remote, public: None, framer: Framer::new(), pings: None }
    }

    /// The address for Contact.
    pub(crate) fn contact_address(&self) -> SocketAddr {
        self.public.unwrap_or(self.local)
    }

    /// Our Via. On streams the sent-by is the local end too: connections are reused, not opened back (RFC 5923 §5).
    pub(crate) fn via(&self, branch: &str) -> Via {
        Via::new(self.transport.via_name(), self.local, branch)
    }
}

/// Marks the top Via with the source, and tells where responses go.
pub(crate) fn stamp_via(request: &mut Request, transport: Transport, source: SocketAddr) -> Option<SocketAddr> {
    let mut via = request.headers.via_top().ok()?;
    via.set_source(source);
    let target = response_target(&via, transport, source);
    request.headers.replace_first_value("Via", &via.to_string());
    Some(target)
}

/// On streams and with `rport` the source; else the source address and the port of sent-by (RFC 3261 §18.2.2).
pub(crate) fn response_target(via: &Via, transport: Transport, source: SocketAddr) -> SocketAddr {
    if transport.is_reliable() || via.params.contains("rport") {
        return source;
    }
    let (_, port) = via.sent_by();
    SocketAddr::new(source.ip(), port)
}

/// The ping clock of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pings {
    interval: Duration,
    ping_at: Instant,
    pong_by: Option<Instant>,
    /// The peer has shown, or promised by `Require: outbound`, that it answers pings (RFC 5626 §4.4.1).
    answers: bool,
}

/// What a ping clock wants when it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PingVerdict {
    Nothing,
    Ping,
    Dead,
}

impl Pings {
    /// Pings at 80-100 % of `interval` (RFC 5626 §4.4); 95-120 s without one.
    pub(crate) fn new(now: Instant, interval: Option<Duration>, answers: bool, rng: &mut ChaCha20Rng) -> Self {
        let interval = interval.unwrap_or(Duration::from_mins(2));
        let share = rng.random_range(80..=100_u32);
        let interval = (interval * share / 100).max(Duration::from_secs(1));
        // The first ping comes soon: whoever answers it can be asked for a sign of life when there is need.
        Self { interval, ping_at: now + FIRST_PING, pong_by: None, answers }
    }

    /// A sign of life is wanted soon; only of a peer that is known to answer.
    pub(crate) fn ask(&mut self, now: Instant, patience: Duration) -> bool {
        if self.answers && self.pong_by.is_none_or(|by| by > now + patience) {
            self.pong_by = Some(now + patience);
            return true;
        }
        false
    }

    pub(crate) fn pong(&mut self) {
        self.answers = true;
        self.pong_by = None;
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> PingVerdict {
        if self.pong_by.is_some_and(|by| now >= by) {
            return PingVerdict::Dead;
        }
        if now < self.ping_at {
            return PingVerdict::Nothing;
        }
        self.ping_at = now + self.interval;
        self.pong_by = self.answers.then(|| now + PONG_PATIENCE);
        PingVerdict::Ping
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.pong_by.map_or(self.ping_at, |by| by.min(self.ping_at))
    }
}

/// The keep-alive clock of one UDP hop.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) keepalive: Keepalive,
    pub(crate) at: Instant,
}

impl Hold {
    pub(crate) fn new(now: Instant, keepalive: Keepalive, rng: &mut ChaCha20Rng) -> Self {
        Self { keepalive, at: now + udp_interval(rng) }
    }

    /// Bytes to send, when it is time.
    pub(crate) fn handle_timeout(&mut self, now: Instant, rng: &mut ChaCha20Rng) -> Option<Vec<u8>> {
        if now < self.at {
            return None;
        }
        self.at = now + udp_interval(rng);
        match &self.keepalive {
            Keepalive::Crlf => Some(b"\r\n\r\n".to_vec()),
            Keepalive::Bytes(bytes) => Some(bytes.clone()),
            Keepalive::Off => None,
        }
    }
}

/// 20-25 s, random so that many phones behind one NAT do not beat together.
fn udp_interval(rng: &mut ChaCha20Rng) -> Duration {
    Duration::from_millis(rng.random_range(20_000..25_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::tests::epoch;
    use rand::SeedableRng;

    #[test]
    fn answers_go_to_the_source_with_rport_and_on_streams_else_to_the_sent_by_port() {
        let source: SocketAddr = "198.51.100.7:40000".parse().unwrap();
        let cases = [
            ("rport", "SIP/2.0/UDP 10.0.0.1:5080;rport;branch=z9hG4bK1", Transport::Udp, "198.51.100.7:40000"),
            ("no rport", "SIP/2.0/UDP 10.0.0.1:5080;branch=z9hG4bK1", Transport::Udp, "198.51.100.7:5080"),
            ("no port", "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1", Transport::Udp, "198.51.100.7:5060"),
            ("a stream", "SIP/2.0/TCP 10.0.0.1:5080;branch=z9hG4bK1", Transport::Tcp, "198.51.100.7:40000"),
        ];
        for (name, via, transport, want) in cases {
            let target = response_target(&via.parse().unwrap(), transport, source);
            assert_eq!(target.to_string(), want, "case: {name}");
        }
    }

    #[test]
    fn a_stream_that_answered_once_and_then_not_is_dead_after_ten_seconds() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut pings = Pings::new(epoch(), None, false, &mut rng);
        let first = pings.deadline();
        assert_eq!(first, epoch() + FIRST_PING, "whoever answers is known early");
        assert_eq!(pings.handle_timeout(first), PingVerdict::Ping);
        let second = pings.deadline();
        assert!((96..=120).contains(&(second - first).as_secs()));
        assert_eq!(pings.handle_timeout(second), PingVerdict::Ping, "no pong was promised");
        assert!(!pings.ask(second, Duration::from_secs(1)), "nobody is asked who is not known to answer");
        pings.pong();
        let third = pings.deadline();
        assert_eq!(pings.handle_timeout(third), PingVerdict::Ping);
        assert_eq!(pings.deadline(), third + PONG_PATIENCE);
        assert_eq!(pings.handle_timeout(third + PONG_PATIENCE), PingVerdict::Dead);
    }

    #[test]
    fn udp_is_kept_alive_below_thirty_seconds() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let mut hold = Hold::new(epoch(), Keepalive::Crlf, &mut rng);
        for _ in 0..100 {
            let at = hold.at;
            assert_eq!(hold.handle_timeout(at, &mut rng), Some(b"\r\n\r\n".to_vec()));
            assert!((20..=25).contains(&(hold.at - at).as_secs()));
        }
    }
}
