//! What a measurement has cost: taken before and after, and subtracted.

mod cpu;
mod stats;
mod syscalls;

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use self::syscalls::Counter;
use crate::{
    guest::Guest,
    pair::Pair,
    results::{Card, Cpu, HostCpu, Role, Run, Stats},
};

/// What was counted before a measurement.
pub struct Account<'pair, 'host> {
    pair: &'pair Pair<'host>,
    counter: Option<Counter>,
    stats: Option<Value>,
    cards: [Card; 2],
    vmms: [Cpu; 2],
    host: HostCpu,
    start: Instant,
}

impl<'pair, 'host> Account<'pair, 'host> {
    /// Begins, with system calls counted by tapbridge if there is one.
    pub fn open(pair: &'pair Pair<'host>, tapbridge: Option<&Path>) -> Result<Self> {
        let guests = [&*pair.first, &*pair.second];
        let [first, second] = guests.map(Guest::vmm);
        let counter = tapbridge.map(|program| Counter::start(program, &[first, second]));
        Ok(Self {
            pair,
            counter: counter.transpose()?,
            stats: pair.attachment.stats()?,
            cards: [guests[0].card()?, guests[1].card()?],
            vmms: [cpu::of_process(first)?, cpu::of_process(second)?],
            host: cpu::of_host()?,
            start: Instant::now(),
        })
    }

    /// Ends, in the opposite order; the outcome is that of the measurement in between.
    pub fn close<O>(self, outcome: O) -> Result<Run<O>> {
        let seconds = self.start.elapsed().as_secs_f64();
        let guests = [&*self.pair.first, &*self.pair.second];
        let host = cpu::of_host()?.since(self.host);
        let [first, second] = guests.map(Guest::vmm);
        let vmms = [cpu::of_process(first)?, cpu::of_process(second)?];
        let cards = [guests[0].card()?, guests[1].card()?];
        let after = self.pair.attachment.stats()?;
        let mut counts = self.counter.map(Counter::stop).transpose()?;
        let mut role = |number: usize| {
            let guest = guests[number];
            Ok::<_, anyhow::Error>(Role {
                guest: guest.seat().name(),
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
        })
    }
}

impl Card {
    fn since(self, before: Self) -> Self {
        Self {
            rx_frames: self.rx_frames - before.rx_frames,
            rx_bytes: self.rx_bytes - before.rx_bytes,
            tx_frames: self.tx_frames - before.tx_frames,
            tx_bytes: self.tx_bytes - before.tx_bytes,
        }
    }
}
