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
    control::{self, Followed, Step},
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
    let steps = match requirements::check_permission() {
        Ok(()) => Some(control::plan(state, &config).await?),
        Err(_) => None,
    };
    let rules = config.bridges.len();
    if as_json {
        return print::json(&json!({ "schema": SCHEMA, "path": path, "rules": rules, "steps": steps }));
    }
    let mut out = io::stdout();
    let rules = counted(u64::try_from(rules)?, "rule", "rules");
    match &steps {
        None => writeln!(
            out,
            "{}: {rules}; root is told what it would change",
            path.display()
        )?,
        Some(steps) if steps.is_empty() => writeln!(out, "{}: {rules}, and all is so", path.display())?,
        Some(steps) => {
            writeln!(out, "{}: {rules}", path.display())?;
            for Step {
                ifname,
                master,
                action,
                hook,
                bypass_netfilter,
            } in steps
            {
                let sign = if *action == "attach" { '+' } else { '~' };
                let hook = hook.map(|hook| format!(" --hook {hook}")).unwrap_or_default();
                let bypass = match bypass_netfilter {
                    Some(true) => " --bypass-netfilter",
                    Some(false) => " --no-bypass-netfilter",
                    None => "",
                };
                writeln!(out, "{sign} {master}: {ifname}{hook}{bypass}")?;
            }
        }
    }
    Ok(())
}
