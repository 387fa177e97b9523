//! `stats`: which way frames went, and why they were left to the bridge.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::SystemTime,
};

use bridge_common::{
    Hook,
    counters::{PathCounters, Traffic},
    fastpath::{Path, Port, PortCounters},
    forwarding::Reason,
};
use humantime::format_rfc3339_millis;
use serde::{Deserialize, Serialize};

use super::{Read, Selection, selection::Group, since::Since};
use crate::{
    SCHEMA,
    error::{Context as _, Result},
    fastpath::Counted,
    kernel::netlink::Link,
    port::{recorded_name, since_boot},
    state::{State, Unreadable},
};

/// Names the time from one start of the machine to the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Statistics of some bridges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When they were read, by the machine's clock, in UTC (RFC 3339).
    pub time: String,
    /// Which time the machine was running: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// For how long it was running when they were read, in milliseconds, sleep included.
    pub uptime_ms: u64,
    /// From when they count; none if each port counts since it was attached.
    pub since: Option<Since>,
    /// Bridges with ports that are attached, sorted by name; ports without a bridge come last.
    pub bridges: Vec<BridgeStatistics>,
    /// What is in the state folder and can't be used, sorted by name.
    pub unreadable: Vec<Unreadable>,
}

/// Reads the counters of the ports of all bridges of the calling thread's network namespace, or of what is asked for, since
/// each port was attached.
pub async fn read(state: &State, only: impl Into<Selection>) -> Result<Statistics> {
    let only = only.into();
    let (mut statistics, links) = read_all(state).await?;
    only.apply(&mut statistics.bridges, &links)?;
    Ok(statistics)
}

/// As [`read`], of everything, with the devices that there are.
pub(super) async fn read_all(state: &State) -> Result<(Statistics, Vec<Link>)> {
    let (read, unreadable) = Read::new(state).await?;
    let (bridges, links) = read.map_or_else(Default::default, |read| {
        (of(&read.counted, &read.links), read.links)
    });
    Ok((Statistics::new(bridges, unreadable)?, links))
}

impl Statistics {
    /// Of bridges that were read just now.
    pub(super) fn new(bridges: Vec<BridgeStatistics>, unreadable: Vec<Unreadable>) -> Result<Self> {
        let boot = fs::read_to_string(BOOT_ID).at(BOOT_ID, "read")?;
        Ok(Self {
            schema: SCHEMA,
            time: format_rfc3339_millis(SystemTime::now()).to_string(),
            boot: boot.trim().to_owned(),
            uptime_ms: since_boot()? / 1_000_000,
            since: None,
            bridges,
            unreadable,
        })
    }
}

/// Statistics of a bridge's attached ports, since each was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BridgeStatistics {
    /// Its name; none of ports whose device is gone, or is no port of a Linux bridge any more.
    pub bridge: Option<String>,
    /// The attached ports, sorted by name.
    pub ports: Vec<PortStatistics>,
    /// Paths that frames have taken past the bridge, sorted by the names of their ports.
    pub paths: Vec<PathStatistics>,
}

impl Group for BridgeStatistics {
    fn bridge(&self) -> Option<&str> {
        self.bridge.as_deref()
    }

    fn ports(&self) -> impl Iterator<Item = &str> {
        self.ports.iter().map(|port| &*port.ifname)
    }

    fn keep_ports(&mut self, names: &[&str]) {
        self.ports.retain(|port| names.contains(&&*port.ifname));
        let is_one = |name: &str| names.contains(&name);
        self.paths
            .retain(|path| is_one(&path.from) || path.to.as_deref().is_some_and(is_one));
    }
}

