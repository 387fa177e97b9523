//! The program in the kernel, and what it has counted.

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap},
    programs::RawTracePoint,
};
use bridge_common::syscalls::{COUNTS, Key, NAME, NAMES, PROCESSES, PROGRAM, SETTINGS, Settings, UNCOUNTED};

use super::{
    offsets::task_offsets,
    selection::{Selection, kept},
};
use crate::{
    error::{Context as _, Error, Result, causes},
    kernel::{namespace, verifier},
};

/// The program, built for the kernel by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls.bpf.o"));

/// Ids that are counted.
pub type Processes = HashMap<MapData, u32, u8>;

/// The program and its maps.
pub struct Counter {
    object: Ebpf,
    /// The chosen processes, if they were chosen by their ids.
    pub processes: Processes,
}

impl Counter {
    /// Loads the program, which counts nothing until it is attached.
    pub fn load(selection: &Selection) -> Result<Self> {
        let task = task_offsets()?;
        let (by_name, chosen) = match selection {
            Selection::Processes(ids) => (false, ids.len()),
            Selection::Names(names) => (true, names.len()),
        };
        let settings = Settings {
            by_name: by_name.into(),
            namespace: namespace::of_processes()?,
            task_group_leader: task.group_leader,
            task_comm: task.comm,
            compat_word: task.compat.0,
            compat_bits: task.compat.1,
        };
        let room = u32::try_from(chosen).unwrap_or(u32::MAX);
        let mut object = EbpfLoader::new()
            .map_max_entries(PROCESSES, room)
            .map_max_entries(NAMES, room)
            .override_global(SETTINGS, &settings, true)
            .load(OBJECT)
            .at("counter of system calls", "create its maps")?;
        let mut processes: HashMap<_, u32, u8> = take(&mut object, PROCESSES)?;
        let mut names: HashMap<_, [u8; NAME], u8> = take(&mut object, NAMES)?;
        match selection {
            Selection::Processes(ids) => ids.iter().try_for_each(|id| processes.insert(id, 0, 0)),
            Selection::Names(wanted) => wanted.iter().try_for_each(|name| names.insert(kept(name), 0, 0)),
        }
        .at("counter of system calls", "choose processes")?;
        let mut counter = Self { object, processes };
        let program = counter.program()?;
        verifier::load("counter of system calls", || program.load())?;
        Ok(counter)
    }

    /// The program.
    pub fn program(&mut self) -> Result<&mut RawTracePoint> {
        self.object
            .program_mut(PROGRAM)
            .expect("the object has the program that it is built with")
            .try_into()
            .at("counter of system calls", "open")
    }

    /// The kernel has told every thread when this returns (`syscall_regfunc`), so no call is missed from then on.
    pub fn attach(&mut self) -> Result<()> {
        let attached = self.program()?.attach("sys_enter");
        attached.map(drop).map_err(|error| Error::NoSysEnter {
            cause: causes(&error),
        })
    }

    /// Ends counting; the counts stay.
    pub fn detach(&mut self) -> Result<()> {
        self.program()?.unload().at("counter of system calls", "detach")
    }

    /// How often which call was made, on all CPUs. To be asked once.
    pub fn counts(&mut self) -> Result<Vec<(Key, u64)>> {
        let counts: PerCpuHashMap<_, Key, u64> = take(&mut self.object, COUNTS)?;
        let counts = counts.iter().map(|entry| {
            let (key, counts) = entry?;
            Ok((key, counts.iter().sum()))
        });
        counts
            .collect::<Result<_, MapError>>()
            .at("counter of system calls", "read its counts")
    }

    /// Calls that found no room.
    pub fn uncounted(&mut self) -> Result<u64> {
        let uncounted: PerCpuArray<_, u64> = take(&mut self.object, UNCOUNTED)?;
        let counts = uncounted
            .get(&0, 0)
            .at("counter of system calls", "read its counts")?;
        Ok(counts.iter().sum())
    }
}

fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &str) -> Result<T> {
    let map = object
        .take_map(name)
        .expect("the object has the maps that it is built with");
    T::try_from(map).at("counter of system calls", "open a map")
}
