//! `syscalls`: counts what processes ask of the kernel.
//!
//! One program of ours on the tracepoint `sys_enter`, attached in milliseconds; it goes with the process that counts.

mod call;
pub mod counter;
mod offsets;
mod process;
mod selection;

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    time::{Duration, Instant},
};

use bridge_common::syscalls::{Key, NAME};
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

pub use self::{
    call::Call,
    selection::{Selection, is_any_running},
};
use self::{
    counter::{Counter, Processes},
    process::Process,
};
use crate::error::{Context as _, Result};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// What was counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counts {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How long it was counted.
    pub seconds: f64,
    /// Calls of the chosen processes for which there was no room.
    pub uncounted: u64,
    /// By process id. A process that changed its name is there under each.
    pub processes: Vec<ProcessCounts>,
}

/// What a process called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessCounts {
    /// Its id.
    pub pid: u32,
    /// Its name, at most 15 bytes.
    pub comm: String,
    /// How often it called what, in all threads.
    pub calls: BTreeMap<Call, u64>,
}

impl ProcessCounts {
    /// All calls, most frequent first.
    pub fn by_count(&self) -> Vec<(Call, u64)> {
        let mut calls: Vec<_> = self.calls.iter().map(|(&call, &count)| (call, count)).collect();
        calls.sort_by_key(|&(call, count)| (std::cmp::Reverse(count), call));
        calls
    }
}

/// Counts until the time is up, `end` is done or the chosen processes have all ended. Every call that is made after
/// `started` has been called is counted.
pub async fn count(
    selection: &Selection,
    time: Option<Duration>,
    end: impl Future<Output = ()>,
    started: impl FnOnce(),
) -> Result<Counts> {
    let chosen = match selection {
        Selection::Processes(ids) => open(ids)?,
        Selection::Names(_) => Vec::new(),
    };
    let named = chosen.iter().map(Process::name).collect();
    let mut counter = Counter::load(selection)?;
    let start = Instant::now();
    counter.attach()?;

    let processes = &mut counter.processes;
    let work = async {
        started();
        tokio::select! {
            () = elapsed(time) => Ok(()),
            result = all_ended(chosen, processes) => result,
        }
    };
    tokio::select! {
        // `end` first: whoever has heard that it has started may ask it to end.
        biased;
        () = end => {}
        result = work => result?,
    }
    counter.detach()?;
    let seconds = start.elapsed().as_secs_f64();

    Ok(Counts {
        schema: SCHEMA,
        seconds,
        uncounted: counter.uncounted()?,
        processes: by_process(named, counter.counts()?),
    })
}

/// Holds the processes, each once.
fn open(ids: &[u32]) -> Result<Vec<Process>> {
    let ids: BTreeSet<u32> = ids.iter().copied().collect();
    ids.into_iter().map(Process::open).collect()
}

/// Sorts counts by process. Those that were named are there with no call of their own too, since the user has asked
/// for them.
fn by_process(named: Vec<(u32, String)>, counts: Vec<(Key, u64)>) -> Vec<ProcessCounts> {
    let mut processes = BTreeMap::<_, BTreeMap<Call, u64>>::new();
    for (key, count) in counts {
        let calls = processes.entry((key.process, text(&key.name))).or_default();
        *calls.entry(key.into()).or_default() += count;
    }
    for (pid, name) in named {
        // It may have made all its calls under another name.
        if !processes.keys().any(|(other, _)| *other == pid) {
            processes.insert((pid, name), BTreeMap::new());
        }
    }
    let counts = |((pid, comm), calls)| ProcessCounts { pid, comm, calls };
    processes.into_iter().map(counts).collect()
}

async fn elapsed(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => future::pending().await,
    }
}

/// Done when all processes have ended; never if there are none. The id of one that has ended may become another's, so
/// it is not counted any more.
async fn all_ended(chosen: Vec<Process>, processes: &mut Processes) -> Result<()> {
    if chosen.is_empty() {
        return future::pending().await;
    }
    let mut ends = JoinSet::new();
    for process in chosen {
        ends.spawn(process.ended());
    }
    while let Some(ended) = ends.join_next().await {
        let id = ended.at("processes", "wait for their end")??;
        processes
            .remove(&id)
            .at(format!("process {id}"), "count it no longer")?;
    }
    Ok(())
}

fn text(name: &[u8; NAME]) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(NAME);
    String::from_utf8_lossy(&name[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{selection::kept, *};

    #[test]
    fn a_name_ends_at_its_zero() {
        assert_eq!(text(&kept("fifteen-letters")), "fifteen-letters");
        assert_eq!(text(&kept("")), "");
    }

    #[test]
    fn counts_are_sorted_by_process_and_name() {
        let key = |process, name, number| Key {
            name: kept(name),
            process,
            number,
            compat: 0,
        };
        let counts = vec![
            (key(2, "vmm", 20), 3),
            (key(1, "sh", 0), 4),
            (key(1, "vmm", 0), 5),
            (key(2, "vmm", 0), 6),
        ];
        let named = vec![(1, "init".to_owned()), (3, "idle".to_owned())];
        let call = |number| Call {
            number,
            compat: false,
        };
        let process = |pid, comm: &str, calls: &[(i32, u64)]| ProcessCounts {
            pid,
            comm: comm.into(),
            calls: calls
                .iter()
                .map(|&(number, count)| (call(number), count))
                .collect(),
        };
        assert_eq!(
            by_process(named, counts),
            [
                process(1, "sh", &[(0, 4)]),
                process(1, "vmm", &[(0, 5)]),
                process(2, "vmm", &[(0, 6), (20, 3)]),
                process(3, "idle", &[]),
            ]
        );
    }

    #[test]
    fn the_most_frequent_call_comes_first() {
        let call = |number| Call {
            number,
            compat: false,
        };
        let process = ProcessCounts {
            pid: 1,
            comm: "init".into(),
            calls: [(call(0), 5), (call(1), 7), (call(2), 5)].into(),
        };
        assert_eq!(process.by_count(), [(call(1), 7), (call(0), 5), (call(2), 5)]);
    }
}
