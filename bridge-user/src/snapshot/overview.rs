//! `show`: bridges and their ports as they are now, and what keeps frames from going past them.

use std::{collections::BTreeMap, time::Duration};

use bridge_common::{
    Hook,
    fastpath::{Answer, Port, PortCounters},
    mac::Mac,
    port::flag,
};
use serde::Serialize;

use super::{
    Read, Selection,
    obstacles::{Obstacle, obstacle, xdp_obstacles},
    problem::Problem,
    selection::Group,
};
use crate::{
    SCHEMA,
    control::is_running,
    error::{Context as _, Result},
    fastpath::{Counted, FastPath},
    kernel::{
        link::LinkState,
        netlink::{BridgeEntry, Kind, Link, bridge_of},
        sysfs::Sysfs,
    },
    own_bridge,
    port::{hooks, recorded_name, since_boot},
    state::{State, Unreadable},
};

/// A program that should be attached is not.
const DETACHED: &str = "detached";
/// Between a port's being written down and its program's being attached no more time goes by than this.
const COMMAND_AT_WORK: Duration = Duration::from_millis(100);

/// All bridges.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether [`run`](crate::control::run) looks after the hooks of ports in this network namespace.
    pub running: bool,
    /// Linux bridges of this network namespace with ports that are attached, sorted by name.
    pub bridges: Vec<BridgeOverview>,
    /// What is in the state folder and can't be used, sorted by name.
    pub unreadable: Vec<Unreadable>,
}

/// Looks at all bridges, or at what is asked for.
pub async fn read(state: &State, only: impl Into<Selection>) -> Result<Overview> {
    let only = only.into();
    let running = is_running(state).await;
    let (read, unreadable) = Read::new(state).await?;
    let mut overview = Overview {
        schema: SCHEMA,
        running,
        bridges: match &read {
            Some(read) => of(read).await?,
            None => Vec::new(),
        },
        unreadable,
    };
    only.apply(
        &mut overview.bridges,
        read.as_ref().map_or(&[], |read| &read.links),
    )?;
    Ok(overview)
}

impl Group for BridgeOverview {
    fn bridge(&self) -> Option<&str> {
        self.bridge.as_deref()
    }

    fn ports(&self) -> impl Iterator<Item = &str> {
        self.ports.iter().map(|port| &*port.ifname)
    }

    fn keep_ports(&mut self, names: &[&str]) {
        self.ports.retain(|port| names.contains(&&*port.ifname));
    }
}

/// All bridges that have an attached port, and attached ports that have no bridge.
pub(super) async fn of(read: &Read) -> Result<Vec<BridgeOverview>> {
    let entries = read.netlink.bridge_entries().await?;
    let sysfs = Sysfs::open().at("sysfs", "mount")?;
    let mut bridges = read.fast.overview(&read.counted, &read.links, &entries, &sysfs)?;
    let ports = bridges.iter_mut().flat_map(|bridge| &mut bridge.ports);
    let mut detached: Vec<_> = ports.filter(|port| port.has(DETACHED)).collect();
    if !detached.is_empty() {
        // Or a command is about to attach a program just now, or has put another one in its place.
        tokio::time::sleep(COMMAND_AT_WORK).await;
        for port in &mut detached {
            read.fast.look_again(port)?;
        }
    }
    Ok(bridges)
}

/// A Linux bridge with ports that are attached.
#[derive(Clone, Debug, Serialize)]
pub struct BridgeOverview {
    /// Its name; none of ports whose device is gone, or is no port of a Linux bridge any more.
    pub bridge: Option<String>,
    /// Whether `attach` has made it: it goes with its last port.
    pub own: bool,
    /// What keeps frames of all its ports from going past it, and what it says to one of them.
    pub obstacles: Vec<Obstacle>,
    /// Sorted by name.
    pub ports: Vec<PortOverview>,
}

/// A port of a bridge.
#[derive(Clone, Debug, Serialize)]
pub struct PortOverview {
    /// Its device.
    pub ifname: String,
    /// The device's index.
    pub ifindex: u32,
    /// Whether it is attached.
    pub attached: bool,
    /// "tap" or "other"; none if the device is out of sight.
    pub kind: Option<&'static str>,
    /// Who chooses its hooks: "auto", "xdp" or "tcx"; none of a port that is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<&'static str>,
    /// Hooks that frames from the port meet, first to last.
    pub hooks: Vec<&'static str>,
    /// How often `run` has changed them since the port was attached.
    pub hook_changes: u32,
    /// How many seconds ago it did so last; none if never.
    pub hook_changed: Option<u64>,
    /// Whether no rule of netfilter is meant for frames between it and others of which the same has been said.
    pub bypass_netfilter: bool,
    /// "up", "down", "no carrier", "gone", or "unfinished": a command is at work on the port, or was killed; the next
    /// one undoes it.
    pub state: &'static str,
    /// Bytes of payload; none if the device is out of sight.
    pub mtu: Option<u32>,
    /// What keeps frames from it or to it from going past the bridge, or by XDP.
    pub obstacles: Vec<Obstacle>,
    /// What has happened to it that no command of ours has done.
    pub problems: Vec<Problem>,
}

