//! One sample: a fresh lab, one datapath, throughput then latency, and everything gone again.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result};
use lab::{Namespace, netns, pump};
use serde::Serialize;
use serde_json::Value;

use crate::{
    datapath::{Attachment, Kind, Stats},
    guest::{self, Guest, Hardware},
    interrupt::Interrupted,
    latency::{self, Latency},
    plan::{self, Seat},
    settings::Settings,
    throughput::{self, Throughput},
    wait::{self, OnSignal},
};

const REACH_LIMIT: Duration = Duration::from_secs(10);
const SEATS: [Seat; 2] = [Seat(1), Seat(2)];

/// What was measured over one datapath in one round.
#[derive(Debug, Serialize)]
pub struct Sample {
    pub datapath: Kind,
    /// From 1.
    pub round: u32,
    pub throughput: Throughput,
    pub latency: Latency,
    /// What the VMMs of the two guests did, from boot to end.
    pub pumps: [pump::Report; 2],
    /// The datapath's own counters after the measurements; null when it has none.
    pub stats: Option<Value>,
    /// The same for people.
    #[serde(skip)]
    pub stats_text: Option<String>,
}

/// Measures once. The lab is new for every sample, so that no datapath finds what another one changed.
pub fn take(settings: &Settings, kind: Kind, round: u32) -> Result<Sample> {
    let progress = Progress {
        start: Instant::now(),
        label: format!("{} {round}", kind.name()),
    };
    let hardware = Hardware {
        mtu: settings.mtu,
        offloads: settings.offloads.into(),
    };
    let datapath = kind.datapath(settings)?;

    progress.step("booting two guests");
    let host = Namespace::create(&plan::own_namespace(plan::HOST))?;
    // The host is a switch and nothing else: its own packets would be in the counters.
    host.run(netns::disable_ipv6)?;
    let [first, second] = SEATS.map(|seat| guest::boot(&host, seat, hardware));
    let (first, second) = (first?, second?);

    progress.step("attaching their taps");
    let attachment = datapath.attach(&host, &SEATS.map(Seat::tap))?;
    let measured = measure(settings, &*first, &*second, &progress);
    let (throughput, latency) = measured.inspect_err(|error| explain(error, &*attachment))?;

    progress.step("cleaning up");
    let stats = attachment.stats()?;
    attachment.detach()?;
    let pumps = [first.stop()?, second.stop()?];
    let (stats, stats_text) = stats.map(|Stats { json, text }| (json, text)).unzip();
    Ok(Sample {
        datapath: kind,
        round,
        throughput,
        latency,
        pumps,
        stats,
        stats_text,
    })
}

fn measure(
    settings: &Settings,
    first: &dyn Guest,
    second: &dyn Guest,
    progress: &Progress,
) -> Result<(Throughput, Latency)> {
    wait_for_peer(first, second.seat().ipv4().into())?;
    wait_for_peer(first, second.seat().ipv6().into())?;
    progress.step(&format!("throughput, {} s", settings.time));
    let throughput = throughput::measure(first, second, settings).context("measuring throughput")?;
    progress.step(&format!("latency, {} s", settings.time));
    let latency = latency::measure(first, second, settings).context("measuring latency")?;
    Ok((throughput, latency))
}

/// Where the frames went is in the datapath's counters, as long as it is there.
fn explain(error: &Error, attachment: &dyn Attachment) {
    if !error.is::<Interrupted>()
        && let Ok(Some(stats)) = attachment.stats()
    {
        eprintln!("the datapath's counters when it failed:\n{}", stats.text);
    }
}

fn wait_for_peer(guest: &dyn Guest, peer: IpAddr) -> Result<()> {
    let what = format!("{} to reach {peer} by TCP and UDP", guest.seat().name());
    wait::until(&what, REACH_LIMIT, OnSignal::Stop, || {
        Ok(guest.reaches(peer)?.then_some(()))
    })
}

/// A line on standard error for every step.
struct Progress {
    start: Instant,
    label: String,
}

impl Progress {
    fn step(&self, what: &str) {
        eprintln!(
            "{} [{:4.1} s] {what}",
            self.label,
            self.start.elapsed().as_secs_f64()
        );
    }
}
