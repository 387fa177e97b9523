//! How long a frame may be.

use tapbridge::common::forwarding::Reason;

use crate::{
    Test,
    cases::{Case, Goes, check_tcx, check_xdp},
    frames::of_length,
    packet::Tag,
};

pub const TESTS: &[Test] = &[
    (
        "xdp_redirects_no_frame_that_is_longer_than_its_target_takes",
        || {
            check_xdp(&cases());
        },
    ),
    (
        "tcx_redirects_no_frame_that_is_longer_than_its_target_takes",
        || {
            check_tcx(&cases());
        },
    ),
    ("tcx_redirects_bulk_whatever_its_length", || check_tcx(&bulk())),
];

const TOO_LONG: Goes = Goes::Left(Reason::EgressMtu);
const USUAL: &str = "ip link set vm1 mtu 1500";

fn cases() -> Vec<Case> {
    let with = |description, goes, length| Case::new(description, goes, of_length(Tag::None, length));
    let mut cases = vec![
        with("as long as the MTU and a header", Goes::To(1), 1514),
        with("with the room of a tag", Goes::To(1), 1518),
        with("with one byte more", TOO_LONG, 1519),
        with("from a port with a larger MTU", TOO_LONG, 2000)
            .during("ip link set vm0 mtu 9000", "ip link set vm0 mtu 1500")
            .otherwise(TOO_LONG),
        with("to a port with a larger MTU", Goes::To(1), 3300)
            .during("ip link set vm1 mtu 9000", USUAL)
            .otherwise(TOO_LONG),
        with("the longest for a small MTU", Goes::To(1), 118).during("ip link set vm1 mtu 100", USUAL),
        with("one byte more for a small MTU", TOO_LONG, 119).during("ip link set vm1 mtu 100", USUAL),
        with("the longest for the smallest MTU", Goes::To(1), 86).during("ip link set vm1 mtu 68", USUAL),
        with("one byte more for the smallest MTU", TOO_LONG, 87).during("ip link set vm1 mtu 68", USUAL),
    ];
    // A test run leaves a tag in the data of tcx's frames too, so both hooks measure it.
    for tag in [Tag::Customer, Tag::Service] {
        let with = |description, goes, length| Case::new(description, goes, of_length(tag, length));
        cases.extend([
            with("a tag and all that the MTU allows", Goes::To(1), 1518),
            with("a tag and one byte more", TOO_LONG, 1519),
            with("what fits where the tag lies in the metadata", TOO_LONG, 1522),
        ]);
    }
    cases
}

fn bulk() -> Vec<Case> {
    let jumbo = |description, length| {
        Case::new(description, Goes::To(1), of_length(Tag::None, length))
            .during("ip link set vm1 mtu 9000", USUAL)
            .otherwise(TOO_LONG)
    };
    vec![
        jumbo("the longest that native XDP takes, with pages of 4 KiB", 3456),
        jumbo("one byte more", 3457),
        Case::new("to its target", Goes::To(1), of_length(Tag::None, 3000)).gso(1448),
        Case::new(
            "to a port that is down",
            Goes::Left(Reason::EgressState),
            of_length(Tag::None, 3000),
        )
        .during("ip link set vm1 down", "ip link set vm1 up")
        .gso(1448),
    ]
}
