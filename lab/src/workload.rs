//! Workloads: what may be measured between two guests.

pub mod connections;
pub mod latency;
pub mod throughput;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{guest::Guest, results::Outcome, settings::Measuring};

/// Fifteen times what a server took to start in the slowest guest on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);
/// What a client may need beyond the measurement itself, such as for warming up and sorting.
const MARGIN: Duration = Duration::from_secs(40);

/// The workloads there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Streams as fast as they go: iperf3
    Throughput,
    /// One message after the other, there and back: sockperf ping-pong
    Latency,
    /// The same while a TCP stream goes the same way as fast as it can
    LoadedLatency,
    /// Short TCP connections, each with a small request and its answer: wrk and weborf
    Connections,
}

impl Workload {
    /// The name on the command line, in the results and of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::LoadedLatency => "loaded-latency",
            Self::Connections => "connections",
        }
    }

    /// What is being done, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::LoadedLatency => "latency under load",
            Self::Connections => "connections",
        }
    }

    /// Measures, with the server in the second guest.
    pub fn measure(self, client: &dyn Guest, server: &dyn Guest, settings: &Measuring) -> Result<Outcome> {
        let measured = match self {
            Self::Throughput => throughput::measure(client, server, settings).map(Outcome::Throughput),
            Self::Latency => latency::measure(client, server, settings).map(Outcome::Latency),
            Self::LoadedLatency => loaded_latency(client, server, settings),
            Self::Connections => connections::measure(client, server, settings).map(Outcome::Connections),
        };
        measured.with_context(|| format!("measuring {}", self.text()))
    }
}

fn loaded_latency(client: &dyn Guest, server: &dyn Guest, settings: &Measuring) -> Result<Outcome> {
    let load = throughput::start_load(client, server, settings)?;
    let latency = latency::measure(client, server, settings)?;
    Ok(Outcome::LoadedLatency {
        latency,
        load: load.finish()?,
    })
}

fn limit(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()) + MARGIN
}
