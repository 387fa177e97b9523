//! What the programs read from the kernel's own structures: whether a frame is native, and how a device is now.
//!
//! No helper tells either. The offsets come from the running kernel's BTF, so they hold for the kernel that the
//! programs were loaded into.

use core::ptr;

use aya_ebpf::{Global, bindings::xdp_md, helpers::generated::bpf_map_lookup_elem, maps::DevMap};
use bridge_common::{decision::Device, layout::Kernel};

use crate::address::Address;

/// Set by the loader.
#[unsafe(no_mangle)]
static KERNEL: Global<Kernel> = Global::new(Kernel {
    xdp_buff_rxq: 0,
    xdp_rxq_info_dev: 0,
    net_device_rx: 0,
    net_device_flags: 0,
    net_device_state: 0,
    net_device_mtu: 0,
    netdev_rx_queue_xdp_rxq: 0,
    netdev_rx_queue_size: 0,
    devmap_value_to_dev: 0,
});

/// One offset. Reading the whole struct for each would be nine loads.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: `KERNEL` is one initialised `Kernel`; volatile, since the loader changes it behind the compiler.
        unsafe { (&raw const (*(&raw const KERNEL).cast::<Kernel>()).$field).read_volatile() }
    };
}

/// `IFF_UP`
const UP: u32 = 1 << 0;
/// `1 << __LINK_STATE_NOCARRIER`
const NO_CARRIER: u64 = 1 << 2;

/// A `struct net_device`. Both programs run under RCU, so a device found through a map or a frame does not go away
/// while they look at it.
#[derive(Clone, Copy)]
pub struct NetDevice(Address);

/// The device in a slot; `None` if the slot is empty or its device is gone.
#[inline(always)]
pub fn device_in(devices: &'static DevMap, slot: u32) -> Option<NetDevice> {
    // SAFETY: the map is a valid devmap and the key is one of its keys' type.
    let value =
        unsafe { bpf_map_lookup_elem(ptr::from_ref(devices).cast_mut().cast(), (&raw const slot).cast()) };
    if value.is_null() {
        return None;
    }
    // `dev_map_lookup_elem` answers with a pointer into `struct bpf_dtab_netdev`, which has the device beside it.
    let entry = Address((value as u64).wrapping_sub(offset!(devmap_value_to_dev)));
    entry.read(0).map(|device| NetDevice(Address(device)))
}

impl NetDevice {
    /// Whether the device is up and has a carrier.
    #[inline(always)]
    pub fn state(self) -> Option<Device> {
        let place = offset!(net_device_state);
        // Neighbours on recent kernels, where one read gets both; the verifier drops the branch that isn't the kernel's.
        let (state, flags) = if offset!(net_device_flags) == place + 8 {
            let [state, flags]: [u64; 2] = self.0.read(place)?;
            (state, flags as u32)
        } else {
            (self.0.read(place)?, self.0.read(offset!(net_device_flags))?)
        };
        Some(Device {
            up: flags & UP != 0,
            carrier: state & NO_CARRIER == 0,
        })
    }

    /// Whether the device is administratively up.
    #[inline(always)]
    pub fn is_up(self) -> Option<bool> {
        let flags: u32 = self.0.read(offset!(net_device_flags))?;
        Some(flags & UP != 0)
    }

    /// The device's MTU in octets.
    #[inline(always)]
    pub fn mtu(self) -> Option<u32> {
        self.0.read(offset!(net_device_mtu))
    }
}

/// The device that a native frame came in by; `None` if the frame is generic, that is, an skb.
///
/// Generic XDP takes the receive queue from the device's own array (`netif_get_rxqueue`); a tap's native frames come
/// with the queue of the open file (`tun_file.xdp_rxq`).
#[inline(always)]
pub fn native_device(context: *mut xdp_md) -> Option<NetDevice> {
    let receive_queue: u64 = Address(context as u64).read(offset!(xdp_buff_rxq))?;
    let device = Address(Address(receive_queue).read(offset!(xdp_rxq_info_dev))?);
    let queues: u64 = device.read(offset!(net_device_rx))?;
    // SAFETY: the verifier turns this field of the context into a read of the frame's receive queue.
    let index = unsafe { ptr::read_volatile(&raw const (*context).rx_queue_index) };
    let generic = queues
        .wrapping_add(u64::from(index).wrapping_mul(offset!(netdev_rx_queue_size)))
        .wrapping_add(offset!(netdev_rx_queue_xdp_rxq));
    (receive_queue != generic).then_some(NetDevice(device))
}
