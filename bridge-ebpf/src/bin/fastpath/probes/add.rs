//! Adds to counters what other programs have counted before: run by hand, with an [`Addition`] for a frame. A program does
//! this, since only a CPU itself can change what it counts meanwhile.

use aya_ebpf::{macros::classifier, programs::TcContext};
use bridge_common::{
    counters::PathCounters,
    fastpath::{Addition, PortCounters},
    frame::Frame as _,
};

use crate::{counters, packet::Skb};

const WORD: u32 = size_of::<u64>() as u32;

/// Adds to this CPU's counters; answers with [`Addition::DONE`], or with nothing if there is no place for it.
#[classifier]
pub fn tapbridge_add(context: TcContext) -> i32 {
    let skb = Skb::new(context.skb.skb);
    let Some(addition) = skb.record::<Addition>() else {
        return 0;
    };
    let is_done = if addition.is_path == 0 {
        counters::port(addition.path.from, |counters| {
            // SAFETY: they are made of as many integers as that.
            add(&skb, unsafe {
                &mut *(&raw mut *counters).cast::<[u64; PortCounters::WORDS]>()
            });
        })
    } else {
        counters::path(addition.path, |counters| {
            // SAFETY: as above.
            add(&skb, unsafe {
                &mut *(&raw mut *counters).cast::<[u64; size_of::<PathCounters>() / WORD as usize]>()
            });
        })
    };
    if is_done { Addition::DONE.cast_signed() } else { 0 }
}

/// Adds the numbers behind the [`Addition`].
#[inline(always)]
fn add<const N: usize>(skb: &Skb, words: &mut [u64; N]) {
    let mut offset = size_of::<Addition>() as u32;
    for word in words {
        if let Some(more) = skb.word(offset) {
            *word = word.wrapping_add(more);
        }
        offset += WORD;
    }
}
