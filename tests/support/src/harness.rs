//! Tests that are no functions of Rust's own harness, since where the machine lacks what they need they are ignored, and
//! say so.

use std::{
    fs,
    process::Command,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
use nix::unistd::geteuid;

/// After this time a test that still runs is named, as Rust's own harness does: it may hang.
const LONG: Duration = Duration::from_mins(1);

/// The sentence it proves, and the proof.
pub type Test = (&'static str, fn());

/// Names tests after the functions that prove them.
#[macro_export]
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        pub const TESTS: &[$crate::Test] = &[$((stringify!($test), $test)),*];
    };
}

/// Tests of a subject, which is part of their names unless it is empty; ignored if the machine lacks something, such as
/// "needs root".
pub fn trials(subject: &str, tests: &[Test], lacking: Option<&str>) -> Vec<Trial> {
    let subject = if subject.is_empty() {
        String::new()
    } else {
        format!("{subject}::")
    };
    let trial = |&(name, test): &Test| {
        let reason = lacking
            .map(|what| format!(" (ignored: {what})"))
            .unwrap_or_default();
        let run = move || {
            let (end, ended) = mpsc::channel::<()>();
            thread::spawn(move || {
                if ended.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
                    eprintln!("test {name} has been running for over {} seconds", LONG.as_secs());
                }
            });
            test();
            drop(end);
            Ok(())
        };
        Trial::test(format!("{subject}{name}{reason}"), run).with_ignored_flag(lacking.is_some())
    };
    tests.iter().map(trial).collect()
}

/// What the machine lacks for taps and namespaces, and of programs.
pub fn lacking(programs: &[&str]) -> Option<String> {
    if !geteuid().is_root() {
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
