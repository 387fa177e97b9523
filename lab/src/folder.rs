//! The folder that a run or a report leaves behind.

use std::{env, fs, os::unix::fs::chown, path::Path};

use anyhow::{Context, Result};

/// Makes it; one that is there already may be somebody's results.
pub fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.parent().unwrap_or(folder))
        .and_then(|()| fs::create_dir(folder))
        .with_context(|| format!("making {}, which must not exist yet", folder.display()))?;
    give_away(folder);
    Ok(())
}

/// Writes a file into it.
pub fn write(folder: &Path, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
    give_away(&path);
    Ok(())
}

/// To the user who has called sudo, who could not remove it else. Where that can't be done, it can be read.
fn give_away(path: &Path) {
    let id = |name| env::var(name).ok()?.parse().ok();
    if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
        let _ = chown(path, Some(user), Some(group));
    }
}
