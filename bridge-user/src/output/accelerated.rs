//! What the commands print of Linux bridges.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use tapbridge::{
    fastpath::statistics::{BridgeStatistics, PortStatistics},
    stats::PathStatistics,
};

use super::{Table, paths};

/// Stands for all devices that are no more.
const GONE: &str = "(gone)";

/// Prints statistics of a Linux bridge; with those of some time ago, rates too.
pub fn statistics(now: &BridgeStatistics, before: Option<(&BridgeStatistics, Duration)>) -> Result<()> {
    match &now.bridge {
        Some(bridge) => writeln!(io::stdout(), "{bridge}: a Linux bridge")?,
        None => writeln!(io::stdout(), "without a bridge:")?,
    }
    let heads = [
        "  PORT",
        "RX FRAMES",
        "RX BYTES",
        "PAST IT",
        "LEFT TO IT",
        "TX FRAMES",
        "TX BYTES",
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
            port.tx.bytes.to_string(),
            port.gso_frames.to_string(),
            port.passed_up.to_string(),
            port.checksums_completed.to_string(),
        ]);
    }
    ports.print()?;
    let earlier = before.map(|(before, ago)| (of_switch(before), ago));
    paths(
        &of_switch(now),
        earlier.as_ref().map(|(before, ago)| (&before[..], *ago)),
    )?;
    reasons(&now.ports)
}

/// The paths as those of a bridge of ours.
fn of_switch(statistics: &BridgeStatistics) -> Vec<PathStatistics> {
    let paths = statistics.paths.iter().map(|path| PathStatistics {
        from: path.from.clone(),
        to: path.to.clone().unwrap_or_else(|| GONE.to_owned()),
        via: path.via,
        frames: path.frames,
        bytes: path.bytes,
    });
    paths.collect()
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
    if table.rows.len() == 1 {
        Ok(())
    } else {
        table.print()
    }
}
