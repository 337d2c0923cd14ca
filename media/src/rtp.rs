//! RTP: one packet ([`packet`]), a stream being sent ([`sender`]), a stream being received ([`receiver`]).

pub mod packet;
pub mod receiver;
pub mod sender;
