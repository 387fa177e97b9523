//! What both programs write down of a frame's source.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use tapbridge::common::{decision::Lesson, layout::MAX_LEARNED, mac::Mac};

use crate::{
    Test,
    bench::{Bench, INGRESS, ON_0, UNKNOWN, entry, untagged},
    cases::{Case, Goes, check_tcx, check_xdp},
    frames::{self, usual},
    switch::{AGEING, Frames, SECOND},
};

pub const TESTS: &[Test] = &[
    ("xdp_learns_from_the_frames_that_it_forwards", || {
        check_xdp(&cases());
    }),
    ("tcx_learns_from_the_frames_that_it_forwards", || {
        check_tcx(&cases());
    }),
    ("xdp_learns_nothing_from_the_frames_that_it_passes_up", || {
        check_xdp(&flooded());
    }),
    ("tcx_learns_from_the_frames_that_it_floods", || {
        check_tcx(&flooded());
    }),
    (
        "as_many_addresses_are_known_as_a_bridge_is_said_to_hold_whichever_cpus_learn_them",
        full,
    ),
];

fn cases() -> Vec<Case> {
    let case = |description, lesson, frame| Case::new(description, Goes::To(1), frame).teaches(lesson);
    vec![
        case("a new address", Lesson::Learn, frames::from(UNKNOWN)),
        case("a known one, just seen", Lesson::Nothing, usual()),
        case("a known one, not seen for a while", Lesson::Refresh, usual())
            .given(|bench| bench.learn(ON_0, 0, 2 * SECOND)),
        case("an expired one on the same port", Lesson::Refresh, usual())
            .given(|bench| bench.learn(ON_0, 0, AGEING + SECOND)),
        case("one that was on another port", Lesson::Move, usual()).given(|bench| bench.learn(ON_0, 2, 0)),
        case("one of an earlier port in the slot", Lesson::Move, usual()).given(|bench| {
            let mut earlier = entry(0, 0);
            earlier.generation -= 1;
            bench.switch.learn(untagged(ON_0), earlier);
        }),
        case("an expired one of another port", Lesson::Learn, usual())
            .given(|bench| bench.learn(ON_0, 2, AGEING + SECOND)),
        case("a static one on its port", Lesson::Nothing, frames::from(UNKNOWN))
            .given(|bench| bench.fix(UNKNOWN, 0)),
        case(
            "a static one on another port",
            Lesson::Nothing,
            frames::from(UNKNOWN),
        )
        .given(|bench| bench.fix(UNKNOWN, 2)),
    ]
}

fn flooded() -> Vec<Case> {
    let case = |description, lesson, source| {
        let frame = frames::between(source, Mac([0xff; 6]));
        Case::new(description, Goes::ToAll(&[1, 2]), frame).teaches(lesson)
    };
    vec![
        case("a new address", Lesson::Learn, UNKNOWN),
        case("one that was on another port", Lesson::Move, ON_0).given(|bench| bench.learn(ON_0, 2, 0)),
        case("one not seen for a while", Lesson::Refresh, ON_0)
            .given(|bench| bench.learn(ON_0, 0, 2 * SECOND)),
    ]
}

fn full() {
    let bench = Bench::unshared(Frames::Generic);
    let cpus = sched_getaffinity(Pid::from_raw(0)).expect("the thread's CPUs");
    let mut usable = (0..CpuSet::count())
        .filter(|&cpu| cpus.is_set(cpu) == Ok(true))
        .cycle();
    let ifindex = bench.tap(INGRESS).ifindex();
    let known = bench.switch.learned().len();
    let mut frame = frames::usual().octets;
    for (number, _) in (0_u32..).zip(known..MAX_LEARNED as usize) {
        if number % 1000 == 0 {
            let mut cpu = CpuSet::new();
            cpu.set(usable.next().expect("a CPU"))
                .expect("one of the kernel's");
            sched_setaffinity(Pid::from_raw(0), &cpu).expect("move to another CPU");
        }
        frame[8..12].copy_from_slice(&number.to_be_bytes());
        frame[7] = 0xee;
        bench.switch.tcx(&frame, ifindex, 0);
    }
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("let go of the CPU");
    assert_eq!(bench.switch.learned().len(), MAX_LEARNED as usize);
}
