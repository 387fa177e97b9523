//! Frame lengths: jumbo frames, and ports of different MTUs.

use lab::Tap;

use crate::support::{
    frames::{Flow, Tag, partial, tagged},
    linux_bridge::stop_learning,
    switch::Switch,
    wire::{assert_receives, assert_receives_with, assert_silent, receive, send, send_with},
};

crate::tests![
    jumbo_frames_arrive_by_tcx_with_their_partial_checksums,
    frames_of_every_length_arrive_whole,
    a_frame_at_the_limit_of_the_targets_mtu_is_forwarded_and_a_longer_one_left_and_dropped,
    a_changed_mtu_counts_at_once,
];

/// A switch of taps with these MTUs, whose stations are known.
fn switch(hook: &str, mtus: &[u32]) -> Switch {
    let mut switch = Switch::empty();
    for (number, &mtu) in (1..).zip(mtus) {
        switch.add(Tap::builder(format!("vm{number}")).mtu(mtu));
    }
    switch.attach_all(hook);
    switch.introduce();
    stop_learning("vm1");
    switch
}

fn jumbo_frames_arrive_by_tcx_with_their_partial_checksums() {
    let switch = switch("xdp", &[9000, 9000]);
    let [vm1, vm2] = switch.taps();
    let complete = Flow::tcp(1, 2).of_length(9014);
    let (header, frame) = partial(&complete);
    send_with(vm1, &header, &frame);
    assert_receives_with(vm2, &header, &frame);
    send(vm1, &complete);
    assert_receives(vm2, &complete);
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, 2), "{stats:#?}");
    assert_eq!(stats.path("vm1", "vm2", "tcx").bytes, 2 * 9014, "{stats:#?}");
}

fn frames_of_every_length_arrive_whole() {
    let switch = switch("xdp", &[9000, 9000]);
    let [vm1, vm2] = switch.taps();
    // Past the longest frame that the tap driver hands to native XDP, wherever that limit is.
    for length in (54..9014).step_by(61).chain(3300..3700) {
        let complete = Flow::tcp(1, 2).of_length(length);
        let (header, frame) = partial(&complete);
        send_with(vm1, &header, &frame);
        let (received, data) = receive(vm2);
        if received.needs_checksum() {
            assert_eq!((received, data == frame), (header, true), "{length} bytes");
        } else {
            assert!(data == complete, "{length} bytes");
        }
    }
    assert_silent(&[vm1, vm2]);
    let stats = switch.stats();
    let (xdp, tcx) = stats.frames("vm1", "vm2");
    assert!(xdp > 50 && tcx > 90, "both hooks had their part: {stats:#?}");
    assert_eq!(stats.port("vm1").checksums_completed, xdp, "{stats:#?}");
}

fn a_frame_at_the_limit_of_the_targets_mtu_is_forwarded_and_a_longer_one_left_and_dropped() {
    for hook in ["xdp", "tcx"] {
        let switch = switch(hook, &[9000, 576, 1500, 2000, 6000]);
        let [vm1, targets @ ..]: [&Tap; 5] = switch.taps();
        for ((target, station), mtu) in targets.into_iter().zip(2..).zip([576, 1500, 2000, 6000]) {
            let limit = mtu + 18;
            for tag in [None, Some(Tag::customer(5)), Some(Tag::service(5))] {
                let wrap = |frame: &[u8]| tag.map_or_else(|| frame.to_vec(), |tag| tagged(frame, tag));
                // The outermost tag does not count (`is_skb_forwardable`).
                for length in limit - 4..=limit {
                    let frame = wrap(&Flow::tcp(1, station).of_length(length));
                    send(vm1, &frame);
                    assert_receives(target, &frame);
                }
                send(vm1, &wrap(&Flow::tcp(1, station).of_length(limit + 1)));
                send(vm1, &wrap(&Flow::tcp(1, station).of_length(9014)));
            }
            assert_silent(&targets);
            let stats = switch.stats();
            let (xdp, tcx) = stats.frames("vm1", target.name());
            assert_eq!(xdp + tcx, 15, "{hook}, MTU {mtu}: {stats:#?}");
        }
        let stats = switch.stats();
        let left = &stats.port("vm1").left_by_reason;
        assert_eq!(left["egress_mtu"], 4 * 6, "{hook}: {stats:#?}");
    }
}

fn a_changed_mtu_counts_at_once() {
    let switch = switch("xdp", &[1500, 1500]);
    let [vm1, vm2] = switch.taps();
    let frame = Flow::tcp(1, 2).of_length(1514);
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    vm2.set_mtu(1280).expect("set the MTU");
    send(vm1, &frame);
    assert_silent(&[vm1, vm2]);
    assert_eq!(switch.stats().port("vm1").left_by_reason["egress_mtu"], 1);
    vm2.set_mtu(1500).expect("set the MTU");
    send(vm1, &frame);
    assert_receives(vm2, &frame);
}
