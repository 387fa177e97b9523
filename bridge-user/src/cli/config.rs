//! `config`: configurations of `run`.

use std::io::{self, Write as _};

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::json;
use tapbridge::{SCHEMA, snapshot::overview, state::State};

use super::{examples, print};

#[derive(Subcommand)]
pub enum Config {
    /// Print a configuration that asks for what is attached now
    ///
    /// Ports are named one by one unless all of a bridge's are attached; patterns such as "vnet*" are about those that
    /// come later, too.
    #[command(after_help = examples::CONFIG_DUMP)]
    Dump,
}

/// Does what the user said.
pub async fn run(state: &State, command: Config, as_json: bool) -> Result<()> {
    let Config::Dump = command;
    let overview = overview::read(state, None).await?;
    // Else it would be a configuration that asks for nothing.
    if let Some(entry) = overview.unreadable.iter().find(|entry| entry.is_of_namespace()) {
        bail!("{}", entry.error);
    }
    let text = overview.configuration();
    if as_json {
        return print::json(&json!({ "schema": SCHEMA, "configuration": text }));
    }
    Ok(write!(io::stdout(), "{text}")?)
}
