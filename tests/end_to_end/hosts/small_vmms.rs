//! Cloud Hypervisor and Firecracker, of which no registry of ours has a binary that runs: what they do with their taps.

use std::process::Command;

use serde_json::json;

use super::{
    Short, assert_carries, introduce,
    page::{self, Page},
    vmm::{CLOUD_HYPERVISOR, CLOUD_HYPERVISOR_QUEUES, FIRECRACKER, VmmTap},
};
use crate::{
    configuration::{attached, follow},
    support::{
        program::{ip, link, run},
        switch::Switch,
    },
};

crate::tests![
    firecrackers_taps_are_made_for_it_and_outlive_it,
    cloud_hypervisors_own_taps_become_ports_of_a_bridge_that_is_made,
    several_queues_of_cloud_hypervisor_are_sent_to_by_tcx,
];

/// Makes a tap as a page says, which has another name for it.
fn make(page: &Page, words: &str, its_name: &str, name: &str) {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(page.block(words).replace(its_name, name));
    run(shell).success();
}

fn firecrackers_taps_are_made_for_it_and_outlive_it() {
    let switch = Switch::empty();
    ip("link add br0 up type bridge mcast_snooping 0");
    let running = follow(&switch, &page::FIRECRACKER.configuration("name = \"br0\""));
    for tap in ["fc1", "fc2"] {
        make(&page::FIRECRACKER, "ip tuntap", "fc1", tap);
        assert_eq!(
            attached(&running),
            [json!(tap), json!("br0"), json!(["xdp", "tcx"])]
        );
    }
    // A second microVM has the taps of the first one.
    for _ in 0..2 {
        let [one, other] = ["fc1", "fc2"].map(|tap| VmmTap::open(tap, &FIRECRACKER));
        introduce(&one, &other);
        assert_carries(&switch, &one, &other, Short::Native);
    }
    assert!(running.stop("TERM").success());
    for tap in ["fc1", "fc2"] {
        ip(&format!("link del {tap}"));
    }
}

fn cloud_hypervisors_own_taps_become_ports_of_a_bridge_that_is_made() {
    let switch = Switch::empty();
    let running = follow(&switch, &page::CLOUD_HYPERVISOR.configuration("make = true"));
    let [one, other] = ["vmtap0", "vmtap1"].map(|tap| VmmTap::open(tap, &CLOUD_HYPERVISOR));
    for _ in [&one, &other] {
        assert_eq!(attached(&running)[1..], [json!("chv"), json!(["xdp", "tcx"])]);
    }
    introduce(&one, &other);
    assert_carries(&switch, &one, &other, Short::Native);
    // Hot-plugged, and unplugged.
    let third = VmmTap::open("vmtap2", &CLOUD_HYPERVISOR);
    assert_eq!(attached(&running)[0], "vmtap2");
    third.end();
    assert_carries(&switch, &one, &other, Short::Native);
    assert!(running.stop("TERM").success());
    one.end();
    other.end();
    switch.ok("detach --all");
    assert!(link("chv").is_none(), "it goes with its last port");
}

fn several_queues_of_cloud_hypervisor_are_sent_to_by_tcx() {
    let switch = Switch::empty();
    ip("link add br0 up type bridge mcast_snooping 0");
    let running = follow(&switch, &page::CLOUD_HYPERVISOR.configuration("name = \"br0\""));
    let [one, other] = ["ch1", "ch2"].map(|tap| {
        make(&page::CLOUD_HYPERVISOR, "multi_queue", "ch1", tap);
        assert_eq!(attached(&running)[..2], [json!(tap), json!("br0")]);
        VmmTap::with_queues(tap, &CLOUD_HYPERVISOR_QUEUES, 2)
    });
    introduce(&one, &other);
    assert_carries(&switch, &one, &other, Short::Tcx);
    for tap in ["ch1", "ch2"] {
        ip(&format!("link del {tap}"));
    }
}
