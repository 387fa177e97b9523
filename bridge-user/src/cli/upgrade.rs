//! `upgrade`: what is attached gets the programs of this binary.

use std::io::{self, Write as _};

use anyhow::Result;
use serde_json::json;
use tapbridge::{SCHEMA, fastpath::FastPath, state::State};

use super::print::{self, counted};

/// Replaces the programs, and says of how many ports.
pub fn run(state: &State, as_json: bool) -> Result<()> {
    let ports = match state.lock_existing()? {
        Some(locked) => match FastPath::upgrade(&locked)? {
            Some(fast) => fast.ports()?.len(),
            None => 0,
        },
        None => 0,
    };
    if as_json {
        return print::json(&json!({ "schema": SCHEMA, "ports": ports }));
    }
    let version = env!("CARGO_PKG_VERSION");
    if ports == 0 {
        writeln!(io::stdout(), "no ports are attached in this network namespace")?;
    } else {
        let ports = counted(u64::try_from(ports)?, "port has", "ports have");
        writeln!(io::stdout(), "{ports} the programs of tapbridge {version} now")?;
    }
    Ok(())
}
