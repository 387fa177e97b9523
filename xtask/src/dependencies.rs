//! `cargo xtask dependencies`.

use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::{command, workspace};

use crate::{CARGO_LIMIT, cargo, setup};

/// Checks licences, versions and sources.
pub fn check() -> Result<()> {
    // All of them, also those that only other targets build: cargo-deny reads each, and is not to ask for advisories.
    command::run(cargo("fetch").arg("--locked"), CARGO_LIMIT)?;
    let mut deny = Command::new(setup::cargo_deny()?);
    deny.current_dir(workspace())
        .args(["--offline", "--locked", "check", "licenses", "bans", "sources"]);
    command::run(&mut deny, CARGO_LIMIT).context("its messages are above, and deny.toml says what is allowed")
}
