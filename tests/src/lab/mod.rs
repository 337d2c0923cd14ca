//! The real world in small: the built program, network namespaces with a NAT between them, and captures.
//!
//! Everything made here is removed by `Drop`, also when a test fails. Where the machine does not allow it, a test calls
//! [`skip`] and returns: `tests/run` then counts it as skipped and prints why.
pub mod capture;
pub mod cells;
pub mod change;
pub mod daemon;
pub mod edge;
pub mod edge_state;
pub mod impair;
pub mod measured_call;
pub mod media_path;
pub mod nat;
pub mod natcheck;
pub mod netns;
pub mod network;
pub mod phone;
pub mod run;
pub mod servers;
pub mod speech;
pub mod table;
pub mod user;
pub mod wire;

use std::path::{Path, PathBuf};

/// The workspace's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_owned()
}

/// Notes that a test could not run here: printed now, and left where `tests/run` finds it.
pub fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
    let notes = root().join("target/skipped-tests");
    if std::fs::create_dir_all(&notes).is_ok() {
        let _ = std::fs::write(notes.join(test), reason);
    }
}
