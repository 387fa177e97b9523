//! What was counted, read as of one moment.
//!
//! When a port goes, what it has sent to others becomes what ports that are no more have sent to them
//! ([`Path::GONE`]). A reader that meets one place before that and the other one after it would count frames twice, or not
//! at all. So whoever moves counters locks the folder of the pins for that time, some milliseconds, and readers share that
//! lock. It is another lock than that of the state folder, which commands hold for seconds.

use std::{
    fs::{File, TryLockError},
    path::Path as Folder,
    thread,
    time::{Duration, Instant},
};

use bridge_common::{
    counters::PathCounters,
    fastpath::{Path, Port, PortCounters},
};

use super::pinned::FastPath;
use crate::error::Result;

/// How long one waits for another that has been stopped; after that it goes on, and what is read may not fit together.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(1);

/// What all ports of a network namespace have counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Attached ports by index of the device, in order, each with what it has counted.
    pub ports: Vec<(u32, Port, PortCounters)>,
    /// What went from one port to another past the bridge, in order.
    pub paths: Vec<(Path, PathCounters)>,
    /// Whether all of it fits together: no command was moving counters meanwhile.
    pub steady: bool,
}

impl FastPath {
    /// Reads the ports, and what they have counted.
    pub fn counted(&self) -> Result<Counted> {
        let lock = lock(&self.folder, File::try_lock_shared);
        let mut ports = Vec::new();
        for (ifindex, port) in self.ports()? {
            ports.push((ifindex, port, self.counters(ifindex)?));
        }
        Ok(Counted {
            ports,
            paths: self.paths()?,
            steady: lock.is_some(),
        })
    }

    /// Lets nobody read as long as what it answers with is there.
    pub(super) fn moving(&self) -> impl Drop + use<> {
        Moving(lock(&self.folder, File::try_lock))
    }
}

/// Counters are being moved.
struct Moving(Option<File>);

impl Drop for Moving {
    fn drop(&mut self) {
        // Closing it unlocks it.
        self.0 = None;
    }
}

/// The folder, locked until it is closed; none if that could not be had in time.
fn lock(folder: &Folder, attempt: impl Fn(&File) -> Result<(), TryLockError>) -> Option<File> {
    let file = File::open(folder).ok()?;
    let begin = Instant::now();
    while attempt(&file).is_err() {
        if begin.elapsed() >= PATIENCE {
            return None;
        }
        thread::sleep(POLL);
    }
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_the_lock_and_who_moves_counters_waits_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let readers = [(); 2].map(|()| lock(folder.path(), File::try_lock_shared));
        assert!(readers.iter().all(Option::is_some));
        assert!(File::open(folder.path()).unwrap().try_lock().is_err());
        drop(readers);
        let moving = lock(folder.path(), File::try_lock);
        assert!(moving.is_some());
        assert!(File::open(folder.path()).unwrap().try_lock_shared().is_err());
    }

    #[test]
    fn nobody_waits_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let _stopped = lock(folder.path(), File::try_lock_shared);
        assert!(lock(folder.path(), File::try_lock).is_none());
    }
}
