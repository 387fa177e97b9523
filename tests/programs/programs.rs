//! The programs, loaded and pinned nowhere: a test runs them by hand, and reads their maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::{Deref, DerefMut},
    os::fd::AsFd as _,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    programs::{
        Program, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, TestRunResult,
        Xdp, tc::SchedClassifierLinkId,
    },
    util::nr_cpus,
};
use tapbridge::{
    common::{
        Hook,
        counters::Traffic,
        fastpath::{NEAR_PORTS, Offsets, Path, Port, PortCounters, map, program},
        forwarding::NegativeCache,
    },
    fastpath::{self, Counters, Paths},
};

use crate::context;

/// What the XDP program takes a test run's frames for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// A test run gives every frame a receive queue of its device's own array, as generic XDP does.
    Generic,
    /// With a wrong offset of the queue's `xdp_rxq` the program never finds that it is so.
    Native,
}

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: u32,
    pub bytes: Vec<u8>,
}

/// Frames that went from one port to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub path: Path,
    pub via: Hook,
    pub traffic: Traffic,
}

/// Programs and maps.
pub struct Programs {
    object: Ebpf,
    ports: HashMap<MapData, u32, Port>,
    counters: Counters,
    paths: Paths,
    near: HashMap<MapData, u32, Path>,
    near_owners: Array<MapData, u64>,
    negative_cache: PerCpuArray<MapData, NegativeCache>,
    /// Ports that count.
    counted: BTreeSet<u32>,
    links: Vec<SchedClassifierLinkId>,
    /// Of the program that stands for somebody else's.
    others: Vec<(String, SchedClassifierLinkId)>,
}

/// Those that no test has at the moment: to load them takes most of a test's time, the more so where the kernel's code
/// is translated.
static IDLE: Mutex<Vec<(Frames, Programs)>> = Mutex::new(Vec::new());

/// Programs that another test gets when this one has succeeded.
pub struct Shared {
    frames: Frames,
    /// Nothing only while it is being dropped.
    programs: Option<Programs>,
}

impl Shared {
    /// Programs that know no ports: idle ones, or new ones.
    pub fn take(frames: Frames) -> Self {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle.iter().position(|(of_frames, _)| *of_frames == frames);
        let found = found.map(|index| idle.swap_remove(index).1);
        drop(idle);
        let programs = found.unwrap_or_else(|| Programs::load(frames));
        Self {
            frames,
            programs: Some(programs),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(mut programs) = self.programs.take()
            && !thread::panicking()
        {
            programs.leave_all();
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((self.frames, programs));
        }
    }
}

impl Deref for Shared {
    type Target = Programs;

