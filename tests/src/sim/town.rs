//! A town: an edge with DNS, SIP and relay on the Internet, and whole phones wherever they are put.

use std::time::Duration;

use client::api::{
    AccountConfig, AccountId, AnswerOptions, AutoAnswer, CallChange, CallId, CallState, Command, DialOptions,
    EventBody, MediaSource, Secret, TransportChoice,
};
use client::lab::{WallClock, mras, provisioning, proxy, registrar, relay};

use super::cell::add_relay;
use super::clock::{self, secs};
use super::edge::{DOMAIN, EdgeHost, RELAY_NAME, RelayHost};
use super::host::HostId;
use super::phone::{PhoneHost, UNIX_START};
use super::world::{Place, Sim, public};

/// The one account of a phone.
pub const ACCOUNT: AccountId = AccountId(1);
/// The call that a phone dials.
pub const CALL: CallId = CallId(1);

const RELAY_SECRET: &str = "between the edge and its relay";

pub struct Town {
    pub sim: Sim,
    pub edge: HostId,
    pub relay: HostId,
    /// A second relay that never answers, if it was asked for.
    pub mute: Option<HostId>,
    /// A second relay that works, if it was asked for.
    pub spare: Option<HostId>,
}

/// What is not as usual in a town.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub seed: u64,
    /// Lifetime of relay credentials.
    pub credential_minutes: u32,
    /// A second relay is offered, which never answers.
    pub with_mute_relay: bool,
    /// A second relay is offered, which works.
    pub with_spare_relay: bool,
}

impl Options {
    pub fn new(seed: u64) -> Self {
        Self { seed, credential_minutes: 480, with_mute_relay: false, with_spare_relay: false }
    }
}

impl Town {
    /// An edge whose relay credentials live for eight hours, and users `alice` and `bob`.
    pub fn new(seed: u64) -> Self {
        Self::with(Options::new(seed))
    }

    pub fn with(options: Options) -> Self {
        let mut sim = Sim::new(options.seed);
        let (now, seeds) = (sim.now, [sim.seed(), sim.seed()]);
        let relay = sim.host("relay", &public(), |address| relay_program(now, address, seeds[0]));
        let relay_address = sim.address(relay);
        let mute = options.with_mute_relay.then(|| {
            let mute = add_relay(&mut sim, "mute");
            sim.with(mute, |relay: &mut RelayHost, _| relay.relay().faults().is_mute = true);
            mute
        });
        let spare = options.with_spare_relay.then(|| {
            let seed = sim.seed();
            sim.host("spare", &public(), |address| relay_program(now, address, seed))
        });
        let mut config = proxy_config(now);
        config.mras.minutes = options.credential_minutes;
        if let Some(mute) = mute {
            let host = sim.address(mute).to_string();
            config.mras.relays.insert(0, mras::RelayEntry { host, ..config.mras.relays[0].clone() });
        }
        if let Some(spare) = spare {
            let host = sim.address(spare).to_string();
            config.mras.relays.push(mras::RelayEntry { host, ..config.mras.relays[0].clone() });
        }
        let edge = sim.host("edge", &public(), |address| EdgeHost::new(address, relay_address, config, seeds[1]));
        Self { sim, edge, relay, mute, spare }
    }

    /// The relay starts again after it was killed, and remembers nothing.
    pub fn restart_relay(sim: &mut Sim, relay: HostId) {
        let (now, address, seed) = (sim.now, sim.address(relay), sim.seed());
        sim.start(relay, relay_program(now, address, seed));
    }

    /// Name server, registrar and proxy start again after they were killed, and remember nothing.
    pub fn restart_edge(sim: &mut Sim, edge: HostId, relay: HostId) {
        let (seed, address, relay) = (sim.seed(), sim.address(edge), sim.address(relay));
        sim.start(edge, EdgeHost::new(address, relay, proxy_config(clock::epoch()), seed));
    }

    /// A phone with an account of the town, not registered yet.
    pub fn phone(&mut self, name: &str, place: &Place) -> HostId {
        let (now, seed) = (self.sim.now, self.sim.seed());
        let dns = std::net::SocketAddr::new(self.sim.address(self.edge), 53);
        self.sim.host(name, place, |address| PhoneHost::new(now, address, Some(dns), seed))
    }

