//! `show`: bridges and their ports as they are now.

use std::time::Duration;

use bridge_common::{
    counters::{PassReason, PortCounters},
    port::{HookMode, Port, flag},
};
use serde::Serialize;

use crate::{
    bridge::{Reading, Unreadable},
    detach::name_of,
    error::{Context as _, Error, Result},
    fastpath::{FastPath, overview},
    netlink::{Kind, Link, Netlink},
    port::{hooks, since_boot},
    problem::{Devices, Problem},
    run::is_running,
    state::State,
    sysfs::Sysfs,
};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// All bridges.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether [`run`](crate::run) looks after the hooks of ports in this network namespace.
    pub running: bool,
    /// Sorted by name.
    pub bridges: Vec<BridgeOverview>,
    /// Linux bridges of this network namespace with ports that are attached, sorted by name.
    pub accelerated: Vec<overview::BridgeOverview>,
    /// Bridges that can't be read, sorted by name.
    pub unreadable: Vec<Unreadable>,
}

/// A bridge.
#[derive(Clone, Debug, Serialize)]
pub struct BridgeOverview {
    /// Its name.
    pub bridge: String,
    /// Whether it is in this network namespace. Of one that isn't, ports are known by the names they had when they
    /// were attached.
    pub here: bool,
    /// Inode of its network namespace.
    pub network_namespace: u64,
    /// Whether that namespace is gone: the next attach, or detach of everything, clears the bridge away.
    pub namespace_gone: bool,
    /// Seconds that a learned address lives without a frame from it.
    pub ageing_time: u64,
    /// Slots.
    pub max_ports: u32,
    /// In order of slots.
    pub ports: Vec<PortOverview>,
}

/// A port.
#[derive(Clone, Debug, Serialize)]
pub struct PortOverview {
    /// Its device.
    pub ifname: String,
    /// The device's index.
    pub ifindex: u32,
    /// Index into the bridge's maps.
    pub slot: u32,
    /// "tap" or "other"; none if the device is out of sight.
    pub kind: Option<&'static str>,
    /// Who chooses the port's hooks: "auto", "xdp" or "tcx".
    pub hook: &'static str,
    /// Hooks that frames from the port meet, first to last.
    pub hooks: Vec<&'static str>,
    /// How often `run` has changed them since the port was attached.
    pub hook_changes: u32,
    /// How many seconds ago it did so last; none if never.
    pub hook_changed: Option<u64>,
    /// "up", "down", "no carrier", "gone", "unknown" in another network namespace, or "unfinished": a command is at work
    /// on the port, or was killed; the next one clears it away.
    pub state: &'static str,
    /// Octets of payload; none if the device is out of sight.
    pub mtu: Option<u32>,
    /// What keeps XDP from redirecting frames of this port or to it.
    pub obstacles: Vec<Obstacle>,
    /// What has happened to it that no command of ours has done.
    pub problems: Vec<Problem>,
}

/// Why frames go by tcx that XDP could carry.
#[derive(Clone, Debug, Serialize)]
pub struct Obstacle {
    /// The name of a [`PassReason`].
    pub reason: &'static str,
    /// In words, with the way out.
    pub text: String,
}

/// Looks at all bridges, or one.
pub async fn show(state: &State, only: Option<&str>) -> Result<Overview> {
    let mut bridges = Vec::new();
    let mut unreadable = Vec::new();
    let mut accelerated = Vec::new();
    if let Some(folder) = state.read()? {
        let netlink = Netlink::connect()?;
        let devices = Devices::list(&netlink).await?;
        let sysfs = Sysfs::open().at("sysfs", "mount")?;
        let fast = FastPath::open(&folder).or_else(|error| {
            let entry = error.unreadable_fast_path().ok_or(error)?;
            unreadable.push(entry);
            Ok::<_, Error>(None)
        })?;
        if let Some(fast) = fast {
            let entries = netlink.bridge_entries().await?;
            accelerated = fast.overview(&devices.links, &entries, &sysfs)?;
            accelerated.retain(|bridge| only.is_none_or(|only| bridge.bridge.as_deref() == Some(only)));
            if only.is_some() && !accelerated.is_empty() {
                return Ok(Overview {
                    schema: SCHEMA,
                    running: is_running(state),
                    bridges,
                    accelerated,
                    unreadable,
                });
            }
        }
        let names = only.map_or_else(|| folder.bridges(), |name| Ok(vec![name.to_owned()]))?;
        for name in names {
            let bridge = Reading::open_anywhere(&folder, &name);
            match bridge.and_then(|bridge| overview(&bridge, &devices, &sysfs)) {
                Ok(bridge) => bridges.push(bridge),
                Err(error) if only.is_some() => return Err(error),
                // Gone since the folder was listed.
                Err(_) if !folder.bridge_folder(&name).exists() => {}
                Err(error) => unreadable.push(Unreadable {
                    bridge: name,
                    error: error.to_string(),
                }),
            }
        }
    } else if let Some(name) = only {
        return Err(Error::NoBridge {
            name: name.to_owned(),
        });
    }
    Ok(Overview {
        schema: SCHEMA,
        running: is_running(state),
        bridges,
        accelerated,
        unreadable,
    })
}

