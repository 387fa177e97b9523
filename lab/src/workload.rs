//! Workloads: what may be measured between two guests.

pub mod connections;
pub mod kind;
pub mod latency;
mod limits;
pub mod measuring;
pub mod throughput;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::{
    connections::Connections, kind::Workload, latency::Latency, measuring::Measuring, throughput::Throughput,
};
use crate::testbed::guest::Guest;

/// What a workload measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "workload", rename_all = "kebab-case")]
pub enum Outcome {
    Throughput(Throughput),
    Latency(Latency),
    /// Latency while streams of TCP go the same way.
    LoadedLatency {
        latency: Latency,
        load: Throughput,
    },
    Connections(Connections),
}

/// How much a workload has done, in the units that its cost is told by; `None` in those that it does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Frames that guests got, where the workload has counted them; else the guests' cards have.
    pub frames: Option<u64>,
    /// Of payload.
    pub bytes: Option<u64>,
    /// Messages, or requests, with their answers.
    pub round_trips: Option<u64>,
}

impl Outcome {
    /// How much it was.
    pub fn work(&self) -> Work {
        let bytes = match self {
            Self::Throughput(load) | Self::LoadedLatency { load, .. } => Some(load.bytes),
            Self::Latency(_) | Self::Connections(_) => None,
        };
        let round_trips = match self {
            Self::Latency(latency) | Self::LoadedLatency { latency, .. } => Some(latency.messages),
            Self::Connections(connections) => Some(connections.total),
            Self::Throughput(_) => None,
        };
        Work {
            frames: None,
            bytes,
            round_trips,
        }
    }

    /// What has measured it.
    pub fn workload(&self) -> Workload {
        match self {
            Self::Throughput(_) => Workload::Throughput,
            Self::Latency(_) => Workload::Latency,
            Self::LoadedLatency { .. } => Workload::LoadedLatency,
            Self::Connections(_) => Workload::Connections,
        }
    }
}

/// How often a latency is measured of which no message was valid.
const ATTEMPTS: usize = 5;

impl Workload {
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
