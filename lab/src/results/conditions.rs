//! What every sample of a run has in common.

use serde::{Deserialize, Serialize};

use crate::workload::{kind::Workload, measuring::Measuring};

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
        let workloads = measuring.workload.iter().flat_map(|kind| kind.parts(measuring));
        for traffic in workloads.map(|workload| self.traffic(workload)) {
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
        // One step takes as long, and how many there are differs.
        let of = match workload {
            Workload::Density => String::new(),
            _ => format!(" of {time} s"),
        };
        format!("{rounds} round{plural}{of}: {traffic}, {surroundings}")
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
            Workload::Packets(_) | Workload::Forwarding => match measuring.rate {
                Some(rate) => format!("{rate} frames per second of each pair"),
                None => "frames as fast as they go".into(),
            },
            Workload::ForwardingLatency => {
                format!(
                    "requests of {} bytes one after the other",
                    measuring.message_bytes
                )
            }
            Workload::Density => format!(
                "{} requests of 200 bytes per second of each of up to {} pairs",
                measuring.requests_per_s(),
                measuring.most_pairs
            ),
            Workload::Mixed => format!(
                "{} requests of {} bytes per second",
                measuring.requests_per_s(),
                measuring.message_bytes
            ),
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
        assert_eq!(
            conditions.text_of(Workload::Density, 3),
            "3 rounds: 1000 requests of 200 bytes per second of each of up to 48 pairs, MTU 1500, offloads on"
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
