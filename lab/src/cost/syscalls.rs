//! System calls of the guests' VMMs, counted by `tapbridge syscalls`.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::host::{job, process::Process};

/// What it prints once every call counts.
const READY: &str = "counting";
/// Ten times what loading its program takes on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Calls by their names, of each process.
type Counts = HashMap<u32, BTreeMap<String, u64>>;

/// A process that counts.
pub struct Counter(Process);

impl Counter {
    /// Starts counting the calls of some processes; returns when every call counts.
    pub fn start(tapbridge: &Path, processes: &[u32]) -> Result<Self> {
        let mut command = Command::new(tapbridge);
        command.args(["syscalls", "--json"]);
        for id in processes {
            command.args(["--pid", &id.to_string()]);
        }
        let mut counter = Process::start("tapbridge syscalls", command)?;
        job::has_printed(&mut counter, READY, START_LIMIT)?;
        Ok(Self(counter))
    }

    /// Ends it; returns what it has counted.
    pub fn stop(self) -> Result<Counts> {
        parse(&self.0.stop()?)
    }
}

#[derive(Deserialize)]
struct Output {
    uncounted: u64,
    processes: Vec<ProcessCounts>,
}

#[derive(Deserialize)]
struct ProcessCounts {
    pid: u32,
    calls: BTreeMap<String, u64>,
}

fn parse(json: &str) -> Result<Counts> {
    let output: Output =
        serde_json::from_str(json).with_context(|| format!("tapbridge syscalls --json: {json}"))?;
    ensure!(
        output.uncounted == 0,
        "tapbridge syscalls had no room for {} calls",
        output.uncounted
    );
    let mut counts = Counts::new();
    for process in output.processes {
        // A process that has renamed itself is there under each name.
        let calls = counts.entry(process.pid).or_default();
        for (call, count) in process.calls {
            *calls.entry(call).or_default() += count;
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_two_names_is_one() {
        let json = r#"{"schema": 1, "seconds": 1.5, "uncounted": 0, "processes": [
            {"pid": 7, "comm": "a", "calls": {"read": 1}}, {"pid": 7, "comm": "b", "calls": {"read": 2, "writev": 4}}]}"#;
        let counts = parse(json).unwrap();
        assert_eq!(counts[&7]["read"], 3);
        assert_eq!(counts[&7]["writev"], 4);
    }

    #[test]
    fn counts_with_gaps_are_no_counts() {
        let error = parse(r#"{"uncounted": 2, "processes": []}"#).unwrap_err();
        assert!(error.to_string().contains("no room for 2 calls"));
    }
}
