//! Users of the laboratory: their addresses and icephone configurations.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::network::Host;
use super::servers::NetLab;

/// The address of record of a user.
pub fn aor(user: Host) -> String {
    format!("sip:{user}@lab.test")
}

impl NetLab {
    /// Writes a user's configuration, with more lines for the account, and answers where.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn account(&self, user: Host, lines: &str) -> Result<PathBuf, String> {
        let ca = self.file("ca.pem");
        let secret = self.file(&format!("{user}.password"));
        let error = |error: std::io::Error| format!("{user}: {error}");
        std::fs::write(&secret, format!("{user}-pw\n")).map_err(error)?;
        std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).map_err(error)?;
        let text = format!(
            "tls.ca = {:?}\n[[account]]\naor = {:?}\npassword-file = {:?}\n{lines}\n",
            ca.to_string_lossy(),
            aor(user),
            secret.to_string_lossy()
        );
        let path = self.file(&format!("{user}.toml"));
        std::fs::write(&path, text).map_err(error)?;
        Ok(path)
    }
}
