//! `detach`: ports leave their bridge, and a bridge without ports goes.

use bridge_common::port::Port;
use serde::Serialize;

use crate::{
    bridge::{Bridge, Opened, Remains, Report, Unreadable, remove_folder},
    error::{Error, Result},
    fastpath::FastPath,
    journal::{self, Journal},
    netlink::{Link, Netlink},
    port::{recorded_name, restore},
    state::Locked,
};

/// A port that was detached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detached {
    /// The device.
    pub ifname: String,
    /// The bridge that it was a port of; none where a Linux bridge's port is gone, or no port any more.
    pub bridge: Option<String>,
    /// Whether the device itself was gone already.
    pub gone: bool,
    /// Whether the device has its settings back that attach had changed. Not where the bridge's record of them can't be
    /// read: it may be left with `disable_ipv6` 1, promiscuous, and without a queueing discipline.
    pub restored: bool,
}

/// A bridge that nobody could use any more, and that has been removed therefore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cleared {
    /// The bridge.
    pub bridge: String,
    /// Why.
    pub reason: String,
}

/// Removes bridges whose network namespace is gone: all, or one; with all of them what accelerated others there.
pub fn clear_abandoned(state: &Locked, only: Option<&str>) -> Result<Vec<Cleared>> {
    let mut cleared = Vec::new();
    if only.is_none() {
        FastPath::clear_abandoned(state)?;
    }
    for name in state.bridges()? {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        // What else is wrong with a bridge, whoever needs it hears.
        if let Err(Error::NamespaceGone { network, .. }) = Bridge::open(state, &name) {
            remove_folder(&state.bridge_folder(&name), &name)?;
            journal::forget_all(network);
            cleared.push(Cleared {
                bridge: name,
                reason: format!("its network namespace (net:[{}]) is gone", network.inode),
            });
        }
    }
    Ok(cleared)
}

/// Detaches devices by name, and all ports of Linux bridges by theirs: of any in this network namespace, or only from
/// one bridge of ours. Either all are found or none is detached. `progress` hears how many of how many have been.
pub async fn detach(
    state: &Locked,
    interfaces: &[String],
    masters: &[String],
    only: Option<&str>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report<Detached>> {
    let links = Netlink::connect()?.links().await?;
    let fast = match only {
        Some(_) => None,
        None => FastPath::open(state)?,
    };
    let mut accelerated = Vec::new();
    let mut own = Vec::new();
    for name in interfaces {
        let port = fast.as_ref().map_or(Ok(None), |fast| fast.find(&links, name))?;
        match port {
            Some(ifindex) if accelerated.contains(&ifindex) => {}
            Some(ifindex) => accelerated.push(ifindex),
            None => own.push(name.clone()),
        }
    }
    for master in masters {
        let ports = fast
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), |fast| fast.ports_of(&links, master))?;
        if ports.is_empty() {
            return Err(Error::NoPortOf {
                bridge: master.clone(),
            });
        }
        for ifindex in ports {
            if !accelerated.contains(&ifindex) {
                accelerated.push(ifindex);
            }
        }
    }
    let all = accelerated.len() + own.len();
    let mut report = if own.is_empty() {
        Report {
            ports: Vec::new(),
            unreadable: Vec::new(),
        }
    } else {
        detach_from_own(state, &own, only, |count, _| progress(count, all)).await?
    };
    if let Some(mut fast) = fast
        && !accelerated.is_empty()
    {
        let detached = fast.detach_ports(&links, &accelerated, |count| progress(own.len() + count, all))?;
        report.ports.extend(detached);
    }
    Ok(report)
}

