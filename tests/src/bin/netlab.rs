//! The laboratory by hand: real servers behind real NATs, made of network namespaces.
//!
//! ```sh
//! netlab up                                   # a laboratory called `mine` (--name for more of them)
//! netlab exec alice icephone -c $(netlab account alice) call bob
//! netlab nat natA sym; netlab block alice udp; netlab down
//! ```

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tests::lab::capture::Capture;
use tests::lab::impair::{Block, Way};
use tests::lab::nat::NatKind;
use tests::lab::natcheck::nat_of;
use tests::lab::netns;
use tests::lab::network::{Families, HOSTS, Host, Plan};
use tests::lab::servers::{NetLab, Offer, Service};

#[derive(Parser)]
#[command(name = "netlab", about = "A laboratory of real servers and NATs in network namespaces; needs root")]
struct Cli {
    /// Which laboratory; several run side by side
    #[arg(long, default_value = "mine", env = "NETLAB", global = true)]
    name: String,
    #[command(subcommand)]
    command: Command,
}

/// Hosts: alice carol (behind natA), bob (behind natB), corp (behind fwC), dave edge spare (public), carrier, inet
#[derive(Subcommand)]
enum Command {
    /// Build it and start its servers
    Up {
        /// IPv4 and IPv6 on every host
        #[arg(long, conflicts_with = "v6")]
        dual: bool,
        /// IPv6 only on every host with a user
        #[arg(long)]
        v6: bool,
        /// Both homes have the same subnet and the same address
        #[arg(long)]
        overlap: bool,
        /// Routers behind the carrier's router
        #[arg(long, value_name = "ROUTER")]
        carrier: Vec<Host>,
        /// The corporate network knows the inner names
        #[arg(long)]
        inside: bool,
        /// Name no relay service
        #[arg(long)]
        no_mras: bool,
        /// Provision by NOTIFY
        #[arg(long)]
        notify: bool,
    },
    /// Build a laboratory of its own for one program, run that in a host, remove the laboratory
    Run {
        host: Host,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Remove everything
    Down,
    /// What runs, what is registered, what is allocated
    Status,
    /// Laboratories of this machine
    List,
    /// Run a program in a host
    Exec {
        host: Host,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Write a user's icephone configuration and print its path
    Account { user: Host },
    /// Make a router one of: prc sym cone acone noudp tcp443 open
    Nat { host: Host, kind: NatKind },
    /// Measure mapping and filtering of a host's NAT
    Natcheck { host: Host },
    /// Seconds that an idle UDP mapping lives
    Natlife { host: Host, seconds: u32 },
    /// The router forgets all mappings
    Flush { host: Host },
    /// The SIP gateway of the router's kernel
    Alg {
        host: Host,
        #[arg(action = clap::ArgAction::Set, value_parser = on_off)]
        on: bool,
    },
    /// Stop udp tcp tcpnot443 icmp all relays sip at a host's line
    Block {
        host: Host,
        what: Block,
        #[arg(default_value = "both")]
        way: Way,
    },
    /// Let everything pass again
    Unblock { host: Host },
    /// Lose this share of UDP packets
    Loss {
        host: Host,
        percent: f64,
        #[arg(default_value = "both")]
        way: Way,
    },
    /// Delay box: delay=40 jitter=15 loss=1 ge=2,30,0,90 dup=1 reorder=2,30 rate=500 seed=7 proto=rtp order=0; or off
    Delay {
        host: Host,
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// A new IPv4 address for a host
    Readdress { host: Host, address: String },
    /// A new public address for a router
    Wanip { host: Host, address: String },
    /// A host's cable
    Link {
        host: Host,
        #[arg(action = clap::ArgAction::Set, value_parser = up_down)]
        up: bool,
    },
    /// Largest packet of a host's line
    Mtu { host: Host, bytes: u32 },
    /// Servers: dns dnsA dnsB dnsC turn turn2 sip; start stop kill restart freeze thaw log
    Svc { service: Service, action: String },
    /// Capture at a host's line
    Capture { host: Host, file: std::path::PathBuf, seconds: u64 },
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off".to_owned()),
    }
}

fn up_down(text: &str) -> Result<bool, String> {
    match text {
        "up" => Ok(true),
        "down" => Ok(false),
        _ => Err("up or down".to_owned()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.name, cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("netlab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Up { dual, v6, overlap, carrier, inside, no_mras, notify } => {
            let families = if v6 {
                Families::V6
            } else if dual {
                Families::Dual
            } else {
                Families::V4
            };
            let plan = Plan { families, overlap, behind_carrier: carrier, inside_names: inside };
            let offer = Offer { mras: !no_mras, piggyback: !notify, ..Offer::default() };
            if NetLab::attach(name).is_ok() {
                return Err(format!("{name:?} is up already"));
            }
            let lab = NetLab::build_named(name, plan, &offer).inspect_err(|_| netns::remove_owner(name))?;
            println!("{name}: {}", lab.network.folder().display());
        }
        Command::Down => netns::remove_owner(name),
        Command::List => netns::namespaces().iter().for_each(|namespace| println!("{namespace}")),
        Command::Exec { host, command } => exec(&NetLab::attach(name)?, host, &command)?,
        Command::Run { host, command } => return run_once(host, &command),
        command => act(&NetLab::attach(name)?, command)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_once(host: Host, words: &[String]) -> Result<ExitCode, String> {
    let (program, arguments) = words.split_first().ok_or("no program")?;
    let lab = NetLab::build(Plan::default(), &Offer::default())?;
    eprintln!("netlab: ready as {}", lab.network.owner());
    let mut command = lab.network.host(host).command(Path::new(program));
    let status = command.args(arguments).env("NETLAB_CA", lab.file("ca.pem")).status();
    let status = status.map_err(|error| format!("{program}: {error}"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn exec(lab: &NetLab, host: Host, words: &[String]) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("no program")?;
    let mut command = lab.network.host(host).command(Path::new(program));
    // It becomes the program, so that signals reach that.
    let error = command.args(arguments).env("NETLAB_CA", lab.file("ca.pem")).exec();
    Err(format!("{program}: {error}"))
}

fn act(lab: &NetLab, command: Command) -> Result<(), String> {
    let network = &lab.network;
    match command {
        Command::Status => status(lab),
        Command::Account { user } => {
            println!("{}", lab.account(user, "")?.display());
            Ok(())
        }
        Command::Nat { host, kind } => network.set_nat(host, kind),
        Command::Natcheck { host } => {
            println!("{host}: {}", nat_of(network, host)?);
            Ok(())
        }
        Command::Natlife { host, seconds } => network.set_mapping_life(host, seconds),
        Command::Flush { host } => network.flush_mappings(host),
        Command::Alg { host, on } => network.set_gateway(host, on),
        Command::Block { host, what, way } => network.block(host, what, way),
        Command::Unblock { host } => network.unblock(host),
        Command::Loss { host, percent, way } => network.set_loss(host, percent, way),
        Command::Delay { host, words } => {
            network.set_delay(host, &words.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Command::Readdress { host, address } => network.readdress(host, &address),
        Command::Wanip { host, address } => network.set_public_address(host, &address),
        Command::Link { host, up } => network.set_link(host, up),
        Command::Mtu { host, bytes } => network.set_mtu(host, bytes),
        Command::Svc { service, action } => serve(lab, service, &action),
        Command::Capture { host, file, seconds } => capture(lab, host, &file, seconds),
        // Those that need no laboratory that runs, or become another program.
        Command::Up { .. } | Command::Down | Command::List | Command::Exec { .. } | Command::Run { .. } => Ok(()),
    }
}

fn status(lab: &NetLab) -> Result<(), String> {
    for (host, name) in HOSTS {
        let addresses = lab.network.host(host).ip(&["-o", "addr", "show", "scope", "global"])?;
        let addresses = addresses.lines().filter_map(|line| line.split_whitespace().nth(3));
        println!("{name:8} {}", addresses.collect::<Vec<_>>().join(" "));
    }
    for (service, pid) in lab.running() {
        println!("{service:8} runs as {pid}");
    }
    let held = lab.held()?;
    held.registrations.iter().for_each(|line| println!("registered {line}"));
    held.allocations.iter().for_each(|line| println!("allocated {line}"));
    Ok(())
}

fn serve(lab: &NetLab, service: Service, action: &str) -> Result<(), String> {
    match action {
        "start" => lab.start_service(service),
        "stop" => {
            lab.stop_service(service);
            Ok(())
        }
        "kill" => {
            lab.kill_service(service);
            Ok(())
        }
        "restart" => lab.restart_service(service),
        "freeze" => {
            lab.freeze_service(service);
            Ok(())
        }
        "thaw" => {
            lab.thaw_service(service);
            Ok(())
        }
        "log" => {
            print!("{}", lab.log_of(service));
            Ok(())
        }
        _ => Err(format!("no action {action:?}; there are start stop kill restart freeze thaw log")),
    }
}

#[expect(clippy::disallowed_methods, reason = "a person said how long")]
fn capture(lab: &NetLab, host: Host, file: &Path, seconds: u64) -> Result<(), String> {
    let running = Capture::start(&lab.network.host(host), "any", file)?;
    std::thread::sleep(Duration::from_secs(seconds));
    running.stop().map(|_| ())
}
