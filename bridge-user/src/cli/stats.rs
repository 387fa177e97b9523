//! `stats`: how many frames went which way.

mod rates;
mod sort;
mod tables;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::{Args, error::ErrorKind};
use tapbridge::{
    snapshot::{
        since::{self, Earlier, Since, Start},
        statistics::Statistics,
    },
    state::State,
};

use self::{rates::Rates, sort::Key};
use super::{
    Form, Which, misused,
    print::{self, progress::Progress},
    seconds,
    watch::watch,
};

/// What `--since` calls the moment at which each port was attached.
const ATTACH: &str = "attach";

#[derive(Args)]
pub struct Stats {
    #[command(flatten)]
    which: Which,

    /// Print again every so many seconds, with rates, until Ctrl-C: 0.1 to 86400
    #[arg(long, value_name = "SECONDS", value_parser = |text: &str| seconds(text, 0.1, 86_400.0))]
    watch: Option<Duration>,

    /// What comes first: names, or the largest numbers
    #[arg(long, value_enum, value_name = "KEY", default_value_t = Key::Name)]
    sort: Key,

    /// What has been counted since FILE was printed, which is a document of 'stats -j', with rates; or, with the word
    /// 'attach', since each port was attached, whatever the baseline is
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,

    /// Print what has been counted until now, and count from now on: of all ports. The counters themselves go on
    #[arg(long, conflicts_with_all = ["since", "watch", "ports", "bridge"])]
    reset: bool,

    /// Count since each port was attached again
    #[arg(long, conflicts_with_all = ["since", "watch", "reset"])]
    no_reset: bool,

    /// Tell apart who has sent to a port, and why XDP left frames to tcx; JSON always does
    #[arg(short, long)]
    details: bool,
}

/// Reads and prints, once or again and again.
pub async fn run(state: &State, arguments: Stats, form: Form) -> Result<()> {
    let Stats {
        which,
        watch: period,
        sort,
        since,
        reset,
        no_reset,
        details,
    } = arguments;
    if sort == Key::Rate && period.is_none() && since.as_ref().is_none_or(|since| is_attach(since)) {
        let message = "'--sort rate' needs '--watch', or '--since' with a file";
        return Err(misused(ErrorKind::MissingRequiredArgument, message));
    }
    if details && form == Form::Brief {
        let message = "the argument '--details' cannot be used with '--brief'";
        return Err(misused(ErrorKind::ArgumentConflict, message));
    }
    let start = match since {
        None => Start::Baseline,
        Some(path) if is_attach(&path) => Start::Attach,
        Some(path) => Start::Earlier(Earlier::read(path)?),
    };
    if no_reset && let Some(locked) = state.lock_existing()? {
        since::forget(&locked)?;
    }
    let only = which.into();
    let mut before: Option<(Statistics, Instant)> = None;
    watch(period, async || {
        let progress = Progress::reading(form == Form::Json);
        let mut now = if reset {
            since::reset(state).await?
        } else {
            since::read(state, &only, &start).await?
        };
        let at = Instant::now();
        drop(progress);
        let rates = match (&before, &start, &now.since) {
            (Some((before, then)), ..) => Some(Rates::new(Some(before), at.duration_since(*then))),
            (None, Start::Earlier(_), Some(since)) => {
                Some(Rates::new(None, Duration::from_millis(since.interval_ms)))
            }
            _ => None,
        };
        sort::sort(&mut now, sort, rates.as_ref());
        print(&now, rates.as_ref(), form, details, before.is_none())?;
        before = period.map(|_| (now, at));
        Ok(())
    })
    .await?;
    if reset && form != Form::Json {
        print::say("'tapbridge stats' counts from now on; 'tapbridge stats --since attach' has all");
    }
    Ok(())
}

fn is_attach(since: &std::path::Path) -> bool {
    since.as_os_str() == ATTACH
}

/// Prints statistics; what can't be read, the first time only.
fn print(now: &Statistics, rates: Option<&Rates>, form: Form, details: bool, is_first: bool) -> Result<()> {
    if form == Form::Json {
        return print::json(now);
    }
    if is_first {
        for entry in &now.unreadable {
            print::error(&entry.error, false);
        }
    }
    if form == Form::Brief {
        if is_first {
            now.since.iter().flat_map(since_words).for_each(print::say);
        }
        return brief(now);
    }
    if now.bridges.is_empty() {
        return Ok(writeln!(
            io::stdout(),
            "no ports are attached in this network namespace"
        )?);
    }
    for line in now.since.iter().flat_map(since_words) {
        writeln!(io::stdout(), "{line}")?;
    }
    for (index, bridge) in now.bridges.iter().enumerate() {
        if index != 0 {
            writeln!(io::stdout())?;
        }
        tables::print(bridge, rates, details)?;
    }
    Ok(())
}

/// From when numbers count, in lines.
fn since_words(since: &Since) -> Vec<String> {
    let Since {
        time,
        interval_ms,
        baseline,
        attached_later,
    } = since;
    let baseline = if *baseline { ", the baseline" } else { "" };
    let ago = Duration::from_millis(*interval_ms).as_secs_f64();
    let mut lines = vec![format!("since {time}{baseline}: {ago:.1} s")];
    if !attached_later.is_empty() {
        lines.push(format!(
            "since they were attached, which was later: {}",
            attached_later.join(" ")
        ));
    }
    lines
}

/// A line for each port, whose columns the help names.
fn brief(now: &Statistics) -> Result<()> {
    let mut lines = Vec::new();
    for bridge in &now.bridges {
        for port in &bridge.ports {
            let numbers = [
                port.rx.frames,
                port.rx.bytes,
                port.forwarded.frames,
                port.left.frames,
                port.tx.frames,
                port.tx_by_bridge,
                port.tx_dropped,
            ];
            let mut line = vec![
                port.ifname.clone(),
                bridge.bridge.clone().unwrap_or_else(|| "-".into()),
            ];
            line.extend(numbers.map(|number| number.to_string()));
            lines.push(line);
        }
    }
    print::brief(&lines)
}
