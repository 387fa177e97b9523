//! What is pinned for a network namespace.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path as FilePath, PathBuf},
};

use aya::{
    maps::{Array, HashMap, MapData},
    programs::SchedClassifier,
};
use bridge_common::{
    counters::PathCounters,
    fastpath::{
        Answer, MAX_PORTS, OLDEST_VERSION, Path, Port, PortCounters, Settings, VERSION, map, program,
    },
    mac::Mac,
};

use super::{
    counters::{Counters, Paths},
    events::{self, Events},
    log::{self, FrameLog},
    pins::{gone, links, pinned, pinned_data, remove},
    scratch,
};
use crate::{
    error::{Context as _, Error, Result},
    kernel::{
        bpf::{elements, lacks_memory, when_refilled},
        link,
        namespace::Network,
        ring::Begin,
    },
    state::{Cleared, FASTPATH_PREFIX, Folder, Leftover, Unreadable, file_name},
};

/// How often pins are opened that others replace meanwhile.
const ATTEMPTS: usize = 10;

/// The fast path of a network namespace.
pub struct FastPath {
    pub(super) folder: PathBuf,
    /// Of what is pinned, [`VERSION`] or an earlier one that can be read.
    pub(super) version: u32,
    pub(super) ports: HashMap<MapData, u32, Port>,
    /// The map of `ports`, to be read at once.
    ports_data: MapData,
    counters: Counters,
    paths: Paths,
}

/// The program that says what the hooks would decide.
pub(crate) struct Oracle(SchedClassifier);

impl Oracle {
    /// What the hooks would make now of a frame that a port receives, if only the bridge had just seen its source.
    pub(crate) fn ask(&self, ifindex: u32, source: Mac, destination: Mac) -> Result<Answer> {
        scratch::run(&self.0, ifindex, &scratch::frame(source.0, destination.0)).map(Answer)
    }
}

/// Where the calling thread's network namespace has its fast path.
pub(super) fn folder(state: &Folder) -> Result<PathBuf> {
    Ok(state.path(&format!("{FASTPATH_PREFIX}{:x}", Network::current()?.cookie)))
}

/// Opens pins of a folder by their names, again if they are others by then: an upgrade puts another folder in its place, and a
/// removal begins with the settings.
fn steadily<T>(folder: &FilePath, open: impl Fn() -> Result<T>) -> Result<T> {
    let inode = || {
        fs::metadata(folder.join(map::SETTINGS))
            .ok()
            .map(|data| data.ino())
    };
    for _ in 0..ATTEMPTS {
        let before = inode();
        let opened = open();
        if inode() == before {
            return opened;
        }
    }
    open()
}

impl FastPath {
    /// What tells the calling thread's network namespace's from an earlier one, whole or half made; none if there is none.
    pub(crate) fn inode(state: &Folder) -> Result<Option<u64>> {
        Ok(fs::metadata(folder(state)?).ok().map(|data| data.ino()))
    }

    /// Opens that of the calling thread's network namespace, and lists what else is in the state folder. If it can't be used
    /// it is in the list.
    pub(crate) fn open_or_list(state: &Folder) -> Result<(Option<Self>, Vec<Unreadable>)> {
        let mut unreadable: Vec<_> = state.leftovers()?.iter().map(Leftover::unreadable).collect();
        let fast = Self::open(state).or_else(|error| {
            unreadable.insert(0, Unreadable::of(&error).ok_or(error)?);
            Ok::<_, Error>(None)
        })?;
        Ok((fast, unreadable))
    }

    /// Opens that of the calling thread's network namespace, if there is one that is whole, to be read: it may be an earlier
    /// version's.
    pub fn open(state: &Folder) -> Result<Option<Self>> {
        let folder = folder(state)?;
        steadily(&folder, || Self::open_at(folder.clone()))
    }

    /// Opens what is told of the ports of the calling thread's network namespace, for a reader, with the inode that tells it
    /// from a later one; none if there are none.
    pub(crate) fn events(state: &Folder, begin: Begin) -> Result<Option<(u64, Events)>> {
        let folder = folder(state)?;
        steadily(&folder, || {
            let Some(inode) = Self::inode(state)? else {
                return Ok(None);
            };
            match Self::open_at(folder.clone())? {
                None => Ok(None),
                Some(fast) if fast.is_current() => Ok(Some((inode, events::open(&folder, begin)?))),
                Some(_) => Err(Error::NoEvents { path: folder.clone() }),
            }
        })
    }

    /// Has printed what the programs say of each frame; none if they say nothing, or there are none.
    pub(crate) fn log(state: &Folder) -> Result<Option<FrameLog>> {
        let folder = folder(state)?;
        steadily(&folder, || {
            let open = Self::open_at(folder.clone())?;
            open.map_or(Ok(None), |_| log::open(&folder))
        })
    }

