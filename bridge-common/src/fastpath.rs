//! What the fast path of Linux bridges and its loader agree on: names, counters, and where the kernel's structures have
//! their members.

use crate::{
    Hook,
    counters::Traffic,
    forwarding::{Reason, Verdict},
    port::HookMode,
};

/// Version of everything pinned: maps, their types, their meaning.
pub const VERSION: u32 = 4;

/// Paths that are counted; frames of others are forwarded all the same.
pub const MAX_PATHS: u32 = 16_384;
/// Places that paths are counted in without a search; each belongs to the first path that needs it.
pub const NEAR_PATHS: u32 = 1024;
/// Places that ports are counted in likewise.
pub const NEAR_PORTS: u32 = 256;
/// Ports that can be attached in a network namespace.
pub const MAX_PORTS: u32 = 4096;

/// Names of the programs in the object file.
pub mod program {
    /// The hook in native XDP.
    pub const XDP: &str = "tapbridge_fast_xdp";
    /// The hook at tcx ingress.
    pub const TCX: &str = "tapbridge_fast_tcx";
    /// Says what the hooks would decide, see [`super::Answer`].
    pub const ASK: &str = "tapbridge_ask";
    /// Reads kernel memory for the loader.
    pub const PEEK: &str = "tapbridge_peek";
}

/// Names of the maps in the object file.
pub mod map {
    /// Array of one [`super::Settings`].
    pub const SETTINGS: &str = "SETTINGS";
    /// Hash of ifindex to [`super::Port`].
    pub const PORTS: &str = "PORTS";
    /// Array of the ifindex that a place belongs to; see [`super::near_port`].
    pub const PORT_OWNERS: &str = "PORT_OWNERS";
    /// Per-CPU array of those places' [`super::PortCounters`].
    pub const PORT_COUNTERS: &str = "PORT_COUNTERS";
    /// Per-CPU hash of ifindex to [`super::PortCounters`], of ports that have no place.
    pub const COUNTERS: &str = "COUNTERS";
    /// Hash of a place to the [`super::Path`] that it belongs to; see [`super::Path::near`].
    pub const NEAR: &str = "NEAR";
    /// Array of the same as numbers, by place.
    pub const NEAR_OWNERS: &str = "NEAR_OWNERS";
    /// Per-CPU array of those places' [`crate::counters::PathCounters`].
    pub const NEAR_COUNTERS: &str = "NEAR_COUNTERS";
    /// Per-CPU hash of [`super::Path`] to [`crate::counters::PathCounters`], of paths that have no place.
    pub const PATHS: &str = "PATHS";
    /// Per-CPU array of one [`crate::forwarding::NegativeCache`].
    pub const NEGATIVE_CACHE: &str = "NEGATIVE_CACHE";
    /// Array of one [`super::Peek`].
    pub const PEEK: &str = "PEEK";
}

/// Name of the global that holds [`Offsets`].
pub const OFFSETS: &str = "OFFSETS";

/// In the programs' loads of the kernel's memory this, and where an offset lies in [`Offsets`], is the place of what is
/// loaded, until the loader writes the offset there.
pub const MEMBERS: u16 = 0x5000;

/// In the programs' calls of the cast this is the type that lies at every address, until the loader writes its id there.
pub const ANYTHING: u32 = 0x7a70_0002;

/// What changes while the programs are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// [`VERSION`] of the loader; 0 until all is pinned.
    pub version: u32,
    /// Id of the tcx program: without it at a port, XDP redirects nothing there.
    pub tcx_program: u32,
    /// Cookie of the network namespace that the programs are for (`net->net_cookie`).
    pub cookie: u64,
    /// Inode of that namespace, to find it by.
    pub network_namespace: u64,
}

/// What the loader has noted of an attached port. Of it the programs read only [`crate::port::flag::BYPASS_NETFILTER`], where
/// netfilter looks at bridged frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Port {
    /// See [`crate::port::flag`].
    pub flags: u32,
    /// How often `tapbridge run` has switched XDP on or off.
    pub hook_changes: u32,
    /// When it did so last, in ns since boot (`CLOCK_BOOTTIME`); 0 for never.
    pub hook_changed_at: u64,
    /// The device's name when it was attached, zero-terminated.
    pub name: [u8; crate::port::INTERFACE_NAME],
    /// Index of the bridge that it was made a port of when it was attached: detach takes it out of that one. 0 where it had
    /// one of its own.
    pub bridge: u32,
    /// Zero.
    pub reserved: u32,
    /// What the device had transmitted when it was attached, in frames: later growth is the port's own.
    pub tx_frames_at_attach: u64,
    /// Likewise what it had dropped.
    pub tx_dropped_at_attach: u64,
}

