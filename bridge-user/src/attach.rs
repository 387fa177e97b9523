//! `attach`: devices become ports of a bridge, all of them or none.

use std::collections::HashMap;

use aya::programs::{SchedClassifier, TcAttachType};
use bridge_common::{
    layout::{DEFAULT_MAX_PORTS, program},
    port::{HookMode, INTERFACE_NAME, Port, flag},
};
use serde::Serialize;

use crate::{
    bridge::{Bridge, Report, remove_folder},
    error::{Context as _, Error, Result},
    link::refuse_other_xdp,
    netlink::{Kind, Link, Netlink, Queueings},
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
    /// What was asked for and can't be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// A device that is wanted.
struct Plan<'links> {
    link: &'links Link,
    slot: u32,
    /// The port that it is already.
    port: Option<Port>,
}

/// Attaches devices. All that can be told beforehand is checked before anything is changed; what fails then is undone.
/// `progress` hears how many of how many devices are ports.
pub async fn attach(
    state: &Locked,
    interfaces: &[String],
    options: &Options,
    progress: impl FnMut(usize, usize),
) -> Result<Report<Attached>> {
    check_bridge_name(&options.bridge)?;
    let netlink = Netlink::connect()?;
    // First undo what a killed command has left: it changes what the devices look like.
    let mut opened = Bridge::open_all(state)?;
    for bridge in &mut opened.bridges {
        bridge.tidy(&netlink).await?;
    }
    let devices = Devices {
        links: netlink.links().await?,
        addresses: netlink.host_addresses().await?,
        queueings: netlink.queueings().await?,
    };
    let wanted = devices.find(interfaces)?;
    for bridge in &opened.bridges {
        refuse_ports_of(bridge, &wanted, &options.bridge)?;
    }
    let existing = existing(state, options)?;
    let plans = plan(existing.as_ref(), &devices, wanted, options)?;
    let new = existing.is_none();
    let mut bridge = match existing {
        Some(bridge) => bridge,
        None => create(state, options)?,
    };
    let result = carry_out(&mut bridge, &netlink, &devices, &plans, options.hook, progress).await;
    if new && result.is_err() {
        remove_folder(&bridge.folder, &bridge.name)?;
    }
    Ok(Report {
        ports: result?,
        unreadable: opened.unreadable_but(&options.bridge),
    })
}

/// What there was before the first change.
struct Devices {
    links: Vec<Link>,
    addresses: HashMap<u32, Vec<String>>,
    queueings: Queueings,
}

impl Devices {
    /// Those of these names, each once: naming a device twice asks for nothing more than naming it once.
    fn find(&self, names: &[String]) -> Result<Vec<&Link>> {
        let mut found: Vec<&Link> = Vec::new();
        for name in names {
            let link = self.links.iter().find(|link| link.is_called(name));
            let link = link.ok_or_else(|| Error::NoDevice { name: name.clone() })?;
            if !found.iter().any(|other| other.ifindex == link.ifindex) {
                found.push(link);
            }
        }
        Ok(found)
    }
}

