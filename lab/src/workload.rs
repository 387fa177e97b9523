//! Workloads: what may be measured between two guests.

pub mod connections;
pub mod latency;
pub mod throughput;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{guest::Guest, results::Outcome, settings::Measuring};

/// Fifteen times what a server took to start in the slowest guest on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);
/// What a client may need beyond the measurement itself, such as for warming up and sorting.
const MARGIN: Duration = Duration::from_secs(40);
/// How often a latency is measured of which no message was valid.
const ATTEMPTS: usize = 5;

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
            Self::Latency => valid(|| {
                let latency = latency::measure(client, server, settings)?;
                Ok(latency.map(Outcome::Latency))
            }),
            Self::LoadedLatency => valid(|| loaded_latency(client, server, settings)),
            Self::Connections => connections::measure(client, server, settings).map(Outcome::Connections),
        };
        measured.with_context(|| format!("measuring {}", self.text()))
    }
}

fn loaded_latency(client: &dyn Guest, server: &dyn Guest, settings: &Measuring) -> Result<Option<Outcome>> {
    let load = throughput::start_load(client, server, settings)?;
    let latency = latency::measure(client, server, settings)?;
    let load = load.finish()?;
    Ok(latency.map(|latency| Outcome::LoadedLatency { latency, load }))
}

/// Measures until there is something to report.
fn valid<T>(mut measure: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            eprintln!("sockperf found no message valid, which happens on a busy machine: measuring again");
        }
        if let Some(outcome) = measure()? {
            return Ok(outcome);
        }
    }
    bail!("sockperf found no message valid, {ATTEMPTS} times: the machine is busy; try a longer --time")
}

fn limit(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()) + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_without_a_valid_message_is_measured_again_a_few_times() {
        let mut measured = 0;
        let third = valid(|| {
            measured += 1;
            Ok((measured == 3).then_some("figures"))
        });
        assert_eq!((third.unwrap(), measured), ("figures", 3));
        let error = valid(|| Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("try a longer --time"), "{error}");
    }
}
