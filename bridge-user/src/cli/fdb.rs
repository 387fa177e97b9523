//! `fdb`: which address is behind which port.

use anyhow::Result;
use clap::{Args, Subcommand};
use tapbridge::{
    Error,
    bridge::Bridge,
    common::{frame::Vlan, mac::Mac},
    detach::find,
    fastpath::FastPath,
    netlink::Netlink,
    state::{Locked, State},
};

use super::{DEFAULT_BRIDGE, Which, change, not_attached, read};
use crate::output;

#[derive(Args)]
pub struct Address {
    /// Unicast MAC address, as 52:54:00:12:34:56
    #[arg(value_name = "MAC")]
    mac: Mac,

    /// VLAN of tagged frames: 1 to 4094; without it the address is that of untagged frames
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    vlan: Option<u16>,

    /// The VLAN is a service VLAN (802.1ad)
    #[arg(long, requires = "vlan")]
    service: bool,
}

impl Address {
    fn vlan(&self) -> Vlan {
        Vlan::new(self.vlan.unwrap_or(0), self.service)
    }
}

#[derive(Subcommand)]
pub enum Fdb {
    /// Show addresses, learned and static
    Show(Which),
    /// Put an address on a port for good: it is not learned elsewhere and does not age
    Add {
        #[command(flatten)]
        address: Address,

        /// The port
        #[arg(long, value_name = "IFACE")]
        dev: String,
    },
    /// Remove an address, learned or static
    Del {
        #[command(flatten)]
        address: Address,

        /// Bridge to remove it from
        #[arg(long, value_name = "NAME", default_value = DEFAULT_BRIDGE)]
        bridge: String,
    },
    /// Forget learned addresses
    Flush {
        /// Only those on this port
        #[arg(long, value_name = "IFACE")]
        dev: Option<String>,

        /// Only in this bridge
        #[arg(long, value_name = "NAME")]
        bridge: Option<String>,

        /// Remove static addresses too
        #[arg(long = "static")]
        statics: bool,
    },
}

/// Shows or changes the forwarding database.
pub async fn run(state: &State, command: Fdb, json: bool) -> Result<()> {
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    match command {
        Fdb::Show(Which { bridge }) => {
            let mut accelerated = Vec::new();
            if let Some(folder) = state.read()?
                && let Some(fast) = FastPath::open(&folder)?
            {
                accelerated = fast.fdb(&links, netlink.bridge_entries().await?)?;
                accelerated.retain(|entry| bridge.as_ref().is_none_or(|only| *only == entry.master));
                // An accelerated bridge has entries of its own address at least.
                if bridge.is_some() && !accelerated.is_empty() {
                    return output::fdb(&accelerated, json);
                }
            }
            let opened = read(state, bridge.as_deref())?;
            output::unreadable(&opened.unreadable, json);
            let mut entries = Vec::new();
            for bridge in opened.bridges {
                entries.extend(bridge.fdb(&links)?);
            }
            entries.extend(accelerated);
            output::fdb(&entries, json)
        }
        Fdb::Add { address, dev } => {
            let locked = state.lock_existing()?.ok_or_else(|| not_attached(&dev))?;
            let mut bridges = Bridge::open_all(&locked)?.bridges;
            let (index, slot) = find(&bridges, &links, &dev)?.ok_or_else(|| not_attached(&dev))?;
            Ok(bridges[index].add_static(address.mac, address.vlan(), slot)?)
        }
        Fdb::Del {
            address,
            bridge: name,
        } => {
            let locked = change(state, &name)?;
            let mut bridge = Bridge::open(&locked, &name)?;
            if bridge.remove_address(address.mac, address.vlan())? {
                return Ok(());
            }
            let vlan = address
                .vlan
                .map(|vlan| format!(" vlan {vlan}"))
                .unwrap_or_default();
            Err(Error::NoFdbEntry {
                mac: address.mac.to_string(),
                vlan,
                bridge: name,
            }
            .into())
        }
        Fdb::Flush {
            dev,
            bridge: only,
            statics,
        } => {
            let locked = read_or_change(state, only.as_deref())?;
            let mut bridges = match (&locked, &only) {
                (None, _) => Vec::new(),
                (Some(locked), Some(name)) => vec![Bridge::open(locked, name)?],
                (Some(locked), None) => Bridge::open_all(locked)?.bridges,
            };
            let flushed = match dev {
                None => bridges
                    .iter_mut()
                    .map(|bridge| bridge.flush(None, statics))
                    .sum::<tapbridge::Result<_>>()?,
                Some(dev) => {
                    let place = find(&bridges, &links, &dev)?;
                    let (index, slot) = place.ok_or(Error::NotAttached {
                        name: dev,
                        bridge: only,
                    })?;
                    bridges[index].flush(Some(&[slot]), statics)?
                }
            };
            drop(bridges);
            drop(locked);
            output::flushed(flushed, json)
        }
    }
}

fn read_or_change(state: &State, bridge: Option<&str>) -> Result<Option<Locked>> {
    match bridge {
        Some(name) => change(state, name).map(Some),
        None => Ok(state.lock_existing()?),
    }
}
