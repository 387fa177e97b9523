//! Telling of what happens. Whoever wants to know reads the ring buffer; that nobody does costs nothing.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_RB_FORCE_WAKEUP},
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use bridge_common::{
    Hook,
    fastpath::{EVENTS_BYTES, Event, EventKind, MAX_TOLD, SILENCE, Told},
    forwarding::Reason,
};

use crate::{clock, kernel::memory::offset, ports};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

#[map]
static EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[map]
static TOLD: HashMap<Told, u64> = HashMap::with_max_entries(MAX_TOLD, BPF_F_NO_PREALLOC);

/// Tells of an event, which happens now.
#[inline(always)]
pub fn tell(mut event: Event) {
    event.time = clock::since_boot();
    // Readers keep places of their own in the buffer, which the kernel does not know: it wakes them only if it must.
    let told = EVENTS.output::<Event>(event, u64::from(BPF_RB_FORCE_WAKEUP));
    if told.is_err()
        && let Some(lost) = EVENTS_LOST.get_ptr_mut(0)
    {
        // SAFETY: the element is this CPU's, and nobody else uses it while the program runs, with bottom halves off.
        unsafe { *lost += 1 };
    }
}

/// Tells of a reason if that is news of the port: the first frame that a hook leaves for it, or, if it stops the port, the
/// first after a silence.
#[inline(always)]
pub fn left(ifindex: u32, hook: Hook, reason: u32) {
    let Some(name) = ports::name(ifindex) else {
        return;
    };
    let now = clock::jiffies();
    let told = Told {
        ifindex,
        hook: hook as u16,
        reason: reason as u16,
    };
    let is_first = TOLD.insert(told, now, u64::from(BPF_NOEXIST)).is_ok();
    let stops = matches!(hook, Hook::Tcx) && Reason::stops_port(reason);
    let kind = if stops && has_stopped(ifindex, hook, now) {
        EventKind::Stopped
    } else if is_first {
        EventKind::Left
    } else {
        return;
    };
    tell(Event {
        kind: kind as u32,
        ifindex,
        detail: reason,
        cause: hook as u32,
        name,
        ..Event::default()
    });
}

/// Whether no frame of the port has been left, for any of the reasons that stop it, for long.
#[inline(always)]
fn has_stopped(ifindex: u32, hook: Hook, now: u64) -> bool {
    let told = Told {
        ifindex,
        hook: hook as u16,
        reason: Told::STOPPED,
    };
    let Some(last) = TOLD.get_ptr_mut(told) else {
        // Of CPUs that find it missing one is the first.
        return TOLD.insert(told, now, u64::from(BPF_NOEXIST)).is_ok();
    };
    let silence = SILENCE * offset!(hz);
    // SAFETY: an aligned integer is read and written as one; volatile, since other CPUs do. That two tell of the same does
    // no harm.
    unsafe {
        let before = last.read_volatile();
        last.write_volatile(now);
        now.wrapping_sub(before) > silence
    }
}
