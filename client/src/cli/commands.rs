//! What each command does, in terms of the engine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Screen;
use super::args::{BotArgs, CallArgs, Cli, Command, ConfigAction, Global, RegisterArgs};
use super::exit::ExitCode;
use super::print::{self, Printer};
use super::session::{self, ACCOUNT, CallPlan, NotReady};
use super::stop::Stop;
use crate::api::{self, AccountConfig, AccountId, DialOptions, MediaSource};
use crate::bot::{self, BotPlan};
use crate::config::{self, Config, ConfigError, TEMPLATE};
use crate::driver::record::RecordTo;
use crate::driver::sound;
use crate::engine::{Engine, EngineConfig, SoundChoice};

/// The caller's name where no account gives one (RFC 3323 §4.1).
const ANONYMOUS: &str = "sip:icephone@anonymous.invalid";

/// One run of the program.
pub struct Run {
    /// The command line.
    pub cli: Cli,
    /// When the process started.
    pub started: Instant,
    /// How to show the screen.
    pub screen: Screen,
    /// Whether this run shows it.
    pub on_screen: bool,
}

/// Why a command ends early.
pub type Failed = NotReady;

impl From<ConfigError> for NotReady {
    fn from(error: ConfigError) -> Self {
        let code = if matches!(error, ConfigError::Override(_)) { ExitCode::Usage } else { ExitCode::Config };
        Self { code, text: error.to_string() }
    }
}

/// Carries the command out.
pub async fn dispatch(run: Run) -> ExitCode {
    let Run { cli, started, screen, on_screen } = run;
    let Cli { command, global } = cli;
    let outcome = match command {
        None if on_screen => open_screen(&global, screen).await,
        None => Err(NotReady {
            code: ExitCode::Usage,
            text: "there is no terminal for the screen; `icephone --help` lists the commands".to_owned(),
        }),
        Some(Command::Call(args)) => call(&global, args, started).await,
        Some(Command::Bot(args)) => answer(&global, args, started).await,
        Some(Command::Register(args)) => register(&global, &args, started).await,
        Some(Command::Lab(args)) => crate::lab::command::run(&args).await,
        Some(Command::Demo(args)) => crate::demo::run(&global, &args, started, on_screen.then_some(screen)).await,
        Some(Command::Config(args)) => configuration(&global, args.action),
        Some(Command::Devices) => devices(),
    };
    outcome.unwrap_or_else(|failed| {
        print::trouble(&failed.text);
        failed.code
    })
}

fn load(global: &Global, ring_timeout: Option<Duration>) -> Result<Config, Failed> {
    let mut overrides = global.overrides();
    overrides.ring_timeout_s = ring_timeout.map(|time| time.as_secs().max(1));
    let mut config = config::load(global.config.as_deref(), &overrides)?;
    for account in config.accounts.iter().chain([&config.base]) {
        // Known before anything connects: a trust anchor that is not there would look like a bad certificate.
        if let Some(path) = &account.tls_ca {
            crate::driver::tls::read_ca(path).map_err(|text| NotReady { code: ExitCode::Config, text })?;
        }
    }
    ANONYMOUS.clone_into(&mut config.base.aor);
    config.base.register = false;
    config.base.mras = false;
    Ok(config)
}

/// The account that a call to `uri` is made with: the one of its domain, else the first, else none at all.
fn account_for(config: &Config, uri: &str) -> Result<AccountConfig, Failed> {
    let domain = domain_of(uri);
    let of_domain = config.accounts.iter().find(|account| domain.is_some() && domain_of(&account.aor) == domain);
    if let Some(account) = of_domain.or(config.accounts.first()) {
        return Ok(account.clone());
    }
    if domain.is_some() {
        return Ok(config.base.clone());
    }
    Err(ConfigError::NoAccount { path: config.path.display().to_string() }.into())
}

/// The host part of a SIP URI, lower case; `None` for a bare user name.
fn domain_of(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("sip:").or_else(|| uri.strip_prefix("sips:"))?;
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    let host = host.split([';', '?', '>']).next().unwrap_or(host);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    };
    Some(host.to_ascii_lowercase())
}

fn account_needed(config: &Config) -> Result<AccountConfig, Failed> {
    let missing = || ConfigError::NoAccount { path: config.path.display().to_string() }.into();
    config.accounts.first().cloned().ok_or_else(missing)
}

