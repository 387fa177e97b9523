//! The kernel takes what the programs redirect: frames that are sent for real come out of the target's tap.

use std::time::Duration;

use lab::VnetHeader;
use tapbridge::common::counters::{DropReason, Traffic};

use crate::{
    Test,
    bench::{Bench, INGRESS, TAGS},
    frames::{self, Frame, complete, of_length, partial},
    packet::{Shape, Tag},
    switch::Frames,
};

pub const TESTS: &[Test] = &[
    (
        "a_frame_that_xdp_redirects_comes_out_of_its_targets_tap",
        every_shape,
    ),
    (
        "a_frame_that_xdp_redirects_is_never_too_long_for_the_kernel",
        every_length,
    ),
    (
        "tcx_finds_the_tag_that_the_kernel_has_moved_out_of_the_frame",
        tag_in_the_metadata,
    ),
];

/// Long enough for a frame to arrive on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn every_shape() {
    let bench = Bench::new(Frames::Generic);
    let mut sent = vec![frames::usual(), frames::arp()];
    for shape in Shape::all() {
        sent.extend([partial(shape, 0), partial(shape, 1401), complete(shape, 20)]);
    }
    for frame in &sent {
        assert!(is_redirected(&bench, frame), "no native frame");
        arrives(&bench, frame);
    }
}

fn every_length() {
    let bench = Bench::new(Frames::Generic);
    for mtu in [68, 100, 1500] {
        bench.tap(1).set_mtu(mtu).expect("set an MTU");
        let mtu = mtu as usize;
        for tag in TAGS {
            let mut redirected = 0;
            for length in (mtu + 10).max(80)..mtu + 26 {
                let frame = of_length(tag, length);
                if is_redirected(&bench, &frame) {
                    redirected += 1;
                    arrives(&bench, &frame);
                }
            }
            assert_ne!(redirected, 0, "MTU {mtu}, {tag:?}");
        }
    }
}

/// Sends a frame from slot 0; says whether the program redirected it.
fn is_redirected(bench: &Bench, frame: &Frame) -> bool {
    let redirected = || -> u64 { bench.switch.paths().iter().map(|path| path.traffic.frames).sum() };
    let before = redirected();
    bench.switch.xdp_live(&frame.octets, bench.tap(INGRESS).ifindex());
    redirected() != before
}

fn arrives(bench: &Bench, frame: &Frame) {
    let length = frame.octets.len();
    let (header, octets) = bench
        .tap(1)
        .receive(PATIENCE)
        .expect("read a tap")
        .unwrap_or_else(|| panic!("a frame of {length} octets was redirected and did not arrive"));
    assert_eq!(octets, frame.leaves_xdp);
    assert!(!header.needs_checksum(), "native frames lose their metadata");
}

/// A test run leaves the tag in the data; the kernel moves it to the metadata before tcx.
fn tag_in_the_metadata() {
    let mut bench = Bench::unshared(Frames::Generic);
    let device = bench.tap(INGRESS).name().to_owned();
    bench.switch.attach_tcx(&device);
    for (tag, longest) in [(Tag::None, 1518), (Tag::Customer, 1522), (Tag::Service, 1522)] {
        for length in 1510..1530 {
            bench.reset();
            bench.separate(tag);
            let frame = of_length(tag, length);
            let sent = bench.tap(INGRESS).send(&VnetHeader::none(), &frame.octets);
            sent.expect("write to a tap");
            let counters = bench.switch.counters(INGRESS);
            let one = Traffic {
                frames: 1,
                bytes: length as u64,
            };
            assert_eq!(counters.received, one, "{tag:?}, {length} octets");
            if length <= longest {
                let received = bench.tap(1).receive(PATIENCE).expect("read a tap");
                let (_, octets) = received.unwrap_or_else(|| panic!("{tag:?}, {length} octets: no frame"));
                assert_eq!(octets, frame.octets);
                assert_eq!(bench.switch.paths().len(), 1);
            } else {
                let dropped = counters.dropped[DropReason::EgressMtu as usize];
                assert_eq!(dropped, 1, "{tag:?}, {length} octets");
            }
        }
    }
}
