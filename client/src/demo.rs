//! `icephone demo`: edge, echo bot and phone in one process, joined by sockets only, through the files that
//! `icephone lab` writes. What works here works with a real edge, because nothing here is a shortcut.

use std::time::{Duration, Instant};

use tracing::debug;

use crate::api::{AccountConfig, Command, DialOptions, MediaSource};
use crate::bot::{self, BotPlan};
use crate::cli::Screen;
use crate::cli::args::{Cli, Command as CliCommand, DemoArgs, Global, LabArgs};
use crate::cli::exit::ExitCode;
use crate::cli::print::Printer;
use crate::cli::session::{self, ACCOUNT, CALL, CallPlan, NotReady};
use crate::cli::stop::Stop;
use crate::config;
use crate::engine::{Engine, EngineConfig, Events, SoundChoice};
use crate::lab::running::Running;

/// Ringing of the echo bot: long enough to see early media, short enough for audio within 3 s.
const RING: Duration = Duration::from_millis(500);
/// Who is called.
const CALLEE: &str = "echo";

/// Runs the demo: on a terminal the screen with a live call, else lines, a report and an exit code.
///
/// # Errors
///
/// [`NotReady`]: the lab does not start, the bot does not register.
pub async fn run(
    global: &Global,
    args: &DemoArgs,
    started: Instant,
    screen: Option<Screen>,
) -> Result<ExitCode, NotReady> {
    let internal = |text: String| NotReady { code: ExitCode::Internal, text };
    let printer = Printer::new(args.json, started);
    // From the first moment: what is asked to end before the call must clean up too.
    let mut stop = Stop::new();
    let (lab, bot) = tokio::select! {
        ready = set_up(global, printer) => ready?,
        () = stop.asked() => return Err(NotReady { code: ExitCode::Interrupted, text: "interrupted".to_owned() }),
    };
    let account = account(&lab, "alice")?;
    let account = AccountConfig { policy: policy(global), ..account };
    let source = if args.mic { MediaSource::Microphone } else { MediaSource::Tune };
    let sound = sound(global, args, screen.is_some());
    let engine = Engine::start(EngineConfig { sound, record: None, user_agent: String::new() }).map_err(internal)?;
    let options = DialOptions { source: Some(source), ..DialOptions::default() };
    let code = if let Some(screen) = screen {
        on_screen(engine, account, options, screen).await?
    } else {
        let duration = Some(Duration::from_secs(args.seconds));
        let plan = CallPlan { account, uri: CALLEE.to_owned(), options, dtmf: None, duration };
        session::run(engine, plan, printer, stop).await
    };
    bot.shutdown().await;
    lab.stop().await;
    Ok(code)
}

/// The edge and its echo bot.
async fn set_up(global: &Global, printer: Printer) -> Result<(Running, Engine), NotReady> {
    let internal = |text: String| NotReady { code: ExitCode::Internal, text };
    let lab = Running::start(&lab_args(global)?).await.map_err(internal)?;
    printer.line(&format!("the edge of {} is up, files in {}", lab.domain(), lab.folder().display()));
    let bot = start_bot(&lab).await?;
    printer.line("the echo bot is registered");
    Ok((lab, bot))
}

fn policy(global: &Global) -> crate::api::PathPolicy {
    global.overrides().path.unwrap_or_default()
}

/// The lab as `icephone lab` without flags would be.
fn lab_args(_global: &Global) -> Result<LabArgs, NotReady> {
    use clap::Parser as _;
    let failed = |text: String| NotReady { code: ExitCode::Internal, text };
    match Cli::try_parse_from(["icephone", "lab"]).map_err(|error| failed(error.to_string()))?.command {
        Some(CliCommand::Lab(args)) => Ok(args),
        _ => Err(failed("the lab has no defaults".to_owned())),
    }
}

/// The account of one user, read from the file that the lab wrote.
fn account(lab: &Running, user: &str) -> Result<AccountConfig, NotReady> {
    let config = config::read(&lab.folder().join(format!("{user}.toml")))?;
    let missing = || NotReady { code: ExitCode::Config, text: format!("{user}.toml holds no account") };
    config.accounts.into_iter().next().ok_or_else(missing)
}

fn sound(global: &Global, args: &DemoArgs, on_screen: bool) -> SoundChoice {
    // Lines and tests need no card; the screen is for ears too.
    if global.no_sound || !(on_screen || args.mic) {
        return SoundChoice::Null;
    }
    SoundChoice::Cards { input: global.input.clone(), output: global.output.clone(), output_only: !args.mic }
}

async fn start_bot(lab: &Running) -> Result<Engine, NotReady> {
    let engine = Engine::start(EngineConfig::default()).map_err(|text| NotReady { code: ExitCode::Internal, text })?;
    let plan = BotPlan {
        account: account(lab, CALLEE)?,
        voice: MediaSource::Echo,
        ring: RING,
        calls_max: 8,
        count: None,
        duration: None,
    };
    let mut events = engine.subscribe();
    // The bot's own lines would only repeat the phone's: they go to the log.
    let quiet = Printer::silent();
    bot::add(&engine, &mut events, &plan, quiet).await?;
    tokio::spawn(log(events));
    Ok(engine)
}

async fn log(mut events: Events) {
    while let Some(event) = events.next().await {
        if let Some(text) = crate::sentence::sentence(&event) {
            debug!(bot = text);
        }
    }
}

async fn on_screen(
    engine: Engine,
    account: AccountConfig,
    options: DialOptions,
    screen: Screen,
) -> Result<ExitCode, NotReady> {
    let mut events = engine.subscribe();
    engine.command(Command::AddAccount { account: ACCOUNT, config: Box::new(account.clone()) });
    let commands = engine.commander();
    tokio::spawn(async move {
        if session::ready(&mut events, &account, Printer::silent()).await.is_ok() {
            let dial =
                Command::Dial { call: CALL, account: ACCOUNT, to: CALLEE.to_owned(), options: Box::new(options) };
            let _ = commands.send(dial).await;
        }
    });
    let shown = screen(&engine).await;
    engine.shutdown().await;
    shown
        .map(|()| ExitCode::Success)
        .map_err(|error| NotReady { code: ExitCode::Internal, text: format!("the terminal cannot be used: {error}") })
}
