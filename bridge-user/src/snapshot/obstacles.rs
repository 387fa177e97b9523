//! What keeps frames from going past a bridge, or by XDP, in words, with the way out.

use bridge_common::{
    Hook,
    fastpath::{Port, PortCounters},
    forwarding::Reason,
    port::HookMode,
};

use serde::Serialize;

use crate::kernel::{netlink::Link, sysfs::Sysfs};

/// Why frames go another way than they could.
#[derive(Clone, Debug, Serialize)]
pub struct Obstacle {
    /// The name of a [`Reason`].
    pub reason: &'static str,
    /// In words, with the way out.
    pub text: String,
}

/// What XDP finds out frame by frame, as it is now.
pub(super) fn xdp_obstacles(
    link: &Link,
    port: &Port,
    counters: &PortCounters,
    sysfs: &Sysfs,
) -> Vec<Obstacle> {
    if port.hook_mode() == HookMode::Tcx {
        return Vec::new();
    }
    let batched = counters.left[Hook::Xdp as usize][Reason::VhostNet as usize];
    from_port(&link.name, batched, sysfs)
}

/// What keeps XDP from redirecting frames of a tap, of which it has left so many to tcx since vhost-net sent them.
pub(crate) fn from_port(name: &str, batched: u64, sysfs: &Sysfs) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut tell = |reason: Reason, text: String| {
        found.push(Obstacle {
            reason: reason.name(),
            text,
        });
    };
    if let Some(queue) = sysfs.steered_queue(name) {
        tell(
            Reason::Steering,
            format!(
                "receive packet steering is on, and moves to other CPUs what XDP passes: frames from it go by tcx; \
                 'echo 0' into rps_cpus and rps_flow_cnt of /sys/class/net/{name}/queues/{queue} lets XDP carry them"
            ),
        );
    }
    if batched > 0 {
        tell(
            Reason::VhostNet,
            format!(
                "is served by vhost-net, which sends in batches that XDP would reorder: its frames go by tcx \
                 ({batched} so far that XDP could have carried)"
            ),
        );
    }
    found
}

/// Whose obstacle it is (a port's, or with none the bridge's), and in words, with the way out. None if the bridge would
/// do no more with the frame, or if XDP and tcx share the work as they should.
pub(crate) fn obstacle(
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
            "nftables or ebtables has chains for bridged frames, with rules or without: every frame is left to {bridge}; \
             'nft list ruleset bridge' shows them, 'ebtables -X' (of table nat 'ebtables -t nat -X') or 'nft delete table \
             bridge filter' removes those that 'ebtables -F' has emptied; those of ebtables-legacy, which are there once it \
             has been called, go with the module that 'lsmod' shows ('rmmod ebtable_filter'); '--bypass-netfilter' says \
             that no rule is meant"
        ),
        [first, ..] => format!(
            "bridge-nf-call-{first} is 1 and rules are there: every frame is left to {bridge}; 'sysctl \
             net.bridge.bridge-nf-call-{first}=0' if no rule is meant for bridged frames (Docker and Kubernetes set it and \
             may need it), or 'tapbridge attach --master {bridge} --bypass-netfilter' if none is meant for frames between \
             ports of {bridge}; chains of nftables and ebtables ('nft list ruleset bridge') look at frames whatever that is"
        ),
    }
}

/// What is so of a frame that a hook leaves for a reason.
pub(crate) const fn in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::TooShort | Reason::InvalidSource => "malformed: the bridge drops it",
        Reason::Group => "for all, or for a group: the bridge copies it to its ports",
        Reason::Protocol => "ARP, RARP, MRP or CFM, which the bridge may answer itself",
        Reason::NotAPort => "from a device that is no port any more",
        Reason::IngressState => "from a port that does not forward now",
        Reason::PortFlags => "between ports of which one has a setting that the programs don't follow",
        Reason::VlanFiltering => "the bridge counts by VLAN, or has spanning trees for groups of VLANs",
        Reason::NeighSuppress => "ICMPv6, and the bridge answers neighbour solicitations itself",
        Reason::Promiscuous => "the bridge is promiscuous: the host gets a copy of every frame",
        Reason::BridgeFilter => "rules look at bridged frames",
        Reason::IngressHook => "netfilter's ingress hook is taken at the port",
        Reason::IngressFilter => "traffic control has a filter or a program at the port's ingress",
        Reason::VlanDevice => "tagged, and VLAN devices on the port get tagged frames first",
        Reason::SourceUnknown => "from a station that the bridge has to learn",
        Reason::SourceElsewhere => "from a station that the bridge knows at another port",
        Reason::SourceFlags => "from an address that is the bridge's own, locked or watched",
        Reason::SourceRefresh => "the one in a second by which the bridge sees that its station is there",
        Reason::DestinationUnknown => "for a station that the bridge does not know: it floods it",
        Reason::Host => "for the host",
        Reason::SamePort => "for a station at the port that it came in by",
        Reason::EgressState => "for a port that does not forward now",
        Reason::Isolated => "between isolated ports: the bridge drops it",
        Reason::EgressNoCarrier => "for a device that nobody reads, or without a carrier",
        Reason::EgressMtu => "longer than the destination's MTU allows",
        Reason::EgressHook => "netfilter's egress hook is taken at the destination",
        Reason::Header => "br_netfilter itself would drop, cut or fragment it",
        Reason::VlanIngress | Reason::VlanEgress => "of a VLAN that one of the two ports is no member of",
        Reason::Generic => "GSO, or longer than native XDP takes: it goes by tcx",
        Reason::Target => "for a device that takes no native frames: it goes by tcx",
        Reason::EgressFilter => "a filter is at the destination's egress: it goes by tcx",
        Reason::Queueing => "the destination's queueing discipline queues or shapes: it goes by tcx",
        Reason::PacketSocket => "somebody listens, as tcpdump does: it goes by tcx",
        Reason::Checksum => "does not show whether its checksum is complete: it goes by tcx",
        Reason::VhostNet => "sent by vhost-net in batches that XDP would reorder: it goes by tcx",
        Reason::TargetQueues => "for a tap with several queues: it goes by tcx",
        Reason::Steering => "from a tap with receive packet steering: it goes by tcx",
        Reason::VlanTag => "a tag comes or goes, which XDP can't do: it goes by tcx",
    }
}
