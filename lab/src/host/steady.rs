//! A machine on which identical runs differ less: its CPUs stay awake, and each guest has one of its own.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::host::{
    cgroup::IdleGroup,
    cpus::{self, Placement},
    job::{self, Job, State},
    process::Process,
};

/// On the standard error of `tapbridge-lab spin` once it spins.
pub const SPINS: &str = "spinning";
/// On a busy machine a spinner has to wait for a while until there is nothing better to do.
const START_LIMIT: Duration = Duration::from_mins(1);

/// What keeps the CPUs awake, as long as it is there.
#[derive(Debug)]
pub struct Steady {
    /// Before their cgroup, which cannot be removed while they live.
    spinners: Vec<Process>,
    _group: IdleGroup,
    placement: Placement,
}

impl Steady {
    /// Starts a spinner on each CPU that this process may use.
    pub fn start() -> Result<Self> {
        let cpus = cpus::allowed()?;
        ensure!(
            cpus.len() > 1,
            "--steady keeps each guest on a CPU of its own, and this process may use one only: measure without it"
        );
        let group = IdleGroup::new().context("--steady needs a cgroup that all else goes before")?;
        let spinners = cpus.iter().map(|&cpu| start_spinner(cpu, &group));
        let mut steady = Self {
            spinners: spinners.collect::<Result<_>>()?,
            _group: group,
            placement: Placement::in_turn(cpus),
        };
        for spinner in &mut steady.spinners {
            job::has_printed(spinner, SPINS, START_LIMIT)?;
        }
        Ok(steady)
    }

    /// Where guests are to be.
    pub fn placement(&self) -> Placement {
        self.placement.clone()
    }

    /// An error if a CPU may have slept since the start.
    pub fn check(&mut self) -> Result<()> {
        for spinner in &mut self.spinners {
            let running = spinner.state()? == State::Running;
            ensure!(
                running,
                "the {} has ended: its CPU may have slept",
                spinner.name()
            );
        }
        Ok(())
    }
}

fn start_spinner(cpu: usize, group: &IdleGroup) -> Result<Process> {
    let own = std::env::current_exe().context("finding this program's own file")?;
    let mut command = Command::new(own);
    command.arg("spin").arg(group.path());
    cpus::confine(&mut command, cpu)?;
    Process::start(format!("spinner of CPU {cpu}"), command)
}
