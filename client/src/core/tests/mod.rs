//! Whole calls in virtual time: two cores joined by a wire, no NAT, no server, no clock.

#![allow(clippy::unchecked_time_subtraction, reason = "tests know their times")]

mod calls;
mod changes;
mod edge;
mod hostile;
mod offers;
mod plain;
mod registered;
mod transfers;
mod wire;
