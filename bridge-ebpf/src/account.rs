//! Counting. Both programs run with bottom halves off, so a CPU's counters have one writer at a time.

use aya_ebpf::Global;
use bridge_common::{
    Hook,
    counters::{DropReason, PortCounters},
    layout::{DEFAULT_MAX_PORTS, NATIVE_OVERHEAD},
};

use crate::maps::{PATHS, PORT_COUNTERS};

/// The bridge's number of slots; set by the loader.
#[unsafe(no_mangle)]
static MAX_PORTS: Global<u32> = Global::new(DEFAULT_MAX_PORTS);

/// The longest frame that native XDP takes; set by the loader.
#[unsafe(no_mangle)]
static LONGEST_NATIVE: Global<u32> = Global::new(4096 - NATIVE_OVERHEAD);

/// Changes this CPU's counters of a port.
#[inline(always)]
pub fn port(slot: u32, change: impl FnOnce(&mut PortCounters)) {
    if let Some(counters) = PORT_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the element is this CPU's and nobody else writes it now.
        change(unsafe { &mut *counters });
    }
}

/// Counts a frame that native XDP could not have taken, if it is one.
#[inline(always)]
pub fn bulk(slot: u32, bytes: u32, gso: bool) {
    if gso || bytes > LONGEST_NATIVE.load() {
        port(slot, |counters| {
            counters.bulk.count(bytes);
            counters.gso += u64::from(gso);
        });
    }
}

/// Counts a frame that was received and dropped.
#[inline(always)]
pub fn dropped(slot: u32, bytes: u32, reason: DropReason) {
    port(slot, |counters| {
        counters.received.count(bytes);
        counters.dropped[reason as usize] += 1;
    });
}

/// Counts a frame that went from one port to another.
#[inline(always)]
pub fn forwarded(from: u32, to: u32, via: Hook, bytes: u32) {
    if let Some(counters) = PATHS.get_ptr_mut(from * MAX_PORTS.load() + to) {
        // SAFETY: as above.
        unsafe { (*counters).via[via as usize].count(bytes) };
    }
}
