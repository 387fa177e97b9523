//! What a measurement has cost: taken before and after, and subtracted.

mod cpu;
mod profile;
mod stats;
mod syscalls;

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use self::{profile::Profiler, syscalls::Counter};
use crate::{
    results::{Cpu, HostCpu, Role, Run, Stats},
    testbed::{Testbed, device::NicCounters, guest::Guest},
};

/// Whether the kernel is sampled meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    On,
    Off,
}

/// What was counted before a measurement.
pub struct CostProbe<'testbed, 'host> {
    testbed: &'testbed Testbed<'host>,
    counter: Option<Counter>,
    profiler: Option<Profiler>,
    stats: Option<Value>,
    cards: [NicCounters; 2],
    vmms: [Cpu; 2],
    host: HostCpu,
    start: Instant,
}

impl<'testbed, 'host> CostProbe<'testbed, 'host> {
    /// Begins, with system calls counted by tapbridge if there is one, and with a profile where the kernel allows it.
    pub fn open(
        testbed: &'testbed Testbed<'host>,
        tapbridge: Option<&Path>,
        sampling: Sampling,
    ) -> Result<Self> {
        let guests = [&*testbed.first, &*testbed.second];
        let [first, second] = guests.map(Guest::vmm);
        let counter = tapbridge.map(|program| Counter::start(program, &[first, second]));
        let counter = counter.transpose()?;
        let profiler = match sampling {
            Sampling::On => Profiler::start(&[first, second])?,
            Sampling::Off => None,
        };
        Ok(Self {
            testbed,
            counter,
            profiler,
            stats: testbed.attachment.stats()?,
            cards: [guests[0].nic_counters()?, guests[1].nic_counters()?],
            vmms: [cpu::of_process(first)?, cpu::of_process(second)?],
            host: cpu::of_host()?,
            start: Instant::now(),
        })
    }

    /// Ends, in the opposite order; the outcome is that of the measurement in between.
    pub fn close<O>(self, outcome: O) -> Result<Run<O>> {
        let seconds = self.start.elapsed().as_secs_f64();
        let samples = self.profiler.map(Profiler::stop).transpose()?;
        let guests = [&*self.testbed.first, &*self.testbed.second];
        let host = cpu::of_host()?.since(self.host);
        let [first, second] = guests.map(Guest::vmm);
        let vmms = [cpu::of_process(first)?, cpu::of_process(second)?];
        let cards = [guests[0].nic_counters()?, guests[1].nic_counters()?];
        let after = self.testbed.attachment.stats()?;
        // Naming them takes time that is none of the measurement's.
        let profile = samples.map(|samples| samples.named()).transpose()?;
        let mut counts = self.counter.map(Counter::stop).transpose()?;
        let mut role = |number: usize| {
            let guest = guests[number];
            Ok::<_, anyhow::Error>(Role {
                guest: guest.id().name(),
                vmm: guest.vmm(),
                comm: cpu::comm(guest.vmm())?,
                syscalls: counts.as_mut().and_then(|counts| counts.remove(&guest.vmm())),
                cpu: vmms[number].since(self.vmms[number]),
                card: cards[number].since(self.cards[number]),
            })
        };
        Ok(Run {
            outcome,
            seconds,
            client: role(0)?,
            server: role(1)?,
            host: Some(host),
            stats: match (self.stats, after) {
                (Some(before), Some(after)) => {
                    Some(Stats::between(before, after).context("the statistics of tapbridge")?)
                }
                _ => None,
            },
            hook_changes: Vec::new(),
            profile,
        })
    }
}

impl NicCounters {
    fn since(self, before: Self) -> Self {
        Self {
            rx_frames: self.rx_frames - before.rx_frames,
            rx_bytes: self.rx_bytes - before.rx_bytes,
            tx_frames: self.tx_frames - before.tx_frames,
            tx_bytes: self.tx_bytes - before.tx_bytes,
        }
    }
}
