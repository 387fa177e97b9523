//! Where the kernel's time goes during a measurement: each CPU is looked at 499 times a second.
//!
//! The event is perf's CPU clock, a timer of the kernel that works without hardware counters and in virtual machines. It
//! can't look into code that has interrupts off: what such code takes is seen at its end, mostly in the function that
//! turns them on again, which has the same callers. Idle CPUs, user space and virtual machines' own code are left out. CPUs that a hypervisor below
//! takes away for longer than a period lose samples that nobody counts.

mod fold;
mod sampler;
mod symbols;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::{
        Once,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};

use self::{
    sampler::{FREQUENCY_HZ, Sampler},
    symbols::Symbols,
};
use crate::{
    host::cpus,
    results::{FunctionTime, Part, Profile},
    testbed::guest::GUEST_TAP,
};

pub use self::sampler::Samples;

/// Functions of each part that a profile names.
const FUNCTIONS: usize = 12;

/// A thread that takes what the kernel sampled out of its buffers. Dropping it ends the thread.
pub struct Profiler {
    stop: Sender<()>,
    thread: JoinHandle<Result<Samples>>,
}

impl Profiler {
    /// Starts sampling all CPUs that this process may use. `vmms` are the processes that copy the guests' frames. `None`
    /// where the kernel allows no sampling, which is said once.
    pub fn start(vmms: &[u32]) -> Result<Option<Self>> {
        static SAID: Once = Once::new();
        let vmms = vmms.iter().map(|&vmm| Ok((vmm, guest_cards(vmm)?)));
        let vmms = vmms.collect::<Result<HashMap<_, _>>>()?;
        let samplers = match samplers() {
            Ok(samplers) => samplers,
            Err(error) => {
                SAID.call_once(|| {
                    eprintln!(
                        "no profile of the CPU time: {error:#}; --no-profile leaves it out without this line"
                    );
                });
                return Ok(None);
            }
        };
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("profile".into());
        let thread = thread.spawn(move || sampler::collect(samplers, &vmms, &stopped));
        let thread = thread.context("starting the thread that reads samples")?;
        Ok(Some(Self { stop, thread }))
    }

    /// Ends it; returns what was seen, still to be named.
    pub fn stop(self) -> Result<Samples> {
        drop(self.stop);
        let samples = self.thread.join();
        samples.map_err(|_| anyhow!("the thread that reads samples has panicked"))?
    }
}

impl Samples {
    /// What they are of. Programs in the kernel have to be there still.
    pub fn named(&self) -> Result<Profile> {
        Ok(profile(self, &Symbols::read()?))
    }
}

/// Of all CPUs that this process may use, begun.
pub fn samplers() -> Result<Vec<Sampler>> {
    // Addresses without names tell nothing.
    Symbols::read()?;
    cpus::allowed()?.into_iter().map(Sampler::open).collect()
}

/// The descriptors by which a VMM holds the guest's card itself, as the pump of a namespace does. Virtual machines have
/// theirs in memory.
fn guest_cards(vmm: u32) -> Result<Vec<u64>> {
    let folder = format!("/proc/{vmm}/fdinfo");
    let files = fs::read_dir(&folder).with_context(|| format!("reading {folder}"))?;
    let is_card = |text: &str| {
        let name = text.lines().find_map(|line| line.strip_prefix("iff:"));
        name.is_some_and(|name| name.trim() == GUEST_TAP)
    };
    let cards = files.flatten().filter_map(|file| {
        // One that has been closed meanwhile is none.
        let text = fs::read_to_string(file.path()).ok()?;
        is_card(&text).then(|| file.file_name().to_str()?.parse().ok())?
    });
    Ok(cards.collect())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn profile(samples: &Samples, symbols: &Symbols) -> Profile {
    let seconds = |count: u64| count as f64 / f64::from(FREQUENCY_HZ);
    let mut parts = BTreeMap::<Part, u64>::new();
    let mut functions = BTreeMap::<Part, HashMap<&str, u64>>::new();
    for ((owner, stack), &count) in &samples.stacks {
        let names = symbols.stack(stack);
        let part = fold::part(*owner, &names);
        *parts.entry(part).or_default() += count;
        if let Some(name) = names.first() {
            *functions.entry(part).or_default().entry(name).or_default() += count;
        }
    }
    let most = |functions: HashMap<&str, u64>| {
        let mut functions: Vec<_> = functions.into_iter().collect();
        functions.sort_by_key(|&(name, count)| (u64::MAX - count, name));
        functions.truncate(FUNCTIONS);
        let timed = functions.into_iter().map(|(name, count)| FunctionTime {
            name: name.into(),
            seconds: seconds(count),
        });
        timed.collect()
    };
    Profile {
        frequency_hz: FREQUENCY_HZ,
        samples: parts.values().sum(),
        lost: samples.lost,
        seconds: parts
            .into_iter()
            .map(|(part, count)| (part, seconds(count)))
            .collect(),
        functions: functions
            .into_iter()
            .map(|(part, functions)| (part, most(functions)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{fold::Owner, *};

    #[test]
    fn samples_become_seconds_of_parts_and_of_functions() {
        let symbols = Symbols::parse(
            "ffffffff81000000 T do_syscall_64\nffffffff81000100 t tun_do_read\nffffffff81000200 T br_forward\n",
        );
        let mut samples = Samples::default();
        let read = vec![0xffff_ffff_8100_0110, 0xffff_ffff_8100_0010];
        let path = vec![0xffff_ffff_8100_0210, 0xffff_ffff_8100_0010];
        samples.stacks.insert((Owner::Vmm, read.clone()), 499);
        samples.stacks.insert((Owner::GuestCard, read), 998);
        samples.stacks.insert((Owner::Vmm, path), 250);
        samples.lost = 7;
        let profile = profile(&samples, &symbols);
        let near = |part, seconds: f64| (profile.part_s(part) - seconds).abs() < 0.01;
        assert!(
            near(Part::Read, 1.0) && near(Part::Guest, 2.0) && near(Part::Path, 0.5),
            "{profile:?}"
        );
        assert!(near(Part::Write, 0.0) && (profile.total_s() - 3.5).abs() < 0.01);
        assert_eq!((profile.samples, profile.lost), (499 + 998 + 250, 7));
        assert_eq!(profile.functions[&Part::Path][0].name, "br_forward");
        assert!((profile.samples_of(Part::Path) - 250.0).abs() < 0.5);
    }

    #[test]
    fn this_process_holds_no_guests_card() {
        assert_eq!(guest_cards(std::process::id()).unwrap(), [0; 0]);
        assert!(guest_cards(u32::MAX).is_err());
    }
}
