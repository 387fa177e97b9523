//! Learning source addresses.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::info;
use bridge_common::{
    decision::{Lesson, Tables as _},
    fdb::{FdbEntry, FdbKey},
    frame::Ethernet,
    layout::Config,
    port::Ingress,
};

use crate::{
    account,
    maps::{self, LEARNED, Maps},
};

/// Writes down what a frame taught about its source.
#[inline(always)]
pub fn apply(
    context: &impl EbpfContext,
    lesson: Lesson,
    ethernet: &Ethernet,
    ingress: Ingress,
    tables: &Maps,
    config: &Config,
) {
    if lesson == Lesson::Nothing {
        return;
    }
    let key = ethernet.source_key();
    let entry = FdbEntry {
        last_seen: tables.now(),
        generation: ingress.generation,
        slot: ingress.slot as u16,
        reserved: 0,
    };
    // A new element rather than a write into the old one, which may be another address's by now. An LRU map makes
    // room by itself; where it can't at this moment, the next frame learns.
    if LEARNED.insert(key.to_bits(), entry, 0).is_err() {
        return;
    }
    match lesson {
        Lesson::Learn => account::port(ingress.slot, |counters| counters.learned += 1),
        Lesson::Move => account::port(ingress.slot, |counters| counters.moved += 1),
        Lesson::Nothing | Lesson::Refresh => return,
    }
    maps::forget_recent();
    if config.log != 0 {
        log(context, lesson, key, ingress.slot);
    }
}

/// One record for `tapbridge monitor`: what happened (0 learned, 1 moved), slot, VLAN, address.
#[inline(always)]
fn log(context: &impl EbpfContext, lesson: Lesson, key: FdbKey, slot: u32) {
    info!(
        context,
        "{} {} {} {:mac}",
        u32::from(lesson == Lesson::Move),
        slot,
        key.vlan.0,
        key.mac.0
    );
}
