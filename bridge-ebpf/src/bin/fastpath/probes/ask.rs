//! What the hooks would decide about a frame, for whoever asks: run by hand, it forwards and counts nothing.

use aya_ebpf::{bindings::tcx_action_base::TCX_NEXT, macros::classifier, programs::TcContext};
use bridge_common::{
    Hook,
    fastpath::Answer,
    forwarding::{Received, decide},
    frame::Ethernet,
};

use crate::{
    kernel::{Asks, Device, Kernel},
    packet::Skb,
};

/// Answers with an [`Answer`]. How long ago the bridge has seen the source does not matter.
#[classifier]
pub fn tapbridge_ask(context: TcContext) -> i32 {
    let skb = Skb::new(context.skb.skb);
    let Some(ethernet) = Ethernet::read(&skb, None) else {
        return TCX_NEXT;
    };
    let kernel = Kernel {
        frame: &skb,
        payload: ethernet.payload,
        device: Device::of_skb(skb.context()),
        asks: Asks::Anybody,
    };
    let received = Received::new(&skb, &ethernet, None, skb.length(), false);
    Answer::NONE
        .with(Hook::Xdp, decide(&kernel, &received, Hook::Xdp))
        .with(Hook::Tcx, decide(&kernel, &received, Hook::Tcx))
        .0
        .cast_signed()
}
