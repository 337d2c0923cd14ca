//! What happened in a run: a bounded log for people, and a hash over everything for comparison.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use super::clock;
use super::packet::{Body, Packet, Segment};

/// Lines kept for the report of a failure: the last half minute of two talking phones.
const LINES_MAX: usize = 20_000;

#[derive(Debug)]
pub struct Trace {
    start: Instant,
    hasher: DefaultHasher,
    lines: VecDeque<String>,
    packets: u64,
}

impl Trace {
    pub fn new(start: Instant) -> Self {
        Self { start, hasher: DefaultHasher::new(), lines: VecDeque::new(), packets: 0 }
    }

    /// Notes what became of a packet; its bytes go into the hash.
    pub fn packet(&mut self, now: Instant, what: &str, packet: &Packet) {
        self.packets += 1;
        now.saturating_duration_since(self.start).hash(&mut self.hasher);
        (what, packet.from, packet.to).hash(&mut self.hasher);
        match &packet.body {
            Body::Udp(payload) | Body::Tcp(Segment::Data(payload)) => payload.hash(&mut self.hasher),
            Body::Tcp(segment) => format!("{segment:?}").hash(&mut self.hasher),
        }
        self.line(now, &format!("{what}: {}", packet.describe()));
    }

    /// Notes a fact; it goes into the hash as well.
    pub fn fact(&mut self, now: Instant, fact: &str) {
        fact.hash(&mut self.hasher);
        self.line(now, fact);
    }

    /// Equal for two runs in which the same bytes went the same ways at the same times.
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn packets(&self) -> u64 {
        self.packets
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// The last `count` lines as one text.
    pub fn tail(&self, count: usize) -> String {
        let skipped = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skipped).fold(String::new(), |text, line| text + line + "\n")
    }

    fn line(&mut self, now: Instant, text: &str) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{} {text}", clock::elapsed(self.start, now)));
    }
}
