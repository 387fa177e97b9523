//! `show`: bridges and their ports as they are now.

use std::time::Duration;

use bridge_common::port::Port;
use serde::Serialize;

use crate::{
    bridge::Bridge,
    detach::name_of,
    error::{Error, Result},
    netlink::{Kind, Link, Netlink},
    port::{hooks, since_boot},
    run::is_running,
    state::{Locked, State},
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
    /// Bridges that can't be read, sorted by name.
    pub unreadable: Vec<Unreadable>,
}

/// A bridge that is half made, or that another version made.
#[derive(Clone, Debug, Serialize)]
pub struct Unreadable {
    /// Its name.
    pub bridge: String,
    /// Why, and what to do.
    pub error: String,
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
    /// "up", "down", "no carrier", "gone", or "unknown" in another network namespace.
    pub state: &'static str,
    /// Octets of payload; none if the device is out of sight.
    pub mtu: Option<u32>,
}

/// Looks at all bridges, or one.
pub async fn show(state: &State, locked: Option<&Locked>, only: Option<&str>) -> Result<Overview> {
    let mut bridges = Vec::new();
    let mut unreadable = Vec::new();
    if let Some(locked) = locked {
        let links = Netlink::connect()?.links().await?;
        let names = only.map_or_else(|| locked.bridges(), |name| Ok(vec![name.to_owned()]))?;
        for name in names {
            match Bridge::open_anywhere(locked, &name) {
                Ok(bridge) => bridges.push(overview(&bridge, &links)?),
                Err(error @ (Error::Unfinished { .. } | Error::OtherLayout { .. })) if only.is_none() => {
                    unreadable.push(Unreadable {
                        bridge: name,
                        error: error.to_string(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Overview {
        schema: SCHEMA,
        running: is_running(state),
        bridges,
        unreadable,
    })
}

fn overview(bridge: &Bridge, links: &[Link]) -> Result<BridgeOverview> {
    let here = bridge.is_here();
    let mut ports = Vec::new();
    for (slot, port) in bridge.occupied()? {
        let gone = !bridge.has_device(slot)?;
        let link = links
            .iter()
            .find(|link| here && !gone && link.ifindex == port.ifindex);
        ports.push(PortOverview {
            ifname: name_of(&port, if here { links } else { &[] }, gone),
            ifindex: port.ifindex,
            slot,
            kind: link.map(|link| if link.kind == Kind::Tap { "tap" } else { "other" }),
            hook: port.hook_mode().name(),
            hook_changes: port.hook_changes,
            hook_changed: hook_changed(&port)?,
            hooks: hooks(&port),
            state: match link {
                None if gone => "gone",
                None => "unknown",
                Some(link) if !link.up => "down",
                Some(link) if !link.carrier => "no carrier",
                Some(_) => "up",
            },
            mtu: link.map(|link| link.mtu),
        });
    }
    Ok(BridgeOverview {
        bridge: bridge.name.clone(),
        here,
        network_namespace: bridge.meta.network_namespace,
        ageing_time: Duration::from_nanos(bridge.config()?.ageing).as_secs(),
        max_ports: bridge.meta.max_ports,
        ports,
    })
}

/// In seconds before now.
fn hook_changed(port: &Port) -> Result<Option<u64>> {
    if port.hook_changed_at == 0 {
        return Ok(None);
    }
    let ago = Duration::from_nanos(since_boot()?.saturating_sub(port.hook_changed_at));
    Ok(Some(ago.as_secs()))
}
