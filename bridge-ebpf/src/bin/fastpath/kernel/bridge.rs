//! Bridges and their ports.

use bridge_common::{forwarding::Options, layout::ABSENT};

use super::{
    device::Device,
    memory::{Structure, member, offset},
};

/// `IFF_PROMISC`
const PROMISCUOUS: u32 = 1 << 8;

/// A `struct net_bridge_port`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Port(pub Structure);

/// A `struct net_bridge`.
#[derive(Clone, Copy)]
pub struct Bridge(pub Structure);

impl Port {
    /// That which a device is; none if it is none of a bridge.
    #[inline(always)]
    pub fn of(device: Device) -> Option<Self> {
        let kinds = u64::from(device.0.read::<u32>(member!(dev_priv_flags)));
        let port = device.0.follow(member!(dev_rx_handler_data));
        (kinds & offset!(iff_bridge_port) != 0 && !port.is_null()).then(|| Self(port.open()))
    }

    #[inline(always)]
    pub fn flags(self) -> u64 {
        self.0.read(member!(port_flags))
    }

    /// Its spanning-tree state.
    #[inline(always)]
    pub fn state(self) -> u8 {
        self.0.read(member!(port_state))
    }

    #[inline(always)]
    pub fn bridge(self) -> Bridge {
        Bridge(self.0.open(member!(port_br)))
    }

    #[inline(always)]
    pub fn device(self) -> Device {
        Device(self.0.open(member!(port_dev)))
    }
}

impl Bridge {
    #[inline(always)]
    pub fn options(self) -> Options {
        let options: u64 = self.0.read(member!(br_options));
        // The bridge is the private part of its device.
        let device = self.0.address().before(offset!(dev_private)).open();
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

    /// The EtherType of its tags; 0 where the kernel filters no VLANs.
    #[inline(always)]
    pub fn vlan_protocol(self) -> u16 {
        if offset!(port_vlans) == ABSENT {
            return 0;
        }
        u16::from_be(self.0.read(member!(br_vlan_protocol)))
    }

    /// In jiffies.
    #[inline(always)]
    pub fn ageing_time(self) -> u64 {
        self.0.read(member!(br_ageing_time))
    }
}
