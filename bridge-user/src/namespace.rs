//! Namespaces: a bridge's maps hold ifindexes, which mean something in one network namespace only, and process ids mean
//! something in one namespace of processes only.

use std::{fs, os::unix::fs::MetadataExt as _};

use nix::sys::stat::{major, minor};

use crate::error::{Context as _, Result};

/// Inode of the initial namespace of process ids (`PROC_PID_INIT_INO`).
const INITIAL_PID_INODE: u64 = 0xefff_fffc;

/// Inode of the initial user namespace (`PROC_USER_INIT_INO`).
const INITIAL_USER_INODE: u64 = 0xefff_fffd;

/// Whether the process is in a user namespace other than the initial one, as far as can be told.
pub fn has_other_users() -> bool {
    fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() != INITIAL_USER_INODE)
}

/// Inode of the calling thread's network namespace.
pub fn current() -> u64 {
    // A thread may have entered a namespace of its own.
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino())
}

/// Device, as the kernel writes it, and inode of the calling process's namespace of process ids; zeros for the initial
/// one.
pub fn of_processes() -> Result<[u64; 2]> {
    let path = "/proc/self/ns/pid";
    let namespace = fs::metadata(path).at(path, "read")?;
    Ok(match namespace.ino() {
        INITIAL_PID_INODE => [0, 0],
        // `MKDEV`; what stat tells is folded otherwise.
        inode => [major(namespace.dev()) << 20 | minor(namespace.dev()), inode],
    })
}

/// The command that runs another command in the namespace of this inode.
pub fn enter_command(inode: u64) -> String {
    let named = fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .find(|entry| fs::metadata(entry.path()).is_ok_and(|metadata| metadata.ino() == inode));
    match named {
        Some(entry) => format!("'nsenter --net={} tapbridge …'", entry.path().display()),
        None => format!(
            "find a process in net:[{inode}] with 'lsns -t net', then 'nsenter -n -t PID tapbridge …'"
        ),
    }
}

/// Whether the calling process sees other mounts than the machine does, as far as can be told.
pub fn has_private_mounts() -> bool {
    let mounts = |process: &str| {
        fs::metadata(format!("/proc/{process}/ns/mnt"))
            .ok()
            .map(|data| data.ino())
    };
    // The machine's mounts are those of process 1; where that one may not be looked at, those of the kernel's threads.
    let kthreadd = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd");
    let machine = mounts("1").or_else(|| if kthreadd { mounts("2") } else { None });
    machine.is_none_or(|machine| mounts("self") != Some(machine))
}
