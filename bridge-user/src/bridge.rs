//! A bridge: a folder of pinned maps, programs and links.

use std::{
    fs, io,
    marker::PhantomData,
    ops::Deref,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, DevMap, HashMap, Map, MapData, MapError, PerCpuArray, xdp::XdpMapError},
    programs::{SchedClassifier, Xdp},
    util::nr_cpus,
};
use bridge_common::{
    Hook,
    counters::{DetachedPaths, PathCounters, PortCounters},
    fdb::{DEFAULT_AGEING_SECONDS, FdbEntry, FdbKey},
    layout::{self, Config, map, program},
    port::{Ingress, Port},
};
use serde::Serialize;

use crate::{
    OBJECT,
    error::{Context as _, Error, Result},
    kernel, link,
    namespace::{self, Network},
    netlink::Link,
    state::{Folder, Locked},
    sys::elements,
    verifier,
};

/// The maps that are pinned. `BRIDGE` is the last to be filled: a folder where it is empty is half made.
const MAPS: [&str; 11] = [
    map::BRIDGE,
    map::CONFIG,
    map::INGRESS,
    map::PORTS,
    map::DEVICES[0],
    map::DEVICES[1],
    map::LEARNED,
    map::STATIC,
    map::PORT_COUNTERS,
    map::PATHS,
    map::DETACHED,
];

/// Parts of an instruction (include/uapi/linux/bpf.h).
const BPF_JMP: u8 = 0x05;
const BPF_CALL: u8 = 0x80;
const BPF_PSEUDO_KFUNC_CALL: u8 = 2;

/// Elements that a CPU keeps for itself to fill (`LOCAL_FREE_TARGET` in `bpf_lru_list.c`): an LRU map throws
/// out others while it has these.
const LRU_FREE_PER_CPU: u32 = 128;

/// A bridge whose maps are open. It is changed by whoever has it mutable, and has locked the state for as long.
pub struct Bridge<'lock> {
    /// Its name.
    pub name: String,
    /// Where it is pinned.
    pub folder: PathBuf,
    /// What it was made for.
    pub meta: layout::Bridge,
    pub(crate) record: Array<MapData, layout::Bridge>,
    pub(crate) config: Array<MapData, Config>,
    pub(crate) ingress: HashMap<MapData, u32, Ingress>,
    pub(crate) ports: Array<MapData, Port>,
    /// The same map, to be read by [`elements`](crate::sys::elements).
    port_data: MapData,
    /// By hook.
    pub(crate) devices: [DevMap<MapData>; 2],
    pub(crate) learned: HashMap<MapData, FdbKey, FdbEntry>,
    pub(crate) statics: HashMap<MapData, FdbKey, FdbEntry>,
    pub(crate) port_counters: PerCpuArray<MapData, PortCounters>,
    pub(crate) paths: PerCpuArray<MapData, PathCounters>,
    pub(crate) detached: Array<MapData, DetachedPaths>,
    /// The map of paths, to be read by [`sums`](crate::sys::sums).
    pub(crate) path_data: MapData,
    lock: PhantomData<&'lock Locked>,
}

/// A bridge to be read only, while a command may be changing it.
pub struct Reading(Bridge<'static>);

impl Deref for Reading {
    type Target = Bridge<'static>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Bridges of a state folder, and what is in their place.
pub struct Opened<B> {
    /// Those that could be opened, sorted by name.
    pub bridges: Vec<B>,
    /// The rest, sorted by name.
    pub unreadable: Vec<Unreadable>,
}

impl<B> Opened<B> {
    /// What could not be opened, without the bridge of this name.
    pub(crate) fn unreadable_but(self, name: &str) -> Vec<Unreadable> {
        let mut unreadable = self.unreadable;
        unreadable.retain(|entry| entry.bridge != name);
        unreadable
    }
}

/// What a command has done to ports, and what it has left alone since it can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report<T> {
    /// The ports.
    pub ports: Vec<T>,
    /// Sorted by name.
    pub unreadable: Vec<Unreadable>,
}

/// Something in the state folder that can't be used as a bridge: half made, of another version, or nothing of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its name.
    pub bridge: String,
    /// Why, and what to do.
    pub error: String,
}