fn cards(global: &Global, config: &Config, output_only: bool) -> SoundChoice {
    if global.no_sound {
        return SoundChoice::Null;
    }
    SoundChoice::Cards { input: config.sound.input.clone(), output: config.sound.output.clone(), output_only }
}

/// Reads a WAV file into the engine's format.
///
/// # Errors
///
/// [`Failed`] with the file's name: it cannot be read, or is no WAV file.
pub fn samples(path: &Path, repeat: bool) -> Result<MediaSource, Failed> {
    match media::audio::wav::read(path) {
        Ok(samples) => Ok(MediaSource::Samples { samples: Arc::from(samples), repeat }),
        Err(error) => Err(NotReady { code: ExitCode::Config, text: error.to_string() }),
    }
}

/// Starts an engine.
///
/// # Errors
///
/// [`Failed`]: the recording cannot be created.
pub fn start(sound: SoundChoice, record: Option<&Path>) -> Result<Engine, Failed> {
    let record = record.map(|path| RecordTo::new(path.to_owned()));
    let config = EngineConfig { sound, record, user_agent: String::new() };
    Engine::start(config).map_err(|text| NotReady { code: ExitCode::Config, text })
}

async fn call(global: &Global, args: CallArgs, started: Instant) -> Result<ExitCode, Failed> {
    let config = load(global, args.ring_timeout)?;
    let account = account_for(&config, &args.uri)?;
    let source = match &args.play {
        Some(path) => samples(path, false)?,
        None if args.tune => MediaSource::Tune,
        None => MediaSource::Microphone,
    };
    check_digits(args.dtmf.as_deref())?;
    check_devices(global, &config)?;
    let sound = cards(global, &config, source != MediaSource::Microphone);
    let engine = start(sound, args.record.as_deref())?;
    let options = DialOptions { source: Some(source), ..DialOptions::default() };
    let plan = CallPlan { account, uri: args.uri, options, dtmf: args.dtmf, duration: args.duration };
    Ok(session::run(engine, plan, Printer::new(args.json, started), Stop::new()).await)
}

fn check_digits(digits: Option<&str>) -> Result<(), Failed> {
    match digits {
        Some(digits) if digits.is_empty() || !digits.chars().all(|c| "0123456789*#ABCDabcd".contains(c)) => {
            let text = format!("--dtmf {digits:?} holds something other than 0-9, *, #, A-D");
            Err(NotReady { code: ExitCode::Usage, text })
        }
        Some(_) | None => Ok(()),
    }
}

/// A card that was asked for by name must exist before anybody is called.
fn check_devices(global: &Global, config: &Config) -> Result<(), Failed> {
    let wanted = [("input", &config.sound.input), ("output", &config.sound.output)];
    if global.no_sound || wanted.iter().all(|(_, name)| name.is_none()) {
        return Ok(());
    }
    let failed = |text: String| NotReady { code: ExitCode::Device, text };
    let cards = sound::list_devices().map_err(|error| failed(error.to_string()))?;
    for (direction, name) in wanted {
        let Some(name) = name else { continue };
        let found = cards.iter().any(|card| card.name.to_lowercase().contains(&name.to_lowercase()));
        if !found {
            let text = format!("no sound {direction} is called {name:?}; `icephone devices` lists the names");
            return Err(failed(text));
        }
    }
    Ok(())
}

async fn answer(global: &Global, args: BotArgs, started: Instant) -> Result<ExitCode, Failed> {
    let config = load(global, None)?;
    let account = match config.accounts.first() {
        Some(account) => account.clone(),
        None if config.base.listen.is_some() => config.base.clone(),
        None => return Err(ConfigError::NoAccount { path: config.path.display().to_string() }.into()),
    };
    let voice = match (&args.play, &args.play_once, args.tone) {
        (Some(path), ..) => samples(path, true)?,
        (None, Some(path), _) => samples(path, false)?,
        (None, None, Some(hz)) => MediaSource::Tone { hz },
        (None, None, None) if args.tune => MediaSource::Tune,
        (None, None, None) if args.silence => MediaSource::Silence,
        (None, None, None) => MediaSource::Echo,
    };
    let engine = start(SoundChoice::Null, args.record.as_deref())?;
    let plan = BotPlan {
        account,
        voice,
        ring: args.ring,
        calls_max: args.calls_max,
        count: args.count,
        duration: args.duration,
    };
    Ok(bot::run(engine, plan, Printer::new(args.json, started), Stop::new()).await)
}

