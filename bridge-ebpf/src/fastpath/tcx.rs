//! tcx at a port's ingress: it carries every known unicast frame, with its metadata.

use aya_ebpf::{
    bindings::tcx_action_base::TCX_NEXT, helpers::generated::bpf_redirect, macros::classifier,
    programs::TcContext,
};
use bridge_common::{
    Hook,
    forwarding::{Reason, Received, Verdict, decide},
    frame::{Ethernet, VLAN_TAG},
};

use crate::{
    bridge::{Device, Kernel},
    counters,
    memory::{Memory, offset},
    packet::Skb,
};

#[classifier]
pub fn tapbridge_fast_tcx(context: TcContext) -> i32 {
    let skb = Skb::new(context.skb.skb);
    let ifindex = skb.ifindex();
    let tag = skb.metadata_tag();
    let bytes = skb.length() + if tag.is_some() { VLAN_TAG } else { 0 };
    let leave = |reason| {
        counters::left(ifindex, Hook::Tcx, reason, bytes);
        TCX_NEXT
    };
    let gso = skb.is_gso();
    counters::bulk(ifindex, bytes, gso);
    let Some(ethernet) = Ethernet::read(&skb, tag) else {
        return leave(Reason::TooShort);
    };
    let kernel = Kernel {
        frame: &skb,
        payload: ethernet.payload,
        device: Device(Memory::of(skb.context()).follow(offset!(sk_buff_dev))),
        tcx_program: counters::tcx_program(),
        all_fresh: false,
    };
    let received = Received {
        destination: ethernet.destination.to_bits(),
        source: ethernet.source.to_bits(),
        ethertype: ethernet.ethertype,
        tagged: tag.is_some() || ethernet.payload != bridge_common::frame::ETHERNET_HEADER,
        length: skb.length(),
        gso,
    };
    match decide(&kernel, &received, Hook::Tcx) {
        Verdict::Leave(reason) => leave(reason),
        Verdict::Forward(target) => {
            counters::forwarded(ifindex, target, Hook::Tcx, bytes);
            // SAFETY: the helper only notes the target.
            unsafe { bpf_redirect(target, 0) as i32 }
        }
    }
}
