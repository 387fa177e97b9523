//! The programs in the kernel before anything is pinned, and whether they decide as its bridge does.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{Program, SchedClassifier},
};
use bridge_common::{
    fastpath::{OFFSETS, Offsets, Peek, Settings, VERSION, map, program},
    layout::{self, NATIVE_OVERHEAD},
    observed::MAX_OBSERVED,
};

use super::{
    counters::{Counters, Paths},
    events, instructions, log,
    offsets::from_kernel,
    pins::{pinned, take},
    scratch::{self, Scratch},
};
use crate::{
    error::{Context as _, Result},
    kernel::{namespace::Network, verifier},
};

/// The programs, built for the kernel by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fastpath.bpf.o"));

/// The maps that are pinned beside the settings, which are filled last.
const MAPS: [&[&str]; 4] = [&[map::PORTS], &Counters::MAPS, &Paths::MAPS, &events::MAPS];

/// The programs that are pinned.
const PROGRAMS: [&str; 5] = [
    program::TCX,
    program::XDP,
    program::ASK,
    program::TELL,
    program::ADD,
];

/// The room for frames that are observed, where none are: the least that a map has.
const NOBODY_OBSERVES: u32 = 1;

/// What the programs answer with.
const TC_ACT_REDIRECT: u32 = 7;
const TCX_NEXT: u32 = u32::MAX;

/// How long a known station is tried out: on a busy machine more than a second may have passed since the bridge saw it, and
/// that it was left once is remembered until the clock ticks.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// The longest frame that native XDP takes on a tap, in bytes.
fn longest_native() -> u32 {
    log::page_size().saturating_sub(NATIVE_OVERHEAD)
}

/// How many instructions the kernel's verifier goes through for the programs at XDP and at tcx, and for that which only
/// looks, of the million that it takes at most; 0 where it does not say (before 5.16). They are loaded and tried out for it,
/// and nothing of them stays.
pub fn verified_instructions() -> Result<[u32; 3]> {
    let mut loaded = Loaded::try_out()?;
    loaded.load(program::OBSERVE)?;
    let count = |name: &'static str| {
        let info = loaded.program(name).info().at(name, "read what is known of it")?;
        Ok(info.verified_instruction_count().unwrap_or(0))
    };
    Ok([
        count(program::XDP)?,
        count(program::TCX)?,
        count(program::OBSERVE)?,
    ])
}

/// What the programs have to know of the running kernel: what it says of itself, and what has been tried out.
pub fn offsets() -> Result<Offsets> {
    let mut offsets = from_kernel()?;
    if offsets.br_nf_pre_routing != 0 {
        let mut probe = Loaded::new(&offsets, NOBODY_OBSERVES)?;
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
    Ok(Loaded::whole(offsets, NOBODY_OBSERVES)?.object)
}

/// The object, loaded and pinned by nothing yet.
pub(super) struct Loaded {
    pub(super) object: Ebpf,
    settings: Array<MapData, Settings>,
    peek: Array<MapData, Peek>,
}

impl Loaded {
    /// Loads the programs, and checks in a namespace of its own that they decide as the bridge does.
    pub(super) fn try_out() -> Result<Self> {
        let mut loaded = Self::tried_out(NOBODY_OBSERVES)?;
        log::begin(&mut loaded.object)?;
        Ok(loaded)
    }

    /// As [`Loaded::try_out`], with the program that only looks, for one command that pins nothing.
    pub(super) fn to_observe() -> Result<Self> {
        let mut loaded = Self::tried_out(MAX_OBSERVED)?;
        loaded.load(program::OBSERVE)?;
        Ok(loaded)
    }

    fn tried_out(observed: u32) -> Result<Self> {
        let loaded = Self::whole(&offsets()?, observed)?;
        scratch::in_scratch(|scratch| loaded.compare(scratch))?;
        Ok(loaded)
    }

    /// With its programs, of which that at tcx is the settings', and room for so many different frames to be observed.
    fn whole(offsets: &Offsets, observed: u32) -> Result<Self> {
        let mut loaded = Self::new(offsets, observed)?;
        loaded.load(program::TCX)?;
        loaded.load(program::XDP)?;
        loaded.load(program::ASK)?;
        loaded.load(program::TELL)?;
        loaded.load(program::ADD)?;
        loaded.write_settings(0)?;
        Ok(loaded)
    }

    /// Its maps alone.
    fn new(offsets: &Offsets, observed: u32) -> Result<Self> {
        let longest_native = longest_native();
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(map::OBSERVED, observed);
        loader.override_global(OFFSETS, offsets, true).override_global(
            layout::LONGEST_NATIVE,
            &longest_native,
            true,
        );
        log::set(&mut loader);
        let mut object = loader
            .load(&instructions::placed(OBJECT, offsets)?)
            .at("fast path", "create its maps")?;
        Ok(Self {
            settings: take(&mut object, map::SETTINGS)?,
            peek: take(&mut object, map::PEEK)?,
            object,
        })
    }

    pub(super) fn program(&self, name: &str) -> &Program {
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
        let deadline = Instant::now() + LIMIT;
        let verdict = loop {
            scratch.introduce().at("a bridge to try out", "send a frame")?;
            let verdict = scratch.run(tcx, 2)?;
            if verdict == TC_ACT_REDIRECT || Instant::now() > deadline {
                break verdict;
            }
            thread::sleep(PAUSE);
        };
        scratch::expect("a known station", verdict, TC_ACT_REDIRECT)?;
        scratch::expect("an unknown station", scratch.run(tcx, 4)?, TCX_NEXT)?;
        scratch::expect("a station at the same port", scratch.run(tcx, 1)?, TCX_NEXT)
    }

    pub(super) fn pin(mut self, folder: &Path) -> Result<()> {
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
        for name in PROGRAMS {
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
