//! `syscalls`: what processes ask of the kernel.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use clap::{Args, CommandFactory as _, error::ErrorKind};
use tapbridge::syscalls::{Selection, count, is_any_running};

use super::{CommandLine, asked_to_end, seconds};
use crate::output;

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
    // An option of all commands can come before this one's name, where clap does not see the conflict.
    if json && bpftrace {
        let message = "the argument '--bpftrace' cannot be used with '--json'";
        return Err(CommandLine::command()
            .error(ErrorKind::ArgumentConflict, message)
            .into());
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
    output::syscalls(&counts, json, bpftrace)
}

/// For the user, beside the output. That nobody listens is no reason to stop.
fn say(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}
