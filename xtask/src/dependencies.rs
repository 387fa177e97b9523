//! `cargo xtask dependencies`.

use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::{command, workspace};

use crate::{CARGO_LIMIT, setup};

/// Checks licences, versions and sources, which takes no network: what the crates are was fetched to build them.
pub fn check() -> Result<()> {
    let mut deny = Command::new(setup::cargo_deny()?);
    deny.current_dir(workspace())
        .args(["--offline", "--locked", "check", "licenses", "bans", "sources"]);
    command::run(&mut deny, CARGO_LIMIT).context("its messages are above, and deny.toml says what is allowed")
}
