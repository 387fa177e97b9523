//! What keeps a device from becoming a port, with the way out.

use std::collections::HashMap;

use crate::{
    error::Result,
    kernel::netlink::{Link, Netlink},
};

/// Who else waits for a device's frames: there would be none for both.
pub(crate) struct Claim {
    pub(crate) reason: String,
    /// The way out.
    pub(crate) next: String,
}

/// Devices as they are at one moment.
pub(crate) struct Devices {
    pub(crate) links: Vec<Link>,
    /// By which the host may be reached, by index of the device.
    addresses: HashMap<u32, Vec<String>>,
}

impl Devices {
    pub(crate) async fn list(netlink: &Netlink) -> Result<Self> {
        Ok(Self {
            links: netlink.links().await?,
            addresses: netlink.host_addresses().await?,
        })
    }

    /// The first of those who wait for this device's frames.
    pub(crate) fn claim(&self, link: &Link) -> Option<Claim> {
        if let Some(master) = link.master {
            let name = self.links.iter().find(|other| other.ifindex == master);
            let name = name.map_or_else(|| format!("device {master}"), |master| master.name.clone());
            return Some(Claim {
                reason: format!("already a port of {name}"),
                next: format!(
                    "take it out first with 'ip link set dev {} nomaster' (Open vSwitch: 'ovs-vsctl del-port')",
                    link.name
                ),
            });
        }
        if let Some(upper) = self.links.iter().find(|other| other.is_on(link.ifindex)) {
            return Some(Claim {
                reason: format!("{} lies on it and would get no more frames", upper.name),
                next: format!("remove it first with 'ip link del dev {}'", upper.name),
            });
        }
        let addresses = self.addresses.get(&link.ifindex)?;
        Some(Claim {
            reason: format!(
                "the host has the address {} on it and could no longer be reached there",
                addresses.join(", ")
            ),
            next: "give the address to one end of a veth pair and attach the other end".into(),
        })
    }
}
