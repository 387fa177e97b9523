//! `detach`: ports leave their bridge, and a bridge without ports goes.

use bridge_common::port::Port;
use serde::Serialize;

use crate::{
    bridge::{Bridge, remove_folder},
    error::{Error, Result},
    netlink::{Link, Netlink},
    port::recorded_name,
    state::Locked,
};

/// A port that was detached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detached {
    /// The device.
    pub ifname: String,
    /// The bridge that it was a port of.
    pub bridge: String,
    /// Whether the device itself was gone already.
    pub gone: bool,
}

/// Detaches devices by name: those of one bridge, or of any in this network namespace. Either all are found or none
/// is detached.
pub async fn detach(state: &Locked, interfaces: &[String], only: Option<&str>) -> Result<Vec<Detached>> {
    let not_attached = |name: &String| Error::NotAttached {
        name: name.clone(),
        bridge: only.map(str::to_owned),
    };
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    let mut bridges = match only {
        Some(name) => vec![Bridge::open(state, name)?],
        None => Bridge::open_all(state)?,
    };
    let mut found = Vec::new();
    for name in interfaces {
        let place = find(&bridges, &links, name)?.ok_or_else(|| not_attached(name))?;
        if !found.contains(&place) {
            found.push(place);
        }
    }
    let mut report = Vec::new();
    for (index, slot) in found {
        report.push(detach_one(&mut bridges[index], &netlink, &links, slot).await?);
    }
    for mut bridge in bridges {
        bridge.tidy(&netlink).await?;
        if bridge.occupied()?.is_empty() {
            bridge.remove()?;
        }
    }
    Ok(report)
}

/// Detaches every port of one bridge, or of all in this network namespace, and removes the bridges.
pub async fn detach_all(state: &Locked, only: Option<&str>) -> Result<Vec<Detached>> {
    let names = match only {
        Some(name) => vec![name.to_owned()],
        None => state.bridges()?,
    };
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    let mut report = Vec::new();
    for name in names {
        match Bridge::open(state, &name) {
            Ok(mut bridge) => {
                for (slot, _) in bridge.occupied()? {
                    report.push(detach_one(&mut bridge, &netlink, &links, slot).await?);
                }
                bridge.remove()?;
            }
            // What can't be read any more can still be cleared away: the links go with their pins.
            Err(Error::Unfinished { .. } | Error::OtherLayout { .. }) => clear_away(state, &name)?,
            Err(Error::OtherNamespace { .. }) if only.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

fn clear_away(state: &Locked, name: &str) -> Result<()> {
    remove_folder(&state.bridge_folder(name), name)
}

async fn detach_one(bridge: &mut Bridge, netlink: &Netlink, links: &[Link], slot: u32) -> Result<Detached> {
    let port = bridge.port(slot)?;
    let gone = !bridge.has_device(slot)?;
    bridge.remove_port(netlink, slot).await?;
    Ok(Detached {
        ifname: name_of(&port, links, gone),
        bridge: bridge.name.clone(),
        gone,
    })
}

/// A port's name now, or the last one known if its device is gone.
pub fn name_of(port: &Port, links: &[Link], gone: bool) -> String {
    let link = links.iter().find(|link| link.ifindex == port.ifindex && !gone);
    link.map_or_else(|| recorded_name(port), |link| link.name.clone())
}

/// The bridge (by index) and slot of a port. A device that is there goes before one of its name that is gone.
pub fn find(bridges: &[Bridge], links: &[Link], name: &str) -> Result<Option<(usize, u32)>> {
    let mut vanished = None;
    for (index, bridge) in bridges.iter().enumerate() {
        for (slot, port) in bridge.occupied()? {
            let gone = !bridge.has_device(slot)?;
            if name_of(&port, links, gone) != name {
                continue;
            }
            if !gone {
                return Ok(Some((index, slot)));
            }
            vanished = Some((index, slot));
        }
    }
    Ok(vanished)
}
