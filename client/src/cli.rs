//! The command line: every command is a client of the API, prints what happens and ends with an exit code.
//!
//! The program (`tui`) gives [`main`] the one thing it cannot make itself: the screen.

pub mod args;
pub mod commands;
pub mod exit;
pub mod print;
pub mod session;
pub mod stop;

use std::io::{self, IsTerminal as _};
use std::pin::Pin;

use clap::Parser as _;

use self::args::{Cli, Command};
use self::commands::Run;
use self::exit::ExitCode;
use crate::driver::clock;
use crate::engine::Engine;
use crate::logging::{self, LogError, LogTo};

/// Shows the screen until the user leaves it.
pub type Screen = for<'a> fn(&'a Engine) -> Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

/// Threads of the runtime beside the screen: one draws while the other carries the call.
const SCREEN_THREADS: usize = 2;

/// Runs the program: reads the command line, starts logging and the runtime, dispatches.
pub fn main(screen: Screen) -> std::process::ExitCode {
    print::keep_errors();
    let started = clock::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors.
            let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
            return code.into();
        }
    };
    let on_screen = shows_screen(&cli);
    let log_to = match &cli.global.log_file {
        Some(path) => LogTo::File(path),
        None if on_screen => LogTo::Nowhere,
        None => LogTo::Stderr,
    };
    if let Err(error) = logging::start(cli.global.verbose, cli.global.log_filter.as_deref(), log_to) {
        print::trouble(&error.to_string());
        let code = match error {
            LogError::Filter { .. } => ExitCode::Usage,
            LogError::File { .. } => ExitCode::Config,
        };
        return code.into();
    }
    let mut builder = if on_screen {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(SCREEN_THREADS);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    match builder.enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(commands::dispatch(Run { cli, started, screen, on_screen }));
            // A sound card that hangs must not keep the program.
            runtime.shutdown_background();
            code.into()
        }
        Err(error) => {
            print::trouble(&format!("cannot start: {error}"));
            ExitCode::Internal.into()
        }
    }
}

/// The screen comes up on a terminal, without a command or for the demo.
fn shows_screen(cli: &Cli) -> bool {
    let terminal =
        io::stdout().is_terminal() && io::stdin().is_terminal() && std::env::var("TERM").as_deref() != Ok("dumb");
    match &cli.command {
        None => terminal,
        Some(Command::Demo(demo)) => terminal && !demo.json && !demo.plain,
        Some(
            Command::Call(_)
            | Command::Bot(_)
            | Command::Register(_)
            | Command::Lab(_)
            | Command::Config(_)
            | Command::Devices,
        ) => false,
    }
}
