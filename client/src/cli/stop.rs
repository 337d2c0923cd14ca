//! Ctrl-C and SIGTERM: the first asks politely, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves when the user or the system asks the program to end.
#[derive(Debug)]
pub struct Stop {
    signals: Option<(Signal, Signal)>,
}

impl Stop {
    /// Listens from now on. Must be called inside a runtime.
    pub fn new() -> Self {
        let signals = signal(SignalKind::interrupt()).ok().zip(signal(SignalKind::terminate()).ok());
        Self { signals }
    }

    /// Waits for a signal.
    pub async fn asked(&mut self) {
        match &mut self.signals {
            Some((interrupt, terminate)) => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            None => std::future::pending().await,
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}
