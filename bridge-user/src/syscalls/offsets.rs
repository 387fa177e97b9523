//! Where the running kernel's threads have what the counter of system calls reads.

use std::{fs, path::Path};

use crate::{
    error::{Error, Result},
    kernel::btf::{Btf, BtfError},
};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What the program needs to know of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskOffsets {
    /// `task_struct.group_leader`
    pub group_leader: u64,
    /// `task_struct.comm`
    pub comm: u64,
    /// The word that tells a 32-bit call, and its bits there; 0 on machines that have none.
    pub compat: (u64, u64),
}

/// Where the members of a thread lie that the program reads.
pub fn task_offsets() -> Result<TaskOffsets> {
    read_btf(|btf| {
        let thread_info = |member: &str| -> Result<u64, BtfError> {
            Ok(btf.offset("task_struct", "thread_info")? + btf.offset("thread_info", member)?)
        };
        Ok(TaskOffsets {
            group_leader: btf.offset("task_struct", "group_leader")?,
            comm: btf.offset("task_struct", "comm")?,
            compat: match std::env::consts::ARCH {
                // TS_COMPAT
                "x86_64" => (thread_info("status")?, 1 << 1),
                // TIF_32BIT
                "aarch64" => (thread_info("flags")?, 1 << 22),
                _ => (0, 0),
            },
        })
    })
}

fn read_btf<T>(read: impl FnOnce(&Btf<'_>) -> Result<T, BtfError>) -> Result<T> {
    let path = Path::new(VMLINUX);
    let no_btf = |reason: String| Error::NoBtf {
        path: path.to_owned(),
        reason,
    };
    let data = fs::read(path).map_err(|error| no_btf(error.to_string()))?;
    Btf::parse(&data)
        .and_then(|btf| read(&btf))
        .map_err(|error| no_btf(error.to_string()))
}
