//! The folder that a run or a report leaves behind.

use std::{
    env, fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// A folder for what is found out. Dropping it removes it if nothing was.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it; one that is there already may be somebody's results.
    pub fn make(path: &Path) -> Result<Self> {
        fs::create_dir_all(path.parent().unwrap_or(path))
            .and_then(|()| fs::create_dir(path))
            .with_context(|| format!("making {}, which must not exist yet", path.display()))?;
        give_away(path);
        Ok(Self(path.into()))
    }

    /// Writes a file into it; returns the file's path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
        give_away(&path);
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Fails where anything is in it.
        let _ = fs::remove_dir(&self.0);
    }
}

/// To the user who has called sudo, who could not remove it else. Where that can't be done, it can be read.
fn give_away(path: &Path) {
    let id = |name| env::var(name).ok()?.parse().ok();
    if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
        let _ = chown(path, Some(user), Some(group));
    }
}
