//! A switch whose programs are loaded and attached to nothing: its maps are filled by hand.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{Array, DevMap, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    programs::{
        Program, SchedClassifier, TcAttachType, TestRun, TestRunAttrs, TestRunOptions, TestRunResult, Xdp,
    },
    util::nr_cpus,
};
use nix::time::{ClockId, clock_gettime};
use tapbridge::{
    bridge,
    common::{
        Hook,
        counters::{PathCounters, PortCounters, Traffic},
        fdb::{FdbEntry, FdbKey},
        layout::{Config, map, program},
        port::{Ingress, Port},
    },
    kernel,
};

use crate::context;

/// Slots of the switch; more than the tests fill.
pub const SLOTS: u32 = 5;

pub const SECOND: u64 = 1_000_000_000;
/// Long enough for a test on a busy machine.
pub const AGEING: u64 = 20 * SECOND;

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
    pub octets: Vec<u8>,
}

/// Known unicast that went from one port to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub from: u32,
    pub to: u32,
    pub via: Hook,
    pub traffic: Traffic,
}

/// Programs and maps.
pub struct Switch {
    object: Ebpf,
    config: Array<MapData, Config>,
    changes: u64,
    ingress: HashMap<MapData, u32, Ingress>,
    pub ports: Array<MapData, Port>,
    devices: [DevMap<MapData>; 2],
    learned: HashMap<MapData, FdbKey, FdbEntry>,
    statics: HashMap<MapData, FdbKey, FdbEntry>,
    counters: PerCpuArray<MapData, PortCounters>,
    paths: PerCpuArray<MapData, PathCounters>,
}

fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &str) -> T {
    let map = object.take_map(name).unwrap_or_else(|| panic!("a map {name}"));
    T::try_from(map).unwrap_or_else(|error| panic!("map {name}: {error}"))
}

/// `CLOCK_MONOTONIC_COARSE` in ns, the programs' clock.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    let [seconds, nanoseconds] =
        [time.tv_sec(), time.tv_nsec()].map(|part| u64::try_from(part).expect("after 0"));
    seconds * SECOND + nanoseconds
}

impl Switch {
    pub fn load(frames: Frames) -> Self {
        let mut offsets = kernel::offsets().expect("the kernel's offsets");
        if frames == Frames::Native {
            offsets.netdev_rx_queue_xdp_rxq += 1;
        }
        let mut object = bridge::load_object(SLOTS, &offsets).expect("create the maps");
        let xdp: &mut Xdp = program_mut(&mut object, program::XDP);
        xdp.load().expect("load the XDP program");
        let tcx: &mut SchedClassifier = program_mut(&mut object, program::TCX);
        tcx.load().expect("load the tcx program");
        let mut switch = Self {
            config: take(&mut object, map::CONFIG),
            changes: 0,
            ingress: take(&mut object, map::INGRESS),
            ports: take(&mut object, map::PORTS),
            devices: map::DEVICES.map(|name| take(&mut object, name)),
            learned: take(&mut object, map::LEARNED),
            statics: take(&mut object, map::STATIC),
            counters: take(&mut object, map::PORT_COUNTERS),
            paths: take(&mut object, map::PATHS),
            object,
        };
        switch.set_slots_in_use(SLOTS);
        switch
    }

    /// Instructions that the verifier went through for the XDP and for the tcx program.
    pub fn verified_instructions(&self) -> [u32; 2] {
        let xdp: &Xdp = program(&self.object, program::XDP);
        let tcx: &SchedClassifier = program(&self.object, program::TCX);
        [xdp.info(), tcx.info()].map(|info| {
            info.expect("information on a program")
                .verified_instruction_count()
                .expect("a kernel from 5.16 on")
        })
    }

    pub fn set_slots_in_use(&mut self, slots_in_use: u32) {
        self.changes += 1;
        let config = Config {
            ageing: AGEING,
            changes: self.changes,
            slots_in_use,
            log: 0,
            settling: 0,
        };
        self.config.set(0, config, 0).expect("write CONFIG");
    }

    /// Fills a slot, or empties it.
    pub fn set_port(&mut self, slot: u32, port: Port) {
        self.ports.set(slot, port, 0).expect("write PORTS");
        for devices in &mut self.devices {
            devices.set(slot, port.ifindex, None, 0).expect("write DEVICES");
        }
    }

