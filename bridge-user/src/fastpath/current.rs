//! What is pinned, to be changed: of this version, made where there is none.

use std::{fs, os::unix::fs::DirBuilderExt as _};

use super::{
    loaded::Loaded,
    pinned::{FastPath, folder},
    pins::remove,
    upgrade,
};
use crate::{
    error::{Context as _, Error, Result},
    state::{Folder, StateLock},
};

impl FastPath {
    /// Opens that of the calling thread's network namespace, to be changed: programs of an earlier version are replaced first.
    pub fn open_current(state: &StateLock) -> Result<Option<Self>> {
        let folder = folder(state)?;
        upgrade::recover(&folder)?;
        match Self::open_at(folder)? {
            Some(fast) if !fast.is_current() => fast.replace_programs().map(Some),
            open => Ok(open),
        }
    }

    /// Opens it, or makes it, having tried it out. On failure nothing of it stays.
    pub fn open_or_create(state: &StateLock) -> Result<Self> {
        if let Some(open) = Self::open_current(state)? {
            return Ok(open);
        }
        // What a killed command has left.
        Self::clear(state)?;
        let folder = folder(state)?;
        let object = Loaded::try_out()?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .at(folder.display(), "make")?;
        let made = object.pin(&folder).and_then(|()| Self::open(state));
        match made {
            Ok(Some(made)) => Ok(made),
            other => {
                let _ = fs::remove_dir_all(&folder);
                Err(other.err().unwrap_or(Error::Damaged {
                    path: folder,
                    cause: "somebody removed pins as they were made".into(),
                }))
            }
        }
    }

    /// Replaces all programs of the calling thread's network namespace by those of this library. None if there are none.
    pub fn upgrade(state: &StateLock) -> Result<Option<Self>> {
        let folder = folder(state)?;
        upgrade::recover(&folder)?;
        Self::open_at(folder)?.map(Self::replace_programs).transpose()
    }

    /// Removes whatever is pinned for the calling thread's network namespace, of any version and half made or removed.
    pub fn clear(state: &Folder) -> Result<()> {
        let folder = folder(state)?;
        // First: what the links run is known as long as both folders are there.
        if folder.is_dir() {
            remove(&folder)?;
        }
        upgrade::clear(&folder)
    }
}