async fn register(global: &Global, args: &RegisterArgs, started: Instant) -> Result<ExitCode, Failed> {
    let config = load(global, None)?;
    let account = account_needed(&config)?;
    let engine = start(SoundChoice::Null, None)?;
    let printer = Printer::new(args.json, started);
    let mut events = engine.subscribe();
    let mut stop = Stop::new();
    engine.command(api::Command::AddAccount { account: ACCOUNT, config: Box::new(account.clone()) });
    let ready = tokio::select! {
        ready = session::ready(&mut events, &account, printer) => ready,
        () = stop.asked() => Err(NotReady { code: ExitCode::Interrupted, text: "interrupted".to_owned() }),
    };
    if ready.is_ok()
        && let Some(duration) = args.duration
    {
        stay(&mut events, duration, printer, &mut stop).await;
    }
    engine.shutdown().await;
    session::drain(&mut events, printer).await;
    ready.map(|()| ExitCode::Success)
}

async fn stay(events: &mut crate::engine::Events, duration: Duration, printer: Printer, stop: &mut Stop) {
    let end = tokio::time::Instant::now() + duration;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => printer.event(&event),
                None => return,
            },
            () = tokio::time::sleep_until(end) => return,
            () = stop.asked() => return,
        }
    }
}

async fn open_screen(global: &Global, screen: Screen) -> Result<ExitCode, Failed> {
    let mut config = load(global, None)?;
    check_devices(global, &config)?;
    if config.accounts.is_empty() {
        config.accounts.push(config.base.clone());
    }
    let engine = start(cards(global, &config, false), None)?;
    for (id, account) in (1..).zip(&config.accounts) {
        engine.command(api::Command::AddAccount { account: AccountId(id), config: Box::new(account.clone()) });
    }
    let shown = screen(&engine).await;
    engine.shutdown().await;
    shown
        .map(|()| ExitCode::Success)
        .map_err(|error| NotReady { code: ExitCode::Internal, text: format!("the terminal cannot be used: {error}") })
}

fn configuration(global: &Global, action: ConfigAction) -> Result<ExitCode, Failed> {
    match action {
        ConfigAction::Template => print::out(TEMPLATE.trim_end()),
        ConfigAction::Path => print::out(&config::default_path().display().to_string()),
        ConfigAction::Check => {
            let config = load(global, None)?;
            let path = config.path.display();
            if config.accounts.is_empty() {
                return Err(ConfigError::NoAccount { path: path.to_string() }.into());
            }
            for account in &config.accounts {
                print::out(&format!("{path}: {} is well", account.aor));
            }
        }
    }
    Ok(ExitCode::Success)
}

fn devices() -> Result<ExitCode, Failed> {
    let cards = sound::list_devices().map_err(|error| NotReady { code: ExitCode::Device, text: error.to_string() })?;
    for card in cards {
        let ways = match (card.input, card.output) {
            (true, true) => "in, out",
            (true, false) => "in",
            (false, _) => "out",
        };
        let default = if card.default { "  (default)" } else { "" };
        print::out(&format!("{:<40} {ways}{default}", card.name));
    }
    Ok(ExitCode::Success)
}

#[cfg(test)]
mod commands_tests {
    use super::*;

    #[test]
    fn the_account_of_the_domain_is_taken_then_the_first_then_none() {
        let account = |aor: &str| AccountConfig { aor: aor.to_owned(), ..AccountConfig::default() };
        let mut config = Config::empty("/none".into());
        config.base.aor = ANONYMOUS.to_owned();
        assert_eq!(account_for(&config, "sip:bob@192.0.2.7").unwrap().aor, ANONYMOUS);
        assert_eq!(account_for(&config, "bob").unwrap_err().code, ExitCode::Config);
        config.accounts = vec![account("sip:a@one.test"), account("sip:b@two.test")];
        assert_eq!(account_for(&config, "sip:x@TWO.test:5070;transport=tcp").unwrap().aor, "sip:b@two.test");
        assert_eq!(account_for(&config, "sip:x@three.test").unwrap().aor, "sip:a@one.test");
        assert_eq!(account_for(&config, "bob").unwrap().aor, "sip:a@one.test");
    }
}
