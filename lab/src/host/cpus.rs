//! The CPUs that this process may use, and who stays on which.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::host::plan::GuestId;

/// The calling thread or process, to the system calls here.
const SELF: Pid = Pid::from_raw(0);

/// Those that this process may use, in ascending order.
pub fn allowed() -> Result<Vec<usize>> {
    let all = sched_getaffinity(SELF).context("asking for this process's CPUs")?;
    let cpus = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap_or(false));
    Ok(cpus.collect())
}

/// Keeps the calling thread on a CPU.
pub fn stay_on(cpu: usize) -> Result<()> {
    sched_setaffinity(SELF, &only(cpu)?).with_context(|| format!("staying on CPU {cpu}"))
}

/// Keeps the command's process, with all that it will start, on a CPU, if there is one to stay on.
pub fn confine(command: &mut Command, cpu: impl Into<Option<usize>>) -> Result<()> {
    if let Some(cpu) = cpu.into() {
        let only = only(cpu)?;
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(sched_setaffinity(SELF, &only)?));
        }
    }
    Ok(())
}

fn only(cpu: usize) -> Result<CpuSet> {
    let mut only = CpuSet::new();
    only.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    Ok(only)
}

/// Where the guests are: each on a CPU of its own or, by default, wherever the scheduler puts it.
#[derive(Debug, Clone, Default)]
pub struct Placement(Vec<usize>);

impl Placement {
    /// Guests take these CPUs in turn.
    pub fn in_turn(cpus: Vec<usize>) -> Self {
        Self(cpus)
    }

    /// The one CPU of a guest, if it has one.
    pub fn cpu(&self, id: GuestId) -> Option<usize> {
        let turn = usize::from(id.0 - 1).checked_rem(self.0.len())?;
        Some(self.0[turn])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_take_the_cpus_in_turn() {
        let placement = Placement::in_turn(vec![2, 5, 7]);
        let cpus = [1, 2, 3, 4].map(|number| placement.cpu(GuestId(number)));
        assert_eq!(cpus, [Some(2), Some(5), Some(7), Some(2)]);
    }

    #[test]
    fn by_default_a_guest_has_no_cpu() {
        assert_eq!(Placement::default().cpu(GuestId(1)), None);
    }
}
