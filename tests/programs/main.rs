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
mod model;
mod negative_cache;
#[path = "../../bridge-common/tests/logic/packet.rs"]
mod packet;
mod programs;
mod rig;
mod vlans;

use std::{
    fs,
    process::{Command, ExitCode},
};

use lab::netns;
use libtest_mimic::{Arguments, Trial};

/// The sentence it proves, and the proof.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lacking = lacking();
    let vlans = lacking.or_else(|| {
        (!netns::can_filter_vlans().is_ok_and(|can| can)).then_some("a bridge that filters VLANs")
    });
    let trials = [
        trials(forwarding::TESTS, lacking),
        trials(left::TESTS, lacking),
        trials(negative_cache::TESTS, lacking),
        trials(limits::TESTS, lacking),
        trials(vlans::TESTS, vlans),
        trials(generic::TESTS, lacking),
        trials(live::TESTS, lacking),
        trials(equivalence::TESTS, lacking),
        trials(budgets::TESTS, lacking),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

fn trials(tests: &[Test], lacking: Option<&str>) -> Vec<Trial> {
    let trial = |&(name, test): &Test| {
        let name = lacking.map_or_else(|| name.into(), |what| format!("{name} (ignored: needs {what})"));
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(lacking.is_some())
    };
    tests.iter().map(trial).collect()
}

/// What the machine lacks for loading programs, for taps and for other devices.
fn lacking() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root");
    }
    if fs::metadata("/dev/net/tun").is_err() {
        return Some("/dev/net/tun");
    }
    ["ip", "bridge", "tc", "nft"]
        .into_iter()
        .find(|program| Command::new(program).arg("-V").output().is_err())
}