impl Port {
    /// Whether all of the given flags are set.
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }

    /// Who chooses its hooks.
    pub const fn hook_mode(&self) -> HookMode {
        HookMode::of(self.flags)
    }
}

/// From one port to another, by ifindex.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Path {
    /// Where frames come in.
    pub from: u32,
    /// Where they leave.
    pub to: u32,
}

impl Path {
    /// Stands for ports that are no more.
    pub const GONE: u32 = 0;

    /// As one number; zero stands for none.
    pub const fn to_bits(self) -> u64 {
        (self.from as u64) << 32 | self.to as u64
    }

    /// The place near that it may have. Neighbours have places of their own.
    pub const fn near(self) -> u32 {
        (self.from.wrapping_mul(37) ^ self.to) % NEAR_PATHS
    }
}

/// The place that may count a port, see [`NEAR_PORTS`].
pub const fn near_port(ifindex: u32) -> u32 {
    ifindex % NEAR_PORTS
}

/// What happened at one port. What it received = Σ paths from it + `left_traffic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PortCounters {
    /// Frames that tcx left to the bridge, and their bytes.
    pub left_traffic: Traffic,
    /// Frames that tcx met and native XDP can't take, and their bytes.
    pub bulk: Traffic,
    /// Frames of several segments.
    pub gso: u64,
    /// Partial checksums that XDP completed.
    pub checksums_completed: u64,
    /// Frames that a hook left to what comes behind it, by [`Hook`] and [`Reason`].
    pub left: [[u64; Reason::COUNT]; Hook::ALL.len()],
}

impl Default for PortCounters {
    fn default() -> Self {
        Self {
            left_traffic: Traffic::default(),
            bulk: Traffic::default(),
            gso: 0,
            checksums_completed: 0,
            left: [[0; Reason::COUNT]; Hook::ALL.len()],
        }
    }
}

impl core::ops::AddAssign for PortCounters {
    fn add_assign(&mut self, other: Self) {
        self.left_traffic += other.left_traffic;
        self.bulk += other.bulk;
        self.gso += other.gso;
        self.checksums_completed += other.checksums_completed;
        let left = self.left.as_flattened_mut();
        for (sum, count) in left.iter_mut().zip(other.left.as_flattened()) {
            *sum += count;
        }
    }
}

/// A question to the kernel's memory, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Peek {
    /// The index of a device.
    pub ifindex: u32,
    /// Whether the device was found.
    pub found: u32,
    /// Words of `net->gen->ptr[slot] + offset`, for each slot.
    pub offset: u64,
    /// The words.
    pub words: [u64; PEEK_SLOTS],
}

impl Peek {
    /// Before a question.
    pub const NOTHING: Self = Self {
        ifindex: 0,
        found: 0,
        offset: 0,
        words: [0; PEEK_SLOTS],
    };
}

/// What the two hooks would make of a frame now, as one number: a byte for each, a [`Reason`] or [`Answer::FORWARD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer(pub u32);

impl Answer {
    const FORWARD: u32 = 0xff;

    /// Nothing decided yet.
    pub const NONE: Self = Self(0);

    /// With what one hook would decide; XDP if it met the frame in native mode.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, hook: Hook, verdict: Verdict) -> Self {
        let code = match verdict {
            Verdict::Forward(..) => Self::FORWARD,
            Verdict::Leave(reason) => reason as u32,
        };
        Self(self.0 | code << (8 * hook as u32))
    }

    /// Why a hook would leave the frame; none if it would forward it.
    pub fn obstacle(self, hook: Hook) -> Option<Reason> {
        let code = self.0 >> (8 * hook as u32) & 0xff;
        Reason::ALL.into_iter().find(|&reason| reason as u32 == code)
    }
}

/// Slots of `struct net_generic` that are looked at.
pub const PEEK_SLOTS: usize = 64;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Where the running kernel's structures have their members, and what else is found out about it when the
        /// programs are loaded. Offsets and sizes are bytes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Offsets {
            /// Nothing is known.
            pub const UNKNOWN: Self = Self { $($name: 0,)* };

            /// All, in the order in which they lie.
            pub const fn values(&self) -> [u64; size_of::<Self>() / size_of::<u64>()] {
                [$(self.$name,)*]
            }
        }
    };
}

