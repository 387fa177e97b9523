//! `attach`: devices become ports of a bridge, all of them or none.

use aya::programs::{SchedClassifier, TcAttachType};
use bridge_common::{
    layout::{DEFAULT_MAX_PORTS, program},
    port::{HookMode, INTERFACE_NAME, Port, flag},
};
use serde::Serialize;

use crate::{
    bridge::{Bridge, remove_folder},
    error::{Context as _, Error, Result},
    link::refuse_other_xdp,
    netlink::{Kind, Link, Netlink},
    port::hooks,
    state::{Locked, check_bridge_name},
};

/// What to attach, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bridge, made if there is none of this name.
    pub bridge: String,
    /// How taps get their hooks: `None` is [`HookMode::Auto`] for new ports, and changes nothing about others.
    pub hook: Option<HookMode>,
    /// Slots of a bridge that is made: 2 to [`bridge_common::layout::MAX_PORTS_LIMIT`].
    pub max_ports: Option<u32>,
}

/// What became of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The device.
    pub ifname: String,
    /// Its index.
    pub ifindex: u32,
    /// Who chooses its hooks: "auto", "xdp" or "tcx".
    pub hook: &'static str,
    /// The hooks it has now.
    pub hooks: Vec<&'static str>,
    /// Whether this call changed anything.
    pub changed: bool,
}

/// Attaches devices. On failure those that this call attached are detached again.
pub async fn attach(state: &Locked, interfaces: &[String], options: &Options) -> Result<Vec<Attached>> {
    check_bridge_name(&options.bridge)?;
    let netlink = Netlink::connect()?;
    // First undo what a killed command has left: it changes what the devices look like.
    for bridge in &mut Bridge::open_all(state)? {
        bridge.tidy(&netlink).await?;
    }
    let links = netlink.links().await?;
    let mut wanted: Vec<Link> = Vec::new();
    for name in interfaces {
        let link = links.iter().find(|link| link.name == *name);
        let link = link.ok_or_else(|| Error::NoDevice { name: name.clone() })?;
        // Naming a device twice asks for nothing more than naming it once.
        if !wanted.iter().any(|other| other.ifindex == link.ifindex) {
            wanted.push(link.clone());
        }
    }
    for bridge in Bridge::open_all(state)? {
        refuse_ports_of(&bridge, &wanted, &options.bridge)?;
    }
    let (mut bridge, new) = open_or_create(state, options)?;
    let result = attach_all(&mut bridge, &netlink, &links, &wanted, options).await;
    if new && result.is_err() {
        remove_folder(&bridge.folder, &bridge.name)?;
    }
    result
}

fn open_or_create(state: &Locked, options: &Options) -> Result<(Bridge, bool)> {
    match Bridge::open(state, &options.bridge) {
        Ok(bridge) => match options.max_ports {
            Some(wanted) if wanted != bridge.meta.max_ports => Err(Error::MaxPortsFixed {
                bridge: bridge.name,
                slots: bridge.meta.max_ports,
            }),
            _ => Ok((bridge, false)),
        },
        Err(Error::NoBridge { .. }) => Ok((create(state, options)?, true)),
        // A killed attach left it; it has no ports, so nothing is lost.
        Err(Error::Unfinished { .. }) => {
            remove_folder(&state.bridge_folder(&options.bridge), &options.bridge)?;
            Ok((create(state, options)?, true))
        }
        Err(error) => Err(error),
    }
}

fn create(state: &Locked, options: &Options) -> Result<Bridge> {
    Bridge::create(
        state,
        &options.bridge,
        options.max_ports.unwrap_or(DEFAULT_MAX_PORTS),
    )
}

