//! What a user interface can ask for. Imperative; a command at a wrong moment is answered by
//! [`EngineChange::Refused`](super::EngineChange::Refused).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::{AccountId, CallId, Location, PathPolicy, RelayTransport, SrtpMode, Transport, TransportChoice};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Command {
    /// Adds an account; it registers by itself unless its configuration says otherwise.
    AddAccount {
        account: AccountId,
        config: Box<AccountConfig>,
    },
    RemoveAccount {
        account: AccountId,
    },
    Register {
        account: AccountId,
    },
    Unregister {
        account: AccountId,
    },
    /// Calls `to`: a SIP URI, or a user name in the account's domain. `call` must be odd.
    Dial {
        call: CallId,
        account: AccountId,
        to: String,
        options: Box<DialOptions>,
    },
    Answer {
        call: CallId,
        options: Box<AnswerOptions>,
    },
    /// Refuses an incoming call with a SIP status, 486 for "busy".
    Reject {
        call: CallId,
        status: u16,
    },
    /// Ends the call at any moment: CANCEL, reject or BYE, whichever its state asks for.
    Hangup {
        call: CallId,
    },
    Hold {
        call: CallId,
    },
    Resume {
        call: CallId,
    },
    /// Blind transfer (RFC 3515 §2.4).
    Transfer {
        call: CallId,
        to: String,
    },
    /// Digits `0-9*#A-D`, sent as RFC 4733 §2.5 events one after another.
    SendDtmf {
        call: CallId,
        digits: String,
    },
    SetMuted {
        call: CallId,
        muted: bool,
    },
    UseDevices {
        input: Option<String>,
        output: Option<String>,
    },
    /// New ICE credentials and candidates for a running call (RFC 8445 §9).
    RestartIce {
        call: CallId,
    },
    /// Answered by [`EngineChange::Snapshot`](super::EngineChange::Snapshot).
    Snapshot,
    /// Answered by [`EngineChange::Health`](super::EngineChange::Health).
    Health,
    /// Hangs up, unregisters, frees relays; answered by [`EngineChange::Stopped`](super::EngineChange::Stopped)
    /// after at most 3 s.
    Shutdown,
}

/// One account, validated. `aor` without a registrar (account-less use) has `register: false`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AccountConfig {
    /// Address of record, `sip:alice@example.com`.
    pub aor: String,
    pub display_name: Option<String>,
    /// Digest user name where it differs from the user part of the AOR.
    pub auth_user: Option<String>,
    pub password: Option<Secret>,
    pub register: bool,
    /// Seconds asked for in REGISTER.
    pub register_expires_s: u32,
    /// `host[:port]`; overrides SRV.
    pub edge: Option<String>,
    pub transport: TransportChoice,
    pub location: Location,
    /// Extra trust anchors, PEM.
    pub tls_ca: Option<PathBuf>,
    /// Name server instead of the system's.
    pub dns: Option<SocketAddr>,
    /// Local address and port for SIP over UDP and TCP; account-less calls are received there.
    pub listen: Option<SocketAddr>,
    pub policy: PathPolicy,
    pub srtp: SrtpMode,
    /// Relay credentials asked from the edge (MRAS). Off: only `servers`.
    pub mras: bool,
    /// Static STUN and TURN servers.
    pub servers: Vec<ServerConfig>,
    /// Microphone and loudspeaker, or what stands in for them, of calls that do not say otherwise.
    pub source: MediaSource,
    /// Incoming calls are answered without a user.
    pub auto_answer: Option<AutoAnswer>,
    /// Calls at once before 486 is answered.
    pub calls_max: u32,
    /// A peer in an answered call may transfer it (RFC 3515): the target is called at once. Off: 603.
    pub transfers: bool,
    /// Ringing longer ends an outgoing call with [`EndReason::NoAnswer`](super::EndReason::NoAnswer).
    pub ring_timeout_ms: u64,
    /// Local media port range, inclusive; `None` lets the system choose.
    pub port_range: Option<(u16, u16)>,
}

impl Default for AccountConfig {
    fn default() -> Self {
        Self {
            aor: String::new(),
            display_name: None,
            auth_user: None,
            password: None,
            register: true,
            register_expires_s: 600,
            edge: None,
            transport: TransportChoice::Auto,
            location: Location::Auto,
            tls_ca: None,
            dns: None,
            listen: None,
            policy: PathPolicy::All,
            srtp: SrtpMode::Required,
            mras: true,
            servers: Vec::new(),
            source: MediaSource::Microphone,
            auto_answer: None,
            calls_max: 8,
            transfers: true,
            ring_timeout_ms: 60_000,
            port_range: None,
        }
    }
}

/// A STUN or TURN server given by configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServerConfig {
    /// Host name or address.
    pub host: String,
    pub port: u16,
    pub transport: RelayTransport,
    /// `None`: STUN only. With `rest_secret` the user is the id behind the expiry time.
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// TURN REST shared secret: the credentials are made from it and the time.
    pub rest_secret: Option<Secret>,
}

/// Answers by itself after `after_ms` of ringing, never before the 183 has left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AutoAnswer {
    pub after_ms: u64,
    pub options: AnswerOptions,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct DialOptions {
    /// Instead of the account's.
    pub source: Option<MediaSource>,
    pub policy: Option<PathPolicy>,
    pub srtp: Option<SrtpMode>,
    /// SIP transport of an account-less call; an account's call uses the registered flow.
    pub transport: Option<Transport>,
    /// Local address to call from, when there are several.
    pub from_address: Option<IpAddr>,
    pub ring_timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AnswerOptions {
    /// Instead of the account's.
    pub source: Option<MediaSource>,
}

/// What is sent as our voice. All but the microphone run inside the engine, on its 20 ms clock.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum MediaSource {
    /// Frames pushed from outside: a sound card or the null device.
    #[default]
    Microphone,
    Silence,
    /// The built-in tune.
    Tune,
    Tone {
        hz: f32,
    },
    /// What the peer says, sent back.
    Echo,
    /// 48 kHz mono samples, already read; not serialised (a script names a file and the CLI reads it).
    Samples {
        #[serde(skip)]
        samples: std::sync::Arc<[i16]>,
        repeat: bool,
    },
}

/// A string that prints as `***` and is wiped when dropped. Serialises to `***` as well: a secret enters by
/// deserialisation only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself; for computing with, never for showing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}
