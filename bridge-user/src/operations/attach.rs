//! `attach`: ports of Linux bridges get the programs, all that are named or none. A device that has no bridge becomes a
//! port of one first.

use std::collections::BTreeSet;

use bridge_common::{
    fastpath::{MAX_PORTS, Port},
    port::{HookMode, INTERFACE_NAME, flag},
};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    fastpath::{FastPath, Wish, refuse_other_xdp, refuse_strangers},
    kernel::netlink::{Kind, Link, Netlink, bridge_of},
    operations::claim::Devices,
    own_bridge,
    port::{hooks, recorded_name},
    state::StateLock,
};

/// The bridge that devices without one become ports of, unless the user names another.
pub const DEFAULT_BRIDGE: &str = "tapbridge";

/// What to attach, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bridge that devices without one become ports of, made if there is none of this name; `None` is
    /// [`DEFAULT_BRIDGE`]. Devices that have another are refused then.
    pub bridge: Option<String>,
    /// How taps get their hooks: `None` is [`HookMode::Auto`] for new ports, and changes nothing about others.
    pub hook: Option<HookMode>,
    /// Linux bridges of which all ports are attached.
    pub masters: Vec<String>,
    /// Whether no rule of netfilter is meant for frames between these ports. `None` is no for new ports, and changes
    /// nothing about others.
    pub bypass_netfilter: Option<bool>,
}

/// What became of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The device.
    pub ifname: String,
    /// Its index.
    pub ifindex: u32,
    /// The Linux bridge that it is a port of.
    pub master: String,
    /// Whether this call has made it a port of the bridge; detach takes it out again.
    pub enslaved: bool,
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

/// What attaching has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// The devices.
    pub ports: Vec<Attached>,
    /// Bridges that were to be attached with all their ports, and have none.
    pub without_ports: Vec<String>,
}

/// Attaches devices. All that can be told beforehand is checked before anything is changed; what fails then is undone.
/// `progress` hears how many of how many devices are attached.
pub async fn attach(
    state: &StateLock,
    interfaces: &[String],
    options: &Options,
    progress: impl FnMut(usize, usize),
) -> Result<Attachment> {
    let mut without_ports = Vec::new();
    let choose = |links: &[Link]| {
        let mut wanted = find(links, interfaces)?;
        for master in &options.masters {
            let ports = ports_of(links, master)?;
            if ports.is_empty() {
                without_ports.push(master.clone());
            }
            for port in ports {
                if !wanted.contains(&port) {
                    wanted.push(port);
                }
            }
        }
        Ok(wanted)
    };
    let ports = attach_chosen(state, choose, options, &mut Gone::default(), progress).await?;
    Ok(Attachment { ports, without_ports })
}

/// Ports whose devices are gone: a tap that is made anew, as with every start of a virtual machine, gets what was asked for
/// its name.
#[derive(Default)]
pub(crate) struct Gone(Vec<Port>);

impl Gone {
    /// So many are remembered, as many as can be attached.
    const MOST: usize = MAX_PORTS as usize;

    /// The last that went counts.
    pub(crate) fn add(&mut self, ports: Vec<Port>) {
        for port in ports {
            self.0.retain(|other| other.name != port.name);
            self.0.push(port);
        }
        let many = self.0.len().saturating_sub(Self::MOST);
        self.0.drain(..many);
    }

    /// Drops those that are there again, or that others are called as.
    pub(crate) fn forget<'port>(&mut self, ports: impl Iterator<Item = &'port Port>) {
        if !self.0.is_empty() {
            let names: BTreeSet<_> = ports.map(|port| port.name).collect();
            self.0.retain(|port| !names.contains(&port.name));
        }
    }

    fn find(&self, name: &str) -> Option<&Port> {
        self.0.iter().find(|port| recorded_name(&port.name) == name)
    }
}

/// As [`attach`], of devices that are chosen, by their places, from those that there are at that moment. Ports that turn out
/// to be gone are added to those that are.
pub(crate) async fn attach_chosen(
    state: &StateLock,
    choose: impl FnOnce(&[Link]) -> Result<Vec<usize>>,
    options: &Options,
    gone: &mut Gone,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Attached>> {
    FastPath::undo_unfinished(state)?;
    let netlink = Netlink::connect()?;
    let devices = Devices::list(&netlink).await?;
    let links = &devices.links;
    let wanted: Vec<&Link> = choose(links)?.into_iter().map(|place| &links[place]).collect();
    for link in &wanted {
        check_device(&devices, link, options)?;
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    check_programs(FastPath::open(state)?.as_ref(), gone, &wanted, options)?;
    let mut fast = FastPath::open_or_create(state)?;
    gone.add(fast.reconcile(links)?);
    let name = options.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE);
    let home = if wanted.iter().any(|link| link.master.is_none()) {
        match own_bridge::find_or_make(&netlink, links, name).await {
            Err(error) => {
                fast.remove_if_empty()?;
                return Err(error);
            }
            home => Some(home?),
        }
    } else {
        None
    };
    let mut done = Done {
        fast,
        before: Vec::new(),
    };
    for (index, device) in wanted.iter().enumerate() {
        progress(index, wanted.len());
        let bridge = match bridge_of(links, device) {
            Some(bridge) => own_bridge::is_ours(bridge).then_some(bridge.ifindex),
            None => home.map(|home| home.ifindex),
        };
        let attached = done.attach(
            device,
            gone,
            Wish {
                bridge,
                ..options.into()
            },
        );
        if let Err(error) = attached {
            done.undo()?;
            if home.is_some_and(|home| home.made) {
                own_bridge::remove_unused(&netlink).await?;
            }
            // What the kernel says of a device that is gone names neither the device nor the reason.
            let gone = netlink.link_at(device.ifindex).await?.is_none();
            return Err(if gone {
                Error::WentAway {
                    name: device.name.clone(),
                }
            } else {
                error
            });
        }
    }
    let master = |device: &Link| {
        bridge_of(links, device)
            .map_or(name, |bridge| &bridge.name)
            .to_owned()
    };
    done.report(master, options.hook)
}

impl From<&Options> for Wish {
    fn from(options: &Options) -> Self {
        Self {
            mode: options.hook,
            bypass_netfilter: options.bypass_netfilter,
            bridge: None,
        }
    }
}

/// Where the devices of these names are, each once: naming a device twice asks for nothing more than naming it once.
fn find(links: &[Link], names: &[String]) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for name in names {
        let place = links.iter().position(|link| link.is_called(name));
        let place = place.ok_or_else(|| Error::NoDevice { name: name.clone() })?;
        if !found.contains(&place) {
            found.push(place);
        }
    }
    Ok(found)
}

