//! What the programs count, at ports and from port to port: in places that are found without a search as long as there
//! is one, else in a hash. A place belongs to one port or path until that is forgotten.

use std::{
    collections::{BTreeMap, HashMap as HashTable},
    os::fd::AsFd as _,
    path::Path as FilePath,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use bridge_common::{
    counters::PathCounters,
    fastpath::{MAX_PATHS, NEAR_PATHS, Path, PortCounters, VERSION, map, near_port},
};

use super::pins::{gone, pinned, pinned_data, take};
use crate::{
    error::{Context as _, Error, Result},
    kernel::bpf::{PerCpuWords, elements, lacks_memory, sums, when_refilled},
};

/// The maps.
pub struct Paths {
    near: HashMap<MapData, u32, Path>,
    owners: Array<MapData, u64>,
    counters: PerCpuArray<MapData, PathCounters>,
    far: PerCpuHashMap<MapData, Path, PathCounters>,
    /// The maps of `near`, `counters` and `far`, each to be read at once.
    data: [MapData; 3],
}

impl Paths {
    /// Their names.
    pub(super) const MAPS: [&str; 4] = [map::NEAR, map::NEAR_OWNERS, map::NEAR_COUNTERS, map::PATHS];

    pub(super) fn open(folder: &FilePath) -> Result<Self> {
        Ok(Self {
            near: pinned(folder, map::NEAR)?,
            owners: pinned(folder, map::NEAR_OWNERS)?,
            counters: pinned(folder, map::NEAR_COUNTERS)?,
            far: pinned(folder, map::PATHS)?,
            data: [
                pinned_data(folder, map::NEAR)?,
                pinned_data(folder, map::NEAR_COUNTERS)?,
                pinned_data(folder, map::PATHS)?,
            ],
        })
    }

    /// All that went from one port to another, in order.
    pub fn read(&self) -> Result<Vec<(Path, PathCounters)>> {
        let [near, counters, far] = &self.data;
        let mut paths = BTreeMap::<Path, PathCounters>::new();
        for (path, counters) in sums(far, MAX_PATHS).at(map::PATHS, "read")? {
            paths.insert(path, counters);
        }
        let near: Vec<(u32, Path)> = elements(near, NEAR_PATHS).at(map::NEAR, "read")?;
        if near.is_empty() {
            return Ok(paths.into_iter().collect());
        }
        // Afterwards: a place that has an owner counts for it.
        let counters: Vec<(u32, PathCounters)> = sums(counters, NEAR_PATHS).at(map::NEAR_COUNTERS, "read")?;
        let counters: HashTable<u32, PathCounters> = counters.into_iter().collect();
        for (place, path) in near {
            // There may be more of it, from when the place was another's.
            *paths.entry(path).or_default() += counters.get(&place).copied().unwrap_or_default();
        }
        Ok(paths.into_iter().collect())
    }

    /// Forgets one that no program counts any more.
    pub fn forget(&mut self, path: Path) -> Result<()> {
        let place = path.near();
        match self.near.get(&place, 0) {
            Ok(owner) if owner == path => {
                // In this order, so that whoever has the place next begins at zero.
                let zero = one_for_each_cpu(PathCounters::default())?;
                let cleared = self.counters.set(place, zero, 0);
                cleared.at(map::NEAR_COUNTERS, "clear")?;
                self.owners.set(place, 0, 0).at(map::NEAR_OWNERS, "clear")?;
                gone(self.near.remove(&place)).at(map::NEAR, "forget a path")?;
            }
            Ok(_) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).at(map::NEAR, "read"),
        }
        gone(self.far.remove(&path)).at(map::PATHS, "forget a path")
    }

    /// Adds to one that no program counts.
    pub(super) fn add(&mut self, path: Path, counters: PathCounters) -> Result<()> {
        let values = match self.far.get(&path, 0) {
            Ok(values) => values,
            Err(MapError::KeyNotFound) => one_for_each_cpu(PathCounters::default())?,
            Err(error) => return Err(error).at(map::PATHS, "read"),
        };
        let mut values = values.to_vec();
        if let Some(first) = values.first_mut() {
            *first += counters;
        }
        let added = when_refilled(lacks_memory, || {
            let values = PerCpuValues::try_from(values.clone())?;
            self.far.insert(path, values, 0)
        });
        added.at(map::PATHS, "move counters")
    }
}