/// As [`detach`], of ports of our own bridges.
async fn detach_from_own(
    state: &Locked,
    interfaces: &[String],
    only: Option<&str>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report<Detached>> {
    let not_attached = |name: &String| Error::NotAttached {
        name: name.clone(),
        bridge: only.map(str::to_owned),
    };
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    let Opened {
        mut bridges,
        unreadable,
    } = match only {
        Some(name) => Opened {
            bridges: vec![Bridge::open(state, name)?],
            unreadable: Vec::new(),
        },
        None => Bridge::open_all(state)?,
    };
    let mut found = Vec::new();
    for name in interfaces {
        let place = find(&bridges, &links, name)?.ok_or_else(|| not_attached(name))?;
        if !found.contains(&place) {
            found.push(place);
        }
    }
    let ports = found
        .iter()
        .map(|&(index, slot)| report(&bridges[index], &links, slot));
    let ports = ports.collect::<Result<Vec<_>>>()?;
    // What a killed command has left comes first: counters are settled in the order in which ports were detached.
    for bridge in &mut bridges {
        bridge.tidy(&netlink).await?;
    }
    let mut before = 0;
    for (index, mut bridge) in bridges.into_iter().enumerate() {
        let of_bridge = found.iter().filter(|&&(place, _)| place == index);
        let slots: Vec<u32> = of_bridge.map(|&(_, slot)| slot).collect();
        let done = |count: usize| progress(before + count, found.len());
        if bridge.occupied()?.iter().all(|(slot, _)| slots.contains(slot)) {
            remove_bridge(bridge, &netlink, &slots, done).await?;
        } else {
            bridge.remove_ports(&netlink, &slots, done).await?;
        }
        before += slots.len();
    }
    Ok(Report { ports, unreadable })
}

/// Detaches every port of one bridge, or of all in this network namespace, and removes the bridges. What can't be read
/// is cleared away only if it is named: its devices might have to be given back by hand. `progress` hears how many of how
/// many ports have been detached.
pub async fn detach_all(
    state: &Locked,
    only: Option<&str>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report<Detached>> {
    let names = match only {
        Some(name) => vec![name.to_owned()],
        None => state.bridges()?,
    };
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    let mut reports = Vec::new();
    let mut unreadable = Vec::new();
    if only.is_none() {
        match FastPath::open(state) {
            Ok(Some(mut fast)) => {
                let ports: Vec<u32> = fast.ports()?.into_iter().map(|(ifindex, _)| ifindex).collect();
                let all = ports.len();
                reports = fast.detach_ports(&links, &ports, |count| progress(count, all))?;
            }
            Ok(None) | Err(Error::OtherFastPath { .. }) => {}
            Err(error) => return Err(error),
        }
        FastPath::clear(state)?;
    }
    for name in names {
        match Bridge::open(state, &name) {
            Ok(bridge) => {
                let slots: Vec<u32> = bridge.occupied()?.into_iter().map(|(slot, _)| slot).collect();
                let before = reports.len();
                for &slot in &slots {
                    reports.push(report(&bridge, &links, slot)?);
                }
                let done = |count: usize| progress(before + count, reports.len());
                remove_bridge(bridge, &netlink, &slots, done).await?;
            }
            // Nothing was attached yet, or is any more.
            Err(Error::Unfinished { .. }) => remove_folder(&state.bridge_folder(&name), &name)?,
            Err(Error::OtherNamespace { .. }) if only.is_none() => {}
            Err(Error::OtherLayout { .. } | Error::Damaged { .. }) if only.is_some() => {
                reports.extend(clear_away(state, &netlink, &links, &name).await?);
            }
            Err(error) if only.is_none() => unreadable.push(Unreadable {
                bridge: name,
                error: error.to_string(),
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(Report {
        ports: reports,
        unreadable,
    })
}

/// Removes a bridge that can't be opened, and gives devices back as far as can be told how they were.
async fn clear_away(state: &Locked, netlink: &Netlink, links: &[Link], name: &str) -> Result<Vec<Detached>> {
    let remains = Remains::of(state, name)?;
    let queueings = netlink.queueings().await?;
    let journal = Journal::open()?;
    let mut ports = Vec::new();
    for (port, link) in remains.ports(links) {
        let noted = || {
            Some(Port {
                ifindex: link.ifindex,
                flags: journal.flags(link)?,
                ..Port::EMPTY
            })
        };
        let port = port.or_else(noted);
        let restored = match port {
            Some(port) => restore(netlink, &queueings, &port).await.is_ok(),
            None => false,
        };
        ports.push(Detached {
            ifname: link.name.clone(),
            bridge: Some(name.to_owned()),
            gone: false,
            restored,
        });
    }
    remains.detach_links()?;
    remove_folder(&state.bridge_folder(name), name)?;
    Ok(ports)
}

/// Removes a bridge with the last of its ports, whose counters nobody will read.
async fn remove_bridge(
    mut bridge: Bridge<'_>,
    netlink: &Netlink,
    slots: &[u32],
    done: impl FnMut(usize),
) -> Result<()> {
    match bridge.release(netlink, slots, done).await?.failure {
        // It stays, with the port that could not be released, for the next command to try again.
        Some(error) => Err(error),
        None => bridge.remove(),
    }
}

fn report(bridge: &Bridge<'_>, links: &[Link], slot: u32) -> Result<Detached> {
    let port = bridge.port(slot)?;
    let gone = !bridge.has_device(slot)?;
    Ok(Detached {
        ifname: name_of(&port, links, gone),
        bridge: Some(bridge.name.clone()),
        gone,
        restored: !gone,
    })
}

/// A port's name now, or the last one known if its device is gone.
pub fn name_of(port: &Port, links: &[Link], gone: bool) -> String {
    let link = links.iter().find(|link| link.ifindex == port.ifindex && !gone);
    link.map_or_else(|| recorded_name(&port.name), |link| link.name.clone())
}

/// The bridge (by index) and slot of a port, by any of its names. A device that is there goes before one of its name that is gone.
pub fn find(bridges: &[Bridge<'_>], links: &[Link], name: &str) -> Result<Option<(usize, u32)>> {
    let mut vanished = None;
    for (index, bridge) in bridges.iter().enumerate() {
        for (slot, port) in bridge.occupied()? {
            let gone = !bridge.has_device(slot)?;
            if gone {
                if recorded_name(&port.name) == name {
                    vanished = Some((index, slot));
                }
            } else if links
                .iter()
                .any(|link| link.ifindex == port.ifindex && link.is_called(name))
            {
                return Ok(Some((index, slot)));
            }
        }
    }
    Ok(vanished)
}
