//! Protection of media: keys from signalling ([`sdes`]), packets in and out ([`context`]).

pub mod sdes;
