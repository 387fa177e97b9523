//! What the hooks would make of frames, for whoever wants to know before there are hooks: attached at tcx, it lets every
//! frame go on as it came, and counts.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, tcx_action_base::TCX_NEXT},
    macros::{classifier, map},
    maps::{PerCpuArray, PerCpuHashMap},
    programs::TcContext,
};
use bridge_common::{
    Hook,
    checksum::{self, ChecksumAction},
    counters::Traffic,
    forwarding::{Reason, Received, Retag, target},
    frame::{Ethernet, SHORTEST_TAGGED, VLAN_TAG, longest_frame},
    observed::{Key, Outcome, SizeClass},
};

use crate::{
    counters::LONGEST_NATIVE,
    kernel::{Asks, Device, Kernel, is_from_vhost, is_steered},
    packet::{Skb, XdpFrame},
};

/// Who observes makes more room; programs that are attached have none of it.
#[map]
static OBSERVED: PerCpuHashMap<Key, Traffic> = PerCpuHashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static UNOBSERVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Counts, and leaves the frame to whatever comes next.
#[classifier]
pub fn tapbridge_observe(context: TcContext) -> i32 {
    let skb = Skb::new(context.skb.skb);
    let tagged = skb.metadata_tag().is_some();
    let bytes = skb.length() + if tagged { VLAN_TAG } else { 0 };
    let gso = skb.is_gso();
    let (to, xdp, tcx) = outcomes(&skb, bytes, gso);
    let class = SizeClass::of(bytes, gso);
    let key = Key::new(skb.ifindex(), to, xdp, tcx, class);
    if !count(key, bytes)
        && let Some(unobserved) = UNOBSERVED.get_ptr_mut(0)
    {
        // SAFETY: as in `add`.
        unsafe { *unobserved += 1 };
    }
    TCX_NEXT
}

/// Whether there was room.
#[inline(always)]
fn count(key: Key, bytes: u32) -> bool {
    let mut first = Traffic::default();
    first.count(bytes);
    // Another CPU may make the element meanwhile. Where there is no room, there is none a second time.
    add(key, bytes) || OBSERVED.insert(key, first, u64::from(BPF_NOEXIST)).is_ok() || add(key, bytes)
}

/// Whether there is such an element, which counts it then.
#[inline(always)]
fn add(key: Key, bytes: u32) -> bool {
    let Some(observed) = OBSERVED.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: the element is this CPU's, and nobody else writes it while bottom halves are off.
    unsafe { (*observed).count(bytes) };
    true
}

/// Where tcx would send a frame of so many bytes, and what each hook would make of it: XDP, then tcx.
#[inline(always)]
fn outcomes(skb: &Skb, bytes: u32, gso: bool) -> (u32, Outcome, Outcome) {
    let left = |reason: Reason| (0, Outcome::left(reason), Outcome::left(reason));
    let tag = skb.metadata_tag();
    let Some(ethernet) = Ethernet::read(skb, tag) else {
        return left(Reason::TooShort);
    };
    let received = Received::new(skb, &ethernet, tag, skb.length(), gso);
    let kernel = Kernel {
        frame: skb,
        payload: ethernet.payload,
        device: Device::of_skb(skb.context()),
        asks: Asks::Observer,
    };
    match target(&kernel, &received, Hook::Tcx) {
        // XDP asks all that tcx asks.
        Err(reason) => left(reason),
        Ok((device, retag)) => {
            let xdp = match native(skb, &kernel, &ethernet, &received, bytes, device, retag) {
                Ok(outcome) => outcome,
                Err(reason) => Outcome::left(reason),
            };
            (device.index(), xdp, Outcome::CARRIED)
        }
    }
}

/// What XDP would make of a frame that tcx carries, had it met it. What it would have met differs by a tag that the kernel
/// has moved out of the data since, and that behind it an skb is.
#[inline(always)]
fn native(
    skb: &Skb,
    kernel: &Kernel<'_, Skb>,
    ethernet: &Ethernet,
    received: &Received,
    bytes: u32,
    target: Device,
    retag: Retag,
) -> Result<Outcome, Reason> {
    if received.gso || bytes > LONGEST_NATIVE.load() {
        return Err(Reason::Generic);
    }
    let tagged = skb.metadata_tag().is_some();
    if tagged && bytes < SHORTEST_TAGGED {
        return Err(Reason::TooShort);
    }
    if !matches!(retag, Retag::Keep) {
        return Err(Reason::VlanTag);
    }
    if bytes > longest_frame(target.mtu()) {
        return Err(Reason::EgressMtu);
    }
    if let Some(reason) = kernel.device.native_obstacle(target) {
        return Err(reason);
    }
    if is_steered(kernel.device.receive_queue(skb.receive_queue())) {
        return Err(Reason::Steering);
    }
    if is_from_vhost() {
        return Err(Reason::VhostNet);
    }
    match checksum::action(&XdpFrame::linear(skb), ethernet, skb.length()) {
        ChecksumAction::Keep => Ok(Outcome::CARRIED),
        ChecksumAction::Complete { .. } => Ok(Outcome::COMPLETED),
        ChecksumAction::Pass => Err(Reason::Checksum),
    }
}