/// Where the ports of a Linux bridge of this name are.
fn ports_of(links: &[Link], bridge: &str) -> Result<Vec<usize>> {
    let master = links.iter().find(|link| link.is_called(bridge));
    let master = master.ok_or_else(|| Error::NoDevice {
        name: bridge.to_owned(),
    })?;
    if !master.bridge {
        return Err(Error::NotABridge {
            name: bridge.to_owned(),
            next: "'ip -br link show type bridge' lists those there are".into(),
        });
    }
    let ports = (0..links.len()).filter(|place| links[*place].master == Some(master.ifindex));
    Ok(ports.collect())
}

/// Refuses new ports where programs of others are in the way, before any are loaded, and before it is forgotten what ports
/// that are gone had.
fn check_programs(fast: Option<&FastPath>, gone: &Gone, wanted: &[&Link], options: &Options) -> Result<()> {
    let ports = fast.map_or_else(|| Ok(Vec::new()), FastPath::ports)?;
    for link in wanted {
        if ports.iter().any(|(ifindex, _)| *ifindex == link.ifindex) {
            continue;
        }
        refuse_strangers(link)?;
        let mut namesakes = ports.iter().map(|(_, port)| port);
        let namesake = namesakes.find(|port| recorded_name(&port.name) == link.name);
        let kept = namesake.or_else(|| gone.find(&link.name)).map(Port::hook_mode);
        if link.kind == Kind::Tap && options.hook.or(kept) != Some(HookMode::Tcx) {
            refuse_other_xdp(link)?;
        }
    }
    Ok(())
}

/// Refuses devices that have no Ethernet frames, those whose frames somebody else waits for, and those of another bridge
/// than the one that was named.
fn check_device(devices: &Devices, link: &Link, options: &Options) -> Result<()> {
    let refuse = |reason: String, next: String| {
        Err(Error::NotAPort {
            name: link.name.clone(),
            reason,
            next,
        })
    };
    if link.bridge {
        return refuse(
            "a bridge itself".into(),
            format!("'tapbridge attach --master {}' attaches its ports", link.name),
        );
    }
    if !link.ethernet || link.name.len() >= INTERFACE_NAME {
        return refuse(
            "not an Ethernet device".into(),
            "use a tap, a veth or another Ethernet device".into(),
        );
    }
    match (bridge_of(&devices.links, link), &options.bridge) {
        (Some(bridge), Some(name)) if !bridge.is_called(name) => refuse(
            format!("a port of {}, and not of {name}", bridge.name),
            format!(
                "leave out --bridge to attach it where it is, or take it out first with 'ip link set dev {} nomaster'",
                link.name
            ),
        ),
        (Some(_), _) => Ok(()),
        (None, _) => match devices.claim(link) {
            Some(claim) => refuse(claim.reason, claim.next),
            None => Ok(()),
        },
    }
}

/// What attaching has done, as long as it may have to be undone.
struct Done<'links> {
    fast: FastPath,
    /// Each device with what it was before, and whether it has changed.
    before: Vec<(&'links Link, Option<Port>, bool)>,
}

impl<'links> Done<'links> {
    /// Attaches a device, which may be the one that one of the ports was whose device is `gone`.
    fn attach(&mut self, device: &'links Link, gone: &Gone, wish: Wish) -> Result<()> {
        let before = self.fast.port(device.ifindex)?;
        let namesake = gone.find(&device.name).filter(|_| before.is_none());
        let kept = namesake.map(|port| Wish {
            mode: (device.kind == Kind::Tap).then_some(port.hook_mode()),
            bypass_netfilter: Some(port.has(flag::BYPASS_NETFILTER)),
            bridge: None,
        });
        let kept = kept.unwrap_or_default();
        let wish = Wish {
            mode: wish.mode.or(kept.mode),
            bypass_netfilter: wish.bypass_netfilter.or(kept.bypass_netfilter),
            bridge: wish.bridge,
        };
        self.before.push((device, before, false));
        let changed = self.fast.attach(device, wish)?;
        if let Some((_, _, noted)) = self.before.last_mut() {
            *noted = changed;
        }
        Ok(())
    }

    /// Makes the devices what they were.
    fn undo(mut self) -> Result<()> {
        for (device, before, _) in self.before.into_iter().rev() {
            self.fast.undo(device, before)?;
        }
        self.fast.remove_if_empty()
    }

    /// What to tell of it.
    fn report(&self, master: impl Fn(&Link) -> String, asked: Option<HookMode>) -> Result<Vec<Attached>> {
        let ports = self.before.iter().map(|&(device, _, changed)| {
            let port = self.fast.port(device.ifindex)?.unwrap_or_default();
            Ok(Attached {
                ifname: device.name.clone(),
                ifindex: device.ifindex,
                master: master(device),
                enslaved: device.master.is_none(),
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