/// Frames and bytes; a GSO frame counts as one, bytes go from the destination address to the end of the payload,
/// VLAN tags included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<Traffic> for Count {
    fn from(traffic: Traffic) -> Self {
        Self {
            frames: traffic.frames,
            bytes: traffic.bytes,
        }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// Statistics of a port.
///
/// `rx` = `forwarded` + `left`, and `forwarded` is the sum of all paths from the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortStatistics {
    /// The device.
    pub ifname: String,
    /// The device's index.
    pub ifindex: u32,
    /// Tells this attachment of the device from earlier and later ones, in which it counted from zero ([`Port::attachment`]).
    pub attachment: u32,
    /// Frames that the programs received from the device.
    pub rx: Count,
    /// Those that went past the bridge.
    pub forwarded: Count,
    /// Those that were left to the bridge.
    pub left: Count,
    /// How many were left to the bridge by reason ([`Reason::name`]); reasons without any are left out.
    pub left_by_reason: BTreeMap<&'static str, u64>,
    /// Times that XDP left a frame to tcx, which carried it or left it in turn.
    pub passed_up: u64,
    /// How often XDP left a frame to tcx by reason ([`Reason::name`]); reasons without any are left out.
    pub passed_up_by_reason: BTreeMap<&'static str, u64>,
    /// Frames from attached ports that went past the bridge to this one; those that have been detached since count.
    pub tx: Count,
    /// Frames that the bridge itself sent to it: what the device has transmitted and dropped, less `tx`. What lies in a tap's
    /// ring until the guest reads it is not counted yet.
    pub tx_by_bridge: u64,
    /// What the device itself has transmitted and dropped since it was attached, whoever sent it there; none if the device is
    /// out of sight. Of `tx_by_bridge` it is the part that never becomes less.
    #[serde(skip)]
    pub tx_of_device: Option<u64>,
    /// Frames of either that the device dropped, for a tap since its ring was full.
    pub tx_dropped: u64,
    /// Partial checksums that XDP completed.
    pub checksums_completed: u64,
    /// Frames that tcx met and native XDP can't take: GSO, or longer than a page has room for.
    pub bulk: Count,
    /// Received frames that carried several segments.
    pub gso_frames: u64,
}

/// Statistics of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathStatistics {
    /// The port that the frames came in by.
    pub from: String,
    /// The port that they left by, which need not be attached; none for all devices that are no more.
    pub to: Option<String>,
    /// The hook that forwarded them.
    pub via: &'static str,
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a hook left, by reason.
fn by_reason(counters: &PortCounters, hook: Hook) -> BTreeMap<&'static str, u64> {
    let left = &counters.left[hook as usize];
    let counted = Reason::ALL
        .into_iter()
        .map(|reason| (reason.name(), left[reason as usize]));
    counted.filter(|&(_, count)| count != 0).collect()
}

