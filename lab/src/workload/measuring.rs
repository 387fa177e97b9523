//! How to measure, from the command line.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::kind::WorkloadKind;
use crate::station::task::Size;

/// How to measure.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct Measuring {
    /// What to measure, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "throughput,latency")]
    pub workload: Vec<WorkloadKind>,
    /// Seconds of each measurement
    #[arg(long = "time", value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub time_s: u32,
    /// Rounds; fewer than three are too few for a ratio
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Streams of the throughput measurement
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub streams: u32,
    /// Throughput from the server to the client
    #[arg(long)]
    pub reverse: bool,
    /// Throughput of UDP instead of TCP
    #[arg(long)]
    pub udp: bool,
    /// Rate of each UDP stream in bits per second, as iperf3 takes it, such as 500M; 0 is as fast as it can
    #[arg(long, value_name = "RATE", default_value = "1G", requires = "udp")]
    pub udp_rate: String,
    /// Payload of a UDP datagram, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1448, requires = "udp", value_parser = clap::value_parser!(u32).range(16..=65507))]
    pub udp_size: u32,
    /// Payload of a latency measurement's message, in bytes
    #[arg(long = "message", value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(14..=65507))]
    pub message_bytes: u32,
    /// TCP connections that are open at a time in the connections measurement
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub parallel: u32,
    /// Lengths of packets' frames, each measured by itself
    #[arg(long, value_enum, value_delimiter = ',', default_value = "64,512,imix,1514")]
    #[serde(default)]
    pub size: Vec<Size>,
    /// Pairs of guests that send packets at a time, each number measured by itself
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    #[serde(default)]
    pub pairs: Vec<u8>,
    /// Frames or requests per second of each pair [default: packets and forwarding as fast as they go, density and mixed
    /// 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    #[serde(default)]
    pub rate: Option<u32>,
    /// Pairs of guests that density may come to
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u8).range(1..=127))]
    #[serde(default)]
    pub most_pairs: u8,
    /// Leave the VMMs' system calls uncounted
    #[arg(long)]
    pub no_syscalls: bool,
    /// Do not sample what the kernel spends its time on
    #[arg(long)]
    #[serde(default)]
    pub no_profile: bool,
}

impl Measuring {
    /// Of each pair that asks.
    pub fn requests_per_s(&self) -> u32 {
        self.rate.unwrap_or(1000)
    }
}