/// The programs and maps as a bridge of this size needs them, loaded by nothing yet.
pub fn load_object(max_ports: u32, kernel: &layout::Kernel) -> Result<Ebpf> {
    let cpus = nr_cpus().map_err(|(_, error)| error).at("CPUs", "count")?;
    let kept_free = u32::try_from(cpus)
        .unwrap_or(u32::MAX)
        .saturating_mul(LRU_FREE_PER_CPU);
    EbpfLoader::new()
        .map_max_entries(map::LEARNED, layout::MAX_LEARNED.saturating_add(kept_free))
        .map_max_entries(map::INGRESS, max_ports)
        .map_max_entries(map::PORTS, max_ports)
        .map_max_entries(map::DEVICES[0], max_ports)
        .map_max_entries(map::DEVICES[1], max_ports)
        .map_max_entries(map::PORT_COUNTERS, max_ports)
        .map_max_entries(map::PATHS, max_ports * max_ports)
        .map_max_entries(map::DETACHED, max_ports)
        .override_global(layout::MAX_PORTS, &max_ports, true)
        .override_global(layout::LONGEST_NATIVE, &kernel::longest_native(), true)
        .override_global(layout::KERNEL, kernel, true)
        .load(&linked(OBJECT, kernel.bpf_rdonly_cast))
        .at("programs", "create their maps")
}

/// The object with its calls of [`layout::RDONLY_CAST`] made calls of the kernel's function: aya knows helpers and the
/// object's own functions only. Instructions lie at multiples of 8 octets, as their sections do.
pub(crate) fn linked(object: &[u8], rdonly_cast: u64) -> Vec<u8> {
    let call = |source: u8, number: u32| {
        let [a, b, c, d] = number.to_le_bytes();
        [BPF_JMP | BPF_CALL, source << 4, 0, 0, a, b, c, d]
    };
    let placeholder = call(0, layout::RDONLY_CAST);
    let id = u32::try_from(rdonly_cast).expect("BTF's ids have 32 bits");
    let mut object = object.to_vec();
    for instruction in object.as_chunks_mut::<8>().0 {
        if *instruction == placeholder {
            *instruction = call(BPF_PSEUDO_KFUNC_CALL, id);
        }
    }
    object
}

/// Opens everything that there is, but for bridges of other network namespaces. One bad entry is one bad entry.
fn open_all<B>(folder: &Folder, open: impl Fn(&str) -> Result<B>) -> Result<Opened<B>> {
    let mut opened = Opened {
        bridges: Vec::new(),
        unreadable: Vec::new(),
    };
    for name in folder.bridges()? {
        match open(&name) {
            Ok(bridge) => opened.bridges.push(bridge),
            Err(Error::OtherNamespace { .. }) => {}
            // Gone since the folder was listed.
            Err(_) if !folder.bridge_folder(&name).exists() => {}
            Err(error) => opened.unreadable.push(Unreadable {
                bridge: name,
                error: error.to_string(),
            }),
        }
    }
    Ok(opened)
}

impl Reading {
    /// Opens the bridge of this name, in the calling thread's network namespace.
    pub fn open(folder: &Folder, name: &str) -> Result<Self> {
        let reading = Self::open_anywhere(folder, name)?;
        reading.0.must_be_here()?;
        Ok(reading)
    }

    /// Opens the bridge of this name, whichever network namespace its ports are in.
    pub fn open_anywhere(folder: &Folder, name: &str) -> Result<Self> {
        match Bridge::open_unlocked(folder, name) {
            Err(Error::Unfinished { name } | Error::Damaged { name, .. }) if folder.is_being_changed() => {
                Err(Error::BeingChanged { name })
            }
            bridge => bridge.map(Self),
        }
    }

    /// Opens all bridges of the calling thread's network namespace.
    pub fn open_all(folder: &Folder) -> Result<Opened<Self>> {
        open_all(folder, |name| Self::open(folder, name))
    }
}

impl<'lock> Bridge<'lock> {
    /// Opens the bridge of this name, in the calling thread's network namespace.
    pub fn open(state: &'lock Locked, name: &str) -> Result<Self> {
        let bridge = Self::open_unlocked(state, name)?;
        bridge.must_be_here()?;
        Ok(bridge)
    }

