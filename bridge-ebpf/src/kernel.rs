//! What the programs read from the kernel's own structures: whether a frame is native, and how a device is now.
//!
//! No helper tells either. The kernel function `bpf_rdonly_cast` (Linux 6.2) makes a typed pointer of an address, and
//! what is read through one is a plain load, which yields zero where there is nothing to read: it costs a nanosecond,
//! and `bpf_probe_read_kernel` ten. Offsets and types come from the running kernel's BTF, so they hold for the kernel
//! that the programs were loaded into.

use core::{mem, ptr};

use aya_ebpf::{Global, bindings::xdp_md, helpers::generated::bpf_map_lookup_elem, maps::DevMap};
use bridge_common::{
    decision::Device,
    layout::{Kernel, RDONLY_CAST},
};

/// Set by the loader.
#[unsafe(no_mangle)]
static KERNEL: Global<Kernel> = Global::new(Kernel {
    bpf_rdonly_cast: 0,
    xdp_buff: 0,
    xdp_buff_rxq: 0,
    xdp_rxq_info_dev: 0,
    net_device_rx: 0,
    net_device_flags: 0,
    net_device_state: 0,
    net_device_mtu: 0,
    netdev_rx_queue_xdp_rxq: 0,
    netdev_rx_queue_size: 0,
    bpf_dtab_netdev: 0,
    bpf_dtab_netdev_dev: 0,
    bpf_dtab_netdev_val: 0,
});

/// One number. Reading the whole struct for each would be a load per field.
macro_rules! number {
    ($field:ident) => {
        // SAFETY: `KERNEL` is one initialised `Kernel`; volatile, since the loader changes it behind the compiler.
        unsafe { (&raw const (*(&raw const KERNEL).cast::<Kernel>()).$field).read_volatile() }
    };
}

/// `IFF_UP`
const UP: u32 = 1 << 0;
/// `1 << __LINK_STATE_NOCARRIER`
const NO_CARRIER: u64 = 1 << 2;

/// A pointer to one of the kernel's structures, whose type the verifier knows.
#[derive(Clone, Copy)]
struct Structure(*const u8);

impl Structure {
    /// The structure of this type at an address.
    #[inline(always)]
    fn at(address: *const u8, kind: u64) -> Self {
        // SAFETY: a call of an address is how the compiler is told a function's number; the loader has made it the
        // number of `void *bpf_rdonly_cast(const void *, u32)`, which the verifier replaces by a move.
        let cast: unsafe extern "C" fn(*const u8, u64) -> *const u8 =
            unsafe { mem::transmute(RDONLY_CAST as usize) };
        // SAFETY: the function has no preconditions.
        Self(unsafe { cast(address, kind) })
    }

    /// A member at an offset.
    #[inline(always)]
    fn read<T: Copy>(self, offset: u64) -> T {
        // SAFETY: the verifier checks that the structure has a member of this size there, and makes the load one that
        // yields zero instead of failing; every `T` here is an integer or a pointer. Volatile, since the kernel writes
        // it meanwhile.
        unsafe { self.0.wrapping_add(offset as usize).cast::<T>().read_volatile() }
    }

    /// The structure that a member points to.
    #[inline(always)]
    fn follow(self, offset: u64) -> Self {
        Self(self.read(offset))
    }

    /// How far this one lies behind another, in octets.
    #[inline(always)]
    fn distance(self, other: Self) -> u64 {
        (self.0 as u64).wrapping_sub(other.0 as u64)
    }
}

/// A `struct net_device`. Both programs run under RCU, so a device found through a map or a frame does not go away
/// while they look at it.
#[derive(Clone, Copy)]
pub struct NetDevice(Structure);

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
    let entry = value
        .cast::<u8>()
        .wrapping_sub(number!(bpf_dtab_netdev_val) as usize);
    let entry = Structure::at(entry, number!(bpf_dtab_netdev));
    Some(NetDevice(entry.follow(number!(bpf_dtab_netdev_dev))))
}

impl NetDevice {
    /// Whether the device is up and has a carrier.
    #[inline(always)]
    pub fn state(self) -> Device {
        let state: u64 = self.0.read(number!(net_device_state));
        Device {
            up: self.is_up(),
            carrier: state & NO_CARRIER == 0,
        }
    }

    /// Whether the device is administratively up.
    #[inline(always)]
    pub fn is_up(self) -> bool {
        let flags: u32 = self.0.read(number!(net_device_flags));
        flags & UP != 0
    }

    /// The device's MTU in octets.
    #[inline(always)]
    pub fn mtu(self) -> u32 {
        self.0.read(number!(net_device_mtu))
    }
}

/// The device that a native frame came in by; `None` if the frame is generic, that is, an skb.
///
/// Generic XDP takes the receive queue from the device's own array (`netif_get_rxqueue`); a tap's native frames come
/// with the queue of the open file (`tun_file.xdp_rxq`).
#[inline(always)]
pub fn native_device(context: *mut xdp_md) -> Option<NetDevice> {
    let buffer = Structure::at(context.cast::<u8>(), number!(xdp_buff));
    let receive_queue = buffer.follow(number!(xdp_buff_rxq));
    let device = receive_queue.follow(number!(xdp_rxq_info_dev));
    let queues = device.follow(number!(net_device_rx));
    // SAFETY: the verifier turns this field of the context into a read of the frame's receive queue.
    let index = unsafe { ptr::read_volatile(&raw const (*context).rx_queue_index) };
    let generic = u64::from(index)
        .wrapping_mul(number!(netdev_rx_queue_size))
        .wrapping_add(number!(netdev_rx_queue_xdp_rxq));
    (receive_queue.distance(queues) != generic).then_some(NetDevice(device))
}
