//! `syscalls`: what processes ask of the kernel.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use clap::{Args, error::ErrorKind};
use tapbridge::syscalls::{Counts, ProcessCounts, Selection, count, is_any_running};

use super::{
    misused,
    print::{self, counted, table::Table},
    seconds,
    signals::asked_to_end,
};

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// Processes to count, by id; ends when all of them have ended
    #[arg(long, value_name = "PID", num_args = 1.., value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pid: Vec<u32>,

    /// Processes to count, by name, whenever they start; of a name the kernel keeps 15 bytes, and those are compared
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = clap::builder::NonEmptyStringValueParser::new())]
    comm: Vec<String>,
}

#[derive(Args)]
pub struct Syscalls {
    #[command(flatten)]
    whose: Whose,

    /// End after so many seconds: 0.001 to 1000000000
    #[arg(long, value_name = "SECONDS", value_parser = |text: &str| seconds(text, 0.001, 1e9))]
    time: Option<Duration>,

    /// Print what bpftrace prints of a map @total[comm, probe]: a line per name and tracepoint, smallest count first
    #[arg(long)]
    bpftrace: bool,
}

/// Counts and prints.
pub async fn run(arguments: Syscalls, json: bool) -> Result<()> {
    let Syscalls {
        whose,
        time,
        bpftrace,
    } = arguments;
    if json && bpftrace {
        let message = "the argument '--bpftrace' cannot be used with '--json'";
        return Err(misused(ErrorKind::ArgumentConflict, message));
    }
    let selection = if whose.pid.is_empty() {
        Selection::Names(whose.comm)
    } else {
        Selection::Processes(whose.pid)
    };
    let counts = count(&selection, time, asked_to_end(), || {
        if let Selection::Names(names) = &selection
            && !is_any_running(names)
        {
            say(&format!(
                "no process is called {} yet; waiting for one",
                names.join(" or ")
            ));
        }
        say("counting… Ctrl-C ends it");
    })
    .await?;
    print(&counts, json, bpftrace)
}

/// For the user, beside the output. That nobody listens is no reason to stop.
fn say(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

fn print(counts: &Counts, as_json: bool, as_bpftrace: bool) -> Result<()> {
    if as_json {
        print::json(counts)
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
