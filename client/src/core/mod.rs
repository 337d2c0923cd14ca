//! Call control: where `sip` (what we agree on), `ice` (where it flows) and `media` (what flows) are joined.
//!
//! ```text
//!   Command ─▶ Account ── sip::Endpoint ── registration, provisioning, relay credentials
//!                 └─ Call ── dialog, negotiation, phase
//!                      └─ Flow ── ice::Agent + media::Session
//! ```
//!
//! Sans-IO like the crates below it: [`Core::handle_input`] takes what happened with the time at which it happened, then
//! [`Core::poll_output`] is drained until it answers [`Output::Timeout`]. Read `io.rs` first, then `facade.rs`, `account.rs`,
//! `call.rs`.

mod account;
mod announce;
mod call;
mod commands;
mod connect;
mod credentials;
mod description;
mod dial;
mod facade;
mod flow;
mod incoming;
mod io;
mod media_side;

mod negotiate;
mod phase;
mod ports;
pub mod provision;
mod registration;
mod relays;
mod reoffer;
mod repair;
mod route;
mod signals;
mod transfer;
mod views;

pub use facade::{Core, CoreConfig};
pub use io::{
    Answer, FRAME_SAMPLES, Frame, Input, ListenerId, NaptrRecord, Output, RecordKind, ResolveId, SocketId, SrvRecord,
    StreamError, StreamId, TlsRequest,
};

#[cfg(test)]
mod tests;
