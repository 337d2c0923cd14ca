//! `update(&mut Model, Msg) -> Vec<Effect>`: the only place where the model changes.

use std::sync::Arc;

use client::api::{CallChange, CallId, Command, DialOptions, Event, EventBody};
use crossterm::event::{Event as TerminalEvent, KeyEvent};
use tui_input::Input;
use tui_input::backend::crossterm::EventHandler as _;

use crate::keymap::{self, Action};
use crate::model::{Finished, Model, Overlay, Screen};

/// The bell rings this often while a call waits.
const BELL_EVERY_MS: u64 = 3000;
const PAGE_LINES: u16 = 10;

#[derive(Debug)]
pub enum Msg {
    Key(KeyEvent),
    Paste(String),
    Engine(Arc<Event>),
    /// Milliseconds since the engine started.
    Tick(u64),
    /// SIGTERM, SIGHUP or the terminal is gone.
    Terminated,
}

/// What the loop has to do; the model is already as it shall be.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Command(Box<Command>),
    Bell,
    /// Leave the screen; what runs is ended by whoever runs the engine.
    Quit,
}

pub fn update(model: &mut Model, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Key(key) => handle_key(model, key),
        Msg::Paste(text) => {
            if let Overlay::Dial(input) | Overlay::Transfer(input) = &mut model.overlay {
                let line: String = text.chars().filter(|c| !c.is_control()).collect();
                *input = Input::new(format!("{}{line}", input.value()));
            }
            Vec::new()
        }
        Msg::Engine(event) => handle_event(model, &event),
        Msg::Tick(now_ms) => {
            model.now_ms = model.now_ms.max(now_ms);
            ring(model)
        }
        Msg::Terminated => vec![Effect::Quit],
    }
}

fn handle_event(model: &mut Model, event: &Event) -> Vec<Effect> {
    model.now_ms = model.now_ms.max(event.at_ms);
    if let EventBody::Call { call, change } = &event.body {
        note_end(model, *call, change, event.at_ms);
    }
    model.snapshot.apply(event);
    if let Some(line) = log_line(event) {
        model.write_log(line);
    }
    model.reselect();
    ring(model)
}

/// An ended call leaves the snapshot; its last picture stays on the screen until the next call.
fn note_end(model: &mut Model, id: CallId, change: &CallChange, at_ms: u64) {
    if matches!(change, CallChange::Created { .. }) {
        model.finished = None;
    }
    let running = model.snapshot.calls.get(&id).filter(|_| matches!(change, CallChange::Ended { .. }));
    if let Some(mut call) = running.cloned() {
        call.apply(change, at_ms);
        model.finished = Some(Finished { id, call });
    }
}

/// One line for the log screen; the figures of every second are left out.
fn log_line(event: &Event) -> Option<String> {
    let text = client::sentence::sentence(event)?;
    let who = match &event.body {
        EventBody::Call { call, .. } => call.to_string(),
        EventBody::Account { account, .. } => account.to_string(),
        EventBody::Engine(_) => "engine".to_owned(),
    };
    Some(format!("+{:>5}.{:03} {who:<7} {text}", event.at_ms / 1000, event.at_ms % 1000))
}

fn ring(model: &mut Model) -> Vec<Effect> {
    if model.ringing().is_none() {
        model.bell_at_ms = 0;
        return Vec::new();
    }
    if model.now_ms < model.bell_at_ms {
        return Vec::new();
    }
    model.bell_at_ms = model.now_ms + BELL_EVERY_MS;
    vec![Effect::Bell]
}

fn handle_key(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    if let Some(digit) = keymap::digit(model, key) {
        return on_selected(model, |call| Command::SendDtmf { call, digits: digit.to_string() });
    }
    if let Some(action) = keymap::action(model, key) {
        return perform(model, action);
    }
    if let Overlay::Dial(input) | Overlay::Transfer(input) = &mut model.overlay {
        input.handle_event(&TerminalEvent::Key(key));
    }
    Vec::new()
}

