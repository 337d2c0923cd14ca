//! Where a secret comes from: a command, the environment, a private file, or a private configuration file itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::api::Secret;

/// The variable that holds a password; there is no flag for it, because everyone may read a command line.
pub(super) const PASSWORD_VARIABLE: &str = "ICEPHONE_PASSWORD";

/// The ways one secret may be given; at most one may be used.
#[derive(Debug)]
pub(super) struct SecretSource {
    /// For messages: "the password of sip:alice@example.com".
    pub what: String,
    /// Key without ending: `password`.
    pub key: &'static str,
    pub inline: Option<Secret>,
    pub command: Option<String>,
    pub env: Option<String>,
    pub file: Option<PathBuf>,
}

/// Neither the group nor others may read or write it.
#[expect(clippy::verbose_bit_mask, reason = "a mode is read in octal")]
pub(super) fn is_private(mode: u32) -> bool {
    mode & 0o077 == 0
}

/// Fetches the secret, if any way is given.
pub(super) fn fetch(source: SecretSource) -> Result<Option<Secret>, String> {
    let SecretSource { what, key, inline, command, env, file } = source;
    let ways = [inline.is_some(), command.is_some(), env.is_some(), file.is_some()];
    if ways.into_iter().filter(|given| *given).count() > 1 {
        return Err(format!("{what} is given twice; keep one of {key}, {key}-command, {key}-env, {key}-file"));
    }
    if let Some(command) = command {
        return run(&what, key, &command).map(Some);
    }
    if let Some(name) = env {
        let missing = || format!("{what}: the variable {name} of {key}-env is not set");
        return std::env::var(&name).map(|text| Some(Secret::new(text))).map_err(|_| missing());
    }
    if let Some(path) = file {
        return read(&what, key, &path).map(Some);
    }
    Ok(inline)
}

fn run(what: &str, key: &str, command: &str) -> Result<Secret, String> {
    let output = Command::new("sh")
        .args(["-c", command])
        // It is for this program alone.
        .env_remove(PASSWORD_VARIABLE)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{what}: cannot run {key}-command: {error}"))?;
    let printed = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(format!("{what}: {key}-command failed ({})", output.status));
    }
    first_line(&printed).ok_or_else(|| format!("{what}: {key}-command printed nothing"))
}

fn read(what: &str, key: &str, path: &std::path::Path) -> Result<Secret, String> {
    let name = path.display();
    let unreadable = |error: std::io::Error| format!("{what}: cannot read {key}-file {name}: {error}");
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if !is_private(mode) {
        return Err(format!("{what}: others may read {key}-file {name}; run `chmod 600 {name}`"));
    }
    let content = Zeroizing::new(std::fs::read(path).map_err(unreadable)?);
    first_line(&content).ok_or_else(|| format!("{what}: {key}-file {name} is empty"))
}

fn first_line(bytes: &[u8]) -> Option<Secret> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
    if text.is_empty() { None } else { Some(Secret::new(text.to_owned())) }
}
