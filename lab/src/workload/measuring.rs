//! How to measure, from the command line.

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::kind::WorkloadKind;
use crate::{station::task::Size, testbed::guest::Kind};

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
    /// Pairs of guests that density may come to [default: 96, of virtual machines 4]
    #[arg(long, value_name = "N", default_value_t = 96, hide_default_value = true, value_parser = clap::value_parser!(u8).range(1..=127))]
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

/// Settings that not every workload goes by: names in results, and options.
const OF_SOME: [(&str, &str); 11] = [
    ("streams", "--streams"),
    ("reverse", "--reverse"),
    ("udp", "--udp"),
    ("udp_rate", "--udp-rate"),
    ("udp_size", "--udp-size"),
    ("message_bytes", "--message"),
    ("parallel", "--parallel"),
    ("size", "--size"),
    ("pairs", "--pairs"),
    ("rate", "--rate"),
    ("most_pairs", "--most-pairs"),
];
/// Pairs of virtual machines that density may come to, unless told: each has memory and a CPU of its own.
const MOST_PAIRS_OF_MACHINES: u8 = 4;
/// What frames have beside their MTU.
const ETHERNET: u32 = 14;

impl Measuring {
    /// As it is meant: nothing twice, with the default of such guests; an error if something would do nothing, or if frames
    /// would not fit. `given` tells by a name in results what was on the command line.
    pub fn checked(mut self, guests: Kind, mtu: u32, given: impl Fn(&str) -> bool) -> Result<Self> {
        distinct(&mut self.workload);
        distinct(&mut self.size);
        distinct(&mut self.pairs);
        for (name, option) in OF_SOME.iter().filter(|(name, _)| given(name)) {
            let of = |kind: &&WorkloadKind| kind.goes_by(name);
            if self.workload.iter().any(|kind| of(&kind)) {
                continue;
            }
            let kinds = WorkloadKind::value_variants().iter().filter(of);
            let kinds = kinds.filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            bail!("{option} would do nothing: it is of --workload {kinds}");
        }
        if guests == Kind::Qemu && !given("most_pairs") {
            self.most_pairs = MOST_PAIRS_OF_MACHINES;
        }
        if self.workload.iter().any(|kind| kind.asks_by_stations()) {
            let most = payload_for(mtu);
            ensure!(
                (LEAST_PAYLOAD..=most).contains(&self.message_bytes),
                "--message {}: requests of forwarding and mixed have {LEAST_PAYLOAD} to {most} bytes with --mtu {mtu}",
                self.message_bytes
            );
        }
        if self.workload.contains(&WorkloadKind::Packets) {
            let longest = |size: &Size| size.lengths().iter().max().copied().unwrap_or_default();
            let too_long = self
                .size
                .iter()
                .filter(|size| longest(size) as u64 > u64::from(mtu + ETHERNET));
            let too_long: Vec<_> = too_long.map(|size| size.name()).collect();
            ensure!(
                too_long.is_empty(),
                "frames of --size {} do not fit --mtu {mtu}: name others, such as --size 64,512",
                too_long.join(",")
            );
        }
        Ok(self)
    }

    /// Of stations' requests; an earlier check has seen that it is one.
    pub fn payload(&self) -> u16 {
        u16::try_from(self.message_bytes).unwrap_or(u16::MAX)
    }

    /// Of each pair that asks.
    pub fn requests_per_s(&self) -> u32 {
        self.rate.unwrap_or(1000)
    }
}

/// Of a request of a station's: in a frame of 60 bytes.
const LEAST_PAYLOAD: u32 = 18;

/// What a frame has room for behind the headers of IPv4 and UDP.
fn payload_for(mtu: u32) -> u32 {
    /// As with an MTU of 1500.
    const MOST: u32 = 1472;
    MOST.min(mtu.saturating_sub(28))
}

/// Leaves of each the first.
pub fn distinct<T: PartialEq + Clone>(all: &mut Vec<T>) {
    let mut seen = Vec::new();
    all.retain(|one| {
        let new = !seen.contains(one);
        if new {
            seen.push(one.clone());
        }
        new
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn measuring(workload: &[WorkloadKind]) -> Measuring {
        let mut measuring = fixture::results(Vec::new()).conditions.measuring;
        measuring.workload = workload.to_vec();
        measuring.size = vec![Size::Shortest, Size::Longest];
        measuring
    }

    fn error(workload: &[WorkloadKind], mtu: u32, given: &[&str]) -> String {
        let checked = measuring(workload).checked(Kind::Netns, mtu, |name| given.contains(&name));
        checked.map_or_else(|error| error.to_string(), |_| "none".into())
    }

    #[test]
    fn an_option_that_no_workload_goes_by_is_refused() {
        use WorkloadKind::{Density, Latency, Packets};
        assert_eq!(
            error(&[Latency], 1500, &["size"]),
            "--size would do nothing: it is of --workload packets"
        );
        assert_eq!(
            error(&[Latency, Packets], 1500, &["rate", "size", "message_bytes"]),
            "none"
        );
        assert!(error(&[Packets], 1500, &["most_pairs"]).contains("--workload density"));
        assert!(
            error(&[Density], 1500, &["message_bytes"])
                .contains("latency, loaded-latency, forwarding, mixed")
        );
    }

    #[test]
    fn every_setting_is_an_option_of_some_workload_but_not_of_all() {
        for (name, _) in OF_SOME {
            let of = WorkloadKind::value_variants()
                .iter()
                .filter(|kind| kind.goes_by(name));
            assert!(
                (1..WorkloadKind::value_variants().len()).contains(&of.count()),
                "{name}"
            );
        }
    }

    #[test]
    fn frames_that_do_not_fit_are_refused_before_anything_boots() {
        use WorkloadKind::{Forwarding, Latency, Packets};
        let short = error(&[Packets], 1400, &[]);
        assert!(short.contains("--size 1514 do not fit --mtu 1400"), "{short}");
        assert_eq!(error(&[Packets], 1500, &[]), "none");
        let with = |kind, message_bytes, mtu| {
            let mut measuring = measuring(&[kind]);
            measuring.message_bytes = message_bytes;
            measuring.checked(Kind::Netns, mtu, |_| false).is_ok()
        };
        assert!(with(Forwarding, 1472, 1500) && !with(Forwarding, 1473, 1500) && !with(Forwarding, 17, 1500));
        assert!(!with(Forwarding, 1400, 1300) && with(Latency, 1400, 1300));
    }

    #[test]
    fn nothing_is_measured_twice_and_virtual_machines_are_few() {
        let mut twice = measuring(&[
            WorkloadKind::Packets,
            WorkloadKind::Density,
            WorkloadKind::Packets,
        ]);
        twice.size = vec![Size::Imix, Size::Shortest, Size::Imix];
        twice.pairs = vec![2, 1, 2];
        let checked =
            |guests, given: &[&str]| twice.clone().checked(guests, 1500, |name| given.contains(&name));
        let once = checked(Kind::Netns, &[]).unwrap();
        assert_eq!((once.workload.len(), once.most_pairs), (2, 48));
        assert_eq!(
            (once.size, once.pairs),
            (vec![Size::Imix, Size::Shortest], vec![2, 1])
        );
        assert_eq!(checked(Kind::Qemu, &[]).unwrap().most_pairs, 4);
        assert_eq!(checked(Kind::Qemu, &["most_pairs"]).unwrap().most_pairs, 48);
    }
}
