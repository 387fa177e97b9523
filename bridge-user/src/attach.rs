//! `attach`: devices become ports of a bridge, all of them or none.

use bridge_common::{
    Hook,
    layout::DEFAULT_MAX_PORTS,
    port::{HookMode, INTERFACE_NAME, Port, flag},
};
use serde::Serialize;

use crate::{
    bridge::{Bridge, Report, remove_folder},
    error::{Error, Result},
    fastpath::{
        FastPath, Wish,
        operations::{self, bridge_of, ports_of},
    },
    journal::{self, Journal},
    link::{refuse_other_xdp, refuse_strangers},
    netlink::{Kind, Link, Netlink},
    port::{Originals, hooks, recorded_name},
    problem::Devices,
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
    /// Linux bridges of which all ports are attached.
    pub masters: Vec<String>,
    /// Of ports of Linux bridges: whether no rule of netfilter is meant for frames between them. `None` is no for new
    /// ports, and changes nothing about others.
    pub bypass_netfilter: Option<bool>,
}

/// What became of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The device.
    pub ifname: String,
    /// Its index.
    pub ifindex: u32,
    /// The Linux bridge that it is a port of, which goes on as before; none if it is a port of our own bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
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
    port: Known,
}

/// What is known of a device that is wanted.
enum Known {
    /// It is no port.
    New,
    /// A port of its name is in its slot, whose device is gone.
    Returns(Port),
    /// It is this port, with these hooks to be attached again.
    Attached(Port, Vec<Hook>),
}

