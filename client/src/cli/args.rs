//! The command line: what can be typed, with its help.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser as _;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::api::{PathPolicy, SrtpMode, TransportChoice};
use crate::config::Overrides;

const EXAMPLES: &str = "\
Examples:
  icephone demo                                  a live call on this machine: no account, no network, no sound card
  icephone lab                                   the demo's servers alone; prints how to use them
  icephone -c alice.toml call bob --play a.wav   call bob, speak from a file
  icephone call sip:bob@192.0.2.7                call without an account
  icephone bot --listen 0.0.0.0:5060             answer every call with an echo
  icephone config template > ~/.config/icephone/config.toml

Exit codes: 0 good, 1 internal, 2 usage, 3 config or file, 10 DNS, 11 TLS, 12 connect, 13 password,
14 registration, 20/21 relay, 30 refused, 31 busy, 32 no answer, 33 given up, 40 no path, 41 wrong path,
42 no or one-way sound, 45 path lost, 50 sound card, 130 interrupted.";

/// A softphone for the terminal that shows how its media travels.
///
/// Without a command it opens the screen with the accounts of the configuration.
#[derive(Debug, Parser)]
#[command(name = "icephone", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// What to do; the screen if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
}

/// Options of all commands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file [default: `$XDG_CONFIG_HOME/icephone/config.toml`]
    #[arg(short, long, visible_alias = "account", global = true, value_name = "FILE", env = "ICEPHONE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Use this address of record (its settings from the file, if they are there); the password comes from the file
    /// or from `ICEPHONE_PASSWORD`
    #[arg(long, global = true, value_name = "SIP-URI", env = "ICEPHONE_AOR", help_heading = "Account")]
    pub aor: Option<String>,
    /// Digest user name, where it is not the user part of the aor
    #[arg(long, global = true, value_name = "NAME", env = "ICEPHONE_AUTH_USER", help_heading = "Account")]
    pub auth_user: Option<String>,
    /// SIP server instead of the one that DNS names
    #[arg(long, global = true, value_name = "HOST[:PORT]", env = "ICEPHONE_EDGE", help_heading = "Account")]
    pub edge: Option<String>,
    /// SIP transport: auto takes TLS wherever the domain names a TLS server
    #[arg(long, global = true, value_enum, env = "ICEPHONE_TRANSPORT", help_heading = "Account")]
    pub transport: Option<TransportArg>,
    /// Name server instead of the system's
    #[arg(long, global = true, value_name = "ADDR:PORT", env = "ICEPHONE_DNS", help_heading = "Account")]
    pub dns: Option<SocketAddr>,
    /// Certificates to trust besides the system's (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "ICEPHONE_TLS_CA", help_heading = "Account")]
    pub tls_ca: Option<PathBuf>,
    /// Receive SIP over UDP and TCP at this address
    #[arg(long, global = true, value_name = "ADDR:PORT", env = "ICEPHONE_LISTEN", help_heading = "Account")]
    pub listen: Option<SocketAddr>,
    /// How media may travel
    #[arg(long, global = true, value_enum, env = "ICEPHONE_PATH", help_heading = "Media")]
    pub path: Option<PathArg>,
    /// Media encryption
    #[arg(long, global = true, value_enum, env = "ICEPHONE_SRTP", help_heading = "Media")]
    pub srtp: Option<SrtpArg>,
    /// Microphone by part of its name (`icephone devices`)
    #[arg(long, global = true, value_name = "NAME", env = "ICEPHONE_INPUT", help_heading = "Media")]
    pub input: Option<String>,
    /// Loudspeaker by part of its name
    #[arg(long, global = true, value_name = "NAME", env = "ICEPHONE_OUTPUT", help_heading = "Media")]
    pub output: Option<String>,
    /// Use no sound card: hear nothing, send silence unless --play or --mic says otherwise
    #[arg(long, global = true, env = "ICEPHONE_NO_SOUND", help_heading = "Media")]
    pub no_sound: bool,
    /// Log more: -v what happens, -vv how, -vvv every packet
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Log")]
    pub verbose: u8,
    /// Log to this file instead of the standard error stream
    #[arg(long, global = true, value_name = "FILE", env = "ICEPHONE_LOG_FILE", help_heading = "Log")]
    pub log_file: Option<PathBuf>,
    /// What to log, for example "ice=trace,sip=debug"; wins over -v
    #[arg(long, global = true, value_name = "FILTER", env = "ICEPHONE_LOG", help_heading = "Log")]
    pub log_filter: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Call somebody, print what happens, end with a report and an exit code
    Call(CallArgs),
    /// Answer every call by itself: echo, file, tone, recording
    Bot(BotArgs),
    /// Register, show what the edge provides, unregister
    Register(RegisterArgs),
    /// Run the embedded edge: DNS, registrar, proxy, relay credentials, STUN and TURN
    Lab(LabArgs),
    /// A live call on this machine: edge, echo bot and phone in one process
    Demo(DemoArgs),
    /// Print a template, or check the configuration
    Config(ConfigArgs),
    /// List the sound cards
    Devices,
}

