//! SIP signalling as sans-IO state machines: messages, transactions, dialogs and the user agent on top.
//!
//! ```text
//!   bytes ──▶ parse ──▶ message ──▶ transaction ──▶ dialog, session ──▶ events
//!   bytes ◀── write ◀── message ◀── transaction ◀── dialog, session ◀── commands
//! ```
//!
//! Read in this order: [`message`] and [`uri`] (the nouns), [`header`] (typed views of header fields, read on
//! demand from the text that was received), [`parse`] and [`write`](mod@write) (bytes), [`digest`] (authentication),
//! [`sdp`] and [`multipart`] (bodies), [`locate`] (where a request goes). Then the user agent: [`event`] (what it is
//! told and tells), [`transaction`] (repetition and matching), [`dialog`], [`session`] (calls, a file per method),
//! [`register`], [`endpoint`] (the whole).
//!
//! What this crate does not do: it opens no socket, asks no DNS server and reads no clock; time, bytes and
//! answers are arguments (`client/docs/architecture.md`).

pub(crate) mod auth;
pub mod dialog;
pub mod digest;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod header;
pub mod locate;
pub mod message;
pub mod multipart;
pub mod parse;
pub mod register;
pub mod sdp;
pub mod session;
pub mod transaction;
pub mod transport;
pub mod uri;
pub mod write;

pub use error::ParseError;
pub use message::{Message, Method, Request, Response};
pub use uri::{Host, Scheme, Uri};
