//! Where the pinned state lies, and the lock that serialises commands.
//!
//! A state folder in bpffs holds one folder for each network namespace with attached ports. Whoever changes something holds
//! the state folder's lock. Whoever reads does not: nobody waits for a reader, and a reader not for a command that takes
//! seconds.

use std::{
    fs::{self, File, TryLockError},
    io,
    ops::Deref,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        stat::{major, minor},
        statfs::{BPF_FS_MAGIC, statfs},
    },
};

use serde::Serialize;

use crate::{
    error::{Context as _, Error, Result},
    kernel::{link, namespace, process::Stat},
};

/// Where bpffs is mounted on every Linux distribution.
pub const BPFFS: &str = "/sys/fs/bpf";
/// The state folder unless the user names another.
pub const DEFAULT_STATE: &str = "/sys/fs/bpf/tapbridge";

/// What the name of a network namespace's folder begins with.
pub(crate) const FASTPATH_PREFIX: char = '@';

/// How long a command waits for another that does nothing. Attaching a port takes some 10 ms of a CPU.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// How often it waits so long when others go before it.
const LOCK_TURNS: u32 = 10;
const LOCK_POLL: Duration = Duration::from_millis(20);
/// All locks of files, and whose they are.
const LOCKS: &str = "/proc/locks";

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
pub struct StateLock {
    folder: Folder,
    /// Unlocked when it is closed.
    _lock: File,
}

impl Deref for StateLock {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl State {
    /// The state in this folder, which must lie in a bpffs.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        // With or without a slash at the end it is the same.
        Self {
            root: root.into().components().collect(),
        }
    }

    /// Locks for changing, having made what is missing: the bpffs and the folder.
    pub fn lock(&self) -> Result<StateLock> {
        self.mount()?;
        loop {
            self.make()?;
            if let Some(locked) = self.try_lock(LOCK_PATIENCE)? {
                return Ok(locked);
            }
        }
    }

    /// Locks for changing at once or not at all, having made what is missing; `None` if a command is at work.
    pub fn lock_now(&self) -> Result<Option<StateLock>> {
        self.mount()?;
        self.make()?;
        self.lock_if_free()
    }

    fn make(&self) -> Result<()> {
        let made = fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&self.root);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).at(self.root.display(), "make the state folder")
            }
            _ => Ok(()),
        }
    }

    /// The folder, to be read without a lock; `None` if there is no state.
    pub fn read(&self) -> Result<Option<Folder>> {
        Ok(self.exists()?.then(|| Folder {
            root: self.root.clone(),
        }))
    }

    /// Locks for changing; `None` if there is no state to change.
    pub fn lock_existing(&self) -> Result<Option<StateLock>> {
        if !self.exists()? {
            return Ok(None);
        }
        self.try_lock(LOCK_PATIENCE)
    }

    /// Locks for changing at once or not at all; `None` if there is no state to change or a command is at work.
    pub fn lock_if_free(&self) -> Result<Option<StateLock>> {
        if !self.root.is_dir() {
            return Ok(None);
        }
        match self.try_lock(Duration::ZERO) {
            Err(Error::Locked { .. }) => Ok(None),
            result => result,
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `None` if the folder was removed meanwhile, by the command that held the lock.
    fn try_lock(&self, patience: Duration) -> Result<Option<StateLock>> {
        let object = self.root.display();
        let folder = match File::open(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.at(object, "open the state folder")?,
        };
        let begin = Instant::now();
        let (mut since, mut holder) = (begin, None);
        loop {
            match folder.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error).at(self.root.display(), "lock"),
            }
            let now = Instant::now();
            // Where many commands are at work, each has its time; and on a slow machine all the time that it needs.
            let other = lock_holder(&folder).map(|process| (process, cpu_time(process)));
            if other.is_some() && other != holder {
                (since, holder) = (now, other);
            }
            if now - since >= patience || now - begin >= LOCK_TURNS * patience {
                return Err(Error::Locked {
                    path: self.root.clone(),
                    holder: holder.map_or_else(|| "another process".into(), |(number, _)| process(number)),
                    seconds: (now - since).as_secs(),
                });
            }
            std::thread::sleep(LOCK_POLL);
        }
        let inode = folder.metadata().map(|data| data.ino()).ok();
        let same = fs::metadata(&self.root).is_ok_and(|now| Some(now.ino()) == inode);
        Ok(same.then(|| StateLock {
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
    /// Where something of this name is pinned.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
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

    /// What is there beside the folders of network namespaces, sorted by name.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        let entries = match fs::read_dir(&self.root) {
            // A command has just removed the last of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at(self.root.display(), "list")?,
        };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| !file_name(path).starts_with(FASTPATH_PREFIX))
            .collect();
        paths.sort();
        Ok(paths.into_iter().map(|path| Leftover { path }).collect())
    }
}

/// The name that a file has in its folder.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Something in the state folder that can't be used: of another version, damaged, or nothing of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its name in the state folder.
    pub name: String,
    /// Why, and what to do.
    pub error: String,
}

impl Unreadable {
    /// Whether it is what was pinned for a network namespace.
    pub fn is_of_namespace(&self) -> bool {
        self.name.starts_with(FASTPATH_PREFIX)
    }

    /// Of a network namespace's pins, if this is why they can't be read.
    pub fn of(error: &Error) -> Option<Self> {
        let (Error::OtherVersion { path, .. } | Error::Damaged { path, .. } | Error::Foreign { path }) =
            error
        else {
            return None;
        };
        Some(Self {
            name: file_name(path),
            error: error.to_string(),
        })
    }
}

/// Something that has been removed since nobody could use it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cleared {
    /// Its name in the state folder.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What older versions pinned for a bridge of their own: names of maps and programs.
