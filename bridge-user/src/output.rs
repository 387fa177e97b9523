//! What the commands print: tables for people, JSON for programs.

pub mod progress;
mod statistics;
mod syscalls;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use tapbridge::{
    SCHEMA,
    attach::Attachment,
    common::forwarding::Reason,
    detach::Detachment,
    fdb::Entry,
    run::{Change, Notice, Vanished},
    show::{BridgeOverview, Overview},
    state::Cleared,
};

pub use self::{statistics::statistics, syscalls::syscalls};

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
        let error = serde_json::json!({ "schema": SCHEMA, "error": { "message": message } });
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

pub fn attached(report: &Attachment, cleared: &[Cleared], as_json: bool) -> Result<()> {
    let Attachment { ports, without_ports } = report;
    if as_json {
        let document = serde_json::json!(
            { "schema": SCHEMA, "ports": ports, "without_ports": without_ports, "cleared": cleared }
        );
        return json(&document);
    }
    for bridge in without_ports {
        writeln!(io::stdout(), "{bridge}: has no ports, so nothing is attached")?;
    }
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
            port.master,
            port.hooks.join(" + "),
            if port.hook == "auto" { ", auto" } else { "" },
            port.note.map(|note| format!("; {note}")).unwrap_or_default()
        )?;
    }
    Ok(())
}

pub fn detached(report: &Detachment, as_json: bool) -> Result<()> {
    let Detachment {
        ports,
        cleared,
        unreadable,
    } = report;
    if as_json {
        let document = serde_json::json!(
            { "schema": SCHEMA, "ports": ports, "unreadable": unreadable, "cleared": cleared }
        );
        return json(&document);
    }
    for entry in unreadable {
        error(&entry.error, false);
    }
    for port in ports {
        let what = if port.gone {
            "was gone; its place is cleared"
        } else {
            "detached"
        };
        let bridge = port.master.as_ref().map(|bridge| {
            let out = if port.released { "out of " } else { "" };
            format!(" ({out}{bridge})")
        });
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
    for Cleared { name, reason } in cleared.iter().filter(|_| !as_json) {
        eprintln!("{name}: cleared away: {reason}");
    }
}

/// What `run` has to tell: its changes go to standard output, the rest to standard error.
pub fn notice(notice: &Notice, as_json: bool) -> Result<()> {
    match notice {
        Notice::Ready => eprintln!("watching the ports of '--hook auto'; Ctrl-C ends"),
        Notice::Failed(failure) => error(&format!("{failure}; trying again"), as_json),
        Notice::Vanished(vanished) if as_json => json(vanished)?,
        Notice::Vanished(Vanished { ports, .. }) => {
            let text = format!(
                "the programs on {0} are gone though no command has detached them: their bpffs was unmounted, or their \
                 folder removed; their bridges go on without them, and 'tapbridge attach {0}' attaches them again",
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

pub fn overview(overview: &Overview, as_json: bool) -> Result<()> {
    if as_json {
        return json(overview);
    }
    for entry in &overview.unreadable {
        writeln!(io::stdout(), "{}", entry.error)?;
    }
    if overview.bridges.is_empty() && overview.unreadable.is_empty() {
        return Ok(writeln!(
            io::stdout(),
            "no ports are attached in this network namespace; 'tapbridge attach --master BRIDGE' attaches a bridge's"
        )?);
    }
    for (index, bridge) in overview.bridges.iter().enumerate() {
        if index != 0 {
            writeln!(io::stdout())?;
        }
        show_bridge(bridge)?;
    }
    let mut ports = overview.bridges.iter().flat_map(|bridge| &bridge.ports);
    if !overview.running && ports.any(|port| port.hook == Some("auto")) {
        writeln!(
            io::stdout(),
            "\n'auto' ports keep the hooks that they have: 'tapbridge run' is not running"
        )?;
    }
    Ok(())
}

fn show_bridge(bridge: &BridgeOverview) -> Result<()> {
    let attached = bridge.ports.iter().filter(|port| port.attached).count();
    let own = if bridge.own {
        ", made by 'attach': it goes with its last port"
    } else {
        ""
    };
    match &bridge.bridge {
        Some(name) => writeln!(
            io::stdout(),
            "{name}: {attached} of {} attached{own}",
            counted(bridge.ports.len() as u64, "port", "ports")
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
    let mut table = Table::new(5, &["MAC", "VLAN", "PORT", "BRIDGE", "FAST", "LAST SEEN"]);
    for entry in entries {
        table.row([
            entry.mac.clone(),
            entry.vlan.map_or_else(|| "-".to_owned(), |vlan| vlan.to_string()),
            entry.ifname.clone(),
            entry.master.clone(),
            if entry.fast { "yes" } else { "-" }.to_owned(),
            entry
                .updated
                .map_or_else(|| entry.state.to_owned(), |seconds| format!("{seconds} s ago")),
        ]);
    }
    table.print()
}
