//! Whole calls in virtual time: two cores joined by a wire, no NAT, no server, no clock.

mod calls;
mod changes;
mod offers;
mod plain;
mod wire;
