//! Values that events and snapshots show: addresses, candidates, pairs, figures.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// SIP transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// How a relay or STUN server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayTransport {
    Udp,
    Tcp,
    Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    Outgoing,
    Incoming,
}

/// Component of an RTP stream (RFC 8445 §5.1.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    Rtp,
    Rtcp,
}

/// State of a call as its user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallState {
    Gathering,
    /// INVITE sent, nothing heard.
    Inviting,
    Ringing,
    /// Media before the answer (183).
    EarlyMedia,
    Talking,
    /// Held by us, by the peer or by both.
    Held,
    Ending,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateKind {
    Host,
    Srflx,
    Prflx,
    Relay,
}

/// One candidate, ours or the peer's. `relay` is set for our own relayed candidates only: nobody tells us how a
/// peer reaches its relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CandidateView {
    pub component: Component,
    pub kind: CandidateKind,
    pub address: SocketAddr,
    pub related: Option<SocketAddr>,
    pub relay: Option<RelayTransport>,
    /// A host candidate over TCP (RFC 6544 §4): which end connects. Missing for UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpType>,
    pub priority: u32,
}

/// RFC 6544 §4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcpType {
    Active,
    Passive,
    SimultaneousOpen,
}

/// A path, written local-remote: `host-srflx`, `relay(tls)-host`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PathView {
    pub name: String,
    pub local: CandidateView,
    pub remote: CandidateView,
    /// Round trip of the last check, microseconds.
    pub rtt_us: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairState {
    Frozen,
    Waiting,
    InProgress,
    Succeeded,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PairView {
    pub path: PathView,
    pub state: PairState,
    pub nominated: bool,
    pub selected: bool,
    /// Why the pair failed, one sentence.
    pub cause: Option<String>,
}

/// How asking one STUN or TURN server ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServerOutcome {
    /// `203.0.113.11:443`, as it was asked.
    pub server: String,
    pub transport: RelayTransport,
    /// `None`: it answered. Else what failed and what to do.
    pub failure: Option<String>,
    pub took_ms: u64,
}

/// Everything ICE did in a call, as a table: what was tried, what answered, what failed and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct IceReport {
    pub local: Vec<CandidateView>,
    pub remote: Vec<CandidateView>,
    pub servers: Vec<ServerOutcome>,
    pub pairs: Vec<PairView>,
}

/// Who measured a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RttOrigin {
    /// Receiver reports (RFC 3550 §6.4.1).
    Rtcp,
    /// The last connectivity or consent check of the selected pair.
    Stun,
}

/// Figures of one call, once a second and at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CallStats {
    pub sent_packets: u64,
    pub received_packets: u64,
    pub lost_packets: u64,
    /// Arrived after their playout time.
    pub late_packets: u64,
    pub duplicate_packets: u64,
    /// Interarrival jitter (RFC 3550 §A.8), milliseconds.
    pub jitter_ms: f32,
    /// Playout delay of the jitter buffer, milliseconds.
    pub delay_ms: f32,
    pub loss_percent: f32,
    /// Loss that the peer reports of what we send.
    pub remote_loss_percent: Option<f32>,
    pub rtt_ms: Option<f32>,
    pub rtt_origin: Option<RttOrigin>,
    /// Level of what we send and hear, dBFS (0 is full scale).
    pub level_out_dbfs: f32,
    pub level_in_dbfs: f32,
    /// Estimated listening quality, 1.0 to 4.5 (ITU-T G.107).
    pub mos: Option<f32>,
    /// Worst delay of the engine's loop in the last second, milliseconds.
    pub loop_delay_ms: f32,
    pub codec: String,
}

/// The level of digital silence in 16 bits, dBFS.
const SILENCE_DBFS: f32 = -96.0;

impl Default for CallStats {
    fn default() -> Self {
        Self {
            sent_packets: 0,
            received_packets: 0,
            lost_packets: 0,
            late_packets: 0,
            duplicate_packets: 0,
            jitter_ms: 0.0,
            delay_ms: 0.0,
            loss_percent: 0.0,
            remote_loss_percent: None,
            rtt_ms: None,
            rtt_origin: None,
            level_out_dbfs: SILENCE_DBFS,
            level_in_dbfs: SILENCE_DBFS,
            mos: None,
            loop_delay_ms: 0.0,
            codec: String::new(),
        }
    }
}