/// Attaches devices: ports of Linux bridges to the fast path, others to a bridge of our own. All that can be told
/// beforehand is checked before anything is changed; what fails then is undone. `progress` hears how many of how many
/// devices are ports.
pub async fn attach(
    state: &Locked,
    interfaces: &[String],
    options: &Options,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report<Attached>> {
    FastPath::undo_unfinished(state)?;
    let links = Netlink::connect()?.links().await?;
    let mut wanted = find(&links, interfaces)?;
    for master in &options.masters {
        for port in ports_of(&links, master)? {
            if !wanted.iter().any(|link| link.ifindex == port.ifindex) {
                wanted.push(port);
            }
        }
    }
    let (accelerated, own): (Vec<&Link>, Vec<&Link>) = wanted
        .into_iter()
        .partition(|link| bridge_of(&links, link).is_some());
    for bridge in &Bridge::open_all(state)?.bridges {
        refuse_ports_of(bridge, &accelerated, "")?;
    }
    refuse_accelerated(state, &own)?;
    let wish = Wish {
        mode: options.hook,
        bypass_netfilter: options.bypass_netfilter,
    };
    let all = accelerated.len() + own.len();
    let done = if accelerated.is_empty() {
        None
    } else {
        let attached = operations::attach(state, &links, &accelerated, wish, |count| progress(count, all));
        Some(attached?)
    };
    let mut report = Report {
        ports: Vec::new(),
        unreadable: Vec::new(),
    };
    if !own.is_empty() {
        let names: Vec<String> = own.iter().map(|link| link.name.clone()).collect();
        let before = accelerated.len();
        let tell = |count: usize, _: usize| progress(before + count, all);
        match attach_to_own(state, &names, options, tell).await {
            Ok(attached) => report = attached,
            Err(error) => {
                if let Some(done) = done {
                    done.undo()?;
                }
                return Err(error);
            }
        }
    }
    if let Some(done) = done {
        report.ports.splice(..0, done.report(&links, options.hook)?);
    }
    Ok(report)
}

/// As [`attach`], of devices that become ports of a bridge of ours.
async fn attach_to_own(
    state: &Locked,
    interfaces: &[String],
    options: &Options,
    progress: impl FnMut(usize, usize),
) -> Result<Report<Attached>> {
    check_bridge_name(&options.bridge)?;
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    let names: Vec<&str> = find(&links, interfaces)?
        .into_iter()
        .map(|link| &*link.name)
        .collect();
    // First undo what a killed command has left: it changes what the devices look like.
    let mut opened = Bridge::open_all(state)?;
    for bridge in &mut opened.bridges {
        let returning = if bridge.name == options.bridge {
            &names[..]
        } else {
            &[]
        };
        bridge.tidy_for(&netlink, returning).await?;
    }
    let devices = Devices::list(&netlink).await?;
    let originals = Originals {
        queueings: netlink.queueings().await?,
        journal: Journal::open()?,
    };
    originals.journal.sweep(&devices.links);
    let wanted = find(&devices.links, interfaces)?;
    for bridge in &opened.bridges {
        refuse_ports_of(bridge, &wanted, &options.bridge)?;
    }
    let existing = existing(state, options)?;
    let plans = plan(existing.as_ref(), &devices, wanted, options)?;
    let new = existing.is_none();
    let mut bridge = if let Some(bridge) = existing {
        bridge
    } else {
        journal::sweep_namespaces()?;
        create(state, options)?
    };
    let result = carry_out(&mut bridge, &netlink, &originals, &plans, options.hook, progress).await;
    if new && result.is_err() {
        remove_folder(&bridge.folder, &bridge.name)?;
    }
    Ok(Report {
        ports: result?,
        unreadable: opened.unreadable_but(&options.bridge),
    })
}

/// The devices of these names, each once: naming a device twice asks for nothing more than naming it once.
fn find<'links>(links: &'links [Link], names: &[String]) -> Result<Vec<&'links Link>> {
    let mut found: Vec<&Link> = Vec::new();
    for name in names {
        let link = links.iter().find(|link| link.is_called(name));
        let link = link.ok_or_else(|| Error::NoDevice { name: name.clone() })?;
        if !found.iter().any(|other| other.ifindex == link.ifindex) {
            found.push(link);
        }
    }
    Ok(found)
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
    let slots = bridge.map_or(slots_of_new(options), |bridge| bridge.meta.max_ports);
    let ports = bridge.map_or_else(|| Ok(Vec::new()), Bridge::occupied)?;
    let mut free = (0..slots).filter(|slot| !ports.iter().any(|(taken, _)| taken == slot));
    let mut plans = Vec::new();
    for link in wanted {
        check_device(devices, link)?;
        let known = bridge.map_or(Ok(None), |bridge| known(bridge, &ports, link))?;
        let next = || free.next().map(|slot| (slot, Known::New));
        let (slot, port) = known.or_else(next).ok_or_else(|| Error::Full {
            bridge: options.bridge.clone(),
            slots,
            interface: link.name.clone(),
        })?;
        if !matches!(port, Known::Attached(..)) {
            refuse_strangers(link)?;
        }
        let (gets_xdp, has_xdp) = match &port {
            Known::Attached(port, broken) => (
                options
                    .hook
                    .map_or(port.has(flag::XDP), |mode| mode != HookMode::Tcx),
                port.has(flag::XDP) && !broken.contains(&Hook::Xdp),
            ),
            new => (mode_of_new(options.hook, new) != HookMode::Tcx, false),
        };
        if link.kind == Kind::Tap && gets_xdp && !has_xdp {
            refuse_other_xdp(link)?;
        }
        plans.push(Plan { link, slot, port });
    }
    Ok(plans)
}

/// The port that a device is, or whose place it takes.
fn known(bridge: &Bridge<'_>, ports: &[(u32, Port)], link: &Link) -> Result<Option<(u32, Known)>> {
    let mut place = None;
    for &(slot, port) in ports {
        let there = bridge.has_device(slot)?;
        if there && port.ifindex == link.ifindex {
            let broken = bridge.broken_hooks(slot, &port)?;
            let broken = broken.into_iter().map(|(hook, _)| hook).collect();
            return Ok(Some((slot, Known::Attached(port, broken))));
        }
        if !there && recorded_name(&port.name) == link.name {
            place = Some((slot, Known::Returns(port)));
        }
    }
    Ok(place)
}

