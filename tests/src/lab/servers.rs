//! The laboratory: the networks with real servers on the edge, and what became of their state.
//!
//! coturn twice (`turn.lab.test` with a second address, and the spare `turn2.lab.test`), kamailio (`sip.lab.test`), and
//! dnsmasq on the edge and on every router. Users are `USER`, password `USER-pw`, realm `lab.test`.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::daemon::pause;
use super::network::{Host, Network, Plan};
use super::run::{now, tool};

/// From the start of the servers to the moment when all of them answer.
const READY: Duration = Duration::from_secs(20);
/// From which relay credentials are made.
pub const SECRET: &str = "lab-relay-secret";

/// Files that are made once: names and contents.
type NamedFiles = Vec<(String, Vec<u8>)>;

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Sip,
    Relay,
    SpareRelay,
    Names,
    NamesA,
    NamesB,
    NamesC,
}

pub const SERVICES: [(Service, &str); 7] = [
    (Service::Names, "dns"),
    (Service::NamesA, "dnsA"),
    (Service::NamesB, "dnsB"),
    (Service::NamesC, "dnsC"),
    (Service::Relay, "turn"),
    (Service::SpareRelay, "turn2"),
    (Service::Sip, "sip"),
];

impl Service {
    fn name(self) -> &'static str {
        SERVICES.iter().find(|(service, _)| *service == self).map_or("", |(_, name)| name)
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = SERVICES.iter().find(|(_, name)| *name == text).map(|(service, _)| *service);
        found.ok_or_else(|| format!("no service {text:?}; there are {}", SERVICES.map(|(_, name)| name).join(" ")))
    }
}

/// What the edge offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The provisioning answer names a relay service.
    pub mras: bool,
    /// The provisioning document comes in the 200, if the phone can read it there; else by NOTIFY.
    pub piggyback: bool,
    /// What the relays speak, and what their credentials name.
    pub relay_udp: bool,
    pub relay_tcp: bool,
    /// Seconds that relay credentials live.
    pub life_s: u32,
    /// More lines for coturn.
    pub relay_lines: Vec<String>,
    /// More lines for the public names.
    pub name_lines: Vec<String>,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            mras: true,
            piggyback: true,
            relay_udp: true,
            relay_tcp: true,
            life_s: 480 * 60,
            relay_lines: Vec::new(),
            name_lines: Vec::new(),
        }
    }
}

/// What `edge.py` reads.
#[derive(Serialize, Deserialize)]
struct EdgeSettings {
    mras: bool,
    piggyback: bool,
    secret: String,
    life_s: u32,
    relays: Vec<RelaySetting>,
    inner_relays: Vec<RelaySetting>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RelaySetting {
    host_name: String,
    udp_port: Option<u16>,
    tcp_port: Option<u16>,
}

/// Networks and servers. Dropped, they are removed, if this program made them for itself.
pub struct NetLab {
    pub network: Network,
}

impl NetLab {
    /// Builds everything and waits until it answers.
    ///
    /// # Errors
    ///
    /// Why this machine allows no such networks: a reason to skip a test.
    ///
    /// # Panics
    ///
    /// If a server does not start: that is a fault.
    pub fn build(plan: Plan, offer: &Offer) -> Result<Self, String> {
        let network = Network::build(plan)?;
        Ok(Self::start(network, offer).unwrap_or_else(|error| panic!("the laboratory does not start: {error}")))
    }

    /// As [`Self::build`], under a name, to stay until `netlab down`.
    ///
    /// # Errors
    ///
    /// As [`Self::build`].
    pub fn build_named(name: &str, plan: Plan, offer: &Offer) -> Result<Self, String> {
        Self::start(Network::build_named(name, plan)?, offer)
    }

    /// One that exists under a name.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn attach(name: &str) -> Result<Self, String> {
        Ok(Self { network: Network::attach(name)? })
    }

    /// Starts the servers in their networks.
    ///
    /// # Errors
    ///
    /// Which server does not start.
    pub fn start(network: Network, offer: &Offer) -> Result<Self, String> {
        let lab = Self { network };
        lab.write_certificates()?;
        lab.write_configurations(offer)?;
        for (service, _) in SERVICES {
            lab.start_service(service)?;
        }
        lab.wait_ready(offer)?;
        Ok(lab)
    }

    /// Where its files are; `ca.pem` is what phones have to trust.
    pub fn file(&self, name: &str) -> PathBuf {
        self.network.folder().join(name)
    }