impl PortOverview {
    fn has(&self, problem: &str) -> bool {
        self.problems.iter().any(|found| found.problem == problem)
    }
}

/// Attached ports by index, with what they have counted.
type Attached<'counted> = BTreeMap<u32, (&'counted Port, &'counted PortCounters)>;

impl FastPath {
    /// All bridges of the network namespace that have an attached port, and attached ports that have no bridge.
    fn overview(
        &self,
        counted: &Counted,
        links: &[Link],
        entries: &[BridgeEntry],
        sysfs: &Sysfs,
    ) -> Result<Vec<BridgeOverview>> {
        let ports = counted.ports.iter();
        let attached: Attached<'_> = ports
            .map(|(ifindex, port, counters)| (*ifindex, (port, counters)))
            .collect();
        let mut bridges = BTreeMap::<&str, &Link>::new();
        let mut ports = Vec::new();
        for (&ifindex, &port) in &attached {
            let link = links.iter().find(|link| link.ifindex == ifindex);
            match link.and_then(|link| bridge_of(links, link)) {
                Some(bridge) => drop(bridges.insert(&bridge.name, bridge)),
                None => ports.push(self.port_overview(ifindex, links, Some(port), sysfs)?),
            }
        }
        let mut overviews = Vec::new();
        for bridge in bridges.into_values() {
            overviews.push(self.bridge_overview(bridge, links, &attached, entries, sysfs)?);
        }
        if !ports.is_empty() {
            overviews.push(BridgeOverview {
                bridge: None,
                own: false,
                obstacles: Vec::new(),
                ports,
            });
        }
        Ok(overviews)
    }

    fn bridge_overview(
        &self,
        bridge: &Link,
        links: &[Link],
        attached: &Attached<'_>,
        entries: &[BridgeEntry],
        sysfs: &Sysfs,
    ) -> Result<BridgeOverview> {
        let mut ports = Vec::new();
        let members = links.iter().filter(|link| link.master == Some(bridge.ifindex));
        for link in members {
            ports.push(self.port_overview(
                link.ifindex,
                links,
                attached.get(&link.ifindex).copied(),
                sysfs,
            )?);
        }
        ports.sort_by(|one, other| one.ifname.cmp(&other.ifname));
        let mut obstacles = Vec::new();
        let entries: Vec<&BridgeEntry> = entries
            .iter()
            .filter(|entry| entry.master == bridge.ifindex && entry.state != "permanent")
            .collect();
        for (from, to, answer) in self.ask_about(&ports, &entries)? {
            let tcx = answer.obstacle(Hook::Tcx);
            // XDP runs on taps alone.
            let is_tap = |port: &PortOverview| port.ifname == from && port.kind == Some("tap");
            let xdp = answer.obstacle(Hook::Xdp).filter(|_| ports.iter().any(is_tap));
            // What the bridge itself would drop, or could not do either, is no obstacle.
            let Some(reason) = tcx.or(xdp) else {
                continue;
            };
            let told = obstacle(reason, bridge, &from, &to, sysfs);
            let Some((of_port, text)) = told else { continue };
            let place = match of_port {
                Some(name) => ports
                    .iter_mut()
                    .find(|port| port.ifname == name)
                    .map(|port| &mut port.obstacles),
                None => Some(&mut obstacles),
            };
            if let Some(place) = place
                && !place.iter().any(|known: &Obstacle| known.reason == reason.name())
            {
                place.push(Obstacle {
                    reason: reason.name(),
                    text,
                });
            }
        }
        Ok(BridgeOverview {
            bridge: Some(bridge.name.clone()),
            own: own_bridge::is_ours(bridge),
            obstacles,
            ports,
        })
    }

    /// Asks about frames from each attached port to another, and from another to each port: enough to meet every port.
    fn ask_about(
        &self,
        ports: &[PortOverview],
        entries: &[&BridgeEntry],
    ) -> Result<Vec<(String, String, Answer)>> {
        let station = |ifindex: u32| -> Option<Mac> {
            let entry = entries.iter().find(|entry| entry.ifindex == ifindex);
            entry.map(|entry| entry.mac)
        };
        let known: Vec<(&PortOverview, Mac)> = ports
            .iter()
            .filter_map(|port| Some((port, station(port.ifindex)?)))
            .collect();
        let oracle = self.oracle()?;
        let mut answers = Vec::new();
        for (index, &(to, destination)) in known.iter().enumerate() {
            // The next attached one, so that every port is a source once too.
            let mut others = (1..known.len()).map(|step| known[(index + step) % known.len()]);
            if let Some((from, source)) = others.find(|(port, _)| port.attached) {
                let answer = oracle.ask(from.ifindex, source, destination)?;
                answers.push((from.ifname.clone(), to.ifname.clone(), answer));
            }
        }
        Ok(answers)
    }

