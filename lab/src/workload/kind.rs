//! The workloads there are, and what they are called.

use std::borrow::Cow;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::measuring::Measuring;
use crate::{station::task::Size, testbed::guest::Duty};

/// The workloads there are, as they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadKind {
    /// Streams as fast as they go: iperf3
    Throughput,
    /// One message after the other, there and back: sockperf ping-pong
    Latency,
    /// One message after the other, there and back, while a TCP stream goes the same way as fast as it can
    LoadedLatency,
    /// Short TCP connections, each with a small request and its answer: wrk and weborf
    Connections,
    /// Frames of guests that generate them, as with DPDK or pktgen, one way, for each of --size and of --pairs
    Packets,
    /// Frames of a guest that generates them, and round trips, by a guest that routes, as firewalls and routers do
    Forwarding,
    /// Pairs of requests and answers at a fixed rate each, ever more until they no longer get their answers in time
    Density,
    /// Requests and answers of one pair, while another one has a TCP stream and a fifth guest sends broadcasts
    Mixed,
}

/// What is measured at a time: a workload, or a part of one that has figures of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Throughput,
    Latency,
    LoadedLatency,
    Connections,
    Packets(Traffic),
    Forwarding,
    ForwardingLatency,
    Density,
    Mixed,
}

/// What generators send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub size: Size,
    pub pairs: u8,
}

impl WorkloadKind {
    /// What there is to measure, one after the other.
    pub fn parts(self, measuring: &Measuring) -> Vec<Workload> {
        match self {
            Self::Throughput => vec![Workload::Throughput],
            Self::Latency => vec![Workload::Latency],
            Self::LoadedLatency => vec![Workload::LoadedLatency],
            Self::Connections => vec![Workload::Connections],
            Self::Packets => {
                let sizes = |&pairs| measuring.size.iter().map(move |&size| Traffic { size, pairs });
                let all = measuring.pairs.iter().flat_map(sizes);
                all.map(Workload::Packets).collect()
            }
            Self::Forwarding => vec![Workload::Forwarding, Workload::ForwardingLatency],
            Self::Density => vec![Workload::Density],
            Self::Mixed => vec![Workload::Mixed],
        }
    }

    /// Whether a setting has to do with it, by its name in results.
    pub fn goes_by(self, setting: &str) -> bool {
        match setting {
            "streams" | "reverse" | "udp" | "udp_rate" | "udp_size" => self == Self::Throughput,
            "message_bytes" => self.has_messages(),
            "parallel" => self == Self::Connections,
            "size" | "pairs" => self == Self::Packets,
            "rate" => matches!(
                self,
                Self::Packets | Self::Forwarding | Self::Density | Self::Mixed
            ),
            "most_pairs" => self == Self::Density,
            _ => true,
        }
    }

    fn has_messages(self) -> bool {
        matches!(self, Self::Latency | Self::LoadedLatency) || self.asks_by_stations()
    }

    /// Whether stations ask with messages of any length that a frame has room for.
    pub fn asks_by_stations(self) -> bool {
        matches!(self, Self::Forwarding | Self::Mixed)
    }

    /// What the guests are for that it takes. Workloads with the same guests can have them one after the other.
    pub fn duties(self, measuring: &Measuring) -> Vec<Duty> {
        use Duty::{Programs, Station};
        let pairs = |pairs: u8| vec![Station; 2 * usize::from(pairs)];
        match self {
            Self::Throughput | Self::Latency | Self::LoadedLatency | Self::Connections => vec![Programs; 2],
            Self::Packets => pairs(measuring.pairs.iter().copied().max().unwrap_or(1)),
            Self::Forwarding => vec![Station, Programs, Station],
            Self::Density => pairs(measuring.most_pairs),
            Self::Mixed => vec![Programs, Programs, Station, Station, Station],
        }
    }
}

impl Workload {
    /// What was asked for.
    pub fn kind(self) -> WorkloadKind {
        match self {
            Self::Throughput => WorkloadKind::Throughput,
            Self::Latency => WorkloadKind::Latency,
            Self::LoadedLatency => WorkloadKind::LoadedLatency,
            Self::Connections => WorkloadKind::Connections,
            Self::Packets(_) => WorkloadKind::Packets,
            Self::Forwarding | Self::ForwardingLatency => WorkloadKind::Forwarding,
            Self::Density => WorkloadKind::Density,
            Self::Mixed => WorkloadKind::Mixed,
        }
    }

    /// Whether the VMMs' system calls are counted. Stations are VMMs themselves: one call for each frame would be what
    /// is counted, and the counting a part of what is measured.
    pub fn has_calls(self) -> bool {
        match self.kind() {
            WorkloadKind::Throughput
            | WorkloadKind::Latency
            | WorkloadKind::LoadedLatency
            | WorkloadKind::Connections => true,
            WorkloadKind::Packets
            | WorkloadKind::Forwarding
            | WorkloadKind::Density
            | WorkloadKind::Mixed => false,
        }
    }

    /// The name in tables.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Packets(Traffic { size, pairs }) => {
                Cow::Owned(format!("{}-{}-{pairs}", self.file(), size.name()))
            }
            _ => Cow::Borrowed(self.file()),
        }
    }

    /// The name of its plot's files.
    pub fn file(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::LoadedLatency => "loaded-latency",
            Self::Connections => "connections",
            Self::Packets(_) => "packets",
            Self::Forwarding => "forwarding",
            Self::ForwardingLatency => "forwarding-latency",
            Self::Density => "density",
            Self::Mixed => "mixed",
        }
    }

    /// What is being done, for people.
    pub fn text(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::LoadedLatency => "latency under load",
            Self::Connections => "connections",
            Self::Packets(traffic) => return Cow::Owned(format!("packets, {}", traffic.text())),
            Self::Forwarding => "forwarding",
            Self::ForwardingLatency => "round trips by a router",
            Self::Density => "density",
            Self::Mixed => "mixed",
        })
    }
}

impl Traffic {
    /// Such as "64 B, 8 pairs".
    pub fn text(self) -> String {
        let plural = if self.pairs == 1 { "" } else { "s" };
        format!("{}, {} pair{plural}", self.size.text(), self.pairs)
    }
}
