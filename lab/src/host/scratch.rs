//! Folders for a lab's files.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::host::plan;

/// A folder among the machine's temporary files, for root alone. Dropping it removes it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// For a purpose, which is one of this process's lab.
    pub fn new(purpose: &str) -> Result<Self> {
        let path = env::temp_dir().join(plan::own_namespace(purpose));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
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
