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
    memory::{Address, Member, Structure, is_set, member, offset},
};

/// `IFF_PROMISC`
const PROMISCUOUS: u32 = 1 << 8;
/// `1 << __LINK_STATE_NOCARRIER`
const NO_CARRIER: u64 = 1 << 2;
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
pub struct Device(pub Structure);

/// A `struct net_bridge_port`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Port(Structure);

/// A `struct net_bridge`.
#[derive(Clone, Copy)]
pub struct Bridge(Structure);

/// A `struct net_bridge_fdb_entry`.
#[derive(Clone, Copy)]
pub struct Entry(Structure);

/// The tables behind a frame that a device has received.
pub struct Kernel<'frame, F> {
    pub frame: &'frame F,
    /// Where its payload begins.
    pub payload: u32,
    pub device: Device,
    /// Who asks.
    pub asks: Asks,
}

/// Who asks what becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// XDP, before tcx.
    Xdp,
    /// Our program at tcx, which is there since it runs.
    Tcx,
    /// Somebody who wants to know what the hooks would decide, however long ago the bridge has seen the source.
    Anybody,
}

/// Where the next header of an IPv6 packet lies in it.
const NEXT_HEADER: u32 = 6;

const ICMPV6: u8 = 58;

impl Port {
    /// The table of VLANs that it is a member of (`struct net_bridge_vlan_group`), none where the kernel filters none.
    #[inline(always)]
    fn vlans(self) -> Option<Structure> {
        if offset!(port_vlans) == ABSENT {
            return None;
        }
        let vlans = self.0.follow(member!(port_vlans));
        (!vlans.is_null()).then(|| vlans.open())
    }
}

impl Device {
    #[inline(always)]
    fn net(self) -> Address {
        self.0.follow(member!(dev_net))
    }

    #[inline(always)]
    pub fn index(self) -> u32 {
        self.0.read(member!(dev_ifindex))
    }

    /// Queues by which it transmits now.
    #[inline(always)]
    pub fn transmit_queues(self) -> u32 {
        self.0.read(member!(dev_real_num_tx_queues))
    }

    /// Its driver's `struct net_device_ops`.
    #[inline(always)]
    fn operations(self) -> Address {
        self.0.follow(member!(dev_netdev_ops))
    }

    /// Whether a tap's holder has given it a filter of addresses, a classic one or a program, which `tun_net_xmit` asks
    /// and `tun_xdp_xmit` does not.
    #[inline(always)]
    fn has_tap_filter(self) -> bool {
        self.0.read::<u8>(member!(tun_filter_attached)) != 0
            || self.0.read::<u32>(member!(tun_address_filter)) != 0
            || !self.0.follow(member!(tun_filter_program)).is_null()
    }

    /// Whether a packet socket listens at the device alone.
    #[inline(always)]
    fn has_packet_socket(self) -> bool {
        let list = self.0.address().at(offset!(dev_ptype_all));
        self.0.follow(member!(dev_ptype_all)) != list
    }
}

/// How many functions are registered at a hook of netfilter.
#[inline(always)]
fn registered(entries: Structure) -> u16 {
    entries.read(member!(hook_entries_number))
}

/// What `br_netfilter` may do to bridged frames in a network namespace where the hooks for bridges are taken; given that at
/// each no more than one is, and whether their bridge has calls of its own. Apart from the way of a frame that no hook is taken for.
#[inline(always)]
fn filtering(net: Structure, pre_routing: Structure, calls_of_bridge: bool) -> Filtering {
    // Where one of its functions is, all are (`brnf_device_event`).
    let function = pre_routing.follow(member!(hook_entries_hooks)).number();
    let own = offset!(br_nf_pre_routing);
    if own == 0 || function != own {
        return Filtering::Rules;
    }
    let slots = net.follow(member!(net_gen));
    let settings = slots
        .at(offset!(net_generic_ptr) + POINTER * offset!(brnf_slot))
        .pointer()
        .open();
    // Those of IPv4 and IPv6 at once.
    let calls = settings.read::<u64>(member!(brnf_call_iptables))
        | u64::from(settings.read::<u32>(member!(brnf_call_arptables)));
    if calls == 0 && !calls_of_bridge {
        return Filtering::Nothing;
    }
    if has_ip_rules(net.address().number()) == 0 {
        Filtering::Headers
    } else {
        Filtering::Rules
    }
}

