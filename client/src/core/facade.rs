//! The facade: one set of accounts with their calls.

use std::collections::VecDeque;
use std::time::Instant;

use super::io::{Input, Output};

/// What a core is given once.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Sent as `User-Agent` and `Server`.
    pub user_agent: String,
    /// Seconds since 1970 at the instant of construction: for RTCP and for credentials made from the time.
    pub unix_time: std::time::Duration,
}

/// Accounts and calls as one state machine.
#[derive(Debug)]
pub struct Core {
    outputs: VecDeque<Output>,
}

impl Core {
    pub fn new(_now: Instant, _config: CoreConfig, _seed: [u8; 32]) -> Self {
        Self { outputs: VecDeque::new() }
    }

    /// Tells the core what happened.
    pub fn handle_input(&mut self, _now: Instant, _input: Input<'_>) {}

    /// What the core wants done; drain until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Timeout(None))
    }
}
