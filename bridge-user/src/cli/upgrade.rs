//! `upgrade`: what is attached gets the programs of this binary.

use std::io::{self, Write as _};

use anyhow::Result;
use serde_json::json;
use tapbridge::{SCHEMA, fastpath::FastPath, state::State};

use super::{
    print::{self, counted, progress::Progress},
    signals::uninterrupted,
};

/// Replaces the programs, and says of how many ports.
pub async fn run(state: &State, as_json: bool) -> Result<()> {
    let upgrade = async {
        let Some(locked) = state.lock_existing()? else {
            return Ok(0);
        };
        let upgraded = FastPath::upgrade(&locked)?;
        upgraded.map_or(Ok(0), |fast| fast.ports().map(|ports| ports.len()))
    };
    let progress = Progress::new("replacing programs", "replaced", as_json);
    let ports = uninterrupted(upgrade).await?;
    drop(progress);
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
