//! What the statistics say, number by number.

use crate::support::{
    frames::{Flow, hello, partial, payload, segmented},
    linux_bridge::stop_learning,
    statistics::{Bridge, Count, Path},
    switch::{BRIDGE, Switch},
    wire::{drain, send, send_with},
};

crate::tests![
    every_frame_is_counted_with_its_bytes_under_its_path,
    what_a_full_ring_drops_is_counted_at_the_port_that_has_it,
    the_statistics_go_on_without_any_process,
    a_port_that_is_gone_keeps_its_statistics_until_it_is_detached,
];

const fn count(frames: u64, bytes: u64) -> Count {
    Count { frames, bytes }
}

fn every_frame_is_counted_with_its_bytes_under_its_path() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let hello_bytes = hello(1).len() as u64;
    // By XDP, completed.
    let (header, frame) = partial(&Flow::tcp(1, 2).of_length(100));
    send_with(vm1, &header, &frame);
    // By XDP, complete already.
    send(vm1, &Flow::tcp(1, 2).of_length(101));
    // By tcx: too long for native XDP to see, GSO, and without a checksum.
    let (header, frame) = segmented(&Flow::tcp(1, 2).of_length(30_000), 1400);
    send_with(vm1, &header, &frame);
    send(vm1, &Flow::udp(1, 2).without_checksum(&payload(158)));
    // Elsewhere, nowhere, everywhere.
    send(vm1, &Flow::tcp(1, 3).of_length(102));
    send(vm1, &Flow::tcp(1, 1).of_length(103));
    send(vm1, &Flow::tcp(1, 9).of_length(104));
    drain(&[vm1, vm2, vm3]);

    let stats = switch.stats();
    let path = |to: &str, via: &str, frames, bytes| Path {
        from: "vm1".into(),
        to: Some(to.into()),
        via: via.into(),
        frames,
        bytes,
    };
    assert_eq!(
        stats.paths,
        [
            path("vm2", "xdp", 2, 201),
            path("vm2", "tcx", 2, 30_200),
            path("vm3", "xdp", 1, 102)
        ]
    );
    let vm1 = stats.port("vm1");
    assert_eq!(vm1.rx, count(8, hello_bytes + 201 + 30_200 + 102 + 103 + 104));
    assert_eq!((vm1.tx, vm1.tx_by_bridge), (count(0, 0), 2));
    assert_eq!(vm1.forwarded, count(5, 201 + 30_200 + 102));
    assert_eq!(vm1.left, count(3, hello_bytes + 103 + 104));
    for reason in ["group", "same_port", "destination_unknown"] {
        assert_eq!(vm1.left(reason), 1, "{reason}: {stats:#?}");
    }
    assert_eq!((vm1.checksums_completed, vm1.gso_frames), (1, 1));
    // hello, GSO, no checksum, same port, unknown
    assert_eq!(vm1.passed_up, 5);
    let vm2 = stats.port("vm2");
    assert_eq!((vm2.rx, vm2.left), (count(1, hello_bytes), count(1, hello_bytes)));
    assert_eq!((vm2.tx, vm2.tx_by_bridge), (count(4, 201 + 30_200), 2 + 1));
    let vm3 = stats.port("vm3");
    assert_eq!((vm3.tx, vm3.tx_by_bridge), (count(1, 102), 2 + 1));
    assert_eq!([vm1.tx_dropped, vm2.tx_dropped, vm3.tx_dropped], [0; 3]);
}

fn the_statistics_go_on_without_any_process() {
    // Every command has ended before the frames are sent; nothing of ours runs in between.
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let before = switch.stats();
    for _ in 0..50 {
        send(vm1, &Flow::udp(1, 2).frame(b"on and on"));
    }
    assert_eq!(vm2.drain().expect("receive"), 50);
    assert_eq!(before.frames("vm1", "vm2"), (0, 0));
    assert_eq!(switch.stats().frames("vm1", "vm2"), (50, 0));
}

fn a_port_that_is_gone_keeps_its_statistics_until_it_is_detached() {
    let mut switch = Switch::of(2);
    switch.introduce();
    let before = switch.stats();
    switch.remove("vm2");
    // What the device counted is gone with it.
    let port = |stats: &Bridge, name: &str| stats.port(name).clone();
    let after = switch.all_stats();
    let [bridge, without] = after.try_into().expect("one bridge, and a port without one");
    assert_eq!(
        (bridge.bridge.as_deref(), without.bridge.as_deref()),
        (Some(BRIDGE), None)
    );
    assert_eq!(port(&bridge, "vm1"), port(&before, "vm1"));
    let gone = port(&without, "vm2");
    assert_eq!((gone.rx, gone.tx), (before.port("vm2").rx, before.port("vm2").tx));
    switch.ok("detach vm2");
    assert_eq!(switch.stats().ports.len(), 1);
}

fn what_a_full_ring_drops_is_counted_at_the_port_that_has_it() {
    const SENT: u64 = 2000;
    let switch = Switch::with_hook(2, "tcx");
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    // More than the ring holds.
    for _ in 0..SENT {
        send(vm1, &Flow::udp(1, 2).frame(b"nobody reads"));
    }
    let read = vm2.drain().expect("receive") as u64;
    let stats = switch.stats();
    let vm2 = stats.port("vm2");
    assert!(vm2.tx_dropped > 0, "{stats:#?}");
    assert_eq!(vm2.tx.frames, SENT, "{stats:#?}");
    assert_eq!(vm2.tx_dropped + read, SENT, "{stats:#?}");
    assert_eq!(vm2.tx_by_bridge, 1, "what introduced vm1: {stats:#?}");
}