    /// Opens what is pinned in a folder.
    pub(super) fn open_at(folder: PathBuf) -> Result<Option<Self>> {
        if !folder.is_dir() {
            return if folder.exists() {
                Err(Error::Foreign { path: folder })
            } else {
                Ok(None)
            };
        }
        let damaged = |error: Error| Error::Damaged {
            path: folder.clone(),
            cause: error.to_string(),
        };
        // Half made, or half removed.
        if !folder.join(map::SETTINGS).exists() {
            return Ok(None);
        }
        let settings: Array<_, Settings> = pinned(&folder, map::SETTINGS).map_err(damaged)?;
        let settings = settings.get(&0, 0).at(folder.display(), "read its settings")?;
        match settings.version {
            0 => Ok(None),
            version @ OLDEST_VERSION..=VERSION => Ok(Some(Self {
                ports: pinned(&folder, map::PORTS).map_err(damaged)?,
                ports_data: pinned_data(&folder, map::PORTS).map_err(damaged)?,
                counters: Counters::open(&folder, version).map_err(damaged)?,
                paths: Paths::open(&folder).map_err(damaged)?,
                version,
                folder,
            })),
            found => Err(Error::OtherVersion {
                path: folder,
                found,
                expected: VERSION,
            }),
        }
    }

    /// Removes it: what is pinned, and with it the programs and maps.
    pub fn remove(&self) -> Result<()> {
        remove(&self.folder)
    }

    /// Whether it is of this version, and can be changed.
    pub fn is_current(&self) -> bool {
        self.version == VERSION
    }

    /// The devices that links are attached to which are pinned for the calling thread's network namespace.
    pub(crate) fn linked_devices(state: &Folder) -> Result<Vec<u32>> {
        let folder = folder(state)?;
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut devices: Vec<u32> = links(&folder)?
            .iter()
            .filter_map(|path| link::device_of(path))
            .collect();
        devices.sort_unstable();
        devices.dedup();
        Ok(devices)
    }

    /// Removes what is pinned for network namespaces that are gone.
    pub fn clear_abandoned(state: &Folder) -> Result<Vec<Cleared>> {
        let mut cleared = Vec::new();
        for folder in state.fast_paths()? {
            let settings: Result<Array<_, Settings>> = pinned(&folder, map::SETTINGS);
            let settings = settings.and_then(|map| map.get(&0, 0).at(folder.display(), "read"));
            // What does not say whose it is, or is of another version, is its own namespace's business.
            let Ok(settings) = settings else { continue };
            let [a, b, c, d, ..] = settings.cookie.to_le_bytes();
            let network = Network {
                inode: settings.network_namespace,
                cookie: u32::from_le_bytes([a, b, c, d]),
            };
            // 0: half made, by a command that was killed.
            let is_known = matches!(settings.version, 0 | OLDEST_VERSION..=VERSION);
            let gone = is_known && !network.is_current()?;
            if gone && links(&folder)?.is_empty() && !network.is_kept() {
                remove(&folder)?;
                cleared.push(Cleared {
                    name: file_name(&folder),
                    reason: format!("its network namespace (net:[{}]) is gone", network.inode),
                });
            }
        }
        Ok(cleared)
    }

    /// Where a program or link is pinned.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Opens the program that says what the hooks would decide.
    pub(crate) fn oracle(&self) -> Result<Oracle> {
        let program = SchedClassifier::from_pin(self.pin(program::ASK));
        program.at(program::ASK, "open the pinned program").map(Oracle)
    }

    /// All attached ports, by index.
    pub fn ports(&self) -> Result<Vec<(u32, Port)>> {
        let read = elements(&self.ports_data, MAX_PORTS);
        let mut ports: Vec<(u32, Port)> = read.at(self.folder.display(), "read its ports")?;
        ports.sort_by_key(|(ifindex, _)| *ifindex);
        Ok(ports)
    }

    /// What a port has counted.
    pub fn counters(&self, ifindex: u32) -> Result<PortCounters> {
        self.counters.read(ifindex)
    }

    /// What went from one port to another.
    pub fn paths(&self) -> Result<Vec<(Path, PathCounters)>> {
        self.paths.read()
    }

    /// Makes a port known to the programs, with counters that begin at zero.
    pub(crate) fn add(&mut self, ifindex: u32, port: Port) -> Result<()> {
        self.forget(ifindex)?;
        self.counters.add(ifindex)?;
        self.write(ifindex, port)
    }

    pub(crate) fn write(&mut self, ifindex: u32, port: Port) -> Result<()> {
        when_refilled(lacks_memory, || self.ports.insert(ifindex, port, 0))
            .at(self.folder.display(), "write a port")
    }

    /// Makes a port unknown to the programs, and what came in by it. What it has sent to others stays in their sums.
    pub(crate) fn forget(&mut self, ifindex: u32) -> Result<()> {
        let _moving = self.moving();
        for (path, counters) in self.paths()? {
            if path.from == ifindex {
                self.move_path(
                    path,
                    Path {
                        from: Path::GONE,
                        ..path
                    },
                    counters,
                )?;
            } else if path.to == ifindex && path.from == Path::GONE {
                self.forget_path(path)?;
            }
        }
        self.counters.forget(ifindex)?;
        events::forget(&self.folder, ifindex)?;
        gone(self.ports.remove(&ifindex)).at(self.folder.display(), "forget a port")
    }

    /// Counts what no program counts any more as something else; what neither came from a port nor went to one is forgotten.
    pub(crate) fn move_path(&mut self, path: Path, to: Path, counters: PathCounters) -> Result<()> {
        if to.from != Path::GONE || self.port(to.to)?.is_some() {
            self.add_to_path(to, counters)?;
        }
        self.forget_path(path)
    }

    pub(crate) fn forget_path(&mut self, path: Path) -> Result<()> {
        self.paths.forget(path)
    }

    /// Adds to a path that no program counts.
    pub(crate) fn add_to_path(&mut self, path: Path, counters: PathCounters) -> Result<()> {
        self.paths.add(path, counters)
    }
}
