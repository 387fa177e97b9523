//! CPU time, from /proc.

use std::fs;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

use crate::results::{Cpu, HostCpu};

/// Of the whole host until now.
pub fn of_host() -> Result<HostCpu> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    parse_host(&stat, ticks_per_s()?)
}

/// Of a process and its threads until now.
pub fn of_process(id: u32) -> Result<Cpu> {
    let path = format!("/proc/{id}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_process(&stat, ticks_per_s()?).with_context(|| format!("{path}: {stat}"))
}

/// Of softirqs, until now, as far as it is in no process's time. A kernel that counts time by ticks has that of a softirq in
/// the time of the process that it interrupted too, so that only threads for softirqs count; one that measures the time of
/// interrupts has it in no process's.
pub fn of_softirqs() -> Result<f64> {
    let host = of_host()?;
    // Ticks never meet an interrupt: they are one.
    if host.irq_s > 0.0 {
        return Ok(host.softirq_s);
    }
    let processes = fs::read_dir("/proc").context("reading /proc")?;
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let threads = ids.filter(|&id| is_softirq_thread(id));
    threads.map(|id| Ok(of_process(id)?.system_s)).sum()
}

/// Whether it is one of the kernel's threads that do what softirqs have left, of which each CPU has one.
fn is_softirq_thread(id: u32) -> bool {
    let of_the_kernel = |id| fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.is_empty());
    comm(id).is_ok_and(|comm| comm.starts_with("ksoftirqd/")) && of_the_kernel(id)
}

/// What a process is called, at most 15 characters.
pub fn comm(id: u32) -> Result<String> {
    let path = format!("/proc/{id}/comm");
    let comm = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    Ok(comm.trim_end().into())
}

/// The unit of /proc's times, see `proc_stat(5)`.
#[expect(clippy::cast_precision_loss, reason = "it is 100")]
fn ticks_per_s() -> Result<f64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?;
    Ok(ticks.context("the system has no clock ticks")? as f64)
}

/// The first line: `cpu user nice system idle iowait irq softirq steal guest guest_nice`. Guests' time is within that
/// of users.
fn parse_host(stat: &str, ticks_per_s: f64) -> Result<HostCpu> {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let words = line
        .context("/proc/stat has no line of all CPUs")?
        .split_whitespace();
    let seconds: Vec<f64> = words
        .map(|word| Ok(word.parse::<f64>()? / ticks_per_s))
        .collect::<Result<_>>()?;
    let &[user, nice, system, idle, iowait, irq, softirq, steal, ..] = &*seconds else {
        anyhow::bail!("/proc/stat has too few columns")
    };
    Ok(HostCpu {
        user_s: user + nice,
        system_s: system,
        irq_s: irq,
        softirq_s: softirq,
        steal_s: steal,
        idle_s: idle + iowait,
    })
}

/// Fields 14 and 15; the second is a name in parentheses, which may have any characters.
fn parse_process(stat: &str, ticks_per_s: f64) -> Result<Cpu> {
    let (_, rest) = stat.rsplit_once(") ").context("no name")?;
    let mut words = rest.split(' ').skip(11);
    let mut seconds = || {
        let word = words.next().context("too few fields")?;
        Ok::<_, anyhow::Error>(word.parse::<f64>()? / ticks_per_s)
    };
    Ok(Cpu {
        user_s: seconds()?,
        system_s: seconds()?,
    })
}

/// Ticks are hundredths of seconds: what binary fractions add to a difference is cut off.
pub fn used(now: f64, before: f64) -> f64 {
    ((now - before).max(0.0) * 1e6).round() / 1e6
}

impl HostCpu {
    /// What has been used since; never less than nothing, though /proc may count back by a tick.
    pub fn since(self, before: Self) -> Self {
        let used = |of: fn(&Self) -> f64| used(of(&self), of(&before));
        Self {
            user_s: used(|cpu| cpu.user_s),
            system_s: used(|cpu| cpu.system_s),
            irq_s: used(|cpu| cpu.irq_s),
            softirq_s: used(|cpu| cpu.softirq_s),
            steal_s: used(|cpu| cpu.steal_s),
            idle_s: used(|cpu| cpu.idle_s),
        }
    }
}

impl Cpu {
    /// What has been used since.
    pub fn since(self, before: Self) -> Self {
        Self {
            user_s: used(self.user_s, before.user_s),
            system_s: used(self.system_s, before.system_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_for_softirqs_are_the_kernels() {
        assert!(!is_softirq_thread(std::process::id()));
        assert!(of_softirqs().unwrap() >= 0.0);
    }

    fn equal(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn the_hosts_time_is_that_of_all_cpus() {
        let stat = "cpu  100 20 300 4000 50 6 700 8 90 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let cpu = parse_host(stat, 100.0).unwrap();
        assert!(equal(cpu.user_s, 1.2) && equal(cpu.system_s, 3.0) && equal(cpu.idle_s, 40.5));
        assert!(equal(cpu.irq_s, 0.06) && equal(cpu.softirq_s, 7.0) && equal(cpu.steal_s, 0.08));
        assert!(equal(cpu.busy_s(), 1.2 + 3.0 + 0.06 + 7.0));
        assert!(parse_host("intr 1\n", 100.0).is_err());
    }

    #[test]
    fn the_times_of_a_process_with_a_strange_name_are_found() {
        let stat = "42 (a) R 1) S 1 42 42 0 -1 4194560 100 0 0 0 250 125 0 0 20 0 1 0";
        let cpu = parse_process(stat, 100.0).unwrap();
        assert!(equal(cpu.user_s, 2.5) && equal(cpu.system_s, 1.25));
    }

    #[test]
    fn a_count_that_went_back_is_nothing_used() {
        let [earlier, later] = [2.0, 1.0].map(|user_s| Cpu {
            user_s,
            system_s: 0.0,
        });
        assert!(equal(later.since(earlier).user_s, 0.0));
    }
}
