//! `check`: whether a configuration can be used, and what following it would change.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tapbridge::{
    SCHEMA,
    config::DEFAULT_CONFIG,
    control::{self, Followed, Plan, Step},
    kernel::requirements,
    state::State,
};

use super::{
    print::{self, counted},
    run::read,
};

#[derive(Args)]
pub struct Check {
    /// The configuration
    #[arg(value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Reads a configuration, and prints what 'run' would do with it; without root only whether it can be used.
pub async fn run(state: &State, arguments: Check, as_json: bool) -> Result<()> {
    let Followed { path, config } = read(arguments.config)?;
    let plan = match requirements::check_permission() {
        Ok(()) => Some(control::plan(state, &config).await?),
        Err(_) => None,
    };
    let rules = config.bridges.len();
    if as_json {
        let (steps, idle) = plan.map(|plan| (plan.steps, plan.idle)).unzip();
        let document =
            json!({ "schema": SCHEMA, "path": path, "rules": rules, "steps": steps, "idle": idle });
        return print::json(&document);
    }
    let mut out = io::stdout();
    let path = path.display();
    let rules = counted(u64::try_from(rules)?, "rule", "rules");
    let Some(Plan { steps, idle }) = plan else {
        return Ok(writeln!(
            out,
            "{path}: {rules}; root is told what it would change"
        )?);
    };
    if steps.is_empty() {
        writeln!(out, "{path}: {rules}, and nothing to change")?;
    } else {
        writeln!(out, "{path}: {rules}")?;
    }
    for step in steps {
        writeln!(out, "{}", line(&step))?;
    }
    for rule in idle {
        writeln!(out, "{rule}: no port that this rule is about is here now")?;
    }
    Ok(())
}

fn line(step: &Step) -> String {
    let sign = if step.action == "attach" { '+' } else { '~' };
    let hook = step
        .hook
        .map(|hook| format!(" --hook {hook}"))
        .unwrap_or_default();
    let bypass = match step.bypass_netfilter {
        Some(true) => " --bypass-netfilter",
        Some(false) => " --no-bypass-netfilter",
        None => "",
    };
    format!("{sign} {}: {}{hook}{bypass}", step.master, step.ifname)
}
