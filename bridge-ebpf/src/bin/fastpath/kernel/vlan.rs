//! VLANs that ports are members of.

use bridge_common::{
    forwarding::{Membership, PortVlan},
    layout::ABSENT,
};

use super::{
    bridge::Port,
    hash_table::{Table, find},
    memory::{Address, Structure, member, offset},
};

/// `BRIDGE_VLAN_INFO_UNTAGGED`
const VLAN_UNTAGGED: u16 = 1 << 2;

/// The table of VLANs that a port is a member of (`struct net_bridge_vlan_group`), none where the kernel filters none.
#[inline(always)]
fn vlans(port: Port) -> Option<Structure> {
    if offset!(port_vlans) == ABSENT {
        return None;
    }
    let vlans = port.0.follow(member!(port_vlans));
    (!vlans.is_null()).then(|| vlans.open())
}

/// The VLAN of what a port receives without one.
#[inline(always)]
pub fn port_vlan(port: Port) -> PortVlan {
    vlans(port).map_or(PortVlan { id: 0, state: 0 }, |vlans| PortVlan {
        id: vlans.read(member!(vlans_own)),
        state: vlans.read(member!(vlans_own_state)),
    })
}

/// A port's membership of a VLAN; none if it is no member, as far as can be seen.
#[inline(always)]
pub fn membership(port: Port, vlan: u16) -> Option<Membership> {
    let table = vlans(port)?.follow(member!(vlans_table));
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
