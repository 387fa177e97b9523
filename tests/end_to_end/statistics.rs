//! What the statistics say, number by number.

use crate::support::{
    frames::{Flow, hello, partial, payload, segmented},
    statistics::{Count, Path},
    switch::Switch,
    wire::{drain, send, send_with},
};

crate::tests![
    every_frame_is_counted_with_its_octets_under_its_path,
    the_statistics_go_on_without_any_process,
    a_port_that_is_gone_keeps_its_statistics_until_it_is_detached,
];

const fn count(frames: u64, bytes: u64) -> Count {
    Count { frames, bytes }
}

fn every_frame_is_counted_with_its_octets_under_its_path() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    let hello_octets = hello(1).len() as u64;
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
        to: to.into(),
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
    assert_eq!(vm1.rx, count(8, hello_octets + 201 + 30_200 + 102 + 103 + 104));
    assert_eq!(vm1.tx, count(2, 2 * hello_octets));
    assert_eq!(vm1.forwarded, count(5, 201 + 30_200 + 102));
    assert_eq!(vm1.flooded, count(2, hello_octets + 104));
    assert_eq!((vm1.dropped("same_port"), vm1.dropped.len()), (1, 1));
    assert_eq!((vm1.checksums_completed, vm1.gso_frames), (1, 1));
    // hello, GSO, no checksum, same port, unknown
    assert_eq!(vm1.passed_up, 5);
    assert_eq!((vm1.learned, vm1.moved, vm1.flood_errors), (1, 0, 0));
    let vm2 = stats.port("vm2");
    assert_eq!(vm2.rx, count(1, hello_octets));
    assert_eq!(vm2.tx, count(2 + 4 + 1, 2 * hello_octets + 201 + 30_200 + 104));
    let vm3 = stats.port("vm3");
    assert_eq!(vm3.tx, count(2 + 1 + 1, 2 * hello_octets + 102 + 104));
}

fn the_statistics_go_on_without_any_process() {
    // Every command has ended before the frames are sent; nothing of ours runs in between.
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
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
    assert_eq!(switch.stats(), before);
    switch.ok("detach vm2");
    assert_eq!(switch.stats().ports.len(), 1);
}
