//! What the programs may cost.

use tapbridge::syscalls::{Selection, counter::Counter};

use crate::{
    Test,
    switch::{Frames, Switch},
};

/// Instructions that the verifier may go through, of the million that it takes at most: as many as it was when this
/// was written, and a tenth. Who needs more says why.
const VERIFIED_INSTRUCTIONS: [(&str, u32); 4] = [
    ("XDP", 63_000),
    ("tcx", 27_000),
    ("sys_enter, by process", 630),
    ("sys_enter, by name", 460),
];

pub const TESTS: &[Test] = &[(
    "the_verifier_goes_through_no_more_instructions_than_budgeted",
    verified,
)];

fn verified() {
    let [xdp, tcx] = Switch::load(Frames::Generic).verified_instructions();
    let verified = [
        xdp,
        tcx,
        counter(&Selection::Processes(vec![1])),
        counter(&Selection::Names(vec!["init".into()])),
    ];
    println!("verified instructions: {verified:?}");
    for ((program, budget), verified) in VERIFIED_INSTRUCTIONS.into_iter().zip(verified) {
        assert!(
            verified <= budget,
            "{program}: {verified} instructions, budget {budget}"
        );
    }
}

fn counter(selection: &Selection) -> u32 {
    let mut counter = Counter::load(selection).expect("load the counter of system calls");
    let program = counter.program().expect("the program");
    let info = program.info().expect("information on a program");
    info.verified_instruction_count().expect("a kernel from 5.16 on")
}
