//! The embedded edge: the servers of `icephone lab`, `icephone demo` and of the simulator, sans-IO and seeded.

pub mod relay;
