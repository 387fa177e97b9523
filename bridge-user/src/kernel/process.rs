//! What procfs says of processes.

use std::{fs, path::Path};

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its name, at most 15 bytes.
    pub comm: String,
    /// Clock ticks that its threads, those that have ended too, were in user space, or in a guest: `utime`.
    pub user: u64,
    /// Likewise in the kernel: `stime`.
    pub system: u64,
    /// When it began: a later one may have the same id.
    pub started: u64,
}

impl Stat {
    /// Of a process, if it is there and may be looked at.
    pub fn of(process: u32) -> Option<Self> {
        Self::read(Path::new(&format!("/proc/{process}")))
    }

    /// As [`Self::of`], by the process's folder in a procfs.
    pub fn read(folder: &Path) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(folder.join("stat")).ok()?))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name may have any characters, parentheses and line breaks too.
        let (begin, fields) = text.rsplit_once(')')?;
        let (_, comm) = begin.split_once('(')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        Some(Self {
            comm: comm.into(),
            user: fields.get(11)?.parse().ok()?,
            system: fields.get(12)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let stat = Stat::parse("7 (a (vm) m) S 1 7 7 0 -1 4194560 100 0 0 0 250 125 0 0 20 0 1 0 4711 1 1")
            .expect("a process");
        assert_eq!((&*stat.comm, stat.started), ("a (vm) m", 4711));
        assert_eq!((stat.user, stat.system), (250, 125));
        assert_eq!(Stat::parse("7 (vmm) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }
}
