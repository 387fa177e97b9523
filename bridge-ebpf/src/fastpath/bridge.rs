//! Linux bridges as they lie in the kernel's memory. Programs run under RCU, so whatever they find there is not freed
//! while they look at it.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_jiffies64};
use bridge_common::{
    forwarding::{EntryFlags, Filtering, Membership, Options, PortVlan, Reason, Received, Tables, netfilter},
    frame::Frame,
    layout::ABSENT,
    port::flag,
};

use crate::{
    counters,
    memory::{Memory, offset},
};

/// `IFF_UP` and `IFF_PROMISC`
const UP: u32 = 1 << 0;
const PROMISCUOUS: u32 = 1 << 8;
/// `1 << __LINK_STATE_NOCARRIER`
const NO_CARRIER: u64 = 1 << 2;
/// `NETDEV_XDP_ACT_NDO_XMIT`
const XDP_TRANSMIT: u32 = 1 << 2;
/// `TCQ_F_CAN_BYPASS`
const QDISC_CAN_BYPASS: u32 = 1 << 2;
/// Indices of netfilter's hooks for bridges that a forwarded frame passes: `NF_BR_PRE_ROUTING`, `NF_BR_FORWARD`,
/// `NF_BR_POST_ROUTING`.
const HOOKS: [u64; 3] = [0, 2, 4];
const POINTER: u64 = 8;
/// `BRIDGE_VLAN_INFO_UNTAGGED`
const VLAN_UNTAGGED: u16 = 1 << 2;

// Of `task_struct.flags`; they are macros, which BTF does not describe (include/linux/sched.h).

/// `PF_IO_WORKER`: a worker of `io_uring`.
const IO_WORKER: u32 = 0x10;
/// `PF_USER_WORKER`: a kernel thread of a user's process.
const USER_WORKER: u32 = 0x4000;
/// `PF_KTHREAD`: a thread of the kernel's own.
const KERNEL_THREAD: u32 = 0x20_0000;

/// How far a chain of the hash table is followed. It has one entry or two; a miss is always safe.
const LONGEST_CHAIN: u32 = 24;

/// A `struct net_device`.
#[derive(Clone, Copy)]
pub struct Device(pub Memory);

/// A `struct net_bridge_port`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Port(Memory);

/// A `struct net_bridge_fdb_entry`.
#[derive(Clone, Copy)]
pub struct Entry(Memory);

/// The tables behind a frame that a device has received.
pub struct Kernel<'frame, F> {
    pub frame: &'frame F,
    /// Where its payload begins.
    pub payload: u32,
    pub device: Device,
    /// Id of the program at tcx.
    pub tcx_program: u32,
    /// Whether it does not matter how long ago the bridge has seen the source.
    pub all_fresh: bool,
}

/// Where the next header of an IPv6 packet lies in it.
const NEXT_HEADER: u32 = 6;

const ICMPV6: u8 = 58;

impl Port {
    #[inline(always)]
    fn bridge(self) -> Memory {
        self.0.follow(offset!(port_br))
    }

    /// The VLANs that it is a member of (`struct net_bridge_vlan_group`), null where the kernel filters none.
    #[inline(always)]
    fn vlans(self) -> Memory {
        if offset!(port_vlans) == ABSENT {
            Memory::NULL
        } else {
            self.0.follow(offset!(port_vlans))
        }
    }
}

impl Device {
    #[inline(always)]
    fn net(self) -> Memory {
        self.0.follow(offset!(dev_net))
    }

    #[inline(always)]
    pub fn index(self) -> u32 {
        self.0.read(offset!(dev_ifindex))
    }

    /// Queues by which it transmits now.
    #[inline(always)]
    pub fn transmit_queues(self) -> u32 {
        self.0.read(offset!(dev_real_num_tx_queues))
    }

    /// Its driver's `struct net_device_ops`.
    #[inline(always)]
    fn operations(self) -> Memory {
        self.0.follow(offset!(dev_netdev_ops))
    }

    /// Whether a tap's holder has given it a filter of addresses, a classic one or a program, which `tun_net_xmit` asks
    /// and `tun_xdp_xmit` does not.
    #[inline(always)]
    fn has_tap_filter(self) -> bool {
        let tap = self.0.at(offset!(dev_private));
        tap.read::<u8>(offset!(tun_filter_attached)) != 0
            || tap.read::<u32>(offset!(tun_address_filter)) != 0
            || !tap.follow(offset!(tun_filter_program)).is_null()
    }

    /// Whether a packet socket listens at the device alone.
    #[inline(always)]
    fn has_packet_socket(self) -> bool {
        !is_empty(self.0.at(offset!(dev_ptype_all)))
    }

