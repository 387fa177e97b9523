//! What a measurement has cost: taken before and after, and subtracted.

pub mod cpu;
mod profile;
mod stats;
mod syscalls;

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use self::{profile::Profiler, syscalls::Counter};
use crate::{
    results::{Cpu, Helper, HostCpu, Role, Run, Stats},
    testbed::{Testbed, device::NicCounters},
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
    cards: Vec<NicCounters>,
    vmms: Vec<Cpu>,
    helpers: Vec<Helper>,
    softirqs_s: f64,
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
        let vmms: Vec<_> = testbed.guests.iter().map(|guest| guest.vmm()).collect();
        let counter = tapbridge.map(|program| Counter::start(program, &vmms));
        let counter = counter.transpose()?;
        let profiler = match sampling {
            Sampling::On => Profiler::start(&vmms)?,
            Sampling::Off => None,
        };
        Ok(Self {
            testbed,
            counter,
            profiler,
            stats: testbed.attachment.stats()?,
            cards: cards(testbed)?,
            vmms: cpu_times(testbed)?,
            helpers: helpers(testbed)?,
            softirqs_s: cpu::of_softirqs()?,
            host: cpu::of_host()?,
            start: Instant::now(),
        })
    }

    /// Ends, in the opposite order; the outcome is that of the measurement in between.
    pub fn close<O>(self, outcome: O) -> Result<Run<O>> {
        let seconds = self.start.elapsed().as_secs_f64();
        let samples = self.profiler.map(Profiler::stop).transpose()?;
        let host = cpu::of_host()?.since(self.host);
        let softirqs_s = cpu::used(cpu::of_softirqs()?, self.softirqs_s);
        let vmms = cpu_times(self.testbed)?;
        let mut helpers = helpers(self.testbed)?;
        for (now, before) in helpers.iter_mut().zip(&self.helpers) {
            now.cpu = now.cpu.since(before.cpu);
        }
        let cards = cards(self.testbed)?;
        let after = self.testbed.attachment.stats()?;
        // Naming them takes time that is none of the measurement's.
        let profile = samples.map(|samples| samples.named()).transpose()?;
        let mut counts = self.counter.map(Counter::stop).transpose()?;
        let mut roles = Vec::new();
        for (number, guest) in self.testbed.guests.iter().enumerate() {
            roles.push(Role {
                guest: guest.id().name(),
                vmm: guest.vmm(),
                comm: cpu::comm(guest.vmm())?,
                syscalls: counts.as_mut().and_then(|counts| counts.remove(&guest.vmm())),
                cpu: vmms[number].since(self.vmms[number]),
                card: cards[number].since(self.cards[number]),
            });
        }
        let mut roles = roles.into_iter();
        let mut next = || roles.next().context("a measurement has two guests");
        let (client, server) = (next()?, next()?);
        Ok(Run {
            outcome,
            seconds,
            client,
            server,
            others: roles.collect(),
            host: Some(host),
            softirqs_s: Some(softirqs_s),
            datapath: helpers,
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

/// An error if the kernel can't be sampled, which says what to do.
pub fn try_sampling() -> Result<()> {
    profile::samplers().map(drop)
}

/// CPU time that the whole host has spent until now, but for what others of its machine took.
pub fn host_busy_s() -> Result<f64> {
    Ok(cpu::of_host()?.busy_s())
}

fn cards(testbed: &Testbed) -> Result<Vec<NicCounters>> {
    testbed.guests.iter().map(|guest| guest.nic_counters()).collect()
}

fn cpu_times(testbed: &Testbed) -> Result<Vec<Cpu>> {
    let guests = testbed.guests.iter();
    guests.map(|guest| cpu::of_process(guest.vmm())).collect()
}

fn helpers(testbed: &Testbed) -> Result<Vec<Helper>> {
    let processes = testbed.attachment.processes().into_iter();
    let helper = |process| {
        Ok(Helper {
            process,
            comm: cpu::comm(process)?,
            cpu: cpu::of_process(process)?,
        })
    };
    processes.map(helper).collect()
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