/// Who chooses the hooks of a device that becomes a port. One that returns keeps what was asked for its name, if it was
/// a tap, for which there is a choice.
fn mode_of_new(asked: Option<HookMode>, known: &Known) -> HookMode {
    let before = match known {
        Known::Returns(port) if port.has(flag::NATIVE_TARGET) => Some(port.hook_mode()),
        _ => None,
    };
    asked.or(before).unwrap_or(HookMode::Auto)
}

async fn carry_out(
    bridge: &mut Bridge<'_>,
    netlink: &Netlink,
    originals: &Originals,
    plans: &[Plan<'_>],
    hook: Option<HookMode>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Attached>> {
    for (done, plan) in plans.iter().enumerate() {
        progress(done, plans.len());
        if let Err(error) = attach_one(bridge, netlink, originals, plan, hook).await {
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
    let report = plans.iter().map(|Plan { link, slot, port }| {
        let now = bridge.port(*slot)?;
        let same = match port {
            Known::Attached(before, broken) => broken.is_empty() && before.flags == now.flags,
            Known::New | Known::Returns(_) => false,
        };
        Ok(Attached {
            ifname: link.name.clone(),
            ifindex: link.ifindex,
            master: None,
            hook: now.hook_mode().name(),
            hooks: hooks(now.flags),
            changed: !same,
            note: (hook == Some(HookMode::Xdp) && link.kind != Kind::Tap)
                .then_some("no XDP, which runs on taps only"),
        })
    });
    report.collect()
}

async fn attach_one(
    bridge: &mut Bridge<'_>,
    netlink: &Netlink,
    originals: &Originals,
    &Plan { link, slot, ref port }: &Plan<'_>,
    hook: Option<HookMode>,
) -> Result<()> {
    let before = match port {
        Known::New => None,
        Known::Returns(before) => Some(before),
        Known::Attached(port, broken) => {
            // XDP that is not wanted any more need not come back.
            let mut broken = broken.clone();
            broken.retain(|&broken| hook != Some(HookMode::Tcx) || broken != Hook::Xdp);
            bridge.attach_again(slot, link, &broken)?;
            return match hook {
                Some(mode) if mode != port.hook_mode() && link.kind == Kind::Tap => {
                    bridge.set_hooks(slot, link, mode == HookMode::Auto, mode != HookMode::Tcx)
                }
                _ => Ok(()),
            };
        }
    };
    let mode = mode_of_new(hook, port);
    bridge
        .add_port(netlink, link, originals, mode, slot, before)
        .await
}

/// Makes devices what they were before these plans were carried out.
async fn undo(bridge: &mut Bridge<'_>, netlink: &Netlink, plans: &[Plan<'_>]) -> Result<()> {
    let mut new = Vec::new();
    for &Plan { link, slot, ref port } in plans {
        match port {
            Known::New | Known::Returns(_) => new.push(slot),
            Known::Attached(before, _) if before.flags != bridge.port(slot)?.flags => {
                bridge.set_hooks(slot, link, before.has(flag::AUTO), before.has(flag::XDP))?;
            }
            Known::Attached(..) => {}
        }
    }
    bridge.remove_ports(netlink, &new, |_| ()).await
}

/// Refuses devices that were ports of a Linux bridge when they were attached, and are still attached as such.
fn refuse_accelerated(state: &Locked, wanted: &[&Link]) -> Result<()> {
    let Some(fast) = FastPath::open(state)? else {
        return Ok(());
    };
    for link in wanted {
        if let Some(port) = fast.port(link.ifindex)?
            && !fast.broken_hooks(link.ifindex, &port)?.contains(&Hook::Tcx)
        {
            return Err(Error::NotAPort {
                name: link.name.clone(),
                reason: "still attached as the port of a Linux bridge".into(),
                next: format!("detach it first with 'tapbridge detach {}'", link.name),
            });
        }
    }
    Ok(())
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

/// Refuses devices that have no Ethernet frames, and those whose frames somebody else waits for.
fn check_device(devices: &Devices, link: &Link) -> Result<()> {
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
    match devices.claim(link) {
        Some(claim) => refuse(claim.reason, claim.next),
        None => Ok(()),
    }
}
