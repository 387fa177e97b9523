//! What the user side has noted of the ports.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap},
};
use bridge_common::{
    fastpath::{MAX_PORTS, Port, Settings},
    port::INTERFACE_NAME,
};

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
static PORTS: HashMap<u32, Port> = HashMap::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);

/// Id of the program at tcx.
#[inline(always)]
pub fn tcx_program() -> u32 {
    SETTINGS.get(0).map_or(0, |settings| settings.tcx_program)
}

/// What an administrator has said of an attached port, see [`flag`](bridge_common::port::flag).
#[inline(always)]
pub fn flags(ifindex: u32) -> u32 {
    // SAFETY: at most a flag that is written meanwhile is old or new.
    unsafe { PORTS.get(ifindex) }.map_or(0, |port| port.flags)
}

/// The name of an attached port.
#[inline(always)]
pub fn name(ifindex: u32) -> Option<[u8; INTERFACE_NAME]> {
    // SAFETY: at most a name that is written meanwhile is old, new or half of each.
    unsafe { PORTS.get(ifindex) }.map(|port| port.name)
}
