//! This CPU's [`NegativeCache`].

use aya_ebpf::{macros::map, maps::PerCpuArray};
use bridge_common::{
    Hook,
    forwarding::{NegativeCache, NegativeEntry, Reason, Received},
};

use crate::clock::jiffies;

#[map]
static NEGATIVE_CACHE: PerCpuArray<NegativeCache> = PerCpuArray::with_max_entries(1, 0);

/// The number of the [`Reason`] to leave a frame that the device of this index has received; none if the tables have to be
/// asked.
#[inline(always)]
pub fn lookup(ifindex: u32, received: &Received, hook: Hook) -> Option<u32> {
    entry(ifindex, received)?.lookup(ifindex, received, hook, jiffies)
}

/// Keeps why it was left. The entry is looked up again: a pointer which may be null, kept while the tables are asked, would
/// be two states to the verifier all the way.
#[inline(always)]
pub fn insert(ifindex: u32, received: &Received, reason: Reason) {
    if let Some(entry) = entry(ifindex, received) {
        entry.insert(ifindex, received, jiffies(), reason);
    }
}

#[inline(always)]
fn entry(ifindex: u32, received: &Received) -> Option<&'static mut NegativeEntry> {
    let cache = NEGATIVE_CACHE.get_ptr_mut(0)?;
    // SAFETY: the element is this CPU's, and nobody else uses it while the program runs, with bottom halves off.
    Some(unsafe { &mut *cache }.entry_mut(ifindex, received))
}
