//! What the lab sets up and measures, from the command line.

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, ValueEnum};
use lab::Offloads;
use serde::{Deserialize, Serialize};

use crate::{
    datapath::{self, Hook},
    guest::{self, Hardware},
    workload::Workload,
};

/// Guests, and what connects them.
#[derive(Debug, Clone, Args)]
pub struct Setup {
    /// The program of this project's switch
    #[arg(long, value_name = "PATH")]
    pub tapbridge: Option<PathBuf>,
    /// Datapaths, each in turn
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "tapbridge,linux-bridge"
    )]
    pub datapath: Vec<datapath::Kind>,
    /// Hooks of the datapath tapbridge, each measured as a datapath of its own, such as tapbridge-tcx [default: auto, as
    /// the datapath tapbridge]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub hook: Vec<Hook>,
    /// Kind of the guests
    #[arg(long, value_enum, default_value = "netns")]
    pub guest: guest::Kind,
    /// Folder with the packages of virtual machines, which `cargo xtask lab --guest qemu` sets up
    #[arg(long, value_name = "FOLDER")]
    pub vm: Option<PathBuf>,
    /// Let the host's kernel copy the frames of virtual machines, not QEMU
    #[arg(long)]
    pub vhost: bool,
    /// MTU of guests and taps, in bytes; at least what IPv6 needs
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=65521))]
    pub mtu: u32,
    /// Checksum and segmentation offloads of the guests' network cards
    #[arg(long, value_enum, default_value_t = Switched::On)]
    pub offloads: Switched,
}

/// Measure between two guests, over each of the datapaths in turn
///
/// Where CPUs may sleep and nothing is pinned to one, identical runs differ by a fifth or more: compare datapaths by
/// their ratio within a round, over several rounds, or see --steady. With every measurement the host's CPU time, the
/// system calls of the guests' VMMs and the switch's own counters are taken.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    #[command(flatten)]
    pub setup: Setup,
    #[command(flatten)]
    pub measuring: Measuring,
    /// Keep the CPUs awake, and each guest with its VMM on a CPU of its own; the host's CPU time is not told then
    #[arg(long)]
    pub steady: bool,
    /// Folder for results.json, report.md and the plots; must not exist yet
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Print the results as one JSON document instead of the tables
    #[arg(short, long)]
    pub json: bool,
    /// What the results call the revision of the switch
    #[arg(long, hide = true)]
    pub revision: Option<String>,
}

/// How to measure.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct Measuring {
    /// What to measure, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "throughput,latency")]
    pub workload: Vec<Workload>,
    /// Seconds of each measurement
    #[arg(long = "time", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub time_s: u32,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
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
    /// Leave the VMMs' system calls uncounted
    #[arg(long)]
    pub no_syscalls: bool,
}

/// What every sample of a run has in common, for its results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Of guests and taps, in bytes.
    pub mtu: u32,
    /// Whether the guests' network cards had checksum and segmentation offloads.
    pub offloads: bool,
    /// Whether CPUs were kept awake, and guests on CPUs of their own.
    #[serde(default)]
    pub steady: bool,
    #[serde(flatten)]
    pub measuring: Measuring,
}

impl Conditions {
    /// A line for people.
    pub fn text(&self) -> String {
        let measuring = &self.measuring;
        let measures = |wanted: &[Workload]| {
            measuring
                .workload
                .iter()
                .any(|workload| wanted.contains(workload))
        };
        let mut text = format!("{} s each, rounds: {}", measuring.time_s, measuring.repeat);
        if measures(&[Workload::Throughput]) {
            let streams = measuring.streams;
            let _ = if measuring.udp {
                let (rate, size) = (&measuring.udp_rate, measuring.udp_size);
                write!(
                    text,
                    ", {streams} UDP streams of {rate} bit/s in datagrams of {size} bytes"
                )
            } else {
                write!(text, ", {streams} TCP streams")
            };
            if measuring.reverse {
                text.push_str(", from server to client");
            }
        }
        if measures(&[Workload::Latency, Workload::LoadedLatency]) {
            let _ = write!(text, ", messages of {} bytes", measuring.message_bytes);
        }
        if measures(&[Workload::Connections]) {
            let _ = write!(text, ", {} connections at a time", measuring.parallel);
        }
        let offloads = if self.offloads { "on" } else { "off" };
        let _ = write!(text, ", MTU {}, offloads {offloads}", self.mtu);
        if self.steady {
            text.push_str(", CPUs kept awake, guests pinned");
        }
        text
    }
}

impl Setup {
    /// The guests' cards and taps.
    pub fn hardware(&self) -> Hardware {
        Hardware {
            mtu: self.mtu,
            offloads: self.offloads.into(),
        }
    }
}

impl Settings {
    pub fn conditions(&self) -> Conditions {
        Conditions {
            mtu: self.setup.mtu,
            offloads: self.setup.offloads == Switched::On,
            steady: self.steady,
            measuring: self.measuring.clone(),
        }
    }
}

/// A feature's state on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switched {
    On,
    Off,
}

impl From<Switched> for Offloads {
    fn from(switched: Switched) -> Self {
        match switched {
            Switched::On => Self::All,
            Switched::Off => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_reader_is_told_that_cpus_were_kept_awake() {
        let mut conditions = fixture::results(Vec::new()).conditions;
        assert!(conditions.text().ends_with(", offloads on"));
        conditions.steady = true;
        assert!(conditions.text().ends_with(", CPUs kept awake, guests pinned"));
    }

    #[test]
    fn conditions_from_before_cpus_were_kept_awake_can_be_read() {
        let mut conditions = fixture::results(Vec::new()).conditions;
        conditions.steady = true;
        let mut json = serde_json::to_value(&conditions).unwrap();
        assert_eq!(json.as_object_mut().unwrap().remove("steady"), Some(true.into()));
        conditions.steady = false;
        assert_eq!(serde_json::from_value::<Conditions>(json).unwrap(), conditions);
    }
}
