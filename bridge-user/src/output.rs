//! What the commands print: tables for people, JSON for programs.

mod accelerated;
pub mod progress;
mod syscalls;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use tapbridge::{
    attach::Attached,
    bridge::{Report, Unreadable},
    common::counters::PassReason,
    detach::{Cleared, Detached},
    fastpath,
    fdb::Entry,
    monitor::Event,
    run::{Change, Notice, Vanished},
    show::{BridgeOverview, Overview},
    stats::{BridgeStatistics, Count, PathStatistics, PortStatistics, Statistics},
};

pub use self::syscalls::syscalls;

/// Between columns of a table.
const GAP: &str = "  ";

/// Whether an error only says that nobody reads any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// One JSON document, on one line so that repeated ones can be read line by line.
fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)?;
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Whether words that can't be understood ask for JSON nevertheless.
pub fn is_json_wanted() -> bool {
    std::env::args_os().any(|word| word == "-j" || word == "--json")
}

/// Says why a command failed, on standard error: what goes to standard output stays what the command has to tell.
pub fn error(message: &str, as_json: bool) {
    if as_json {
        let error = serde_json::json!({ "schema": 1, "error": { "message": message } });
        eprintln!("{error}");
    } else {
        eprintln!("tapbridge: {message}");
    }
}

