//! What the lab sets up and measures, from the command line.

use std::path::PathBuf;

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
    /// This project's binary
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
/// system calls of the guests' VMMs and tapbridge's own counters are taken.
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
    /// What the results call the revision of this project
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
        let mut parts = vec![
            format!("{} s each", measuring.time_s),
            format!("rounds: {}", measuring.repeat),
        ];
        for &workload in &measuring.workload {
            let traffic = self.traffic(workload);
            if !parts.contains(&traffic) {
                parts.push(traffic);
            }
        }
        parts.push(self.surroundings());
        parts.join(", ")
    }

    /// A line for people, of one workload, of which there were so many rounds.
    pub fn text_of(&self, workload: Workload, rounds: usize) -> String {
        let (time, traffic, surroundings) =
            (self.measuring.time_s, self.traffic(workload), self.surroundings());
        let plural = if rounds == 1 { "" } else { "s" };
        format!("{rounds} round{plural} of {time} s: {traffic}, {surroundings}")
    }

    /// What a workload sends.
    fn traffic(&self, workload: Workload) -> String {
        let measuring = &self.measuring;
        match workload {
            Workload::Throughput => {
                let streams = counted(measuring.streams, "stream");
                let mut text = if measuring.udp {
                    let (rate, size) = (&measuring.udp_rate, measuring.udp_size);
                    format!("UDP, {streams} of {rate} bit/s in datagrams of {size} bytes")
                } else {
                    format!("TCP, {streams}")
                };
                if measuring.reverse {
                    text.push_str(", from server to client");
                }
                text
            }
            Workload::Latency | Workload::LoadedLatency => {
                format!("messages of {} bytes", measuring.message_bytes)
            }
            Workload::Connections => format!("{} connections at a time", measuring.parallel),
        }
    }

    fn surroundings(&self) -> String {
        let offloads = if self.offloads { "on" } else { "off" };
        let steady = if self.steady {
            ", CPUs kept awake, guests pinned"
        } else {
            ""
        };
        format!("MTU {}, offloads {offloads}{steady}", self.mtu)
    }
}

fn counted(count: u32, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
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
    fn of_a_workload_only_its_own_conditions_are_told() {
        let mut conditions = fixture::results(Vec::new()).conditions;
        assert_eq!(
            conditions.text(),
            "10 s each, rounds: 2, TCP, 2 streams, messages of 64 bytes, MTU 1500, offloads on"
        );
        assert_eq!(
            conditions.text_of(Workload::Throughput, 3),
            "3 rounds of 10 s: TCP, 2 streams, MTU 1500, offloads on"
        );
        conditions.measuring.streams = 1;
        conditions.measuring.udp = true;
        assert_eq!(
            conditions.text_of(Workload::Throughput, 1),
            "1 round of 10 s: UDP, 1 stream of 1G bit/s in datagrams of 1448 bytes, MTU 1500, offloads on"
        );
        assert_eq!(
            conditions.text_of(Workload::Latency, 3),
            "3 rounds of 10 s: messages of 64 bytes, MTU 1500, offloads on"
        );
    }

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
