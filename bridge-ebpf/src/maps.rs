//! The maps: one set for both programs. Sizes given here are defaults; the loader sets those that depend on the
//! bridge's number of ports.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray},
};
use bridge_common::{
    counters::{PathCounters, PortCounters},
    decision::{Device, Tables},
    fdb::{FdbEntry, FdbKey},
    layout::{Bridge, Config, DEFAULT_MAX_PORTS, MAX_LEARNED, MAX_STATIC},
    port::{Ingress, Port},
};

use crate::kernel::{self, NetDevice};

#[map]
pub static BRIDGE: Array<Bridge> = Array::with_max_entries(1, 0);

#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

#[map]
pub static INGRESS: HashMap<u32, Ingress> = HashMap::with_max_entries(DEFAULT_MAX_PORTS, 0);

#[map]
pub static PORTS: Array<Port> = Array::with_max_entries(DEFAULT_MAX_PORTS, 0);

#[map]
pub static DEVICES_XDP: DevMap = DevMap::with_max_entries(DEFAULT_MAX_PORTS, 0);

#[map]
pub static DEVICES_TCX: DevMap = DevMap::with_max_entries(DEFAULT_MAX_PORTS, 0);

/// By [`FdbKey::to_bits`].
#[map]
pub static LEARNED: LruHashMap<u64, FdbEntry> = LruHashMap::with_max_entries(MAX_LEARNED, 0);

/// By [`FdbKey::to_bits`].
#[map]
pub static STATIC: HashMap<u64, FdbEntry> = HashMap::with_max_entries(MAX_STATIC, BPF_F_NO_PREALLOC);

#[map]
pub static PORT_COUNTERS: PerCpuArray<PortCounters> = PerCpuArray::with_max_entries(DEFAULT_MAX_PORTS, 0);

#[map]
pub static PATHS: PerCpuArray<PathCounters> =
    PerCpuArray::with_max_entries(DEFAULT_MAX_PORTS * DEFAULT_MAX_PORTS, 0);

/// The bridge's settings.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// The port that belongs to a device.
#[inline(always)]
pub fn ingress(ifindex: u32) -> Option<Ingress> {
    // SAFETY: an element that is deleted at this moment may be another port's for one frame; the loader writes this
    // map only while the device that would be mistaken has no program attached.
    unsafe { INGRESS.get(ifindex) }.copied()
}

/// The maps as the decision sees them.
pub struct Maps {
    /// The hook's own.
    pub devices: &'static DevMap,
}

impl Tables for Maps {
    #[inline(always)]
    fn learned(&self, key: &FdbKey) -> Option<FdbEntry> {
        // SAFETY: the element may be given to another address while it is read. Then one frame reaches a port that
        // it was not meant for, as if it had been flooded.
        unsafe { LEARNED.get(key.to_bits()) }.copied()
    }

    #[inline(always)]
    fn static_entry(&self, key: &FdbKey) -> Option<FdbEntry> {
        // SAFETY: without preallocation an element is not reused before a grace period.
        unsafe { STATIC.get(key.to_bits()) }.copied()
    }

    #[inline(always)]
    fn port(&self, slot: u32) -> Option<Port> {
        PORTS.get(slot).copied()
    }

    #[inline(always)]
    fn device(&self, slot: u32) -> Option<Device> {
        kernel::device_in(self.devices, slot).map(NetDevice::state)
    }

    #[inline(always)]
    fn mtu(&self, slot: u32) -> Option<u32> {
        kernel::device_in(self.devices, slot).map(NetDevice::mtu)
    }
}
