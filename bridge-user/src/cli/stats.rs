//! `stats`: how many frames went which way.

use std::{
    io::{self, Write as _},
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use tapbridge::{
    snapshot::statistics::{self, BridgeStatistics, Count, PathStatistics, PortStatistics, Statistics},
    state::State,
};
use tokio::time::MissedTickBehavior;

use super::{
    Which,
    print::{self, table::Table},
    seconds,
    signals::asked_to_end,
};

/// Stands for all devices that are no more.
const GONE: &str = "(gone)";

#[derive(Args)]
pub struct Stats {
    #[command(flatten)]
    which: Which,

    /// Print again every so many seconds, with rates, until Ctrl-C: 0.1 to 86400
    #[arg(long, value_name = "SECONDS", value_parser = |text: &str| seconds(text, 0.1, 86_400.0))]
    watch: Option<Duration>,
}

/// Reads and prints, once or again and again.
pub async fn run(state: &State, arguments: Stats, json: bool) -> Result<()> {
    let Stats { which, watch } = arguments;
    let only = which.bridge.as_deref();
    match watch {
        None => print(&statistics::read(state, only).await?, None, json),
        Some(period) => print_again(state, only, period, json).await,
    }
}

async fn print_again(state: &State, only: Option<&str>, period: Duration, json: bool) -> Result<()> {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(Statistics, Instant)> = None;
    let mut end = pin!(asked_to_end());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut end => return Ok(()),
        }
        let (now, at) = (statistics::read(state, only).await?, Instant::now());
        let earlier = before
            .as_ref()
            .map(|(before, then)| (before, at.duration_since(*then)));
        print(&now, earlier, json)?;
        before = Some((now, at));
    }
}

/// Prints statistics; with those of some time ago, rates too.
fn print(now: &Statistics, before: Option<(&Statistics, Duration)>, as_json: bool) -> Result<()> {
    if as_json {
        return print::json(now);
    }
    if before.is_none() {
        for entry in &now.unreadable {
            print::error(&entry.error, false);
        }
    }
    if now.bridges.is_empty() {
        return Ok(writeln!(
            io::stdout(),
            "no ports are attached in this network namespace"
        )?);
    }
    for (index, bridge) in now.bridges.iter().enumerate() {
        if index != 0 {
            writeln!(io::stdout())?;
        }
        let earlier = before.and_then(|(statistics, ago)| {
            let mut earlier = statistics.bridges.iter();
            let bridge = earlier.find(|earlier| earlier.bridge == bridge.bridge)?;
            Some((bridge, ago))
        });
        bridge_statistics(bridge, earlier)?;
    }
    Ok(())
}

fn bridge_statistics(now: &BridgeStatistics, before: Option<(&BridgeStatistics, Duration)>) -> Result<()> {
    match &now.bridge {
        Some(bridge) => writeln!(io::stdout(), "{bridge}")?,
        None => writeln!(io::stdout(), "without a bridge:")?,
    }
    let heads = [
        "  PORT",
        "RX FRAMES",
        "RX BYTES",
        "PAST IT",
        "LEFT TO IT",
        "TX PAST IT",
        "BY IT",
        "DROPPED",
        "GSO",
        "PASSED UP",
        "CHECKSUMS",
    ];
    let mut ports = Table::new(1, &heads);
    for port in &now.ports {
        ports.row([
            format!("  {}", port.ifname),
            port.rx.frames.to_string(),
            port.rx.bytes.to_string(),
            port.forwarded.frames.to_string(),
            port.left.frames.to_string(),
            port.tx.frames.to_string(),
            port.tx_by_bridge.to_string(),
            port.tx_dropped.to_string(),
            port.gso_frames.to_string(),
            port.passed_up.to_string(),
            port.checksums_completed.to_string(),
        ]);
    }
    ports.print()?;
    let earlier = before.map(|(before, ago)| (&before.paths[..], ago));
    paths(&now.paths, earlier)?;
    reasons(&now.ports)
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss)]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn paths(now: &[PathStatistics], before: Option<(&[PathStatistics], Duration)>) -> Result<()> {
    if now.is_empty() {
        return Ok(());
    }
    let mut heads = vec!["  FROM", "TO", "VIA", "FRAMES", "BYTES"];
    if before.is_some() {
        heads.extend(["FRAMES/S", "MBIT/S"]);
    }
    let mut table = Table::new(3, &heads);
    for path in now {
        let mut row = vec![
            format!("  {}", path.from),
            path.to.clone().unwrap_or_else(|| GONE.to_owned()),
            path.via.to_owned(),
            path.frames.to_string(),
            path.bytes.to_string(),
        ];
        if let Some((before, ago)) = before {
            let same = |other: &&PathStatistics| {
                (&other.from, &other.to, other.via) == (&path.from, &path.to, path.via)
            };
            let earlier = before.iter().find(same);
            let earlier = earlier.map_or(Count::default(), |path| Count {
                frames: path.frames,
                bytes: path.bytes,
            });
            // A port that was attached anew counts from zero.
            let frames = per_second(path.frames.saturating_sub(earlier.frames), ago);
            let bytes = per_second(path.bytes.saturating_sub(earlier.bytes), ago);
            row.push(format!("{frames:.0}"));
            row.push(format!("{:.2}", bytes * 8.0 / 1e6));
        }
        table.row(row);
    }
    table.print()
}

/// What was left to the bridge, most often first.
fn reasons(ports: &[PortStatistics]) -> Result<()> {
    let mut table = Table::new(2, &["  LEFT AT", "REASON", "FRAMES"]);
    for port in ports {
        let mut left: Vec<_> = port.left_by_reason.iter().collect();
        left.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in left {
            table.row([
                format!("  {}", port.ifname),
                (*reason).to_owned(),
                count.to_string(),
            ]);
        }
    }
    if table.is_empty() { Ok(()) } else { table.print() }
}