fn overview(bridge: &Reading, devices: &Devices, sysfs: &Sysfs) -> Result<BridgeOverview> {
    let here = bridge.is_here()?;
    let links = &devices.links[..];
    let mut ports = Vec::new();
    for (slot, port) in bridge.occupied()? {
        let gone = !bridge.has_device(slot)?;
        let link = links
            .iter()
            .find(|link| here && !gone && link.ifindex == port.ifindex);
        let (hooks, problems) = if here {
            bridge.condition(devices, slot, &port)?
        } else {
            (hooks(port.flags), Vec::new())
        };
        ports.push(PortOverview {
            ifname: name_of(&port, if here { links } else { &[] }, gone),
            ifindex: port.ifindex,
            slot,
            kind: link.map(|link| if link.kind == Kind::Tap { "tap" } else { "other" }),
            hook: port.hook_mode().name(),
            hook_changes: port.hook_changes,
            hook_changed: seconds_since(port.hook_changed_at)?,
            hooks,
            state: match link {
                _ if port.has(flag::UNFINISHED) => "unfinished",
                None if gone => "gone",
                None => "unknown",
                Some(link) if !link.up => "down",
                Some(link) if !link.carrier => "no carrier",
                Some(_) => "up",
            },
            mtu: link.map(|link| link.mtu),
            obstacles: match link {
                Some(link) if link.kind == Kind::Tap => {
                    obstacles(link, &port, &bridge.counters(slot)?, sysfs)
                }
                _ => Vec::new(),
            },
            problems,
        });
    }
    Ok(BridgeOverview {
        bridge: bridge.name.clone(),
        here,
        network_namespace: bridge.meta.network_namespace,
        namespace_gone: bridge.is_abandoned()?,
        ageing_time: Duration::from_nanos(bridge.config()?.ageing).as_secs(),
        max_ports: bridge.meta.max_ports,
        ports,
    })
}

/// What the programs find out frame by frame, as it is now.
fn obstacles(link: &Link, port: &Port, counters: &PortCounters, sysfs: &Sysfs) -> Vec<Obstacle> {
    let name = &link.name;
    let mut found = Vec::new();
    let mut tell = |reason: PassReason, text: String| {
        found.push(Obstacle {
            reason: reason.name(),
            text,
        });
    };
    let queues = sysfs.transmit_queues(name);
    if queues > 1 {
        tell(
            PassReason::TargetQueues,
            format!(
                "has {queues} queues, among which a native redirect chooses otherwise than the kernel: frames to it go \
                 by tcx; with one queue (queues=1) XDP could carry them"
            ),
        );
    }
    if port.hook_mode() == HookMode::Tcx {
        return found;
    }
    found.extend(from_port(
        name,
        counters.passed_up[PassReason::VhostNet as usize],
        sysfs,
    ));
    found
}

/// What keeps XDP from redirecting frames of a tap, of which it has left so many to tcx since vhost-net sent them.
pub(crate) fn from_port(name: &str, batched: u64, sysfs: &Sysfs) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut tell = |reason: PassReason, text: String| {
        found.push(Obstacle {
            reason: reason.name(),
            text,
        });
    };
    if let Some(queue) = sysfs.steered_queue(name) {
        tell(
            PassReason::Steering,
            format!(
                "receive packet steering is on, and moves to other CPUs what XDP passes: frames from it go by tcx; \
                 'echo 0' into rps_cpus and rps_flow_cnt of /sys/class/net/{name}/queues/{queue} lets XDP carry them"
            ),
        );
    }
    if batched > 0 {
        tell(
            PassReason::VhostNet,
            format!(
                "is served by vhost-net, which sends in batches that XDP would reorder: its frames go by tcx \
                 ({batched} so far that XDP could have carried)"
            ),
        );
    }
    found
}

/// Seconds from a time since boot, in ns, until now; none of 0.
pub(crate) fn seconds_since(time: u64) -> Result<Option<u64>> {
    if time == 0 {
        return Ok(None);
    }
    let ago = Duration::from_nanos(since_boot()?.saturating_sub(time));
    Ok(Some(ago.as_secs()))
}
