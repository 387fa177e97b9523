//! `tapbridge-lab spin`: keeps a CPU awake.

use std::{hint, path::PathBuf};

use anyhow::Result;
use clap::Args;
use nix::unistd::getppid;

use crate::host::{cgroup, steady::SPINS};

/// Between two system calls, so that these come about once in a microsecond.
const PAUSES: u32 = 16;

/// Join a cgroup, and do nothing without ever sleeping, until killed.
#[derive(Debug, Args)]
pub struct SpinArguments {
    /// The cgroup's folder
    #[arg(value_name = "FOLDER")]
    group: PathBuf,
}

impl SpinArguments {
    pub fn run(&self) -> Result<()> {
        cgroup::join(&self.group)?;
        eprintln!("{SPINS}");
        loop {
            for _ in 0..PAUSES {
                hint::spin_loop();
            }
            // A kernel that preempts lazily interrupts nobody for a process that wakes up: it takes the CPU when
            // whoever has it returns from a system call.
            getppid();
        }
    }
}
