//! Other people's programs as the other side of a call.
//!
//! * [`loopback`]: addresses of this machine that no other test uses.
//! * [`sipp`]: signalling, message by message, as the files in `tests/sipp` say.
//! * [`rtp`]: media for a peer that only signals.
//! * [`zone`]: a name server with SRV records.
pub mod loopback;
pub mod rtp;
pub mod sipp;
pub mod zone;
