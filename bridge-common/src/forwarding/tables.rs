//! What the decision asks, and of what.

use super::{netfilter::Filtering, reason::Reason};
use crate::frame::{Ethernet, Frame, VlanTag};

/// `BR_STATE_FORWARDING`
pub const STATE_FORWARDING: u8 = 3;

/// Flags of a port (`BR_*` of `include/linux/if_bridge.h`; they are macros, which BTF does not describe).
pub mod port_flag {
    /// `BR_LEARNING`
    pub const LEARNING: u64 = 1 << 5;
    /// `BR_VLAN_TUNNEL`
    pub const VLAN_TUNNEL: u64 = 1 << 13;
    /// `BR_ISOLATED`
    pub const ISOLATED: u64 = 1 << 16;
    /// `BR_TX_FWD_OFFLOAD`
    pub const TX_FORWARD_OFFLOAD: u64 = 1 << 20;
    /// `BR_PORT_LOCKED`
    pub const LOCKED: u64 = 1 << 21;
    /// The first that was not there when this was written.
    pub const UNKNOWN: u64 = 1 << 24;
}

/// What a port says of a VLAN that it is a member of (`struct net_bridge_vlan`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The VLAN's spanning-tree state at the port.
    pub state: u8,
    /// Whether frames leave without a tag (`BRIDGE_VLAN_INFO_UNTAGGED`).
    pub untagged: bool,
}

/// The VLAN of what a port receives without one (its PVID).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortVlan {
    /// Its identifier, 1–4094; 0 if the port takes no such frames.
    pub id: u16,
    /// The VLAN's spanning-tree state at the port.
    pub state: u8,
}

/// What an entry of the forwarding database says of itself, as far as it matters here. The kernel's numbers of these
/// differ, so whoever reads an entry translates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryFlags {
    /// The address is one of the bridge's own (`BR_FDB_LOCAL`).
    pub local: bool,
    /// Learned on a locked port, which does not open the port (`BR_FDB_LOCKED`).
    pub locked: bool,
    /// The bridge tells user space when the address becomes active (`BR_FDB_NOTIFY_INACTIVE`).
    pub notify_inactive: bool,
}

/// Options of a bridge (`enum net_bridge_opts`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own that an administrator sets"
)]
pub struct Options {
    /// `BROPT_VLAN_ENABLED`
    pub vlan_filtering: bool,
    /// `BROPT_VLAN_STATS_ENABLED`
    pub vlan_statistics: bool,
    /// `BROPT_MST_ENABLED`
    pub mst: bool,
    /// `BROPT_NEIGH_SUPPRESS_ENABLED`
    pub neigh_suppress: bool,
    /// `BROPT_NF_CALL_IPTABLES`, `…_IP6TABLES` or `…_ARPTABLES`
    pub netfilter_calls: bool,
    /// Whether its device is promiscuous: the host gets a copy of every frame.
    pub promiscuous: bool,
}

/// What the decision needs to know of the kernel, read at this moment. A port, an entry and a device are whatever the
/// reader tells them by.
pub trait Tables {
    /// A port of the bridge (`struct net_bridge_port`).
    type Port: Copy + PartialEq;
    /// A bridge (`struct net_bridge`).
    type Bridge: Copy;
    /// A forwarding database, ready to be searched.
    type Database: Copy;
    /// An entry of it (`struct net_bridge_fdb_entry`).
    type Entry: Copy;
    /// A network device.
    type Device: Copy;

