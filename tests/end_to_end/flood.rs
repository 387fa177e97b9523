//! Flooding, which is the bridge's: every other port, once each, whatever is attached.

use lab::Tap;

use crate::support::{
    frames::{BROADCAST, Flow, MULTICAST, hello, mac},
    switch::Switch,
    wire::{assert_receives, assert_silent, send},
};

crate::tests![
    broadcast_multicast_and_unknown_unicast_reach_every_other_port_once,
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
            assert_eq!((port.left.frames, port.left), (5, port.rx), "{hook}: {stats:#?}");
            assert_eq!(port.left_by_reason["group"], 4, "{hook}: {stats:#?}");
            assert_eq!(
                port.left_by_reason["destination_unknown"], 1,
                "{hook}: {stats:#?}"
            );
        }
        assert_eq!(stats.paths, [], "{hook}");
    }
}

fn a_frame_of_the_smallest_length_is_flooded() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    // An Ethernet header and nothing more.
    let frame = &hello(1)[..14];
    send(vm1, frame);
    assert_receives(vm2, frame);
    let stats = switch.stats();
    assert_eq!(stats.port("vm1").left.bytes, 14, "{stats:#?}");
}
