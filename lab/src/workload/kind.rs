//! The workloads there are, and what they are called.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The workloads there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Streams as fast as they go: iperf3
    Throughput,
    /// One message after the other, there and back: sockperf ping-pong
    Latency,
    /// One message after the other, there and back, while a TCP stream goes the same way as fast as it can
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
}
