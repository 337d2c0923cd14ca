//! Other people's programs as the other side of a call.
//!
//! * [`person`]: somebody with icephone, [`baresip`] or [`linphone`] in the laboratory, and a call between any two of them.
//! * [`loopback`]: addresses of this machine that no other test uses.
//! * [`sipp`]: signalling, message by message, as the files in `tests/sipp` say.
//! * [`rtp`]: media for a peer that only signals.
//! * [`zone`]: a name server with SRV records.
pub mod baresip;
pub mod linphone;
pub mod loopback;
pub mod person;
pub mod rtp;
pub mod sipp;
pub mod zone;