    /// Opens all bridges of the calling thread's network namespace.
    pub fn open_all(state: &'lock Locked) -> Result<Opened<Self>> {
        open_all(state, |name| Self::open(state, name))
    }

    fn must_be_here(&self) -> Result<()> {
        if self.is_here()? {
            return Ok(());
        }
        if self.is_abandoned()? {
            return Err(Error::NamespaceGone {
                name: self.name.clone(),
                network: network(&self.meta),
            });
        }
        Err(Error::OtherNamespace {
            name: self.name.clone(),
            next: namespace::enter_command(self.meta.network_namespace),
        })
    }

    fn open_unlocked(state: &Folder, name: &str) -> Result<Self> {
        let folder = state.bridge_folder(name);
        if !folder.is_dir() {
            return Err(if folder.exists() {
                Error::Foreign { path: folder }
            } else {
                Error::NoBridge {
                    name: name.to_owned(),
                }
            });
        }
        let record: Array<_, layout::Bridge> = pinned(&folder, map::BRIDGE).map_err(|error| match error {
            // Pinned before anything is attached and unpinned after it, unless somebody else did that.
            OpenError::Missing if attached_links(&folder).is_empty() => Error::Unfinished {
                name: name.to_owned(),
            },
            OpenError::Missing => Error::Damaged {
                name: name.to_owned(),
                cause: "its record is no longer pinned".into(),
            },
            OpenError::Other(cause) => damaged(name, &cause),
        })?;
        let meta = record.get(&0, 0).at(name, "read its record")?;
        match meta.version {
            0 => {
                return Err(Error::Unfinished {
                    name: name.to_owned(),
                });
            }
            layout::VERSION => {}
            found => {
                return Err(Error::OtherLayout {
                    name: name.to_owned(),
                    found,
                    expected: layout::VERSION,
                });
            }
        }
        let unusable = |error| match error {
            OpenError::Missing => Error::Damaged {
                name: name.to_owned(),
                cause: "one of its maps is no longer pinned".into(),
            },
            OpenError::Other(cause) => damaged(name, &cause),
        };
        Ok(Self {
            name: name.to_owned(),
            meta,
            record,
            config: pinned(&folder, map::CONFIG).map_err(unusable)?,
            ingress: pinned(&folder, map::INGRESS).map_err(unusable)?,
            ports: pinned(&folder, map::PORTS).map_err(unusable)?,
            port_data: pinned_data(&folder, map::PORTS).map_err(unusable)?,
            devices: [
                pinned(&folder, map::DEVICES[0]).map_err(unusable)?,
                pinned(&folder, map::DEVICES[1]).map_err(unusable)?,
            ],
            learned: pinned(&folder, map::LEARNED).map_err(unusable)?,
            statics: pinned(&folder, map::STATIC).map_err(unusable)?,
            port_counters: pinned(&folder, map::PORT_COUNTERS).map_err(unusable)?,
            paths: pinned(&folder, map::PATHS).map_err(unusable)?,
            detached: pinned(&folder, map::DETACHED).map_err(unusable)?,
            path_data: pinned_data(&folder, map::PATHS).map_err(unusable)?,
            folder,
            lock: PhantomData,
        })
    }

