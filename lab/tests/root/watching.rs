//! `tapbridge run`, which the lab and the bench start where ports choose their hooks: that it does its part, and that it ends.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use lab::Namespace;
use nix::sys::signal::Signal;
use serde_json::Value;
use tapbridge::{
    fastpath::FastPath,
    state::{DEFAULT_STATE, State},
};

use crate::{
    Test, datapaths,
    program::{self, command_line},
    run,
};

pub const TESTS: &[Test] = &[
    (
        "a_lab_without_hook_tells_how_a_bulk_senders_hooks_changed_and_ends_what_watched_them",
        a_lab_tells_changes,
    ),
    (
        "a_measurement_begins_on_the_hooks_of_new_ports_whatever_was_sent_before",
        a_measurement_begins_anew,
    ),
    (
        "an_interrupted_lab_ends_what_watches_its_ports",
        an_interrupted_lab_ends_its_watcher,
    ),
];

/// Processes of `tapbridge run` that a process has started and that have not ended.
fn watchers(parent: u32) -> BTreeSet<u32> {
    program::children(parent).filter(|&id| is_watcher(id)).collect()
}

/// Those of some processes that still watch.
pub fn left(ids: &BTreeSet<u32>) -> Vec<u32> {
    ids.iter().copied().filter(|&id| is_watcher(id)).collect()
}

fn is_watcher(id: u32) -> bool {
    let line = command_line(id);
    let mut words = line.split('\0');
    words
        .next()
        .is_some_and(|program| program.ends_with("/tapbridge"))
        && words.next() == Some("run")
}

/// Runs a program to its end, and looks meanwhile which watchers it has; returns what it saw, one after the other.
pub fn run_to_end(command: &mut Command) -> (Output, Vec<BTreeSet<u32>>) {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("start it");
    let id = child.id();
    let waiting = thread::spawn(move || child.wait_with_output().expect("wait for it"));
    let mut seen = Vec::new();
    while !waiting.is_finished() {
        let watchers = watchers(id);
        if seen.last() != Some(&watchers) && !command_line(id).is_empty() {
            seen.push(watchers);
        }
        thread::sleep(Duration::from_millis(10));
    }
    (waiting.join().expect("no panic"), seen)
}

/// Interrupts a program once it has said something, with one watcher at work; the program ends as after the signal, and
/// the watcher before it. Returns what is to be done before the signal, with the program's id.
pub fn assert_ends_watched<T>(
    command: &mut Command,
    once: &str,
    signal: Signal,
    before: impl FnOnce(u32) -> T,
) -> T {
    let mut run = command.stderr(Stdio::piped()).spawn().expect("start it");
    let mut steps = BufReader::new(run.stderr.take().expect("a pipe")).lines();
    let mut said = Vec::new();
    let there = steps.any(|line| {
        said.push(line.expect("UTF-8"));
        said.last().is_some_and(|line| line.contains(once))
    });
    assert!(there, "{:?}: {said:?}", run.wait());
    let watchers = watchers(run.id());
    assert_eq!(watchers.len(), 1, "{watchers:?}");
    let done = before(run.id());
    program::signal(&run, signal);
    // It must not wait for somebody to read what it says.
    let last: Vec<_> = steps.map_while(Result::ok).collect();
    let status = run.wait().expect("wait for it");
    assert_eq!(status.code(), Some(128 + signal as i32), "{last:?}");
    assert_eq!(left(&watchers), [0; 0]);
    done
}

/// A lab that measures tapbridge.
fn lab(workloads: &str, options: &[&str]) -> Command {
    let mut lab = program::lab("run");
    lab.args(["--datapath", "tapbridge", "--workload", workloads, "--tapbridge"]);
    lab.arg(datapaths::switch()).args(options);
    lab
}

/// The changes of a run by which a bulk sender has come to be without XDP.
fn changes_to_tcx(run: &Value) -> usize {
    let changes = run["hook_changes"].as_array().expect("a list");
    let to_tcx = |change: &&Value| change["ifname"] == "vm1" && change["hooks"] == serde_json::json!(["tcx"]);
    changes.iter().filter(to_tcx).count()
}

fn a_measurement_begins_anew() {
    let _guard = run::beside_others();
    let options = ["--time", "5", "--repeat", "1", "--json"];
    let output = lab("throughput,latency", &options).output().expect("run the lab");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let results: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let runs = results["samples"][0]["runs"].as_array().expect("a list");
    let [throughput, latency] = &runs[..] else {
        panic!("two runs: {runs:?}");
    };
    assert!(changes_to_tcx(throughput) > 0, "{}", throughput["hook_changes"]);
    assert_eq!(latency["hook_changes"], serde_json::json!([]));
    let paths = latency["stats"]["paths"].as_array().expect("a list");
    let by = |via: &str| -> u64 {
        let paths = paths.iter().filter(|path| path["via"] == via);
        paths.map(|path| path["frames"].as_u64().expect("a number")).sum()
    };
    assert!(by("xdp") > 100 && by("tcx") < by("xdp") / 10, "{paths:?}");
}

fn a_lab_tells_changes() {
    let _guard = run::beside_others();
    let (output, seen) = run_to_end(&mut lab(
        "throughput",
        &["--time", "5", "--repeat", "2", "--json"],
    ));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let results: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let samples = results["samples"].as_array().expect("a list");
    assert_eq!(samples.len(), 2);
    for sample in samples {
        assert_eq!(sample["datapath"], "tapbridge");
        let run = &sample["runs"][0];
        assert!(changes_to_tcx(run) > 0, "{}", run["hook_changes"]);
    }
    // The first one has ended before the second one starts.
    assert!(seen.iter().all(|watchers| watchers.len() <= 1), "{seen:?}");
    let all: BTreeSet<_> = seen.into_iter().flatten().collect();
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(left(&all), [0; 0]);
}

fn an_interrupted_lab_ends_its_watcher() {
    let _guard = run::beside_others();
    let mut lab = lab("throughput", &["--time", "30"]);
    // Open, it is there when its name is gone.
    let host = assert_ends_watched(&mut lab, "throughput, 30 s", Signal::SIGTERM, |id| {
        let path = format!("/run/netns/tblab-{id}-host");
        let host = Namespace::open(Path::new(&path)).expect("the lab's host");
        assert!(has_ports(&host), "nothing is attached in {path}");
        host
    });
    assert!(!has_ports(&host), "ports are still attached");
}

/// Whether a port is attached in a namespace.
pub fn has_ports(host: &Namespace) -> bool {
    host.run(|| {
        let state = State::new(DEFAULT_STATE).read().expect("the state's folder");
        state.is_some_and(|state| FastPath::open(&state).expect("open it").is_some())
    })
}
