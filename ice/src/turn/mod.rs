//! TURN client, RFC 8656: one relayed address on one server, over UDP, TCP or TLS.
//!
//! [`Allocation`] is the machine, [`event`] its face; the other files are its parts: [`auth`] (long-term credentials), `exchange` (requests
//! in flight), `permission`, [`channel`], [`framing`] (messages on a stream), [`error`].

pub mod allocation;
pub mod auth;
pub mod channel;
pub mod error;
pub mod event;
mod exchange;
pub mod framing;
mod permission;

pub use allocation::Allocation;
pub use error::{RelayCause, RelayError};
pub use event::{Config, Event, Input, Output, SendError};
pub use exchange::{Purpose, Reason};
