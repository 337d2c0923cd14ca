//! Protection of media: keys from signalling ([`sdes`]), packets in and out ([`context`]).

pub mod context;
pub mod sdes;
