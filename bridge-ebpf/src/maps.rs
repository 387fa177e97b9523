//! The maps: one set for both programs. Sizes given here are defaults; the loader sets those that depend on the
//! bridge's number of ports.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns,
    },
    macros::map,
    maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray},
};
use bridge_common::{
    counters::{DetachedPaths, PathCounters, PortCounters},
    decision::{Device, Tables},
    fdb::{FdbEntry, FdbKey},
    layout::{Bridge, Config, DEFAULT_MAX_PORTS, MAX_LEARNED, MAX_STATIC},
    port::{Ingress, Port},
    recent::{DEVICES, FLOWS, Flow, Location, Moment, RecentFlow, RecentPort},
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

#[map]
pub static DETACHED: Array<DetachedPaths> = Array::with_max_entries(DEFAULT_MAX_PORTS, 0);

#[map]
static RECENT_PORTS: PerCpuArray<RecentPort> = PerCpuArray::with_max_entries(DEVICES, 0);

#[map]
static RECENT_FLOWS: PerCpuArray<RecentFlow> = PerCpuArray::with_max_entries(FLOWS, 0);

/// Another number whenever something was learned.
#[unsafe(no_mangle)]
static mut LAST_LESSON: u64 = 0;

/// Makes void what any CPU remembers. After the change, not before it.
#[inline(always)]
pub fn forget_recent() {
    // No CPU comes twice at the same time, so no number comes twice; the compiler has no atomic addition on BPF.
    // SAFETY: the helpers have no preconditions. The number is only read and written whole, and volatile, since other
    // CPUs do so too.
    unsafe {
        let number = bpf_ktime_get_ns() << 12 | u64::from(bpf_get_smp_processor_id());
        (&raw mut LAST_LESSON).write_volatile(number);
    }
}

/// The bridge's settings.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// The moment that it is. To be asked before the maps are.
#[inline(always)]
pub fn moment(config: &Config) -> Moment {
    Moment {
        // SAFETY: the helper has no preconditions.
        tick: unsafe { bpf_jiffies64() },
        // SAFETY: the setting is initialised; volatile, since a command may write it now.
        changes: unsafe { (&raw const config.changes).read_volatile() },
        // SAFETY: as in `forget_recent`.
        last_lesson: unsafe { (&raw const LAST_LESSON).read_volatile() },
    }
}

/// The port that belongs to a device.
#[inline(always)]
pub fn ingress(ifindex: u32, moment: Moment) -> Option<Ingress> {
    let recent = RECENT_PORTS.get_ptr_mut(ifindex % DEVICES);
    if let Some(recent) = recent {
        // SAFETY: the element is this CPU's and nobody else writes it now.
        let answer = unsafe { (*recent).answer(ifindex, moment) };
        if answer.is_some() {
            return answer;
        }
    }
    // SAFETY: an element that is deleted at this moment may be another port's for one frame; the loader writes this
    // map only while the device that would be mistaken has no program attached.
    let ingress = unsafe { INGRESS.get(ifindex) }.copied()?;
    if let Some(recent) = recent {
        // SAFETY: as above.
        unsafe {
            *recent = RecentPort {
                moment,
                ifindex,
                reserved: 0,
                ingress,
            };
        }
    }
    Some(ingress)
}

/// The port in a slot.
#[inline(always)]
pub fn port(slot: u32) -> Option<Port> {
    PORTS.get(slot).copied()
}

/// The state of the device in a slot of a hook's devmap.
#[inline(always)]
pub fn device(devices: &'static DevMap, slot: u32) -> Option<Device> {
    kernel::device_in(devices, slot).map(NetDevice::state)
}

/// The maps as the decision sees them.
pub struct Maps {
    /// The hook's own.
    pub devices: &'static DevMap,
    /// See [`moment`].
    pub moment: Moment,
}

impl Tables for Maps {
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn recall(&self, flow: &Flow) -> Option<Location> {
        let recent = RECENT_FLOWS.get_ptr(flow.place())?;
        // SAFETY: the element is this CPU's and nobody writes it now.
        unsafe { &*recent }.answer(flow, self.moment)
    }

    #[inline(always)]
    fn remember(&self, flow: &Flow, location: Location) {
        if let Some(recent) = RECENT_FLOWS.get_ptr_mut(flow.place()) {
            // SAFETY: the element is this CPU's and nobody else writes it now.
            unsafe {
                *recent = RecentFlow {
                    moment: self.moment,
                    flow: *flow,
                    location,
                };
            }
        }
    }

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
        port(slot)
    }

    #[inline(always)]
    fn device(&self, slot: u32) -> Option<Device> {
        device(self.devices, slot)
    }

    #[inline(always)]
    fn mtu(&self, slot: u32) -> Option<u32> {
        kernel::device_in(self.devices, slot).map(NetDevice::mtu)
    }
}
