//! What `syscalls` prints.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use anyhow::Result;
use tapbridge::syscalls::{Counts, ProcessCounts};

use super::{Table, counted, json};

pub fn syscalls(counts: &Counts, as_json: bool, as_bpftrace: bool) -> Result<()> {
    if as_json {
        json(counts)
    } else if as_bpftrace {
        bpftrace(counts)
    } else {
        tables(counts)
    }
}

fn tables(counts: &Counts) -> Result<()> {
    let mut stdout = io::stdout();
    if counts.processes.is_empty() {
        writeln!(stdout, "no system calls in {:.3} s", counts.seconds)?;
    }
    for (index, process) in counts.processes.iter().enumerate() {
        if index != 0 {
            writeln!(stdout)?;
        }
        let ProcessCounts { pid, comm, calls } = process;
        let total: u64 = calls.values().sum();
        writeln!(
            stdout,
            "{comm} ({pid}): {} in {:.3} s",
            counted(total, "system call", "system calls"),
            counts.seconds
        )?;
        if total == 0 {
            continue;
        }
        let mut table = Table::new(1, &["  CALL", "COUNT", "PER SECOND"]);
        for (call, count) in process.by_count() {
            // Exact up to 2^53.
            #[expect(clippy::cast_precision_loss)]
            let rate = count as f64 / counts.seconds;
            table.row([format!("  {call}"), count.to_string(), format!("{rate:.1}")]);
        }
        table.print()?;
    }
    if counts.uncounted != 0 {
        writeln!(
            stdout,
            "\nnot counted: {} more, since too many different ones were counted already",
            counts.uncounted
        )?;
    }
    Ok(())
}

/// As bpftrace prints `@total[comm, probe] = count()`: smallest first. What has no tracepoint is named apart, since
/// bpftrace would not have counted it.
fn bpftrace(counts: &Counts) -> Result<()> {
    let mut lines: BTreeMap<(&str, String), u64> = BTreeMap::new();
    let mut others = 0;
    for process in &counts.processes {
        for (call, count) in &process.calls {
            match call.tracepoint() {
                Some(name) => *lines.entry((&process.comm, name)).or_default() += count,
                None => others += count,
            }
        }
    }
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_by_key(|&(_, count)| count);
    for ((comm, name), count) in lines {
        writeln!(
            io::stdout(),
            "@total[{comm}, tracepoint:syscalls:{name}]: {count}"
        )?;
    }
    for (name, count) in [("without_tracepoint", others), ("uncounted", counts.uncounted)] {
        if count != 0 {
            writeln!(io::stdout(), "@{name}: {count}")?;
        }
    }
    Ok(())
}