async fn attach_all(
    bridge: &mut Bridge,
    netlink: &Netlink,
    links: &[Link],
    wanted: &[Link],
    options: &Options,
) -> Result<Vec<Attached>> {
    let mut report = Vec::new();
    let mut undo = Vec::new();
    for link in wanted {
        match attach_one(bridge, netlink, links, link, options.hook).await {
            Ok((slot, before)) => {
                let now = bridge.port(slot)?;
                report.push(Attached {
                    ifname: link.name.clone(),
                    ifindex: link.ifindex,
                    hook: now.hook_mode().name(),
                    hooks: hooks(&now),
                    changed: before.is_none_or(|before| before.flags != now.flags),
                });
                undo.push((slot, link, before));
            }
            Err(error) => {
                for (slot, link, before) in undo.into_iter().rev() {
                    match before {
                        None => bridge.remove_port(netlink, slot).await?,
                        Some(before) if before.flags != bridge.port(slot)?.flags => {
                            bridge.set_hooks(slot, link, before.has(flag::AUTO), before.has(flag::XDP))?;
                        }
                        Some(_) => {}
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(report)
}

/// Answers with the slot, and with the port as it was if it was one before.
async fn attach_one(
    bridge: &mut Bridge,
    netlink: &Netlink,
    links: &[Link],
    link: &Link,
    hook: Option<HookMode>,
) -> Result<(u32, Option<Port>)> {
    let existing = bridge
        .occupied()?
        .into_iter()
        .find(|(_, port)| port.ifindex == link.ifindex);
    if let Some((slot, port)) = existing {
        if let Some(mode) = hook
            && mode != port.hook_mode()
            && link.kind == Kind::Tap
        {
            let xdp = mode != HookMode::Tcx;
            if xdp && !port.has(flag::XDP) {
                refuse_other_xdp(link)?;
            }
            bridge.set_hooks(slot, link, mode == HookMode::Auto, xdp)?;
        }
        return Ok((slot, Some(port)));
    }
    check_device(netlink, links, link).await?;
    let mode = hook.unwrap_or(HookMode::Auto);
    if mode != HookMode::Tcx && link.kind == Kind::Tap {
        refuse_other_xdp(link)?;
    }
    Ok((bridge.add_port(netlink, link, mode).await?, None))
}

/// Refuses devices that are ports of another bridge of ours.
fn refuse_ports_of(bridge: &Bridge, wanted: &[Link], own: &str) -> Result<()> {
    if bridge.name == own {
        return Ok(());
    }
    for (slot, port) in bridge.occupied()? {
        if let Some(link) = wanted.iter().find(|link| link.ifindex == port.ifindex)
            && bridge.has_device(slot)?
        {
            return Err(Error::NotAPort {
                name: link.name.clone(),
                reason: format!("already a port of bridge {}", bridge.name),
                next: format!("detach it first with 'tapbridge detach {}'", link.name),
            });
        }
    }
    Ok(())
}

/// Refuses devices whose frames somebody else waits for: they would get none any more.
async fn check_device(netlink: &Netlink, links: &[Link], link: &Link) -> Result<()> {
    let refuse = |reason: String, next: String| {
        Err(Error::NotAPort {
            name: link.name.clone(),
            reason,
            next,
        })
    };
    if !link.ethernet || link.name.len() >= INTERFACE_NAME {
        return refuse(
            "not an Ethernet device".into(),
            "use a tap, a veth or another Ethernet device".into(),
        );
    }
    if let Some(master) = link.master {
        let name = links.iter().find(|other| other.ifindex == master);
        let name = name.map_or_else(|| format!("device {master}"), |master| master.name.clone());
        return refuse(
            format!("already a port of {name}"),
            format!(
                "take it out first with 'ip link set dev {} nomaster' (Open vSwitch: 'ovs-vsctl del-port')",
                link.name
            ),
        );
    }
    if let Some(upper) = links.iter().find(|other| other.is_on(link.ifindex)) {
        return refuse(
            format!("{} lies on it and would get no more frames", upper.name),
            format!("remove it first with 'ip link del dev {}'", upper.name),
        );
    }
    if has_our_program(&link.name)? {
        return refuse(
            "already a port of a bridge in another state folder, or of one made by another version".into(),
            "detach it there first; 'tapbridge show' and its option --state find it".into(),
        );
    }
    let addresses = netlink.host_addresses(link.ifindex).await?;
    if !addresses.is_empty() {
        return refuse(
            format!(
                "the host has the address {} on it and could no longer be reached there",
                addresses.join(", ")
            ),
            "give the address to one end of a veth pair and attach the other end".into(),
        );
    }
    Ok(())
}

/// Whether a tcx program of ours is attached already, though no bridge at hand knows of it.
fn has_our_program(interface: &str) -> Result<bool> {
    let (_, programs) =
        SchedClassifier::query_tcx(interface, TcAttachType::Ingress).at(interface, "list tcx programs")?;
    Ok(programs
        .iter()
        .any(|info| info.name_as_str() == Some(program::TCX)))
}
