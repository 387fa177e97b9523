//! Frames that go nowhere: the bridge drops them, and each is counted under the reason why it was left to it.

use crate::support::{
    frames::{Flow, Tag, hello, link_local, mac, partial, payload, tagged, text},
    linux_bridge::{next_tick, stop_learning},
    program::bridge,
    switch::Switch,
    wire::{assert_receives, assert_silent, send},
};

crate::tests![
    a_source_that_can_not_be_a_stations_is_dropped,
    reserved_group_addresses_are_dropped_and_the_next_one_is_not,
    a_frame_for_a_station_on_its_own_port_is_dropped,
    a_frame_for_a_port_that_is_down_goes_to_all_others,
    a_frame_for_a_port_without_a_reader_is_dropped_until_there_is_one,
    a_frame_from_a_port_that_is_down_is_dropped,
];

fn a_source_that_can_not_be_a_stations_is_dropped() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(2, hook);
        let [vm1, vm2] = switch.taps();
        switch.introduce();
        for source in [
            [0; 6],
            [0xff; 6],
            [0x01, 0x00, 0x5e, 0, 0, 1],
            [0x53, 0x54, 0, 0, 0, 1],
        ] {
            send(vm1, &Flow::udp(1, 2).from(source).frame(b""));
            send(
                vm1,
                &tagged(&Flow::udp(1, 2).from(source).frame(b""), Tag::customer(4)),
            );
        }
        assert_silent(&[vm1, vm2]);
        let stats = switch.stats();
        assert_eq!(stats.port("vm1").left("invalid_source"), 8, "{hook}: {stats:#?}");
        assert_eq!(stats.port("vm1").rx.frames, 9, "{hook}: {stats:#?}");
    }
}

fn reserved_group_addresses_are_dropped_and_the_next_one_is_not() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    // Without spanning trees the bridge floods the first one, so that others find loops (`br_handle_frame`).
    for last in 1..16 {
        let frame = Flow::udp(1, 2).to(link_local(last)).frame(b"pause");
        send(vm1, &frame);
        send(vm1, &tagged(&frame, Tag::customer(4)));
    }
    assert_silent(&[vm1, vm2]);
    let stats = switch.stats();
    assert_eq!(stats.port("vm1").left("group"), 30, "{stats:#?}");
    assert_eq!(stats.port("vm2").tx_by_bridge, 0, "{stats:#?}");

    let frame = Flow::udp(1, 2).to(link_local(16)).frame(b"all bridges");
    send(vm1, &frame);
    assert_receives(vm2, &frame);
}

fn a_frame_for_a_station_on_its_own_port_is_dropped() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(3, hook);
        let [vm1, vm2, vm3] = switch.taps();
        switch.introduce();
        send(vm1, &hello(9));
        for tap in [vm2, vm3] {
            assert_receives(tap, &hello(9));
        }
        send(vm1, &Flow::udp(1, 9).frame(b"neighbours"));
        assert_silent(&[vm1, vm2, vm3]);
        let stats = switch.stats();
        assert_eq!(stats.port("vm1").left("same_port"), 1, "{hook}: {stats:#?}");
    }
}

fn a_frame_for_a_port_that_is_down_goes_to_all_others() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(3, hook);
        let [vm1, vm2, vm3] = switch.taps();
        switch.introduce();
        stop_learning("vm1");
        vm2.down().expect("vm2 down");
        assert_eq!(switch.shown("vm2")["state"], "down");
        let frame = Flow::udp(1, 2).frame(b"asleep?");
        send(vm1, &frame);
        // Going down, a port loses the addresses behind it (`br_stp_disable_port`), so the bridge floods.
        assert_receives(vm3, &frame);
        assert_silent(&[vm1, vm2, vm3]);
        let stats = switch.stats();
        assert_eq!(stats.port("vm1").forwarded.frames, 0, "{hook}: {stats:#?}");
        assert_eq!(
            stats.port("vm1").left("destination_unknown"),
            1,
            "{hook}: {stats:#?}"
        );
        assert_eq!(stats.port("vm2").tx.frames, 0, "{hook}: {stats:#?}");
        vm2.up().expect("vm2 up");
        send(vm1, &frame);
        assert_receives(vm2, &frame);
        assert_receives(vm3, &frame);
    }
}

fn a_frame_for_a_port_without_a_reader_is_dropped_until_there_is_one() {
    for hook in ["xdp", "tcx"] {
        let mut switch = Switch::with_hook(3, hook);
        switch.introduce();
        stop_learning("vm1");
        stop_learning("vm2");
        let idle = switch.take("vm2").close().expect("the VMM exits");
        assert_eq!(switch.shown("vm2")["state"], "no carrier");
        bridge("fdb replace 52:54:00:00:00:02 dev vm2 master static");
        let [vm1, vm3] = switch.taps();
        let frame = Flow::udp(1, 2).frame(b"anybody in?");
        send(vm1, &frame);
        send(vm1, &frame);
        assert_silent(&[vm1, vm3]);
        let stats = switch.stats();
        assert_eq!(stats.frames("vm1", "vm2"), (0, 0), "{hook}: {stats:#?}");
        let left = stats.port("vm1").left("egress_state") + stats.port("vm1").left("egress_no_carrier");
        assert_eq!(left, 2, "{hook}: {stats:#?}");

        let vm2 = idle.open().expect("the VMM is back");
        assert_eq!(switch.shown("vm2")["state"], "up");
        assert_silent(&[&vm2]);
        next_tick();
        send(vm1, &frame);
        assert_receives(&vm2, &frame);
        assert_eq!(
            switch.stats().path("vm1", "vm2", hook).frames,
            1,
            "by the hook it had: {hook}"
        );
        // And the other way: the guest's new VMM meets the programs that the tap has had all along.
        let answer = Flow::udp(2, 1).frame(b"I am");
        send(&vm2, &answer);
        assert_receives(vm1, &answer);
        assert_eq!(switch.stats().path("vm2", "vm1", hook).frames, 1, "{hook}");
    }
}

fn a_frame_from_a_port_that_is_down_is_dropped() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    vm1.down().expect("vm1 down");
    // Native XDP runs before the driver looks whether the tap is up.
    let (header, frame) = partial(&Flow::udp(1, 2).frame(&payload(100)));
    send_down(vm1, &header, &frame);
    send_down(vm1, &lab::VnetHeader::none(), &hello(1));
    send_down(vm1, &lab::VnetHeader::none(), &Flow::udp(7, 2).frame(b"new here"));
    // What the driver refuses by itself no program sees.
    let long = Flow::tcp(1, 2).frame(&payload(8000));
    vm1.send(&lab::VnetHeader::none(), &long)
        .expect_err("a tap that is down");
    assert_silent(&[vm1, vm2]);
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, 0), "{stats:#?}");
    assert_eq!(
        stats.port("vm2").tx_by_bridge,
        1,
        "what introduced vm1: {stats:#?}"
    );
    let known = switch.json("fdb show");
    let unknown = text(mac(7));
    let mut entries = known.as_array().expect("entries").iter();
    assert!(
        entries.all(|entry| entry["mac"] != *unknown),
        "nothing learned: {known}"
    );
}

/// Gives a frame to a tap that is down, which may refuse it.
fn send_down(tap: &lab::Tap, header: &lab::VnetHeader, frame: &[u8]) {
    let _ = tap.send(header, frame);
}
