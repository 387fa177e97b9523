//! `fdb show`: the forwarding databases of bridges with attached ports, which are the bridges' own.

use serde::Serialize;

use crate::{
    error::{Error, Result},
    fastpath::FastPath,
    kernel::netlink::{BridgeEntry, Link, Netlink},
    state::State,
};

/// An entry, with the keys of `bridge -j fdb show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The address.
    pub mac: String,
    /// The port's device.
    pub ifname: String,
    /// VLAN identifier, in a bridge that filters VLANs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// As in `bridge`, such as "sticky".
    pub flags: Vec<&'static str>,
    /// The bridge.
    pub master: String,
    /// "static", "permanent" if it is the host's own, "stale", or empty for a learned entry.
    pub state: &'static str,
    /// Seconds since a frame last came from the address; learned entries only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<u64>,
    /// Whether frames for the address can go past the bridge, from the ports that are attached.
    pub fast: bool,
}

/// Reads those of all bridges of the calling thread's network namespace that have attached ports, or of one.
pub async fn read(state: &State, only: Option<&str>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if let Some(folder) = state.read()?
        && let Some(fast) = FastPath::open(&folder)?
    {
        let netlink = Netlink::connect()?;
        entries = fast.fdb(&netlink.links().await?, netlink.bridge_entries().await?)?;
    }
    if let Some(only) = only {
        entries.retain(|entry| entry.master == only);
        // A bridge has entries of its own address at least.
        if entries.is_empty() {
            return Err(Error::NoBridge {
                name: only.to_owned(),
            });
        }
    }
    Ok(entries)
}

impl FastPath {
    /// Entries of all bridges that have an attached port, sorted by bridge, VLAN and address.
    pub fn fdb(&self, links: &[Link], entries: Vec<BridgeEntry>) -> Result<Vec<Entry>> {
        let ports = self.ports()?;
        let attached: Vec<&Link> = links
            .iter()
            .filter(|link| ports.iter().any(|(ifindex, _)| *ifindex == link.ifindex))
            .collect();
        let name = |ifindex: u32| {
            let link = links.iter().find(|link| link.ifindex == ifindex);
            link.map_or_else(|| format!("if{ifindex}"), |link| link.name.clone())
        };
        let mut found: Vec<Entry> = entries
            .into_iter()
            .filter(|entry| attached.iter().any(|port| port.master == Some(entry.master)))
            .map(|entry| Entry {
                mac: entry.mac.to_string(),
                ifname: name(entry.ifindex),
                vlan: entry.vlan,
                fast: is_fast(&attached, &entry),
                flags: entry.flags,
                master: name(entry.master),
                state: entry.state,
                updated: entry.updated,
            })
            .collect();
        found.sort_by(|one, other| {
            (&one.master, one.vlan, &one.mac).cmp(&(&other.master, other.vlan, &other.mac))
        });
        Ok(found)
    }
}

/// Whether frames for the address can come in by an attached port and leave by another.
fn is_fast(attached: &[&Link], entry: &BridgeEntry) -> bool {
    let mut elsewhere = attached.iter().filter(|port| port.ifindex != entry.ifindex);
    let is_hosts = entry.state == "permanent" || entry.ifindex == entry.master;
    !is_hosts && elsewhere.any(|port| port.master == Some(entry.master))
}
