//! What RFC 3261 §18 calls the transport layer, without sockets: flows, framing on streams, size limits.

pub mod choice;
pub mod flow;
pub mod stream;
