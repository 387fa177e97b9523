//! The CPUs that this process may use, and who stays on which.

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

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

fn only(cpu: usize) -> Result<CpuSet> {
    let mut only = CpuSet::new();
    only.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    Ok(only)
}