    /// Makes a bridge with room for this many ports. On failure nothing of it stays.
    pub fn create(state: &'lock Locked, name: &str, max_ports: u32) -> Result<Self> {
        let folder = state.bridge_folder(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .at(name, "make the bridge's folder")?;
        let made = Self::fill(&folder, name, max_ports).and_then(|()| Self::open(state, name));
        if made.is_err() {
            remove_folder(&folder, name)?;
        }
        made
    }

    fn fill(folder: &Path, name: &str, max_ports: u32) -> Result<()> {
        let kernel = kernel::offsets()?;
        let mut object = load_object(max_ports, &kernel)?;
        for map in MAPS {
            let path = folder.join(map);
            object
                .map(map)
                .expect("the object has all maps that it is built with")
                .pin(path)
                .at(name, "pin a map")?;
        }
        let config = Config {
            ageing: DEFAULT_AGEING_SECONDS * 1_000_000_000,
            changes: 0,
            slots_in_use: 0,
            log: 0,
            settling: 0,
        };
        let mut settings: Array<_, Config> = object
            .map_mut(map::CONFIG)
            .expect("as above")
            .try_into()
            .at(name, "open")?;
        settings.set(0, config, 0).at(name, "write its settings")?;

        let xdp: &mut Xdp = object
            .program_mut(program::XDP)
            .expect("as above")
            .try_into()
            .at(name, "open")?;
        verifier::load("XDP program", || xdp.load())?;
        xdp.pin(folder.join(program::XDP))
            .at(name, "pin the XDP program")?;
        let tcx: &mut SchedClassifier = object
            .program_mut(program::TCX)
            .expect("as above")
            .try_into()
            .at(name, "open")?;
        verifier::load("tcx program", || tcx.load())?;
        tcx.pin(folder.join(program::TCX))
            .at(name, "pin the tcx program")?;

        let here = Network::current()?;
        let meta = layout::Bridge {
            version: layout::VERSION,
            max_ports,
            network_namespace: here.inode,
            next_generation: 1,
            network_cookie: here.cookie,
        };
        let mut record: Array<_, layout::Bridge> = object
            .map_mut(map::BRIDGE)
            .expect("as above")
            .try_into()
            .at(name, "open")?;
        record.set(0, meta, 0).at(name, "write its record")
    }

    /// Whether the bridge is in the calling thread's network namespace.
    pub fn is_here(&self) -> Result<bool> {
        network(&self.meta).is_here()
    }

    /// Whether the bridge's network namespace is gone, so that nobody can use the bridge any more. It forwards nothing:
    /// no port has its device. One of a namespace that is still there may well be in this state too, until its VMs are
    /// started again; so something must keep the namespace.
    pub fn is_abandoned(&self) -> Result<bool> {
        if self.is_here()? {
            return Ok(false);
        }
        for (slot, _) in self.occupied()? {
            if self.has_device(slot)? {
                return Ok(false);
            }
        }
        Ok(!network(&self.meta).is_kept())
    }

    /// The port in a slot; its `ifindex` is 0 if the slot is empty.
    pub fn port(&self, slot: u32) -> Result<Port> {
        self.ports.get(&slot, 0).at(&self.name, "read a port")
    }

    /// All slots that hold a port, with it.
    pub fn occupied(&self) -> Result<Vec<(u32, Port)>> {
        let ports: Vec<Port> =
            elements(&self.port_data, 0, self.meta.max_ports).at(&self.name, "read its ports")?;
        Ok((0..).zip(ports).filter(|(_, port)| port.ifindex != 0).collect())
    }

    /// Whether the device that a slot was made for is still there. The kernel takes a device that goes out of the
    /// devmap, so one that came back under the same name or index is not mistaken for it.
    pub fn has_device(&self, slot: u32) -> Result<bool> {
        match self.devices[Hook::Tcx as usize].get(slot, 0) {
            Ok(_) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(error).at(&self.name, "read a device"),
        }
    }

    /// Enters a device into a slot of the devmaps; index 0 empties it (`__dev_map_update_elem`).
    pub(crate) fn set_device(&mut self, slot: u32, ifindex: u32) -> Result<(), XdpMapError> {
        self.devices
            .iter_mut()
            .try_for_each(|devices| devices.set(slot, ifindex, None, 0))
    }

    /// The settings.
    pub fn config(&self) -> Result<Config> {
        self.config.get(&0, 0).at(&self.name, "read its settings")
    }

    /// Changes the settings. What the programs remember from before is void.
    pub fn set_config(&mut self, config: Config) -> Result<()> {
        let config = Config {
            changes: config.changes.wrapping_add(1),
            ..config
        };
        self.config.set(0, config, 0).at(&self.name, "write its settings")
    }

    /// Makes void what the programs remember. After a change of the maps that they remember from, not before it.
    pub(crate) fn forget_recent(&mut self) -> Result<()> {
        self.set_config(self.config()?)
    }

    /// Removes the bridge: what is pinned, and with it the programs and maps.
    pub fn remove(self) -> Result<()> {
        remove_folder(&self.folder, &self.name)
    }
}

/// The network namespace that a bridge's ports are in.
fn network(record: &layout::Bridge) -> Network {
    Network {
        inode: record.network_namespace,
        cookie: record.network_cookie,
    }
}

/// What can still be told of a bridge that can't be opened.
pub(crate) struct Remains {
    /// Its ports, if they are recorded as they are today.
    ports: Vec<Port>,
    /// Indices of the devices that its programs are attached to, by link.
    links: Vec<(PathBuf, u32)>,
}

/// The first version whose ports are recorded as today ([`Port`]).
const PORTS_SINCE: u32 = 3;

impl Remains {
    /// Of the bridge of this name, if it is the calling thread's network namespace's.
    pub fn of(state: &Folder, name: &str) -> Result<Self> {
        let folder = state.bridge_folder(name);
        let record: Option<layout::Bridge> = pinned::<Array<_, _>>(&folder, map::BRIDGE)
            .ok()
            .and_then(|record| record.get(&0, 0).ok());
        let links = attached_links(&folder);
        if let Some(record) = record
            && !network(&record).is_here()?
            // As for a bridge that can be opened: see `is_abandoned`.
            && (!links.is_empty() || network(&record).is_kept())
        {
            return Err(Error::OtherNamespace {
                name: name.to_owned(),
                next: namespace::enter_command(record.network_namespace),
            });
        }
        let known = record.is_some_and(|record| (PORTS_SINCE..=layout::VERSION).contains(&record.version));
        let ports: Option<Array<_, Port>> = pinned(&folder, map::PORTS).ok().filter(|_| known);
        let ports = ports.iter().flat_map(Array::iter).flatten();
        let ports = ports.filter(|port| port.ifindex != 0).collect();
        Ok(Self { ports, links })
    }

