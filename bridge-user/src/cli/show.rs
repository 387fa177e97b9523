//! `show`: bridges and ports as they are.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use tapbridge::{
    snapshot::overview::{self, BridgeOverview, Overview, PortOverview},
    state::State,
};

use super::{
    Form, Which,
    print::{
        self,
        color::{Color, paint},
        counted,
        progress::Progress,
        table::{NOTHING, Table},
    },
    seconds,
    watch::watch,
};

#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    which: Which,

    /// Print again every so many seconds, until Ctrl-C: 0.1 to 86400
    #[arg(long, value_name = "SECONDS", value_parser = |text: &str| seconds(text, 0.1, 86_400.0))]
    watch: Option<Duration>,
}

/// Looks and prints, once or again and again.
pub async fn run(state: &State, Show { which, watch: period }: Show, form: Form) -> Result<()> {
    let is_whole = which.ports.is_empty();
    let only = which.into();
    let mut is_first = true;
    watch(period, async || {
        let progress = Progress::reading(form == Form::Json);
        let overview = overview::read(state, &only).await?;
        drop(progress);
        if form == Form::Text && !is_first {
            writeln!(io::stdout())?;
        }
        is_first = false;
        print(&overview, form, is_whole)
    })
    .await
}

fn print(overview: &Overview, form: Form, is_whole: bool) -> Result<()> {
    match form {
        Form::Json => return print::json(overview),
        Form::Brief => return brief(overview),
        Form::Text => {}
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
        print_bridge(bridge, is_whole)?;
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

/// With all of its ports, or with those that were asked for.
fn print_bridge(bridge: &BridgeOverview, is_whole: bool) -> Result<()> {
    match &bridge.bridge {
        Some(name) => {
            let attached = bridge.ports.iter().filter(|port| port.attached).count();
            let all = counted(bridge.ports.len() as u64, "port", "ports");
            let ports = format!("{attached} of {all} attached");
            let own = "made by 'attach': it goes with its last port".to_owned();
            let words: Vec<_> = [(is_whole, ports), (bridge.own, own)]
                .into_iter()
                .filter_map(|(is_said, words)| is_said.then_some(words))
                .collect();
            let colon = if words.is_empty() { "" } else { ": " };
            writeln!(
                io::stdout(),
                "{}{colon}{}",
                paint(name, Color::Name),
                words.join(", ")
            )?;
        }
        None => writeln!(io::stdout(), "without a bridge:")?,
    }
    ports(&bridge.ports).print()?;
    for obstacle in &bridge.obstacles {
        writeln!(io::stdout(), "  {}", obstacle.text)?;
    }
    for port in &bridge.ports {
        let problems = port.problems.iter().map(|problem| &problem.text);
        let obstacles = port.obstacles.iter().map(|obstacle| &obstacle.text);
        for text in problems.chain(obstacles) {
            writeln!(io::stdout(), "  {}: {text}", paint(&port.ifname, Color::Name))?;
        }
    }
    Ok(())
}

/// The columns that few ports have something to say in come last.
fn ports(ports: &[PortOverview]) -> Table {
    let heads = ["  PORT", "KIND", "HOOKS", "STATE", "MTU", "CHANGES", "NETFILTER"];
    let mut table = Table::new(4, &heads).names([0]).paint(3, Color::of_state);
    for port in ports {
        let mut hooks = port.hooks.join(" + ");
        if port.hook == Some("auto") && !hooks.is_empty() {
            hooks += " (auto)";
        }
        table.row([
            format!("  {}", port.ifname),
            or_nothing(port.kind),
            if hooks.is_empty() { or_nothing(None) } else { hooks },
            port.state.to_owned(),
            or_nothing(port.mtu.map(|mtu| mtu.to_string()).as_deref()),
            port.hook_changed
                .filter(|_| port.hook == Some("auto"))
                .map_or_else(|| or_nothing(None), |ago| changes(port.hook_changes, ago)),
            or_nothing(port.bypass_netfilter.then_some("bypass")),
        ]);
    }
    table.without_if_empty(6).without_if_empty(5)
}

fn or_nothing(cell: Option<&str>) -> String {
    cell.unwrap_or(NOTHING).to_owned()
}

/// Such as "3, last 12 s ago".
fn changes(count: u32, ago: u64) -> String {
    format!("{count}, last {ago} s ago")
}

/// A line for each port, whose columns the help names.
fn brief(overview: &Overview) -> Result<()> {
    let mut lines = Vec::new();
    for bridge in &overview.bridges {
        for port in &bridge.ports {
            let problems = port.problems.iter().map(|problem| problem.problem);
            let obstacles = port.obstacles.iter().chain(&bridge.obstacles);
            let reasons: Vec<_> = problems
                .chain(obstacles.map(|obstacle| obstacle.reason))
                .collect();
            let joined = |words: &[&str], separator: &str| match words {
                [] => NOTHING.to_owned(),
                words => words.join(separator),
            };
            lines.push(vec![
                port.ifname.clone(),
                or_nothing(bridge.bridge.as_deref()),
                port.state.replace(' ', "-"),
                or_nothing(port.kind),
                joined(&port.hooks, "+"),
                or_nothing(port.hook),
                or_nothing(port.mtu.map(|mtu| mtu.to_string()).as_deref()),
                or_nothing(port.bypass_netfilter.then_some("bypass")),
                joined(&reasons, ","),
            ]);
        }
    }
    print::brief(&lines)
}