    fn port_overview(
        &self,
        ifindex: u32,
        links: &[Link],
        attached: Option<(&Port, &PortCounters)>,
        sysfs: &Sysfs,
    ) -> Result<PortOverview> {
        let port = attached.map(|(port, _)| port);
        let link = links.iter().find(|link| link.ifindex == ifindex);
        let mut problems = Vec::new();
        let mut obstacles = Vec::new();
        let mut meets = Vec::new();
        let name = link.map_or_else(
            || port.map(|port| recorded_name(&port.name)).unwrap_or_default(),
            |link| link.name.clone(),
        );
        if let Some((port, counters)) = attached {
            meets = hooks(port.flags);
            problems = self.problems(ifindex, links, port, &name, &mut meets)?;
            if let Some(link) = link
                && link.kind == Kind::Tap
            {
                obstacles = xdp_obstacles(link, port, counters, sysfs);
            }
        }
        Ok(PortOverview {
            ifname: name,
            ifindex,
            attached: port.is_some(),
            kind: link.map(|link| if link.kind == Kind::Tap { "tap" } else { "other" }),
            hook: port.map(|port| port.hook_mode().name()),
            hooks: meets,
            hook_changes: port.map_or(0, |port| port.hook_changes),
            hook_changed: seconds_since(port.map_or(0, |port| port.hook_changed_at))?,
            bypass_netfilter: port.is_some_and(|port| port.has(flag::BYPASS_NETFILTER)),
            state: match link {
                _ if port.is_some_and(|port| port.has(flag::UNFINISHED)) => "unfinished",
                None => "gone",
                Some(link) if !link.up => "down",
                Some(link) if !link.carrier => "no carrier",
                Some(_) => "up",
            },
            mtu: link.map(|link| link.mtu),
            obstacles,
            problems,
        })
    }

    /// Whether a port still lacks a program that it should have.
    fn look_again(&self, port: &mut PortOverview) -> Result<()> {
        let now = self.port(port.ifindex)?;
        let is_mended = match &now {
            Some(now) => self.broken_hooks(port.ifindex, now)?.is_empty(),
            None => true,
        };
        if is_mended {
            port.problems.retain(|found| found.problem != DETACHED);
            port.hooks = now.map_or_else(Vec::new, |now| hooks(now.flags));
        }
        Ok(())
    }

    fn problems(
        &self,
        ifindex: u32,
        links: &[Link],
        port: &Port,
        name: &str,
        meets: &mut Vec<&'static str>,
    ) -> Result<Vec<Problem>> {
        let link = links.iter().find(|link| link.ifindex == ifindex);
        let mut problems = Vec::new();
        if port.has(flag::UNFINISHED) {
            return Ok(problems);
        }
        let Some(link) = link else {
            problems.extend(self.whereabouts(ifindex, links, name)?);
            return Ok(problems);
        };
        for hook in self.broken_hooks(ifindex, port)? {
            meets.retain(|&met| met != hook.name());
            problems.push(Problem {
                problem: DETACHED,
                text: format!(
                    "has no {} program any more: somebody detached it, or removed its pin; 'tapbridge attach {name}' \
                     attaches it again",
                    hook.name()
                ),
            });
        }
        if link.master.is_none() {
            problems.push(Problem {
                problem: "no_bridge",
                text: format!(
                    "is no port of a bridge now, so that nothing is done to its frames; 'tapbridge detach {name}' takes \
                     the programs off it, and 'tapbridge attach {name}' makes it a port of one again"
                ),
            });
        }
        Ok(problems)
    }

    /// What has become of an attached port whose device is not here.
    fn whereabouts(&self, ifindex: u32, links: &[Link], name: &str) -> Result<Option<Problem>> {
        let moved = matches!(self.link_state(ifindex, Hook::Tcx)?, LinkState::Attached(_));
        let replaced = links.iter().any(|link| link.is_called(name));
        let text = match (replaced, moved) {
            (true, _) => format!(
                "is gone, and another device has its name; 'tapbridge attach {name}' attaches that one"
            ),
            (false, true) => format!(
                "is in another network namespace now, with the programs on it; 'tapbridge detach {name}' takes them off it"
            ),
            (false, false) => return Ok(None),
        };
        let problem = if replaced { "replaced" } else { "moved" };
        Ok(Some(Problem { problem, text }))
    }
}

/// Seconds from a time since boot, in ns, until now; none of 0.
fn seconds_since(time: u64) -> Result<Option<u64>> {
    if time == 0 {
        return Ok(None);
    }
    let ago = Duration::from_nanos(since_boot()?.saturating_sub(time));
    Ok(Some(ago.as_secs()))
}
