//! Tests of the lab on the real kernel. Where the machine lacks what they need they are ignored, and say so.

mod devices;
mod pump;
mod run;

use std::{
    fs,
    process::{Command, ExitCode},
    time::Duration,
};

use libtest_mimic::{Arguments, Trial};

/// The sentence it proves, and the proof.
type Test = (&'static str, fn());

/// Long enough for a frame to arrive on a busy machine.
const SECOND: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let devices = lacking(&["ip"]);
    let programs = lacking(&["ip", "iperf3", "sockperf"]);
    let trials = [
        trials(devices::TESTS, devices.as_deref()),
        trials(pump::TESTS, devices.as_deref()),
        trials(run::TESTS, programs.as_deref()),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

fn trials(tests: &[Test], lacking: Option<&str>) -> Vec<Trial> {
    let trial = |&(name, test): &Test| {
        let name = lacking.map_or_else(|| name.into(), |what| format!("{name} (ignored: {what})"));
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(lacking.is_some())
    };
    tests.iter().map(trial).collect()
}

/// What the machine lacks for taps and namespaces, and for the programs.
fn lacking(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".into());
    }
    if fs::metadata("/dev/net/tun").is_err() {
        return Some("needs /dev/net/tun".into());
    }
    let missing = programs
        .iter()
        .find(|program| Command::new(program).arg("--version").output().is_err())?;
    Some(format!("needs {missing}"))
}