impl Paths {
    /// Those of programs that are pinned nowhere.
    pub fn take(object: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            data: [
                duplicate(object, map::NEAR)?,
                duplicate(object, map::NEAR_COUNTERS)?,
                duplicate(object, map::PATHS)?,
            ],
            near: take(object, map::NEAR)?,
            owners: take(object, map::NEAR_OWNERS)?,
            counters: take(object, map::NEAR_COUNTERS)?,
            far: take(object, map::PATHS)?,
        })
    }
}

/// What ports count.
pub struct Counters {
    owners: Array<MapData, u32>,
    near: PerCpuWords,
    far: PerCpuWords,
    /// Of the programs that count.
    version: u32,
}

impl Counters {
    /// Names of the maps.
    pub(super) const MAPS: [&str; 3] = [map::PORT_OWNERS, map::PORT_COUNTERS, map::COUNTERS];

    /// Of programs of this version.
    pub(super) fn open(folder: &FilePath, version: u32) -> Result<Self> {
        let words = |name| PerCpuWords::new(pinned_data(folder, name)?).at(name, "open");
        Ok(Self {
            owners: pinned(folder, map::PORT_OWNERS)?,
            near: words(map::PORT_COUNTERS)?,
            far: words(map::COUNTERS)?,
            version,
        })
    }

    /// Those of programs that are pinned nowhere.
    pub fn take(object: &mut Ebpf) -> Result<Self> {
        let words = |name| PerCpuWords::new(duplicate(object, name)?).at(name, "open");
        let (near, far) = (words(map::PORT_COUNTERS)?, words(map::COUNTERS)?);
        Ok(Self {
            near,
            far,
            owners: take(object, map::PORT_OWNERS)?,
            version: VERSION,
        })
    }

    fn owner(&self, ifindex: u32) -> Result<u32> {
        self.owners
            .get(&near_port(ifindex), 0)
            .at(map::PORT_OWNERS, "read")
    }

    /// A port's; zeroes if it is not known.
    pub fn read(&self, ifindex: u32) -> Result<PortCounters> {
        let values = if self.owner(ifindex)? == ifindex {
            self.near.get(near_port(ifindex))
        } else {
            self.far.get(ifindex)
        };
        let mut sum = PortCounters::default();
        for words in values.at(map::COUNTERS, "read")?.into_iter().flatten() {
            let counters = PortCounters::of_version(self.version, &words);
            sum += counters.ok_or_else(|| odd_size(words.len()))?;
        }
        Ok(sum)
    }

    /// Makes a port known, which it is not yet, with counters that begin at zero.
    pub fn add(&mut self, ifindex: u32) -> Result<()> {
        if self.owner(ifindex)? == 0 {
            let place = near_port(ifindex);
            self.near.clear(place).at(map::PORT_COUNTERS, "clear")?;
            self.owners.set(place, ifindex, 0).at(map::PORT_OWNERS, "write")
        } else {
            self.far.clear(ifindex).at(map::COUNTERS, "clear")
        }
    }

    /// Makes a port unknown.
    pub fn forget(&mut self, ifindex: u32) -> Result<()> {
        if self.owner(ifindex)? == ifindex {
            let place = near_port(ifindex);
            self.owners.set(place, 0, 0).at(map::PORT_OWNERS, "clear")?;
        }
        self.far.remove(ifindex).at(map::COUNTERS, "forget a port")
    }
}

fn odd_size(words: usize) -> Error {
    Error::System {
        object: map::COUNTERS.into(),
        action: "read",
        cause: format!("{words} numbers are no counters of a port"),
    }
}

/// The map of this name, which stays where it is.
pub(super) fn duplicate(object: &Ebpf, name: &str) -> Result<MapData> {
    let map = object.map(name).expect("the object has all its maps");
    let (Map::PerCpuArray(data) | Map::PerCpuHashMap(data) | Map::HashMap(data)) = map else {
        unreachable!("the object has it as one of these");
    };
    let fd = data.fd().as_fd().try_clone_to_owned().at(name, "open")?;
    MapData::from_fd(fd).at(name, "open")
}

/// The same value for every CPU.
pub(super) fn one_for_each_cpu<T: aya::Pod>(value: T) -> Result<PerCpuValues<T>> {
    let cpus = nr_cpus().map_err(|(_, error)| error).at("CPUs", "count")?;
    PerCpuValues::try_from(vec![value; cpus]).at("counters", "clear")
}