    /// What the edge offers from now on. Relays are not restarted: what concerns them counts from their next start.
    ///
    /// # Errors
    ///
    /// If the files cannot be written.
    pub fn set_offer(&self, offer: &Offer) -> Result<(), String> {
        self.write_configurations(offer)
    }

    /// Starts a server, if it does not run.
    ///
    /// # Errors
    ///
    /// What it wrote, if it ended at once.
    pub fn start_service(&self, service: Service) -> Result<(), String> {
        let at = |name: &str| self.file(name).to_string_lossy().into_owned();
        let folder = self.network.folder().to_string_lossy().into_owned();
        let start = |host, program: &str, arguments: &[&str]| {
            self.network.start_daemon(service.name(), host, program, arguments)
        };
        match service {
            Service::Names => start(Host::Edge, "dnsmasq", &["-C", &at("dnsmasq.conf")]),
            Service::NamesA | Service::NamesB => {
                let host = if service == Service::NamesA { Host::NatA } else { Host::NatB };
                start(host, "dnsmasq", &["-C", &at("dnsmasq-router.conf")])
            }
            Service::NamesC => start(Host::FirewallC, "dnsmasq", &["-C", &at("dnsmasq-corp.conf")]),
            Service::Relay => start(Host::Edge, "turnserver", &["-c", &at("turn.conf"), "-m", "1"]),
            Service::SpareRelay => start(Host::Spare, "turnserver", &["-c", &at("turn2.conf"), "-m", "1"]),
            Service::Sip => {
                let file = at("kamailio.cfg");
                let arguments = ["-DD", "-E", "-f", &file, "-Y", &folder, "-w", &folder, "-m", "32", "-M", "8"];
                start(Host::Edge, "kamailio", &arguments)
            }
        }
    }

    /// Ends a server as an operator does.
    pub fn stop_service(&self, service: Service) {
        self.network.stop_daemon(service.name(), Signal::SIGTERM);
    }

    /// Ends a server in the middle of whatever it does.
    pub fn kill_service(&self, service: Service) {
        self.network.stop_daemon(service.name(), Signal::SIGKILL);
    }

    /// It lives, but does nothing.
    pub fn freeze_service(&self, service: Service) {
        self.network.signal_daemon(service.name(), Signal::SIGSTOP);
    }

    pub fn thaw_service(&self, service: Service) {
        self.network.signal_daemon(service.name(), Signal::SIGCONT);
    }

    /// Ends it and starts it again.
    ///
    /// # Errors
    ///
    /// As [`Self::start_service`].
    pub fn restart_service(&self, service: Service) -> Result<(), String> {
        self.stop_service(service);
        self.start_service(service)
    }

    pub fn log_of(&self, service: Service) -> String {
        self.network.log_of(service.name())
    }

    /// Every server that runs, with its process id.
    pub fn running(&self) -> Vec<(&'static str, i32)> {
        SERVICES.iter().filter_map(|(_, name)| Some((*name, self.network.pid_of(name)?))).collect()
    }

