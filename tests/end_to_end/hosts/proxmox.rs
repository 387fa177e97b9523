//! Proxmox VE: what QEMU's script `pve-bridge` does with a tap (qemu-server 9.2.6), by way of `PVE::Network` (pve-common
//! 9.2.1).

use std::process::Command;

use lab::VnetHeader;
use serde_json::json;

use super::{
    Short, assert_carries, assert_exchange, introduce, page,
    vmm::{self, VmmTap},
};
use crate::{
    Test,
    configuration::{attached, follow},
    support::{
        frames::{Flow, Tag, hello, tagged},
        linux_bridge::{call_netfilter, next_tick, stop_learning},
        program::{bridge, ip, run},
        running::Running,
        switch::Switch,
    },
};

crate::tests![
    taps_of_vmbr0_are_attached_as_guests_start,
    proxmoxs_hookscript_attaches_the_taps_of_one_guest_and_clears_them_away,
    a_firewall_that_is_off_leaves_three_bridges_of_which_one_is_passed_by,
];

pub const FILTER_TESTS: &[Test] = &[(
    "rules_of_proxmoxs_firewalls_keep_their_frames",
    rules_of_proxmoxs_firewalls_keep_their_frames,
)];

pub const VLAN_TESTS: &[Test] = &[(
    "proxmoxs_vlan_aware_bridge_carries_what_it_would",
    proxmoxs_vlan_aware_bridge_carries_what_it_would,
)];

/// `PVE::Network`'s `bridge_add_interface`, of a bridge that filters no VLANs.
fn add_interface(master: &str, device: &str) {
    ip(&format!("link set {device} mtu 1500"));
    ip(&format!("link set {device} master {master}"));
}

/// That of one that does.
fn add_filtered_interface(master: &str, device: &str, tag: Option<u16>) {
    add_interface(master, device);
    bridge(&format!("vlan del dev {device} vid 1-4094"));
    if tag.is_none() {
        bridge(&format!("vlan add dev {device} vid 2-4094"));
    }
    let tag = tag.unwrap_or(1);
    bridge(&format!("vlan add dev {device} vid {tag} pvid untagged"));
}

/// A guest's tap, which QEMU has made; `tap_create`.
fn create(name: &str) -> VmmTap {
    let tap = VmmTap::open(name, &vmm::QEMU);
    ip(&format!("link set {name} up promisc on mtu 1500"));
    tap
}

/// `setup_tc_rate_limit` without a rate: what was there of an earlier one goes.
fn no_rate_limit(device: &str) {
    for parent in ["ingress", "root"] {
        let mut tc = Command::new("tc");
        tc.args(["qdisc", "del", "dev", device, parent]);
        // There is none to be deleted.
        run(tc);
    }
}

/// A guest starts whose network card has no firewall.
fn start(name: &str) -> VmmTap {
    let tap = create(name);
    add_interface("vmbr0", name);
    no_rate_limit(name);
    tap
}

/// A guest starts whose network card has `firewall=1`: `create_firewall_bridge_linux`.
fn start_with_firewall(guest: u32) -> VmmTap {
    let name = format!("tap{guest}i0");
    let tap = create(&name);
    let [firewall, inner, outer] = [
        format!("fwbr{guest}i0"),
        format!("fwln{guest}i0"),
        format!("fwpr{guest}p0"),
    ];
    ip(&format!("link add {firewall} type bridge mcast_snooping 0"));
    ip(&format!("link set {firewall} up mtu 1500"));
    ip(&format!(
        "link add name {inner} mtu 1500 type veth peer name {outer} mtu 1500"
    ));
    for end in [&inner, &outer] {
        ip(&format!("link set {end} up mtu 1500"));
    }
    add_interface("vmbr0", &outer);
    add_interface(&firewall, &inner);
    add_interface(&firewall, &name);
    no_rate_limit(&name);
    tap
}

/// `tap_unplug`, with which QEMU's downscript ends a guest, before it closes the tap.
fn stop(tap: VmmTap) {
    ip(&format!("link set {} nomaster", tap.name()));
    tap.end();
}

fn vmbr0(switch: &Switch) -> Running {
    ip("link add vmbr0 up type bridge mcast_snooping 0");
    follow(switch, &page::PROXMOX.configuration("name = \"vmbr*\""))
}

fn taps_of_vmbr0_are_attached_as_guests_start() {
    let switch = Switch::empty();
    let running = vmbr0(&switch);
    let [one, other] = ["tap100i0", "tap101i0"].map(|name| {
        let tap = start(name);
        assert_eq!(
            attached(&running),
            [json!(name), json!("vmbr0"), json!(["xdp", "tcx"])]
        );
        tap
    });
    introduce(&one, &other);
    assert_carries(&switch, &one, &other, Short::Native);
    stop(other);
    // A guest that starts again.
    let other = start("tap101i0");
    assert_eq!(attached(&running)[0], "tap101i0");
    introduce(&one, &other);
    assert_carries(&switch, &one, &other, Short::Native);
    for tap in [one, other] {
        stop(tap);
    }
}

