//! `tapbridge run`, which the lab and the bench start beside the switch: that it does its part, and that it ends.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{Test, datapaths, program, run};

pub const TESTS: &[Test] = &[(
    "a_lab_without_hook_tells_how_a_bulk_senders_hooks_changed_and_ends_what_watched_them",
    a_lab_tells_changes,
)];

/// Processes of `tapbridge run` that a process has started and that have not ended.
pub fn watchers(parent: u32) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").expect("read /proc").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|&id| is_watcher(id) && parent_of(id) == Some(parent))
        .collect()
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

/// Empty for a process that has ended.
fn command_line(id: u32) -> String {
    fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default()
}

fn parent_of(id: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent?.trim().parse().ok()
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

fn a_lab_tells_changes() {
    let _guard = run::beside_others();
    let mut lab = program::lab("run");
    lab.args(["--datapath", "tapbridge", "--workload", "throughput"])
        .args(["--time", "2", "--repeat", "2", "--json", "--tapbridge"])
        .arg(datapaths::switch());
    let (output, seen) = run_to_end(&mut lab);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let results: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let samples = results["samples"].as_array().expect("a list");
    assert_eq!(samples.len(), 2);
    for sample in samples {
        assert_eq!(sample["datapath"], "tapbridge");
        let changes = sample["runs"][0]["hook_changes"].as_array().expect("a list");
        let to_tcx =
            |change: &&Value| change["ifname"] == "vm1" && change["hooks"] == serde_json::json!(["tcx"]);
        assert!(changes.iter().any(|change| to_tcx(&change)), "{changes:?}");
    }
    // The first one has ended before the second one starts.
    assert!(seen.iter().all(|watchers| watchers.len() <= 1), "{seen:?}");
    let all: BTreeSet<_> = seen.into_iter().flatten().collect();
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(left(&all), [0; 0]);
}