    /// Adds the account `user` to a phone, which registers; waits until its relay credentials are there.
    ///
    /// # Errors
    ///
    /// The end of the trace, if that takes longer than ten seconds.
    pub fn register(&mut self, phone: HostId, account: AccountConfig) -> Result<Duration, String> {
        let command = Command::AddAccount { account: ACCOUNT, config: Box::new(account) };
        self.command(phone, command);
        self.sim.run_until(secs(10), |sim| {
            let has = |change: &client::api::AccountChange| {
                matches!(change, client::api::AccountChange::CredentialsReceived { .. })
            };
            sim.program::<PhoneHost>(phone).log.iter().any(|(_, event)| match event {
                EventBody::Account { change, .. } => has(change),
                EventBody::Call { .. } | EventBody::Engine(_) => false,
            })
        })
    }

    pub fn command(&mut self, phone: HostId, command: Command) {
        self.sim.with(phone, |phone: &mut PhoneHost, now| phone.command(now, command));
    }

    pub fn dial(&mut self, phone: HostId, to: &str) {
        let options = Box::new(DialOptions::default());
        self.command(phone, Command::Dial { call: CALL, account: ACCOUNT, to: to.to_owned(), options });
    }

    /// Runs until `change` has happened in the phone's first call.
    ///
    /// # Errors
    ///
    /// The end of the trace, if it does not happen within `limit`.
    pub fn wait(
        &mut self,
        phone: HostId,
        limit: Duration,
        wanted: fn(&CallChange) -> bool,
    ) -> Result<Duration, String> {
        self.sim.run_until(limit, |sim| {
            first_call(sim.program(phone))
                .is_some_and(|call| sim.program::<PhoneHost>(phone).call_events(call).any(|(_, change)| wanted(change)))
        })
    }

    pub fn phone_at(&self, host: HostId) -> &PhoneHost {
        self.sim.program(host)
    }

    /// What the servers hold: registrations, allocations, SIP transactions.
    pub fn holdings(&self) -> (usize, usize, (usize, usize)) {
        let edge = self.sim.program::<EdgeHost>(self.edge);
        let allocations = self.sim.program::<RelayHost>(self.relay).allocations();
        (edge.proxy.registrations(self.sim.now).len(), allocations, edge.proxy.transactions())
    }
}

/// The call that a phone dialled, or the first that came in.
pub fn first_call(phone: &PhoneHost) -> Option<CallId> {
    phone.call_events(CALL).next().map(|_| CALL).or_else(|| phone.incoming())
}

pub fn is_talking(change: &CallChange) -> bool {
    matches!(change, CallChange::State { state: CallState::Talking })
}

pub fn is_announced(change: &CallChange) -> bool {
    matches!(change, CallChange::Announced { .. })
}

pub fn is_promoted(change: &CallChange) -> bool {
    matches!(change, CallChange::Promoted { .. })
}

pub fn is_ended(change: &CallChange) -> bool {
    matches!(change, CallChange::Ended { .. })
}

/// The account of `user`, which sends a tone of this pitch and answers by itself after a second.
pub fn account(user: &str, transport: TransportChoice, hz: f32) -> AccountConfig {
    AccountConfig {
        aor: format!("sip:{user}@{DOMAIN}"),
        password: Some(Secret::new(password(user))),
        transport,
        source: MediaSource::Tone { hz },
        auto_answer: Some(AutoAnswer { after_ms: 1000, options: AnswerOptions::default() }),
        ..AccountConfig::default()
    }
}

fn relay_program(now: std::time::Instant, address: std::net::IpAddr, seed: [u8; 32]) -> RelayHost {
    let wall = (clock::epoch(), UNIX_START.as_secs());
    let mut config = relay::Config::new(DOMAIN, address, wall);
    config.secrets.push(ice::Secret::new(RELAY_SECRET));
    RelayHost::with(now, address, config, seed)
}

fn password(user: &str) -> String {
    format!("{user}-password")
}

fn proxy_config(now: std::time::Instant) -> proxy::Config {
    let users = ["alice", "bob"].map(|user| (user.to_owned(), Secret::new(password(user))));
    let entry = mras::RelayEntry {
        location: client::core::provision::Location::Internet,
        host: RELAY_NAME.to_owned(),
        udp_port: Some(3478),
        tcp_port: Some(443),
    };
    proxy::Config {
        registrar: registrar::Config::new(DOMAIN, users.into()),
        provisioning: provisioning::Config {
            mras_uri: Some(format!("sip:mras@{DOMAIN}")),
            ..provisioning::Config::default()
        },
        mras: mras::Config {
            secret: Secret::new(RELAY_SECRET.to_owned()),
            minutes: 480,
            realm: None,
            relays: vec![entry],
        },
        challenge_always: false,
        clock: WallClock { at: now, unix_s: UNIX_START.as_secs() },
    }
}
