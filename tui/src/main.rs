//! The `icephone` program: the command line of `client`, with the screen of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    client::cli::main(|engine| Box::pin(tui::app::run(engine)))
}
