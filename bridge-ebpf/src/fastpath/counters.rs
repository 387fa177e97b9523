//! Counting. Both programs run with bottom halves off, so a CPU's counters have one writer at a time.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, PerCpuHashMap},
};
use bridge_common::{
    Hook,
    counters::{PathCounters, Traffic},
    fastpath::{MAX_PATHS, MAX_PORTS, Path, Port, PortCounters, Settings},
    forwarding::Reason,
    layout::NATIVE_OVERHEAD,
};

/// The longest frame that native XDP takes; set by the loader.
#[unsafe(no_mangle)]
static LONGEST_NATIVE: Global<u32> = Global::new(4096 - NATIVE_OVERHEAD);

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
pub static PORTS: HashMap<u32, Port> = HashMap::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);

#[map]
static COUNTERS: PerCpuHashMap<u32, PortCounters> =
    PerCpuHashMap::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);

#[map]
static PATHS: PerCpuHashMap<Path, PathCounters> =
    PerCpuHashMap::with_max_entries(MAX_PATHS, BPF_F_NO_PREALLOC);

/// Id of the program at tcx.
#[inline(always)]
pub fn tcx_program() -> u32 {
    SETTINGS.get(0).map_or(0, |settings| settings.tcx_program)
}

/// What an administrator has said of an attached port, see [`flag`](bridge_common::port::flag).
#[inline(always)]
pub fn port_flags(ifindex: u32) -> u32 {
    // SAFETY: at most a flag that is written meanwhile is old or new.
    unsafe { PORTS.get(ifindex) }.map_or(0, |port| port.flags)
}

/// Changes this CPU's counters of a port.
#[inline(always)]
pub fn port(ifindex: u32, change: impl FnOnce(&mut PortCounters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(ifindex) {
        // SAFETY: the element is this CPU's and nobody else writes it now.
        change(unsafe { &mut *counters });
    }
}

/// Counts a frame that native XDP could not have taken, if it is one.
#[inline(always)]
pub fn bulk(ifindex: u32, bytes: u32, gso: bool) {
    if gso || bytes > LONGEST_NATIVE.load() {
        port(ifindex, |counters| {
            counters.bulk.count(bytes);
            counters.gso += u64::from(gso);
        });
    }
}

/// Counts a frame that a hook leaves to what comes behind it.
#[inline(always)]
pub fn left(ifindex: u32, hook: Hook, reason: Reason, bytes: u32) {
    port(ifindex, |counters| {
        counters.left[hook as usize][reason as usize] += 1;
        if matches!(hook, Hook::Tcx) {
            counters.left_traffic.count(bytes);
        }
    });
}

/// Counts a frame that goes from one port to another.
#[inline(always)]
pub fn forwarded(from: u32, to: u32, via: Hook, bytes: u32) {
    let path = Path { from, to };
    if let Some(counters) = PATHS.get_ptr_mut(path) {
        // SAFETY: as in `port`.
        unsafe { (*counters).via[via as usize].count(bytes) };
        return;
    }
    let mut first = PathCounters::default();
    first.via[via as usize] = Traffic {
        frames: 1,
        bytes: u64::from(bytes),
    };
    // Another CPU may have been faster.
    if PATHS.insert(path, first, u64::from(BPF_NOEXIST)).is_err()
        && let Some(counters) = PATHS.get_ptr_mut(path)
    {
        // SAFETY: as in `port`.
        unsafe { (*counters).via[via as usize].count(bytes) };
    }
}
