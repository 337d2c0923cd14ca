//! One direction of a line: latency, jitter, loss, order, duplicates and rate, all drawn from the seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha20Rng;

use super::clock::ms;
use super::packet::{Body, Packet};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    pub latency: Duration,
    /// Up to this much is added to the latency of each packet, evenly spread.
    pub jitter: Duration,
    pub loss: Loss,
    /// Share of datagrams that may overtake others or be overtaken; without it jitter keeps the order.
    pub reorder: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Bits per second; what would wait longer than [`BACKLOG_MAX`] is dropped.
    pub rate_bps: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    None,
    /// Each packet alone is lost with this probability.
    Uniform(f64),
    /// Gilbert-Elliott: a good and a bad state, each with its loss, and the chance per packet to change state.
    Bursty {
        to_bad: f64,
        to_good: f64,
        in_good: f64,
        in_bad: f64,
    },
}

/// Longest wait in the queue of a rate-limited line: the buffer of a cheap router at 1 Mb/s.
pub const BACKLOG_MAX: Duration = ms(500);

/// A lost TCP segment arrives later by the sender's retransmission timeout (RFC 6298 §2 allows no less than 1 s, systems
/// use 200 ms); the simulated streams need no machine of their own for it.
const TCP_RESEND: Duration = ms(200);

impl Link {
    pub const fn with_latency(latency: Duration) -> Self {
        Self { latency, jitter: Duration::ZERO, loss: Loss::None, reorder: 0.0, duplicate: 0.0, rate_bps: None }
    }
}

/// A link and what it remembers.
#[derive(Debug)]
pub struct Line {
    pub link: Link,
    pub up: bool,
    rng: ChaCha20Rng,
    bad: bool,
    idle_at: Option<Instant>,
    last_arrival: Option<Instant>,
    last_of_stream: BTreeMap<(SocketAddr, SocketAddr), Instant>,
}

impl Line {
    pub fn new(link: Link, rng: ChaCha20Rng) -> Self {
        let (idle_at, last_arrival) = (None, None);
        Self { link, up: true, rng, bad: false, idle_at, last_arrival, last_of_stream: BTreeMap::new() }
    }

    /// When the packet arrives at the other end: never, once, or twice.
    pub fn carry(&mut self, now: Instant, packet: &Packet) -> Vec<Instant> {
        if !self.up {
            return Vec::new();
        }
        let Some(sent) = self.transmit(now, packet.wire_bytes()) else { return Vec::new() };
        let arrival = sent + self.link.latency + self.link.jitter.mul_f64(self.rng.random::<f64>());
        match packet.body {
            Body::Tcp(_) => vec![self.carry_segment((packet.from, packet.to), arrival)],
            Body::Udp(_) => self.carry_datagram(arrival),
        }
    }

    fn carry_datagram(&mut self, arrival: Instant) -> Vec<Instant> {
        if self.lose() {
            return Vec::new();
        }
        let arrival = if self.draw(self.link.reorder) {
            arrival + self.link.latency / 2
        } else {
            let in_order = self.last_arrival.map_or(arrival, |last| last.max(arrival));
            self.last_arrival = Some(in_order);
            in_order
        };
        if self.draw(self.link.duplicate) { vec![arrival, arrival + ms(1)] } else { vec![arrival] }
    }

    fn carry_segment(&mut self, stream: (SocketAddr, SocketAddr), mut arrival: Instant) -> Instant {
        let mut wait = TCP_RESEND;
        while self.lose() && wait < TCP_RESEND * 64 {
            arrival += wait;
            wait *= 2;
        }
        let last = self.last_of_stream.entry(stream).or_insert(arrival);
        *last = arrival.max(*last);
        *last
    }

    fn transmit(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate) = self.link.rate_bps else { return Some(now) };
        let start = self.idle_at.map_or(now, |idle| idle.max(now));
        if start.saturating_duration_since(now) > BACKLOG_MAX {
            return None;
        }
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX) * 8;
        let done = start + Duration::from_nanos(bits * 1_000_000_000 / rate.max(1));
        self.idle_at = Some(done);
        Some(done)
    }

    fn draw(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random::<f64>() < probability
    }

    fn lose(&mut self) -> bool {
        match self.link.loss {
            Loss::None => false,
            Loss::Uniform(share) => self.draw(share),
            Loss::Bursty { to_bad, to_good, in_good, in_bad } => {
                let change = if self.bad { to_good } else { to_bad };
                if self.draw(change) {
                    self.bad = !self.bad;
                }
                self.draw(if self.bad { in_bad } else { in_good })
            }
        }
    }
}

