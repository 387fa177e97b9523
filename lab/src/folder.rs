//! The folder that a run or a report leaves behind.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// Makes it; one that is there already may be somebody's results.
pub fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.parent().unwrap_or(folder))
        .and_then(|()| fs::create_dir(folder))
        .with_context(|| format!("making {}, which must not exist yet", folder.display()))
}

/// Writes a file into it, and says so.
pub fn write(folder: &Path, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
