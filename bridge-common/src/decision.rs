//! Where a frame goes. Both hooks ask the same function.

use crate::{
    counters::DropReason,
    fdb::{FdbEntry, FdbKey, REFRESH_INTERVAL},
    frame::{ETHERNET_HEADER, Ethernet, VLAN_TAG},
    port::{Ingress, Port, flag},
    recent::{Flow, Location},
};

/// A device's state, as the kernel holds it at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has a carrier. A tap has one while a reader is attached to it.
    pub carrier: bool,
    /// Queues that it transmits by now; a tap has one for each descriptor that reads it.
    pub queues: u32,
}

/// What the decision needs to know of the bridge.
pub trait Tables {
    /// `CLOCK_MONOTONIC_COARSE`, in ns.
    fn now(&self) -> u64;
    /// What was found out about a flow, if it is still true.
    fn recall(&self, flow: &Flow) -> Option<Location>;
    /// Remembers where a flow's destination is, and that its source teaches nothing.
    fn remember(&self, flow: &Flow, location: Location);
    /// The learned entry of an address, expired or not.
    fn learned(&self, key: &FdbKey) -> Option<FdbEntry>;
    /// The static entry of an address.
    fn static_entry(&self, key: &FdbKey) -> Option<FdbEntry>;
    /// The port in a slot; `None` past the last slot.
    fn port(&self, slot: u32) -> Option<Port>;
    /// The state of the device in a slot; `None` if the device is gone.
    fn device(&self, slot: u32) -> Option<Device>;
    /// The MTU of the device in a slot, in octets of payload; `None` if the device is gone.
    fn mtu(&self, slot: u32) -> Option<u32>;
}

/// What a hook knows of a frame before the tables are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The port that the frame came in by.
    pub ingress: Ingress,
    /// The frame's header; `None` if the frame ends before its header does.
    pub ethernet: Option<Ethernet>,
    /// Octets of the frame as the hook's redirect measures them: XDP with a VLAN tag, tcx without the one that lies in
    /// the metadata.
    pub length: u32,
    /// Whether the frame carries several segments that are cut later.
    pub gso: bool,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To one port.
    Forward {
        /// The port's slot.
        slot: u32,
        /// The port.
        port: Port,
        /// Its device.
        device: Device,
    },
    /// To every other port that is up.
    Flood,
    /// Nowhere.
    Drop(DropReason),
}

/// What the frame teaches about its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// Nothing new, or nothing to be trusted.
    Nothing,
    /// The address is still where it was: renew its time.
    Refresh,
    /// The address is new.
    Learn,
    /// The address was on another port.
    Move,
}

/// The answer of [`decide`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where the frame goes.
    pub verdict: Verdict,
    /// What to do with its source address.
    pub lesson: Lesson,
}

/// The longest frame that a device takes, in octets: as `is_skb_forwardable` and `xdp_ok_fwd_dev` reckon, which leave
/// room for one VLAN tag whether there is one or not.
#[inline(always)]
pub const fn longest_frame(mtu: u32) -> u32 {
    mtu.saturating_add(ETHERNET_HEADER + VLAN_TAG)
}

/// The smallest MTU that an Ethernet device can have (`ETH_MIN_MTU`): shorter frames always fit.
const SMALLEST_MTU: u32 = 68;

/// Whether a frame of this length is short enough for the device in a slot; `None` if the device is gone.
#[inline(always)]
fn fits(tables: &impl Tables, slot: u32, length: u32) -> Option<bool> {
    if length <= longest_frame(SMALLEST_MTU) {
        return Some(true);
    }
    tables.mtu(slot).map(|mtu| length <= longest_frame(mtu))
}

/// Decides where a frame goes and what its source teaches. `ageing` is the ageing time in ns.
#[inline(always)]
pub fn decide(tables: &impl Tables, received: &Received, ageing: u64) -> Decision {
    let unlearned = |reason| Decision {
        verdict: Verdict::Drop(reason),
        lesson: Lesson::Nothing,
    };
    let Some(ethernet) = &received.ethernet else {
        return unlearned(DropReason::TooShort);
    };
    if !ethernet.source.is_station() {
        return unlearned(DropReason::InvalidSource);
    }
    if ethernet.destination.is_link_local() {
        return unlearned(DropReason::LinkLocalGroup);
    }
    let flow = Flow {
        source: ethernet.source_key().to_bits(),
        destination: ethernet.destination_key().to_bits(),
        ingress: received.ingress,
    };
    let (location, lesson) = match tables.recall(&flow) {
        Some(location) => (location, Lesson::Nothing),
        None => find_out(tables, &flow, ethernet, ageing),
    };
    Decision {
        verdict: toward(tables, received, location),
        lesson,
    }
}

/// Where the destination is and what the source teaches, for those who don't remember.
#[inline(always)]
fn find_out(tables: &impl Tables, flow: &Flow, ethernet: &Ethernet, ageing: u64) -> (Location, Lesson) {
    let now = tables.now();
    let lesson = source(tables, flow.ingress, ethernet, now, ageing);
    let location = destination(tables, ethernet, now, ageing);
    if lesson == Lesson::Nothing {
        tables.remember(flow, location);
    }
    (location, lesson)
}

#[inline(always)]
fn source(tables: &impl Tables, ingress: Ingress, ethernet: &Ethernet, now: u64, ageing: u64) -> Lesson {
    let key = ethernet.source_key();
    match tables.learned(&key) {
        Some(entry) if u32::from(entry.slot) == ingress.slot && entry.generation == ingress.generation => {
            if entry.is_expired(now, REFRESH_INTERVAL) {
                Lesson::Refresh
            } else {
                Lesson::Nothing
            }
        }
        // A static address stays where the administrator put it.
        _ if tables.static_entry(&key).is_some() => Lesson::Nothing,
        Some(entry) if !entry.is_expired(now, ageing) => Lesson::Move,
        _ => Lesson::Learn,
    }
}

/// Where the destination is: for a group or an unknown station nowhere, so that the frame is flooded.
#[inline(always)]
fn destination(tables: &impl Tables, ethernet: &Ethernet, now: u64, ageing: u64) -> Location {
    if ethernet.destination.is_group() {
        return Location::NOWHERE;
    }
    let key = ethernet.destination_key();
    let entry = match tables.learned(&key) {
        Some(entry) if !entry.is_expired(now, ageing) => entry,
        _ => match tables.static_entry(&key) {
            Some(entry) => entry,
            None => return Location::NOWHERE,
        },
    };
    Location {
        generation: entry.generation,
        slot: u32::from(entry.slot),
    }
}

/// What becomes of a frame to a location. Asked anew for every frame: ports and devices change without
/// the forwarding database.
#[inline(always)]
fn toward(tables: &impl Tables, received: &Received, location: Location) -> Verdict {
    let slot = location.slot;
    let Some(port) = tables.port(slot) else {
        return Verdict::Flood;
    };
    if port.generation != location.generation || !port.has(flag::ACTIVE) {
        return Verdict::Flood;
    }
    if slot == received.ingress.slot {
        return Verdict::Drop(DropReason::SamePort);
    }
    let Some(device) = tables.device(slot) else {
        return Verdict::Flood;
    };
    if !device.up {
        return Verdict::Drop(DropReason::EgressDown);
    }
    if !device.carrier {
        return Verdict::Drop(DropReason::EgressNoCarrier);
    }
    if !received.gso {
        match fits(tables, slot, received.length) {
            Some(true) => {}
            Some(false) => return Verdict::Drop(DropReason::EgressMtu),
            None => return Verdict::Flood,
        }
    }
    Verdict::Forward { slot, port, device }
}
