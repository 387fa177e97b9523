//! Accelerated bridges and their ports as they are now, and what keeps frames from going past them.

use std::collections::BTreeMap;

use bridge_common::{
    Hook,
    fastpath::{Port, PortCounters},
    forwarding::Reason,
    mac::Mac,
    port::{HookMode, flag},
};
use serde::Serialize;

use super::{FastPath, operations::bridge_of};
use crate::{
    error::Result,
    netlink::{BridgeEntry, Kind, Link},
    port::{hooks, recorded_name},
    problem::Problem,
    show::{self, Obstacle, seconds_since},
    sysfs::Sysfs,
};

/// A Linux bridge with ports that are attached.
#[derive(Clone, Debug, Serialize)]
pub struct BridgeOverview {
    /// Its name; none of ports whose device is gone, or is no port of a Linux bridge any more.
    pub bridge: Option<String>,
    /// What keeps frames of all its ports from going past it, and what it says to one of them.
    pub obstacles: Vec<Obstacle>,
    /// Sorted by name.
    pub ports: Vec<PortOverview>,
}

/// A port of such a bridge.
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
    /// "up", "down", "no carrier" or "gone".
    pub state: &'static str,
    /// Bytes of payload; none if the device is out of sight.
    pub mtu: Option<u32>,
    /// What keeps frames from it or to it from going past the bridge, or by XDP.
    pub obstacles: Vec<Obstacle>,
    /// What has happened to it that no command of ours has done.
    pub problems: Vec<Problem>,
}

