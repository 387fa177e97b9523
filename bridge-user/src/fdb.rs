//! The forwarding database: reading and changing it.

use std::time::Duration;

use aya::maps::MapError;
use bridge_common::{
    fdb::{FdbEntry, FdbKey},
    frame::Vlan,
    layout::MAX_STATIC,
    mac::Mac,
    port::{Port, flag},
};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::{
    bridge::Bridge,
    detach::name_of,
    error::{Context as _, Error, Result},
    netlink::Link,
};

/// An entry, with the keys of `bridge -j fdb show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The address.
    pub mac: String,
    /// The port's device.
    pub ifname: String,
    /// VLAN identifier, 1 to 4095; none for untagged frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// "802.1ad" where the identifier is a service tag's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_protocol: Option<&'static str>,
    /// As in `bridge`, of a Linux bridge's entries.
    pub flags: Vec<&'static str>,
    /// The bridge.
    pub master: String,
    /// "static", "permanent" if it is the host's own, or empty for a learned entry.
    pub state: &'static str,
    /// Seconds since a frame last came from the address; learned entries only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<u64>,
    /// Of a Linux bridge's entries: whether frames for the address can go past the bridge, from the ports that are attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast: Option<bool>,
}

/// Now, on the clock that the programs stamp entries with (`bpf_ktime_get_coarse_ns`), in ns.
fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| {
        u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX)
    })
}

impl Bridge<'_> {
    /// All entries that frames are forwarded by, sorted by VLAN and address.
    pub fn fdb(&self, links: &[Link]) -> Result<Vec<Entry>> {
        let (now, ageing) = (now(), self.config()?.ageing);
        let mut entries = Vec::new();
        for item in &self.learned {
            let (key, entry) = item.at(&self.name, "read the learned addresses")?;
            if !entry.is_expired(now, ageing)
                && let Some(port) = self.holder(&entry)?
            {
                let updated = Duration::from_nanos(now.saturating_sub(entry.last_seen)).as_secs();
                entries.push((key, self.entry(key, &port, links, Some(updated))));
            }
        }
        for item in &self.statics {
            let (key, entry) = item.at(&self.name, "read the static addresses")?;
            if let Some(port) = self.holder(&entry)? {
                entries.push((key, self.entry(key, &port, links, None)));
            }
        }
        entries.sort_by_key(|(key, _)| (key.vlan, key.mac));
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// The port that an entry speaks of, unless the port has gone since.
    fn holder(&self, entry: &FdbEntry) -> Result<Option<Port>> {
        let port = self.port(u32::from(entry.slot))?;
        let valid = port.generation == entry.generation && port.has(flag::ACTIVE);
        Ok((valid && self.has_device(u32::from(entry.slot))?).then_some(port))
    }

    fn entry(&self, key: FdbKey, port: &Port, links: &[Link], updated: Option<u64>) -> Entry {
        let vlan = Some(key.vlan.identifier()).filter(|&identifier| identifier != 0);
        Entry {
            mac: key.mac.to_string(),
            ifname: name_of(port, links, false),
            vlan,
            vlan_protocol: key.vlan.is_service().then_some("802.1ad"),
            flags: Vec::new(),
            master: self.name.clone(),
            state: if updated.is_none() { "static" } else { "" },
            updated,
            fast: None,
        }
    }

    /// Puts an address on a port for good. It replaces what was known of the address.
    pub fn add_static(&mut self, mac: Mac, vlan: Vlan, slot: u32) -> Result<()> {
        let reason = if mac.is_group() {
            "a group address"
        } else {
            "all zeroes"
        };
        if !mac.is_station() {
            return Err(Error::BadAddress {
                mac: mac.to_string(),
                reason,
            });
        }
        let key = FdbKey { mac, vlan };
        let generation = self.port(slot)?.generation;
        let entry = FdbEntry {
            last_seen: 0,
            generation,
            slot: u16::try_from(slot).unwrap_or(u16::MAX),
            reserved: 0,
        };
        match self.statics.insert(key, entry, 0) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                return Err(Error::StaticFull {
                    bridge: self.name.clone(),
                    capacity: MAX_STATIC,
                });
            }
            result => result.at(mac, "add the address")?,
        }
        existed(self.learned.remove(&key)).at(mac, "forget the learned address")?;
        self.forget_recent()
    }

    /// Removes an address, learned or static; says whether it was there.
    pub fn remove_address(&mut self, mac: Mac, vlan: Vlan) -> Result<bool> {
        let key = FdbKey { mac, vlan };
        let was_static = existed(self.statics.remove(&key)).at(mac, "remove the address")?;
        let was_learned = existed(self.learned.remove(&key)).at(mac, "remove the address")?;
        self.forget_recent()?;
        Ok(was_static || was_learned)
    }

    /// Forgets learned addresses, and static ones too if `statics` says so: those on some ports, or all. Answers how
    /// many there were.
    pub fn flush(&mut self, slots: Option<&[u32]>, statics: bool) -> Result<usize> {
        let wanted = |entry: &FdbEntry| slots.is_none_or(|slots| slots.contains(&u32::from(entry.slot)));
        let mut tables = vec![&mut self.learned];
        if statics {
            tables.push(&mut self.statics);
        }
        let mut flushed = 0;
        for table in tables {
            let keys: Vec<FdbKey> = table
                .iter()
                .flatten()
                .filter(|(_, entry)| wanted(entry))
                .map(|(key, _)| key)
                .collect();
            for key in keys {
                flushed += usize::from(existed(table.remove(&key)).at(key.mac, "forget the address")?);
            }
        }
        self.forget_recent()?;
        Ok(flushed)
    }

    /// Forgets all addresses on these slots.
    pub(crate) fn forget_ports(&mut self, slots: &[u32]) -> Result<()> {
        self.flush(Some(slots), true).map(drop)
    }
}

/// Whether a removal removed something.
pub(crate) fn existed(result: Result<(), MapError>) -> Result<bool, MapError> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
