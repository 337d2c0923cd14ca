//! The handle on a running engine: commands in, events out.
//!
//! ```no_run
//! # async fn example(config: client::api::AccountConfig) -> Option<()> {
//! use client::api::{AccountId, CallId, Command, DialOptions};
//! use client::engine::{Engine, EngineConfig};
//!
//! let engine = Engine::start(EngineConfig::default()).ok()?;
//! let mut events = engine.subscribe();
//! let (account, call) = (AccountId(1), CallId(1));
//! engine.command(Command::AddAccount { account, config: Box::new(config) });
//! engine.command(Command::Dial { call, account, to: "bob".into(), options: Box::new(DialOptions::default()) });
//! while let Some(event) = events.next().await {
//!     println!("{}", serde_json::to_string(&*event).ok()?);
//! }
//! # Some(()) }
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::api::{Command, Snapshot};
use crate::core::{Core, CoreConfig};
use crate::driver::account_loop::{AccountLoop, LoopParts};
use crate::driver::clock;
use crate::driver::events::{self, EventSource};
use crate::driver::pipe;
use crate::driver::record::{RecordTo, Recorder};
use crate::driver::sound::Sound;

pub use crate::driver::events::Events;
pub use crate::driver::sound::SoundChoice;

/// Commands waiting for the loop: a user types slower, and a script that sends more is wrong.
const COMMANDS_MAX: usize = 1024;
/// The loop itself gives up after 3 s; this is for a loop that hangs.
const STOP_LIMIT: Duration = Duration::from_secs(4);

/// What an engine is started with.
#[derive(Debug, Clone, Default)]
pub struct EngineConfig {
    /// Sound cards or none.
    pub sound: SoundChoice,
    /// What calls hear is recorded here.
    pub record: Option<RecordTo>,
    /// Sent as `User-Agent`; empty: `icephone/VERSION`.
    pub user_agent: String,
}

/// A running engine. Dropping it stops it without saying goodbye; [`Engine::shutdown`] says it.
#[derive(Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    events: EventSource,
    recording_failure: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Engine {
    /// Starts an engine without accounts. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// A sentence, if the recording cannot be created.
    pub fn start(config: EngineConfig) -> Result<Self, String> {
        let recorder = config.record.map(Recorder::start).transpose()?;
        let recording_failure = recorder.as_ref().map(Recorder::failure).unwrap_or_default();
        let now = clock::now();
        let user_agent = if config.user_agent.is_empty() {
            concat!("icephone/", env!("CARGO_PKG_VERSION")).to_owned()
        } else {
            config.user_agent
        };
        let core = Core::new(now, CoreConfig { user_agent, unix_time: clock::since_unix_epoch() }, clock::seed());
        let (hub, source) = events::hub(now);
        let (sink, pipes) = pipe::channel();
        let sound = Sound::new(config.sound, recorder);
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let driver = AccountLoop::new(LoopParts { core, events: hub, sound, sink, pipes });
        let task = tokio::spawn(driver.run(queue));
        Ok(Self { commands, events: source, recording_failure, task })
    }

    /// Hands a command to the engine; it is answered by events. False if the engine is gone.
    pub fn command(&self, command: Command) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(command)) => {
                warn!(?command, "the engine has {COMMANDS_MAX} commands waiting: this one is lost");
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// A new stream of events; the first one begins at the engine's start.
    pub fn subscribe(&self) -> Events {
        self.events.subscribe()
    }

    /// The whole state now.
    pub fn snapshot(&self) -> Snapshot {
        self.events.snapshot()
    }

    /// Why the recording is incomplete, one sentence; `None` while all is well.
    pub fn recording_failure(&self) -> Option<String> {
        self.recording_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A cheap handle that can only send commands, for other tasks.
    pub fn commander(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// Hangs up, unregisters, frees relays, completes recordings; at most 4 s. Returns the recording's failure, if any.
    pub async fn shutdown(mut self) -> Option<String> {
        self.command(Command::Shutdown);
        if tokio::time::timeout(STOP_LIMIT, &mut self.task).await.is_err() {
            warn!("the engine did not stop in time");
        }
        self.recording_failure()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}
