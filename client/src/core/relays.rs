//! The STUN and TURN servers an account may use, from MRAS and from its configuration, with what is known about them.
//!
//! ```text
//!   credentials, or the configuration ─▶ names resolved (once per set) ─▶ servers, each probed ─▶ remembered: works, TLS, dead
//! ```
//!
//! A server that failed is tried again in each call but never waited for; one that turned out to speak TLS on its TCP port is
//! asked that way at once. A new set of credentials takes effect when all its names are resolved; until then the old one serves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ice::{RelayCredentials, Server, ServerTransport};

use super::io::{Answer, RecordKind, ResolveId};
use super::ports::Ports;
use super::provision::{self, Credentials, Location, RelayHost};
use super::views;
use crate::api::{AccountId, Secret, ServerConfig};

/// Life of credentials that we make ourselves from a shared secret: the usual working day of MRAS.
const REST_LIFETIME: Duration = Duration::from_hours(8);

/// How a server is asked for a relay.
#[derive(Debug, Clone)]
enum Access {
    Stun,
    Password {
        user: String,
        password: Secret,
    },
    /// TURN REST: made anew for each call.
    Rest {
        user: String,
        secret: Secret,
    },
}

#[derive(Debug, Clone)]
struct Wanted {
    host: RelayHost,
    port: u16,
    transport: ServerTransport,
    access: Access,
}

#[derive(Debug, Clone)]
struct Known {
    name: String,
    addr: SocketAddr,
    transport: ServerTransport,
    access: Access,
}

/// One set of servers on its way to being usable.
#[derive(Debug, Default)]
struct Resolution {
    wanted: Vec<Wanted>,
    open: BTreeMap<ResolveId, String>,
    found: BTreeMap<String, Vec<IpAddr>>,
}

impl Resolution {
    fn start(account: AccountId, wanted: Vec<Wanted>, ports: &mut Ports) -> Self {
        let mut resolution = Self { wanted, ..Self::default() };
        let mut names: Vec<_> = resolution
            .wanted
            .iter()
            .filter_map(|wanted| match &wanted.host {
                RelayHost::Name(name) => Some(name.clone()),
                RelayHost::Address(_) => None,
            })
            .collect();
        names.sort();
        names.dedup();
        for name in names {
            for kind in [RecordKind::A, RecordKind::Aaaa] {
                let id = ports.question(account, name.clone(), kind);
                resolution.open.insert(id, name.clone());
            }
        }
        resolution
    }

    fn answered(&mut self, id: ResolveId, answer: &Answer) -> bool {
        let Some(name) = self.open.remove(&id) else { return false };
        if let Answer::Addresses(addresses) = answer {
            self.found.entry(name).or_default().extend(addresses);
        }
        true
    }

    /// Once every question is answered. Names that do not resolve are dropped, the order is kept.
    fn servers(&self) -> Option<Vec<Known>> {
        if !self.open.is_empty() {
            return None;
        }
        let addresses = |host: &RelayHost| match host {
            RelayHost::Address(address) => vec![*address],
            RelayHost::Name(name) => self.found.get(name).cloned().unwrap_or_default(),
        };
        let known = |wanted: &Wanted| {
            let wanted = wanted.clone();
            // One address of each family is enough: they are the same server.
            let all = addresses(&wanted.host);
            let v4 = all.iter().find(|address| address.is_ipv4()).copied();
            let v6 = all.iter().find(|address| address.is_ipv6()).copied();
            v4.into_iter().chain(v6).map(move |address| Known {
                name: wanted.host.to_string(),
                addr: SocketAddr::new(address, wanted.port),
                transport: wanted.transport,
                access: wanted.access.clone(),
            })
        };
        Some(self.wanted.iter().flat_map(known).collect())
    }
}

/// What earlier attempts taught about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Memory {
    failed: bool,
    tls: bool,
}

/// The servers of one account.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    from_mras: Vec<Known>,
    from_config: Vec<Known>,
    resolving_mras: Option<Resolution>,
    resolving_config: Option<Resolution>,
    memory: BTreeMap<(SocketAddr, ServerTransport), Memory>,
    /// Credentials are being asked for: a call waits a moment.
    asking: bool,
    why_none: String,
    unix_start: Option<(Instant, Duration)>,
}