    fn deref(&self) -> &Programs {
        self.programs.as_ref().expect("they are not being dropped")
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Programs {
        self.programs.as_mut().expect("they are not being dropped")
    }
}

/// The kernel's, which are the same for all tests.
fn offsets() -> Offsets {
    static OFFSETS: OnceLock<Offsets> = OnceLock::new();
    *OFFSETS.get_or_init(|| fastpath::offsets().expect("the kernel's offsets"))
}

fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &str) -> T {
    let map = object.take_map(name).unwrap_or_else(|| panic!("a map {name}"));
    T::try_from(map).unwrap_or_else(|error| panic!("map {name}: {error}"))
}

/// A map that stays where it is.
fn open<T: TryFrom<Map, Error = MapError>>(object: &Ebpf, name: &str, kind: fn(MapData) -> Map) -> T {
    let (Map::HashMap(data) | Map::Array(data)) = object.map(name).unwrap_or_else(|| panic!("a map {name}"))
    else {
        panic!("map {name} is of another type");
    };
    let fd = data.fd().as_fd().try_clone_to_owned().expect("a file descriptor");
    T::try_from(kind(MapData::from_fd(fd).expect("its data"))).expect("the type that it has")
}

impl Programs {
    fn load(frames: Frames) -> Self {
        let mut offsets = offsets();
        if frames == Frames::Native {
            offsets.rx_queue_xdp_rxq += 1;
        }
        let mut object = fastpath::load(&offsets).expect("load the programs");
        Self {
            ports: take(&mut object, map::PORTS),
            near: open(&object, map::NEAR, Map::HashMap),
            near_owners: open(&object, map::NEAR_OWNERS, Map::Array),
            negative_cache: take(&mut object, map::NEGATIVE_CACHE),
            counters: Counters::take(&mut object).expect("the counters"),
            paths: Paths::take(&mut object).expect("the paths"),
            counted: BTreeSet::new(),
            object,
            links: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Attaches the tcx program to a device and makes both count its frames, as the loader does.
    pub fn enter(&mut self, device: &str, ifindex: u32) {
        let tcx: &mut SchedClassifier = program_mut(&mut self.object, program::TCX);
        let link = tcx.attach(device, TcAttachType::Ingress);
        self.links.push(link.expect("attach the tcx program"));
        self.count(ifindex);
    }

    fn count(&mut self, ifindex: u32) {
        self.counted.insert(ifindex);
        self.counters.forget(ifindex).expect("forget a port's counters");
        self.counters.add(ifindex).expect("clear a port's counters");
    }

    /// Gives the places in which ports and the paths between them could be counted to others.
    pub fn take_places(&mut self) {
        let ports = self.counted.clone();
        for &ifindex in &ports {
            self.counters.forget(ifindex).expect("forget a port's counters");
            self.count(ifindex + NEAR_PORTS);
            self.count(ifindex);
        }
        for (&from, &to) in ports
            .iter()
            .flat_map(|from| ports.iter().map(move |to| (from, to)))
        {
            let place = Path { from, to }.near();
            let other = Path { from: 0, to: place };
            assert_eq!(other.near(), place);
            self.near.insert(place, other, 0).expect("write NEAR");
            self.near_owners
                .set(place, other.to_bits(), 0)
                .expect("write NEAR_OWNERS");
        }
    }

    /// Detaches the tcx program from all devices.
    pub fn detach(&mut self) {
        let tcx: &mut SchedClassifier = program_mut(&mut self.object, program::TCX);
        for link in self.links.drain(..) {
            tcx.detach(link).expect("detach the tcx program");
        }
    }

    /// Somebody else attaches a program to a device with tcx, which is there beside ours.
    pub fn attach_other(&mut self, device: &str, side: TcAttachType) {
        let other: &mut SchedClassifier = program_mut(&mut self.object, program::ASK);
        let link = other.attach(device, side).expect("attach another program");
        self.others.push((device.into(), link));
    }

    /// They detach it.
    pub fn detach_other(&mut self, device: &str) {
        let other: &mut SchedClassifier = program_mut(&mut self.object, program::ASK);
        for (_, link) in self.others.extract_if(.., |(at, _)| at == device) {
            other.detach(link).expect("detach another program");
        }
    }

    /// Makes all devices nobody's.
    fn leave_all(&mut self) {
        self.detach();
        let others: Vec<String> = self.others.iter().map(|(device, _)| device.clone()).collect();
        for device in others {
            self.detach_other(&device);
        }
        for ifindex in mem::take(&mut self.counted) {
            self.counters.forget(ifindex).expect("forget a port's counters");
        }
        let known: Vec<u32> = self.ports.keys().flatten().collect();
        for ifindex in known {
            self.ports.remove(&ifindex).expect("empty PORTS");
        }
        self.forget_paths();
    }

    /// Notes what an administrator has said of a port.
    pub fn set_port(&mut self, ifindex: u32, flags: u32) {
        let port = Port {
            flags,
            ..Port::default()
        };
        self.ports.insert(ifindex, port, 0).expect("write PORTS");
    }

    /// Forgets all counts, and why frames were left.
    pub fn clear(&mut self) {
        self.clear_counts();
        let cpus = nr_cpus().expect("the number of CPUs");
        let empty = PerCpuValues::try_from(vec![NegativeCache::EMPTY; cpus]).expect("a value for each CPU");
        self.negative_cache
            .set(0, empty, 0)
            .expect("write NEGATIVE_CACHE");
    }

    /// Forgets all counts.
    pub fn clear_counts(&mut self) {
        for ifindex in self.counted.clone() {
            self.count(ifindex);
        }
        self.forget_paths();
    }

    fn forget_paths(&mut self) {
        for (path, _) in self.paths.read().expect("the paths") {
            self.paths.forget(path).expect("forget a path");
        }
    }

    /// What each device has counted.
    pub fn counters(&self) -> BTreeMap<u32, PortCounters> {
        let counters = self.counted.iter().map(|&ifindex| {
            let counters = self.counters.read(ifindex).expect("a port's counters");
            (ifindex, counters)
        });
        counters.collect()
    }

    /// What went from one port to another, in order.
    pub fn taken(&self) -> Vec<Taken> {
        let mut taken = Vec::new();
        for (path, sum) in self.paths.read().expect("the paths") {
            let by_hook = Hook::ALL.map(|via| Taken {
                path,
                via,
                traffic: sum.via[via as usize],
            });
            taken.extend(
                by_hook
                    .into_iter()
                    .filter(|taken| taken.traffic != Traffic::default()),
            );
        }
        taken.sort_by_key(|taken| (taken.path, taken.via as u8));
        taken
    }

    /// Runs the XDP program on a frame that a device's first queue received.
    pub fn xdp(&self, frame: &[u8], ifindex: u32) -> Ran {
        self.xdp_on_queue(frame, ifindex, 0)
    }

    pub fn xdp_on_queue(&self, frame: &[u8], ifindex: u32, queue: u32) -> Ran {
        let xdp: &Xdp = program(&self.object, program::XDP);
        run(frame, &context::xdp_md(frame.len(), ifindex, queue), |options| {
            xdp.test_run(options)
        })
    }

    /// Runs the XDP program on a frame and lets the kernel do what it says. Such a frame has a receive queue of its
    /// own, as a tap's native frames have (`xdp_test_run_setup`).
    pub fn xdp_live(&self, frame: &[u8], ifindex: u32) {
        let xdp: &Xdp = program(&self.object, program::XDP);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context::xdp_md(frame.len(), ifindex, 0)),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        };
        xdp.test_run(options)
            .unwrap_or_else(|error| panic!("run the XDP program: {error}"));
    }

