//! A lab that runs: sockets bound, servers made from their addresses, files written, control socket open.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use super::certificate;
use super::driver::{self, Listening, Question, Questions, Sockets};
use super::folder::{self, Folder};
use super::servers::{self, Setup};
use crate::cli::args::LabArgs;
use crate::driver::clock;

/// Users of the lab; `echo` is where the demo's bot listens.
pub const USERS: [&str; 3] = ["alice", "bob", "echo"];
/// Tries to find one free port for UDP and TCP alike.
const PORT_TRIES: usize = 50;
/// How long stopping may take.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Where a lab's servers listen.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Name server, UDP and TCP.
    pub dns: SocketAddr,
    /// SIP over UDP and TCP.
    pub sip: SocketAddr,
    /// SIP over TLS.
    pub sip_tls: SocketAddr,
    /// Each relay: UDP and TCP at the first address, TLS at the second.
    pub relays: Vec<(SocketAddr, SocketAddr)>,
}

/// The running lab. Dropping it closes all sockets and removes its files.
#[derive(Debug)]
pub struct Running {
    folder: Folder,
    addresses: Addresses,
    questions: Option<Questions>,
    serving: JoinHandle<()>,
    stopped: mpsc::Receiver<()>,
    tasks: Vec<AbortHandle>,
    domain: String,
}

impl Running {
    /// Binds, makes and writes everything; serving begins at once.
    ///
    /// # Errors
    ///
    /// A sentence: an address is in use, a file cannot be written, a fault does not exist.
    pub async fn start(args: &LabArgs) -> Result<Self, String> {
        let mut folder = Folder::create(args.folder.as_deref())?;
        let hosts = servers::host_names(&args.domain, args.relays);
        let mut certified = vec![args.address];
        certified.extend(args.relay_address);
        let certificates = certificate::make(&hosts, &certified)?;
        let mut sockets = Sockets::new();
        let addresses = bind(&mut sockets, args, &certificates)?;
        let passwords = USERS.map(|user| (user.to_owned(), random_password()));
        let setup = Setup { args, addresses: &addresses, passwords: &passwords };
        let made = servers::assemble(&setup)?;
        folder.write("ca.pem", &certificates.ca_pem)?;
        for (user, password) in &passwords {
            let text = account_file(user, password, &args.domain, addresses.dns);
            folder.write(&format!("{user}.toml"), &text)?;
        }
        let (held, changes) = mpsc::unbounded_channel();
        let (questions, serving) = driver::serve(sockets, made, held);
        let socket = folder.path().join("control.sock");
        // A lab that was killed leaves its socket behind.
        let _ = std::fs::remove_file(&socket);
        let (control, stopped) = super::control::listen(&socket, questions.clone())?;
        folder.adopt(socket);
        let state = folder.write("state.json", "{}")?;
        let writer = tokio::spawn(write_state(state, describe(&addresses, &args.domain, folder.path()), changes));
        let tasks = vec![control, writer.abort_handle()];
        let domain = args.domain.clone();
        let running = Self { folder, addresses, questions: Some(questions), serving, stopped, tasks, domain };
        for fault in &args.fault {
            running.fault(fault).await?;
        }
        Ok(running)
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the servers are.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The SIP domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Everything that a script needs to know.
    pub fn description(&self) -> Value {
        describe(&self.addresses, &self.domain, self.folder.path())
    }

    /// What is registered, allocated, …
    pub async fn list(&self) -> Value {
        let (reply, held) = tokio::sync::oneshot::channel();
        if let Some(questions) = &self.questions {
            let _ = questions.send(Question::List(reply)).await;
        }
        held.await.unwrap_or(Value::Null)
    }

    /// Makes a server misbehave, in the words of the control socket.
    ///
    /// # Errors
    ///
    /// A sentence: there is no such fault.
    pub async fn fault(&self, words: &str) -> Result<(), String> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        if let Some(questions) = &self.questions {
            let _ = questions.send(Question::Fault(words.to_owned(), reply)).await;
        }
        outcome.await.unwrap_or_else(|_| Err("the lab is stopping".to_owned()))
    }