impl Relays {
    /// Starts with the servers of the configuration. `unix` is the time since 1970 at `now`.
    pub(crate) fn new(
        now: Instant,
        unix: Duration,
        account: AccountId,
        servers: &[ServerConfig],
        ports: &mut Ports,
    ) -> Self {
        let wanted: Vec<_> = servers.iter().map(wanted).collect();
        let mut relays = Self {
            resolving_config: Some(Resolution::start(account, wanted, ports)),
            why_none: "no relay service and no servers are configured".to_owned(),
            unix_start: Some((now, unix)),
            ..Self::default()
        };
        relays.adopt();
        relays
    }

    /// Nothing is being asked for any more: a call need not wait.
    pub(crate) fn is_settled(&self) -> bool {
        !self.asking && self.resolving_mras.is_none() && self.resolving_config.is_none()
    }

    pub(crate) fn set_asking(&mut self, asking: bool) {
        self.asking = asking;
    }

    /// Why there is no relay, for people.
    pub(crate) fn why_none(&self) -> String {
        self.why_none.clone()
    }

    pub(crate) fn set_why_none(&mut self, why: impl Into<String>) {
        self.why_none = why.into();
    }

    /// A new set from MRAS. Says how many relays are of use from `location`.
    pub(crate) fn set_credentials(
        &mut self,
        account: AccountId,
        credentials: &Credentials,
        location: Location,
        ports: &mut Ports,
    ) -> Vec<String> {
        let relays = provision::useful_relays(&credentials.relays, location);
        let access = Access::Password { user: credentials.username.clone(), password: credentials.password.clone() };
        let mut wanted = Vec::new();
        for relay in &relays {
            let ports = [(relay.udp_port, ServerTransport::Udp), (relay.tcp_port, ServerTransport::Tcp)];
            for (port, transport) in
                ports.into_iter().filter_map(|(port, transport)| port.map(|port| (port, transport)))
            {
                wanted.push(Wanted { host: relay.host.clone(), port, transport, access: access.clone() });
            }
        }
        self.resolving_mras = Some(Resolution::start(account, wanted, ports));
        self.asking = false;
        self.adopt();
        relays.iter().map(|relay| relay.host.to_string()).collect()
    }

    /// Takes an answer to a question of ours; true if it was one and the set is complete now.
    pub(crate) fn resolved(&mut self, id: ResolveId, answer: &Answer) -> bool {
        let parts = [&mut self.resolving_mras, &mut self.resolving_config];
        let ours = parts.into_iter().flatten().any(|resolution| resolution.answered(id, answer));
        ours && self.adopt()
    }

    /// Complete sets take effect.
    fn adopt(&mut self) -> bool {
        let mut changed = false;
        let parts =
            [(&mut self.resolving_mras, &mut self.from_mras), (&mut self.resolving_config, &mut self.from_config)];
        for (resolving, known) in parts {
            if let Some(servers) = resolving.as_ref().and_then(Resolution::servers) {
                *known = servers;
                *resolving = None;
                changed = true;
            }
        }
        changed
    }

    /// The servers for the next call, with what is remembered about them.
    pub(crate) fn servers(&self, now: Instant) -> Vec<Server> {
        self.from_mras.iter().chain(&self.from_config).map(|known| self.server(now, known)).collect()
    }

    fn server(&self, now: Instant, known: &Known) -> Server {
        let memory = self.memory.get(&(known.addr, known.transport)).copied().unwrap_or_default();
        let tls = memory.tls && known.transport == ServerTransport::Tcp;
        Server {
            name: known.name.clone(),
            addr: known.addr,
            transport: if tls { ServerTransport::Tls } else { known.transport },
            credentials: self.credentials(now, &known.access),
            wait: !memory.failed,
        }
    }

    fn credentials(&self, now: Instant, access: &Access) -> Option<RelayCredentials> {
        let (username, password) = match access {
            Access::Stun => return None,
            Access::Password { user, password } => (user.clone(), password.clone()),
            Access::Rest { user, secret } => {
                let (start, unix) = self.unix_start?;
                let expires = unix + now.saturating_duration_since(start) + REST_LIFETIME;
                provision::turn_rest(secret, user, expires.as_secs())
            }
        };
        Some(RelayCredentials { username, password: ice::Secret::new(password.expose()) })
    }

    /// Keeps what a probe or a call found out about the server at `addr`, asked over `transport`.
    pub(crate) fn remember(&mut self, addr: SocketAddr, transport: ServerTransport, outcome: &ice::ServerOutcome) {
        // A server that is asked over TLS because of its memory is remembered under TCP.
        let known = |wanted| {
            self.from_mras.iter().chain(&self.from_config).any(|known| known.addr == addr && known.transport == wanted)
        };
        let key = if known(transport) { transport } else { ServerTransport::Tcp };
        let memory = self.memory.entry((addr, key)).or_default();
        match outcome {
            ice::ServerOutcome::Works(by) => *memory = Memory { failed: false, tls: *by == ServerTransport::Tls },
            ice::ServerOutcome::Failed(_) => memory.failed = true,
        }
    }

