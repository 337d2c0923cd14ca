//! The embedded edge: the servers of `icephone lab`, `icephone demo` and of the simulator, sans-IO and seeded.

pub mod certificate;
pub mod command;
pub mod control;
pub mod driver;
pub mod folder;
pub mod relay;
pub mod running;
pub mod servers;
