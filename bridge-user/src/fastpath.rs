//! The fast path: programs at the ports of Linux bridges. It changes nothing of a bridge, nor of its ports, and where it
//! ends the bridge goes on.
//!
//! The programs and maps of a network namespace are pinned in a folder of the state, whose name begins with
//! [`FASTPATH_PREFIX`] and goes on with the namespace's cookie.

mod counters;
mod instructions;
mod offsets;
mod ports;
mod scratch;

pub use counters::{Counters, Paths};
pub use ports::Wish;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path as FilePath, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError},
    programs::{Program, SchedClassifier},
};
use bridge_common::{
    Hook,
    counters::PathCounters,
    fastpath::{Answer, OFFSETS, Offsets, Path, Peek, Port, PortCounters, Settings, VERSION, map, program},
    layout,
    mac::Mac,
};

use crate::{
    FASTPATH_OBJECT,
    error::{Context as _, Error, Result},
    fastpath::scratch::Scratch,
    kernel, link,
    namespace::Network,
    state::{Cleared, FASTPATH_PREFIX, Folder, Leftover, Unreadable, file_name},
    verifier,
};

/// The maps that are pinned beside the settings, which are filled last.
const MAPS: [&[&str]; 3] = [&[map::PORTS], &Counters::MAPS, &Paths::MAPS];

/// What the programs answer with.
const TC_ACT_REDIRECT: u32 = 7;
const TCX_NEXT: u32 = u32::MAX;

/// How often a known station is tried out: on a busy machine more than a second may have passed since the bridge saw it.
const ATTEMPTS: u32 = 20;

/// The fast path of a network namespace.
pub struct FastPath {
    folder: PathBuf,
    pub(crate) ports: HashMap<MapData, u32, Port>,
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
fn folder(state: &Folder) -> Result<PathBuf> {
    Ok(state.path(&format!("{FASTPATH_PREFIX}{:x}", Network::current()?.cookie)))
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
            unreadable.insert(0, error.unreadable().ok_or(error)?);
            Ok::<_, Error>(None)
        })?;
        Ok((fast, unreadable))
    }

    /// Opens that of the calling thread's network namespace, if there is one that is whole.
    pub fn open(state: &Folder) -> Result<Option<Self>> {
        let folder = folder(state)?;
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
            VERSION => Ok(Some(Self {
                ports: pinned(&folder, map::PORTS).map_err(damaged)?,
                counters: Counters::open(&folder).map_err(damaged)?,
                paths: Paths::open(&folder).map_err(damaged)?,
                folder,
            })),
            found => Err(Error::OtherVersion {
                path: folder,
                found,
                expected: VERSION,
            }),
        }
    }

    /// Opens it, or makes it, having tried it out. On failure nothing of it stays.
    pub fn open_or_create(state: &Folder) -> Result<Self> {
        if let Some(open) = Self::open(state)? {
            return Ok(open);
        }
        // What a killed command has left.
        Self::clear(state)?;
        let folder = folder(state)?;
        let object = Loaded::try_out()?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .at(folder.display(), "make")?;
        let made = object.pin(&folder).and_then(|()| Self::open(state));
        match made {
            Ok(Some(made)) => Ok(made),
            other => {
                let _ = fs::remove_dir_all(&folder);
                Err(other.err().unwrap_or(Error::Damaged {
                    path: folder,
                    cause: "somebody removed pins as they were made".into(),
                }))
            }
        }
    }

    /// Removes it: what is pinned, and with it the programs and maps.
    pub fn remove(&self) -> Result<()> {
        remove(&self.folder)
    }

    /// Removes whatever is pinned for the calling thread's network namespace, of any version and half made or removed.
    pub fn clear(state: &Folder) -> Result<()> {
        let folder = folder(state)?;
        if folder.is_dir() { remove(&folder) } else { Ok(()) }
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
            // What is half made or of another version is its own namespace's business.
            let Ok(settings) = settings else { continue };
            let [a, b, c, d, ..] = settings.cookie.to_le_bytes();
            let network = Network {
                inode: settings.network_namespace,
                cookie: u32::from_le_bytes([a, b, c, d]),
            };
            let gone = settings.version == VERSION && !network.is_current()?;
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
        let mut ports = self
            .ports
            .iter()
            .collect::<Result<Vec<_>, _>>()
            .at(self.folder.display(), "read its ports")?;
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
        self.ports
            .insert(ifindex, port, 0)
            .at(self.folder.display(), "write a port")
    }

    /// Makes a port unknown to the programs, and what came in by it. What it has sent to others stays in their sums.
    pub(crate) fn forget(&mut self, ifindex: u32) -> Result<()> {
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

/// The links pinned in a folder that are attached to a device: XDP's first, since tcx takes what it passes.
fn links(folder: &FilePath) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).at(folder.display(), "list")?;
    let mut links: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| link::device_of(path).is_some())
        .collect();
    links.sort_by_key(|path| !path.to_string_lossy().ends_with(Hook::Xdp.name()));
    Ok(links)
}

