//! Reads kernel memory for the loader, which runs this once or twice when it sets up.

use aya_ebpf::{
    bindings::tcx_action_base::TCX_NEXT,
    macros::{classifier, map},
    maps::Array,
    programs::TcContext,
};
use bridge_common::fastpath::{PEEK_SLOTS, Peek};

use crate::kernel::memory::{Address, Member, member, offset};

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
    let device = Address::of(context.skb.skb).open().follow(member!(sk_buff_dev));
    peek.found = u32::from(!device.is_null());
    let device = device.open();
    peek.ifindex = device.read(member!(dev_ifindex));
    let generic = device.open(member!(dev_net)).follow(member!(net_gen));
    for (slot, word) in (0..).zip(&mut peek.words) {
        let pointer = generic.at(offset!(net_generic_ptr) + POINTER * slot).pointer();
        *word = if pointer.is_null() {
            0
        } else {
            u64::from(pointer.at(peek.offset).open().read::<u32>(Member::FIRST))
        };
    }
    TCX_NEXT
}

const _: () = assert!(PEEK_SLOTS == 64);
