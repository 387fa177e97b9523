//! Whether the running kernel will do, and whether the process may ask it.

use std::fs;

use nix::sys::utsname::uname;

use super::namespace;
use crate::error::{Error, Result};

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
