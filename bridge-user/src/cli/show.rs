//! `show`: bridges and ports as they are.

use std::io::{self, Write as _};

use anyhow::Result;
use tapbridge::{
    snapshot::overview::{self, BridgeOverview, Overview},
    state::State,
};

use super::{
    Which,
    print::{self, counted, table::Table},
};

/// Looks and prints.
pub async fn run(state: &State, Which { bridge }: Which, json: bool) -> Result<()> {
    print(&overview::read(state, bridge.as_deref()).await?, json)
}

fn print(overview: &Overview, as_json: bool) -> Result<()> {
    if as_json {
        return print::json(overview);
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
        print_bridge(bridge)?;
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

fn print_bridge(bridge: &BridgeOverview) -> Result<()> {
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
