//! What travels: a datagram, or one segment of a simulated TCP connection.

use std::net::SocketAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Udp(Vec<u8>),
    Tcp(Segment),
}

/// A TCP segment, reduced to what NATs and programs can tell apart. Links deliver segments once and in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Syn,
    SynAck,
    Reset,
    /// A TLS client hello, with the names one of which the certificate must carry.
    Hello(Vec<String>),
    /// The server's half of the handshake: the names of its certificate, `None` where it does not speak TLS.
    Welcome(Option<Vec<String>>),
    Data(Vec<u8>),
    Fin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Udp,
    Tcp,
}

impl Packet {
    pub fn udp(from: SocketAddr, to: SocketAddr, payload: Vec<u8>) -> Self {
        Self { from, to, body: Body::Udp(payload) }
    }

    pub fn tcp(from: SocketAddr, to: SocketAddr, segment: Segment) -> Self {
        Self { from, to, body: Body::Tcp(segment) }
    }

    pub fn protocol(&self) -> Protocol {
        match self.body {
            Body::Udp(_) => Protocol::Udp,
            Body::Tcp(_) => Protocol::Tcp,
        }
    }

    /// Bytes on the wire, headers included: IPv4 20, UDP 8, TCP 20.
    pub fn wire_bytes(&self) -> usize {
        match &self.body {
            Body::Udp(payload) => payload.len() + 28,
            Body::Tcp(Segment::Data(payload)) => payload.len() + 40,
            Body::Tcp(Segment::Hello(_)) => 300,
            Body::Tcp(Segment::Welcome(_)) => 1500,
            Body::Tcp(Segment::Syn | Segment::SynAck | Segment::Reset | Segment::Fin) => 40,
        }
    }

    pub fn describe(&self) -> String {
        let what = match &self.body {
            Body::Udp(payload) => format!("udp {} bytes {}", payload.len(), first_word(payload)),
            Body::Tcp(Segment::Data(payload)) => format!("tcp {} bytes {}", payload.len(), first_word(payload)),
            Body::Tcp(segment) => format!("tcp {segment:?}"),
        };
        format!("{} -> {} {what}", self.from, self.to)
    }
}

/// What a payload seems to be, for the trace: by the first byte as RFC 7983 §7 sorts them, or the first line of text.
fn first_word(payload: &[u8]) -> String {
    match payload.first() {
        Some(0 | 1) => format!("stun {:02x?}", payload.get(..2).unwrap_or_default()),
        Some(64..=79) if payload.get(1).is_some_and(|byte| *byte < 0x20) => "channel".to_owned(),
        Some(128..=191) => "rtp".to_owned(),
        _ => {
            let line: String = payload.iter().take(40).take_while(|b| **b >= 0x20).map(|b| char::from(*b)).collect();
            line.trim().to_owned()
        }
    }
}
