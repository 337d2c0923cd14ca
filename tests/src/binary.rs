//! Where the built program is.

use std::path::PathBuf;

/// The `icephone` of the profile that this program was built in: `target/<profile>/icephone`, beside a program, one folder
/// above a test.
///
/// # Panics
///
/// If it was not built; `tests/run` builds it first, `cargo build` does too.
pub fn icephone() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows where it is");
    let beside = own.parent().expect("target/<profile>, or deps in it for a test");
    let profile = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    let binary = profile.join("icephone");
    assert!(binary.exists(), "{} is not there; build it first (cargo build)", binary.display());
    binary
}
