//! Configuration: a TOML file, the environment and flags become validated accounts.
//!
//! Precedence: flag, environment (`ICEPHONE_…`), file, default. A key that does not exist is an error that names its line
//! and the key that was probably meant. Secrets come from a command, the environment or a file that only its owner may
//! read; never from a command line.

mod file;
mod overrides;
mod secret;
mod suggest;
mod template;

use std::path::{Path, PathBuf};

pub use file::{Config, SoundConfig, read};
pub use overrides::Overrides;
pub use template::TEMPLATE;

/// What is wrong with the configuration, where, and what to do. Exit code 3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named does not exist or cannot be read.
    #[error("cannot read {path}: {cause}; `icephone config template` prints a file to start from")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's words.
        cause: String,
    },
    /// Not TOML, an unknown key, a value of the wrong kind.
    #[error("{path}:{line}: {problem}")]
    Wrong {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// One clause, with advice.
        problem: String,
    },
    /// A secret cannot be had.
    #[error("{path}: {problem}")]
    Secret {
        /// The file.
        path: String,
        /// One clause, with advice; never the secret.
        problem: String,
    },
    /// A flag or variable holds something impossible.
    #[error("{0}")]
    Override(String),
    /// There is no account, and the command needs one.
    #[error("no account is configured in {path}; write one (`icephone config template`) or name a file with --config")]
    NoAccount {
        /// Where it was looked for.
        path: String,
    },
}

/// The file that is read unless one is named: `$XDG_CONFIG_HOME/icephone/config.toml`.
pub fn default_path() -> PathBuf {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    base.unwrap_or_else(|| PathBuf::from("/etc")).join("icephone").join("config.toml")
}

/// Reads the configuration: the named file, which must exist, or the default one, which need not; then the overrides.
///
/// # Errors
///
/// [`ConfigError`]: everything that is wrong is one sentence.
pub fn load(named: Option<&Path>, overrides: &Overrides) -> Result<Config, ConfigError> {
    let mut config = if let Some(path) = named {
        read(path)?
    } else {
        let path = default_path();
        if path.exists() { read(&path)? } else { Config::empty(path) }
    };
    overrides.apply(&mut config)?;
    Ok(config)
}
