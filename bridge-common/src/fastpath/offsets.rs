//! What the programs have to know of the running kernel.

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
