//! The engine of icephone: everything but the screen.
//!
//! ```text
//!   Command ──▶ core (sans-IO) ──▶ Event          api   what a user interface may import
//!                 ▲        │                       core  call control: sip + ice + media joined
//!            Input│        │Output                 driver  tokio: sockets, TLS, DNS, clock, sound card
//!                 └ driver ┘                       lab   the embedded edge, sans-IO as well
//! ```
//!
//! Read `api` first, then `core/mod.rs`, then `driver/account_loop.rs` and [`engine`], which is what programs use
//! (`client/examples/dial.rs`). The servers are in `lab/mod.rs`; `cli`, [`bot`] and [`demo`] are clients of the engine.

pub mod api;
pub mod bot;
pub mod cli;
pub mod config;
pub mod core;
pub mod demo;
pub mod driver;
pub mod engine;
pub mod lab;
pub mod logging;
pub mod report;
pub mod sentence;