    /// An authority and a certificate for the servers' names; one for the same name of an authority that nobody knows.
    fn write_certificates(&self) -> Result<(), String> {
        // Made once per program: the slowest step of the first start.
        static MADE: OnceLock<Result<NamedFiles, String>> = OnceLock::new();
        let made = MADE.get_or_init(|| make_certificates().map_err(|error| format!("openssl: {error}")));
        for (name, bytes) in made.as_ref().map_err(Clone::clone)? {
            std::fs::write(self.file(name), bytes).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }

    fn write_configurations(&self, offer: &Offer) -> Result<(), String> {
        let folder = self.network.folder().to_string_lossy().into_owned();
        let relay_lines = relay_lines(offer);
        let write = |name: &str, template: &str, words: &[(&str, &str)]| {
            let mut text = template.replace("@FOLDER@", &folder).replace("@SECRET@", SECRET);
            for (word, value) in words {
                text = text.replace(&format!("@{word}@"), value);
            }
            std::fs::write(self.file(name), text).map_err(|error| format!("{name}: {error}"))
        };
        let v6 = self.network.has_v6();
        let sip_v6 = "listen=udp:[2001:db8:113::10]:5060\nlisten=tcp:[2001:db8:113::10]:5060\n\
                      listen=tls:[2001:db8:113::10]:5061\nlisten=tls:[2001:db8:113::10]:443";
        let modules = [("MODULES", modules()?), ("LISTEN_V6", if v6 { sip_v6 } else { "" }.to_owned())];
        let modules: Vec<(&str, &str)> = modules.iter().map(|(word, value)| (*word, value.as_str())).collect();
        write("kamailio.cfg", include_str!("../../lab/kamailio.cfg"), &modules)?;
        write("kamailio-tls.cfg", include_str!("../../lab/kamailio-tls.cfg"), &[])?;
        write("edge.py", include_str!("../../lab/edge.py"), &[])?;
        let relay = include_str!("../../lab/turnserver.conf");
        for (name, listen) in
            [("turn", relay_addresses(&["11", "12"], true, v6)), ("turn2", relay_addresses(&["13"], false, v6))]
        {
            write(&format!("{name}.conf"), relay, &[("LISTEN", &listen), ("NAME", name), ("EXTRA", &relay_lines)])?;
        }
        let listen =
            format!("listen-address=203.0.113.10{}", if v6 { "\nlisten-address=2001:db8:113::10" } else { "" });
        let records = public_records(v6) + &offer.name_lines.join("\n");
        write("dnsmasq.conf", include_str!("../../lab/dnsmasq.conf"), &[("LISTEN", &listen), ("RECORDS", &records)])?;
        let router = include_str!("../../lab/dnsmasq-router.conf");
        write("dnsmasq-router.conf", router, &[("RECORDS", "")])?;
        let inside = if self.network.plan.inside_names { INSIDE_RECORDS } else { "" };
        write("dnsmasq-corp.conf", router, &[("RECORDS", inside)])?;
        let settings = serde_json::to_string(&edge_settings(offer)).map_err(|error| error.to_string())?;
        std::fs::write(self.file("edge.json"), settings).map_err(|error| format!("edge.json: {error}"))
    }

    fn wait_ready(&self, offer: &Offer) -> Result<(), String> {
        let until = now() + READY;
        let sip = [5060, 5061, 443].map(|port| (Host::Edge, address("203.0.113.10", port)));
        let mut streams = sip.to_vec();
        if offer.relay_tcp {
            streams.push((Host::Edge, address("203.0.113.11", 3478)));
            streams.push((Host::Spare, address("203.0.113.13", 3478)));
        }
        for (host, server) in streams {
            self.network.host(host).within(move || connect(server, until))??;
        }
        let mut resolvers = vec![(Host::Edge, "203.0.113.10".to_owned())];
        for router in [Host::NatA, Host::NatB, Host::FirewallC] {
            resolvers.push((router, format!("{}.1", self.network.lan(router).v4)));
        }
        for (host, server) in resolvers {
            let server = address(&server, 53);
            self.network.host(host).within(move || ask_name(server, until))??;
        }
        Ok(())
    }
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address of the laboratory"), port)
}

fn connect(server: SocketAddr, until: Instant) -> Result<(), String> {
    loop {
        match TcpStream::connect_timeout(&server, Duration::from_millis(300)) {
            Ok(_) => return Ok(()),
            Err(error) if now() > until => return Err(format!("{server} is not ready: {error}")),
            Err(_) => pause(until),
        }
    }
}

/// Asks for `sip.lab.test`, until there is an answer.
fn ask_name(server: SocketAddr, until: Instant) -> Result<(), String> {
    let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03sip\x03lab\x04test\0\0\x01\0\x01";
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_millis(200))).map_err(|error| error.to_string())?;
    let mut answer = [0; 512];
    loop {
        let _ = socket.send_to(question, server);
        match socket.recv(&mut answer) {
            Ok(length) if answer[..length].get(7) > Some(&0) => return Ok(()),
            Ok(_) | Err(_) if now() > until => return Err(format!("the name server {server} is not ready")),
            Ok(_) | Err(_) => pause(until),
        }
    }
}

fn relay_lines(offer: &Offer) -> String {
    let mut lines = offer.relay_lines.clone();
    if !offer.relay_udp {
        lines.push("no-udp".to_owned());
    }
    if !offer.relay_tcp {
        lines.extend(["no-tcp", "no-tls"].map(str::to_owned));
    }
    lines.join("\n")
}

