//! The screen of icephone: an Elm loop over the engine's events.
//!
//! ```text
//!   key, tick, engine event ──▶ update(&mut Model, Msg) ──▶ effects (commands, bell, quit)
//!                                      │
//!                               view(&Model, &mut Frame)      pure: same model, same cells
//! ```
//!
//! `Model` is the engine's `Snapshot` plus what the user is doing. Only `app` and `terminal` touch the world.
//! Read `model`, `keymap`, `update`, `view/mod.rs`, then `app`.

pub mod app;
pub mod keymap;
pub mod model;
pub mod terminal;
pub mod theme;
pub mod update;
pub mod view;

#[cfg(test)]
mod screens;