    /// Runs the tcx program on a frame that a device received, of several segments if `gso_size` is not 0.
    pub fn tcx(&self, frame: &[u8], ifindex: u32, gso_size: u32) -> Ran {
        let tcx: &SchedClassifier = program(&self.object, program::TCX);
        run(frame, &context::sk_buff(ifindex, gso_size), |options| {
            tcx.test_run(options)
        })
    }
}

fn run<E: std::fmt::Display>(
    frame: &[u8],
    context: &[u8],
    test_run: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, E>,
) -> Ran {
    let mut bytes = vec![0; frame.len() + 64];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut bytes),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    };
    let result = test_run(options).unwrap_or_else(|error| panic!("run a program: {error}"));
    bytes.truncate(result.data_size_out as usize);
    Ran {
        code: result.return_value,
        bytes,
    }
}

fn program<'a, T>(object: &'a Ebpf, name: &str) -> &'a T
where
    &'a T: TryFrom<&'a Program>,
{
    let program = object.program(name).and_then(|program| program.try_into().ok());
    program.unwrap_or_else(|| panic!("a program {name}"))
}

fn program_mut<'a, T>(object: &'a mut Ebpf, name: &str) -> &'a mut T
where
    &'a mut T: TryFrom<&'a mut Program>,
{
    let program = object
        .program_mut(name)
        .and_then(|program| program.try_into().ok());
    program.unwrap_or_else(|| panic!("a program {name}"))
}
