//! Both programs on the real kernel, frame by frame, through `BPF_PROG_TEST_RUN`. Where the machine lacks what that
//! needs the tests are ignored, and say so.

mod bench;
mod budgets;
mod cases;
mod context;
mod equivalence;
mod flooding;
mod forwarding;
mod frames;
mod generic;
mod learning;
mod limits;
mod live;
mod nowhere;
#[path = "../../bridge-common/tests/logic/packet.rs"]
mod packet;
mod recent;
mod shared;
mod strangers;
mod switch;

use std::{
    fs,
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Trial};

/// The sentence it proves, and the proof.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lacking = lacking();
    let tests = [
        forwarding::TESTS,
        flooding::TESTS,
        nowhere::TESTS,
        limits::TESTS,
        learning::TESTS,
        generic::TESTS,
        strangers::TESTS,
        live::TESTS,
        recent::TESTS,
        equivalence::TESTS,
        budgets::TESTS,
    ];
    let trial = |&(name, test): &Test| {
        let name = lacking.map_or_else(|| name.into(), |what| format!("{name} (ignored: needs {what})"));
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(lacking.is_some())
    };
    libtest_mimic::run(&arguments, tests.concat().iter().map(trial).collect()).exit_code()
}

/// What the machine lacks for loading programs, for taps and for other devices.
fn lacking() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root");
    }
    if fs::metadata("/dev/net/tun").is_err() {
        return Some("/dev/net/tun");
    }
    Command::new("ip").arg("-V").output().is_err().then_some("ip")
}
