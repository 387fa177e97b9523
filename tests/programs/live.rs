//! The kernel takes what the programs redirect: frames that are sent for real come out of the target's tap.

use std::time::Duration;

use lab::VnetHeader;
use tapbridge::common::{Hook, counters::Traffic, forwarding::Reason};

use crate::{
    Test,
    frames::{self, Frame, complete, of_length, partial},
    packet::{Shape, Tag},
    programs::Frames,
    rig::{INGRESS, Rig, shell},
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
        "what_xdp_passes_is_counted_once_more_by_tcx_and_comes_out_unchanged",
        passed,
    ),
    (
        "tcx_finds_the_tag_that_the_kernel_has_moved_out_of_the_frame",
        tag_in_the_metadata,
    ),
    (
        "a_tagged_frame_that_the_kernel_drops_before_tcx_is_counted_by_xdp",
        cut_behind_its_tag,
    ),
];

/// Long enough for a frame to arrive on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A rig whose first tap need not know its stations: what is live goes on to the bridge.
fn rig() -> Rig {
    let rig = Rig::new(Frames::Generic);
    shell("bridge link set dev vm0 learning off");
    rig
}

fn every_shape() {
    let rig = rig();
    let mut sent = vec![frames::usual()];
    for shape in Shape::all() {
        sent.extend([partial(shape, 0), partial(shape, 1401), complete(shape, 20)]);
    }
    for frame in &sent {
        assert!(is_redirected(&rig, frame), "no native frame");
        arrives(&rig, frame);
    }
}

fn every_length() {
    let rig = rig();
    for mtu in [68, 100, 1500] {
        rig.taps[1].set_mtu(mtu).expect("set an MTU");
        let mtu = mtu as usize;
        for tag in [Tag::None, Tag::Customer, Tag::Service] {
            let mut redirected = 0;
            for length in (mtu + 10).max(80)..mtu + 26 {
                let frame = of_length(tag, length);
                if is_redirected(&rig, &frame) {
                    redirected += 1;
                    arrives(&rig, &frame);
                } else {
                    rig.taps[1].drain().expect("read a tap");
                }
            }
            assert_ne!(redirected, 0, "MTU {mtu}, {tag:?}");
        }
    }
}

/// Sends a frame from the first tap; says whether XDP redirected it.
fn is_redirected(rig: &Rig, frame: &Frame) -> bool {
    let redirected = || -> u64 {
        let taken = rig.programs.taken();
        let native = taken.iter().filter(|taken| taken.via == Hook::Xdp);
        native.map(|taken| taken.traffic.frames).sum()
    };
    let before = redirected();
    rig.programs.xdp_live(&frame.bytes, rig.ifindex(INGRESS));
    redirected() != before
}

fn receives(rig: &Rig, tap: usize, length: usize) -> (VnetHeader, Vec<u8>) {
    let received = rig.taps[tap].receive(PATIENCE).expect("read a tap");
    received.unwrap_or_else(|| panic!("a frame of {length} bytes did not arrive"))
}

fn arrives(rig: &Rig, frame: &Frame) {
    let (header, bytes) = receives(rig, 1, frame.bytes.len());
    assert_eq!(bytes, frame.leaves_xdp);
    assert!(!header.needs_checksum(), "native frames lose their metadata");
}

/// Both hooks' counters: what tcx carries, and what it leaves to the bridge.
fn passed() {
    let mut rig = rig();
    let ifindex = rig.ifindex(INGRESS);
    for (frame, at, xdp, tcx) in [
        (frames::fragment(), vec![1], Reason::Checksum, None),
        (frames::arp(), vec![1], Reason::Protocol, Some(Reason::Protocol)),
        (
            frames::to(crate::rig::UNKNOWN),
            vec![1, 2],
            Reason::DestinationUnknown,
            Some(Reason::DestinationUnknown),
        ),
    ] {
        rig.programs.clear();
        rig.programs.xdp_live(&frame.bytes, ifindex);
        for tap in at {
            assert_eq!(receives(&rig, tap, frame.bytes.len()).1, frame.bytes);
        }
        let counters = rig.programs.counters()[&ifindex];
        let one = Traffic {
            frames: 1,
            bytes: frame.bytes.len() as u64,
        };
        assert_eq!(counters.left[Hook::Xdp as usize][xdp as usize], 1);
        let taken: Vec<_> = rig
            .programs
            .taken()
            .iter()
            .map(|taken| (taken.via, taken.traffic))
            .collect();
        if let Some(reason) = tcx {
            assert_eq!(counters.left[Hook::Tcx as usize][reason as usize], 1);
            assert_eq!((counters.left_traffic, taken), (one, vec![]));
        } else {
            assert_eq!(
                (counters.left_traffic, taken),
                (Traffic::default(), vec![(Hook::Tcx, one)])
            );
        }
    }
}

/// A test run leaves the tag in the data; the kernel moves it to the metadata before tcx.
fn tag_in_the_metadata() {
    let mut rig = rig();
    let ifindex = rig.ifindex(INGRESS);
    for (tag, longest) in [(Tag::None, 1518), (Tag::Customer, 1522), (Tag::Service, 1522)] {
        for length in 1510..1530 {
            rig.programs.clear();
            let frame = of_length(tag, length);
            let sent = rig.taps[INGRESS].send(&VnetHeader::none(), &frame.bytes);
            sent.expect("write to a tap");
            let one = Traffic {
                frames: 1,
                bytes: length as u64,
            };
            let counters = rig.programs.counters()[&ifindex];
            let taken = rig.programs.taken();
            if length <= longest {
                assert_eq!(receives(&rig, 1, length).1, frame.bytes);
                let [taken] = taken[..] else {
                    panic!("{tag:?}, {length} bytes: {taken:?}")
                };
                assert_eq!(
                    (taken.via, taken.traffic),
                    (Hook::Tcx, one),
                    "{tag:?}, {length} bytes"
                );
            } else {
                let left = counters.left[Hook::Tcx as usize][Reason::EgressMtu as usize];
                assert_eq!((left, counters.left_traffic), (1, one), "{tag:?}, {length} bytes");
                // The bridge drops it too (`is_skb_forwardable`).
                assert_eq!(rig.taps[1].drain().expect("read a tap"), 0);
            }
        }
    }
}

/// `skb_vlan_untag` drops frames that end within two bytes behind their tag.
fn cut_behind_its_tag() {
    let mut rig = rig();
    let ifindex = rig.ifindex(INGRESS);
    for tag in [Tag::Customer, Tag::Service] {
        for length in 14..=20 {
            rig.programs.clear();
            rig.programs.xdp_live(&frames::cut(tag, length).bytes, ifindex);
            let counters = rig.programs.counters()[&ifindex];
            let short = counters.left[Hook::Xdp as usize][Reason::TooShort as usize];
            let [met_by_tcx, too_short] = if length < 20 { [0, 1] } else { [1, 0] };
            let taken: u64 = rig
                .programs
                .taken()
                .iter()
                .map(|taken| taken.traffic.frames)
                .sum();
            assert_eq!(
                (counters.left_traffic.frames + taken, short),
                (met_by_tcx, too_short),
                "{tag:?}, {length} bytes"
            );
            rig.taps[1].drain().expect("read a tap");
        }
    }
}
