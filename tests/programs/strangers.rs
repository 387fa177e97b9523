//! Frames of devices that are no ports, which the programs meet while a port is attached or detached.

use tapbridge::common::counters::PortCounters;

use crate::{
    Test,
    bench::{Bench, INGRESS, UNKNOWN},
    cases::{TC_ACT_SHOT, XDP_PASS},
    frames,
    switch::{Frames, SLOTS},
};

pub const TESTS: &[Test] = &[
    ("xdp_passes_frames_of_a_device_that_is_no_port_up", || {
        no_port(XDP_PASS, |bench, frame, ifindex| {
            bench.switch.xdp(frame, ifindex).code
        });
    }),
    ("tcx_drops_frames_of_a_device_that_is_no_port", || {
        no_port(TC_ACT_SHOT, |bench, frame, ifindex| {
            bench.switch.tcx(frame, ifindex, 0).code
        });
    }),
];

fn no_port(code: u32, run: fn(&Bench, &[u8], u32) -> u32) {
    let mut bench = Bench::new(Frames::Native);
    let ifindex = bench.tap(INGRESS).ifindex();
    bench.switch.leave(ifindex);
    let learned = bench.switch.learned();
    for frame in [frames::usual(), frames::to(UNKNOWN), frames::from(UNKNOWN)] {
        assert_eq!(run(&bench, &frame.octets, ifindex), code);
    }
    for slot in 0..SLOTS {
        assert_eq!(bench.switch.counters(slot), PortCounters::default());
    }
    assert_eq!(bench.switch.paths(), []);
    assert_eq!(bench.switch.learned(), learned);
    for (slot, tap) in bench.taps() {
        assert_eq!(tap.drain().expect("read a tap"), 0, "slot {slot}");
    }
}
