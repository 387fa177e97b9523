//! `status`: what `run` does, and what it has done lately.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use tapbridge::{
    Error,
    control::{self, Status},
    state::State,
};

use super::print::{self, counted};

/// Asks and prints.
pub async fn run(state: &State, as_json: bool) -> Result<()> {
    let status = control::status(state).await?.ok_or(Error::NotRunning)?;
    if as_json {
        return print::json(&status);
    }
    let age = status.age().map_or_else(String::new, |age| {
        let whole = Duration::from_secs(age.as_secs());
        format!(", for {}", humantime::format_duration(whole))
    });
    let Status {
        pid, version, since, ..
    } = &status;
    let mut out = io::stdout();
    writeln!(
        out,
        "process {pid}, tapbridge {version}, since {since}{age}: {} attached",
        counted(u64::try_from(status.ports)?, "port", "ports")
    )?;
    match &status.config {
        None => writeln!(
            out,
            "follows no configuration: it looks after the hooks of what is attached"
        )?,
        Some(config) => {
            let rules = counted(u64::try_from(config.rules)?, "rule", "rules");
            writeln!(
                out,
                "follows {}: {rules}, read at {}",
                config.path.display(),
                config.read
            )?;
            if let Some(cause) = &config.rejected {
                writeln!(
                    out,
                    "which can't be used as it is now, so that it goes on with those: {cause}"
                )?;
            }
        }
    }
    for failing in &status.failing {
        writeln!(out, "{}; trying again in {} s", failing.message, failing.retry)?;
    }
    for event in &status.last {
        writeln!(out, "{}  {}", event.time, event.message)?;
    }
    Ok(())
}