/// Relayed addresses are public ones; the inner leg only listens, as an edge's does.
fn relay_addresses(last: &[&str], inner_leg: bool, v6: bool) -> String {
    let first = last.first().copied().unwrap_or_default();
    let mut lines = vec![format!("relay-ip=203.0.113.{first}"), format!("aux-server=203.0.113.{first}:443")];
    lines.extend(last.iter().map(|last| format!("listening-ip=203.0.113.{last}")));
    if inner_leg {
        lines.extend(["listening-ip=172.16.0.5", "aux-server=172.16.0.5:443"].map(str::to_owned));
    }
    if v6 {
        lines.push(format!("listening-ip=2001:db8:113::{first}"));
        lines.push(format!("relay-ip=2001:db8:113::{first}"));
        lines.push(format!("aux-server=[2001:db8:113::{first}]:443"));
    }
    lines.join("\n")
}

fn public_records(v6: bool) -> String {
    let names = [
        ("lab.test", 10),
        ("sip.lab.test", 10),
        ("turn.lab.test", 11),
        ("stun.lab.test", 11),
        ("turn2.lab.test", 13),
        ("dave.lab.test", 50),
    ];
    let record = |(name, last): (&str, u8)| {
        let more = if v6 { format!(",2001:db8:113::{last}") } else { String::new() };
        format!("host-record={name},203.0.113.{last}{more}\n")
    };
    names.into_iter().map(record).collect()
}

/// What only the corporate network knows: the edge's inner leg.
const INSIDE_RECORDS: &str = "host-record=sipinternal.lab.test,172.16.0.5
host-record=turninternal.lab.test,172.16.0.5
srv-host=_sipinternaltls._tcp.lab.test,sipinternal.lab.test,5061,10,10";

fn edge_settings(offer: &Offer) -> EdgeSettings {
    let relay = |name: &str| RelaySetting {
        host_name: name.to_owned(),
        udp_port: offer.relay_udp.then_some(3478),
        tcp_port: offer.relay_tcp.then_some(443),
    };
    EdgeSettings {
        mras: offer.mras,
        piggyback: offer.piggyback,
        secret: SECRET.to_owned(),
        life_s: offer.life_s,
        relays: vec![relay("turn.lab.test"), relay("turn2.lab.test")],
        inner_relays: vec![relay("turninternal.lab.test")],
    }
}

/// Where Debian keeps kamailio's modules: below a folder named after the machine's architecture.
fn modules() -> Result<String, String> {
    let folders = std::fs::read_dir("/usr/lib").map_err(|error| format!("/usr/lib: {error}"))?;
    let found = folders.flatten().map(|entry| entry.path().join("kamailio/modules")).find(|path| path.is_dir());
    let found = found.ok_or("kamailio's modules are not installed; tests/packages --test installs them")?;
    Ok(format!("{}/", found.display()))
}

fn make_certificates() -> Result<NamedFiles, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let names = [
        "lab.test",
        "sip.lab.test",
        "sipinternal.lab.test",
        "turn.lab.test",
        "turn2.lab.test",
        "turninternal.lab.test",
    ];
    let mut alternatives: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
    alternatives.push("URI:sip:lab.test".to_owned());
    let alternatives = format!(
        "subjectAltName={}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n",
        alternatives.join(",")
    );
    std::fs::write(at("extensions"), alternatives).map_err(|error| error.to_string())?;
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"];
    let authority = |name: &str, subject: &str| {
        let (key_file, file) = (at(&format!("{name}.key")), at(&format!("{name}.pem")));
        let constraint =
            ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        let subject = ["req", "-x509", "-subj", subject, "-keyout", &key_file, "-out", &file];
        tool("openssl", &[&subject[..], &key, if name == "ca" { &constraint } else { &[] }].concat())
    };
    authority("ca", "/CN=laboratory authority")?;
    authority("rogue", "/CN=sip.lab.test")?;
    let request = ["req", "-subj", "/CN=sip.lab.test", "-keyout", &at("server.key"), "-out", &at("server.csr")];
    tool("openssl", &[&request[..], &key].concat())?;
    tool(
        "openssl",
        &[
            "x509",
            "-req",
            "-in",
            &at("server.csr"),
            "-CA",
            &at("ca.pem"),
            "-CAkey",
            &at("ca.key"),
            "-CAcreateserial",
            "-days",
            "3650",
            "-extfile",
            &at("extensions"),
            "-out",
            &at("server.pem"),
        ],
    )?;
    let files = ["ca.pem", "server.pem", "server.key", "rogue.pem", "rogue.key"];
    let read = |name: &str| std::fs::read(at(name)).map(|bytes| (name.to_owned(), bytes));
    files.into_iter().map(read).collect::<Result<_, _>>().map_err(|error| error.to_string())
}
