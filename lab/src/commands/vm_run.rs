//! `tapbridge-lab vm-run`: programs of the host on the kernel that is tested beside the host's own.

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    host::interrupt,
    testbed::{guest::TestsMachine, vm_image::Packages},
};

/// Run commands in a virtual machine with the kernel for tests, one after the other, whether they succeed or not
///
/// Its root file system is in memory and has busybox and what `--with` names. All output is printed as it comes.
#[derive(Debug, Args)]
pub struct VmRunArguments {
    /// Folder with the packages of virtual machines, which `cargo xtask setup` fetches
    #[arg(long, value_name = "FOLDER")]
    vm: PathBuf,

    /// File of this machine that the virtual one has at the same path, with the libraries that it needs
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,

    /// Longest time that a command may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,

    /// Commands for a shell
    #[arg(last = true, required = true, value_name = "COMMAND")]
    commands: Vec<String>,
}

impl VmRunArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        let start = Instant::now();
        let machine = TestsMachine::boot(&Packages::open(&self.vm)?, &self.with)?;
        println!(
            "{}, booted in {:.1} s",
            machine.description,
            start.elapsed().as_secs_f64()
        );
        let mut failed = Vec::new();
        for command in &self.commands {
            println!("\n$ {command}");
            let print = |lines: &str| {
                // Whoever read our output may have gone; the commands still count.
                let _ = stdout()
                    .write_all(lines.as_bytes())
                    .and_then(|()| stdout().flush());
            };
            let status = machine.run(command, Duration::from_secs(self.limit), print)?;
            if status != 0 {
                failed.push(format!("'{command}' (status {status})"));
            }
        }
        if !failed.is_empty() {
            bail!("in the virtual machine failed: {}", failed.join(", "));
        }
        Ok(())
    }
}
