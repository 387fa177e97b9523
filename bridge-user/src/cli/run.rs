//! `run`: keeps ports on the hooks that fit their traffic.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use tapbridge::{
    common::forwarding::Reason,
    control::{self, Change, Notice, Vanished},
    kernel::requirements,
    state::State,
};

use super::{
    print::{self, counted, error},
    signals::asked_to_end,
};

/// Runs until a signal asks it to end, and prints what it does.
pub async fn run(state: &State, json: bool) -> Result<()> {
    requirements::check_version()?;
    control::run(state, asked_to_end(), |notice| print(&notice, json)).await
}

/// Changes go to standard output, the rest to standard error.
fn print(notice: &Notice, as_json: bool) -> Result<()> {
    match notice {
        Notice::Ready => eprintln!("watching the ports of '--hook auto'; Ctrl-C ends"),
        Notice::Failed(failure) => error(&format!("{failure}; trying again"), as_json),
        Notice::Vanished(vanished) if as_json => print::json(vanished)?,
        Notice::Vanished(Vanished { ports, .. }) => {
            let text = format!(
                "the programs on {0} are gone though no command has detached them: their bpffs was unmounted, or their \
                 folder removed; their bridges go on without them, and 'tapbridge attach {0}' attaches them again",
                ports.join(" ")
            );
            error(&text, as_json);
        }
        Notice::Changed(change) if as_json => print::json(change)?,
        Notice::Changed(change) => {
            let milliseconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3;
            let Change {
                ifname,
                master,
                interval_ms,
                frames,
                bulk_frames,
                ..
            } = change;
            if change.reason == Reason::VhostNet.name() {
                writeln!(
                    io::stdout(),
                    "{master}: {ifname} has {} now: vhost-net sends its frames, in batches that XDP would reorder",
                    change.hooks.join(" + ")
                )?;
                return Ok(());
            }
            writeln!(
                io::stdout(),
                "{master}: {ifname} has {} now: in {interval_ms} ms, of {} {bulk_frames} in bulk, XDP saves {:.1} \
                 ms and costs {:.1} ms",
                change.hooks.join(" + "),
                counted(*frames, "frame", "frames"),
                milliseconds(change.xdp_saves_ns),
                milliseconds(change.xdp_costs_ns)
            )?;
        }
    }
    Ok(())
}