/// Detaches and unpins all that is in a folder.
fn remove(folder: &FilePath) -> Result<()> {
    // First, since without it nothing there is used.
    match fs::remove_file(folder.join(map::SETTINGS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.at(folder.display(), "unpin the settings")?,
    }
    for path in links(folder)? {
        // Removing the pin would detach too, but some time after this call.
        link::detach(&path).at(path.display(), "detach the program")?;
    }
    fs::remove_dir_all(folder).at(folder.display(), "remove")
}

fn pinned<T: TryFrom<Map, Error = MapError>>(folder: &FilePath, name: &str) -> Result<T> {
    let data = pinned_data(folder, name)?;
    let map = Map::from_map_data(data).and_then(T::try_from);
    map.at(folder.join(name).display(), "open the pinned map")
}

fn pinned_data(folder: &FilePath, name: &str) -> Result<MapData> {
    let path = folder.join(name);
    MapData::from_pin(&path).at(path.display(), "open the pinned map")
}

/// A removal of what may have been gone before.
fn gone(removal: Result<(), MapError>) -> Result<(), MapError> {
    match removal {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        removal => removal,
    }
}

fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &str) -> Result<T> {
    let map = object.take_map(name);
    T::try_from(map.expect("the object has all maps that it is built with")).at(name, "open")
}

/// How many instructions the kernel's verifier goes through for the programs at XDP and at tcx, of the million that it
/// takes at most; 0 where it does not say (before 5.16). They are loaded and tried out for it, and nothing of them stays.
pub fn verified_instructions() -> Result<[u32; 2]> {
    let loaded = Loaded::try_out()?;
    let count = |name: &'static str| {
        let info = loaded.program(name).info().at(name, "read what is known of it")?;
        Ok(info.verified_instruction_count().unwrap_or(0))
    };
    Ok([count(program::XDP)?, count(program::TCX)?])
}

/// What the programs have to know of the running kernel: what it says of itself, and what has been tried out.
pub fn offsets() -> Result<Offsets> {
    let mut offsets = offsets::offsets()?;
    if offsets.br_nf_pre_routing != 0 {
        let mut probe = Loaded::new(&offsets)?;
        probe.load(program::PEEK)?;
        match scratch::in_scratch(|scratch| probe.find_netfilter_slot(scratch, &offsets))? {
            Some(slot) => offsets.brnf_slot = slot,
            // Then nothing goes past the bridge where it is registered.
            None => offsets.br_nf_pre_routing = 0,
        }
    }
    Ok(offsets)
}

/// Loads the programs, attached to nothing and pinned nowhere, for whoever runs them by hand. Of the maps that the object
/// has, the programs know no ports.
pub fn load(offsets: &Offsets) -> Result<Ebpf> {
    Ok(Loaded::whole(offsets)?.object)
}

/// The object, loaded and pinned by nothing yet.
struct Loaded {
    object: Ebpf,
    settings: Array<MapData, Settings>,
    peek: Array<MapData, Peek>,
}

impl Loaded {
    /// Loads the programs, and checks in a namespace of its own that they decide as the bridge does.
    fn try_out() -> Result<Self> {
        let loaded = Self::whole(&offsets()?)?;
        scratch::in_scratch(|scratch| loaded.compare(scratch))?;
        Ok(loaded)
    }

    /// With its programs, of which that at tcx is the settings'.
    fn whole(offsets: &Offsets) -> Result<Self> {
        let mut loaded = Self::new(offsets)?;
        loaded.load(program::TCX)?;
        loaded.load(program::XDP)?;
        loaded.load(program::ASK)?;
        loaded.write_settings(0)?;
        Ok(loaded)
    }

