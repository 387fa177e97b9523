//! Forwarding databases.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use bridge_common::forwarding::EntryFlags;

use super::{
    bridge::{Bridge, Port},
    hash_table::{Table, find},
    memory::{Address, Structure, member, offset},
};

/// A bridge's.
#[derive(Clone, Copy)]
pub struct Database(Table);

/// A `struct net_bridge_fdb_entry`.
#[derive(Clone, Copy)]
pub struct Entry(Structure);

impl Database {
    /// None where it can't be searched now.
    #[inline(always)]
    pub fn of(bridge: Bridge) -> Option<Self> {
        Table::at(bridge.0.follow(member!(br_fdb))).map(Self)
    }

    /// The entry of an address in a VLAN.
    #[inline(always)]
    pub fn entry(self, vlan: u16, address: u64) -> Option<Entry> {
        let found = find_entry(self.0, address | u64::from(vlan) << 48);
        (!found.is_null()).then(|| Entry(found.open()))
    }
}

impl Entry {
    #[inline(always)]
    pub fn flags(self) -> EntryFlags {
        let flags: u64 = self.0.read(member!(entry_flags));
        EntryFlags {
            local: flags & offset!(entry_local) != 0,
            locked: flags & offset!(entry_locked) != 0,
            notify_inactive: flags & offset!(entry_notify_inactive) != 0,
        }
    }

    /// None if it is the bridge's own.
    #[inline(always)]
    pub fn port(self) -> Option<Port> {
        let port = self.0.follow(member!(entry_dst));
        (!port.is_null()).then(|| Port(port.open()))
    }

    /// See [`bridge_common::forwarding::Tables::is_fresh`].
    #[inline(always)]
    pub fn is_fresh(self, bridge: Bridge) -> bool {
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_jiffies64() };
        let age = now.wrapping_sub(self.0.read(member!(entry_updated)));
        age < (bridge.ageing_time() / 4).min(offset!(hz))
    }
}

/// The entry of a key (`struct net_bridge_fdb_key`) in a forwarding database.
#[inline(always)]
fn find_entry(table: Table, key: u64) -> Address {
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
