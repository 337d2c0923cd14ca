//! A network in virtual time: hosts, NATs, links and servers in one thread, without a socket or a clock.
//!
//! ```text
//!   host ──up──▶ realm ──▶ edge (NAT, firewall) ──▶ realm ──▶ … ──▶ the Internet ──▶ edge ──▶ realm ──down──▶ host
//! ```
//!
//! A run is a loop over one ordered [`queue::Queue`]. Everything random comes from the seed, so the same seed gives the
//! same bytes; [`trace::Trace`] carries their hash. Programs on hosts obey [`host::Program`], which has the shape of the
//! product's own cores: input with a time in, outputs drained until a deadline comes out.
//!
//! Read in this order: [`packet`], [`nat`], [`firewall`], [`link`], [`tcp`], [`host`], [`world`], then what runs on it.
pub mod agent;
pub mod cell;
pub mod clock;
pub mod edge;
pub mod firewall;
pub mod host;
pub mod invariants;
pub mod link;
pub mod nat;
pub mod oracle;
pub mod packet;
pub mod pair;
pub mod phone;
pub mod phone_cell;
pub mod queue;
pub mod tcp;
pub mod tone;
pub mod town;
pub mod trace;
pub mod world;

#[cfg(test)]
mod network_tests;
