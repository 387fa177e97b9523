//! VLAN tags where the bridge does not filter VLANs: content, carried untouched.

use crate::support::{
    frames::{BROADCAST, Flow, Tag, hello, partial, tagged},
    linux_bridge::stop_learning,
    switch::Switch,
    wire::{assert_receives, assert_receives_with, assert_silent, receive, send, send_with},
};

crate::tests![
    a_tag_is_carried_untouched_by_both_hooks,
    two_tags_are_carried_untouched,
    a_flooded_partial_checksum_behind_a_tag_stays_partial,
];

fn a_tag_is_carried_untouched_by_both_hooks() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(3, hook);
        let [vm1, vm2, vm3] = switch.taps();
        stop_learning("vm1");
        for tag in [
            Tag::customer(1),
            Tag::service(1),
            Tag::customer(4094),
            Tag::service(4095),
        ] {
            for priority in 0..8 {
                let tag = tag.priority(priority);
                let flooded = tagged(&Flow::udp(2, 9).to(BROADCAST).frame(b"tagged"), tag);
                send(vm2, &flooded);
                assert_receives(vm1, &flooded);
                assert_receives(vm3, &flooded);
                let known = tagged(&Flow::udp(1, 2).frame(b"known"), tag);
                send(vm1, &known);
                assert_receives(vm2, &known);
            }
        }
        assert_silent(&[vm1, vm2, vm3]);
        let stats = switch.stats();
        let expected = if hook == "xdp" { (32, 0) } else { (0, 32) };
        assert_eq!(stats.frames("vm1", "vm2"), expected, "{stats:#?}");
        // Bytes are counted with the tag, also where the kernel keeps it beside the frame.
        let bytes = 32 * tagged(&Flow::udp(1, 2).frame(b"known"), Tag::customer(1)).len() as u64;
        assert_eq!(stats.path("vm1", "vm2", hook).bytes, bytes, "{stats:#?}");
        let bytes = 32 * tagged(&Flow::udp(2, 9).frame(b"tagged"), Tag::customer(1)).len() as u64;
        assert_eq!(stats.port("vm2").left.bytes, bytes, "{stats:#?}");
    }
}

fn two_tags_are_carried_untouched() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(3, hook);
        let [vm1, vm2, vm3] = switch.taps();
        stop_learning("vm1");
        for (outer, inner) in [
            (Tag::service(100).priority(5), Tag::customer(7).priority(2)),
            (Tag::customer(100), Tag::customer(7)),
            (Tag::service(100), Tag::service(7)),
        ] {
            let wrap = |frame: &[u8]| tagged(&tagged(frame, inner), outer);
            send(vm2, &wrap(&hello(2)));
            assert_receives(vm1, &wrap(&hello(2)));
            assert_receives(vm3, &wrap(&hello(2)));
            let (header, frame) = partial(&wrap(&Flow::tcp(1, 2).frame(b"inner")));
            send_with(vm1, &header, &frame);
            // Which of the two hooks takes it does not matter: a partial checksum survives, or is complete.
            let (received, data) = receive(vm2);
            if received.needs_checksum() {
                assert_eq!((received, data), (header, frame), "{hook}: {outer:?}");
            } else {
                assert_eq!(data, wrap(&Flow::tcp(1, 2).frame(b"inner")), "{hook}: {outer:?}");
            }
            assert_silent(&[vm1, vm2, vm3]);
        }
    }
}

fn a_flooded_partial_checksum_behind_a_tag_stays_partial() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    for tag in [Tag::customer(5), Tag::service(5)] {
        let (header, frame) = partial(&tagged(&Flow::tcp(1, 2).frame(b"unknown"), tag));
        send_with(vm1, &header, &frame);
        assert_receives_with(vm2, &header, &frame);
    }
}