fn proxmoxs_hookscript_attaches_the_taps_of_one_guest_and_clears_them_away() {
    let switch = Switch::empty();
    ip("link add vmbr0 up type bridge mcast_snooping 0");
    let hook = |guest: &str, phase: &str| {
        page::PROXMOX
            .run("post-start", &switch, &[guest, phase])
            .success()
    };
    hook("100", "pre-start");
    let [one, other, another] = ["tap100i0", "tap100i1", "tap1001i0"].map(start);
    hook("100", "post-start");
    let ports = |expected: &[&str]| {
        let ports = switch.all_stats().into_iter().flat_map(|bridge| bridge.ports);
        let mut names: Vec<_> = ports.map(|port| port.ifname).collect();
        names.sort();
        assert_eq!(names, expected);
    };
    ports(&["tap100i0", "tap100i1"]);
    introduce(&one, &other);
    // The third one has heard them, too.
    for station in [1, 2] {
        assert_eq!(another.receive().1, hello(station));
    }
    assert_carries(&switch, &one, &other, Short::Native);
    hook("1001", "post-start");
    hook("100", "pre-stop");
    ports(&["tap1001i0", "tap100i0", "tap100i1"]);
    for tap in [one, other] {
        stop(tap);
    }
    hook("100", "post-stop");
    ports(&["tap1001i0"]);
    stop(another);
    hook("1001", "post-stop");
    ports(&[]);
    // Of a guest that has no tap.
    hook("102", "post-start");
    hook("102", "post-stop");
}

fn a_firewall_that_is_off_leaves_three_bridges_of_which_one_is_passed_by() {
    let switch = Switch::empty();
    let running = vmbr0(&switch);
    let [one, other] = [100, 101].map(|guest| {
        let tap = start_with_firewall(guest);
        let port = format!("fwpr{guest}p0");
        assert_eq!(attached(&running), [json!(port), json!("vmbr0"), json!(["tcx"])]);
        tap
    });
    introduce(&one, &other);
    stop_learning("fwpr100p0");
    assert_exchange(&one, &other, Short::Tcx);
    assert_eq!(switch.stats().frames("fwpr100p0", "fwpr101p0"), (0, 2));
}

fn rules_of_proxmoxs_firewalls_keep_their_frames() {
    let switch = Switch::empty();
    let running = vmbr0(&switch);
    let [one, other] = ["tap100i0", "tap101i0"].map(start);
    for _ in [&one, &other] {
        attached(&running);
    }
    introduce(&one, &other);
    assert_carries(&switch, &one, &other, Short::Native);
    let left = |switch: &Switch| switch.stats().port("tap100i0").left("bridge_filter");
    // pve-firewall: rules of iptables, which br_netfilter calls, whether a guest's card has a firewall or not.
    call_netfilter(true);
    nft(
        "add table ip pve; add chain ip pve forward { type filter hook forward priority 0 ; }; add rule ip pve forward counter",
    );
    next_tick();
    assert_exchange(&one, &other, Short::Tcx);
    assert_eq!(left(&switch), 2);
    nft("delete table ip pve");
    call_netfilter(false);
    // proxmox-firewall: chains of its own for bridged frames.
    nft("add table bridge proxmox-firewall-guests");
    nft(
        "add chain bridge proxmox-firewall-guests forward { type filter hook forward priority 0 ; policy accept ; }",
    );
    next_tick();
    assert_exchange(&one, &other, Short::Tcx);
    assert_eq!(left(&switch), 4);
    // The page's way out, for taps of which no rule is meant.
    assert!(running.stop("TERM").success());
    switch.ok("detach --all");
    let running = follow(&switch, &page::PROXMOX.configuration("bypass-netfilter"));
    for _ in [&one, &other] {
        attached(&running);
    }
    assert_carries(&switch, &one, &other, Short::Native);
}

pub fn nft(commands: &str) {
    let mut nft = Command::new("nft");
    nft.arg(commands);
    run(nft).success();
}

fn proxmoxs_vlan_aware_bridge_carries_what_it_would() {
    let switch = Switch::empty();
    ip("link add vmbr0 up type bridge mcast_snooping 0 vlan_filtering 1");
    let running = follow(&switch, &page::PROXMOX.configuration("name = \"vmbr*\""));
    // Two guests of VLAN 10, and one that gets all of them, such as a router.
    let guests = [("tap100i0", Some(10)), ("tap101i0", Some(10)), ("tap102i0", None)];
    let [one, other, router] = guests.map(|(name, tag)| {
        let tap = create(name);
        add_filtered_interface("vmbr0", name, tag);
        no_rate_limit(name);
        assert_eq!(
            attached(&running),
            [json!(name), json!("vmbr0"), json!(["xdp", "tcx"])]
        );
        tap
    });
    let in_vlan = |frame: &[u8]| tagged(frame, Tag::customer(10));
    introduce(&one, &other);
    for station in [1, 2] {
        assert_eq!(router.receive().1, in_vlan(&hello(station)));
    }
    router.send(VnetHeader::none(), &in_vlan(&hello(3)));
    for tap in [&one, &other] {
        assert_eq!(tap.receive().1, hello(3));
        stop_learning(tap.name());
    }
    stop_learning(router.name());
    assert_carries(&switch, &one, &other, Short::Native);
    // A tag comes, and goes.
    let frame = Flow::tcp(1, 3).frame(b"to the router");
    one.send(VnetHeader::none(), &frame);
    assert_eq!(router.receive().1, in_vlan(&frame));
    let frame = Flow::tcp(3, 1).frame(b"and back");
    router.send(VnetHeader::none(), &in_vlan(&frame));
    assert_eq!(one.receive().1, frame);
    let stats = switch.stats();
    assert_eq!(stats.frames("tap100i0", "tap102i0"), (0, 1), "{stats:#?}");
    assert_eq!(stats.frames("tap102i0", "tap100i0"), (0, 1), "{stats:#?}");
}
