//! Two CPUs: one on which frames are written, and one on which they are read.

use std::fs;

use nix::{
    Result,
    sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

/// The CPUs of a VMM that writes and of one that reads: what one CPU has made, the other has not in its caches, and gives back
/// to the memory of the first. Where there is one CPU for both, they share it.
pub(super) struct Cpus {
    writer: CpuSet,
    reader: CpuSet,
}

impl Cpus {
    /// That the calling thread may run on, of two cores if it may.
    pub fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let allowed: Vec<usize> = (0..CpuSet::count())
            .filter(|&cpu| allowed.is_set(cpu).unwrap_or(false))
            .collect();
        let here = sched_getcpu()?;
        let there = other(here, &allowed, core).unwrap_or(here);
        let only = |cpu| -> Result<CpuSet> {
            let mut set = CpuSet::new();
            set.set(cpu)?;
            Ok(set)
        };
        Ok(Self {
            writer: only(here)?,
            reader: only(there)?,
        })
    }

    /// Moves the calling thread to where frames are written.
    pub fn write(&self) -> Result<()> {
        sched_setaffinity(Pid::from_raw(0), &self.writer)
    }

    /// Moves the calling thread to where frames are read.
    pub fn read(&self) -> Result<()> {
        sched_setaffinity(Pid::from_raw(0), &self.reader)
    }
}

/// Package and core of a CPU: two threads of one core share their caches.
fn core(cpu: usize) -> Option<(String, String)> {
    let read =
        |name: &str| fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{name}")).ok();
    Some((read("physical_package_id")?, read("core_id")?))
}

/// The nearest of these CPUs behind this one, or before all of them, of another core of its package if there is one, or of any
/// other.
fn other<Package: PartialEq, Core: PartialEq>(
    here: usize,
    allowed: &[usize],
    core: impl Fn(usize) -> Option<(Package, Core)>,
) -> Option<usize> {
    let behind = allowed.iter().filter(|&&cpu| cpu > here);
    let before = allowed.iter().filter(|&&cpu| cpu < here);
    let own = core(here);
    let distance = |&cpu: &usize| match (&own, core(cpu)) {
        (Some(own), Some(other)) if *own == other => 2,
        (Some(own), Some(other)) if own.0 != other.0 => 1,
        _ => 0,
    };
    behind.chain(before).copied().min_by_key(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_cpu_is_of_another_core_nearby() {
        // Two packages of two cores of two threads, as kernels number them.
        let core = |cpu: usize| Some((cpu % 4 / 2, cpu % 2));
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(other(0, &all, core), Some(1));
        assert_eq!(other(1, &all, core), Some(4));
        assert_eq!(other(6, &all, core), Some(7));
        // The other thread of its core, and those of the other package.
        assert_eq!(other(0, &[0, 2, 4], core), Some(2));
        assert_eq!(other(0, &[0, 4], core), Some(4));
        assert_eq!(other(0, &[0], core), None);
        // Nobody says what is where.
        assert_eq!(other(1, &[0, 1], |_| None::<(u8, u8)>), Some(0));
    }

    #[test]
    fn a_thread_is_moved_there_and_back() {
        let cpus = Cpus::choose().expect("CPUs");
        for _ in 0..2 {
            cpus.write().expect("move");
            let here = sched_getcpu().expect("a CPU");
            assert!(cpus.writer.is_set(here).expect("a CPU"));
            cpus.read().expect("move");
            let there = sched_getcpu().expect("a CPU");
            assert!(cpus.reader.is_set(there).expect("a CPU"));
        }
    }
}