/// `icephone call`
#[derive(Debug, Args)]
#[command(after_help = "Example: icephone -c alice.toml call bob --play a.wav --record b.wav --duration 10s --json")]
pub struct CallArgs {
    /// A SIP URI, or a user name in the account's domain
    pub uri: String,
    /// Speak from this WAV file instead of the microphone; hangs up at its end unless --duration is given
    #[arg(long, visible_alias = "mic", value_name = "WAV")]
    pub play: Option<PathBuf>,
    /// Speak the built-in tune
    #[arg(long, conflicts_with = "play")]
    pub tune: bool,
    /// Record what is heard
    #[arg(long, value_name = "WAV")]
    pub record: Option<PathBuf>,
    /// Hang up this long after the answer: 10s, 500ms, 2m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Send these digits once the call is answered
    #[arg(long, value_name = "DIGITS")]
    pub dtmf: Option<String>,
    /// Give up when nobody answers [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration, env = "ICEPHONE_RING_TIMEOUT")]
    pub ring_timeout: Option<Duration>,
    /// One JSON object per event on the standard output
    #[arg(long)]
    pub json: bool,
}

/// `icephone bot`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(
    group = ArgGroup::new("voice"),
    after_help = "Examples:\n  icephone -c echo.toml bot\n  icephone bot --listen 192.0.2.7:5060 --tone 440 --record recordings/\n\n\
                  SIGUSR1 prints what the bot holds: calls, sockets, streams, tasks; with --json also every minute."
)]
pub struct BotArgs {
    /// Send back what is heard (this is the default)
    #[arg(long, group = "voice")]
    pub echo: bool,
    /// Play this WAV file, over and over
    #[arg(long, value_name = "WAV", group = "voice")]
    pub play: Option<PathBuf>,
    /// Play this WAV file once, then silence
    #[arg(long, value_name = "WAV", group = "voice")]
    pub play_once: Option<PathBuf>,
    /// Play a tone
    #[arg(long, value_name = "HZ", group = "voice", value_parser = hertz)]
    pub tone: Option<f32>,
    /// Play the built-in tune
    #[arg(long, group = "voice")]
    pub tune: bool,
    /// Say nothing
    #[arg(long, group = "voice")]
    pub silence: bool,
    /// Record what is heard: a WAV file, or a folder with one file per call
    #[arg(long, value_name = "PATH")]
    pub record: Option<PathBuf>,
    /// Ring this long before answering
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub ring: Duration,
    /// Calls at once; more are answered with "busy"
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub calls_max: u32,
    /// End after this many calls
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End after this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// One JSON object per event on the standard output
    #[arg(long)]
    pub json: bool,
}

/// `icephone register`
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// Stay registered this long: 10s, 5m
    #[arg(long, visible_alias = "seconds", value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// One JSON object per event on the standard output
    #[arg(long)]
    pub json: bool,
}

/// `icephone demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Hang up after this many seconds of talk (without a terminal)
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub seconds: u64,
    /// Speak with the microphone instead of the built-in tune
    #[arg(long)]
    pub mic: bool,
    /// Print lines even on a terminal
    #[arg(long)]
    pub plain: bool,
    /// One JSON object per event on the standard output
    #[arg(long)]
    pub json: bool,
}

