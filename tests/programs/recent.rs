//! What the programs remember of one frame when the next one comes, in the same tick of the kernel's clock.

use std::{thread, time::Duration};

use tapbridge::common::{counters::DropReason, mac::Mac, port::flag};

use crate::{
    Test,
    bench::{Bench, INGRESS, ON_0, ON_1, UNKNOWN, untagged},
    frames::{between, usual},
    switch::Frames,
};

pub const TESTS: &[Test] = &[
    ("xdp_remembers_a_flow_until_the_next_tick", || {
        until_the_next_tick(xdp);
    }),
    ("tcx_remembers_a_flow_until_the_next_tick", || {
        until_the_next_tick(tcx);
    }),
    ("xdp_follows_an_address_that_has_just_moved", || follows(XDP)),
    ("tcx_follows_an_address_that_has_just_moved", || follows(TCX)),
    (
        "an_address_that_comes_back_is_learned_at_once_though_it_was_known_there",
        comes_back,
    ),
    (
        "a_station_that_has_just_been_flooded_to_is_found_when_it_answers",
        answers,
    ),
    ("xdp_looks_at_ports_and_devices_for_every_frame", || {
        looks(XDP);
    }),
    ("tcx_looks_at_ports_and_devices_for_every_frame", || {
        looks(TCX);
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

/// Runs a frame that came in by a slot; says whether it went to one port.
type Run = fn(&Bench, &[u8], u32) -> bool;

const XDP: Run = |bench, frame, slot| goes_to_one(bench, || xdp(bench, frame, slot));
const TCX: Run = |bench, frame, slot| goes_to_one(bench, || tcx(bench, frame, slot));

fn xdp(bench: &Bench, frame: &[u8], slot: u32) {
    bench.switch.xdp(frame, bench.tap(slot).ifindex());
}

fn tcx(bench: &Bench, frame: &[u8], slot: u32) {
    bench.switch.tcx(frame, bench.tap(slot).ifindex(), 0);
}

fn goes_to_one(bench: &Bench, run: impl FnOnce()) -> bool {
    let frames = || -> u64 { bench.switch.paths().iter().map(|path| path.traffic.frames).sum() };
    let before = frames();
    run();
    frames() != before
}

/// Frames that went from slot 0 to another.
fn forwarded(bench: &Bench, to: u32) -> u64 {
    let paths = bench.switch.paths().into_iter();
    paths
        .filter(|path| path.from == INGRESS && path.to == to)
        .map(|path| path.traffic.frames)
        .sum()
}

fn until_the_next_tick(run: fn(&Bench, &[u8], u32)) {
    let mut bench = Bench::new(Frames::Native);
    let frame = usual().octets;
    let mut remembered = 0;
    for _ in 0..TIMES {
        bench.reset();
        // Nothing more between the two than it takes, which is long where the kernel's code is translated.
        run(&bench, &frame, INGRESS);
        bench.switch.unlearn_silently(untagged(ON_1));
        run(&bench, &frame, INGRESS);
        let sent = forwarded(&bench, 1);
        assert!([1, 2].contains(&sent), "{sent}");
        remembered += u32::from(sent == 2);
        thread::sleep(TICKS);
        run(&bench, &frame, INGRESS);
        assert_eq!(forwarded(&bench, 1), sent);
    }
    assert_ne!(remembered, 0, "every frame is looked up anew");
}

fn follows(run: Run) {
    let mut bench = Bench::new(Frames::Native);
    let frame = usual().octets;
    for _ in 0..TIMES {
        bench.reset();
        assert!(run(&bench, &frame, INGRESS));
        assert!(run(&bench, &between(ON_1, ON_0).octets, 2));
        assert!(run(&bench, &frame, INGRESS));
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
            assert!(!TCX(&bench, &ask, INGRESS));
        }
        assert_eq!(bench.switch.counters(INGRESS).flooded.frames, 2);
        assert!(TCX(&bench, &between(UNKNOWN, ON_0).octets, 2));
        assert!(TCX(&bench, &ask, INGRESS));
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

fn looks(run: Run) {
    let mut bench = Bench::new(Frames::Native);
    let frame = usual().octets;
    for change in CHANGES {
        for _ in 0..TIMES / 5 {
            bench.reset();
            assert!(run(&bench, &frame, INGRESS));
            change(&mut bench);
            assert!(!run(&bench, &frame, INGRESS));
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