    /// Whether a hook of netfilter's is taken at the device.
    #[inline(always)]
    fn has_hook(self, offset: u64) -> bool {
        offset != ABSENT && !self.0.follow(offset).is_null()
    }
}

/// Whether a `struct list_head` has no elements: it points to itself.
#[inline(always)]
fn is_empty(list: Memory) -> bool {
    list.follow(0) == list
}

/// Whether one function, or none where it may be missing, is all that is registered at a hook of netfilter.
#[inline(always)]
fn has_only(entries: Memory, function: u64, may_be_missing: bool) -> bool {
    if entries.is_null() {
        return may_be_missing;
    }
    let number: u16 = entries.read(offset!(hook_entries_number));
    number == 1 && function != 0 && entries.follow(offset!(hook_entries_hooks)).number() == function
}

/// What may happen to bridged frames in a network namespace, given the options of their bridge.
#[inline(always)]
fn filtering(net: Memory, options: u64) -> Filtering {
    if offset!(net_hooks_bridge) == ABSENT {
        return Filtering::Nothing;
    }
    let hooks = HOOKS.map(|hook| net.follow(offset!(net_hooks_bridge) + POINTER * hook));
    if hooks.iter().all(|entries| entries.is_null()) {
        return Filtering::Nothing;
    }
    let own = [
        offset!(br_nf_pre_routing),
        offset!(br_nf_forward),
        offset!(br_nf_post_routing),
    ];
    if own[0] == 0 {
        return Filtering::Rules;
    }
    for (entries, own) in hooks.into_iter().zip(own) {
        if !has_only(entries, own, false) {
            return Filtering::Rules;
        }
    }
    let settings = net
        .follow(offset!(net_gen))
        .follow(offset!(net_generic_ptr) + POINTER * offset!(brnf_slot));
    let calls: u32 = settings.read::<u32>(offset!(brnf_call_iptables))
        | settings.read::<u32>(offset!(brnf_call_ip6tables))
        | settings.read::<u32>(offset!(brnf_call_arptables));
    if !settings.is_null() && calls == 0 && options & offset!(options_nf_call) == 0 {
        return Filtering::Nothing;
    }
    for hooks in [offset!(net_hooks_ipv4), offset!(net_hooks_ipv6)] {
        // No rules: one lets bridged frames pass by the rules a second time, the other, which is there wherever AppArmor
        // is, looks at what has a socket.
        let own = [offset!(ip_sabotage_in), 0, offset!(apparmor_ip_postroute)];
        for (hook, own) in HOOKS.into_iter().zip(own) {
            if !has_only(net.follow(hooks + POINTER * hook), own, true) {
                return Filtering::Rules;
            }
        }
    }
    Filtering::Headers
}

