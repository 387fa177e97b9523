//! How long a frame may be.

use tapbridge::common::counters::{DropReason, PassReason};

use crate::{
    Test,
    bench::Bench,
    cases::{Case, Goes, check_tcx, check_xdp},
    frames::of_length,
    packet::Tag,
};

pub const TESTS: &[Test] = &[
    (
        "xdp_redirects_no_frame_that_is_longer_than_its_target_takes",
        || check_xdp(&cases()),
    ),
    (
        "xdp_leaves_tagged_frames_to_tcx_where_the_tag_does_not_fit",
        || {
            check_xdp(&tagged());
        },
    ),
    ("tcx_drops_a_frame_that_is_longer_than_its_target_takes", || {
        check_tcx(&cases());
    }),
    ("tcx_forwards_bulk_whatever_its_length", || check_tcx(&bulk())),
];

fn cases() -> Vec<Case> {
    let fits = |description, length| Case::new(description, Goes::To(1), of_length(Tag::None, length));
    let exceeds = |description, length| {
        let nowhere = Goes::Nowhere(DropReason::EgressMtu);
        Case::new(description, nowhere, of_length(Tag::None, length))
    };
    vec![
        fits("as long as the MTU and a header", 1514),
        fits("with the room of a tag", 1518),
        exceeds("with one octet more", 1519),
        exceeds("from a port with a larger MTU", 2000).given(|bench| set_mtu(bench, 0, 9000)),
        fits("to a port with a larger MTU", 3300).given(|bench| set_mtu(bench, 1, 9000)),
        fits("the longest for a small MTU", 118).given(|bench| set_mtu(bench, 1, 100)),
        exceeds("one octet more for a small MTU", 119).given(|bench| set_mtu(bench, 1, 100)),
        fits("the longest for the smallest MTU", 86).given(|bench| set_mtu(bench, 1, 68)),
        exceeds("one octet more for the smallest MTU", 87).given(|bench| set_mtu(bench, 1, 68)),
    ]
}

/// A test run leaves the tag in tcx's data, where the kernel has moved it to the metadata: these are for XDP alone.
fn tagged() -> Vec<Case> {
    let mut cases = Vec::new();
    for tag in [Tag::Customer, Tag::Service] {
        let to = |description, length| Case::new(description, Goes::To(1), of_length(tag, length));
        cases.extend([
            to("a tag and all that the MTU allows", 1518),
            to("what the kernel would not redirect", 1519).passed_up_for(PassReason::NotForwarded),
            to("all that tcx forwards", 1522).passed_up_for(PassReason::NotForwarded),
            to("more than any program forwards", 1523).passed_up_for(PassReason::NotForwarded),
        ]);
    }
    cases
}

fn bulk() -> Vec<Case> {
    let jumbo = |description, length| {
        Case::new(description, Goes::To(1), of_length(Tag::None, length))
            .given(|bench| set_mtu(bench, 1, 9000))
    };
    vec![
        jumbo("the longest that native XDP takes, with pages of 4 KiB", 3456),
        jumbo("one octet more", 3457),
        Case::new("to its target", Goes::To(1), of_length(Tag::None, 3000)).gso(1448),
        Case::new(
            "to a port that is down",
            Goes::Nowhere(DropReason::EgressDown),
            of_length(Tag::None, 3000),
        )
        .given(|bench| bench.tap(1).down().expect("set a tap down"))
        .gso(1448),
    ]
}

fn set_mtu(bench: &mut Bench, slot: u32, mtu: u32) {
    bench.tap(slot).set_mtu(mtu).expect("set an MTU");
}
