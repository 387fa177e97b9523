//! VLAN tags: carried untouched, and a broadcast domain each.

use crate::support::{
    frames::{BROADCAST, Flow, Tag, hello, partial, tagged},
    switch::Switch,
    wire::{assert_receives, assert_receives_with, assert_silent, drain, send, send_with},
};

crate::tests![
    a_tag_is_carried_untouched_by_both_hooks,
    two_tags_are_carried_untouched,
    an_address_can_be_on_different_ports_in_different_vlans,
    the_kind_of_tag_makes_a_different_vlan,
    priority_tagged_frames_belong_to_the_untagged,
    a_flooded_partial_checksum_behind_a_tag_stays_partial,
];

fn a_tag_is_carried_untouched_by_both_hooks() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(3, hook);
        let [vm1, vm2, vm3] = switch.taps();
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
        // Octets are counted with the tag, also where the kernel keeps it beside the frame.
        let octets = 32 * tagged(&Flow::udp(1, 2).frame(b"known"), Tag::customer(1)).len() as u64;
        assert_eq!(stats.path("vm1", "vm2", hook).bytes, octets, "{stats:#?}");
        let octets = 32 * tagged(&Flow::udp(2, 9).frame(b"tagged"), Tag::customer(1)).len() as u64;
        assert_eq!(stats.port("vm2").flooded.bytes, octets, "{stats:#?}");
        assert_eq!(stats.port("vm3").tx.bytes, octets, "{stats:#?}");
    }
}

fn two_tags_are_carried_untouched() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(3, hook);
        let [vm1, vm2, vm3] = switch.taps();
        for (outer, inner) in [
            (Tag::service(100).priority(5), Tag::customer(7).priority(2)),
            (Tag::customer(100), Tag::customer(7)),
            (Tag::service(100), Tag::service(7)),
        ] {
            let wrap = |frame: &[u8]| tagged(&tagged(frame, inner), outer);
            send(vm2, &wrap(&hello(2)));
            assert_receives(vm1, &wrap(&hello(2)));
            assert_receives(vm3, &wrap(&hello(2)));
            // Known in the outer VLAN.
            let (header, frame) = partial(&wrap(&Flow::tcp(1, 2).frame(b"inner")));
            send_with(vm1, &header, &frame);
            // Which of the two hooks takes it does not matter: a partial checksum survives, or is complete.
            let (received, data) = crate::support::wire::receive(vm2);
            if received.needs_checksum() {
                assert_eq!((received, data), (header, frame), "{hook}: {outer:?}");
            } else {
                assert_eq!(data, wrap(&Flow::tcp(1, 2).frame(b"inner")), "{hook}: {outer:?}");
            }
            assert_silent(&[vm1, vm2, vm3]);
        }
    }
}

fn an_address_can_be_on_different_ports_in_different_vlans() {
    let switch = Switch::of(4);
    let [vm1, vm2, vm3, vm4] = switch.taps();
    // Station 2 is on vm2 in VLAN 5, on vm3 in VLAN 6 and on vm4 without a tag.
    send(vm2, &tagged(&hello(2), Tag::customer(5)));
    send(vm3, &tagged(&hello(2), Tag::customer(6)));
    send(vm4, &hello(2));
    drain(&[vm1, vm2, vm3, vm4]);
    let frame = Flow::udp(1, 2).frame(b"which?");
    for (port, frame) in [
        (vm2, tagged(&frame, Tag::customer(5))),
        (vm3, tagged(&frame, Tag::customer(6))),
        (vm4, frame.clone()),
    ] {
        send(vm1, &frame);
        assert_receives(port, &frame);
        assert_silent(&[vm1, vm2, vm3, vm4]);
    }
    let elsewhere = tagged(&frame, Tag::customer(7));
    send(vm1, &elsewhere);
    for port in [vm2, vm3, vm4] {
        assert_receives(port, &elsewhere);
    }
    let stats = switch.stats();
    assert!(stats.ports.iter().all(|port| port.moved == 0), "{stats:#?}");
    assert_eq!(
        stats.paths.iter().map(|path| path.frames).collect::<Vec<_>>(),
        [1, 1, 1],
        "{stats:#?}"
    );
}

fn the_kind_of_tag_makes_a_different_vlan() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    send(vm2, &tagged(&hello(2), Tag::customer(5)));
    send(vm3, &tagged(&hello(2), Tag::service(5)));
    drain(&[vm1, vm2, vm3]);
    for (port, tag) in [(vm2, Tag::customer(5)), (vm3, Tag::service(5))] {
        let frame = tagged(&Flow::udp(1, 2).frame(b"which?"), tag);
        send(vm1, &frame);
        assert_receives(port, &frame);
        assert_silent(&[vm1, vm2, vm3]);
    }
}

fn priority_tagged_frames_belong_to_the_untagged() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(3, hook);
        let [vm1, vm2, vm3] = switch.taps();
        send(vm2, &hello(2));
        send(vm3, &tagged(&hello(3), Tag::customer(0).priority(6)));
        drain(&[vm1, vm2, vm3]);
        let to_two = tagged(&Flow::udp(1, 2).frame(b"urgent"), Tag::customer(0).priority(7));
        let to_two_service = tagged(&Flow::udp(1, 2).frame(b"urgent"), Tag::service(0).priority(7));
        let to_three = Flow::udp(1, 3).frame(b"not urgent");
        for (port, frame) in [(vm2, to_two), (vm2, to_two_service), (vm3, to_three)] {
            send(vm1, &frame);
            assert_receives(port, &frame);
            assert_silent(&[vm1, vm2, vm3]);
        }
        let known = switch.json("fdb show");
        let known = known.as_array().expect("entries");
        assert!(
            known.iter().all(|entry| entry["vlan"].is_null()),
            "{hook}: {known:?}"
        );
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