impl FastPath {
    /// All bridges of the network namespace that have an attached port, and attached ports that have no bridge.
    pub(crate) fn overview(
        &self,
        links: &[Link],
        entries: &[BridgeEntry],
        sysfs: &Sysfs,
    ) -> Result<Vec<BridgeOverview>> {
        let attached: BTreeMap<u32, Port> = self.ports()?.into_iter().collect();
        let mut bridges = BTreeMap::<&str, &Link>::new();
        let mut ports = Vec::new();
        for (&ifindex, port) in &attached {
            let link = links.iter().find(|link| link.ifindex == ifindex);
            match link.and_then(|link| bridge_of(links, link)) {
                Some(bridge) => drop(bridges.insert(&bridge.name, bridge)),
                None => ports.push(self.port_overview(ifindex, link, Some(port), sysfs)?),
            }
        }
        let mut overviews = Vec::new();
        for bridge in bridges.into_values() {
            overviews.push(self.bridge_overview(bridge, links, &attached, entries, sysfs)?);
        }
        if !ports.is_empty() {
            overviews.push(BridgeOverview {
                bridge: None,
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
        attached: &BTreeMap<u32, Port>,
        entries: &[BridgeEntry],
        sysfs: &Sysfs,
    ) -> Result<BridgeOverview> {
        let mut ports = Vec::new();
        let members = links.iter().filter(|link| link.master == Some(bridge.ifindex));
        for link in members {
            ports.push(self.port_overview(link.ifindex, Some(link), attached.get(&link.ifindex), sysfs)?);
        }
        ports.sort_by(|one, other| one.ifname.cmp(&other.ifname));
        let mut obstacles = Vec::new();
        let entries: Vec<&BridgeEntry> = entries
            .iter()
            .filter(|entry| entry.master == bridge.ifindex && entry.state != "permanent")
            .collect();
        for (from, to, answer) in self.ask_about(&ports, &entries)? {
            let tcx = answer.obstacle(Hook::Tcx);
            // What the bridge itself would drop, or could not do either, is no obstacle.
            let Some(reason) = tcx.or(answer.obstacle(Hook::Xdp)) else {
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
            obstacles,
            ports,
        })
    }

    /// Asks about frames from each attached port to another, and from another to each port: enough to meet every port.
    fn ask_about(
        &self,
        ports: &[PortOverview],
        entries: &[&BridgeEntry],
    ) -> Result<Vec<(String, String, bridge_common::fastpath::Answer)>> {
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
        link: Option<&Link>,
        port: Option<&Port>,
        sysfs: &Sysfs,
    ) -> Result<PortOverview> {
        let mut problems = Vec::new();
        let mut obstacles = Vec::new();
        let mut meets = Vec::new();
        let name = link.map_or_else(
            || port.map(|port| recorded_name(&port.name)).unwrap_or_default(),
            |link| link.name.clone(),
        );
        if let Some(port) = port {
            meets = hooks(port.flags);
            problems = self.problems(ifindex, link, port, &name, &mut meets)?;
            if let Some(link) = link
                && link.kind == Kind::Tap
            {
                obstacles = xdp_obstacles(link, port, &self.counters(ifindex)?, sysfs);
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

    fn problems(
        &self,
        ifindex: u32,
        link: Option<&Link>,
        port: &Port,
        name: &str,
        meets: &mut Vec<&'static str>,
    ) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        let Some(link) = link else {
            return Ok(problems);
        };
        for hook in self.broken_hooks(ifindex, port)? {
            meets.retain(|&met| met != hook.name());
            problems.push(Problem {
                problem: "detached",
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
                     the programs off it"
                ),
            });
        }
        Ok(problems)
    }
}

/// What XDP finds out frame by frame, as it is now.
fn xdp_obstacles(link: &Link, port: &Port, counters: &PortCounters, sysfs: &Sysfs) -> Vec<Obstacle> {
    if port.hook_mode() == HookMode::Tcx {
        return Vec::new();
    }
    let batched = counters.left[Hook::Xdp as usize][Reason::VhostNet as usize];
    show::from_port(&link.name, batched, sysfs)
}

/// Whose obstacle it is (a port's, or with none the bridge's), and in words, with the way out. None if the bridge would
/// do no more with the frame, or if XDP and tcx share the work as they should.
fn obstacle(
    reason: Reason,
    bridge: &Link,
    from: &str,
    to: &str,
    sysfs: &Sysfs,
) -> Option<(Option<String>, String)> {
    let br = &bridge.name;
    let told = match reason {
        Reason::BridgeFilter => (None, filter_text(br, sysfs)),
        Reason::Promiscuous => (
            None,
            format!(
                "{br} is promiscuous, so the host gets a copy of every frame: all are left to {br}; a macvlan on it or a \
                 program like tcpdump does that ('ip -d link show dev {br}' says 'promiscuity')"
            ),
        ),
        Reason::VlanFiltering => (
            None,
            format!("{br} counts frames by VLAN, or has spanning trees for groups of VLANs: every frame is left to it; 'ip link set dev {br} type bridge vlan_stats_enabled 0' or 'mst_enabled 0' if that is not meant"),
        ),
        Reason::IngressHook => (
            Some(from.to_owned()),
            format!("netfilter's ingress hook is taken: frames from it are left to {br}; 'nft list hooks netdev device {from}' shows by whom"),
        ),
        Reason::IngressFilter => (
            Some(from.to_owned()),
            format!(
                "traffic control has a filter or another program at its ingress: frames from it are left to {br}; \
                 'tc filter show dev {from} ingress' and 'bpftool net show dev {from}' show it"
            ),
        ),
        Reason::PortFlags => (
            Some(from.to_owned()),
            format!("it or {to} maps VLANs to tunnels, is offloaded, or has a flag that is not known here: frames between them are left to {br}"),
        ),
        Reason::EgressHook => (
            Some(to.to_owned()),
            format!("netfilter's egress hook is taken: frames to it are left to {br}; 'nft list hooks netdev device {to}' shows by whom"),
        ),
        Reason::EgressFilter => (
            Some(to.to_owned()),
            format!("traffic control has a filter or program at its egress, which XDP would pass by: frames to it go by tcx; 'tc filter show dev {to} egress' and 'bpftool net show dev {to}' show it"),
        ),
        Reason::Queueing => (
            Some(to.to_owned()),
            format!("its queueing discipline queues or shapes, which XDP would pass by: frames to it go by tcx; 'tc qdisc show dev {to}' shows it"),
        ),
        Reason::PacketSocket => (
            Some(to.to_owned()),
            "a program like tcpdump listens there, at a port that sends to it, or at all devices, and would not see what XDP carries: frames to it go by tcx; 'ss -0p' shows who listens".into(),
        ),
        Reason::TargetQueues => {
            let queues = sysfs.transmit_queues(to);
            (
                Some(to.to_owned()),
                format!(
                    "has {queues} queues, among which a native redirect chooses otherwise than the kernel: frames to it go \
                     by tcx; with one queue (queues=1) XDP could carry them"
                ),
            )
        }
        _ => return None,
    };
    Some(told)
}

/// Who looks at the frames of this bridge, as far as can be told.
fn filter_text(bridge: &str, sysfs: &Sysfs) -> String {
    let calls: Vec<&str> = ["iptables", "ip6tables", "arptables"]
        .into_iter()
        .filter(|call| {
            let setting =
                |path: &std::path::Path| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
            let of_bridge = sysfs.path(&format!("class/net/{bridge}/bridge/nf_call_{call}"));
            setting(std::path::Path::new(&format!(
                "/proc/sys/net/bridge/bridge-nf-call-{call}"
            ))) || setting(&of_bridge)
        })
        .collect();
    match calls[..] {
        [] => format!(
            "nftables or ebtables has rules for bridged frames: every frame is left to {bridge}; 'nft list ruleset bridge' \
             and 'ebtables -L' show them, and '--bypass-netfilter' says that they are not meant"
        ),
        [first, ..] => format!(
            "bridge-nf-call-{first} is 1 and rules are there: every frame is left to {bridge}; 'sysctl \
             net.bridge.bridge-nf-call-{first}=0' if no rule is meant for bridged frames (Docker and Kubernetes set it and \
             may need it), or 'tapbridge attach --master {bridge} --bypass-netfilter' if none is meant for frames between \
             ports of {bridge}"
        ),
    }
}