#[cfg(test)]
mod link_tests {
    use super::*;
    use crate::sim::clock::epoch;
    use crate::sim::packet::Segment;
    use rand::SeedableRng;

    fn line(link: Link) -> Line {
        Line::new(link, ChaCha20Rng::from_seed([3; 32]))
    }

    fn datagram(bytes: usize) -> Packet {
        Packet::udp("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap(), vec![0; bytes])
    }

    /// Sends 10,000 datagrams, one each 20 ms: arrivals in order of sending.
    fn arrivals(link: Link) -> Vec<Vec<Instant>> {
        let mut line = line(link);
        (0..10_000).map(|n| line.carry(epoch() + ms(20) * n, &datagram(160))).collect()
    }

    fn lost_percent(arrivals: &[Vec<Instant>]) -> usize {
        arrivals.iter().filter(|a| a.is_empty()).count() / (arrivals.len() / 100)
    }

    #[test]
    fn a_clean_line_adds_exactly_its_latency() {
        assert_eq!(line(Link::with_latency(ms(40))).carry(epoch(), &datagram(100)), [epoch() + ms(40)]);
    }

    #[test]
    fn jitter_keeps_the_order_and_its_bounds() {
        let link = Link { jitter: ms(60), ..Link::with_latency(ms(40)) };
        let arrivals: Vec<Instant> = arrivals(link).concat();
        assert!(arrivals.is_sorted());
        for (n, arrival) in (0..).zip(&arrivals) {
            let delay = *arrival - (epoch() + ms(20) * n);
            assert!((ms(40)..=ms(100)).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn loss_is_as_much_as_asked_and_bursts_are_bursts() {
        let uniform = arrivals(Link { loss: Loss::Uniform(0.2), ..Link::with_latency(ms(1)) });
        assert!((18..=22).contains(&lost_percent(&uniform)), "{}", lost_percent(&uniform));
        let loss = Loss::Bursty { to_bad: 0.02, to_good: 0.2, in_good: 0.0, in_bad: 0.9 };
        let bursty = arrivals(Link { loss, ..Link::with_latency(ms(1)) });
        let in_row = |arrivals: &[Vec<Instant>]| arrivals.windows(2).filter(|w| w.iter().all(Vec::is_empty)).count();
        assert!((5..=11).contains(&lost_percent(&bursty)), "{}", lost_percent(&bursty));
        let rates = |a: &[Vec<Instant>]| in_row(a) * 100 / (lost_percent(a) * a.len() / 100);
        assert!(rates(&bursty) > 2 * rates(&uniform), "losses follow losses");
    }

    #[test]
    fn segments_are_delayed_by_loss_but_never_lost_nor_overtaken() {
        let mut line = line(Link { loss: Loss::Uniform(0.3), jitter: ms(30), ..Link::with_latency(ms(10)) });
        let (from, to) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let segment = Packet::tcp(from, to, Segment::Data(vec![0; 10]));
        let arrivals: Vec<Instant> = (0..1000).flat_map(|n| line.carry(epoch() + ms(5) * n, &segment)).collect();
        assert_eq!(arrivals.len(), 1000);
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn a_rate_delays_and_then_drops() {
        let mut line = line(Link { rate_bps: Some(100_000), ..Link::with_latency(ms(0)) });
        let arrivals: Vec<Vec<Instant>> = (0..20).map(|_| line.carry(epoch(), &datagram(1222))).collect();
        assert_eq!(arrivals[0], [epoch() + ms(100)], "1250 bytes at 100 kb/s");
        assert_eq!(arrivals.iter().filter(|a| !a.is_empty()).count(), 6);
    }

    #[test]
    fn the_same_seed_draws_the_same_fate() {
        let link =
            Link { jitter: ms(9), loss: Loss::Uniform(0.1), reorder: 0.1, duplicate: 0.1, ..Link::with_latency(ms(5)) };
        assert_eq!(arrivals(link), arrivals(link));
    }
}
