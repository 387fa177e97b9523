//! Ports of Linux bridges are attached and detached: all that are named, or none.

use bridge_common::{
    fastpath::Port,
    port::{HookMode, INTERFACE_NAME, flag},
};

use super::{FastPath, Wish};
use crate::{
    attach::Attached,
    detach::Detached,
    error::{Error, Result},
    netlink::{Kind, Link},
    port::{hooks, recorded_name},
    state::Locked,
};

/// The Linux bridge that a device is a port of, if it is one's.
pub fn bridge_of<'links>(links: &'links [Link], device: &Link) -> Option<&'links Link> {
    let master = device.master?;
    links.iter().find(|link| link.ifindex == master && link.bridge)
}

/// The ports of a Linux bridge of this name.
pub fn ports_of<'links>(links: &'links [Link], bridge: &str) -> Result<Vec<&'links Link>> {
    let not_a_bridge = |reason: &str, next: &str| Error::NotAPort {
        name: bridge.to_owned(),
        reason: reason.into(),
        next: next.into(),
    };
    let master = links
        .iter()
        .find(|link| link.is_called(bridge))
        .ok_or_else(|| Error::NoDevice {
            name: bridge.to_owned(),
        })?;
    if !master.bridge {
        return Err(not_a_bridge(
            "not a Linux bridge",
            "'ip -br link show type bridge' lists those there are",
        ));
    }
    let ports: Vec<_> = links
        .iter()
        .filter(|link| link.master == Some(master.ifindex))
        .collect();
    if ports.is_empty() {
        return Err(not_a_bridge(
            "a bridge without ports",
            "add some with 'ip link set dev IFACE master BRIDGE', and attach again",
        ));
    }
    Ok(ports)
}

/// What attaching has done, as long as it may have to be undone.
pub struct Done<'links> {
    fast: FastPath,
    /// Each device with what it was before.
    before: Vec<(&'links Link, Option<Port>, bool)>,
}

/// Attaches ports of Linux bridges. On failure all is as it was.
pub fn attach<'links>(
    state: &Locked,
    links: &'links [Link],
    devices: &[&'links Link],
    wish: Wish,
    mut progress: impl FnMut(usize),
) -> Result<Done<'links>> {
    for device in devices {
        if !device.ethernet || device.name.len() >= INTERFACE_NAME {
            return Err(Error::NotAPort {
                name: device.name.clone(),
                reason: "not an Ethernet device".into(),
                next: "use a port of a bridge that carries Ethernet frames".into(),
            });
        }
    }
    let mut fast = FastPath::open_or_create(state)?;
    let gone = fast.tidy(links)?;
    let mut done = Done {
        fast,
        before: Vec::new(),
    };
    for (index, device) in devices.iter().enumerate() {
        progress(index);
        let before = done.fast.port(device.ifindex)?;
        // A tap that was made anew, as with every start of a VM, gets what was asked for its name.
        let namesake = gone.iter().find(|port| recorded_name(&port.name) == device.name);
        let kept = namesake.map(|port| Wish {
            mode: (device.kind == Kind::Tap).then_some(port.hook_mode()),
            bypass_netfilter: Some(port.has(flag::BYPASS_NETFILTER)),
        });
        let kept = kept.unwrap_or_default();
        let wish = Wish {
            mode: wish.mode.or(kept.mode),
            bypass_netfilter: wish.bypass_netfilter.or(kept.bypass_netfilter),
        };
        match done.fast.attach(device, wish) {
            Ok(changed) => done.before.push((device, before, changed)),
            Err(error) => {
                done.undo()?;
                return Err(error);
            }
        }
    }
    Ok(done)
}

impl Done<'_> {
    /// Makes the ports what they were.
    pub fn undo(mut self) -> Result<()> {
        for (device, before, _) in self.before.into_iter().rev() {
            self.fast.undo(device, before)?;
        }
        self.fast.remove_if_empty()
    }

    /// What to tell of it.
    pub fn report(&self, links: &[Link], asked: Option<HookMode>) -> Result<Vec<Attached>> {
        let ports = self.before.iter().map(|&(device, _, changed)| {
            let port = self.fast.port(device.ifindex)?.unwrap_or_default();
            Ok(Attached {
                ifname: device.name.clone(),
                ifindex: device.ifindex,
                master: bridge_of(links, device).map(|bridge| bridge.name.clone()),
                hook: port.hook_mode().name(),
                hooks: hooks(port.flags),
                changed,
                note: (asked == Some(HookMode::Xdp) && device.kind != Kind::Tap)
                    .then_some("no XDP, which runs on taps only"),
            })
        });
        ports.collect()
    }
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
    pub fn ports_of(&self, links: &[Link], bridge: &str) -> Result<Vec<u32>> {
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

    /// Detaches these ports; with the last one all goes. `progress` hears how many have been.
    pub fn detach_ports(
        &mut self,
        links: &[Link],
        ports: &[u32],
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<Detached>> {
        let mut detached = Vec::new();
        for (index, &ifindex) in ports.iter().enumerate() {
            progress(index);
            let recorded = self.port(ifindex)?.unwrap_or_default();
            let link = links.iter().find(|link| link.ifindex == ifindex);
            self.detach(ifindex)?;
            detached.push(Detached {
                ifname: link.map_or_else(|| recorded_name(&recorded.name), |link| link.name.clone()),
                bridge: link
                    .and_then(|link| bridge_of(links, link))
                    .map(|bridge| bridge.name.clone()),
                gone: link.is_none(),
                restored: link.is_some(),
            });
        }
        // What a killed command has left goes too.
        self.tidy(links)?;
        self.remove_if_empty()?;
        Ok(detached)
    }
}