/// `jhash2` of two words, and `jhash` of less than five bytes that are the first of them (include/linux/jhash.h).
#[inline(always)]
fn hash(key: u64, length: u32, seed: u32) -> u32 {
    let initial = 0xdead_beef_u32.wrapping_add(length).wrapping_add(seed);
    let (mut a, mut b, mut c) = (
        initial.wrapping_add(key as u32),
        initial.wrapping_add((key >> 32) as u32),
        initial,
    );
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// A kind of hash table.
struct Kind {
    /// Bytes of a key.
    key_length: u32,
    /// Where a structure has its link to the next one.
    node: u64,
}

/// Looks a key up in one bucket table (`rhashtable_lookup`), by what tells whether a structure has it.
#[inline(always)]
fn find(table: Memory, kind: &Kind, key: u64, has_it: impl Fn(Memory) -> bool) -> Option<Memory> {
    // A table with a second level of buckets is one that is being filled for lack of memory.
    if table.read::<u32>(offset!(table_nest)) != 0 {
        return None;
    }
    let size: u32 = table.read(offset!(table_size));
    let bucket = hash(key, kind.key_length, table.read(offset!(table_hash_rnd))) & size.wrapping_sub(1);
    // The lowest bit of a bucket is its lock, and an odd pointer ends a chain.
    let mut node = table
        .follow(offset!(table_buckets) + POINTER * u64::from(bucket))
        .even();
    for _ in 0..LONGEST_CHAIN {
        if node.is_null() || node.even() != node {
            return None;
        }
        let structure = node.before(kind.node);
        if has_it(structure) {
            return Some(structure);
        }
        node = node.follow(0);
    }
    None
}

impl<F: Frame> Tables for Kernel<'_, F> {
    type Port = Port;
    type Entry = Entry;
    type Device = Device;

    #[inline(always)]
    fn ingress(&self) -> Option<Port> {
        let kinds = u64::from(self.device.0.read::<u32>(offset!(dev_priv_flags)));
        let port = self.device.0.follow(offset!(dev_rx_handler_data));
        (kinds & offset!(iff_bridge_port) != 0 && !port.is_null()).then_some(Port(port))
    }

    #[inline(always)]
    fn flags(&self, port: Port) -> u64 {
        port.0.read(offset!(port_flags))
    }

    #[inline(always)]
    fn state(&self, port: Port) -> u8 {
        port.0.read(offset!(port_state))
    }

    #[inline(always)]
    fn options(&self, port: Port) -> Options {
        let bridge = port.bridge();
        let options: u64 = bridge.read(offset!(br_options));
        let flags: u32 = bridge.follow(offset!(br_dev)).read(offset!(dev_flags));
        Options {
            vlan_filtering: options & offset!(option_vlan) != 0,
            vlan_statistics: options & offset!(option_vlan_stats) != 0,
            mst: options & offset!(option_mst) != 0,
            neigh_suppress: options & offset!(option_neigh_suppress) != 0,
            promiscuous: flags & PROMISCUOUS != 0,
        }
    }

    #[inline(always)]
    fn filtering(&self, port: Port) -> Filtering {
        filtering(self.device.net(), port.bridge().read(offset!(br_options)))
    }

    #[inline(always)]
    fn bypasses_netfilter(&self, device: Device) -> bool {
        counters::port_flags(device.index()) & flag::BYPASS_NETFILTER != 0
    }

    #[inline(always)]
    fn is_kept_by_netfilter(&self, received: &Received) -> bool {
        netfilter::keeps(self.frame, received.ethertype, received.length)
    }

    #[inline(always)]
    fn may_be_icmpv6(&self) -> bool {
        let next = self.frame.read(self.payload + NEXT_HEADER);
        next.is_none_or(|[next]: [u8; 1]| next == ICMPV6)
    }

    #[inline(always)]
    fn has_vlan_devices(&self) -> bool {
        if offset!(dev_vlan_info) == ABSENT {
            return false;
        }
        let vlans = self.device.0.follow(offset!(dev_vlan_info));
        !vlans.is_null() && vlans.read::<u32>(offset!(vlan_info_devices)) != 0
    }

    #[inline(always)]
    fn has_ingress_hook(&self) -> bool {
        self.device.has_hook(offset!(dev_nf_hooks_ingress))
    }

    /// Our own program must be there, alone: where it has been detached, somebody else's may have its place.
    #[inline(always)]
    fn has_ingress_filter(&self) -> bool {
        let entry = self.device.0.follow(offset!(dev_tcx_ingress));
        if entry.is_null() {
            return true;
        }
        let first: u32 = entry
            .follow(0)
            .follow(offset!(prog_aux))
            .read(offset!(prog_aux_id));
        let second = entry.follow(POINTER);
        let classic = entry
            .follow(offset!(mprog_parent))
            .before(offset!(tcx_bundle))
            .follow(offset!(tcx_miniq));
        first != self.tcx_program || !second.is_null() || !classic.is_null()
    }

    #[inline(always)]
    fn vlan_protocol(&self, port: Port) -> u16 {
        if offset!(port_vlans) == ABSENT {
            return 0;
        }
        u16::from_be(port.bridge().read(offset!(br_vlan_protocol)))
    }

    #[inline(always)]
    fn port_vlan(&self, port: Port) -> PortVlan {
        let vlans = port.vlans();
        if vlans.is_null() {
            return PortVlan { id: 0, state: 0 };
        }
        PortVlan {
            id: vlans.read(offset!(vlans_own)),
            state: vlans.read(offset!(vlans_own_state)),
        }
    }

    /// A table that is being resized is not followed into the next: it has a VLAN again in a moment.
    #[inline(always)]
    fn membership(&self, port: Port, vlan: u16) -> Option<Membership> {
        let vlans = port.vlans();
        if vlans.is_null() {
            return None;
        }
        let kind = Kind {
            key_length: 2,
            node: offset!(vlan_node),
        };
        let table = vlans.follow(offset!(vlans_table));
        let found = find(table, &kind, u64::from(vlan), |found| {
            found.read::<u16>(offset!(vlan_id)) == vlan
        })?;
        Some(Membership {
            state: found.read(offset!(vlan_state)),
            untagged: found.read::<u16>(offset!(vlan_flags)) & VLAN_UNTAGGED != 0,
        })
    }

    #[inline(always)]
    fn entry(&self, port: Port, vlan: u16, address: u64) -> Option<Entry> {
        // `struct net_bridge_fdb_key`
        let key = address | u64::from(vlan) << 48;
        let kind = Kind {
            key_length: 8,
            node: offset!(entry_rhnode),
        };
        let has_it = |found: Memory| found.read::<u64>(offset!(entry_key)) == key;
        let table = port.bridge().follow(offset!(br_fdb));
        if let Some(entry) = find(table, &kind, key, has_it) {
            return Some(Entry(entry));
        }
        // While a table is resized, its entries move to the next one by one.
        let next = table.follow(offset!(table_future));
        if next.is_null() {
            return None;
        }
        find(next, &kind, key, has_it).map(Entry)
    }

    #[inline(always)]
    fn entry_flags(&self, entry: Entry) -> EntryFlags {
        let flags: u64 = entry.0.read(offset!(entry_flags));
        EntryFlags {
            local: flags & offset!(entry_local) != 0,
            locked: flags & offset!(entry_locked) != 0,
            notify_inactive: flags & offset!(entry_notify_inactive) != 0,
        }
    }

    #[inline(always)]
    fn entry_port(&self, entry: Entry) -> Option<Port> {
        let port = entry.0.follow(offset!(entry_dst));
        (!port.is_null()).then_some(Port(port))
    }

    #[inline(always)]
    fn is_fresh(&self, port: Port, entry: Entry) -> bool {
        if self.all_fresh {
            return true;
        }
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_jiffies64() };
        let age = now.wrapping_sub(entry.0.read(offset!(entry_updated)));
        let ageing: u64 = port.bridge().read(offset!(br_ageing_time));
        age < (ageing / 4).min(offset!(hz))
    }

    #[inline(always)]
    fn device(&self, port: Port) -> Device {
        Device(port.0.follow(offset!(port_dev)))
    }

    #[inline(always)]
    fn index(&self, device: Device) -> u32 {
        device.index()
    }

    #[inline(always)]
    fn is_up(&self, device: Device) -> bool {
        device.0.read::<u32>(offset!(dev_flags)) & UP != 0
    }

    #[inline(always)]
    fn has_carrier(&self, device: Device) -> bool {
        device.0.read::<u64>(offset!(dev_state)) & NO_CARRIER == 0
    }

    #[inline(always)]
    fn mtu(&self, device: Device) -> u32 {
        device.0.read(offset!(dev_mtu))
    }

    #[inline(always)]
    fn has_egress_hook(&self, device: Device) -> bool {
        device.has_hook(offset!(dev_nf_hooks_egress))
    }

    #[inline(always)]
    fn native_obstacle(&self, device: Device) -> Option<Reason> {
        if device.0.read::<u32>(offset!(dev_xdp_features)) & XDP_TRANSMIT == 0 {
            return Some(Reason::Target);
        }
        // The port is a tap, and of another one it is known what becomes of a native frame.
        if device.operations() != self.device.operations() || offset!(tun_filter_attached) == ABSENT {
            return Some(Reason::Target);
        }
        if device.has_tap_filter() {
            return Some(Reason::EgressFilter);
        }
        if device.transmit_queues() > 1 {
            return Some(Reason::TargetQueues);
        }
        if !device.0.follow(offset!(dev_tcx_egress)).is_null() {
            return Some(Reason::EgressFilter);
        }
        let discipline = device.0.follow(offset!(dev_tx)).follow(offset!(tx_queue_qdisc));
        let queues = !discipline.follow(offset!(qdisc_enqueue)).is_null();
        if queues && discipline.read::<u32>(offset!(qdisc_flags)) & QDISC_CAN_BYPASS == 0 {
            return Some(Reason::Queueing);
        }
        let everywhere = if offset!(net_ptype_all) == ABSENT {
            Memory::of(offset!(global_ptype_all) as *const u8)
        } else {
            self.device.net().at(offset!(net_ptype_all))
        };
        // Where the list can't be found, nobody knows who listens.
        let unheard = everywhere.is_null() || !is_empty(everywhere);
        if unheard || device.has_packet_socket() || self.device.has_packet_socket() {
            return Some(Reason::PacketSocket);
        }
        None
    }
}

/// Whether the frame that is being received is part of a batch of vhost-net, which the driver hands on frame by frame
/// (`tun_sendmsg`): the sender is a worker of vhost, and neither a process that writes nor a worker of `io_uring`.
#[inline(always)]
pub fn is_from_vhost() -> bool {
    // SAFETY: the helper has no preconditions.
    let task = Memory::of(unsafe { bpf_get_current_task_btf() } as *const u8);
    let flags: u32 = task.read(offset!(task_flags));
    flags & KERNEL_THREAD != 0 || flags & (USER_WORKER | IO_WORKER) == USER_WORKER
}
