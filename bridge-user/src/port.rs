//! What is noted of a port, in words.

use std::time::Duration;

use bridge_common::{
    Hook,
    port::{INTERFACE_NAME, flag},
};
use nix::time::{ClockId, clock_gettime};

use crate::error::{Context as _, Result};

/// The name that a device had when it was attached, as its port's record has it.
pub fn recorded_name(name: &[u8; INTERFACE_NAME]) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// Names of the hooks that frames from a port with these [`flag`]s meet, first to last.
pub fn hooks(flags: u32) -> Vec<&'static str> {
    Hook::ALL
        .into_iter()
        .filter(|&hook| hook == Hook::Tcx || flags & flag::XDP != 0)
        .map(Hook::name)
        .collect()
}

/// In ns, of the clock that goes on while the machine sleeps.
pub(crate) fn since_boot() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).at("CLOCK_BOOTTIME", "read")?;
    let now = Duration::from(now).as_nanos();
    u64::try_from(now).at("CLOCK_BOOTTIME", "read")
}