    /// The devices that are still there, each with its record.
    pub fn ports<'a>(&self, links: &'a [Link]) -> Vec<(Option<Port>, &'a Link)> {
        let attached = |link: &&Link| self.links.iter().any(|(_, ifindex)| *ifindex == link.ifindex);
        let record = |link: &Link| self.ports.iter().find(|port| port.ifindex == link.ifindex);
        links
            .iter()
            .filter(attached)
            .map(|link| (record(link).copied(), link))
            .collect()
    }

    /// Detaches its programs at once: unpinning alone does so later.
    pub fn detach_links(&self) -> Result<()> {
        for (pin, _) in &self.links {
            link::detach(pin).at(pin.display(), "detach the program")?;
        }
        Ok(())
    }
}

/// The links pinned in a bridge's folder whose device is still there, with its index.
fn attached_links(folder: &Path) -> Vec<(PathBuf, u32)> {
    let pins = fs::read_dir(folder).into_iter().flatten().flatten();
    pins.map(|entry| entry.path())
        .filter_map(|pin| Some((pin.clone(), link::device_of(&pin)?)))
        .collect()
}

/// Removes what is pinned in a bridge's folder, whatever it is.
pub(crate) fn remove_folder(folder: &Path, name: &str) -> Result<()> {
    // The record first: what is left if this is interrupted is known to be unfinished.
    match fs::remove_file(folder.join(map::BRIDGE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at(name, "remove its record"),
        _ => fs::remove_dir_all(folder).at(name, "remove the bridge's folder"),
    }
}

fn damaged(name: &str, cause: &Error) -> Error {
    Error::Damaged {
        name: name.to_owned(),
        cause: cause.to_string(),
    }
}

enum OpenError {
    Missing,
    Other(Error),
}

fn pinned<T: TryFrom<Map, Error = MapError>>(folder: &Path, name: &str) -> Result<T, OpenError> {
    let data = pinned_data(folder, name)?;
    Map::from_map_data(data)
        .and_then(T::try_from)
        .at(folder.join(name).display(), "open the pinned map")
        .map_err(OpenError::Other)
}

fn pinned_data(folder: &Path, name: &str) -> Result<MapData, OpenError> {
    let path = folder.join(name);
    if !path.exists() {
        return Err(OpenError::Missing);
    }
    MapData::from_pin(&path)
        .at(path.display(), "open the pinned map")
        .map_err(OpenError::Other)
}
