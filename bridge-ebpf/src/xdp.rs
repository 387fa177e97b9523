//! The fast path: known unicast that a native redirect carries whole. All else goes up to tcx.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
    macros::xdp,
    programs::XdpContext,
};
use bridge_common::{
    Hook,
    checksum::{self, Plan},
    counters::{DropReason, PassReason},
    decision::{self, Received, Verdict},
    frame::{ETHERNET_HEADER, Ethernet, SHORTEST_TAGGED},
    layout::Config,
    port::{Ingress, flag},
};

use crate::{
    account,
    kernel::{self, NativeFrame},
    learn,
    maps::{self, DEVICES_XDP, Maps},
    packet::XdpFrame,
};

#[xdp]
pub fn tapbridge_xdp(context: XdpContext) -> u32 {
    let Some(config) = maps::config() else {
        return XDP_PASS;
    };
    let tables = Maps {
        devices: &DEVICES_XDP,
        moment: maps::moment(config),
    };
    let Some(ingress) = maps::ingress(context.ingress_ifindex() as u32, tables.moment) else {
        return XDP_PASS;
    };
    match switch(&context, ingress, &tables, config) {
        Outcome::Redirected => XDP_REDIRECT,
        Outcome::Dropped => XDP_DROP,
        Outcome::LeftToTcx(reason) => {
            account::port(ingress.slot, |counters| counters.passed_up[reason as usize] += 1);
            XDP_PASS
        }
    }
}

enum Outcome {
    Redirected,
    Dropped,
    LeftToTcx(PassReason),
}

#[inline(always)]
fn switch(context: &XdpContext, ingress: Ingress, tables: &Maps, config: &Config) -> Outcome {
    // An skb keeps its GSO and checksum metadata only in tcx.
    let Some(native) = NativeFrame::of(context.ctx) else {
        return Outcome::LeftToTcx(PassReason::Generic);
    };
    let mut frame = XdpFrame::new(context.ctx);
    let length = frame.length();
    // The tap driver looks at this only after XDP, and would count nothing.
    if !native.device.is_up() {
        account::dropped(ingress.slot, length, DropReason::IngressDown);
        return Outcome::Dropped;
    }
    let ethernet = Ethernet::read(&frame, None);
    let tag = ethernet
        .as_ref()
        .map_or(0, |ethernet| ethernet.payload - ETHERNET_HEADER);
    // Between the hooks the kernel drops a frame whose tag is cut off, and counts nothing either.
    let (Some(ethernet), false) = (ethernet, tag != 0 && length < SHORTEST_TAGGED) else {
        account::dropped(ingress.slot, length, DropReason::TooShort);
        return Outcome::Dropped;
    };
    // A native redirect measures the whole frame, tag included (`xdp_ok_fwd_dev`). One that is too long only by its
    // tag is left to tcx like all that is not forwarded here.
    let received = Received {
        ingress,
        ethernet: Some(ethernet),
        length,
        gso: false,
    };
    let decision = decision::decide(tables, &received, config.ageing);
    let Verdict::Forward { slot, port, device } = decision.verdict else {
        return Outcome::LeftToTcx(PassReason::NotForwarded);
    };
    if !port.has(flag::NATIVE_TARGET) {
        return Outcome::LeftToTcx(PassReason::Target);
    }
    // Where frames that are redirected and frames that are passed would not stay in order, none is redirected.
    if device.queues > 1 {
        return Outcome::LeftToTcx(PassReason::TargetQueues);
    }
    if native.is_steered() {
        return Outcome::LeftToTcx(PassReason::Steering);
    }
    if kernel::is_from_vhost() {
        return Outcome::LeftToTcx(PassReason::VhostNet);
    }
    let plan = checksum::plan(&frame, &ethernet, length);
    if plan == Plan::LeaveToTcx {
        return Outcome::LeftToTcx(PassReason::Checksum);
    }
    if DEVICES_XDP.redirect(slot, 0).is_err() {
        return Outcome::LeftToTcx(PassReason::Target);
    }
    let mut completed = 0;
    if let Plan::Store { offset, checksum } = plan {
        if frame.write(offset, checksum).is_none() {
            return Outcome::LeftToTcx(PassReason::Checksum);
        }
        completed = 1;
    }
    learn::apply(context, decision.lesson, &ethernet, ingress, tables, config);
    account::port(ingress.slot, |counters| {
        counters.received.count(length);
        counters.checksums_completed += completed;
    });
    account::forwarded(ingress.slot, slot, Hook::Xdp, length);
    Outcome::Redirected
}
