//! TURN client, RFC 8656: one relayed address on one server, over UDP, TCP or TLS.
//!
//! [`Allocation`] is the machine; the other files are its parts: [`auth`] (long-term credentials), `exchange` (requests
//! in flight), `permission`, [`channel`], [`framing`] (messages on a stream), [`error`].

pub mod allocation;
pub mod auth;
pub mod channel;
pub mod error;
mod exchange;
pub mod framing;
mod permission;

pub use allocation::{Allocation, Config, Event, Input, Output, SendError};
pub use error::{RelayCause, RelayError};
pub use exchange::{Purpose, Reason};