    /// The port that the frame came in by; none if its device is no port of a bridge now.
    fn ingress(&self) -> Option<Self::Port>;
    /// The port's flags, see [`port_flag`].
    fn flags(&self, port: Self::Port) -> u64;
    /// The port's spanning-tree state.
    fn state(&self, port: Self::Port) -> u8;
    /// The bridge that the port belongs to.
    fn bridge(&self, port: Self::Port) -> Self::Bridge;
    /// The bridge's options.
    fn options(&self, bridge: Self::Bridge) -> Options;
    /// What netfilter may do to frames that a bridge with these options forwards.
    fn filtering(&self, options: Options) -> Filtering;
    /// Whether an administrator has said that no rule is meant for frames between this device and others of which the
    /// same has been said.
    fn bypasses_netfilter(&self, device: Self::Device) -> bool;
    /// See [`netfilter::keeps`](super::netfilter::keeps).
    fn is_kept_by_netfilter(&self, received: &Received) -> bool;
    /// Whether the frame is `ICMPv6`, as far as can be seen.
    fn may_be_icmpv6(&self) -> bool;
    /// Whether VLAN devices lie on the device that the frame came in by: they get its tagged frames before the bridge.
    fn has_vlan_devices(&self) -> bool;
    /// Whether netfilter's ingress hook is taken at the device that the frame came in by.
    fn has_ingress_hook(&self) -> bool;
    /// Whether traffic control has a filter, or a program beside ours, at the device that the frame came in by.
    fn has_ingress_filter(&self) -> bool;
    /// The EtherType of the tags of a bridge that filters VLANs.
    fn vlan_protocol(&self, bridge: Self::Bridge) -> u16;
    /// The VLAN of what the port receives without one.
    fn port_vlan(&self, port: Self::Port) -> PortVlan;
    /// The port's membership of a VLAN; none if it is no member, as far as can be seen.
    fn membership(&self, port: Self::Port, vlan: u16) -> Option<Membership>;
    /// The bridge's forwarding database; none where it can't be searched now.
    fn database(&self, bridge: Self::Bridge) -> Option<Self::Database>;
    /// The entry of an address in a VLAN (0 where the bridge does not filter).
    fn entry(&self, database: Self::Database, vlan: u16, address: u64) -> Option<Self::Entry>;
    /// The entry's flags.
    fn entry_flags(&self, entry: Self::Entry) -> EntryFlags;
    /// The entry's port; none if it is the bridge's own.
    fn entry_port(&self, entry: Self::Entry) -> Option<Self::Port>;
    /// Whether the bridge has seen the address so recently that it need not see it now: less than a second ago, and less
    /// than a quarter of its ageing time.
    fn is_fresh(&self, bridge: Self::Bridge, entry: Self::Entry) -> bool;
    /// The port's device.
    fn device(&self, port: Self::Port) -> Self::Device;
    /// The device's index.
    fn index(&self, device: Self::Device) -> u32;
    /// Whether the device has a carrier.
    fn has_carrier(&self, device: Self::Device) -> bool;
    /// The device's MTU in bytes.
    fn mtu(&self, device: Self::Device) -> u32;
    /// Whether netfilter's egress hook is taken at the device: a frame that a program redirects passes it by.
    fn has_egress_hook(&self, device: Self::Device) -> bool;
    /// What keeps a native redirect to the device from doing all that its queueing discipline, its filters and packet
    /// sockets would have done.
    fn native_obstacle(&self, device: Self::Device) -> Option<Reason>;
}

/// A frame before the tables are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The destination, see [`crate::mac::Mac::to_bits`].
    pub destination: u64,
    /// The source, see [`crate::mac::Mac::to_bits`].
    pub source: u64,
    /// The EtherType, behind the outermost tag.
    pub ethertype: u16,
    /// The outermost tag.
    pub tag: Option<VlanTag>,
    /// Bytes as the redirect measures them: XDP with the tag, tcx without one that lies in the metadata.
    pub length: u32,
    /// Whether it carries several segments that are cut later.
    pub gso: bool,
}

impl Received {
    /// A frame with this header. `metadata_tag` is the outermost tag where the kernel has moved it out of the data.
    #[inline(always)]
    pub fn new(
        frame: &impl Frame,
        ethernet: &Ethernet,
        metadata_tag: Option<VlanTag>,
        length: u32,
        gso: bool,
    ) -> Self {
        Self {
            destination: ethernet.destination.to_bits(),
            source: ethernet.source.to_bits(),
            ethertype: ethernet.ethertype,
            tag: metadata_tag.or_else(|| ethernet.tag_in_data(frame)),
            length,
            gso,
        }
    }
}