/// The bridge, if there is one to be used.
fn existing<'lock>(state: &'lock Locked, options: &Options) -> Result<Option<Bridge<'lock>>> {
    match Bridge::open(state, &options.bridge) {
        Ok(bridge) => match options.max_ports {
            Some(wanted) if wanted != bridge.meta.max_ports => Err(Error::MaxPortsFixed {
                bridge: bridge.name,
                slots: bridge.meta.max_ports,
            }),
            _ => Ok(Some(bridge)),
        },
        Err(Error::NoBridge { .. } | Error::Unfinished { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn slots_of_new(options: &Options) -> u32 {
    options.max_ports.unwrap_or(DEFAULT_MAX_PORTS)
}

fn create<'lock>(state: &'lock Locked, options: &Options) -> Result<Bridge<'lock>> {
    let folder = state.bridge_folder(&options.bridge);
    if folder.exists() {
        // A killed attach left it; it has no ports, so nothing is lost.
        remove_folder(&folder, &options.bridge)?;
    }
    Bridge::create(state, &options.bridge, slots_of_new(options))
}

/// Checks every device, and that there are slots for all.
fn plan<'links>(
    bridge: Option<&Bridge<'_>>,
    devices: &Devices,
    wanted: Vec<&'links Link>,
    options: &Options,
) -> Result<Vec<Plan<'links>>> {
    let ports = bridge.map_or_else(|| Ok(Vec::new()), Bridge::occupied)?;
    let slots = bridge.map_or(slots_of_new(options), |bridge| bridge.meta.max_ports);
    let mut free = (0..slots).filter(|slot| !ports.iter().any(|(taken, _)| taken == slot));
    let mut plans = Vec::new();
    for link in wanted {
        let existing = ports.iter().find(|(_, port)| port.ifindex == link.ifindex);
        let (slot, port) = if let Some(&(slot, port)) = existing {
            (slot, Some(port))
        } else {
            check_device(devices, link)?;
            let slot = free.next().ok_or_else(|| Error::Full {
                bridge: options.bridge.clone(),
                slots,
                interface: link.name.clone(),
            })?;
            (slot, None)
        };
        // A port keeps its hooks unless others are asked for.
        let mode = options.hook.or(port.is_none().then_some(HookMode::Auto));
        let gets_xdp = link.kind == Kind::Tap && mode.is_some_and(|mode| mode != HookMode::Tcx);
        if gets_xdp && !port.is_some_and(|port| port.has(flag::XDP)) {
            refuse_other_xdp(link)?;
        }
        plans.push(Plan { link, slot, port });
    }
    Ok(plans)
}

async fn carry_out(
    bridge: &mut Bridge<'_>,
    netlink: &Netlink,
    devices: &Devices,
    plans: &[Plan<'_>],
    hook: Option<HookMode>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Attached>> {
    for (done, plan) in plans.iter().enumerate() {
        progress(done, plans.len());
        if let Err(error) = attach_one(bridge, netlink, devices, plan, hook).await {
            undo(bridge, netlink, &plans[..done]).await?;
            // What the kernel says of a device that is gone names neither the device nor the reason.
            let gone = netlink.link_at(plan.link.ifindex).await?.is_none();
            return Err(if gone {
                Error::WentAway {
                    name: plan.link.name.clone(),
                }
            } else {
                error
            });
        }
    }
    let report = plans.iter().map(|&Plan { link, slot, port }| {
        let now = bridge.port(slot)?;
        Ok(Attached {
            ifname: link.name.clone(),
            ifindex: link.ifindex,
            hook: now.hook_mode().name(),
            hooks: hooks(&now),
            changed: port.is_none_or(|before| before.flags != now.flags),
            note: (hook == Some(HookMode::Xdp) && link.kind != Kind::Tap)
                .then_some("no XDP, which runs on taps only"),
        })
    });
    report.collect()
}

async fn attach_one(
    bridge: &mut Bridge<'_>,
    netlink: &Netlink,
    devices: &Devices,
    &Plan { link, slot, port }: &Plan<'_>,
    hook: Option<HookMode>,
) -> Result<()> {
    let Some(port) = port else {
        let queueing = devices.queueings.of(link.ifindex);
        let mode = hook.unwrap_or(HookMode::Auto);
        return bridge.add_port(netlink, link, queueing, mode, slot).await;
    };
    match hook {
        Some(mode) if mode != port.hook_mode() && link.kind == Kind::Tap => {
            bridge.set_hooks(slot, link, mode == HookMode::Auto, mode != HookMode::Tcx)
        }
        _ => Ok(()),
    }
}

/// Makes devices what they were before these plans were carried out.
async fn undo(bridge: &mut Bridge<'_>, netlink: &Netlink, plans: &[Plan<'_>]) -> Result<()> {
    let mut new = Vec::new();
    for &Plan { link, slot, port } in plans {
        match port {
            None => new.push(slot),
            Some(before) if before.flags != bridge.port(slot)?.flags => {
                bridge.set_hooks(slot, link, before.has(flag::AUTO), before.has(flag::XDP))?;
            }
            Some(_) => {}
        }
    }
    bridge.remove_ports(netlink, &new, |_| ()).await
}

/// Refuses devices that are ports of another bridge of ours.
fn refuse_ports_of(bridge: &Bridge<'_>, wanted: &[&Link], own: &str) -> Result<()> {
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
fn check_device(devices: &Devices, link: &Link) -> Result<()> {
    let links = &devices.links;
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
    if let Some(addresses) = devices.addresses.get(&link.ifindex) {
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
