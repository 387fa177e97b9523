//! Statistics of a bridge as tables, each narrow enough for 80 columns as long as the numbers are.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    io::{self, Write as _},
};

use anyhow::Result;
use tapbridge::snapshot::statistics::{BridgeStatistics, PathStatistics, PortStatistics};

use super::rates::{PortRates, Rates};
use crate::cli::print::{
    color::{Color, paint},
    table::Table,
};

/// Stands for all devices that are no more.
const GONE: &str = "(gone)";

/// Prints what was counted of a bridge's ports and paths; with rates if there are some.
pub fn print(bridge: &BridgeStatistics, rates: Option<&Rates>, details: bool) -> Result<()> {
    match &bridge.bridge {
        Some(bridge) => writeln!(io::stdout(), "{}", paint(bridge, Color::Name))?,
        None => writeln!(io::stdout(), "without a bridge:")?,
    }
    ports(&bridge.ports).print()?;
    if let Some(rates) = rates {
        port_rates(&bridge.ports, rates).print()?;
    }
    if details {
        port_details(&bridge.ports).print()?;
    }
    let paths = paths(&bridge.paths, rates);
    let left = by_reason("  LEFT AT", &bridge.ports, |port| &port.left_by_reason);
    let passed_up = by_reason("  LEFT TO TCX AT", &bridge.ports, |port| {
        &port.passed_up_by_reason
    });
    for (table, is_wanted) in [(paths, true), (left, true), (passed_up, details)] {
        if is_wanted && !table.is_empty() {
            table.print()?;
        }
    }
    Ok(())
}

fn name(name: &str) -> String {
    format!("  {name}")
}

fn ports(ports: &[PortStatistics]) -> Table {
    let heads = [
        "  PORT",
        "RX FRAMES",
        "RX BYTES",
        "PAST IT",
        "LEFT TO IT",
        "TX FRAMES",
        "DROPPED",
    ];
    let mut table = Table::new(1, &heads).names([0]);
    for port in ports {
        table.row([
            name(&port.ifname),
            port.rx.frames.to_string(),
            port.rx.bytes.to_string(),
            port.forwarded.frames.to_string(),
            port.left.frames.to_string(),
            (port.tx.frames + port.tx_by_bridge).to_string(),
            port.tx_dropped.to_string(),
        ]);
    }
    table
}

fn port_rates(ports: &[PortStatistics], rates: &Rates) -> Table {
    let heads = [
        "  PORT",
        "RX FRAMES/S",
        "RX MBIT/S",
        "LEFT/S",
        "TX FRAMES/S",
        "DROPPED/S",
    ];
    let mut table = Table::new(1, &heads).names([0]);
    for port in ports {
        let PortRates {
            rx_frames,
            rx_bytes,
            left,
            tx_frames,
            dropped,
        } = rates.of_port(port);
        table.row([
            name(&port.ifname),
            whole(rx_frames),
            megabits(rx_bytes),
            whole(left),
            whole(tx_frames),
            whole(dropped),
        ]);
    }
    table
}

fn port_details(ports: &[PortStatistics]) -> Table {
    let heads = [
        "  PORT",
        "TX PAST IT",
        "TX BY IT",
        "GSO",
        "BULK",
        "PASSED UP",
        "CHECKSUMS",
    ];
    let mut table = Table::new(1, &heads).names([0]);
    for port in ports {
        table.row([
            name(&port.ifname),
            port.tx.frames.to_string(),
            port.tx_by_bridge.to_string(),
            port.gso_frames.to_string(),
            port.bulk.frames.to_string(),
            port.passed_up.to_string(),
            port.checksums_completed.to_string(),
        ]);
    }
    table
}

fn paths(paths: &[PathStatistics], rates: Option<&Rates>) -> Table {
    let mut heads = vec!["  FROM", "TO", "VIA", "FRAMES", "BYTES"];
    if rates.is_some() {
        heads.extend(["FRAMES/S", "MBIT/S"]);
    }
    let mut table = Table::new(3, &heads).names([0, 1]);
    for path in paths {
        let mut row = vec![
            name(&path.from),
            path.to.clone().unwrap_or_else(|| GONE.to_owned()),
            path.via.to_owned(),
            path.frames.to_string(),
            path.bytes.to_string(),
        ];
        if let Some(rates) = rates {
            let [frames, bytes] = rates.of_path(path);
            row.extend([whole(frames), megabits(bytes)]);
        }
        table.row(row);
    }
    table
}

/// Frames of each port by reason, most often first.
fn by_reason(
    head: &str,
    ports: &[PortStatistics],
    counts: fn(&PortStatistics) -> &BTreeMap<&'static str, u64>,
) -> Table {
    let mut table = Table::new(2, &[head, "REASON", "FRAMES"]).names([0]);
    for port in ports {
        let mut left: Vec<_> = counts(port).iter().collect();
        left.sort_by_key(|(_, count)| Reverse(**count));
        for (reason, count) in left {
            table.row([name(&port.ifname), (*reason).to_owned(), count.to_string()]);
        }
    }
    table
}

fn whole(rate: f64) -> String {
    format!("{rate:.0}")
}

fn megabits(bytes: f64) -> String {
    format!("{:.2}", bytes * 8.0 / 1e6)
}
