//! Native XDP at a tap: it carries the known unicast that is whole without its metadata. All else goes up to tcx.

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    helpers::generated::bpf_redirect,
    macros::xdp,
    programs::XdpContext,
};
use bridge_common::{
    Hook,
    checksum::{self, ChecksumAction},
    forwarding::{Reason, Received, Verdict, decide},
    frame::{Ethernet, SHORTEST_TAGGED},
};

use crate::{
    counters, events,
    kernel::{
        Asks, Device, Kernel, is_from_vhost, is_steered,
        memory::{Address, member, offset},
    },
    log, negative_cache,
    packet::XdpFrame,
};

#[xdp]
pub fn tapbridge_fast_xdp(context: XdpContext) -> u32 {
    let ifindex = context.ingress_ifindex() as u32;
    match egress(context.ctx, ifindex) {
        Ok((target, bytes)) => {
            counters::forwarded(ifindex, target, Hook::Xdp, bytes);
            log::forwarded(&XdpFrame::new(context.ctx), Hook::Xdp, ifindex, target);
            // SAFETY: the helper only notes the target.
            unsafe { bpf_redirect(target, 0) as u32 }
        }
        Err(reason) => {
            if counters::left(ifindex, Hook::Xdp, reason, 0) {
                events::left(ifindex, Hook::Xdp, reason);
            }
            log::left(&XdpFrame::new(context.ctx), Hook::Xdp, ifindex, reason);
            XDP_PASS
        }
    }
}

/// Where a frame goes that is complete by now, and its bytes; or the number of the [`Reason`] to leave it.
#[inline(always)]
fn egress(context: *mut xdp_md, ifindex: u32) -> Result<(u32, u32), u32> {
    let queue = Queue::of_native(context).ok_or(Reason::Generic as u32)?;
    let mut frame = XdpFrame::new(context);
    let (ethernet, received) = read(&frame).ok_or(Reason::TooShort as u32)?;
    if let Some(reason) = negative_cache::lookup(ifindex, &received, Hook::Xdp) {
        return Err(reason);
    }
    match carry(&queue, ifindex, &mut frame, &ethernet, &received) {
        Ok(target) => Ok((target, received.length)),
        Err(reason) => {
            negative_cache::insert(ifindex, &received, reason);
            Err(reason as u32)
        }
    }
}

/// None if the frame ends too early.
#[inline(always)]
fn read(frame: &XdpFrame) -> Option<(Ethernet, Received)> {
    let length = frame.length();
    let ethernet = Ethernet::read(frame, None)?;
    let received = Received::new(frame, &ethernet, None, length, false);
    // The kernel drops a shorter one where it moves the tag out of the data (`skb_vlan_untag`).
    if received.tag.is_some() && length < SHORTEST_TAGGED {
        return None;
    }
    Some((ethernet, received))
}

/// The receive queue of a frame.
struct Queue {
    device: Device,
    /// The queue of the device's own array that has the same number.
    own: Address,
}

impl Queue {
    /// None if the frame is an skb: generic XDP takes the receive queue from the device's own array
    /// (`netif_get_rxqueue`), a tap's native frames come with the queue of the open file (`tun_file.xdp_rxq`).
    #[inline(always)]
    fn of_native(context: *mut xdp_md) -> Option<Self> {
        let queue = Address::of(context).open().follow(member!(xdp_buff_rxq));
        let device = queue.open().open(member!(xdp_rxq_info_dev));
        // SAFETY: the verifier turns this field of the context into a read of the frame's receive queue.
        let index = unsafe { (&raw const (*context).rx_queue_index).read_volatile() };
        let device = Device(device);
        let own = device.receive_queue(index);
        (queue != own.at(offset!(rx_queue_xdp_rxq))).then_some(Self { device, own })
    }
}

/// Decides, and completes the frame.
#[inline(always)]
fn carry(
    queue: &Queue,
    ifindex: u32,
    frame: &mut XdpFrame,
    ethernet: &Ethernet,
    received: &Received,
) -> Result<u32, Reason> {
    let kernel = Kernel {
        frame: &*frame,
        payload: ethernet.payload,
        device: queue.device,
        asks: Asks::Xdp,
    };
    let target = match decide(&kernel, received, Hook::Xdp) {
        // What needs another tag is left to tcx.
        Verdict::Forward(target, _) => target,
        Verdict::Leave(reason) => return Err(reason),
    };
    // Where frames that are redirected and frames that are passed would not stay in order, none is redirected.
    if is_steered(queue.own) {
        return Err(Reason::Steering);
    }
    if is_from_vhost() {
        return Err(Reason::VhostNet);
    }
    match checksum::action(frame, ethernet, received.length) {
        ChecksumAction::Keep => {}
        ChecksumAction::Pass => return Err(Reason::Checksum),
        ChecksumAction::Complete { offset, checksum } => {
            frame.write(offset, checksum).ok_or(Reason::Checksum)?;
            counters::port(ifindex, |counters| counters.checksums_completed += 1);
        }
    }
    Ok(target)
}
