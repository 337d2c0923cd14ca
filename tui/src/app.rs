//! The loop: terminal, engine and clock in, frames and commands out. Nothing is decided here.

use std::io;
use std::time::Duration;

use client::engine::Engine;
use crossterm::event::{Event as TerminalEvent, EventStream, KeyCode, KeyEventKind};
use futures_util::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::model::Model;
use crate::terminal::Screen;
use crate::theme::Theme;
use crate::update::{Effect, Msg, update};
use crate::view::view;

/// Clocks and meters move this often; nothing is drawn in between unless something happened.
const TICK: Duration = Duration::from_millis(250);
/// Runs the screen until the user quits, the process is asked to end, or the engine is gone. The caller shuts
/// the engine down afterwards.
///
/// # Errors
///
/// The terminal cannot be taken or written to.
pub async fn run(engine: &Engine) -> io::Result<()> {
    let mut events = engine.subscribe();
    let mut screen = Screen::enter()?;
    let theme = Theme::from_environment();
    let mut model = Model::new(engine.snapshot());
    let mut clock = EngineClock::new();
    let mut keys = EventStream::new();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        screen.terminal.draw(|frame| view(&model, &theme, frame))?;
        let msg = tokio::select! {
            key = keys.next() => match key {
                Some(Ok(event)) => {
                    panic_if_provoked(&event);
                    terminal_msg(event)
                }
                Some(Err(_)) | None => Some(Msg::Terminated),
            },
            event = events.next() => match event {
                Some(event) => {
                    clock.heard(event.at_ms);
                    Some(Msg::Engine(event))
                }
                None => break,
            },
            _ = tick.tick() => Some(Msg::Tick(clock.now_ms())),
            _ = terminated.recv() => Some(Msg::Terminated),
            _ = hung_up.recv() => Some(Msg::Terminated),
        };
        let effects = msg.map(|msg| update(&mut model, msg)).unwrap_or_default();
        if !perform(effects, engine, &mut screen) {
            break;
        }
    }
    Ok(())
}

/// Carries effects out; `false` when the screen is to be left.
fn perform(effects: Vec<Effect>, engine: &Engine, screen: &mut Screen) -> bool {
    let mut stay = true;
    for effect in effects {
        match effect {
            // An engine that is gone closes its events too, and that ends the loop.
            Effect::Command(command) => stay &= engine.command(*command),
            Effect::Bell => screen.bell(),
            Effect::Quit => stay = false,
        }
    }
    stay
}

fn terminal_msg(event: TerminalEvent) -> Option<Msg> {
    match event {
        TerminalEvent::Key(key) if key.kind != KeyEventKind::Release => Some(Msg::Key(key)),
        TerminalEvent::Paste(text) => Some(Msg::Paste(text)),
        TerminalEvent::Key(_)
        | TerminalEvent::Resize(..)
        | TerminalEvent::FocusGained
        | TerminalEvent::FocusLost
        | TerminalEvent::Mouse(_) => None,
    }
}

/// `ICEPHONE_TEST_PANIC` makes F12 a panic, so that a test can see the terminal survive one.
fn panic_if_provoked(event: &TerminalEvent) {
    let TerminalEvent::Key(key) = event else { return };
    let provoked = key.code == KeyCode::F(12) && std::env::var_os("ICEPHONE_TEST_PANIC").is_some();
    assert!(!provoked, "provoked by F12");
}

/// The engine's clock, carried on between its events.
struct EngineClock {
    at_ms: u64,
    heard: Instant,
}

impl EngineClock {
    fn new() -> Self {
        Self { at_ms: 0, heard: Instant::now() }
    }

    fn heard(&mut self, at_ms: u64) {
        *self = Self { at_ms, heard: Instant::now() };
    }

    fn now_ms(&self) -> u64 {
        let since = u64::try_from(self.heard.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at_ms.saturating_add(since)
    }
}
