//! Both programs on the real kernel and a real bridge, frame by frame, through `BPF_PROG_TEST_RUN`. Where the machine lacks what that
//! needs the tests are ignored, and say so.

mod budgets;
mod cases;
mod context;
mod equivalence;
mod forwarding;
mod frames;
mod generic;
mod left;
mod limits;
mod listener;
mod live;
mod many_ports;
mod model;
mod negative_cache;
mod observed;
#[path = "../../bridge-common/tests/logic/packet.rs"]
mod packet;
mod programs;
mod rig;
mod vlans;

use std::process::ExitCode;

use lab::netns;
use libtest_mimic::Arguments;
pub use test_support::Test;
use test_support::{lacking, trials};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lacking = lacking(&["ip", "bridge", "tc", "nft"]);
    let lacking = lacking.as_deref();
    let vlans = lacking.or_else(|| {
        (!netns::can_filter_vlans().is_ok_and(|can| can)).then_some("needs a bridge that filters VLANs")
    });
    let trials = [
        trials("", forwarding::TESTS, lacking),
        trials("", left::TESTS, lacking),
        trials("", negative_cache::TESTS, lacking),
        trials("", limits::TESTS, lacking),
        trials("", vlans::TESTS, vlans),
        trials("", generic::TESTS, lacking),
        trials("", live::TESTS, lacking),
        trials("", equivalence::TESTS, lacking),
        trials("", many_ports::TESTS, lacking),
        trials("", observed::TESTS, lacking),
        trials("", budgets::TESTS, lacking),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