/// Whether anything is registered, in a network namespace, at the hooks of IP that `br_netfilter` calls for bridged frames:
/// 1 or 0.
#[inline(never)]
fn has_ip_rules(net: u64) -> u64 {
    let net = Address::new(net);
    for hooks in [offset!(net_hooks_ipv4), offset!(net_hooks_ipv6)] {
        // No rules: one lets bridged frames pass by the rules a second time, the other, which is there wherever AppArmor
        // is, looks at what has a socket.
        let own = [offset!(ip_sabotage_in), 0, offset!(apparmor_ip_postroute)];
        for (hook, own) in HOOKS.into_iter().zip(own) {
            let entries = net.at(hooks + POINTER * hook).pointer();
            if entries.is_null() {
                continue;
            }
            let entries = entries.open();
            let function = entries.follow(member!(hook_entries_hooks)).number();
            if own == 0 || registered(entries) != 1 || function != own {
                return 1;
            }
        }
    }
    0
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

/// A `struct bucket_table`, as it is searched.
#[derive(Clone, Copy)]
pub struct Table {
    place: Address,
    size: u32,
    seed: u32,
}

impl Table {
    /// None where it has a second level of buckets: it is being filled for lack of memory.
    #[inline(always)]
    fn at(place: Address) -> Option<Self> {
        let header = place.open();
        // The size in the lower half, `nest` in the upper one.
        let size: u64 = header.read(member!(table_size));
        let seed = header.read(member!(table_hash_rnd));
        (size >> 32 == 0).then_some(Self {
            place,
            size: size as u32,
            seed,
        })
    }

    /// The chain of a key.
    #[inline(always)]
    fn chain(&self, key: u64, length: u32) -> Address {
        let bucket = hash(key, length, self.seed) & self.size.wrapping_sub(1);
        let buckets = self.place.at(offset!(table_buckets));
        // The lowest bit of a bucket is its lock.
        buckets.at(POINTER * u64::from(bucket)).pointer().even()
    }
}

/// Follows a chain to the structure of which something is so (`rhashtable_lookup`).
#[inline(always)]
fn find(mut node: Address, link: u64, has_it: impl Fn(Structure) -> bool) -> Address {
    for _ in 0..LONGEST_CHAIN {
        // An odd pointer ends a chain.
        if node.is_null() || node.even() != node {
            break;
        }
        let structure = node.before(link);
        if has_it(structure.open()) {
            return structure;
        }
        node = node.pointer();
    }
    Address::NULL
}

/// The entry of a key (`struct net_bridge_fdb_key`) in a forwarding database.
#[inline(always)]
fn find_entry(table: &Table, key: u64) -> Address {
    let link = offset!(entry_rhnode);
    let has_it = |entry: Structure| entry.read::<u64>(member!(entry_key)) == key;
    let entry = find(table.chain(key, 8), link, has_it);
    if !entry.is_null() {
        return entry;
    }
    // While a table is resized, its entries move to the next one by one.
    let next = table.place.open().follow(member!(table_future));
    if next.is_null() {
        return Address::NULL;
    }
    Table::at(next).map_or(Address::NULL, |next| find(next.chain(key, 8), link, has_it))
}

/// A VLAN in the table of those that a port is a member of; zero if it is none. A table that is being resized is not
/// followed into the next: it has the VLAN again in a moment.
#[inline(never)]
fn find_vlan(table: u64, vlan: u64) -> u64 {
    let Some(table) = Table::at(Address::new(table)) else {
        return 0;
    };
    let has_it = |found: Structure| u64::from(found.read::<u16>(member!(vlan_id))) == vlan;
    find(table.chain(vlan, 2), offset!(vlan_node), has_it).number()
}

impl<F: Frame> Tables for Kernel<'_, F> {
    type Port = Port;
    type Bridge = Bridge;
    type Database = Table;
    type Entry = Entry;
    type Device = Device;

    #[inline(always)]
    fn ingress(&self) -> Option<Port> {
        let kinds = u64::from(self.device.0.read::<u32>(member!(dev_priv_flags)));
        let port = self.device.0.follow(member!(dev_rx_handler_data));
        (kinds & offset!(iff_bridge_port) != 0 && !port.is_null()).then(|| Port(port.open()))
    }

    #[inline(always)]
    fn flags(&self, port: Port) -> u64 {
        port.0.read(member!(port_flags))
    }

    #[inline(always)]
    fn state(&self, port: Port) -> u8 {
        port.0.read(member!(port_state))
    }

    #[inline(always)]
    fn bridge(&self, port: Port) -> Bridge {
        Bridge(port.0.open(member!(port_br)))
    }

    #[inline(always)]
    fn options(&self, bridge: Bridge) -> Options {
        let options: u64 = bridge.0.read(member!(br_options));
        // The bridge is the private part of its device.
        let device = bridge.0.address().before(offset!(dev_private)).open();
        let flags: u32 = device.read(member!(dev_flags));
        Options {
            vlan_filtering: options & offset!(option_vlan) != 0,
            vlan_statistics: options & offset!(option_vlan_stats) != 0,
            mst: options & offset!(option_mst) != 0,
            neigh_suppress: options & offset!(option_neigh_suppress) != 0,
            netfilter_calls: options & offset!(options_nf_call) != 0,
            promiscuous: flags & PROMISCUOUS != 0,
        }
    }

    #[inline(always)]
    fn filtering(&self, options: Options) -> Filtering {
        if offset!(net_hook_pre_routing) == ABSENT {
            return Filtering::Nothing;
        }
        let net = self.device.net().open();
        let hooks = [
            net.follow(member!(net_hook_pre_routing)),
            net.follow(member!(net_hook_forward)),
            net.follow(member!(net_hook_post_routing)),
        ];
        if hooks.iter().all(|entries| entries.is_null()) {
            return Filtering::Nothing;
        }
        let hooks = hooks.map(Address::open);
        // What is registered beside `br_netfilter`, or without it, are rules. Nothing is zero.
        if hooks.iter().any(|entries| registered(*entries) != 1) {
            return Filtering::Rules;
        }
        filtering(net, hooks[0], options.netfilter_calls)
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
        let vlans = self.device.0.follow(member!(dev_vlan_info));
        !vlans.is_null() && vlans.open().read::<u32>(member!(vlan_info_devices)) != 0
    }

    #[inline(always)]
    fn has_ingress_hook(&self) -> bool {
        is_set!(self.device.0, dev_nf_hooks_ingress)
    }

    /// Our own program must be there, alone: where it has been detached, somebody else's may have its place.
    #[inline(always)]
    fn has_ingress_filter(&self) -> bool {
        let entry = self.device.0.follow(member!(dev_tcx_ingress));
        if entry.is_null() {
            return true;
        }
        let entry = entry.open();
        if self.asks != Asks::Tcx {
            let program = entry.open(Member::FIRST).open(member!(prog_aux));
            if program.read::<u32>(member!(prog_aux_id)) != counters::tcx_program() {
                return true;
            }
        }
        let second = entry.follow(member!(mprog_second));
        let classic = entry
            .follow(member!(mprog_parent))
            .before(offset!(tcx_bundle))
            .open()
            .follow(member!(tcx_miniq));
        !second.is_null() || !classic.is_null()
    }

    #[inline(always)]
    fn vlan_protocol(&self, bridge: Bridge) -> u16 {
        if offset!(port_vlans) == ABSENT {
            return 0;
        }
        u16::from_be(bridge.0.read(member!(br_vlan_protocol)))
    }

    #[inline(always)]
    fn port_vlan(&self, port: Port) -> PortVlan {
        port.vlans()
            .map_or(PortVlan { id: 0, state: 0 }, |vlans| PortVlan {
                id: vlans.read(member!(vlans_own)),
                state: vlans.read(member!(vlans_own_state)),
            })
    }

    #[inline(always)]
    fn membership(&self, port: Port, vlan: u16) -> Option<Membership> {
        let table = port.vlans()?.follow(member!(vlans_table));
        let found = Address::new(find_vlan(table.number(), u64::from(vlan)));
        if found.is_null() {
            return None;
        }
        let found = found.open();
        Some(Membership {
            state: found.read(member!(vlan_state)),
            untagged: found.read::<u16>(member!(vlan_flags)) & VLAN_UNTAGGED != 0,
        })
    }

    #[inline(always)]
    fn database(&self, bridge: Bridge) -> Option<Table> {
        Table::at(bridge.0.follow(member!(br_fdb)))
    }

    #[inline(always)]
    fn entry(&self, table: Table, vlan: u16, address: u64) -> Option<Entry> {
        let found = find_entry(&table, address | u64::from(vlan) << 48);
        (!found.is_null()).then(|| Entry(found.open()))
    }

    #[inline(always)]
    fn entry_flags(&self, entry: Entry) -> EntryFlags {
        let flags: u64 = entry.0.read(member!(entry_flags));
        EntryFlags {
            local: flags & offset!(entry_local) != 0,
            locked: flags & offset!(entry_locked) != 0,
            notify_inactive: flags & offset!(entry_notify_inactive) != 0,
        }
    }

    #[inline(always)]
    fn entry_port(&self, entry: Entry) -> Option<Port> {
        let port = entry.0.follow(member!(entry_dst));
        (!port.is_null()).then(|| Port(port.open()))
    }

    #[inline(always)]
    fn is_fresh(&self, bridge: Bridge, entry: Entry) -> bool {
        if self.asks == Asks::Anybody {
            return true;
        }
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_jiffies64() };
        let age = now.wrapping_sub(entry.0.read(member!(entry_updated)));
        let ageing: u64 = bridge.0.read(member!(br_ageing_time));
        age < (ageing / 4).min(offset!(hz))
    }

    #[inline(always)]
    fn device(&self, port: Port) -> Device {
        Device(port.0.open(member!(port_dev)))
    }

    #[inline(always)]
    fn index(&self, device: Device) -> u32 {
        device.index()
    }

    #[inline(always)]
    fn has_carrier(&self, device: Device) -> bool {
        device.0.read::<u64>(member!(dev_state)) & NO_CARRIER == 0
    }

    #[inline(always)]
    fn mtu(&self, device: Device) -> u32 {
        device.0.read(member!(dev_mtu))
    }

    #[inline(always)]
    fn has_egress_hook(&self, device: Device) -> bool {
        is_set!(device.0, dev_nf_hooks_egress)
    }

    #[inline(always)]
    fn native_obstacle(&self, device: Device) -> Option<Reason> {
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
        if !device.0.follow(member!(dev_tcx_egress)).is_null() {
            return Some(Reason::EgressFilter);
        }
        let discipline = device.0.open(member!(dev_tx)).open(member!(tx_queue_qdisc));
        let queues = !discipline.follow(member!(qdisc_enqueue)).is_null();
        if queues && discipline.read::<u32>(member!(qdisc_flags)) & QDISC_CAN_BYPASS == 0 {
            return Some(Reason::Queueing);
        }
        let everywhere = if offset!(net_ptype_all) == ABSENT {
            Address::new(offset!(global_ptype_all))
        } else {
            self.device.net().at(offset!(net_ptype_all))
        };
        // Where the list can't be found, nobody knows who listens. One without elements points to itself.
        let unheard = everywhere.is_null() || everywhere.pointer() != everywhere;
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
    let task = Address::of(unsafe { bpf_get_current_task_btf() } as *const u8);
    let flags: u32 = task.open().read(member!(task_flags));
    flags & KERNEL_THREAD != 0 || flags & (USER_WORKER | IO_WORKER) == USER_WORKER
}
