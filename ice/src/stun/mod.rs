//! STUN, RFC 8489: the codec that connectivity checks (RFC 8445) and the TURN client (RFC 8656) share.
//!
//! Read in this order: [`attribute`] (what a message carries), [`message`] (parse and build), [`integrity`] (keys,
//! MESSAGE-INTEGRITY, FINGERPRINT), [`wire`] (what differs per dialect, as data), [`transaction`] (retransmission).

pub mod attribute;
pub mod integrity;
pub mod message;
pub mod transaction;
pub mod wire;

pub use attribute::{Attribute, AttributeType, Family, PasswordAlgorithm};
pub use integrity::{Fingerprint, Integrity, IntegrityError, Key};
pub use message::{Builder, Class, Message, Method, ParseError, TransactionId};
pub use transaction::{Due, Timing, Transaction};
pub use wire::Wire;
