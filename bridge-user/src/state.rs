//! Where the pinned state lies, and the lock that serialises commands.
//!
//! A state folder in bpffs holds one folder per bridge. Whoever changes something holds the state folder's lock. Whoever
//! reads does not: nobody waits for a reader, and a reader not for a command that takes seconds. It meets bridges that are
//! half made, and ports that are, which say so.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io,
    ops::Deref,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{
    error::{Context as _, Error, Result},
    namespace,
};

/// Where bpffs is mounted on every Linux distribution.
pub const BPFFS: &str = "/sys/fs/bpf";
/// The state folder unless the user names another.
pub const DEFAULT_STATE: &str = "/sys/fs/bpf/tapbridge";

/// What the name of a fast path's folder begins with; no bridge of ours is called so.
pub(crate) const FASTPATH_PREFIX: char = '@';

/// How long a command waits for another to end. Attaching a port takes some 10 ms.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// The folder that holds the bridges.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
}

/// The state folder, as it is to be read.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

/// The state folder, locked: what is in it changes through this value alone.
pub struct Locked {
    folder: Folder,
    /// Unlocked when it is closed.
    _lock: File,
}

impl Deref for Locked {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl State {
    /// The state in this folder, which must lie in a bpffs.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Locks for changing, having made what is missing: the bpffs and the folder.
    pub fn lock(&self) -> Result<Locked> {
        self.mount()?;
        loop {
            match fs::DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(&self.root)
            {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).at(self.root.display(), "make the state folder");
                }
                _ => {}
            }
            if let Some(locked) = self.try_lock(LOCK_PATIENCE)? {
                return Ok(locked);
            }
        }
    }

    /// The folder, to be read without a lock; `None` if there is no state.
    pub fn read(&self) -> Result<Option<Folder>> {
        Ok(self.exists()?.then(|| Folder {
            root: self.root.clone(),
        }))
    }

    /// Locks for changing; `None` if there is no state to change.
    pub fn lock_existing(&self) -> Result<Option<Locked>> {
        if !self.exists()? {
            return Ok(None);
        }
        self.try_lock(LOCK_PATIENCE)
    }

    /// Locks for changing at once or not at all; `None` if there is no state to change or a command is at work.
    pub fn lock_if_free(&self) -> Result<Option<Locked>> {
        if !self.root.is_dir() {
            return Ok(None);
        }
        match self.try_lock(Duration::ZERO) {
            Err(Error::Locked { .. }) => Ok(None),
            result => result,
        }
    }

    /// The bridges there are, with what tells each from a later one of its name. Needs no lock: a bridge may be half
    /// made.
    pub(crate) fn bridge_inodes(&self) -> Result<BTreeMap<String, u64>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries.at(self.root.display(), "list the bridges")?,
        };
        let inodes = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            if name.starts_with(FASTPATH_PREFIX) {
                return None;
            }
            Some((name, entry.metadata().ok()?.ino()))
        });
        Ok(inodes.collect())
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `None` if the folder was removed meanwhile, by the command that held the lock.
    fn try_lock(&self, patience: Duration) -> Result<Option<Locked>> {
        let object = self.root.display();
        let folder = match File::open(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.at(object, "open the state folder")?,
        };
        let deadline = Instant::now() + patience;
        loop {
            match folder.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Locked {
                        path: self.root.clone(),
                        seconds: patience.as_secs(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(error).at(self.root.display(), "lock"),
            }
        }
        let inode = folder.metadata().map(|data| data.ino()).ok();
        let same = fs::metadata(&self.root).is_ok_and(|now| Some(now.ino()) == inode);
        Ok(same.then(|| Locked {
            folder: Folder {
                root: self.root.clone(),
            },
            _lock: folder,
        }))
    }

    /// Whether there is any state. Where no bpffs is to be seen there may be some on the machine nevertheless, unless its
    /// mounts are these.
    fn exists(&self) -> Result<bool> {
        if self.root.is_dir() {
            return Ok(true);
        }
        if !self.is_in_bpffs() && namespace::has_private_mounts() {
            let default = self.root.starts_with(BPFFS);
            return Err(Error::OutOfSight {
                path: if default { BPFFS.into() } else { self.root.clone() },
            });
        }
        Ok(false)
    }

    /// Whether the folder is in a bpffs, or would be.
    fn is_in_bpffs(&self) -> bool {
        let existing = self.root.ancestors().find(|path| path.exists());
        is_bpffs(existing.unwrap_or(Path::new("/")))
    }

    /// Mounts a bpffs where there is none.
    fn mount(&self) -> Result<()> {
        if self.is_in_bpffs() {
            return Ok(());
        }
        if !self.root.starts_with(BPFFS) {
            // Where the user names a place, the user has mounted it.
            let cause = io::Error::new(io::ErrorKind::NotFound, "not in a bpffs");
            return Err(Error::NoBpffs {
                path: self.root.clone(),
                source: cause,
            });
        }
        if namespace::has_private_mounts() {
            return Err(Error::PrivateMountNamespace { path: BPFFS.into() });
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
        mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=700")).map_err(|error| Error::NoBpffs {
            path: BPFFS.into(),
            source: error.into(),
        })
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC)
}

impl Folder {
    /// The folder of a bridge.
    pub fn bridge_folder(&self, bridge: &str) -> PathBuf {
        self.root.join(bridge)
    }

    /// Whether a command is changing something at this moment.
    pub fn is_being_changed(&self) -> bool {
        let lock = File::open(&self.root);
        lock.is_ok_and(|folder| matches!(folder.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Where the fast paths of network namespaces are.
    pub(crate) fn fast_paths(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.root).at(self.root.display(), "list the fast paths")?;
        let paths = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(FASTPATH_PREFIX))
            .map(|entry| entry.path());
        Ok(paths.collect())
    }

    /// Names of all that is there, sorted: bridges, unless somebody else has put something there.
    pub fn bridges(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.root).at(self.root.display(), "list the bridges")?;
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with(FASTPATH_PREFIX))
            .collect();
        names.sort();
        Ok(names)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Nothing stays behind when the last bridge is gone; fails while there is one.
        let _ = fs::remove_dir(&self.folder.root);
    }
}

/// Checks that a bridge can have this name: bpffs refuses dots, and it stays as short as a device's.
pub fn check_bridge_name(name: &str) -> Result<()> {
    let fits = (1..=15).contains(&name.len());
    if fits
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    {
        Ok(())
    } else {
        Err(Error::BadBridgeName {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_bpffs_refuses_are_refused_first() {
        for good in ["br0", "a", "tap-bridge_0", "fifteen-letters"] {
            assert!(check_bridge_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "br.0", "a/b", "sixteen-letters-", "brücke", "a b"] {
            assert!(check_bridge_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_outside_bpffs_is_no_state_folder() {
        let error = State::new("/tmp/tapbridge-state").lock().err().unwrap();
        assert!(matches!(error, Error::NoBpffs { .. }), "{error}");
    }
}
