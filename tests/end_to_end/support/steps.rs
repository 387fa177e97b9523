//! A command that is killed, or that the kernel refuses something, at one of its steps: `strace` does it as the command asks.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{
    program::{LIMIT, Output, happens, run},
    switch::Switch,
};

/// What the tests of this need.
pub const PROGRAM: &str = "strace";

/// Of bpf(2) those commands that only read: who fails at one has changed as much as who fails at what comes next.
const READING: &[&str] = &[
    "BPF_OBJ_GET",
    "BPF_OBJ_GET_INFO_BY_FD",
    "BPF_MAP_LOOKUP_ELEM",
    "BPF_MAP_LOOKUP_BATCH",
    "BPF_MAP_GET_NEXT_KEY",
];

/// By which commands change something; what follows a question mark some processors' kernels lack.
const CALLS: &str = "bpf,?mkdir,mkdirat,renameat2,?unlink,unlinkat,?rmdir";

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The command is killed before the kernel does what it asks.
    Killed,
    /// The kernel has no memory for it.
    Refused,
    /// It has none from then on.
    AllRefused,
}

/// A system call of a command's main thread.
#[derive(Debug)]
pub struct Step {
    pub call: String,
    /// How many of this name it is.
    number: usize,
    /// How its arguments begin.
    what: String,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} ({})", self.call, self.number, self.what)
    }
}

/// The steps by which a command changes something. Of calls in succession that do the same the first and the last are steps.
///
/// `ready` waits, if the command does not end by itself, until it has done what it is to do, and ends it.
pub fn steps(switch: &Switch, words: &str, ready: impl FnOnce(Child)) -> Vec<Step> {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let mut command = traced(switch, words, &log, None);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    ready(command.spawn().expect("start strace"));
    let mut said = String::new();
    // It writes its last line after the command has ended.
    let has_ended = happens(LIMIT, || {
        said = fs::read_to_string(&log).unwrap_or_default();
        said.lines().any(|line| line.starts_with("+++ "))
    });
    assert!(has_ended, "strace says no end of '{words}' in {LIMIT:?}: {said}");
    parse(&said)
}

fn parse(log: &str) -> Vec<Step> {
    let mut numbers = BTreeMap::<&str, usize>::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut repeated = false;
    for line in log.lines() {
        let Some((call, arguments)) = line.split_once('(') else {
            continue;
        };
        let number = numbers.entry(call).or_default();
        *number += 1;
        // Of bpf(2) the command.
        let what = arguments.split([',', ')']).next().unwrap_or_default();
        if READING.contains(&what) {
            continue;
        }
        let step = Step {
            call: call.into(),
            number: *number,
            what: what.into(),
        };
        let is_same = steps
            .last()
            .is_some_and(|last| (&last.call, &last.what) == (&step.call, &step.what));
        if is_same && repeated {
            steps.pop();
        }
        repeated = is_same;
        steps.push(step);
    }
    steps
}

/// Runs a command to its end, with a fault at a step.
pub fn run_with(switch: &Switch, words: &str, step: &Step, fault: Fault) -> Output {
    run(command_with(switch, words, step, fault))
}

/// A command with a fault at a step, which the process that is started runs itself.
pub fn command_with(switch: &Switch, words: &str, step: &Step, fault: Fault) -> Command {
    let what = match fault {
        Fault::Killed => "signal=KILL",
        Fault::Refused | Fault::AllRefused => "error=ENOMEM",
    };
    let further = if fault == Fault::AllRefused { "+" } else { "" };
    let inject = format!("inject={}:{what}:when={}{further}", step.call, step.number);
    traced(switch, words, Path::new("/dev/null"), Some(&inject))
}

/// The main thread alone: what is loaded is tried out on others, whose calls are not to be counted.
fn traced(switch: &Switch, words: &str, log: &Path, inject: Option<&str>) -> Command {
    let command = switch.command(words);
    let mut strace = Command::new(PROGRAM);
    // The process is the command's own, as without it.
    strace
        .args(["-D", "-q", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(log);
    if let Some(inject) = inject {
        strace.args(["-e", inject]);
    }
    strace.arg(command.get_program()).args(command.get_args());
    strace
}
