//! Everything the screen shows: the engine's snapshot and what the user is doing.

use client::api::{AccountId, CallId, CallSnapshot, CallState, Direction, Snapshot};
use tui_input::Input;

/// Lines kept for the log screen: some minutes of a busy phone.
pub const LOG_MAX: usize = 500;

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub snapshot: Snapshot,
    /// Milliseconds since the engine started, told by ticks and events; never runs backwards.
    pub now_ms: u64,
    pub screen: Screen,
    pub overlay: Overlay,
    pub selected: Option<CallId>,
    /// The call that ended last, shown with its reason until the next call or Esc.
    pub finished: Option<Finished>,
    /// What was dialled last, for redial.
    pub last_dialled: Option<String>,
    pub log: Vec<String>,
    /// First visible line of the scrollable pane.
    pub scroll: u16,
    /// Odd call ids are the user interface's; the next one to use.
    next_call: u64,
    pub(crate) bell_at_ms: u64,
}

#[derive(Debug, Clone)]
pub struct Finished {
    pub id: CallId,
    pub call: CallSnapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Screen {
    #[default]
    Calls,
    Paths,
    History,
    Accounts,
    Log,
}

impl Screen {
    pub const ALL: [Self; 5] = [Self::Calls, Self::Paths, Self::History, Self::Accounts, Self::Log];

    pub fn title(self) -> &'static str {
        match self {
            Self::Calls => "Calls",
            Self::Paths => "Paths",
            Self::History => "History",
            Self::Accounts => "Accounts",
            Self::Log => "Log",
        }
    }

    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Calls => Self::Paths,
            Self::Paths => Self::History,
            Self::History => Self::Accounts,
            Self::Accounts => Self::Log,
            Self::Log => Self::Calls,
        }
    }

    #[must_use]
    pub fn previous(self) -> Self {
        match self {
            Self::Calls => Self::Log,
            Self::Paths => Self::Calls,
            Self::History => Self::Paths,
            Self::Accounts => Self::History,
            Self::Log => Self::Accounts,
        }
    }
}

/// What lies over the screen and takes the keys.
#[derive(Debug, Clone, Default)]
pub enum Overlay {
    #[default]
    None,
    Help,
    Dial(Input),
    Transfer(Input),
    /// Calls are running: really quit?
    ConfirmQuit,
}

impl Model {
    pub fn new(snapshot: Snapshot) -> Self {
        let now_ms = snapshot.at_ms;
        let mut model = Self { snapshot, now_ms, ..Self::default() };
        model.reselect();
        model
    }

    pub fn selected_call(&self) -> Option<(CallId, &CallSnapshot)> {
        let id = self.selected?;
        self.snapshot.calls.get(&id).map(|call| (id, call))
    }

    /// The call whose path and figures are shown: the selected one, else the one that ended last.
    pub fn shown_call(&self) -> Option<(CallId, &CallSnapshot)> {
        self.selected_call().or_else(|| self.finished.as_ref().map(|finished| (finished.id, &finished.call)))
    }

    /// The account that dials.
    pub fn account(&self) -> Option<AccountId> {
        self.snapshot.accounts.keys().next().copied()
    }

    pub fn ringing(&self) -> Option<CallId> {
        self.snapshot.calls.iter().find(|(_, call)| is_ringing(call)).map(|(id, _)| *id)
    }

    /// Keeps a call selected while there is one; a new incoming call takes the selection of an idle screen only.
    pub fn reselect(&mut self) {
        if self.selected.is_some_and(|id| self.snapshot.calls.contains_key(&id)) {
            return;
        }
        self.selected = self.ringing().or_else(|| self.snapshot.calls.keys().next().copied());
    }

    /// Moves the selection by one, around the end.
    pub fn select_neighbour(&mut self, forward: bool) {
        let ids: Vec<CallId> = self.snapshot.calls.keys().copied().collect();
        let at = self.selected.and_then(|id| ids.iter().position(|other| *other == id));
        let count = ids.len();
        let next = match at {
            Some(at) if forward => (at + 1).checked_rem(count),
            Some(at) => (at + count).checked_sub(1).and_then(|at| at.checked_rem(count)),
            None => Some(0),
        };
        self.selected = next.and_then(|at| ids.get(at).copied());
    }

    pub fn next_call_id(&mut self) -> CallId {
        let running = self.snapshot.calls.keys().map(|id| id.0);
        let ended = self.snapshot.history.iter().map(|entry| entry.call.0);
        let used = running.chain(ended).max().unwrap_or(0);
        self.next_call = self.next_call.max(used + 1) | 1;
        let id = CallId(self.next_call);
        self.next_call += 2;
        id
    }

    pub fn write_log(&mut self, line: String) {
        if self.log.len() >= LOG_MAX {
            self.log.remove(0);
        }
        self.log.push(line);
    }
}

/// An incoming call that waits for the user.
pub fn is_ringing(call: &CallSnapshot) -> bool {
    let waiting =
        matches!(call.state, CallState::Gathering | CallState::Inviting | CallState::Ringing | CallState::EarlyMedia);
    call.direction == Direction::Incoming && waiting
}
