//! The laboratory of the workspace: what the tests in `tests/tests` need that is more than one crate.
//!
//! * [`sim`]: a network in virtual time, on which the same engine runs that the product runs on sockets.
//! * [`lab`]: the built program in network namespaces, and what went over the wire.
//! * [`tmux`]: the built program in a real terminal.
//! * [`peer`]: other people's programs as the other side of a call.
//! * [`recognise`]: whether a recording is of a given sentence.
//! * [`binary`]: where the built program is.
pub mod binary;
pub mod lab;
pub mod peer;
pub mod recognise;
pub mod sim;
pub mod tmux;
