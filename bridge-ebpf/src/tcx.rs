//! The complete switch: every frame that a port receives and XDP did not take ends here.

use core::ffi::{c_long, c_void};

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    helpers::generated::{bpf_clone_redirect, bpf_loop, bpf_redirect},
    macros::classifier,
    programs::TcContext,
};
use bridge_common::{
    Hook,
    counters::DropReason,
    decision::{self, Device, Received, Verdict},
    frame::{Ethernet, VLAN_TAG},
    layout::Config,
    port::{Ingress, flag},
};

use crate::{
    account, learn,
    maps::{self, DEVICES_TCX, Maps},
    packet::Skb,
};

/// Nothing goes on to the host's network stack: whatever was not redirected ends with `TC_ACT_SHOT`.
#[classifier]
pub fn tapbridge_tcx(context: TcContext) -> i32 {
    let skb = Skb::new(context.skb.skb);
    let Some(config) = maps::config() else {
        return TC_ACT_SHOT;
    };
    let tables = Maps {
        devices: &DEVICES_TCX,
        moment: maps::moment(config),
    };
    match maps::ingress(skb.ifindex(), tables.moment) {
        Some(ingress) => switch(&skb, ingress, &tables, config),
        None => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn switch(skb: &Skb, ingress: Ingress, tables: &Maps, config: &Config) -> i32 {
    let tag = skb.metadata_tag();
    let bytes = skb.length() + if tag.is_some() { VLAN_TAG } else { 0 };
    let received = Received {
        ingress,
        ethernet: Ethernet::read(skb, tag),
        length: skb.length(),
        gso: skb.is_gso(),
    };
    account::bulk(ingress.slot, bytes, received.gso);
    let decision = decision::decide(tables, &received, config.ageing);
    if let Some(ethernet) = &received.ethernet {
        learn::apply(
            &TcContext::new(skb.context()),
            decision.lesson,
            ethernet,
            ingress,
            tables,
            config,
        );
    }
    match decision.verdict {
        Verdict::Forward { slot, port, .. } => {
            account::port(ingress.slot, |counters| counters.received.count(bytes));
            account::forwarded(ingress.slot, slot, Hook::Tcx, bytes);
            // SAFETY: the helper only notes the target.
            unsafe { bpf_redirect(port.ifindex, 0) as i32 }
        }
        Verdict::Flood => {
            let last = flood(skb, ingress, config, bytes);
            if last.ifindex == 0 {
                account::dropped(ingress.slot, bytes, DropReason::NoOtherPort);
                return TC_ACT_SHOT;
            }
            account::port(ingress.slot, |counters| {
                counters.received.count(bytes);
                counters.flooded.count(bytes);
            });
            account::port(last.slot, |counters| counters.flood_copies.count(bytes));
            // SAFETY: the helper only notes the target.
            unsafe { bpf_redirect(last.ifindex, 0) as i32 }
        }
        Verdict::Drop(reason) => {
            account::dropped(ingress.slot, bytes, reason);
            TC_ACT_SHOT
        }
    }
}

/// What `bpf_clone_redirect` answers for a device that is gone: `-EINVAL`.
const NO_SUCH_DEVICE: c_long = -22;

/// A port that a flood goes to.
#[derive(Clone, Copy)]
struct Target {
    slot: u32,
    /// 0 for no port.
    ifindex: u32,
}

/// A flood in progress.
struct Flood {
    skb: *mut __sk_buff,
    ingress: u32,
    bytes: u32,
    /// The port that was found last and has not been sent to yet.
    last: Target,
}

/// Sends a copy to every other port that is up but one, and answers with that one: the frame itself is for it.
#[inline(always)]
fn flood(skb: &Skb, ingress: Ingress, config: &Config, bytes: u32) -> Target {
    let mut flood = Flood {
        skb: skb.context(),
        ingress: ingress.slot,
        bytes,
        last: Target { slot: 0, ifindex: 0 },
    };
    // SAFETY: the callback has the signature that the helper calls, and the context outlives the loop.
    unsafe {
        bpf_loop(
            config.slots_in_use,
            flood_to as *mut c_void,
            (&raw mut flood).cast(),
            0,
        );
    }
    flood.last
}

/// One step of the loop: 0 goes on.
extern "C" fn flood_to(slot: u32, flood: *mut Flood) -> c_long {
    // SAFETY: `flood` passes its own, and nothing else refers to it meanwhile.
    let flood = unsafe { &mut *flood };
    if slot == flood.ingress {
        return 0;
    }
    // One after the other: the verifier refuses a port that is carried past its own absence.
    let Some(port) = maps::port(slot) else {
        return 0;
    };
    if !port.has(flag::ACTIVE) {
        return 0;
    }
    let Some(Device {
        up: true,
        carrier: true,
        ..
    }) = maps::device(&DEVICES_TCX, slot)
    else {
        return 0;
    };
    let before = flood.last;
    flood.last = Target {
        slot,
        ifindex: port.ifindex,
    };
    if before.ifindex == 0 {
        return 0;
    }
    // SAFETY: the context is the program's own.
    let result = unsafe { bpf_clone_redirect(flood.skb, before.ifindex, 0) };
    account::port(before.slot, |counters| {
        counters.flood_errors += u64::from(result < 0);
        // Where the kernel can't cut a copy into its segments, the device has counted it as dropped.
        if result != NO_SUCH_DEVICE {
            counters.flood_copies.count(flood.bytes);
        }
    });
    0
}
