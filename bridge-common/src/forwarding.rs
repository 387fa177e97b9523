//! Whether a frame that a port of a Linux bridge receives can go past the bridge, and where.
//!
//! The bridge decides, in its own tables: an address is found in its forwarding database, ports and devices have the
//! states that it gave them. [`decide`] asks them what `br_handle_frame` and `br_forward` ask, in an order in which the
//! cheap questions come first, and sends a frame only where the bridge would send it, with the tag that it would have. Whatever else the
//! bridge would do with it (learn, flood, deliver to the host, filter, count), and all that is in doubt, is a
//! [`Reason`] to leave the frame to it.

mod negative_cache;
pub mod netfilter;
mod reason;
mod tables;
mod vlan;

pub use negative_cache::{NegativeCache, NegativeEntry};
pub use netfilter::Filtering;
pub use reason::{NAME_BYTES, Reason};
pub use tables::{EntryFlags, Membership, Options, PortVlan, Received, STATE_FORWARDING, Tables, port_flag};
pub use vlan::Retag;

use self::{reason::check, vlan::Vlan};
use crate::{
    frame::{ETHERNET_HEADER, longest_frame},
    hook::Hook,
};

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the device of this index, with this change of its tag.
    Forward(u32, Retag),
    /// To the bridge.
    Leave(Reason),
}

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_RARP: u16 = 0x8035;
/// MRP (IEC 62439-2) and CFM (IEEE 802.1Q), which the bridge may answer itself (`br_add_frame`).
const ETHERTYPE_MRP: u16 = 0x88e3;
const ETHERTYPE_CFM: u16 = 0x8902;

/// Decides about a frame that a hook has met.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, received: &Received, hook: Hook) -> Verdict {
    match target(tables, received, hook) {
        Ok((device, retag)) => Verdict::Forward(tables.index(device), retag),
        Err(reason) => Verdict::Leave(reason),
    }
}

/// As [`decide`], with the device itself, for who has more to ask of it.
#[inline(always)]
pub fn target<T: Tables>(tables: &T, received: &Received, hook: Hook) -> Result<(T::Device, Retag), Reason> {
    check(received.destination & 1 == 0, Reason::Group)?;
    check(
        received.source & 1 == 0 && received.source != 0,
        Reason::InvalidSource,
    )?;
    let own = [ETHERTYPE_ARP, ETHERTYPE_RARP, ETHERTYPE_MRP, ETHERTYPE_CFM];
    check(!own.contains(&received.ethertype), Reason::Protocol)?;

    let port = tables.ingress().ok_or(Reason::NotAPort)?;
    let flags = tables.flags(port);
    check(tables.state(port) == STATE_FORWARDING, Reason::IngressState)?;
    check(
        flags & port_flag::VLAN_TUNNEL == 0 && flags < port_flag::UNKNOWN,
        Reason::PortFlags,
    )?;
    let bridge = tables.bridge(port);
    let options = tables.options(bridge);
    let counts = options.vlan_filtering && options.vlan_statistics;
    check(!options.mst && !counts, Reason::VlanFiltering)?;
    check(
        !(options.neigh_suppress && received.ethertype == ETHERTYPE_IPV6 && tables.may_be_icmpv6()),
        Reason::NeighSuppress,
    )?;
    check(!options.promiscuous, Reason::Promiscuous)?;
    let vlan = if options.vlan_filtering {
        Vlan::of(tables, port, bridge, received)?
    } else {
        Vlan::NONE
    };

    // What most often makes a frame the bridge's comes before what seldom does.
    let database = tables.database(bridge).ok_or(Reason::DestinationUnknown)?;
    let entry = tables
        .entry(database, vlan.id, received.destination)
        .ok_or(Reason::DestinationUnknown)?;
    check(!tables.entry_flags(entry).local, Reason::Host)?;
    let target = tables.entry_port(entry).ok_or(Reason::Host)?;
    check(target != port, Reason::SamePort)?;
    let filtering = tables.filtering(options);
    let bypass = !matches!(filtering, Filtering::Nothing) && tables.bypasses_netfilter(tables.device(port));
    match filtering {
        Filtering::Nothing => {}
        Filtering::Headers => {
            let kept = || received.tag.is_none() && tables.is_kept_by_netfilter(received);
            check(bypass || kept(), Reason::Header)?;
        }
        Filtering::Rules => check(bypass, Reason::BridgeFilter)?,
    }
    check(!tables.has_ingress_hook(), Reason::IngressHook)?;
    check(!tables.has_ingress_filter(), Reason::IngressFilter)?;
    check(
        !(received.tag.is_some() && tables.has_vlan_devices()),
        Reason::VlanDevice,
    )?;

    if flags & (port_flag::LEARNING | port_flag::LOCKED) != 0 {
        let entry = tables
            .entry(database, vlan.id, received.source)
            .ok_or(Reason::SourceUnknown)?;
        check(tables.entry_port(entry) == Some(port), Reason::SourceElsewhere)?;
        let entry_flags = tables.entry_flags(entry);
        check(
            !entry_flags.local && !entry_flags.locked && !entry_flags.notify_inactive,
            Reason::SourceFlags,
        )?;
        check(
            flags & port_flag::LEARNING == 0 || tables.is_fresh(bridge, entry),
            Reason::SourceRefresh,
        )?;
    }

    let target_flags = tables.flags(target);
    // Then its device is up (`br_set_port_state`, `br_stp_disable_port`).
    check(tables.state(target) == STATE_FORWARDING, Reason::EgressState)?;
    check(flags & target_flags & port_flag::ISOLATED == 0, Reason::Isolated)?;
    let untouched = port_flag::VLAN_TUNNEL | port_flag::TX_FORWARD_OFFLOAD;
    check(
        target_flags & untouched == 0 && target_flags < port_flag::UNKNOWN,
        Reason::PortFlags,
    )?;
    let retag = if options.vlan_filtering {
        vlan.leave(tables, target, received)?
    } else {
        Retag::Keep
    };
    let unchanged = matches!(retag, Retag::Keep);
    check(unchanged || matches!(hook, Hook::Tcx), Reason::VlanTag)?;

    let device = tables.device(target);
    check(tables.has_carrier(device), Reason::EgressNoCarrier)?;
    let mtu = tables.mtu(device);
    let longest = longest_frame(mtu);
    check(received.gso || received.length <= longest, Reason::EgressMtu)?;
    if bypass {
        check(tables.bypasses_netfilter(device), Reason::BridgeFilter)?;
    } else if matches!(filtering, Filtering::Headers) {
        // It would be fragmented (`br_nf_dev_queue_xmit`).
        let packet = received.length.saturating_sub(ETHERNET_HEADER);
        check(received.gso || packet <= mtu, Reason::Header)?;
        // What it calls for frames that leave, it may call for one with another tag.
        check(unchanged, Reason::Header)?;
    }
    check(!tables.has_egress_hook(device), Reason::EgressHook)?;
    if matches!(hook, Hook::Xdp)
        && let Some(reason) = tables.native_obstacle(device)
    {
        return Err(reason);
    }
    Ok((device, retag))
}
