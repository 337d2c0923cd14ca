//! What the lab writes for its users: certificate, phone configurations, state. A folder of mode 0700, files of 0600.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The lab's folder; removed when dropped if the lab made it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
    written: Vec<PathBuf>,
}

impl Folder {
    /// The named folder, or a new one under the temporary folder.
    ///
    /// # Errors
    ///
    /// A sentence that names the folder.
    pub fn create(named: Option<&Path>) -> Result<Self, String> {
        let sentence = |path: &Path, error: &io::Error| format!("cannot make the folder {}: {error}", path.display());
        if let Some(path) = named {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| sentence(path, &error))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| sentence(path, &error))?;
            let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            return Ok(Self { path, temporary: None, written: Vec::new() });
        }
        let private = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("icephone-lab-").permissions(private).tempdir();
        let folder = folder.map_err(|error| sentence(&std::env::temp_dir(), &error))?;
        Ok(Self { path: folder.path().to_owned(), temporary: Some(folder), written: Vec::new() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one file of mode 0600, whole or not at all.
    ///
    /// # Errors
    ///
    /// A sentence that names the file.
    pub fn write(&mut self, name: &str, content: &str) -> Result<PathBuf, String> {
        let path = self.path.join(name);
        write_whole(&path, content).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        if !self.written.contains(&path) {
            self.written.push(path.clone());
        }
        Ok(path)
    }

    /// Remembers a file somebody else makes, so that it goes with the rest.
    pub fn adopt(&mut self, path: PathBuf) {
        self.written.push(path);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary.is_none() {
            // The user's folder stays, what the lab put there goes: it is worthless without the lab.
            for path in &self.written {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Readers see the old content or the new one, never half of it.
///
/// # Errors
///
/// What the operating system says.
pub fn write_whole(path: &Path, content: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(content.as_bytes())?;
    drop(file);
    fs::rename(&draft, path)
}

#[cfg(test)]
mod folder_tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_may_read_and_nothing_is_left_behind() {
        let outer = tempfile::tempdir().unwrap();
        let named = outer.path().join("lab");
        for named in [None, Some(named.as_path())] {
            let mut folder = Folder::create(named).unwrap();
            let file = folder.write("alice.toml", "secret").unwrap();
            assert_eq!((mode(folder.path()), mode(&file)), (0o700, 0o600));
            drop(folder);
            assert!(!file.exists());
        }
        assert!(named.exists(), "a folder that the user named stays");
    }
}