    /// The network changed: what was dead may live.
    pub(crate) fn forget_failures(&mut self) {
        self.memory.values_mut().for_each(|memory| memory.failed = false);
    }

    /// The account is gone from its edge: its relays are not ours any more.
    pub(crate) fn drop_mras(&mut self) {
        self.from_mras.clear();
        self.resolving_mras = None;
    }
}

fn wanted(server: &ServerConfig) -> Wanted {
    let host = server.host.parse().map_or_else(|_| RelayHost::Name(server.host.clone()), RelayHost::Address);
    let user = server.user.clone().unwrap_or_default();
    let access = match (&server.rest_secret, &server.password) {
        (Some(secret), _) => Access::Rest { user, secret: secret.clone() },
        (None, Some(password)) => Access::Password { user, password: password.clone() },
        (None, None) => Access::Stun,
    };
    Wanted { host, port: server.port, transport: views::server_transport(server.transport), access }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let relay = provision::Relay {
            location: Some(Location::Internet),
            host: RelayHost::Name("av.example.test".to_owned()),
            udp_port: Some(3478),
            tcp_port: Some(443),
        };
        Credentials {
            username: "AgAA".to_owned(),
            password: Secret::new("mK0x".to_owned()),
            realm: None,
            lifetime: Duration::from_mins(1),
            relays: vec![relay],
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn questions(ports: &mut Ports) -> Vec<ResolveId> {
        let outputs = std::iter::from_fn(|| ports.pop());
        outputs
            .filter_map(
                |output| if let super::super::io::Output::Resolve { id, .. } = output { Some(id) } else { None },
            )
            .collect()
    }

    #[test]
    fn a_relay_is_usable_when_its_name_is_resolved_and_its_failures_are_remembered() {
        let (now, mut ports, account) = (epoch(), Ports::default(), AccountId(1));
        let mut relays = Relays::new(now, Duration::ZERO, account, &[], &mut ports);
        assert!(relays.is_settled());
        relays.set_credentials(account, &credentials(), Location::Internet, &mut ports);
        assert!(!relays.is_settled());
        let asked = questions(&mut ports);
        assert!(!relays.resolved(asked[0], &Answer::Addresses(vec![IpAddr::from([203, 0, 113, 11])])));
        assert!(relays.resolved(asked[1], &Answer::Empty));
        let servers = relays.servers(now);
        assert_eq!(
            servers.iter().map(|server| (server.addr.to_string(), server.transport)).collect::<Vec<_>>(),
            [
                ("203.0.113.11:3478".to_owned(), ServerTransport::Udp),
                ("203.0.113.11:443".to_owned(), ServerTransport::Tcp)
            ]
        );
        let tcp = servers[1].addr;
        relays.remember(tcp, ServerTransport::Tcp, &ice::ServerOutcome::Works(ServerTransport::Tls));
        assert_eq!(relays.servers(now)[1].transport, ServerTransport::Tls);
        let silent = ice::ServerOutcome::Failed(ice::ServerCause::Silent(Duration::from_millis(500)));
        relays.remember(tcp, ServerTransport::Tls, &silent);
        assert!(!relays.servers(now)[1].wait, "a dead one is not waited for");
        assert!(relays.servers(now)[0].wait);
        relays.forget_failures();
        assert!(relays.servers(now)[1].wait);
    }

    #[test]
    fn a_turn_rest_secret_makes_credentials_that_end_in_eight_hours() {
        let (now, mut ports) = (epoch(), Ports::default());
        let server = ServerConfig {
            host: "192.0.2.1".to_owned(),
            port: 3478,
            transport: crate::api::RelayTransport::Udp,
            user: Some("alice".to_owned()),
            password: None,
            rest_secret: Some(Secret::new("edge-lab-secret".to_owned())),
        };
        let unix = Duration::from_hours(490_888); // the first hours of 2026
        let relays = Relays::new(now, unix, AccountId(1), &[server], &mut ports);
        let credentials = relays.servers(now)[0].credentials.clone().unwrap();
        assert_eq!(credentials.username, "1767225600:alice");
        assert_eq!(credentials.password.expose(), "05jEHr12im4bMl4yybc+61bnap8=");
    }
}
