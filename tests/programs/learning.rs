//! What both programs write down of a frame's source.

use tapbridge::common::{decision::Lesson, mac::Mac};

use crate::{
    Test,
    bench::{ON_0, UNKNOWN, entry, untagged},
    cases::{Case, Goes, check_tcx, check_xdp},
    frames::{self, usual},
    switch::{AGEING, SECOND},
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
