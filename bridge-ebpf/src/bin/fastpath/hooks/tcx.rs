//! tcx at a port's ingress: it carries every known unicast frame, with its metadata.

use aya_ebpf::{
    bindings::{__sk_buff, tcx_action_base::TCX_NEXT},
    helpers::generated::{bpf_redirect, bpf_skb_vlan_pop, bpf_skb_vlan_push},
    macros::classifier,
    programs::TcContext,
};
use bridge_common::{
    Hook,
    forwarding::{Reason, Received, Retag, Verdict, decide},
    frame::{Ethernet, VLAN_TAG, VlanTag},
};

use crate::{
    counters, events,
    kernel::{Asks, Device, Kernel},
    log, negative_cache,
    packet::Skb,
};

/// Gives a frame the tag that the bridge would give it, in its metadata as the bridge does. On failure, which is one of
/// memory and does not happen where no other tag is, the frame is as it was.
#[inline(always)]
fn change_tag(skb: *mut __sk_buff, retag: Retag) -> bool {
    let (pop, push) = match retag {
        Retag::Keep => return true,
        Retag::Remove => (true, None),
        Retag::Add(tag) => (false, Some(tag)),
        Retag::Replace(tag) => (true, Some(tag)),
    };
    // SAFETY: the context is the program's; pointers into the frame are not used from here on.
    if pop && unsafe { bpf_skb_vlan_pop(skb) } != 0 {
        return false;
    }
    push.is_none_or(|tag| {
        // SAFETY: as above. The protocol is in network byte order.
        unsafe { bpf_skb_vlan_push(skb, tag.protocol.to_be(), tag.control) == 0 }
    })
}

#[classifier]
pub fn tapbridge_fast_tcx(context: TcContext) -> i32 {
    let skb = Skb::new(context.skb.skb);
    let ifindex = skb.ifindex();
    let tag = skb.metadata_tag();
    let bytes = skb.length() + if tag.is_some() { VLAN_TAG } else { 0 };
    let gso = skb.is_gso();
    counters::bulk(ifindex, bytes, gso);
    match egress(&skb, ifindex, tag, gso) {
        Ok(target) => {
            counters::forwarded(ifindex, target, Hook::Tcx, bytes);
            log::forwarded(&skb, Hook::Tcx, ifindex, target);
            // SAFETY: the helper only notes the target.
            unsafe { bpf_redirect(target, 0) as i32 }
        }
        Err(reason) => {
            if counters::left(ifindex, Hook::Tcx, reason, bytes) {
                events::left(ifindex, Hook::Tcx, reason);
            }
            log::left(&skb, Hook::Tcx, ifindex, reason);
            TCX_NEXT
        }
    }
}

/// Where a frame goes, with the tag that it has there; or the number of the [`Reason`] to leave it.
#[inline(always)]
fn egress(skb: &Skb, ifindex: u32, tag: Option<VlanTag>, gso: bool) -> Result<u32, u32> {
    let ethernet = Ethernet::read(skb, tag).ok_or(Reason::TooShort as u32)?;
    let received = Received::new(skb, &ethernet, tag, skb.length(), gso);
    if let Some(reason) = negative_cache::lookup(ifindex, &received, Hook::Tcx) {
        return Err(reason);
    }
    let kernel = Kernel {
        frame: skb,
        payload: ethernet.payload,
        device: Device::of_skb(skb.context()),
        asks: Asks::Tcx,
    };
    match decide(&kernel, &received, Hook::Tcx) {
        Verdict::Leave(reason) => {
            negative_cache::insert(ifindex, &received, reason);
            Err(reason as u32)
        }
        Verdict::Forward(target, retag) if change_tag(skb.context(), retag) => Ok(target),
        Verdict::Forward(..) => Err(Reason::VlanTag as u32),
    }
}
