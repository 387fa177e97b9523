//! Ports whose devices go, come back, and change.

use lab::Tap;

use crate::support::{
    frames::{Flow, hello},
    linux_bridge::{next_tick, stop_learning},
    program::{bridge, ip, link},
    switch::Switch,
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    a_vanished_taps_addresses_are_never_used_again,
    a_vanished_tap_can_be_detached_by_its_name,
    a_vanished_tap_gives_its_place_to_the_next_one,
    a_device_with_the_index_of_a_vanished_one_is_not_taken_for_it,
    a_renamed_port_is_known_by_its_new_name,
    a_detached_ports_addresses_are_forgotten,
    a_port_that_comes_up_later_takes_part_then,
];

/// An address on vm2 that nobody sends from.
const FIXED: &str = "fdb add 52:54:00:00:00:22 dev vm2 master static";

fn a_vanished_taps_addresses_are_never_used_again() {
    for hook in ["xdp", "tcx"] {
        let mut switch = Switch::with_hook(3, hook);
        switch.introduce();
        stop_learning("vm1");
        bridge(FIXED);
        let to_learned = Flow::udp(1, 2).frame(b"learned on it");
        let to_static = Flow::udp(1, 0x22).frame(b"put on it");
        switch.remove("vm2");
        assert_eq!(switch.shown("vm2")["state"], "gone");
        let shown = switch.ok("fdb show");
        assert!(!shown.contains("vm2"), "{shown}");
        {
            let [vm1, vm3] = switch.taps();
            for frame in [&to_learned, &to_static] {
                send(vm1, frame);
                assert_receives(vm3, frame);
            }
        }

        switch.add(Tap::builder("vm2"));
        let [vm1, vm3, vm2] = switch.taps();
        for frame in [&to_learned, &to_static] {
            send(vm1, frame);
            assert_receives(vm3, frame);
        }
        send(vm2, &hello(2));
        assert_silent(&[vm1, vm2, vm3]);

        switch.ok(&format!("attach vm2 --hook {hook}"));
        for frame in [&to_learned, &to_static] {
            send(vm1, frame);
            assert_receives(vm3, frame);
            assert_receives(vm2, frame);
        }
        send(vm2, &hello(2));
        drain(&[vm1, vm3]);
        next_tick();
        send(vm1, &to_learned);
        assert_receives(vm2, &to_learned);
        assert_silent(&[vm1, vm2, vm3]);
        assert_eq!(switch.stats().path("vm1", "vm2", hook).frames, 1, "{hook}");
    }
}

fn a_vanished_tap_can_be_detached_by_its_name() {
    let mut switch = Switch::of(2);
    switch.remove("vm2");
    let detached = switch.json("detach vm2");
    assert_eq!(
        detached["ports"],
        serde_json::json!([{ "ifname": "vm2", "master": null, "released": false, "gone": true }])
    );
    switch.fails("detach vm2");
    assert_eq!(
        switch.json("show")["bridges"][0]["ports"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    // The bridge goes with its last port, also where that has vanished.
    switch.remove("vm1");
    switch.ok("detach vm1");
    assert!(!switch.state().exists());
    assert_eq!(link("tapbridge"), None);
}

fn a_vanished_tap_gives_its_place_to_the_next_one() {
    let mut switch = Switch::of(2);
    for _ in 0..3 {
        switch.remove("vm2");
        switch.add(Tap::builder("vm2"));
        switch.ok("attach vm2");
    }
    let [vm1, vm2] = switch.taps();
    send(vm1, &hello(1));
    assert_receives(vm2, &hello(1));
    let ports = switch.stats().ports;
    assert_eq!(ports.len(), 2, "{ports:#?}");
}

fn a_device_with_the_index_of_a_vanished_one_is_not_taken_for_it() {
    let mut switch = Switch::of(3);
    switch.introduce();
    let [vm1, vm2, vm3] = switch.taps();
    let ifindex = vm2.ifindex();
    drain(&[vm1, vm2, vm3]);
    switch.remove("vm2");
    ip(&format!(
        "link add dev vm2 index {ifindex} up type veth peer name other"
    ));
    ip("link set dev other up");
    let [vm1, vm3] = switch.taps();
    let frame = Flow::udp(1, 2).frame(b"not to the veth");
    send(vm1, &frame);
    assert_receives(vm3, &frame);
    let before = link("vm2");
    switch.ok("detach vm2");
    assert_eq!(link("vm2"), before);
}

fn a_renamed_port_is_known_by_its_new_name() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    vm2.down().expect("vm2 down");
    ip("link set dev vm2 name guest2");
    ip("link set dev guest2 up");
    switch.introduce();
    assert_eq!(switch.shown("guest2")["state"], "up");
    let frame = Flow::udp(1, 2).frame(b"by any name");
    switch.introduce();
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_eq!(switch.stats().frames("vm1", "guest2"), (1, 0));
    let entries = switch.json("fdb show");
    let mut entries = entries.as_array().expect("entries").iter();
    let learned = entries.find(|entry| entry["mac"] == "52:54:00:00:00:02");
    assert_eq!(learned.expect("station 2")["ifname"], "guest2");
    switch.fails("detach vm2");
    switch.ok("detach guest2");
}

fn a_detached_ports_addresses_are_forgotten() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    bridge(FIXED);
    switch.ok("detach vm2");
    let frames = [
        Flow::udp(1, 2).frame(b"learned"),
        Flow::udp(1, 0x22).frame(b"static"),
    ];
    for frame in &frames {
        send(vm1, frame);
        assert_receives(vm3, frame);
    }
    assert_silent(&[vm1, vm2, vm3]);
    switch.ok("attach vm2");
    for frame in &frames {
        send(vm1, frame);
        assert_receives(vm3, frame);
        assert_receives(vm2, frame);
    }
}

fn a_port_that_comes_up_later_takes_part_then() {
    let mut switch = Switch::detached(2);
    let down = Tap::builder("vm3").open().expect("open a tap");
    switch.ok("attach vm1 vm2 vm3");
    assert_eq!(switch.shown("vm3")["state"], "down");
    down.up().expect("vm3 up");
    assert_eq!(switch.shown("vm3")["state"], "up");
    switch.introduce();
    let [vm1, vm2] = switch.taps();
    drain(&[&down]);
    send(&down, &Flow::udp(3, 1).frame(b"good morning"));
    assert_receives(vm1, &Flow::udp(3, 1).frame(b"good morning"));
    send(vm1, &Flow::udp(1, 3).frame(b"same to you"));
    assert_receives(&down, &Flow::udp(1, 3).frame(b"same to you"));
    assert_silent(&[vm1, vm2, &down]);
    switch.remove("vm1");
}