    pub fn port(&self, slot: u32) -> Port {
        self.ports.get(&slot, 0).expect("read PORTS")
    }

    /// Makes a device a port's.
    pub fn enter(&mut self, ifindex: u32, ingress: Ingress) {
        self.ingress.insert(ifindex, ingress, 0).expect("write INGRESS");
        self.forget_recent();
    }

    /// Makes a device nobody's.
    pub fn leave(&mut self, ifindex: u32) {
        self.ingress.remove(&ifindex).expect("write INGRESS");
        self.forget_recent();
    }

    pub fn learn(&mut self, key: FdbKey, entry: FdbEntry) {
        self.learned.insert(key, entry, 0).expect("write LEARNED");
        self.forget_recent();
    }

    pub fn fix(&mut self, key: FdbKey, entry: FdbEntry) {
        self.statics.insert(key, entry, 0).expect("write STATIC");
        self.forget_recent();
    }

    /// Forgets a learned address, and leaves the programs what they remember of it.
    pub fn unlearn_silently(&mut self, key: FdbKey) {
        self.learned.remove(&key).expect("write LEARNED");
    }

    /// As every command does that has changed something.
    fn forget_recent(&mut self) {
        let config = self.config.get(&0, 0).expect("read CONFIG");
        self.set_slots_in_use(config.slots_in_use);
    }

    pub fn learned(&self) -> BTreeMap<FdbKey, FdbEntry> {
        self.learned
            .iter()
            .map(|entry| entry.expect("read LEARNED"))
            .collect()
    }

    pub fn counters(&self, slot: u32) -> PortCounters {
        let values = self.counters.get(&slot, 0).expect("read PORT_COUNTERS");
        values.iter().fold(PortCounters::default(), |mut sum, value| {
            sum += *value;
            sum
        })
    }

    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        for index in 0..SLOTS * SLOTS {
            let values = self.paths.get(&index, 0).expect("read PATHS");
            let mut sum = PathCounters::default();
            values.iter().for_each(|value| sum += *value);
            let (from, to) = (index / SLOTS, index % SLOTS);
            let by_hook = Hook::ALL.map(|via| Path {
                from,
                to,
                via,
                traffic: sum.via[via as usize],
            });
            paths.extend(
                by_hook
                    .into_iter()
                    .filter(|path| path.traffic != Traffic::default()),
            );
        }
        paths
    }

    /// Forgets all addresses, ports and counts.
    pub fn clear(&mut self) {
        for slot in 0..SLOTS {
            self.set_port(slot, Port::EMPTY);
            let zero = vec![PortCounters::default(); nr_cpus().expect("CPUs")];
            let zero = PerCpuValues::try_from(zero).expect("one value per CPU");
            self.counters.set(slot, zero, 0).expect("write PORT_COUNTERS");
        }
        for index in 0..SLOTS * SLOTS {
            let zero = vec![PathCounters::default(); nr_cpus().expect("CPUs")];
            let zero = PerCpuValues::try_from(zero).expect("one value per CPU");
            self.paths.set(index, zero, 0).expect("write PATHS");
        }
        let ingress: Vec<u32> = self.ingress.keys().flatten().collect();
        for ifindex in ingress {
            self.ingress.remove(&ifindex).expect("empty INGRESS");
        }
        for addresses in [&mut self.learned, &mut self.statics] {
            let keys: Vec<FdbKey> = addresses.keys().flatten().collect();
            for key in keys {
                addresses.remove(&key).expect("empty an address table");
            }
        }
        self.set_slots_in_use(SLOTS);
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

    /// Attaches the tcx program to a device, until the switch is dropped.
    pub fn attach_tcx(&mut self, device: &str) {
        let tcx: &mut SchedClassifier = program_mut(&mut self.object, program::TCX);
        let attached = tcx.attach(device, TcAttachType::Ingress);
        attached.expect("attach the tcx program");
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
    let mut octets = vec![0; frame.len() + 64];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut octets),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    };
    let result = test_run(options).unwrap_or_else(|error| panic!("run a program: {error}"));
    octets.truncate(result.data_size_out as usize);
    Ran {
        code: result.return_value,
        octets,
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
