//! `detach`: the programs leave ports, and devices the bridge that `attach` has put them in.

use serde::Serialize;

use crate::{
    error::{Error, Result},
    fastpath::FastPath,
    kernel::netlink::{Link, Netlink, bridge_of},
    own_bridge,
    port::recorded_name,
    state::{Cleared, StateLock, Unreadable},
};

/// A port that was detached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detached {
    /// The device.
    pub ifname: String,
    /// The bridge that it was a port of; none if the device is gone, or was no port any more.
    pub master: Option<String>,
    /// Whether it was taken out of that bridge, as attach had put it there.
    pub released: bool,
    /// Whether the device itself was gone already.
    pub gone: bool,
}

/// What detaching has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Detachment {
    /// The devices.
    pub ports: Vec<Detached>,
    /// What nobody could use any more, and has been removed therefore.
    pub cleared: Vec<Cleared>,
    /// What is left where only our pins should be.
    pub unreadable: Vec<Unreadable>,
}

/// Detaches devices by name, and all attached ports of bridges by theirs. Either all are found or none is detached.
/// `progress` hears how many of how many have been.
pub async fn detach(
    state: &StateLock,
    interfaces: &[String],
    masters: &[String],
    progress: impl FnMut(usize, usize),
) -> Result<Detachment> {
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    let not_attached = |name: &String| Error::NotAttached { name: name.clone() };
    let Some(mut fast) = FastPath::open_current(state)? else {
        return Err(match (interfaces, masters) {
            ([name, ..], _) => not_attached(name),
            ([], [bridge, ..]) => Error::NoPortOf {
                bridge: bridge.clone(),
            },
            ([], []) => return Ok(Detachment::default()),
        });
    };
    let mut wanted = Vec::new();
    for name in interfaces {
        wanted.push(fast.find(&links, name)?.ok_or_else(|| not_attached(name))?);
    }
    for master in masters {
        let ports = fast.ports_of(&links, master)?;
        if ports.is_empty() {
            return Err(Error::NoPortOf {
                bridge: master.clone(),
            });
        }
        wanted.extend(ports);
    }
    let mut ports = Vec::new();
    for ifindex in wanted {
        if !ports.contains(&ifindex) {
            ports.push(ifindex);
        }
    }
    let ports = fast.detach_ports(&links, &ports, progress)?;
    own_bridge::remove_unused(&netlink).await?;
    Ok(Detachment {
        ports,
        ..Detachment::default()
    })
}

/// Detaches every port of this network namespace, and clears away whatever is pinned for it, in whatever state, and what
/// is of older versions or of network namespaces that are gone. `progress` hears how many of how many ports have been.
pub async fn detach_all(state: &StateLock, progress: impl FnMut(usize, usize)) -> Result<Detachment> {
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    let mut done = Detachment {
        cleared: FastPath::clear_abandoned(state)?,
        ..Detachment::default()
    };
    match FastPath::open(state) {
        Ok(Some(mut fast)) if fast.is_current() => {
            let ports: Vec<u32> = fast.ports()?.into_iter().map(|(ifindex, _)| ifindex).collect();
            done.ports = fast.detach_ports(&links, &ports, progress)?;
        }
        // What it has noted of its ports can't be read, or may not be changed; which they are its links tell.
        Ok(_) | Err(Error::OtherVersion { .. } | Error::Damaged { .. }) => {
            for ifindex in FastPath::linked_devices(state)? {
                done.ports.extend(release(&links, ifindex)?);
            }
        }
        Err(error) => return Err(error),
    }
    FastPath::clear(state)?;
    for leftover in state.leftovers()? {
        if leftover.is_old() {
            done.cleared.push(leftover.clear()?);
        } else {
            done.unreadable.push(leftover.unreadable());
        }
    }
    own_bridge::remove_unused(&netlink).await?;
    Ok(done)
}

/// Takes a device out of the bridge that it is in if that is one of ours.
fn release(links: &[Link], ifindex: u32) -> Result<Option<Detached>> {
    let Some(link) = links.iter().find(|link| link.ifindex == ifindex) else {
        return Ok(None);
    };
    let bridge = bridge_of(links, link);
    let ours = bridge.filter(|bridge| own_bridge::is_ours(bridge));
    if let Some(bridge) = ours {
        own_bridge::release(ifindex, bridge.ifindex)?;
    }
    Ok(Some(Detached {
        ifname: link.name.clone(),
        master: bridge.map(|bridge| bridge.name.clone()),
        released: ours.is_some(),
        gone: false,
    }))
}

impl FastPath {
    /// Removes it if it has no ports.
    pub(crate) fn remove_if_empty(&self) -> Result<()> {
        if self.ports()?.is_empty() {
            self.remove()
        } else {
            Ok(())
        }
    }

    /// The attached port that has this name, now or, if its device is gone, when it was attached.
    pub fn find(&self, links: &[Link], name: &str) -> Result<Option<u32>> {
        let ports = self.ports()?;
        let link = links.iter().find(|link| link.is_called(name));
        let is_there = |ifindex: u32| links.iter().any(|link| link.ifindex == ifindex);
        let found = ports.iter().find(|(ifindex, port)| {
            link.map_or_else(
                || !is_there(*ifindex) && recorded_name(&port.name) == name,
                |link| link.ifindex == *ifindex,
            )
        });
        Ok(found.map(|(ifindex, _)| *ifindex))
    }

    /// Attached ports whose device is a port of this bridge now.
    fn ports_of(&self, links: &[Link], bridge: &str) -> Result<Vec<u32>> {
        let master = links.iter().find(|link| link.is_called(bridge));
        let of_bridge = |ifindex: &u32| {
            let link = links.iter().find(|link| link.ifindex == *ifindex);
            link.is_some_and(|link| {
                link.master.is_some() && link.master == master.map(|master| master.ifindex)
            })
        };
        let ports = self.ports()?.into_iter().map(|(ifindex, _)| ifindex);
        Ok(ports.filter(of_bridge).collect())
    }

    /// Detaches these ports; with the last one all goes.
    fn detach_ports(
        &mut self,
        links: &[Link],
        ports: &[u32],
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Vec<Detached>> {
        let mut detached = Vec::new();
        for (index, &ifindex) in ports.iter().enumerate() {
            progress(index, ports.len());
            let recorded = self.port(ifindex)?.unwrap_or_default();
            let link = links.iter().find(|link| link.ifindex == ifindex);
            self.detach(ifindex)?;
            let bridge = link.and_then(|link| bridge_of(links, link));
            detached.push(Detached {
                ifname: link.map_or_else(|| recorded_name(&recorded.name), |link| link.name.clone()),
                master: bridge.map(|bridge| bridge.name.clone()),
                released: bridge.is_some_and(|bridge| bridge.ifindex == recorded.bridge),
                gone: link.is_none(),
            });
        }
        // What a killed command has left goes too.
        self.reconcile(links)?;
        self.remove_if_empty()?;
        Ok(detached)
    }
}
