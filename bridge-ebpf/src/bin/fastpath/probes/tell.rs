//! Tells of what a command has done: run by hand, with an [`Event`] for a frame.

use aya_ebpf::{bindings::tcx_action_base::TCX_NEXT, macros::classifier, programs::TcContext};
use bridge_common::fastpath::Event;

use crate::{events, packet::Skb};

/// Fills in the time.
#[classifier]
pub fn tapbridge_tell(context: TcContext) -> i32 {
    if let Some(event) = Skb::new(context.skb.skb).record::<Event>() {
        events::tell(event);
    }
    TCX_NEXT
}