    /// Its maps alone.
    fn new(offsets: &Offsets) -> Result<Self> {
        let mut object = EbpfLoader::new()
            .override_global(OFFSETS, offsets, true)
            .override_global(layout::LONGEST_NATIVE, &kernel::longest_native(), true)
            .load(&instructions::placed(FASTPATH_OBJECT, offsets)?)
            .at("fast path", "create its maps")?;
        Ok(Self {
            settings: take(&mut object, map::SETTINGS)?,
            peek: take(&mut object, map::PEEK)?,
            object,
        })
    }

    fn program(&self, name: &str) -> &Program {
        let program = self.object.program(name);
        program.expect("the object has all programs that it is built with")
    }

    fn load(&mut self, name: &'static str) -> Result<()> {
        let program = self.object.program_mut(name);
        let program = program.expect("the object has all programs that it is built with");
        verifier::load(name, || match program {
            Program::Xdp(xdp) => xdp.load(),
            Program::SchedClassifier(tcx) => tcx.load(),
            _ => Ok(()),
        })
    }

    fn classifier(&self, name: &str) -> Result<&SchedClassifier> {
        self.program(name).try_into().at(name, "open")
    }

    fn write_settings(&mut self, version: u32) -> Result<()> {
        let tcx = self.classifier(program::TCX)?;
        let network = Network::current()?;
        let settings = Settings {
            version,
            tcx_program: tcx.info().at(program::TCX, "read its id")?.id(),
            cookie: u64::from(network.cookie),
            network_namespace: network.inode,
        };
        self.settings.set(0, settings, 0).at(map::SETTINGS, "write")
    }

    fn find_netfilter_slot(&mut self, scratch: &Scratch, offsets: &Offsets) -> Result<Option<u64>> {
        scratch::find_netfilter_slot(|| {
            let question = Peek {
                offset: offsets.brnf_call_iptables,
                ..Peek::NOTHING
            };
            self.peek.set(0, question, 0).at(map::PEEK, "write")?;
            scratch.run(self.classifier(program::PEEK)?, 2)?;
            self.peek.get(&0, 0).at(map::PEEK, "read")
        })
    }

    /// The programs see the bridge as it is.
    fn compare(&self, scratch: &Scratch) -> Result<()> {
        let tcx = self.classifier(program::TCX)?;
        scratch::quiet_netfilter()?;
        scratch.introduce().at("a bridge to try out", "send a frame")?;
        // Without our program at tcx everything stays with the bridge. Why, is remembered for a moment: of this station.
        scratch::expect("a port without tcx", scratch.run(tcx, 3)?, TCX_NEXT)?;
        let _attached = scratch.attach(tcx)?;
        let mut verdict = TCX_NEXT;
        for _ in 0..ATTEMPTS {
            scratch.introduce().at("a bridge to try out", "send a frame")?;
            verdict = scratch.run(tcx, 2)?;
            if verdict == TC_ACT_REDIRECT {
                break;
            }
        }
        scratch::expect("a known station", verdict, TC_ACT_REDIRECT)?;
        scratch::expect("an unknown station", scratch.run(tcx, 4)?, TCX_NEXT)?;
        scratch::expect("a station at the same port", scratch.run(tcx, 1)?, TCX_NEXT)
    }

    fn pin(mut self, folder: &FilePath) -> Result<()> {
        let settings = self.settings.get(&0, 0).at(map::SETTINGS, "read")?;
        self.settings
            .pin(folder.join(map::SETTINGS))
            .at(map::SETTINGS, "pin")?;
        for name in MAPS.into_iter().flatten().copied() {
            let map = self.object.map(name);
            map.expect("the object has all maps that it is built with")
                .pin(folder.join(name))
                .at(name, "pin")?;
        }
        for name in [program::TCX, program::XDP, program::ASK] {
            let program = self.object.program_mut(name);
            program
                .expect("the object has all programs that it is built with")
                .pin(folder.join(name))
                .at(name, "pin")?;
        }
        // Last: a folder without it is half made.
        let settings = Settings {
            version: VERSION,
            ..settings
        };
        let mut pinned: Array<_, Settings> = pinned(folder, map::SETTINGS)?;
        pinned.set(0, settings, 0).at(map::SETTINGS, "write")
    }
}
