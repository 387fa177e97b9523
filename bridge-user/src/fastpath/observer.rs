//! The programs for a command that only wants to know: pinned nowhere, and attached for as long as the command runs,
//! however that ends.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::{
    maps::{MapData, PerCpuArray},
    programs,
};
use bridge_common::{
    Hook,
    counters::{PathCounters, Traffic},
    fastpath::{Path, map, program},
    observed::{Key, MAX_OBSERVED},
};

use super::{
    counters::{Counters, Paths, duplicate},
    loaded::Loaded,
    pins::take,
};
use crate::{
    error::{Context as _, Result},
    kernel::{bpf::sums, link},
};

/// What can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// That which only looks.
    Observe,
    /// That which carries frames at a hook.
    Carry(Hook),
}

/// The programs, loaded.
pub(crate) struct Observer {
    loaded: Loaded,
    counters: Counters,
    paths: Paths,
    observed: MapData,
    unobserved: PerCpuArray<MapData, u64>,
}

/// What was observed until now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observations {
    /// By what would become of the frames.
    pub frames: Vec<(Key, Traffic)>,
    /// Frames for which there was no room.
    pub uncounted: u64,
}

impl Observer {
    /// Loads the programs, and makes sure that they see the bridge as it is.
    pub fn load() -> Result<Self> {
        let mut loaded = Loaded::to_observe()?;
        Ok(Self {
            counters: Counters::take(&mut loaded.object)?,
            paths: Paths::take(&mut loaded.object)?,
            observed: duplicate(&loaded.object, map::OBSERVED)?,
            unobserved: take(&mut loaded.object, map::UNOBSERVED)?,
            loaded,
        })
    }

    /// Attaches a program to a device of the calling thread's network namespace, behind all that are there, until what is
    /// answered with is dropped.
    pub fn attach(&self, program: Program, ifindex: u32) -> std::io::Result<OwnedFd> {
        let (name, hook) = match program {
            Program::Observe => (program::OBSERVE, Hook::Tcx),
            Program::Carry(Hook::Tcx) => (program::TCX, Hook::Tcx),
            Program::Carry(Hook::Xdp) => (program::XDP, Hook::Xdp),
        };
        link::create(self.descriptor(name)?, ifindex, hook)
    }

    fn descriptor(&self, name: &str) -> std::io::Result<BorrowedFd<'_>> {
        let fd = match self.loaded.program(name) {
            programs::Program::Xdp(xdp) => xdp.fd(),
            programs::Program::SchedClassifier(tcx) => tcx.fd(),
            _ => return Err(std::io::ErrorKind::InvalidData.into()),
        };
        fd.map(|fd| fd.as_fd()).map_err(std::io::Error::other)
    }

    /// Has the programs that carry frames count those of a device, as they do at attached ports.
    pub fn count(&mut self, ifindex: u32) -> Result<()> {
        self.counters.add(ifindex)
    }

    /// What they have carried from device to device.
    pub fn carried(&self) -> Result<Vec<(Path, PathCounters)>> {
        self.paths.read()
    }

    /// What the one that only looks has seen.
    pub fn observations(&self) -> Result<Observations> {
        let unobserved = self.unobserved.get(&0, 0).at(map::UNOBSERVED, "read")?;
        Ok(Observations {
            frames: sums(&self.observed, MAX_OBSERVED).at(map::OBSERVED, "read")?,
            uncounted: unobserved.iter().sum(),
        })
    }
}
