//! Workloads: what may be measured between guests.

pub mod connections;
pub mod density;
mod forwarding;
pub mod kind;
pub mod latency;
mod limits;
pub mod measuring;
pub mod mixed;
pub mod packets;
pub mod round_trips;
pub mod throughput;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::{
    connections::Connections,
    density::Density,
    kind::{Workload, WorkloadKind},
    latency::Latency,
    measuring::Measuring,
    mixed::Mixed,
    packets::Packets,
    round_trips::RoundTrips,
    throughput::Throughput,
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
    Packets(Packets),
    /// Frames by a guest that routes.
    Forwarding(Packets),
    /// Round trips by a guest that routes.
    ForwardingLatency(RoundTrips),
    Density(Density),
    Mixed(Mixed),
}

/// What a measurement moved, as far as it knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes of payload, or of the frames of generators.
    pub bytes: Option<u64>,
    pub round_trips: Option<u64>,
}

impl Outcome {
    /// What has measured it.
    pub fn workload(&self) -> Workload {
        match self {
            Self::Throughput(_) => Workload::Throughput,
            Self::Latency(_) => Workload::Latency,
            Self::LoadedLatency { .. } => Workload::LoadedLatency,
            Self::Connections(_) => Workload::Connections,
            Self::Packets(packets) => Workload::Packets(packets.traffic),
            Self::Forwarding(_) => Workload::Forwarding,
            Self::ForwardingLatency(_) => Workload::ForwardingLatency,
            Self::Density(_) => Workload::Density,
            Self::Mixed(_) => Workload::Mixed,
        }
    }

    /// What it moved.
    pub fn work(&self) -> Work {
        let bytes = |bytes| Work {
            bytes: Some(bytes),
            ..Work::default()
        };
        let round_trips = |round_trips| Work {
            round_trips: Some(round_trips),
            ..Work::default()
        };
        match self {
            Self::Throughput(load) => bytes(load.bytes),
            Self::Latency(latency) => round_trips(latency.messages),
            Self::LoadedLatency { latency, load } => Work {
                round_trips: Some(latency.messages),
                ..bytes(load.bytes)
            },
            Self::Connections(connections) => round_trips(connections.total),
            Self::Packets(packets) | Self::Forwarding(packets) => bytes(packets.received_bytes),
            Self::ForwardingLatency(trips) => round_trips(trips.answered),
            Self::Density(density) => round_trips(density.steps.iter().map(|step| step.answered).sum()),
            Self::Mixed(mixed) => Work {
                round_trips: Some(mixed.alone.answered + mixed.beside.answered),
                ..bytes(mixed.bulk.bytes)
            },
        }
    }
}

/// How often a latency is measured of which no message was valid.
const ATTEMPTS: usize = 5;

impl Workload {
    /// Makes of the guests what it takes. A second time changes nothing.
    pub fn prepare(self, guests: &[Box<dyn Guest>]) -> Result<()> {
        match self.kind() {
            WorkloadKind::Forwarding => forwarding::prepare(guests).context("making a guest a router"),
            _ => Ok(()),
        }
    }

    /// Measures between guests of its [duties](WorkloadKind::duties); a server is in the second one. The
    /// [limit](density::limit_us) is that of density.
    pub fn measure(
        self,
        guests: &[Box<dyn Guest>],
        settings: &Measuring,
        limit_us: Option<f64>,
    ) -> Result<Outcome> {
        let (client, server) = (&*guests[0], &*guests[1]);
        let measured = match self {
            Self::Throughput => throughput::measure(client, server, settings).map(Outcome::Throughput),
            Self::Latency => valid(|| {
                let latency = latency::measure(client, server, settings)?;
                Ok(latency.map(Outcome::Latency))
            }),
            Self::LoadedLatency => valid(|| loaded_latency(client, server, settings)),
            Self::Connections => connections::measure(client, server, settings).map(Outcome::Connections),
            Self::Packets(traffic) => packets::measure(guests, traffic, settings).map(Outcome::Packets),
            Self::Forwarding => packets::measure_forwarding(guests, settings).map(Outcome::Forwarding),
            Self::ForwardingLatency => {
                round_trips::measure_forwarding(guests, settings).map(Outcome::ForwardingLatency)
            }
            Self::Density => limit_us
                .context("density without a limit")
                .and_then(|limit_us| density::measure(guests, settings, limit_us))
                .map(Outcome::Density),
            Self::Mixed => mixed::measure(guests, settings).map(Outcome::Mixed),
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
