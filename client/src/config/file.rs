//! The shape of the file, and its way into [`AccountConfig`].

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::secret::{self, SecretSource};
use super::{ConfigError, suggest};
use crate::api::{
    AccountConfig, Location, PathPolicy, RelayTransport, Secret, ServerConfig, SrtpMode, TransportChoice,
};

/// STUN and TURN, RFC 8489 §18.6 and RFC 8656 §18.6.
const STUN_PORT: u16 = 3478;
const STUNS_PORT: u16 = 5349;

/// Everything a run is configured with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where it came from, for messages.
    pub path: PathBuf,
    /// The accounts, in the order of the file.
    pub accounts: Vec<AccountConfig>,
    /// Sound cards.
    pub sound: SoundConfig,
    /// What accounts that come from elsewhere (calls without an account) start from: servers, trust, policies.
    pub base: AccountConfig,
}

/// Sound cards by (part of their) name; `None` is the system's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SoundConfig {
    /// Microphone.
    pub input: Option<String>,
    /// Loudspeaker.
    pub output: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    dns: Option<SocketAddr>,
    ring_timeout: Option<Spanned<u64>>,
    ports: Option<Spanned<[u16; 2]>>,
    path: Option<PathPolicy>,
    srtp: Option<SrtpMode>,
    #[serde(default)]
    tls: Tls,
    #[serde(default)]
    sound: SoundConfig,
    #[serde(default)]
    stun: Vec<Spanned<String>>,
    #[serde(default)]
    turn: Vec<Turn>,
    #[serde(default)]
    account: Vec<Account>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Tls {
    ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Turn {
    server: Spanned<String>,
    #[serde(default = "udp")]
    transport: RelayTransport,
    user: Option<String>,
    password: Option<Secret>,
    password_command: Option<String>,
    password_env: Option<String>,
    password_file: Option<PathBuf>,
    rest_secret: Option<Secret>,
    rest_secret_command: Option<String>,
    rest_secret_env: Option<String>,
    rest_secret_file: Option<PathBuf>,
}

fn udp() -> RelayTransport {
    RelayTransport::Udp
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Account {
    aor: Spanned<String>,
    display_name: Option<String>,
    auth_user: Option<String>,
    password: Option<Secret>,
    password_command: Option<String>,
    password_env: Option<String>,
    password_file: Option<PathBuf>,
    register: Option<bool>,
    expires: Option<u32>,
    edge: Option<Spanned<String>>,
    transport: Option<TransportChoice>,
    location: Option<Location>,
    dns: Option<SocketAddr>,
    listen: Option<SocketAddr>,
    path: Option<PathPolicy>,
    srtp: Option<SrtpMode>,
    mras: Option<bool>,
    calls_max: Option<u32>,
    transfers: Option<bool>,
    #[serde(default)]
    tls: Tls,
}

impl Config {
    /// No file, no accounts: the defaults.
    pub fn empty(path: PathBuf) -> Self {
        Self { path, accounts: Vec::new(), sound: SoundConfig::default(), base: AccountConfig::default() }
    }
}

/// Reads and validates one file.
///
/// # Errors
///
/// [`ConfigError`]: unreadable, not TOML, unknown key, impossible value, secret not to be had.
pub fn read(path: &Path) -> Result<Config, ConfigError> {
    let name = path.display().to_string();
    let unreadable = |error: std::io::Error| ConfigError::Unreadable { path: name.clone(), cause: error.to_string() };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    let source = Source { path, text: &text, private: secret::is_private(mode) };
    source.parse()
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    /// Only its owner may read it.
    private: bool,
}

impl Source<'_> {
    fn parse(&self) -> Result<Config, ConfigError> {
        let file: File = toml::from_str(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.wrong(at, suggest::improve(error.message()))
        })?;
        let mut base = AccountConfig { dns: file.dns, tls_ca: self.beside(file.tls.ca), ..AccountConfig::default() };
        if let Some(seconds) = &file.ring_timeout {
            if *seconds.get_ref() == 0 {
                return Err(self.wrong(seconds.span().start, "ring-timeout must be at least 1 second".to_owned()));
            }
            base.ring_timeout_ms = seconds.get_ref().saturating_mul(1000);
        }
        if let Some(ports) = &file.ports {
            base.port_range = Some(self.port_range(ports)?);
        }
        base.policy = file.path.unwrap_or_default();
        base.srtp = file.srtp.unwrap_or_default();
        for server in &file.stun {
            base.servers.push(self.stun(server)?);
        }
        for turn in &file.turn {
            base.servers.push(self.turn(turn)?);
        }
        let accounts =
            file.account.into_iter().map(|account| self.account(&base, account)).collect::<Result<_, _>>()?;
        Ok(Config { path: self.path.to_owned(), accounts, sound: file.sound, base })
    }

    fn account(&self, base: &AccountConfig, account: Account) -> Result<AccountConfig, ConfigError> {
        let aor = account.aor.get_ref().trim().to_owned();
        check_aor(&aor).map_err(|problem| self.wrong(account.aor.span().start, problem))?;
        let edge = match account.edge {
            None => None,
            Some(edge) => {
                let text = edge.get_ref().trim().to_owned();
                host_port(&text, 1).map_err(|problem| self.wrong(edge.span().start, problem))?;
                Some(text)
            }
        };
        let secret = SecretSource {
            what: format!("the password of {aor}"),
            key: "password",
            inline: account.password,
            command: account.password_command,
            env: account.password_env,
            file: self.beside(account.password_file),
        };
        let defaults = base.clone();
        Ok(AccountConfig {
            aor,
            display_name: account.display_name,
            auth_user: account.auth_user,
            password: self.secret(secret)?,
            register: account.register.unwrap_or(true),
            register_expires_s: account.expires.unwrap_or(defaults.register_expires_s),
            edge,
            transport: account.transport.unwrap_or_default(),
            location: account.location.unwrap_or_default(),
            tls_ca: self.beside(account.tls.ca).or(defaults.tls_ca),
            dns: account.dns.or(defaults.dns),
            listen: account.listen,
            policy: account.path.unwrap_or(defaults.policy),
            srtp: account.srtp.unwrap_or(defaults.srtp),
            mras: account.mras.unwrap_or(true),
            calls_max: account.calls_max.unwrap_or(defaults.calls_max),
            transfers: account.transfers.unwrap_or(defaults.transfers),
            servers: defaults.servers,
            source: defaults.source,
            auto_answer: None,
            ring_timeout_ms: defaults.ring_timeout_ms,
            port_range: defaults.port_range,
        })
    }

    fn stun(&self, server: &Spanned<String>) -> Result<ServerConfig, ConfigError> {
        let at = server.span().start;
        let (host, port) = host_port(server.get_ref(), STUN_PORT).map_err(|problem| self.wrong(at, problem))?;
        let transport = RelayTransport::Udp;
        Ok(ServerConfig { host, port, transport, user: None, password: None, rest_secret: None })
    }

    fn turn(&self, turn: &Turn) -> Result<ServerConfig, ConfigError> {
        let at = turn.server.span().start;
        let port = if turn.transport == RelayTransport::Tls { STUNS_PORT } else { STUN_PORT };
        let (host, port) = host_port(turn.server.get_ref(), port).map_err(|problem| self.wrong(at, problem))?;
        let password = self.secret(SecretSource {
            what: format!("the password of TURN server {host}"),
            key: "password",
            inline: turn.password.clone(),
            command: turn.password_command.clone(),
            env: turn.password_env.clone(),
            file: self.beside(turn.password_file.clone()),
        })?;
        let rest_secret = self.secret(SecretSource {
            what: format!("the shared secret of TURN server {host}"),
            key: "rest-secret",
            inline: turn.rest_secret.clone(),
            command: turn.rest_secret_command.clone(),
            env: turn.rest_secret_env.clone(),
            file: self.beside(turn.rest_secret_file.clone()),
        })?;
        if rest_secret.is_none() && (turn.user.is_none() || password.is_none()) {
            let problem = format!("TURN server {host} needs user and password, or rest-secret");
            return Err(self.wrong(at, problem));
        }
        Ok(ServerConfig { host, port, transport: turn.transport, user: turn.user.clone(), password, rest_secret })
    }

    fn port_range(&self, ports: &Spanned<[u16; 2]>) -> Result<(u16, u16), ConfigError> {
        let [first, last] = *ports.get_ref();
        // A call without mux needs two ports on each interface, and two calls may run at once.
        if first >= 1024 && last >= first.saturating_add(7) {
            return Ok((first, last));
        }
        let problem = format!("ports = [{first}, {last}] must start at 1024 or above and hold at least 8 ports");
        Err(self.wrong(ports.span().start, problem))
    }

    fn secret(&self, source: SecretSource) -> Result<Option<Secret>, ConfigError> {
        let name = self.path.display().to_string();
        if source.inline.is_some() && !self.private {
            let problem = format!(
                "it holds {}, but others may read it; run `chmod 600 {name}`, or use {key}-command or {key}-file",
                source.what,
                key = source.key
            );
            return Err(ConfigError::Secret { path: name, problem });
        }
        secret::fetch(source).map_err(|problem| ConfigError::Secret { path: name, problem })
    }

    /// Paths in the file are relative to the file.
    fn beside(&self, path: Option<PathBuf>) -> Option<PathBuf> {
        let path = path?;
        let home = path.strip_prefix("~").ok().zip(std::env::var_os("HOME"));
        if let Some((rest, home)) = home {
            return Some(Path::new(&home).join(rest));
        }
        Some(self.path.parent().map_or_else(|| path.clone(), |folder| folder.join(&path)))
    }

    fn wrong(&self, at: usize, problem: String) -> ConfigError {
        let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        ConfigError::Wrong { path: self.path.display().to_string(), line, problem }
    }
}

/// An address of record: `sip:` or `sips:`, a user and a domain.
pub(super) fn check_aor(aor: &str) -> Result<(), String> {
    let advice = format!("{aor:?} is no address of record; write it like \"sip:alice@example.com\"");
    let rest = aor.strip_prefix("sip:").or_else(|| aor.strip_prefix("sips:")).ok_or_else(|| advice.clone())?;
    match rest.split_once('@') {
        Some((user, domain)) if !user.is_empty() && !domain.is_empty() && !aor.contains(char::is_whitespace) => Ok(()),
        Some(_) | None => Err(advice),
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
pub(super) fn host_port(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let wrong = || format!("{text:?} is no host[:port]");
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(wrong)?;
            (host, after.strip_prefix(':').map_or((after.is_empty()).then_some(None), |port| Some(Some(port))))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(Some(port))),
            None => (text, Some(None)),
        },
    };
    let port = match port.ok_or_else(wrong)? {
        None => default_port,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
#[path = "tests.rs"]
mod file_tests;
