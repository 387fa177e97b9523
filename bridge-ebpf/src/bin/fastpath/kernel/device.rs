//! Network devices.

use bridge_common::{forwarding::Reason, layout::ABSENT};

use super::memory::{Address, Member, Structure, is_set, member, offset};

/// `1 << __LINK_STATE_NOCARRIER`
const NO_CARRIER: u64 = 1 << 2;
/// `TCQ_F_CAN_BYPASS`
const QDISC_CAN_BYPASS: u32 = 1 << 2;

/// A `struct net_device`.
#[derive(Clone, Copy)]
pub struct Device(pub Structure);

impl Device {
    /// The device that an skb came in by.
    #[inline(always)]
    pub fn of_skb<T>(skb: *const T) -> Self {
        Self(Address::of(skb).open().open(member!(sk_buff_dev)))
    }

    /// Its network namespace.
    #[inline(always)]
    pub fn net(self) -> Address {
        self.0.follow(member!(dev_net))
    }

    #[inline(always)]
    pub fn index(self) -> u32 {
        self.0.read(member!(dev_ifindex))
    }

    #[inline(always)]
    pub fn mtu(self) -> u32 {
        self.0.read(member!(dev_mtu))
    }

    #[inline(always)]
    pub fn has_carrier(self) -> bool {
        self.0.read::<u64>(member!(dev_state)) & NO_CARRIER == 0
    }

    /// Queues by which it transmits now.
    #[inline(always)]
    fn transmit_queues(self) -> u32 {
        self.0.read(member!(dev_real_num_tx_queues))
    }

    /// The receive queue of this number, in the device's own array.
    #[inline(always)]
    pub fn receive_queue(self, index: u32) -> Address {
        self.0
            .follow(member!(dev_rx))
            .at(u64::from(index).wrapping_mul(offset!(rx_queue_size)))
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

    /// Whether VLAN devices lie on it.
    #[inline(always)]
    pub fn has_vlan_devices(self) -> bool {
        if offset!(dev_vlan_info) == ABSENT {
            return false;
        }
        let vlans = self.0.follow(member!(dev_vlan_info));
        !vlans.is_null() && vlans.open().read::<u32>(member!(vlan_info_devices)) != 0
    }

    #[inline(always)]
    pub fn has_ingress_hook(self) -> bool {
        is_set!(self.0, dev_nf_hooks_ingress)
    }

    #[inline(always)]
    pub fn has_egress_hook(self) -> bool {
        is_set!(self.0, dev_nf_hooks_egress)
    }

    /// Whether traffic control has anything at its ingress but a program of this id, or, if none is given, than the first
    /// one; or not even that.
    #[inline(always)]
    pub fn has_ingress_filter(self, own: Option<u32>) -> bool {
        let entry = self.0.follow(member!(dev_tcx_ingress));
        if entry.is_null() {
            return true;
        }
        let entry = entry.open();
        if let Some(own) = own {
            let program = entry.open(Member::FIRST).open(member!(prog_aux));
            if program.read::<u32>(member!(prog_aux_id)) != own {
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

    /// What keeps a native redirect from one tap to another from doing all that the other's queueing discipline, its
    /// filters and packet sockets would have done.
    #[inline(always)]
    pub fn native_obstacle(self, target: Self) -> Option<Reason> {
        // This one is a tap, and of another device it is not known what becomes of a native frame.
        if target.operations() != self.operations() || offset!(tun_filter_attached) == ABSENT {
            return Some(Reason::Target);
        }
        if target.has_tap_filter() {
            return Some(Reason::EgressFilter);
        }
        if target.transmit_queues() > 1 {
            return Some(Reason::TargetQueues);
        }
        if !target.0.follow(member!(dev_tcx_egress)).is_null() {
            return Some(Reason::EgressFilter);
        }
        let discipline = target.0.open(member!(dev_tx)).open(member!(tx_queue_qdisc));
        let queues = !discipline.follow(member!(qdisc_enqueue)).is_null();
        if queues && discipline.read::<u32>(member!(qdisc_flags)) & QDISC_CAN_BYPASS == 0 {
            return Some(Reason::Queueing);
        }
        let everywhere = if offset!(net_ptype_all) == ABSENT {
            Address::new(offset!(global_ptype_all))
        } else {
            self.net().at(offset!(net_ptype_all))
        };
        // Where the list can't be found, nobody knows who listens. One without elements points to itself.
        let unheard = everywhere.is_null() || everywhere.pointer() != everywhere;
        if unheard || target.has_packet_socket() || self.has_packet_socket() {
            return Some(Reason::PacketSocket);
        }
        None
    }
}

/// Whether a frame of a receive queue may change the CPU if it is passed (`get_rps_cpu`), while those that are redirected
/// stay.
#[inline(always)]
pub fn is_steered(queue: Address) -> bool {
    let queue = queue.open();
    is_set!(queue, rx_queue_rps_map) || is_set!(queue, rx_queue_rps_flow_table)
}