const OLD_PINS: [&str; 13] = [
    "BRIDGE",
    "CONFIG",
    "INGRESS",
    "PORTS",
    "DEVICES_XDP",
    "DEVICES_TCX",
    "LEARNED",
    "STATIC",
    "PORT_COUNTERS",
    "PATHS",
    "DETACHED",
    "tapbridge_xdp",
    "tapbridge_tcx",
];

/// Something in the state folder that this version has not put there.
#[derive(Clone, Debug)]
pub struct Leftover {
    path: PathBuf,
}

impl Leftover {
    /// Whether it is a bridge of an older version, whole or half removed.
    pub fn is_old(&self) -> bool {
        let is_theirs = |name: &str| OLD_PINS.contains(&name) || name.starts_with(link::PREFIX);
        let entries = fs::read_dir(&self.path);
        entries.is_ok_and(|entries| {
            entries
                .flatten()
                .all(|entry| is_theirs(&file_name(&entry.path())))
        })
    }

    /// Why it can't be used.
    pub fn unreadable(&self) -> Unreadable {
        let path = self.path.clone();
        let error = if self.is_old() {
            Error::OldBridge { path }
        } else {
            Error::Foreign { path }
        };
        Unreadable {
            name: file_name(&self.path),
            error: error.to_string(),
        }
    }

    /// Detaches and removes what an older version has pinned.
    pub fn clear(&self) -> Result<Cleared> {
        let entries = fs::read_dir(&self.path).at(self.path.display(), "list")?;
        for entry in entries.flatten() {
            // Removing the pin would detach too, but some time after this call.
            if link::device_of(&entry.path()).is_some() {
                link::detach(&entry.path()).at(entry.path().display(), "detach the program")?;
            }
        }
        fs::remove_dir_all(&self.path).at(self.path.display(), "remove")?;
        Ok(Cleared {
            name: file_name(&self.path),
            reason: "it was a bridge of an older version; its devices may still have no IPv6 (disable_ipv6), no queue \
                     (noqueue), or be promiscuous"
                .into(),
        })
    }
}

/// The process that has locked a file (`lock_get_status` of fs/locks.c), if it can be seen from here.
fn lock_holder(file: &File) -> Option<u32> {
    let data = file.metadata().ok()?;
    let (major, minor) = (major(data.dev()), minor(data.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", data.ino());
    let locks = fs::read_to_string(LOCKS).ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, "WRITE", process, at, ..] if at == place => process.parse().ok(),
            _ => None,
        }
    })
}

/// CPU time that a process has used, in clock ticks; none if that is not told.
fn cpu_time(process: u32) -> Option<u64> {
    Stat::of(process).map(|stat| stat.user + stat.system)
}

/// A process by its name and number.
fn process(number: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
    match name.trim_end() {
        "" => format!("process {number}"),
        name => format!("'{name}' (process {number})"),
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // Nothing stays behind when the last bridge is gone; fails while there is one.
        let _ = fs::remove_dir(&self.folder.root);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Command},
        slice,
    };

    use test_support::program::{happens, wait};

    use super::*;

    #[test]
    fn a_folder_outside_bpffs_is_no_state_folder() {
        let error = State::new("/tmp/tapbridge-state").lock().err().unwrap();
        assert!(matches!(error, Error::NoBpffs { .. }), "{error}");
    }

    const LIMIT: Duration = Duration::from_mins(1);

    /// A process that locks a folder for as long, once it can.
    fn lock_for(folder: &Path, seconds: &str) -> Child {
        let mut lock = Command::new("flock");
        lock.arg("--no-fork")
            .arg(folder)
            .args(["sleep", seconds])
            .spawn()
            .expect("start flock")
    }

    /// Waits until one of these processes has locked the folder.
    fn await_holder(folder: &Path, of: &[Child]) {
        let file = File::open(folder).unwrap();
        let holds = || lock_holder(&file).is_some_and(|holder| of.iter().any(|child| child.id() == holder));
        assert!(happens(LIMIT, holds), "none of the processes gets the lock");
    }

    #[test]
    fn a_command_at_work_is_waited_for_longer_than_one_that_does_nothing() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("state");
        fs::create_dir(&folder).unwrap();
        let lock = File::open(&folder).unwrap();
        lock.lock().unwrap();
        let busy = std::thread::spawn(move || {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(3) {}
            drop(lock);
        });
        let locked = State::new(&folder).try_lock(Duration::from_secs(1));
        assert!(locked.as_ref().is_ok_and(Option::is_some), "{:?}", locked.err());
        busy.join().unwrap();
    }

    #[test]
    fn commands_that_go_before_are_waited_for_each_in_turn() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("state");
        fs::create_dir(&folder).unwrap();
        let mut others: Vec<_> = (0..3).map(|_| lock_for(&folder, "1")).collect();
        await_holder(&folder, &others);
        // Three seconds in all.
        let locked = State::new(&folder).try_lock(Duration::from_millis(1900));
        assert!(locked.as_ref().is_ok_and(Option::is_some), "{:?}", locked.err());
        // Where it was faster than one of them, that waits for it.
        drop(locked);
        for other in &mut others {
            assert!(wait(other, LIMIT).is_some_and(|status| status.success()));
        }
    }

    #[test]
    fn a_command_that_has_the_lock_and_does_nothing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut other = lock_for(folder, "60");
        await_holder(folder, slice::from_ref(&other));
        let error = State::new(folder).try_lock(Duration::from_millis(1200)).err();
        let told = format!(
            "'sleep' (process {}) has the lock and has done nothing for 1 s",
            other.id()
        );
        other.kill().unwrap();
        other.wait().unwrap();
        let error = error.unwrap().to_string();
        assert!(error.contains(&told), "{error}");
    }
}