/// Statistics of each bridge of the network namespace that has an attached port, and of the ports that have no bridge.
pub(super) fn of(counted: &Counted, links: &[Link]) -> Vec<BridgeStatistics> {
    let links: HashMap<u32, &Link> = links.iter().map(|link| (link.ifindex, link)).collect();
    let (mut forwarded, mut sent) = (HashMap::<u32, Count>::new(), HashMap::<u32, Count>::new());
    for (path, counters) in &counted.paths {
        *forwarded.entry(path.from).or_default() += counters.total().into();
        *sent.entry(path.to).or_default() += counters.total().into();
    }
    let sum = |of: &HashMap<u32, Count>, ifindex| of.get(&ifindex).copied().unwrap_or_default();
    let mut bridges = BTreeMap::<Option<String>, BridgeStatistics>::new();
    for (ifindex, port, counters) in &counted.ports {
        let link = links.get(ifindex).copied();
        let name = link.map_or_else(|| recorded_name(&port.name), |link| link.name.clone());
        let master = link.and_then(|link| links.get(&link.master?));
        let bridge = master
            .filter(|master| master.bridge)
            .map(|bridge| bridge.name.clone());
        let statistics = bridges.entry(bridge.clone()).or_insert_with(|| BridgeStatistics {
            bridge,
            ports: Vec::new(),
            paths: Vec::new(),
        });
        statistics
            .paths
            .extend(paths_from(*ifindex, &name, &counted.paths, &links));
        let (forwarded, tx) = (sum(&forwarded, *ifindex), sum(&sent, *ifindex));
        let left = Count::from(counters.left_traffic);
        let mut rx = forwarded;
        rx += left;
        let tx_of_device = link.map(|link| sent_since(link, port));
        statistics.ports.push(PortStatistics {
            ifname: name,
            ifindex: *ifindex,
            attachment: port.attachment,
            rx,
            forwarded,
            left,
            left_by_reason: by_reason(counters, Hook::Tcx),
            passed_up: counters.left[Hook::Xdp as usize].iter().sum(),
            passed_up_by_reason: by_reason(counters, Hook::Xdp),
            tx,
            tx_by_bridge: tx_of_device.map_or(0, |sent| sent.saturating_sub(tx.frames)),
            tx_of_device,
            tx_dropped: link.map_or(0, |link| dropped_since(link, port)),
            checksums_completed: counters.checksums_completed,
            bulk: counters.bulk.into(),
            gso_frames: counters.gso,
        });
    }
    // Ports without a bridge come last.
    let (without, mut all): (Vec<_>, Vec<_>) = bridges
        .into_values()
        .partition(|statistics| statistics.bridge.is_none());
    all.extend(without);
    for statistics in &mut all {
        statistics
            .ports
            .sort_by(|one, other| one.ifname.cmp(&other.ifname));
        statistics
            .paths
            .sort_by(|one, other| (&one.from, &one.to).cmp(&(&other.from, &other.to)));
    }
    all
}

/// The paths from a port, of all paths in order.
fn paths_from(
    ifindex: u32,
    name: &str,
    paths: &[(Path, PathCounters)],
    links: &HashMap<u32, &Link>,
) -> Vec<PathStatistics> {
    let begin = paths.partition_point(|(path, _)| path.from < ifindex);
    let from = paths[begin..].iter().take_while(|(path, _)| path.from == ifindex);
    let mut found: Vec<PathStatistics> = Vec::new();
    for (path, counters) in from {
        let to = links.get(&path.to).filter(|_| path.to != Path::GONE);
        for hook in Hook::ALL {
            let Count { frames, bytes } = counters.via[hook as usize].into();
            if frames == 0 {
                continue;
            }
            // All devices that are no more are one.
            let is_same = |other: &&mut PathStatistics| other.to.is_none() && other.via == hook.name();
            if to.is_none()
                && let Some(other) = found.iter_mut().find(is_same)
            {
                other.frames += frames;
                other.bytes += bytes;
                continue;
            }
            found.push(PathStatistics {
                from: name.to_owned(),
                to: to.map(|link| link.name.clone()),
                via: hook.name(),
                frames,
                bytes,
            });
        }
    }
    found
}

/// What a device has transmitted since it was attached, or was to transmit.
fn sent_since(link: &Link, port: &Port) -> u64 {
    link.tx_frames.saturating_sub(port.tx_frames_at_attach) + dropped_since(link, port)
}

fn dropped_since(link: &Link, port: &Port) -> u64 {
    link.tx_dropped.saturating_sub(port.tx_dropped_at_attach)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_devices_that_are_no_more_are_one() {
        let counted = |to: u32, frames: u64| {
            let mut counters = PathCounters::default();
            counters.via[Hook::Tcx as usize] = Traffic {
                frames,
                bytes: 10 * frames,
            };
            (Path { from: 1, to }, counters)
        };
        let paths = [counted(Path::GONE, 1000), counted(10, 250), counted(11, 3)];
        let found = paths_from(1, "vm1", &paths, &HashMap::new());
        let found: Vec<_> = found
            .iter()
            .map(|path| (path.to.as_deref(), path.frames, path.bytes))
            .collect();
        assert_eq!(found, [(None, 1253, 12_530)]);
    }
}
