//! The one sysctl that is changed.

use std::{fs, io, path::PathBuf};

use crate::error::{Context as _, Result};

/// A device speaks no IPv6 from now on: no router solicitations, no duplicate address detection, no MLD. On a kernel
/// without IPv6 none does.
pub fn disable_ipv6(interface: &str) -> Result<()> {
    let path: PathBuf = ["/proc/sys/net/ipv6/conf", interface, "disable_ipv6"]
        .iter()
        .collect();
    match fs::write(path, "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.at(interface, "write disable_ipv6"),
    }
}
