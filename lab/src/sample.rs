//! One sample: a fresh lab, one datapath, throughput then latency, and everything gone again.

use anyhow::{Context, Result};
use lab::pump;
use serde::Serialize;
use serde_json::Value;

use crate::{
    datapath::{Kind, Stats},
    guest::Maker,
    latency::{self, Latency},
    pair::{self, Pair, Progress},
    settings::Settings,
    throughput::{self, Throughput},
};

/// What was measured over one datapath in one round.
#[derive(Debug, Serialize)]
pub struct Sample {
    pub datapath: Kind,
    /// What it was in more detail, such as its version; null where the name says it all.
    pub datapath_facts: Option<String>,
    /// From 1.
    pub round: u32,
    /// How often the guests were booted: 2 if they did not reach each other at first.
    pub boots: u32,
    /// How long each guest's last boot took.
    pub boot_s: [f64; 2],
    pub throughput: Throughput,
    pub latency: Latency,
    /// What the frame pumps of the two guests did, from boot to end; null for guests without.
    pub pumps: Option<[pump::Report; 2]>,
    /// The datapath's own counters after the measurements; null when it has none.
    pub stats: Option<Value>,
    /// The same for people.
    #[serde(skip)]
    pub stats_text: Option<String>,
}

/// Measures once. The lab is new for every sample, so that no datapath finds what another one changed.
pub fn take(settings: &Settings, maker: &dyn Maker, kind: Kind, round: u32) -> Result<Sample> {
    let progress = Progress::new(format!("{} {round}", kind.name()));
    let host = pair::host()?;
    let pair = Pair::connect(&host, maker, &settings.setup, kind, &progress)?;
    let measured = measure(settings, &pair, &progress);
    let (throughput, latency) = measured.inspect_err(|error| pair.explain(error))?;

    progress.step("cleaning up");
    let boot = pair.boot;
    let remains = pair.end()?;
    let (stats, stats_text) = remains.stats.map(|Stats { json, text }| (json, text)).unzip();
    Ok(Sample {
        datapath: kind,
        datapath_facts: remains.facts,
        round,
        boots: boot.times,
        boot_s: boot.seconds,
        throughput,
        latency,
        pumps: remains.pumps,
        stats,
        stats_text,
    })
}

fn measure(settings: &Settings, pair: &Pair, progress: &Progress) -> Result<(Throughput, Latency)> {
    let (first, second) = (&*pair.first, &*pair.second);
    progress.step(&format!("throughput, {} s", settings.time));
    let throughput = throughput::measure(first, second, settings).context("measuring throughput")?;
    progress.step(&format!("latency, {} s", settings.time));
    let latency = latency::measure(first, second, settings).context("measuring latency")?;
    Ok((throughput, latency))
}
