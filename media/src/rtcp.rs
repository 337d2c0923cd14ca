//! RTCP: compound packets ([`packet`]) and when to send them ([`schedule`]).

pub mod packet;
pub mod schedule;
