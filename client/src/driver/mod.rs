//! The driver: the only part that touches sockets, streams, DNS, the clock and the sound card (architecture §4).
//!
//! Pipes read and push, the loop of `account_loop` drives a core, nothing here decides anything about a call.

pub mod account_loop;
pub mod clock;
pub mod dns;
pub mod events;
pub mod interfaces;
pub mod listener;
pub mod pipe;
pub mod record;
pub mod ringer;
pub mod sound;
pub mod stream;
pub mod tls;
mod translate;
pub mod udp;
mod wiretap;
