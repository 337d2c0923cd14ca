//! Keys as data: what a key does, in which mode, and when it makes sense. Footer and help are made from it,
//! so a key cannot be hidden.

use client::api::{CallSnapshot, CallState};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::model::{Model, Overlay, Screen, is_ringing};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Dial,
    Answer,
    Reject,
    Hangup,
    Hold,
    Mute,
    Transfer,
    Redial,
    RestartIce,
    NextCall,
    PreviousCall,
    NextScreen,
    PreviousScreen,
    ScrollDown,
    ScrollUp,
    Help,
    Quit,
    Close,
    Confirm,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub key: KeyCode,
    pub modifiers: KeyModifiers,
    pub action: Action,
    /// One or two words for the footer.
    pub label: &'static str,
    /// A sentence for the help screen.
    pub help: &'static str,
}

const fn plain(key: char, action: Action, label: &'static str, help: &'static str) -> Binding {
    Binding { key: KeyCode::Char(key), modifiers: KeyModifiers::NONE, action, label, help }
}

const fn named(key: KeyCode, action: Action, label: &'static str, help: &'static str) -> Binding {
    Binding { key, modifiers: KeyModifiers::NONE, action, label, help }
}

/// Every key of the main screen, in the order of the footer.
pub const BINDINGS: &[Binding] = &[
    plain('a', Action::Answer, "answer", "answer the ringing call"),
    plain('x', Action::Reject, "reject", "refuse the ringing call (busy here)"),
    plain('x', Action::Hangup, "hang up", "end the selected call"),
    plain('b', Action::Hangup, "", "end the selected call"),
    plain('d', Action::Dial, "dial", "call a SIP address or a user of your domain"),
    plain('m', Action::Mute, "mute", "microphone off or on"),
    plain('h', Action::Hold, "hold", "hold or resume the selected call"),
    plain('t', Action::Transfer, "transfer", "transfer the selected call to somebody else"),
    plain('r', Action::Redial, "redial", "call the last number again"),
    plain('i', Action::RestartIce, "", "look for the media path anew (ICE restart)"),
    named(KeyCode::Down, Action::NextCall, "", "select the next call, or scroll"),
    plain('j', Action::NextCall, "", "the same"),
    named(KeyCode::Up, Action::PreviousCall, "", "select the previous call, or scroll back"),
    plain('k', Action::PreviousCall, "", "the same"),
    named(KeyCode::PageDown, Action::ScrollDown, "", "scroll down"),
    named(KeyCode::PageUp, Action::ScrollUp, "", "scroll up"),
    named(KeyCode::Tab, Action::NextScreen, "screens", "next screen: calls, paths, history, accounts, log"),
    named(KeyCode::BackTab, Action::PreviousScreen, "", "previous screen"),
    plain('?', Action::Help, "help", "this list"),
    named(KeyCode::F(1), Action::Help, "", "this list"),
    named(KeyCode::Esc, Action::Close, "", "close what is open, forget the ended call"),
    plain('q', Action::Quit, "quit", "quit; asks while a call is running"),
    Binding {
        key: KeyCode::Char('c'),
        modifiers: KeyModifiers::CONTROL,
        action: Action::Quit,
        label: "",
        help: "the same; pressed twice it quits at once",
    },
];

/// Keys of the question "really quit?".
const CONFIRM: &[Binding] = &[
    plain('y', Action::Confirm, "hang up and quit", ""),
    Binding { key: KeyCode::Char('c'), modifiers: KeyModifiers::CONTROL, action: Action::Confirm, label: "", help: "" },
    plain('n', Action::Close, "stay", ""),
    named(KeyCode::Esc, Action::Close, "", ""),
];

/// Keys of the help screen.
const HELP: &[Binding] = &[
    named(KeyCode::Esc, Action::Close, "close", ""),
    plain('?', Action::Close, "", ""),
    plain('q', Action::Close, "", ""),
    named(KeyCode::Down, Action::ScrollDown, "scroll", ""),
    plain('j', Action::ScrollDown, "", ""),
    named(KeyCode::Up, Action::ScrollUp, "", ""),
    plain('k', Action::ScrollUp, "", ""),
];

/// Keys of a line being typed; everything else edits it.
const LINE: &[Binding] =
    &[named(KeyCode::Enter, Action::Confirm, "go", ""), named(KeyCode::Esc, Action::Close, "cancel", "")];

/// The table of the model's present mode.
pub fn bindings(model: &Model) -> &'static [Binding] {
    match model.overlay {
        Overlay::None => BINDINGS,
        Overlay::Help => HELP,
        Overlay::Dial(_) | Overlay::Transfer(_) => LINE,
        Overlay::ConfirmQuit => CONFIRM,
    }
}

/// What `key` does now, if anything.
pub fn action(model: &Model, key: KeyEvent) -> Option<Action> {
    // Terminals report "?" and upper-case letters with SHIFT or without, as they like.
    let modifiers = key.modifiers.difference(KeyModifiers::SHIFT);
    let fits = |binding: &&Binding| {
        binding.key == key.code && binding.modifiers == modifiers && available(model, binding.action)
    };
    bindings(model).iter().find(fits).map(|binding| binding.action)
}

/// A telephone key pressed while a call can take it (RFC 4733 §3.2).
pub fn digit(model: &Model, key: KeyEvent) -> Option<char> {
    let KeyCode::Char(digit) = key.code else { return None };
    let talking = model.selected_call().is_some_and(|(_, call)| is_talking(call));
    let open = matches!(model.overlay, Overlay::None);
    (open && talking && matches!(digit, '0'..='9' | '*' | '#')).then_some(digit)
}

/// Whether an action makes sense now. The footer shows only those that do.
pub fn available(model: &Model, action: Action) -> bool {
    let call = model.selected_call().map(|(_, call)| call);
    match action {
        Action::Answer | Action::Reject => call.is_some_and(is_ringing),
        Action::Hangup => call.is_some_and(|call| !is_ringing(call)),
        Action::Hold | Action::Mute | Action::Transfer | Action::RestartIce => call.is_some_and(is_talking),
        Action::Dial => model.account().is_some(),
        Action::Redial => model.account().is_some() && model.last_dialled.is_some(),
        Action::NextCall | Action::PreviousCall => model.snapshot.calls.len() > 1 || model.screen != Screen::Calls,
        Action::Close
        | Action::NextScreen
        | Action::PreviousScreen
        | Action::ScrollDown
        | Action::ScrollUp
        | Action::Help
        | Action::Quit
        | Action::Confirm => true,
    }
}

fn is_talking(call: &CallSnapshot) -> bool {
    matches!(call.state, CallState::Talking | CallState::Held)
}

/// How a key is written in footer and help.
pub fn key_name(binding: &Binding) -> String {
    let name = match binding.key {
        KeyCode::Char(c) => c.to_string(),
        KeyCode::Tab => "Tab".to_owned(),
        KeyCode::BackTab => "Shift-Tab".to_owned(),
        KeyCode::Esc => "Esc".to_owned(),
        KeyCode::Enter => "Enter".to_owned(),
        KeyCode::Up => "Up".to_owned(),
        KeyCode::Down => "Down".to_owned(),
        KeyCode::PageUp => "PgUp".to_owned(),
        KeyCode::PageDown => "PgDn".to_owned(),
        KeyCode::F(n) => format!("F{n}"),
        other => format!("{other:?}"),
    };
    if binding.modifiers.contains(KeyModifiers::CONTROL) { format!("Ctrl-{name}") } else { name }
}
