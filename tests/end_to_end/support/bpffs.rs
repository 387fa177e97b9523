//! The file system that bridges are pinned in.

use std::{fs, path::Path};

use nix::{
    mount::{MsFlags, mount, umount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

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
