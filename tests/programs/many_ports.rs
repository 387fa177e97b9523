//! More ports than there are places near.

use tapbridge::{
    common::fastpath::{MAX_PORTS, NEAR_PORTS},
    fastpath::{self, Counters},
};

use crate::Test;

pub const TESTS: &[Test] = &[("ports_that_are_added_in_a_row_all_find_memory", add)];

/// As an upgrade does, as fast as it can: the kernel has a stock for a few elements only, and refills it meanwhile.
fn add() {
    let offsets = fastpath::offsets().expect("the kernel's offsets");
    let mut object = fastpath::load(&offsets).expect("the programs");
    let mut counters = Counters::take(&mut object).expect("the counters");
    for ifindex in 1..=MAX_PORTS {
        let added = counters.add(ifindex);
        added.unwrap_or_else(|error| panic!("port {ifindex} of {MAX_PORTS}, {NEAR_PORTS} near: {error}"));
    }
}
