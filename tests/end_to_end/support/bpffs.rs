//! The file system that bridges are pinned in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use tempfile::TempDir;

/// Where the tests' state folders lie.
pub const PATH: &str = "/sys/fs/bpf";
/// The beginning of their names; the process's id and a number follow.
pub const PREFIX: &str = "tbtest-";

/// A mounted bpffs, unmounted in the end where there was none before.
pub struct Bpffs {
    mounted: bool,
}

impl Bpffs {
    pub fn new() -> Self {
        let mounted = statfs(PATH).map_or(true, |status| status.filesystem_type() != BPF_FS_MAGIC);
        if mounted {
            mount(Some("bpf"), PATH, Some("bpf"), MsFlags::empty(), None::<&str>).expect("mount a bpffs");
        }
        remove_remains();
        Self { mounted }
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if self.mounted {
            umount(PATH).expect("unmount the bpffs");
        }
    }
}

/// A bpffs in a place of its own, for a test that unmounts it.
pub struct OwnBpffs {
    folder: TempDir,
    mounted: bool,
}

impl OwnBpffs {
    pub fn new() -> Self {
        let mut bpffs = Self {
            folder: tempfile::tempdir().expect("make a folder"),
            mounted: false,
        };
        bpffs.mount();
        bpffs
    }

    /// A state folder in it.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// What is pinned in it goes.
    pub fn unmount(&mut self) {
        umount2(self.folder.path(), MntFlags::MNT_DETACH).expect("unmount a bpffs");
        self.mounted = false;
    }

    /// An empty one in the same place.
    pub fn mount(&mut self) {
        mount(
            Some("bpf"),
            self.folder.path(),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("mount a bpffs");
        self.mounted = true;
    }
}

impl Drop for OwnBpffs {
    fn drop(&mut self) {
        if self.mounted {
            self.unmount();
        }
    }
}

/// Removes what a killed run has left.
fn remove_remains() {
    for entry in fs::read_dir(PATH).expect("list the bpffs").flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            fs::remove_dir_all(entry.path()).expect("remove what a killed run left");
        }
    }
}
