//! Whether the running kernel will do, and whether the process may ask it.

use caps::{CapSet, Capability};
use nix::sys::utsname::uname;

use super::namespace;
use crate::error::{Error, Result};

/// Capabilities that every command needs but 'check'. Attaching needs `CAP_SYSLOG` too, where the kernel hides its
/// addresses without it, and `CAP_SYS_ADMIN` where not everybody may make user namespaces.
const NEEDED: [Capability; 3] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_BPF,
];

/// tcx came with Linux 6.6 (commit e420bed02507).
const OLDEST: (u32, u32) = (6, 6);

/// Checks that the process may do what a command needs: opening what root has pinned.
pub fn check_permission() -> Result<()> {
    // What a process may do there is of no use: bpf(2) asks for capabilities in the initial one (`bpf_capable`).
    if namespace::has_other_users() {
        return Err(Error::UserNamespace {
            missing: names(&NEEDED),
        });
    }
    // CAP_SYS_ADMIN implies the two that were split off it (5.8).
    let implied = |capability| capability != Capability::CAP_NET_ADMIN && has(Capability::CAP_SYS_ADMIN);
    let missing: Vec<_> = NEEDED
        .into_iter()
        .filter(|&capability| !has(capability) && !implied(capability))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::NotPermitted {
            missing: names(&missing),
        })
    }
}

/// Whether the process may be told where the kernel's functions are, as far as the kernel tells anybody.
pub(crate) fn may_see_symbols() -> bool {
    has(Capability::CAP_SYSLOG)
}

/// Whether the process may look at what every program in the kernel is called.
pub(crate) fn may_see_programs() -> bool {
    has(Capability::CAP_SYS_ADMIN)
}

/// Whether the process is told which namespaces others are in that have more capabilities.
pub(crate) fn may_look_at_processes() -> bool {
    has(Capability::CAP_SYS_PTRACE)
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

fn names(capabilities: &[Capability]) -> String {
    let names: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
    names.join(", ")
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
}
