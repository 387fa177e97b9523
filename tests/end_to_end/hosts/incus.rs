//! incus: a managed bridge, taps of several queues (`networkCreateTap` and `nic_bridged.go` of 7.3), which QEMU gets as
//! descriptors.

use serde_json::json;

use super::{
    Short, assert_carries, assert_exchange, introduce, page,
    proxmox::nft,
    vmm::{INCUS, VmmTap},
};
use crate::{
    Test,
    configuration::{attached, follow},
    support::{linux_bridge::next_tick, program::ip, running::Running, switch::Switch},
};

crate::tests![incuss_taps_are_carried_by_tcx];

pub const FILTER_TESTS: &[Test] = &[(
    "rules_of_incus_keep_their_frames",
    rules_of_incus_keep_their_frames,
)];

const TAPS: [&str; 2] = ["tap1a2b3c4d", "tap5e6f7a8b"];

/// Two instances that are virtual machines, with two CPUs each, start.
fn start(switch: &Switch) -> (Running, [VmmTap; 2]) {
    ip("link add incusbr0 up type bridge mcast_snooping 0");
    let running = follow(switch, &page::INCUS.configuration("name = \"incusbr0\""));
    let taps = TAPS.map(|tap| {
        ip(&format!("tuntap add name {tap} mode tap multi_queue"));
        for words in ["up", "mtu 1500", "txqueuelen 1000", "master incusbr0"] {
            ip(&format!("link set {tap} {words}"));
        }
        assert_eq!(
            attached(&running),
            [json!(tap), json!("incusbr0"), json!(["tcx"])]
        );
        VmmTap::with_queues(tap, &INCUS, 2)
    });
    (running, taps)
}

fn stop(taps: [VmmTap; 2]) {
    drop(taps);
    for tap in TAPS {
        ip(&format!("link del {tap}"));
    }
}

fn incuss_taps_are_carried_by_tcx() {
    let switch = Switch::empty();
    let (_running, taps) = start(&switch);
    let [one, other] = &taps;
    introduce(one, other);
    assert_carries(&switch, one, other, Short::Tcx);
    stop(taps);
}

fn rules_of_incus_keep_their_frames() {
    let switch = Switch::empty();
    let (_running, taps) = start(&switch);
    let [one, other] = &taps;
    introduce(one, other);
    // Its own chains for NAT and its firewall look at what the host routes.
    nft("add table inet incus");
    nft("add chain inet incus fwd.incusbr0 { type filter hook forward priority 0 ; policy accept ; }");
    next_tick();
    assert_carries(&switch, one, other, Short::Tcx);
    // security.mac_filtering of any instance.
    nft("add table bridge incus");
    nft("add chain bridge incus fwd.c1.eth0 { type filter hook forward priority -200 ; policy accept ; }");
    next_tick();
    assert_exchange(one, other, Short::Tcx);
    assert_eq!(switch.stats().port(one.name()).left("bridge_filter"), 2);
    stop(taps);
}
