//! A call by program: five seconds of the built-in tune, then good-bye.
//!
//! `icephone lab` and an `icephone -c …/echo.toml bot` in two other terminals, then
//! `cargo run -p client --example dial -- …/alice.toml echo`.
#![expect(clippy::print_stdout, reason = "an example shows something")]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use client::api::{AccountId, CallChange, CallId, CallState, Command, DialOptions, EventBody, MediaSource};
use client::config::{self, Overrides};
use client::engine::{Engine, EngineConfig};
use client::sentence::sentence;

const ACCOUNT: AccountId = AccountId(1);
const CALL: CallId = CallId(1); // odd: chosen by the caller

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(to)) = (arguments.next(), arguments.next()) else { return Err("dial CONFIG WHOM".into()) };
    let loaded = config::load(Some(Path::new(&file)), &Overrides::default())?;
    let account = loaded.accounts.first().cloned().ok_or("the file holds no account")?;

    let engine = Engine::start(EngineConfig::default())?;
    let mut events = engine.subscribe();
    engine.command(Command::AddAccount { account: ACCOUNT, config: Box::new(account) });
    let options = Box::new(DialOptions { source: Some(MediaSource::Tune), ..DialOptions::default() });
    engine.command(Command::Dial { call: CALL, account: ACCOUNT, to, options });

    while let Some(event) = events.next().await {
        if let Some(text) = sentence(&event) {
            println!("{:>6} ms  {text}", event.at_ms);
        }
        let EventBody::Call { change, .. } = &event.body else { continue };
        match &**change {
            CallChange::State { state: CallState::Talking } => {
                let commands = engine.commander();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    let _ = commands.send(Command::Hangup { call: CALL }).await;
                });
            }
            CallChange::Ended { .. } => break,
            _ => {}
        }
    }
    engine.shutdown().await;
    Ok(())
}
