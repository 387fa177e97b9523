//! What the programs remember of one frame when the next one comes, in the same tick of the kernel's clock.

use std::{thread, time::Duration};

use tapbridge::common::{counters::DropReason, mac::Mac, port::flag};

use crate::{
    Test,
    bench::{Bench, INGRESS, ON_0, ON_1, UNKNOWN, untagged},
    cases::{TC_ACT_REDIRECT, TC_ACT_SHOT, XDP_PASS, XDP_REDIRECT},
    frames::{between, usual},
    switch::Frames,
};

pub const TESTS: &[Test] = &[
    ("xdp_remembers_a_flow_until_the_next_tick", || {
        until_the_next_tick(XDP, XDP_REDIRECT, XDP_PASS);
    }),
    ("tcx_remembers_a_flow_until_the_next_tick", || {
        until_the_next_tick(TCX, TC_ACT_REDIRECT, TC_ACT_SHOT);
    }),
    ("xdp_follows_an_address_that_has_just_moved", || {
        follows(XDP, XDP_REDIRECT);
    }),
    ("tcx_follows_an_address_that_has_just_moved", || {
        follows(TCX, TC_ACT_REDIRECT);
    }),
    (
        "an_address_that_comes_back_is_learned_at_once_though_it_was_known_there",
        comes_back,
    ),
    (
        "a_station_that_has_just_been_flooded_to_is_found_when_it_answers",
        answers,
    ),
    ("xdp_looks_at_ports_and_devices_for_every_frame", || {
        looks(XDP, XDP_REDIRECT, &[XDP_PASS; 4]);
    }),
    ("tcx_looks_at_ports_and_devices_for_every_frame", || {
        looks(TCX, TC_ACT_REDIRECT, &[TC_ACT_SHOT; 4]);
    }),
    (
        "a_frame_to_a_station_on_a_port_that_has_just_changed_is_counted",
        counted,
    ),
];

/// A tick may pass between two frames: often enough it does not.
const TIMES: usize = 50;
/// Longer than the longest tick (`CONFIG_HZ=100`), twice.
const TICKS: Duration = Duration::from_millis(20);

/// Runs a frame that came in by a slot; answers with the program's return code.
type Run = fn(&Bench, &[u8], u32) -> u32;

const XDP: Run = |bench, frame, slot| bench.switch.xdp(frame, bench.tap(slot).ifindex()).code;
const TCX: Run = |bench, frame, slot| bench.switch.tcx(frame, bench.tap(slot).ifindex(), 0).code;

/// Frames that went from slot 0 to another.
fn forwarded(bench: &Bench, to: u32) -> u64 {
    let paths = bench.switch.paths().into_iter();
    paths
        .filter(|path| path.from == INGRESS && path.to == to)
        .map(|path| path.traffic.frames)
        .sum()
}

fn until_the_next_tick(run: Run, forwards: u32, does_not: u32) {
    let mut bench = Bench::new(Frames::Native);
    let frame = usual().octets;
    let mut remembered = 0;
    for _ in 0..TIMES {
        bench.reset();
        assert_eq!(run(&bench, &frame, INGRESS), forwards);
        bench.switch.unlearn_silently(untagged(ON_1));
        remembered += usize::from(run(&bench, &frame, INGRESS) == forwards);
        thread::sleep(TICKS);
        assert_eq!(run(&bench, &frame, INGRESS), does_not);
    }
    assert_ne!(remembered, 0, "every frame is looked up anew");
}

fn follows(run: Run, forwards: u32) {
    let mut bench = Bench::new(Frames::Native);
    let frame = usual().octets;
    for _ in 0..TIMES {
        bench.reset();
        assert_eq!(run(&bench, &frame, INGRESS), forwards);
        assert_eq!(run(&bench, &between(ON_1, ON_0).octets, 2), forwards);
        assert_eq!(run(&bench, &frame, INGRESS), forwards);
        assert_eq!([1, 2].map(|slot| forwarded(&bench, slot)), [1, 1]);
    }
}

fn comes_back() {
    let mut bench = Bench::new(Frames::Native);
    let frame = usual().octets;
    for _ in 0..TIMES {
        bench.reset();
        for (slot, moved) in [(INGRESS, 0), (2, 1), (INGRESS, 1)] {
            TCX(&bench, &frame, slot);
            assert_eq!(bench.switch.counters(slot).moved, moved, "slot {slot}");
        }
        assert_eq!(bench.switch.learned()[&untagged(ON_0)].slot, 0);
    }
}

fn answers() {
    let mut bench = Bench::new(Frames::Native);
    let ask = between(ON_0, UNKNOWN).octets;
    for _ in 0..TIMES {
        bench.reset();
        for _ in 0..2 {
            assert_eq!(TCX(&bench, &ask, INGRESS), TC_ACT_SHOT);
        }
        assert_eq!(bench.switch.counters(INGRESS).flooded.frames, 2);
        assert_eq!(TCX(&bench, &between(UNKNOWN, ON_0).octets, 2), TC_ACT_REDIRECT);
        assert_eq!(TCX(&bench, &ask, INGRESS), TC_ACT_REDIRECT);
        assert_eq!(forwarded(&bench, 2), 1);
    }
}

/// Changes that no command tells the programs of.
const CHANGES: [fn(&mut Bench); 4] = [
    |bench| bench.change_port(1, |port| port.flags &= !flag::ACTIVE),
    |bench| bench.change_port(1, |port| port.generation += 1),
    |bench| bench.change(|bench| bench.tap(1).down().expect("set a tap down")),
    |bench| bench.change(|bench| bench.tap(1).set_mtu(100).expect("set an MTU")),
];

fn looks(run: Run, forwards: u32, codes: &[u32; CHANGES.len()]) {
    let mut bench = Bench::new(Frames::Native);
    let frame = usual().octets;
    for (change, &code) in CHANGES.into_iter().zip(codes) {
        for _ in 0..TIMES / 5 {
            bench.reset();
            assert_eq!(run(&bench, &frame, INGRESS), forwards);
            change(&mut bench);
            assert_eq!(run(&bench, &frame, INGRESS), code);
            assert_eq!(forwarded(&bench, 1), 1);
        }
    }
}

fn counted() {
    let mut bench = Bench::new(Frames::Native);
    let frame = between(Mac(ON_0.0), ON_1).octets;
    let reasons = [
        None,
        None,
        Some(DropReason::EgressDown),
        Some(DropReason::EgressMtu),
    ];
    for (change, reason) in CHANGES.into_iter().zip(reasons) {
        bench.reset();
        TCX(&bench, &frame, INGRESS);
        change(&mut bench);
        TCX(&bench, &frame, INGRESS);
        let counters = bench.switch.counters(INGRESS);
        assert_eq!(counters.received.frames, 2);
        assert_eq!(counters.flooded.frames, u64::from(reason.is_none()));
        if let Some(reason) = reason {
            assert_eq!(counters.dropped[reason as usize], 1, "{}", reason.name());
        }
    }
}
