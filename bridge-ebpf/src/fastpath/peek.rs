//! Reads kernel memory for the loader, which runs this once or twice when it sets up.

use aya_ebpf::{
    bindings::tcx_action_base::TCX_NEXT,
    macros::{classifier, map},
    maps::Array,
    programs::TcContext,
};
use bridge_common::fastpath::{PEEK_SLOTS, Peek};

use crate::memory::{Memory, offset};

#[map]
static PEEK: Array<Peek> = Array::with_max_entries(1, 0);

const POINTER: u64 = 8;

/// Reads a word of what every slot of the network namespace's `net->gen` points to.
#[classifier]
pub fn tapbridge_peek(context: TcContext) -> i32 {
    let Some(peek) = PEEK.get_ptr_mut(0) else {
        return TCX_NEXT;
    };
    // SAFETY: the loader runs the program and reads the map in turn.
    let peek = unsafe { &mut *peek };
    let device = Memory::of(context.skb.skb).follow(offset!(sk_buff_dev));
    peek.ifindex = device.read(offset!(dev_ifindex));
    peek.found = u32::from(!device.is_null());
    let generic = device.follow(offset!(dev_net)).follow(offset!(net_gen));
    for (slot, word) in (0..).zip(&mut peek.words) {
        let pointer = generic.follow(offset!(net_generic_ptr) + POINTER * slot);
        *word = if pointer.is_null() {
            0
        } else {
            u64::from(pointer.read::<u32>(peek.offset))
        };
    }
    TCX_NEXT
}

const _: () = assert!(PEEK_SLOTS == 64);
