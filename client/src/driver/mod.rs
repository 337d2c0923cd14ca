//! The driver: the only part that touches sockets, streams, DNS, the clock and the sound card (architecture §4).
//!
//! Pipes read and push, the loop of `account_loop` drives a core, nothing here decides anything about a call.

pub mod clock;
pub mod dns;
pub mod interfaces;
pub mod pipe;
pub mod stream;
pub mod tls;
pub mod udp;