fn perform(model: &mut Model, action: Action) -> Vec<Effect> {
    match action {
        Action::Dial => model.overlay = Overlay::Dial(Input::default()),
        Action::Transfer => model.overlay = Overlay::Transfer(Input::default()),
        Action::Redial => {
            let to = model.last_dialled.clone().unwrap_or_default();
            return dial(model, to);
        }
        Action::Answer => return on_selected(model, |call| Command::Answer { call, options: Box::default() }),
        Action::Reject => return on_selected(model, |call| Command::Reject { call, status: 486 }),
        Action::Hangup => return on_selected(model, |call| Command::Hangup { call }),
        Action::RestartIce => return on_selected(model, |call| Command::RestartIce { call }),
        Action::Hold => {
            let held = model.selected_call().is_some_and(|(_, call)| call.held_by_us);
            return on_selected(model, |call| if held { Command::Resume { call } } else { Command::Hold { call } });
        }
        Action::Mute => {
            let muted = model.selected_call().is_some_and(|(_, call)| call.muted);
            return on_selected(model, |call| Command::SetMuted { call, muted: !muted });
        }
        Action::NextCall => move_down(model, 1, true),
        Action::PreviousCall => move_up(model, 1, true),
        Action::ScrollDown => move_down(model, step(model), false),
        Action::ScrollUp => move_up(model, step(model), false),
        Action::NextScreen => show(model, model.screen.next()),
        Action::PreviousScreen => show(model, model.screen.previous()),
        Action::Help => {
            model.overlay = Overlay::Help;
            model.scroll = 0;
        }
        Action::Close => close(model),
        Action::Quit if model.snapshot.calls.is_empty() => return vec![Effect::Quit],
        Action::Quit => model.overlay = Overlay::ConfirmQuit,
        Action::Confirm => return confirm(model),
    }
    Vec::new()
}

fn confirm(model: &mut Model) -> Vec<Effect> {
    match std::mem::take(&mut model.overlay) {
        Overlay::ConfirmQuit => vec![Effect::Quit],
        Overlay::Dial(input) => dial(model, input.value().trim().to_owned()),
        Overlay::Transfer(input) => {
            let to = input.value().trim().to_owned();
            if to.is_empty() { Vec::new() } else { on_selected(model, |call| Command::Transfer { call, to }) }
        }
        Overlay::None | Overlay::Help => Vec::new(),
    }
}

fn dial(model: &mut Model, to: String) -> Vec<Effect> {
    let Some(account) = model.account() else { return Vec::new() };
    if to.is_empty() {
        return Vec::new();
    }
    let call = model.next_call_id();
    model.last_dialled = Some(to.clone());
    model.selected = Some(call);
    model.screen = Screen::Calls;
    vec![command(Command::Dial { call, account, to, options: Box::new(DialOptions::default()) })]
}

fn close(model: &mut Model) {
    if matches!(model.overlay, Overlay::None) {
        model.finished = None;
    }
    model.overlay = Overlay::None;
    model.scroll = 0;
}

fn show(model: &mut Model, screen: Screen) {
    model.screen = screen;
    model.scroll = 0;
}

fn step(model: &Model) -> u16 {
    if matches!(model.overlay, Overlay::Help) { 1 } else { PAGE_LINES }
}

/// Arrow keys move the selection where calls are listed, and the text elsewhere.
fn move_down(model: &mut Model, lines: u16, selects: bool) {
    if selects && model.screen == Screen::Calls {
        model.select_neighbour(true);
    } else {
        model.scroll = model.scroll.saturating_add(lines);
    }
}

fn move_up(model: &mut Model, lines: u16, selects: bool) {
    if selects && model.screen == Screen::Calls {
        model.select_neighbour(false);
    } else {
        model.scroll = model.scroll.saturating_sub(lines);
    }
}

fn on_selected(model: &Model, make: impl FnOnce(CallId) -> Command) -> Vec<Effect> {
    model.selected_call().map(|(call, _)| command(make(call))).into_iter().collect()
}

fn command(command: Command) -> Effect {
    Effect::Command(Box::new(command))
}
