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
fn from_port(name: &str, batched: u64, sysfs: &Sysfs) -> Vec<Obstacle> {
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
