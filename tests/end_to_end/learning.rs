//! Learning, which is the bridge's: the programs find what it has learned.

use crate::support::{
    frames::{Flow, hello},
    linux_bridge::next_tick,
    switch::Switch,
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    the_first_frame_floods_and_what_follows_goes_to_one_port,
    an_address_moves_with_its_station,
];

fn the_first_frame_floods_and_what_follows_goes_to_one_port() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(3, hook);
        let [vm1, vm2, vm3] = switch.taps();
        let question = Flow::udp(1, 2).frame(b"question");
        send(vm1, &question);
        assert_receives(vm2, &question);
        assert_receives(vm3, &question);
        // The bridge sees each station's first frame.
        let answer = Flow::udp(2, 1).frame(b"answer");
        send(vm2, &answer);
        assert_receives(vm1, &answer);
        let stats = switch.stats();
        for (port, reason) in [("vm1", "destination_unknown"), ("vm2", "source_unknown")] {
            assert_eq!(stats.port(port).left_by_reason[reason], 1, "{stats:#?}");
        }
        assert_eq!(stats.paths, [], "{stats:#?}");
        switch.introduce();
        next_tick();
        send(vm1, &question);
        assert_receives(vm2, &question);
        send(vm2, &answer);
        assert_receives(vm1, &answer);
        assert_silent(&[vm1, vm2, vm3]);
        let stats = switch.stats();
        let expected = if hook == "xdp" { (1, 0) } else { (0, 1) };
        for (from, to) in [("vm1", "vm2"), ("vm2", "vm1")] {
            assert_eq!(stats.frames(from, to), expected, "{stats:#?}");
        }
    }
}

fn an_address_moves_with_its_station() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    // Station 2 speaks from vm3 now, and the bridge sees it.
    let moved = Flow::udp(2, 1).frame(b"I have moved");
    send(vm3, &moved);
    assert_receives(vm1, &moved);
    let frame = Flow::udp(1, 2).frame(b"there?");
    send(vm1, &frame);
    assert_receives(vm3, &frame);
    // And back, by a frame for all.
    send(vm2, &hello(2));
    drain(&[vm1, vm3]);
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_silent(&[vm1, vm2, vm3]);
    let stats = switch.stats();
    assert_eq!(
        stats.port("vm3").left_by_reason["source_elsewhere"],
        1,
        "{stats:#?}"
    );
    let (to_vm2, to_vm3) = (stats.frames("vm1", "vm2"), stats.frames("vm1", "vm3"));
    assert_eq!((to_vm2, to_vm3), ((1, 0), (1, 0)), "{stats:#?}");
}
