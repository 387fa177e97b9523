//! Counting. Both programs run with bottom halves off, so a CPU's counters have one writer at a time.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
};
use bridge_common::{
    Hook,
    counters::PathCounters,
    fastpath::{MAX_PATHS, MAX_PORTS, NEAR_PATHS, NEAR_PORTS, Path, PortCounters, near_port},
    forwarding::Reason,
    layout::NATIVE_OVERHEAD,
};

use crate::{clock, kernel::memory::offset};

/// The longest frame that native XDP takes; set by the loader.
#[unsafe(no_mangle)]
pub static LONGEST_NATIVE: Global<u32> = Global::new(4096 - NATIVE_OVERHEAD);

#[map]
static PORT_OWNERS: Array<u32> = Array::with_max_entries(NEAR_PORTS, 0);

#[map]
static PORT_COUNTERS: PerCpuArray<PortCounters> = PerCpuArray::with_max_entries(NEAR_PORTS, 0);

#[map]
static COUNTERS: PerCpuHashMap<u32, PortCounters> =
    PerCpuHashMap::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);

/// The paths that have the places near.
#[map]
static NEAR: HashMap<u32, Path> = HashMap::with_max_entries(NEAR_PATHS, BPF_F_NO_PREALLOC);

/// The paths that have the places near, by place, as one number each, for who only compares.
#[map]
static NEAR_OWNERS: Array<u64> = Array::with_max_entries(NEAR_PATHS, 0);

#[map]
static NEAR_COUNTERS: PerCpuArray<PathCounters> = PerCpuArray::with_max_entries(NEAR_PATHS, 0);

#[map]
static PATHS: PerCpuHashMap<Path, PathCounters> =
    PerCpuHashMap::with_max_entries(MAX_PATHS, BPF_F_NO_PREALLOC);

/// Changes this CPU's counters of a port; whether there are any.
#[inline(always)]
pub fn port(ifindex: u32, change: impl FnOnce(&mut PortCounters)) -> bool {
    let place = near_port(ifindex);
    let near = PORT_OWNERS.get(place).is_some_and(|owner| *owner == ifindex);
    let counters = if near {
        PORT_COUNTERS.get_ptr_mut(place)
    } else {
        COUNTERS.get_ptr_mut(ifindex)
    };
    if let Some(counters) = counters {
        // SAFETY: the element is this CPU's and nobody else writes it now.
        change(unsafe { &mut *counters });
    }
    counters.is_some()
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

/// Counts a frame that a hook leaves to what comes behind it, for the [`Reason`] of this number; whether that may be news.
#[inline(always)]
pub fn left(ifindex: u32, hook: Hook, reason: u32, bytes: u32) -> bool {
    let stops = matches!(hook, Hook::Tcx) && Reason::stops_port(reason);
    let mut may_be_news = false;
    port(ifindex, |counters| {
        if let Some(count) = counters.left[hook as usize].get_mut(reason as usize) {
            may_be_news = *count == 0;
            *count += 1;
        }
        if matches!(hook, Hook::Tcx) {
            counters.left_traffic.count(bytes);
        }
        // Other CPUs know better whether it is; each asks once a second.
        if stops {
            let now = clock::jiffies();
            if now.wrapping_sub(counters.stopped_at) > offset!(hz) {
                counters.stopped_at = now;
                may_be_news = true;
            }
        }
    });
    may_be_news
}

/// Counts a frame that goes from one port to another.
#[inline(always)]
pub fn forwarded(from: u32, to: u32, via: Hook, bytes: u32) {
    path(Path { from, to }, |counters| {
        counters.via[via as usize].count(bytes);
    });
}

/// Changes this CPU's counters of a path; whether there was room for them.
#[inline(always)]
pub fn path(path: Path, change: impl Fn(&mut PathCounters)) -> bool {
    let place = path.near();
    if let (Some(owner), Some(counters)) = (NEAR_OWNERS.get_ptr_mut(place), NEAR_COUNTERS.get_ptr_mut(place))
    {
        // SAFETY: an aligned integer is read and written as one; volatile, since other CPUs do.
        let known = unsafe { owner.read_volatile() };
        let mine = path.to_bits();
        // Of CPUs that find it free one is the first.
        let is_mine = known == mine
            || known == 0 && NEAR.insert(place, path, u64::from(BPF_NOEXIST)).is_ok() && {
                // SAFETY: as above.
                unsafe { owner.write_volatile(mine) };
                true
            };
        if is_mine {
            // SAFETY: as in `port`.
            change(unsafe { &mut *counters });
            return true;
        }
    }
    far(path, change)
}

/// Changes this CPU's counters of a path whose place near is another's; whether there was room for them.
#[inline(always)]
fn far(path: Path, change: impl Fn(&mut PathCounters)) -> bool {
    if let Some(counters) = PATHS.get_ptr_mut(path) {
        // SAFETY: as in `port`.
        change(unsafe { &mut *counters });
        return true;
    }
    let mut first = PathCounters::default();
    change(&mut first);
    if PATHS.insert(path, first, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    // Another CPU may have been faster.
    let counters = PATHS.get_ptr_mut(path);
    if let Some(counters) = counters {
        // SAFETY: as in `port`.
        change(unsafe { &mut *counters });
    }
    counters.is_some()
}