/// What clap complains of, in one line and without its advice.
pub fn first_paragraph(complaint: &str) -> String {
    let complaint = complaint.strip_prefix("error: ").unwrap_or(complaint);
    let lines = complaint.lines().take_while(|line| !line.is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Such as "1 frame" and "2 frames".
fn counted(count: impl Into<u64>, one: &str, many: &str) -> String {
    match count.into() {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

/// Columns of the terminal that standard output is, if it is one.
fn terminal_columns() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(columns, _)| columns.0.into())
}

/// Rows in columns as wide as their widest cell. Columns are left-aligned up to `left`, then right-aligned. On a terminal
/// that has not so many columns, each row has a line for every cell.
struct Table {
    rows: Vec<Vec<String>>,
    left: usize,
}

impl Table {
    fn new(left: usize, heads: &[&str]) -> Self {
        Self {
            rows: vec![heads.iter().map(ToString::to_string).collect()],
            left,
        }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn print(&self) -> Result<()> {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let all = widths.iter().sum::<usize>() + GAP.len() * (columns - 1);
        if terminal_columns().is_some_and(|columns| columns < all) {
            return self.print_upright();
        }
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| {
                    if column < self.left {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                });
            let line = cells.collect::<Vec<_>>().join(GAP);
            writeln!(io::stdout(), "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn print_upright(&self) -> Result<()> {
        let (heads, rows) = self.rows.split_first().expect("a row of heads");
        let width = heads.iter().map(|head| head.trim().chars().count()).max();
        let width = width.unwrap_or(0);
        for (index, row) in rows.iter().enumerate() {
            if index != 0 {
                writeln!(io::stdout())?;
            }
            for (head, cell) in heads.iter().zip(row) {
                writeln!(io::stdout(), "{GAP}{:<width$}{GAP}{}", head.trim(), cell.trim())?;
            }
        }
        Ok(())
    }
}

/// What can't be used as a bridge, told beside what a command prints.
pub fn unreadable(entries: &[Unreadable], as_json: bool) {
    for entry in entries {
        error(&entry.error, as_json);
    }
}

pub fn attached(report: &Report<Attached>, cleared: &[Cleared], bridge: &str, as_json: bool) -> Result<()> {
    let Report { ports, unreadable } = report;
    if as_json {
        let document = serde_json::json!(
            { "schema": 1, "bridge": bridge, "ports": ports, "unreadable": unreadable, "cleared": cleared }
        );
        return json(&document);
    }
    self::unreadable(unreadable, false);
    for port in ports {
        let what = if port.changed {
            "attached"
        } else {
            "was attached already"
        };
        writeln!(
            io::stdout(),
            "{}: {what} to {} ({}{}){}",
            port.ifname,
            port.master.as_deref().unwrap_or(bridge),
            port.hooks.join(" + "),
            if port.hook == "auto" { ", auto" } else { "" },
            port.note.map(|note| format!("; {note}")).unwrap_or_default()
        )?;
    }
    Ok(())
}

pub fn detached(report: &Report<Detached>, cleared: &[Cleared], as_json: bool) -> Result<()> {
    let Report { ports, unreadable } = report;
    if as_json {
        let document = serde_json::json!(
            { "schema": 1, "ports": ports, "unreadable": unreadable, "cleared": cleared }
        );
        return json(&document);
    }
    self::unreadable(unreadable, false);
    for port in ports {
        let what = if port.gone {
            "was gone; its place is cleared"
        } else if port.restored {
            "detached"
        } else {
            "detached, but how it was before can't be read: look at its disable_ipv6, its queueing discipline and \
             whether it is promiscuous"
        };
        let bridge = port.bridge.as_ref().map(|bridge| format!(" ({bridge})"));
        writeln!(
            io::stdout(),
            "{}: {what}{}",
            port.ifname,
            bridge.unwrap_or_default()
        )?;
    }
    Ok(())
}

/// Said at once: it has been done, whatever becomes of the command that it was done for.
pub fn cleared(cleared: &[Cleared], as_json: bool) {
    for Cleared { bridge, reason } in cleared.iter().filter(|_| !as_json) {
        eprintln!("bridge {bridge}: cleared away: {reason}");
    }
}

pub fn event(event: &Event, as_json: bool) -> Result<()> {
    if as_json {
        return json(event);
    }
    let vlan = event.vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    let service = event
        .vlan_protocol
        .map(|protocol| format!(" ({protocol})"))
        .unwrap_or_default();
    let Event {
        event,
        mac,
        ifname,
        master,
        ..
    } = event;
    Ok(writeln!(
        io::stdout(),
        "{master}: {mac}{vlan}{service} {event} on {ifname}"
    )?)
}

/// What `run` has to tell: its changes go to standard output, the rest to standard error.
pub fn notice(notice: &Notice, as_json: bool) -> Result<()> {
    match notice {
        Notice::Ready => eprintln!("watching the ports of '--hook auto'; Ctrl-C ends"),
        Notice::Failed(failure) => error(&format!("{failure}; trying again"), as_json),
        Notice::LeftAlone(entry) => error(&entry.error, as_json),
        Notice::Vanished(vanished) if as_json => json(vanished)?,
        Notice::Vanished(Vanished { master, ports, .. }) if master.is_empty() => {
            let text = format!(
                "the programs on {0} are gone though no command has detached them: their bpffs was unmounted, or their \
                 folder removed; their bridges go on without them, and 'tapbridge attach {0}' attaches them again",
                ports.join(" ")
            );
            error(&text, as_json);
        }
        Notice::Vanished(Vanished { master, ports, .. }) => {
            let text = format!(
                "bridge {master}: is gone though no command has removed it: its bpffs was unmounted, or its folder \
                 removed; {0} forward nothing any more: 'tapbridge attach {0}' makes them ports again, and knows how \
                 they were",
                ports.join(" ")
            );
            error(&text, as_json);
        }
        Notice::Changed(change) if as_json => json(change)?,
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
            if change.reason == PassReason::VhostNet.name() {
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

pub fn flushed(count: usize, as_json: bool) -> Result<()> {
    if as_json {
        return json(&serde_json::json!({ "schema": 1, "flushed": count }));
    }
    Ok(writeln!(
        io::stdout(),
        "{} removed",
        counted(count as u64, "address", "addresses")
    )?)
}

pub fn overview(overview: &Overview, as_json: bool) -> Result<()> {
    if as_json {
        return json(overview);
    }
    for bridge in &overview.unreadable {
        writeln!(io::stdout(), "{}", bridge.error)?;
    }
    if overview.bridges.is_empty() && overview.accelerated.is_empty() && overview.unreadable.is_empty() {
        return Ok(writeln!(
            io::stdout(),
            "no bridges; make one with 'tapbridge attach IFACE...'"
        )?);
    }
    for (index, bridge) in overview.bridges.iter().enumerate() {
        if index != 0 {
            writeln!(io::stdout())?;
        }
        show_bridge(bridge)?;
    }
    for (index, bridge) in overview.accelerated.iter().enumerate() {
        if index != 0 || !overview.bridges.is_empty() {
            writeln!(io::stdout())?;
        }
        show_accelerated(bridge)?;
    }
    let accelerated = overview.accelerated.iter().flat_map(|bridge| &bridge.ports);
    let fast_auto = accelerated.filter(|port| port.hook == Some("auto")).count() > 0;
    let auto = |bridge: &BridgeOverview| bridge.here && bridge.ports.iter().any(|port| port.hook == "auto");
    if !overview.running && (fast_auto || overview.bridges.iter().any(auto)) {
        writeln!(
            io::stdout(),
            "\n'auto' ports keep the hooks that they have: 'tapbridge run' is not running"
        )?;
    }
    Ok(())
}

fn show_accelerated(bridge: &fastpath::overview::BridgeOverview) -> Result<()> {
    let attached = bridge.ports.iter().filter(|port| port.attached).count();
    match &bridge.bridge {
        Some(name) => writeln!(
            io::stdout(),
            "{name}: a Linux bridge, {attached} of {} ports accelerated",
            bridge.ports.len()
        )?,
        None => writeln!(io::stdout(), "without a bridge:")?,
    }
    let mut table = Table::new(4, &["  PORT", "KIND", "HOOKS", "STATE", "MTU"]);
    for port in &bridge.ports {
        let hooks = if port.hooks.is_empty() {
            "-".to_owned()
        } else {
            let auto = port.hook == Some("auto");
            hooks(&port.hooks, auto, port.hook_changes, port.hook_changed)
        };
        let bypass = if port.bypass_netfilter {
            ", passes netfilter by"
        } else {
            ""
        };
        table.row([
            format!("  {}", port.ifname),
            port.kind.unwrap_or("-").to_owned(),
            format!("{hooks}{bypass}"),
            port.state.to_owned(),
            port.mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string()),
        ]);
    }
    table.print()?;
    for obstacle in &bridge.obstacles {
        writeln!(io::stdout(), "  {}", obstacle.text)?;
    }
    for port in &bridge.ports {
        for problem in &port.problems {
            writeln!(io::stdout(), "  {}: {}", port.ifname, problem.text)?;
        }
        for obstacle in &port.obstacles {
            writeln!(io::stdout(), "  {}: {}", port.ifname, obstacle.text)?;
        }
    }
    Ok(())
}

fn show_bridge(bridge: &BridgeOverview) -> Result<()> {
    let place = if bridge.here {
        String::new()
    } else if bridge.namespace_gone {
        format!(
            ", its network namespace (net:[{}]) is gone: the next 'tapbridge attach' or 'tapbridge detach --all' clears \
             it away",
            bridge.network_namespace
        )
    } else {
        format!(
            ", in another network namespace (net:[{}])",
            bridge.network_namespace
        )
    };
    writeln!(
        io::stdout(),
        "{}: {} of {} ports, ageing time {} s{place}",
        bridge.bridge,
        bridge.ports.len(),
        bridge.max_ports,
        bridge.ageing_time
    )?;
    let mut table = Table::new(4, &["  PORT", "KIND", "HOOKS", "STATE", "MTU"]);
    for port in &bridge.ports {
        table.row([
            format!("  {}", port.ifname),
            port.kind.unwrap_or("-").to_owned(),
            hooks(
                &port.hooks,
                port.hook == "auto",
                port.hook_changes,
                port.hook_changed,
            ),
            port.state.to_owned(),
            port.mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string()),
        ]);
    }
    table.print()?;
    for port in &bridge.ports {
        for problem in &port.problems {
            writeln!(io::stdout(), "  {}: {}", port.ifname, problem.text)?;
        }
        for obstacle in &port.obstacles {
            writeln!(io::stdout(), "  {}: {}", port.ifname, obstacle.text)?;
        }
    }
    Ok(())
}

/// Such as "tcx (auto, changes: 3, last 12 s ago)".
fn hooks(names: &[&str], is_auto: bool, changes: u32, last: Option<u64>) -> String {
    let hooks = names.join(" + ");
    match last {
        _ if !is_auto => hooks,
        None => format!("{hooks} (auto)"),
        Some(seconds) => format!("{hooks} (auto, changes: {changes}, last {seconds} s ago)"),
    }
}

pub fn fdb(entries: &[Entry], as_json: bool) -> Result<()> {
    if as_json {
        return json(&entries);
    }
    let mut table = Table::new(4, &["MAC", "VLAN", "PORT", "BRIDGE", "LAST SEEN"]);
    for entry in entries {
        let service = if entry.vlan_protocol.is_some() {
            " (802.1ad)"
        } else {
            ""
        };
        table.row([
            entry.mac.clone(),
            entry
                .vlan
                .map_or_else(|| "-".to_owned(), |vlan| format!("{vlan}{service}")),
            entry.ifname.clone(),
            entry.master.clone(),
            entry
                .updated
                .map_or_else(|| entry.state.to_owned(), |seconds| format!("{seconds} s ago")),
        ]);
    }
    table.print()
}

/// Prints statistics; with those of some time ago, rates too.
pub fn statistics(now: &Statistics, before: Option<(&Statistics, Duration)>, as_json: bool) -> Result<()> {
    if as_json {
        return json(now);
    }
    if before.is_none() {
        unreadable(&now.unreadable, false);
    }
    if now.bridges.is_empty() && now.accelerated.is_empty() {
        return Ok(writeln!(
            io::stdout(),
            "no bridges in this network namespace; 'tapbridge show' lists all"
        )?);
    }
    for (index, bridge) in now.bridges.iter().enumerate() {
        if index != 0 {
            writeln!(io::stdout())?;
        }
        let earlier = before.and_then(|(statistics, ago)| {
            let bridge = statistics
                .bridges
                .iter()
                .find(|earlier| earlier.bridge == bridge.bridge)?;
            Some((bridge, ago))
        });
        bridge_statistics(bridge, earlier)?;
    }
    for (index, bridge) in now.accelerated.iter().enumerate() {
        if index != 0 || !now.bridges.is_empty() {
            writeln!(io::stdout())?;
        }
        let earlier = before.and_then(|(statistics, ago)| {
            let mut earlier = statistics.accelerated.iter();
            let bridge = earlier.find(|earlier| earlier.bridge == bridge.bridge)?;
            Some((bridge, ago))
        });
        accelerated::statistics(bridge, earlier)?;
    }
    Ok(())
}

fn bridge_statistics(now: &BridgeStatistics, before: Option<(&BridgeStatistics, Duration)>) -> Result<()> {
    writeln!(io::stdout(), "{}", now.bridge)?;
    let heads = [
        "  PORT",
        "RX FRAMES",
        "RX BYTES",
        "TX FRAMES",
        "TX BYTES",
        "FLOODED",
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
            port.tx.frames.to_string(),
            port.tx.bytes.to_string(),
            port.flooded.frames.to_string(),
            port.gso_frames.to_string(),
            port.passed_up.to_string(),
            port.checksums_completed.to_string(),
        ]);
    }
    ports.print()?;
    let earlier = before.map(|(before, ago)| (&before.paths[..], ago));
    paths(&now.paths, earlier)?;
    drops(&now.ports)
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
            path.to.clone(),
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

fn drops(ports: &[PortStatistics]) -> Result<()> {
    let mut table = Table::new(2, &["  DROPPED AT", "REASON", "FRAMES"]);
    for port in ports {
        for (reason, count) in &port.dropped {
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
