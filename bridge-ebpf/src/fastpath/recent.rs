//! Why this CPU has left frames lately, see [`bridge_common::forwarding::Recent`].

use aya_ebpf::{helpers::generated::bpf_jiffies64, macros::map, maps::PerCpuArray};
use bridge_common::{
    Hook,
    forwarding::{Left, Reason, Received, Recent},
};

#[map]
static RECENT: PerCpuArray<Recent> = PerCpuArray::with_max_entries(1, 0);

/// The number of the [`Reason`] for which a frame like this one was left, and this one shall be left, too.
#[inline(always)]
pub fn reason(ifindex: u32, received: &Received, hook: Hook) -> Option<u32> {
    place(ifindex, received)?.reason(ifindex, received, hook, now)
}

/// This one was left. The place is looked up again, since a pointer that may be null until here would be two states to the
/// verifier all the way.
#[inline(always)]
pub fn note(ifindex: u32, received: &Received, reason: Reason) {
    if let Some(left) = place(ifindex, received) {
        left.note(ifindex, received, now(), reason);
    }
}

#[inline(always)]
fn place(ifindex: u32, received: &Received) -> Option<&'static mut Left> {
    let recent = RECENT.get_ptr_mut(0)?;
    // SAFETY: the element is this CPU's, and nobody else uses it while the program runs, with bottom halves off.
    Some(unsafe { &mut *recent }.of(ifindex, received))
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }
}
