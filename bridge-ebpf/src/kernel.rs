//! What the programs read from the kernel's own structures: whether a frame is native, and how a device is now.
//!
//! No helper tells either. The kernel function `bpf_rdonly_cast` (Linux 6.2) makes a typed pointer of an address, and
//! what is read through one is a plain load, which yields zero where there is nothing to read: it costs a nanosecond,
//! and `bpf_probe_read_kernel` ten. Offsets and types come from the running kernel's BTF, so they hold for the kernel
//! that the programs were loaded into.

use core::{mem, ptr};

use aya_ebpf::{
    Global,
    bindings::xdp_md,
    helpers::generated::{bpf_get_current_task_btf, bpf_map_lookup_elem},
    maps::DevMap,
};
use bridge_common::{
    decision::Device,
    layout::{ABSENT, Kernel, RDONLY_CAST},
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
    net_device_real_num_tx_queues: 0,
    netdev_rx_queue: 0,
    netdev_rx_queue_rps_map: 0,
    netdev_rx_queue_rps_flow_table: 0,
    netdev_rx_queue_xdp_rxq: 0,
    netdev_rx_queue_size: 0,
    bpf_dtab_netdev: 0,
    bpf_dtab_netdev_dev: 0,
    bpf_dtab_netdev_val: 0,
    task_struct_flags: 0,
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

// Of `task_struct.flags`; they are macros, which BTF does not describe (include/linux/sched.h).

/// `PF_IO_WORKER`: a worker of `io_uring`.
const IO_WORKER: u32 = 0x10;
/// `PF_USER_WORKER`: a kernel thread of a user's process.
const USER_WORKER: u32 = 0x4000;
/// `PF_KTHREAD`: a thread of the kernel's own.
const KERNEL_THREAD: u32 = 0x20_0000;

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
            queues: self.0.read(number!(net_device_real_num_tx_queues)),
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

/// Whether the frame that is being received is part of a batch of vhost-net, which the driver hands on frame by frame
/// (`tun_sendmsg`): the sender is a worker of vhost, and neither a process that writes nor a worker of `io_uring`.
#[inline(always)]
pub fn is_from_vhost() -> bool {
    // SAFETY: the helper has no preconditions.
    let task = Structure(unsafe { bpf_get_current_task_btf() } as *const u8);
    let flags: u32 = task.read(number!(task_struct_flags));
    flags & KERNEL_THREAD != 0 || flags & (USER_WORKER | IO_WORKER) == USER_WORKER
}

/// A frame that XDP sees before there is an skb.
#[derive(Clone, Copy)]
pub struct NativeFrame {
    /// The device that it came in by.
    pub device: NetDevice,
    /// Where the device's array of receive queues begins, and how many bytes behind that its own one lies.
    queues: Structure,
    queue: u64,
}

impl NativeFrame {
    /// The frame in this context; `None` if it is generic, that is, an skb.
    ///
    /// Generic XDP takes the receive queue from the device's own array (`netif_get_rxqueue`); a tap's native frames
    /// come with the queue of the open file (`tun_file.xdp_rxq`).
    #[inline(always)]
    pub fn of(context: *mut xdp_md) -> Option<Self> {
        let buffer = Structure::at(context.cast::<u8>(), number!(xdp_buff));
        let receive_queue = buffer.follow(number!(xdp_buff_rxq));
        let device = receive_queue.follow(number!(xdp_rxq_info_dev));
        let queues = device.follow(number!(net_device_rx));
        // SAFETY: the verifier turns this field of the context into a read of the frame's receive queue.
        let index = unsafe { ptr::read_volatile(&raw const (*context).rx_queue_index) };
        let queue = u64::from(index).wrapping_mul(number!(netdev_rx_queue_size));
        let generic = queue.wrapping_add(number!(netdev_rx_queue_xdp_rxq));
        (receive_queue.distance(queues) != generic).then_some(Self {
            device: NetDevice(device),
            queues,
            queue,
        })
    }

    /// Whether the frame may change the CPU if it is passed (`get_rps_cpu`), while those that are redirected stay.
    #[inline(always)]
    pub fn is_steered(self) -> bool {
        let queue = self.queues.0.wrapping_add(self.queue as usize);
        let queue = Structure::at(queue, number!(netdev_rx_queue));
        let set = |offset: u64| offset != ABSENT && queue.read::<u64>(offset) != 0;
        set(number!(netdev_rx_queue_rps_map)) || set(number!(netdev_rx_queue_rps_flow_table))
    }
}
