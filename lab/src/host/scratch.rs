//! Folders for a lab's files.

use std::{env, fs, os::unix::fs::MetadataExt, path::PathBuf};

use anyhow::{Context, Result};
use tempfile::{Builder, TempDir};

use crate::host::plan;

/// A folder among the machine's temporary files, for root alone and for a purpose of this process's lab. Dropping it removes
/// it.
pub fn folder(purpose: &str) -> Result<TempDir> {
    let prefix = format!("{}-", plan::own_namespace(purpose));
    let made = Builder::new().prefix(&prefix).tempdir();
    made.with_context(|| format!("making a folder in {}", env::temp_dir().display()))
}

/// The folders of labs whose process no longer lives.
pub fn remains(alive: impl Fn(u32) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(env::temp_dir()).into_iter().flatten().flatten();
    let abandoned = entries.filter(|entry| {
        let name = entry.file_name();
        // Whoever may write there may use such a name; a lab's are root's.
        plan::owner(&name.to_string_lossy()).is_some_and(|(pid, _)| !alive(pid))
            && entry
                .metadata()
                .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == 0)
    });
    abandoned.map(|entry| entry.path()).collect()
}
