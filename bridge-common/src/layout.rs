//! The names, sizes and versions that the object file and its loader agree on.

/// Version of everything pinned: maps, their types, their meaning. A bridge pinned by another version is refused.
pub const VERSION: u32 = 4;

/// The most ports that a bridge can be created for.
pub const MAX_PORTS_LIMIT: u32 = 1024;
/// Ports that a bridge is created for unless told otherwise. The path counters take `max_ports² × 32` octets per CPU.
pub const DEFAULT_MAX_PORTS: u32 = 64;
/// Learned addresses that a bridge holds; past that the least recently used make room.
pub const MAX_LEARNED: u32 = 65_536;
/// Static addresses that a bridge holds.
pub const MAX_STATIC: u32 = 16_384;

/// Settings that the programs read on every frame: the map `CONFIG`, one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// How long a learned address lives without a frame from it, in ns.
    pub ageing: u64,
    /// Grows with everything that a command changes: what the programs remember from before is void.
    pub changes: u64,
    /// One more than the highest slot in use: how far a flood looks.
    pub slots_in_use: u32,
    /// Non-zero while somebody reads the log: changes of the FDB are written to it.
    pub log: u32,
    /// Odd while a command moves counters from one place to another: what is read meanwhile does not add up.
    pub settling: u64,
}

/// What the user side must know of a pinned bridge: the map `BRIDGE`, one element, written last when a bridge is made.
///
/// `version` stays the first field in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Bridge {
    /// [`VERSION`] of the loader that pinned the bridge; 0 in one whose making was interrupted.
    pub version: u32,
    /// Slots for ports.
    pub max_ports: u32,
    /// Inode of the network namespace whose ifindexes the maps hold, to find it by; a later one can have the same.
    pub network_namespace: u64,
    /// The next port's generation.
    pub next_generation: u32,
    /// The lower half of that namespace's cookie (`SO_NETNS_COOKIE`, a count of namespaces); 0 in a bridge of version 3.
    pub network_cookie: u32,
}

/// What the running kernel's BTF says of its structures: the global `KERNEL`, set when the programs are loaded. Offsets
/// and sizes are octets; a structure's or function's own name stands for its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Kernel {
    /// The function that the loader puts in the place of [`RDONLY_CAST`].
    pub bpf_rdonly_cast: u64,
    /// `xdp_buff`
    pub xdp_buff: u64,
    /// `xdp_buff.rxq`
    pub xdp_buff_rxq: u64,
    /// `xdp_rxq_info.dev`
    pub xdp_rxq_info_dev: u64,
    /// `net_device._rx`
    pub net_device_rx: u64,
    /// `net_device.flags`
    pub net_device_flags: u64,
    /// `net_device.state`
    pub net_device_state: u64,
    /// `net_device.mtu`
    pub net_device_mtu: u64,
    /// `net_device.real_num_tx_queues`
    pub net_device_real_num_tx_queues: u64,
    /// `netdev_rx_queue`
    pub netdev_rx_queue: u64,
    /// `netdev_rx_queue.xdp_rxq`
    pub netdev_rx_queue_xdp_rxq: u64,
    /// `netdev_rx_queue.rps_map`, or [`ABSENT`] in a kernel without `CONFIG_RPS`.
    pub netdev_rx_queue_rps_map: u64,
    /// `netdev_rx_queue.rps_flow_table`, or [`ABSENT`] likewise.
    pub netdev_rx_queue_rps_flow_table: u64,
    /// Size of `netdev_rx_queue`.
    pub netdev_rx_queue_size: u64,
    /// `bpf_dtab_netdev`
    pub bpf_dtab_netdev: u64,
    /// `bpf_dtab_netdev.dev`
    pub bpf_dtab_netdev_dev: u64,
    /// `bpf_dtab_netdev.val`, which a lookup in a devmap answers with.
    pub bpf_dtab_netdev_val: u64,
    /// `task_struct.flags`
    pub task_struct_flags: u64,
}

/// The offset of a member that the running kernel does not have.
pub const ABSENT: u64 = u64::MAX;

/// The number that the programs call for `bpf_rdonly_cast`, which aya does not link: no helper's, and none of the
/// object's other octets look like a call of it.
pub const RDONLY_CAST: u32 = 0x7a70_0001;

/// Names of the programs in the object file.
pub mod program {
    /// The fast path.
    pub const XDP: &str = "tapbridge_xdp";
    /// The switch.
    pub const TCX: &str = "tapbridge_tcx";
}

/// Names of the maps in the object file.
pub mod map {
    /// Array of one [`super::Bridge`].
    pub const BRIDGE: &str = "BRIDGE";
    /// Array of one [`super::Config`].
    pub const CONFIG: &str = "CONFIG";
    /// Hash of ifindex to [`crate::port::Ingress`].
    pub const INGRESS: &str = "INGRESS";
    /// Array of slot to [`crate::port::Port`].
    pub const PORTS: &str = "PORTS";
    /// Devmap of slot to device, by [`crate::Hook`]: a devmap belongs to the first type of program that uses it
    /// (`__bpf_prog_map_compatible`), so each hook has its own. The kernel takes a device out when the device goes.
    pub const DEVICES: [&str; 2] = ["DEVICES_XDP", "DEVICES_TCX"];
    /// LRU hash of [`crate::fdb::FdbKey`] to [`crate::fdb::FdbEntry`]: learned addresses.
    pub const LEARNED: &str = "LEARNED";
    /// Hash of [`crate::fdb::FdbKey`] to [`crate::fdb::FdbEntry`]: static addresses.
    pub const STATIC: &str = "STATIC";
    /// Per-CPU array of slot to [`crate::counters::PortCounters`].
    pub const PORT_COUNTERS: &str = "PORT_COUNTERS";
    /// Per-CPU array of `from * max_ports + to` to [`crate::counters::PathCounters`].
    pub const PATHS: &str = "PATHS";
    /// Array of slot to [`crate::counters::DetachedPaths`].
    pub const DETACHED: &str = "DETACHED";
}

/// Name of the global that holds [`Kernel`].
pub const KERNEL: &str = "KERNEL";
/// Name of the global that holds the length of the longest frame that native XDP takes, in octets (`u32`).
pub const LONGEST_NATIVE: &str = "LONGEST_NATIVE";
/// Of a page, what a native frame has no room in: `TUN_RX_PAD` and `XDP_PACKET_HEADROOM` before it, `skb_shared_info`
/// behind it (`tun_can_build_skb`).
pub const NATIVE_OVERHEAD: u32 = 64 + 256 + 320;
/// Name of the global that holds the bridge's number of slots (`u32`).
pub const MAX_PORTS: &str = "MAX_PORTS";
