//! Frames for all other ports: tcx sends a copy to each; XDP leaves that to tcx.

use tapbridge::common::{
    counters::{PortCounters, Traffic},
    decision::Lesson,
    fdb::FdbEntry,
    mac::Mac,
    port::flag,
};

use crate::{
    Test,
    bench::{Bench, INGRESS, ON_1, UNKNOWN, entry, untagged},
    cases::{Case, Goes, TC_ACT_REDIRECT, check_tcx, check_xdp},
    frames::{self, partial, usual},
    packet::Shape,
    switch::{AGEING, Frames, SECOND},
};

pub const TESTS: &[Test] = &[
    ("xdp_leaves_frames_for_all_to_tcx", || check_xdp(&cases())),
    ("tcx_sends_a_copy_to_every_other_port_that_is_up", || {
        check_tcx(&cases());
    }),
    (
        "a_copy_that_the_kernel_refuses_is_counted_as_an_error",
        refused_copy,
    ),
];

const BROADCAST: Mac = Mac([0xff; 6]);
const BOTH: Goes = Goes::ToAll(&[1, 2]);
const ONE: Goes = Goes::ToAll(&[2]);

fn cases() -> Vec<Case> {
    let flooded = |description, frame| Case::new(description, BOTH, frame);
    let to_one = |description, frame| Case::new(description, ONE, frame);
    let mut cases = vec![
        flooded("broadcast", frames::to(BROADCAST)),
        flooded("multicast", frames::to(Mac([0x33, 0x33, 0, 0, 0, 1]))),
        flooded(
            "the group behind the link-local ones",
            frames::to(Mac([0x01, 0x80, 0xc2, 0, 0, 0x10])),
        ),
        flooded("to an unknown station", frames::to(UNKNOWN)),
        flooded("from a new station", frames::between(UNKNOWN, BROADCAST)).teaches(Lesson::Learn),
        flooded("to an expired address", usual()).given(|bench| bench.learn(ON_1, 1, AGEING + SECOND)),
        flooded("to the address of an earlier port in the slot", usual())
            .given(|bench| bench.change_port(1, |port| port.generation += 1)),
        flooded(
            "to the static address of an earlier port in the slot",
            frames::to(UNKNOWN),
        )
        .given(|bench| {
            bench.fix(UNKNOWN, 2);
            bench.change_port(2, |port| port.generation += 1);
        }),
        flooded("to an address on an empty slot", usual()).given(|bench| {
            let empty = FdbEntry {
                generation: 0,
                ..entry(3, 0)
            };
            bench.switch.learn(untagged(ON_1), empty);
        }),
        flooded("to an address on a slot that is none", usual()).given(|bench| bench.learn(ON_1, 5, 0)),
        to_one("to a port whose device is gone", usual()).given(|bench| bench.remove_tap(1)),
        to_one("to a port that is being attached", usual())
            .given(|bench| bench.change_port(1, |port| port.flags = flag::UNFINISHED)),
        to_one("with a port that is down", frames::to(BROADCAST))
            .given(|bench| bench.tap(1).down().expect("set a tap down")),
        to_one("with a tap that nobody reads", frames::to(BROADCAST)).given(|bench| bench.exit_vmm(1)),
        Case::new(
            "with a port past the slots in use",
            Goes::ToAll(&[1]),
            frames::to(BROADCAST),
        )
        .given(|bench| bench.switch.set_slots_in_use(2)),
    ];
    for shape in Shape::all() {
        let mut frame = partial(shape, 100);
        frame.octets[..6].fill(0xff);
        cases.push(flooded("broadcast of every shape", frame));
    }
    cases
}

fn refused_copy() {
    let mut bench = Bench::new(Frames::Generic);
    // The port's device is there, but under another index than the port's.
    bench.change_port(1, |port| port.ifindex = 9999);
    let frame = frames::to(BROADCAST).octets;
    let ran = bench.switch.tcx(&frame, bench.tap(INGRESS).ifindex(), 0);
    assert_eq!(ran.code, TC_ACT_REDIRECT);
    let one = Traffic {
        frames: 1,
        bytes: frame.len() as u64,
    };
    let [ingress, refused, taken] = [0, 1, 2].map(|slot| bench.switch.counters(slot));
    assert_eq!((ingress.received, ingress.flooded), (one, one));
    assert_eq!(
        refused,
        PortCounters {
            flood_errors: 1,
            ..PortCounters::default()
        }
    );
    assert_eq!(
        taken,
        PortCounters {
            flood_copies: one,
            ..PortCounters::default()
        }
    );
}
