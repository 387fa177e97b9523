//! `tapbridge run`, which takes XDP off ports that send bulk, and puts it back.

use std::{
    io::{BufRead, BufReader, PipeReader, pipe},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use crate::host::{
    job::{self, Job, State},
    process::Process,
};

/// What it prints once it watches.
const READY: &str = "watching";
/// Thirty times what its start takes on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// What it has printed, each line with the moment in which it came.
type Lines = Mutex<Vec<(Instant, String)>>;

/// A process that watches the attached ports of a namespace. Dropping it ends it, and leaves the ports as they are then.
#[derive(Debug)]
pub struct Watcher {
    process: Process,
    lines: Arc<Lines>,
}

/// A port got other hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub at: Instant,
    pub ifname: String,
    /// Those that it has from then on.
    pub hooks: Vec<String>,
}

impl Watcher {
    /// Starts it by tapbridge, a command for the namespace; returns when it watches.
    pub fn start(tapbridge: Command) -> Result<Self> {
        Self::start_with(tapbridge, &[])
    }

    /// The same, with these options.
    pub fn start_with(mut tapbridge: Command, options: &[&str]) -> Result<Self> {
        tapbridge.args(["run", "-j"]).args(options);
        let (output, its_output) = pipe().context("making a pipe")?;
        let mut process = Process::start_with_output("tapbridge run", tapbridge, its_output)?;
        let lines = Arc::default();
        let collected = Arc::clone(&lines);
        // It ends when the process does, which alone has the pipe's other end.
        thread::spawn(move || collect(output, &collected));
        job::has_printed(&mut process, READY, START_LIMIT)?;
        Ok(Self { process, lines })
    }

    /// The process's id.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// What it has printed so far, each line with the moment in which it came.
    pub fn lines(&self) -> Vec<(Instant, String)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All so far.
    pub fn changes(&self) -> Result<Vec<Change>> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = lines.iter().map(|(at, line)| change(*at, line));
        changes.filter_map(Result::transpose).collect()
    }

    /// Ends it, and tells what it could not do; an error if it has not watched until then.
    pub fn stop(mut self) -> Result<()> {
        if self.process.state()? == State::Succeeded {
            let error = anyhow!("{} ended before it was told to", self.process.name());
            return Err(job::with_last_words(error, &self.process));
        }
        let said = self.process.stderr();
        for line in said.lines().filter(|line| !line.starts_with(READY)) {
            eprintln!("{}: {line}", self.process.name());
        }
        self.process.stop().map(drop)
    }
}

fn collect(output: PipeReader, lines: &Lines) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((Instant::now(), line));
    }
}

/// What it prints with `-j`, as much of it as is of interest here.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Hook {
        ifname: String,
        hooks: Vec<String>,
    },
    #[serde(other)]
    Other,
}

/// `None` of what is no change.
fn change(at: Instant, line: &str) -> Result<Option<Change>> {
    let event = serde_json::from_str(line).with_context(|| format!("tapbridge run -j: {line}"))?;
    Ok(match event {
        Event::Hook { ifname, hooks } => Some(Change { at, ifname, hooks }),
        Event::Other => None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::host::wait::{self, OnSignal};

    #[test]
    fn a_change_is_told_and_another_event_is_not() {
        let at = Instant::now();
        let line = r#"{"event":"hook","ifname":"vm1","master":"br0","hooks":["tcx"],"gso_per_s":9}"#;
        let expected = Change {
            at,
            ifname: "vm1".into(),
            hooks: vec!["tcx".into()],
        };
        assert_eq!(change(at, line).unwrap(), Some(expected));
        assert_eq!(change(at, r#"{"event":"port","ifname":"vm1"}"#).unwrap(), None);
        let error = change(at, "vm1: tcx").unwrap_err();
        assert_eq!(error.to_string(), "tapbridge run -j: vm1: tcx");
    }

    /// A stand-in for tapbridge.
    fn watcher(script: &str) -> Result<Watcher> {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        Watcher::start(sh)
    }

    #[test]
    fn what_is_printed_before_the_end_is_there_and_an_end_that_is_asked_for_is_none_too_early() {
        let change = r#"{"event":"hook","ifname":"vm1","hooks":["tcx"]}"#;
        let script =
            format!("trap 'exit 0' TERM; echo '{change}'; echo watching >&2; while :; do sleep 0.01; done");
        let watcher = watcher(&script).unwrap();
        let changes = wait::until("a change", START_LIMIT, OnSignal::GoOn, || {
            Ok(Some(watcher.changes()?).filter(|changes| !changes.is_empty()))
        });
        assert_eq!(changes.unwrap()[0].ifname, "vm1");
        watcher.stop().unwrap();
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_an_error() {
        for (status, expected) in [(0, "ended before it was told to"), (3, "failed, exit status: 3")] {
            let mut watcher = watcher(&format!("echo watching, not long >&2; exit {status}")).unwrap();
            wait::until("the end", START_LIMIT, OnSignal::GoOn, || {
                Ok((watcher.process.state()? != State::Running).then_some(()))
            })
            .unwrap();
            let error = watcher.stop().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("not long"), "{error}");
        }
    }

    #[test]
    fn lines_are_collected_until_the_other_end_is_closed() {
        let (output, mut input) = pipe().unwrap();
        input.write_all(b"one\ntwo\n").unwrap();
        drop(input);
        let lines = Lines::default();
        collect(output, &lines);
        let lines = lines.into_inner().unwrap();
        let texts: Vec<_> = lines.iter().map(|(_, line)| &**line).collect();
        assert_eq!(texts, ["one", "two"]);
        assert!(lines.is_sorted_by_key(|(at, _)| *at));
    }
}