/// `icephone lab`
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(
    after_help = "The folder holds alice.toml, bob.toml, echo.toml and ca.pem for the phones, state.json with what\n\
                        is registered and allocated, and the socket control.sock: one line in, one line of JSON out\n\
                        (`list`, `stop`, `help` names the faults)."
)]
pub struct LabArgs {
    /// Address of all servers; ports are free ones unless --ports says otherwise
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDR")]
    pub address: IpAddr,
    /// Address of the relays, if they have one of their own
    #[arg(long, value_name = "ADDR")]
    pub relay_address: Option<IpAddr>,
    /// Use the well-known ports (53, 5060, 5061, 3478, 5349) instead of free ones
    #[arg(long)]
    pub well_known_ports: bool,
    /// SIP domain of the lab
    #[arg(long, default_value = "lab.test", value_name = "DOMAIN")]
    pub domain: String,
    /// Folder for the files [default: a new one under the temporary folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Lifetime of the relay credentials
    #[arg(long, default_value_t = 480, value_name = "N")]
    pub credential_minutes: u32,
    /// Relays that the credentials name
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=4).map(usize::from))]
    pub relays: usize,
    /// Name the relays' TLS port as their TCP port: plain TURN over TCP finds nothing there
    #[arg(long)]
    pub relay_tls: bool,
    /// Name no relay service: phones have host candidates only
    #[arg(long)]
    pub no_mras: bool,
    /// Be inside: `_sipinternaltls._tcp`, no `RemoteUser`, relays for the intranet
    #[arg(long)]
    pub inside: bool,
    /// Digest algorithm of the registrar
    #[arg(long, value_enum, default_value = "both")]
    pub digest: DigestArg,
    /// Start with a fault, as the control socket names it; may be repeated
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<String>,
    /// Print one JSON object when the lab is up
    #[arg(long)]
    pub json: bool,
}

/// `icephone config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do with the configuration
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What `icephone config` does.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigAction {
    /// Print a commented configuration to start from
    Template,
    /// Read the configuration and say what is wrong with it
    Check,
    /// Print where the configuration is looked for
    Path,
}

/// SIP transport.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TransportArg {
    /// As DNS says, TLS first
    Auto,
    /// TLS only
    Tls,
    /// TCP only
    Tcp,
    /// UDP only
    Udp,
}

/// Media path policy.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PathArg {
    /// Every candidate
    All,
    /// No addresses of this machine
    NoHost,
    /// Relays only
    RelayOnly,
    /// Relays over TCP or TLS only
    RelayTcpOnly,
}

/// Media encryption.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SrtpArg {
    /// Refuse peers without it
    Required,
    /// Fall back to none
    Optional,
    /// None
    Off,
}

/// Digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DigestArg {
    /// Offer SHA-256 first, then MD5
    Both,
    /// MD5
    Md5,
    /// SHA-256
    Sha256,
}

impl Global {
    /// What the flags and variables change in the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            aor: self.aor.clone(),
            auth_user: self.auth_user.clone(),
            edge: self.edge.clone(),
            transport: self.transport.map(|transport| match transport {
                TransportArg::Auto => TransportChoice::Auto,
                TransportArg::Tls => TransportChoice::Tls,
                TransportArg::Tcp => TransportChoice::Tcp,
                TransportArg::Udp => TransportChoice::Udp,
            }),
            dns: self.dns,
            tls_ca: self.tls_ca.clone(),
            path: self.path.map(|path| match path {
                PathArg::All => PathPolicy::All,
                PathArg::NoHost => PathPolicy::NoHost,
                PathArg::RelayOnly => PathPolicy::RelayOnly,
                PathArg::RelayTcpOnly => PathPolicy::RelayTcpOnly,
            }),
            srtp: self.srtp.map(|srtp| match srtp {
                SrtpArg::Required => SrtpMode::Required,
                SrtpArg::Optional => SrtpMode::Optional,
                SrtpArg::Off => SrtpMode::Off,
            }),
            listen: self.listen,
            ring_timeout_s: None,
            input: self.input.clone(),
            output: self.output.clone(),
        }
    }
}

/// No command needs to run longer, and clocks can still count it.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// `10s`, `500ms`, `2m`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write 10s, 500ms or 2m");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "" | "s" => number,
        "ms" => number / 1000.0,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= LONGEST).ok_or_else(wrong)
}

fn hertz(text: &str) -> Result<f32, String> {
    let wrong = || format!("{text:?} is no frequency between 20 and 20000 Hz");
    text.parse().ok().filter(|hz| (20.0..=20_000.0).contains(hz)).ok_or_else(wrong)
}

#[cfg(test)]
mod args_tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read_with_their_units() {
        let cases = [("10s", 10_000), ("500ms", 500), ("2m", 120_000), ("1.5", 1500), ("0", 0)];
        for (text, ms) in cases {
            assert_eq!(duration(text).unwrap().as_millis(), ms, "{text}");
        }
        for text in ["", "s", "10 parsecs", "-1s", "1e99h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                assert!(!name.contains("password") && !name.contains("secret"), "{name}");
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
