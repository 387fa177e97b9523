//! The tables that [`decide`](bridge_common::forwarding::decide) asks.

use bridge_common::{
    forwarding::{EntryFlags, Filtering, Membership, Options, PortVlan, Reason, Received, Tables, netfilter},
    frame::Frame,
    port::flag,
};

use super::{
    bridge::{Bridge, Port},
    device::Device,
    fdb::{Database, Entry},
    netfilter::filtering,
    vlan,
};
use crate::ports;

/// Where the next header of an IPv6 packet lies in it.
const NEXT_HEADER: u32 = 6;

const ICMPV6: u8 = 58;

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
    /// A program that stands where ours at tcx would, and only looks.
    Observer,
    /// Somebody who wants to know what the hooks would decide, however long ago the bridge has seen the source.
    Anybody,
}

impl<F: Frame> Tables for Kernel<'_, F> {
    type Port = Port;
    type Bridge = Bridge;
    type Database = Database;
    type Entry = Entry;
    type Device = Device;

    #[inline(always)]
    fn ingress(&self) -> Option<Port> {
        Port::of(self.device)
    }

    #[inline(always)]
    fn flags(&self, port: Port) -> u64 {
        port.flags()
    }

    #[inline(always)]
    fn state(&self, port: Port) -> u8 {
        port.state()
    }

    #[inline(always)]
    fn bridge(&self, port: Port) -> Bridge {
        port.bridge()
    }

    #[inline(always)]
    fn options(&self, bridge: Bridge) -> Options {
        bridge.options()
    }

    #[inline(always)]
    fn filtering(&self, options: Options) -> Filtering {
        filtering(self.device.net(), options)
    }

    #[inline(always)]
    fn bypasses_netfilter(&self, device: Device) -> bool {
        ports::flags(device.index()) & flag::BYPASS_NETFILTER != 0
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
        self.device.has_vlan_devices()
    }

    #[inline(always)]
    fn has_ingress_hook(&self) -> bool {
        self.device.has_ingress_hook()
    }

    /// Our own program must be there, alone: where it has been detached, somebody else's may have its place.
    #[inline(always)]
    fn has_ingress_filter(&self) -> bool {
        let own = (!matches!(self.asks, Asks::Tcx | Asks::Observer)).then(ports::tcx_program);
        self.device.has_ingress_filter(own)
    }

    #[inline(always)]
    fn vlan_protocol(&self, bridge: Bridge) -> u16 {
        bridge.vlan_protocol()
    }

    #[inline(always)]
    fn port_vlan(&self, port: Port) -> PortVlan {
        vlan::port_vlan(port)
    }

    #[inline(always)]
    fn membership(&self, port: Port, vlan: u16) -> Option<Membership> {
        vlan::membership(port, vlan)
    }

    #[inline(always)]
    fn database(&self, bridge: Bridge) -> Option<Database> {
        Database::of(bridge)
    }

    #[inline(always)]
    fn entry(&self, database: Database, vlan: u16, address: u64) -> Option<Entry> {
        database.entry(vlan, address)
    }

    #[inline(always)]
    fn entry_flags(&self, entry: Entry) -> EntryFlags {
        entry.flags()
    }

    #[inline(always)]
    fn entry_port(&self, entry: Entry) -> Option<Port> {
        entry.port()
    }

    #[inline(always)]
    fn is_fresh(&self, bridge: Bridge, entry: Entry) -> bool {
        self.asks == Asks::Anybody || entry.is_fresh(bridge)
    }

    #[inline(always)]
    fn device(&self, port: Port) -> Device {
        port.device()
    }

    #[inline(always)]
    fn index(&self, device: Device) -> u32 {
        device.index()
    }

    #[inline(always)]
    fn has_carrier(&self, device: Device) -> bool {
        device.has_carrier()
    }

    #[inline(always)]
    fn mtu(&self, device: Device) -> u32 {
        device.mtu()
    }

    #[inline(always)]
    fn has_egress_hook(&self, device: Device) -> bool {
        device.has_egress_hook()
    }

    #[inline(always)]
    fn native_obstacle(&self, device: Device) -> Option<Reason> {
        self.device.native_obstacle(device)
    }
}
