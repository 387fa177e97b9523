//! What the programs may cost.

use crate::{
    Test,
    switch::{Frames, Switch},
};

/// Instructions that the verifier may go through, of the million that it takes at most: as many as it was when this
/// was written, and a tenth. Who needs more says why.
const VERIFIED_INSTRUCTIONS: [(&str, u32); 2] = [("XDP", 125_000), ("tcx", 29_000)];

pub const TESTS: &[Test] = &[(
    "the_verifier_goes_through_no_more_instructions_than_budgeted",
    verified,
)];

fn verified() {
    let verified = Switch::load(Frames::Generic).verified_instructions();
    println!("verified instructions: {verified:?}");
    for ((program, budget), verified) in VERIFIED_INSTRUCTIONS.into_iter().zip(verified) {
        assert!(
            verified <= budget,
            "{program}: {verified} instructions, budget {budget}"
        );
    }
}
