//! The one sysctl that a port changes.
//!
//! The host must send nothing on a port's device: no router solicitations, no duplicate address detection, no MLD.
//! `disable_ipv6` ends all of these; IPv4 sends nothing unasked on a device without an address.

use std::{fs, io, path::PathBuf};

use crate::error::{Context as _, Result};

fn path(interface: &str) -> PathBuf {
    ["/proc/sys/net/ipv6/conf", interface, "disable_ipv6"]
        .iter()
        .collect()
}

/// Whether a device speaks IPv6. On a kernel without IPv6 none does.
pub fn ipv6_enabled(interface: &str) -> Result<bool> {
    match fs::read_to_string(path(interface)) {
        Ok(value) => Ok(value.trim() == "0"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at(interface, "read disable_ipv6"),
    }
}

/// Switches IPv6 on a device on or off. A device that has none any more, since its MTU went below 1280, is left alone.
pub fn set_ipv6(interface: &str, on: bool) -> Result<()> {
    match fs::write(path(interface), if on { "0" } else { "1" }) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.at(interface, "write disable_ipv6"),
    }
}
