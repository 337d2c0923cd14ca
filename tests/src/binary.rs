//! Where the built program is.

use std::path::PathBuf;

/// The `icephone` of the profile that this test was built in: `target/<profile>/icephone`, two folders above the test.
///
/// # Panics
///
/// If it was not built; `tests/run` builds it first, `cargo build` does too.
pub fn icephone() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps/test");
    let binary = profile.join("icephone");
    assert!(binary.exists(), "{} is not there; build it first (cargo build)", binary.display());
    binary
}