offsets! {
    // What the programs calculate with comes first: a frame finds it in a few lines of the cache.
    /// `IFF_BRIDGE_PORT`
    iff_bridge_port,
    /// Where a `net_device` has its driver's part (`netdev_priv`).
    dev_private,
    /// Mask of `BROPT_VLAN_ENABLED`; of this and the others 0 for one that the kernel does not have.
    option_vlan,
    /// `BROPT_VLAN_STATS_ENABLED`
    option_vlan_stats,
    /// `BROPT_MST_ENABLED`
    option_mst,
    /// `BROPT_NEIGH_SUPPRESS_ENABLED`
    option_neigh_suppress,
    /// Address of `br_nf_pre_routing`, 0 where there is no `br_netfilter`.
    br_nf_pre_routing,
    /// Slot of `struct brnf_net` in `net->gen`.
    brnf_slot,
    /// `net_generic.ptr`
    net_generic_ptr,
    /// `BROPT_NF_CALL_IPTABLES`, `…IP6TABLES` and `…ARPTABLES`
    options_nf_call,
    /// `bucket_table.buckets`
    table_buckets,
    /// `net_bridge_fdb_entry.rhnode`
    entry_rhnode,
    /// Mask of `BR_FDB_LOCAL`
    entry_local,
    /// Mask of `BR_FDB_LOCKED`, 0 if there is none.
    entry_locked,
    /// Mask of `BR_FDB_NOTIFY_INACTIVE`
    entry_notify_inactive,
    /// Jiffies in a second.
    hz,
    /// `tcx_entry.bundle`
    tcx_bundle,
    /// Size of `struct netdev_rx_queue`.
    rx_queue_size,
    /// `netdev_rx_queue.xdp_rxq`
    rx_queue_xdp_rxq,
    /// `net.ptype_all`, or [`crate::layout::ABSENT`] before it was there.
    net_ptype_all,
    /// Address of the list before it was the namespace's.
    global_ptype_all,
    /// Id of the function that makes a pointer of an address.
    rdonly_cast,
    /// Id of a structure that begins with a long array of integers: a pointer to one reads anything.
    anything,
    /// Bytes of that array.
    anything_length,
    /// `xdp_buff.rxq`
    xdp_buff_rxq,
    /// `xdp_rxq_info.dev`
    xdp_rxq_info_dev,
    /// `netdev_rx_queue.rps_map`, or [`crate::layout::ABSENT`].
    rx_queue_rps_map,
    /// `netdev_rx_queue.rps_flow_table`, or [`crate::layout::ABSENT`].
    rx_queue_rps_flow_table,
    /// `sk_buff.dev`
    sk_buff_dev,
    /// `task_struct.flags`
    task_flags,
    /// `net_device.priv_flags`
    dev_priv_flags,
    /// `net_device.flags`
    dev_flags,
    /// `net_device.state`
    dev_state,
    /// `net_device.mtu`
    dev_mtu,
    /// `net_device.ifindex`
    dev_ifindex,
    /// `net_device.rx_handler_data`
    dev_rx_handler_data,
    /// `net_device.nd_net`
    dev_net,
    /// `net_device._rx`
    dev_rx,
    /// `net_device._tx`
    dev_tx,
    /// `net_device.real_num_tx_queues`
    dev_real_num_tx_queues,
    /// `net_device.tcx_ingress`
    dev_tcx_ingress,
    /// `net_device.tcx_egress`
    dev_tcx_egress,
    /// `net_device.nf_hooks_ingress`, or [`crate::layout::ABSENT`].
    dev_nf_hooks_ingress,
    /// `net_device.nf_hooks_egress`, or [`crate::layout::ABSENT`].
    dev_nf_hooks_egress,
    /// `net_device.ptype_all`
    dev_ptype_all,
    /// `net_device.netdev_ops`
    dev_netdev_ops,
    /// `tun_struct.filter_attached` from the beginning of the `net_device`, whose private part that is; or [`crate::layout::ABSENT`] where nothing is known of taps.
    tun_filter_attached,
    /// `tun_struct.txflt.count`
    tun_address_filter,
    /// `tun_struct.filter_prog`
    tun_filter_program,
    /// `net_device.vlan_info`, or [`crate::layout::ABSENT`].
    dev_vlan_info,
    /// `vlan_info.grp.nr_vlan_devs`
    vlan_info_devices,
    /// `netdev_queue.qdisc`
    tx_queue_qdisc,
    /// `Qdisc.flags`
    qdisc_flags,
    /// `Qdisc.enqueue`
    qdisc_enqueue,
    /// `bpf_mprog_entry.fp_items[1]`
    mprog_second,
    /// `bpf_mprog_entry.parent`
    mprog_parent,
    /// `tcx_entry.miniq`
    tcx_miniq,
    /// `bpf_prog.aux`
    prog_aux,
    /// `bpf_prog_aux.id`
    prog_aux_id,
    /// `net.nf.hooks_bridge[NF_BR_PRE_ROUTING]`; of this and the next two [`crate::layout::ABSENT`] where bridges have no hooks.
    net_hook_pre_routing,
    /// `net.nf.hooks_bridge[NF_BR_FORWARD]`
    net_hook_forward,
    /// `net.nf.hooks_bridge[NF_BR_POST_ROUTING]`
    net_hook_post_routing,
    /// Address of `apparmor_ip_postroute`, 0 where there is none.
    apparmor_ip_postroute,
    /// `net.gen`
    net_gen,
    /// `net.nf.hooks_ipv4`
    net_hooks_ipv4,
    /// `net.nf.hooks_ipv6`
    net_hooks_ipv6,
    /// Address of `ip_sabotage_in`, by which `br_netfilter` looks after its own frames.
    ip_sabotage_in,
    /// `nf_hook_entries.num_hook_entries`
    hook_entries_number,
    /// `nf_hook_entries.hooks`
    hook_entries_hooks,
    /// `brnf_net.call_iptables`, behind which lies `call_ip6tables`.
    brnf_call_iptables,
    /// `brnf_net.call_arptables`
    brnf_call_arptables,
    /// `net_bridge_port.br`
    port_br,
    /// `net_bridge_port.dev`
    port_dev,
    /// `net_bridge_port.flags`
    port_flags,
    /// `net_bridge_port.state`
    port_state,
    /// `net_bridge_port.vlgrp`, or [`crate::layout::ABSENT`] where the kernel filters no VLANs.
    port_vlans,
    /// `net_bridge.vlan_proto`
    br_vlan_protocol,
    /// `net_bridge_vlan_group.vlan_hash.tbl`
    vlans_table,
    /// `net_bridge_vlan_group.pvid`
    vlans_own,
    /// `net_bridge_vlan_group.pvid_state`
    vlans_own_state,
    /// `net_bridge_vlan.vnode`
    vlan_node,
    /// `net_bridge_vlan.vid`
    vlan_id,
    /// `net_bridge_vlan.flags`
    vlan_flags,
    /// `net_bridge_vlan.state`
    vlan_state,
    /// `net_bridge.options`
    br_options,
    /// `net_bridge.fdb_hash_tbl.tbl`
    br_fdb,
    /// `net_bridge.ageing_time`
    br_ageing_time,
    /// `bucket_table.size`, behind which lies `bucket_table.nest`.
    table_size,
    /// `bucket_table.hash_rnd`
    table_hash_rnd,
    /// `bucket_table.future_tbl`
    table_future,
    /// `net_bridge_fdb_entry.key`
    entry_key,
    /// `net_bridge_fdb_entry.dst`
    entry_dst,
    /// `net_bridge_fdb_entry.flags`
    entry_flags,
    /// `net_bridge_fdb_entry.updated`
    entry_updated,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::Retag;

    #[test]
    fn answers_tell_the_hooks_apart() {
        for reason in Reason::ALL {
            for [leaves, forwards] in [[Hook::Xdp, Hook::Tcx], [Hook::Tcx, Hook::Xdp]] {
                let answer = Answer::NONE
                    .with(leaves, Verdict::Leave(reason))
                    .with(forwards, Verdict::Forward(7, Retag::Keep));
                assert_eq!(answer.obstacle(leaves), Some(reason));
                assert_eq!(answer.obstacle(forwards), None);
            }
        }
    }

    #[test]
    fn sums_cover_every_counter() {
        let mut one = PortCounters {
            left_traffic: Traffic { frames: 1, bytes: 2 },
            bulk: Traffic { frames: 3, bytes: 4 },
            gso: 5,
            checksums_completed: 6,
            ..PortCounters::default()
        };
        one.left.as_flattened_mut().fill(7);
        let mut sum = one;
        sum += one;
        assert_eq!(sum.left_traffic, Traffic { frames: 2, bytes: 4 });
        assert_eq!(sum.bulk, Traffic { frames: 6, bytes: 8 });
        assert_eq!((sum.gso, sum.checksums_completed), (10, 12));
        assert!(sum.left.as_flattened().iter().all(|count| *count == 14));
    }
}
