//! A veth as a port: how the host itself takes part.

use lab::{Offloads, Tap};
use serde_json::json;

use crate::support::{
    frames::{BROADCAST, Flow, Tag, arp_request, hello, mac, tagged, text},
    guest::{Family, Guest, pumped, transfer_both_ways},
    program::{bridge, ip, link},
    switch::Switch,
    wire::{assert_receives, assert_silent, receive, send},
};

crate::tests![
    a_veth_gets_tcx_alone_and_its_settings_back,
    a_promiscuous_veth_stays_promiscuous,
    the_hosts_stack_and_a_guest_transfer_both_ways,
    frames_with_any_destination_pass_a_veth,
    a_veth_port_that_vanishes_is_gone,
    of_veths_alone_nothing_is_said_that_only_xdp_asks_for,
];

/// Taps vm1, ... and port0, whose other end host0 is the host's.
fn switch(taps: usize) -> Switch {
    let switch = Switch::detached(taps);
    ip("link add host0 type veth peer name port0");
    ip("link set dev host0 up");
    ip("link set dev port0 up");
    switch
}

fn a_veth_gets_tcx_alone_and_its_settings_back() {
    let switch = switch(1);
    let before = link("port0");
    switch.ok("attach vm1 port0 --hook auto");
    assert_eq!(switch.shown("port0")["hook"], "tcx");
    let shown = switch.shown("port0");
    assert_eq!(
        (&shown["kind"], &shown["hooks"]),
        (&"other".into(), &["tcx"].as_slice().into())
    );
    let during = link("port0").expect("port0");
    assert_eq!(
        during["promiscuity"], 1,
        "frames for other addresses are to reach it: {during}"
    );
    assert!(during["xdp"].is_null(), "{during}");
    switch.ok("detach port0");
    assert_eq!(link("port0"), before);
}

fn of_veths_alone_nothing_is_said_that_only_xdp_asks_for() {
    let switch = switch(0);
    ip("link add host1 type veth peer name port1");
    for device in ["host1", "port1"] {
        ip(&format!("link set dev {device} up"));
    }
    switch.ok("attach port0 port1");
    bridge(&format!("fdb replace {} dev port0 master static", text(mac(1))));
    bridge(&format!("fdb replace {} dev port1 master static", text(mac(2))));
    for port in ["port0", "port1"] {
        let shown = switch.shown(port);
        assert_eq!(shown["obstacles"], json!([]), "{shown}");
    }
}

fn a_promiscuous_veth_stays_promiscuous() {
    let switch = switch(1);
    ip("link set dev port0 promisc on");
    let before = link("port0");
    switch.ok("attach vm1 port0");
    switch.ok("detach vm1 port0");
    assert_eq!(link("port0"), before);
}

fn the_hosts_stack_and_a_guest_transfer_both_ways() {
    for offloads in [Offloads::All, Offloads::None] {
        let mut switch = switch(0);
        switch.add(Tap::builder("vm1").offloads(offloads));
        switch.ok("attach vm1 port0");
        ip("address add 10.0.0.9/24 dev host0");
        let [vm1] = switch.taps();
        let (guest, host) = (Guest::new(1, offloads), Guest::host(9));
        pumped(&[(vm1, &guest)], || {
            transfer_both_ways(host.connect(&guest, Family::V4));
            transfer_both_ways(guest.connect(&host, Family::V4));
        });
        let stats = switch.stats();
        let (to_host, to_guest) = (stats.frames("vm1", "port0"), stats.frames("port0", "vm1"));
        assert!(
            to_host.0 == 0 && to_guest.0 == 0,
            "a veth takes no native frames: {stats:#?}"
        );
        assert!(to_host.1 > 100 && to_guest.1 > 100, "{stats:#?}");
        assert_eq!(
            guest.losses().bad_checksums + host.losses().bad_checksums,
            0,
            "{stats:#?}"
        );
    }
}

fn frames_with_any_destination_pass_a_veth() {
    // Another bridge behind a veth: two in a row.
    let switch = Switch::detached(2);
    ip("link add port0 up type veth peer name port1");
    ip("link set dev port1 up");
    switch.ok("attach vm1 port0 --bridge left");
    switch.ok("attach vm2 port1 --bridge right");
    let [vm1, vm2] = switch.taps();
    send(vm1, &hello(1));
    assert_receives(vm2, &hello(1));
    for tag in [None, Some(Tag::customer(5).priority(3)), Some(Tag::service(6))] {
        let wrap = |frame: Vec<u8>| tag.map_or(frame.clone(), |tag| tagged(&frame, tag));
        for to in [[0x52, 0x54, 0, 0, 0, 1], BROADCAST, [2, 0, 0, 0, 0, 9]] {
            let frame = wrap(Flow::udp(2, 1).to(to).frame(b"through both"));
            send(vm2, &frame);
            assert_receives(vm1, &frame);
        }
    }
}

fn a_veth_port_that_vanishes_is_gone() {
    let switch = switch(1);
    switch.ok("attach vm1 port0");
    let [vm1] = switch.taps();
    ip("address add 10.0.0.9/24 dev host0");
    // The host answers by its own stack.
    send(vm1, &arp_request(1, 9));
    let (_, answer) = receive(vm1);
    assert_eq!(answer[..6], [0x52, 0x54, 0, 0, 0, 1]);
    ip("link delete dev host0");
    assert_eq!(switch.shown("port0")["state"], "gone");
    send(vm1, &arp_request(1, 9));
    // The bridge has nobody to flood it to. A port that is gone is none of its any more.
    let [of_bridge, of_none] = switch.all_stats().try_into().expect("two");
    assert_eq!(of_bridge.port("vm1").left_by_reason["group"], 2, "{of_bridge:#?}");
    assert_eq!(of_none.bridge, None, "{of_none:#?}");
    assert_silent(&[vm1]);
    assert_eq!(switch.json("detach port0")["ports"][0]["gone"], true);
}
