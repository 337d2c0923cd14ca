//! The `icephone` program.

fn main() {}
