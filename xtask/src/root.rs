//! Doing as root what needs root.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use xtask::{command, toolchain::find_program};

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Makes sure that [`command`] will work: asks sudo for the password, if it wants one, and says what for.
pub fn obtain(reason: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    ensure!(
        find_program("sudo").is_some(),
        "{reason} needs root, and there is no sudo; run this as root"
    );
    println!("{reason} needs root: asking sudo");
    // Not `sudo -v`, which may want a password even where commands need none.
    let status = command::spawn(Command::new("sudo").arg("true").stdin(Stdio::inherit()))?.wait()?;
    ensure!(
        status.success(),
        "{reason} needs root, which sudo refused; run this as root"
    );
    Ok(())
}

/// A command that runs as root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--").arg(program);
    sudo
}
