//! Flooding: every other port that is up, once each.

use lab::Tap;

use crate::support::{
    frames::{BROADCAST, Flow, MULTICAST, hello, mac},
    switch::Switch,
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    broadcast_multicast_and_unknown_unicast_reach_every_other_port_once,
    a_flood_leaves_out_ports_that_are_down_or_have_no_reader,
    a_flood_with_no_other_port_up_is_dropped,
    a_flood_reaches_the_highest_slot,
    a_frame_of_the_smallest_length_is_flooded,
];

fn broadcast_multicast_and_unknown_unicast_reach_every_other_port_once() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(4, hook);
        let all: [&Tap; 4] = switch.taps();
        switch.introduce();
        let destinations = [BROADCAST, MULTICAST, [0x33, 0x33, 0, 0, 0, 1], mac(99)];
        for (sender, station) in all.iter().zip(1..) {
            for destination in destinations {
                let frame = Flow::udp(station, 99).to(destination).frame(b"to all");
                send(sender, &frame);
                for receiver in all.iter().filter(|tap| tap.name() != sender.name()) {
                    assert_receives(receiver, &frame);
                }
                assert_silent(&all);
            }
        }
        let stats = switch.stats();
        for port in &stats.ports {
            // With the frame by which it was introduced.
            assert_eq!(
                (port.flooded.frames, port.tx.frames),
                (5, 15),
                "{hook}: {stats:#?}"
            );
            assert_eq!(port.flooded, port.rx, "{hook}: {stats:#?}");
            assert_eq!(
                (port.flood_errors, port.dropped.len()),
                (0, 0),
                "{hook}: {stats:#?}"
            );
        }
        assert_eq!(stats.paths, [], "{hook}");
    }
}

fn a_flood_leaves_out_ports_that_are_down_or_have_no_reader() {
    let mut switch = Switch::of(4);
    let idle = switch.take("vm4").close().expect("the VMM exits");
    let [vm1, vm2, vm3] = switch.taps();
    vm2.down().expect("vm2 down");
    let frame = hello(1);
    send(vm1, &frame);
    assert_receives(vm3, &frame);
    vm2.up().expect("vm2 up");
    let vm4 = idle.open().expect("the VMM is back");
    assert_silent(&[vm1, vm2, vm3, &vm4]);
    let stats = switch.stats();
    let copies: Vec<_> = stats.ports.iter().map(|port| port.tx.frames).collect();
    assert_eq!(copies, [0, 0, 1, 0], "{stats:#?}");
    assert!(
        stats.ports.iter().all(|port| port.flood_errors == 0),
        "{stats:#?}"
    );

    send(vm1, &frame);
    for tap in [vm2, vm3, &vm4] {
        assert_receives(tap, &frame);
    }
}

fn a_flood_with_no_other_port_up_is_dropped() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    vm2.down().expect("vm2 down");
    send(vm1, &hello(1));
    send(vm1, &Flow::udp(1, 2).frame(b"unknown"));
    switch.ok("detach vm2");
    send(vm1, &hello(1));
    let stats = switch.stats();
    assert_eq!(stats.port("vm1").dropped("no_other_port"), 3, "{stats:#?}");
    assert_eq!(stats.port("vm1").flooded.frames, 0, "{stats:#?}");
    assert_silent(&[vm1, vm2]);
}

fn a_flood_reaches_the_highest_slot() {
    let switch = Switch::detached(4);
    let [vm1, vm2, vm3, vm4] = switch.taps();
    switch.ok("attach vm1 vm2 vm3 vm4 --max-ports 4");
    send(vm1, &hello(1));
    for tap in [vm2, vm3, vm4] {
        assert_receives(tap, &hello(1));
    }
    // Slots in use need not be the first ones.
    switch.ok("detach vm1 vm2");
    send(vm4, &hello(4));
    assert_receives(vm3, &hello(4));
    switch.ok("attach vm2");
    send(vm4, &hello(4));
    drain(&[vm3]);
    assert_receives(vm2, &hello(4));
    assert_silent(&[vm1, vm2, vm3, vm4]);
}

fn a_frame_of_the_smallest_length_is_flooded() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    // An Ethernet header and nothing more.
    let frame = &hello(1)[..14];
    send(vm1, frame);
    assert_receives(vm2, frame);
    let stats = switch.stats();
    assert_eq!(stats.port("vm2").tx.bytes, 14, "{stats:#?}");
}
