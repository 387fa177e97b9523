//! What the running kernel offers: whether it will do at all, and where a thread's members lie.

use std::{fs, path::Path};

use bridge_common::layout::NATIVE_OVERHEAD;
use nix::{
    sys::utsname::uname,
    unistd::{SysconfVar, sysconf},
};

use crate::{
    btf::{Btf, BtfError},
    error::{Error, Result},
    namespace,
};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Capabilities that attaching needs: bit and name (include/uapi/linux/capability.h).
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
const CAP_SYS_ADMIN: u32 = 21;

/// tcx came with Linux 6.6 (commit e420bed02507).
const OLDEST: (u32, u32) = (6, 6);

/// Checks that the process may do what a command needs: opening what root has pinned.
pub fn check_permission() -> Result<()> {
    // What a process may do there is of no use: bpf(2) asks for capabilities in the initial one (`bpf_capable`).
    if namespace::has_other_users() {
        return Err(Error::UserNamespace {
            missing: CAPABILITIES.map(|(_, name)| name).join(", "),
        });
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = effective_capabilities(&status);
    let has = |bit: u32| effective & (1 << bit) != 0;
    let missing: Vec<&str> = CAPABILITIES
        .into_iter()
        // CAP_SYS_ADMIN implies the two that were split off it (5.8).
        .filter(|&(bit, _)| !(has(bit) || bit != 12 && has(CAP_SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::NotPermitted {
            missing: missing.join(", "),
        })
    }
}

fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Checks that the kernel has tcx.
pub fn check_version() -> Result<()> {
    let release = uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    match parse_release(&release) {
        Some(version) if version < OLDEST => Err(Error::KernelTooOld { release }),
        // A release that can't be read is no reason to refuse: the kernel itself will say what it lacks.
        _ => Ok(()),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The longest frame that native XDP takes on a tap, in bytes.
pub(crate) fn longest_native() -> u32 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.and_then(|page| u32::try_from(page).ok()).unwrap_or(4096);
    page.saturating_sub(NATIVE_OVERHEAD)
}

/// What the counter of system calls needs to know of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskOffsets {
    /// `task_struct.group_leader`
    pub group_leader: u64,
    /// `task_struct.comm`
    pub comm: u64,
    /// The word that tells a 32-bit call, and its bits there; 0 on machines that have none.
    pub compat: (u64, u64),
}

/// Where the members of a thread lie that the counter of system calls reads.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse_release("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(parse_release("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(parse_release("unknown"), None);
        assert!(parse_release("6.5.13").unwrap() < OLDEST);
        assert!(parse_release("6.10").unwrap() > OLDEST);
    }

    #[test]
    fn effective_capabilities_are_read_from_the_status_file() {
        assert_eq!(
            effective_capabilities("CapPrm:\t0000000000000001\nCapEff:\t00000000a80425fb\n"),
            0xa804_25fb
        );
        assert_eq!(effective_capabilities(""), 0);
    }
}