    /// Resolves when the control socket says `stop`.
    pub async fn asked_to_stop(&mut self) {
        if self.stopped.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Closes the sockets and removes the files.
    pub async fn stop(mut self) {
        self.questions = None;
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
        }
        let _ = tokio::time::timeout(STOP_LIMIT, &mut self.serving).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.serving.abort();
    }
}

fn random_password() -> String {
    servers::hexadecimal(clock::seed().get(..12).unwrap_or_default())
}

fn account_file(user: &str, password: &str, domain: &str, dns: SocketAddr) -> String {
    format!(
        "# {user} at the lab; valid while it runs.\n\
         dns = \"{dns}\"\n\
         tls.ca = \"ca.pem\"\n\n\
         [[account]]\n\
         aor = \"sip:{user}@{domain}\"\n\
         password = \"{password}\"\n"
    )
}

fn describe(addresses: &Addresses, domain: &str, folder: &Path) -> Value {
    let relays: Vec<Value> =
        addresses.relays.iter().map(|(plain, tls)| json!({ "udp": plain, "tcp": plain, "tls": tls })).collect();
    json!({
        "domain": domain,
        "folder": folder,
        "dns": addresses.dns,
        "sip": { "udp": addresses.sip, "tcp": addresses.sip, "tls": addresses.sip_tls },
        "relays": relays,
    })
}

async fn write_state(path: std::path::PathBuf, about: Value, mut changes: mpsc::UnboundedReceiver<Value>) {
    while let Some(mut held) = changes.recv().await {
        // Only the newest matters when several wait.
        while let Ok(newer) = changes.try_recv() {
            held = newer;
        }
        let mut state = about.clone();
        if let (Some(state), Value::Object(held)) = (state.as_object_mut(), held) {
            state.extend(held);
        }
        let _ = folder::write_whole(&path, &format!("{state:#}\n"));
    }
}

/// Binds every server; UDP and TCP of one server share a port, as DNS and SRV records want it.
fn bind(sockets: &mut Sockets, args: &LabArgs, certificates: &certificate::Certificates) -> Result<Addresses, String> {
    let port = |well_known: u16| if args.well_known_ports { well_known } else { 0 };
    let dns = both(sockets, certificates, 0, args.address, port(53), None)?.0;
    let (sip, sip_tls) = both(sockets, certificates, 1, args.address, port(5060), Some(port(5061)))?;
    let relay_address = args.relay_address.unwrap_or(args.address);
    let mut relays = Vec::new();
    for (index, nth) in (0..args.relays).zip(0u16..) {
        let plain = if args.well_known_ports { 3478u16.saturating_add(nth.saturating_mul(10)) } else { 0 };
        let tls = if args.well_known_ports { 5349u16.saturating_add(nth.saturating_mul(10)) } else { 0 };
        relays.push(both(sockets, certificates, 2 + index, relay_address, plain, Some(tls))?);
    }
    Ok(Addresses { dns, sip, sip_tls, relays })
}

fn both(
    sockets: &mut Sockets,
    certificates: &certificate::Certificates,
    server: usize,
    ip: IpAddr,
    port: u16,
    tls: Option<u16>,
) -> Result<(SocketAddr, SocketAddr), String> {
    let mut failure = String::new();
    for _ in 0..PORT_TRIES {
        let port = if port == 0 { free_port(ip)? } else { port };
        let plain = SocketAddr::new(ip, port);
        let wanted = Listening {
            udp: vec![plain],
            tcp: vec![plain],
            tls: tls.map(|port| SocketAddr::new(ip, port)).into_iter().collect(),
        };
        match sockets.bind(server, &wanted, &certificates.acceptor) {
            Ok(bound) => return Ok((plain, bound.tls.first().copied().unwrap_or(plain))),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A port that is free for TCP now; UDP is tried with it.
fn free_port(ip: IpAddr) -> Result<u16, String> {
    let probe = std::net::TcpListener::bind((ip, 0)).and_then(|listener| listener.local_addr());
    probe.map(|address| address.port()).map_err(|error| format!("cannot listen on {ip}: {error}"))
}
