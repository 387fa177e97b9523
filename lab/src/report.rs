//! The samples for people, as a table, and for programs, as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{datapath::Kind, guest::Facts, machine::Machine, sample::Sample, settings::Settings};

/// Raised when a field changes its meaning or goes away.
const SCHEMA: u32 = 2;

/// Everything that a run has found out.
#[derive(Debug, Serialize)]
pub struct Report<'run> {
    schema: u32,
    machine: &'run Machine,
    guests: &'run Facts,
    settings: &'run Settings,
    summary: Vec<Summary>,
    samples: &'run [Sample],
}

/// One datapath over all rounds: medians of the rounds' figures, and sums of what went wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Summary {
    datapath: Kind,
    gbit_per_s: f64,
    retransmits: u64,
    p50_us: f64,
    p99_us: f64,
    /// Latency messages without an answer, and frames that a guest's tap or the host's refused.
    lost: u64,
    /// Throughput as a multiple of the Linux bridge's in the same round; null when that was not measured.
    throughput_ratio: Option<f64>,
    /// Median latency as a multiple of the Linux bridge's in the same round.
    latency_ratio: Option<f64>,
}

impl<'run> Report<'run> {
    pub fn new(
        machine: &'run Machine,
        guests: &'run Facts,
        settings: &'run Settings,
        samples: &'run [Sample],
    ) -> Self {
        let summary = settings
            .setup
            .datapath
            .iter()
            .filter_map(|&kind| summarise(kind, samples))
            .collect();
        Self {
            schema: SCHEMA,
            machine,
            guests,
            settings,
            summary,
            samples,
        }
    }

    /// The table and the last counters of each datapath that counts.
    pub fn text(&self) -> String {
        let mut text = format!("guests: {}\n\n{}", self.guests.text(), table(&self.summary));
        for summary in &self.summary {
            let last = self
                .samples
                .iter()
                .rev()
                .find(|sample| sample.datapath == summary.datapath);
            if let Some(facts) = last.and_then(|sample| sample.datapath_facts.as_deref()) {
                let _ = writeln!(text, "\n{}: {facts}", summary.datapath.name());
            }
            if let Some(stats) = last.and_then(|sample| sample.stats_text.as_deref()) {
                let _ = write!(text, "\n{} stats, last round:\n{stats}", summary.datapath.name());
            }
        }
        text
    }
}

fn summarise(kind: Kind, samples: &[Sample]) -> Option<Summary> {
    let own: Vec<_> = samples.iter().filter(|sample| sample.datapath == kind).collect();
    let figure = |of: fn(&Sample) -> f64| median(own.iter().map(|sample| of(sample)).collect());
    let throughput = |sample: &Sample| sample.throughput.gbit_per_s;
    let latency = |sample: &Sample| sample.latency.p50_us;
    // Round by round, since the machine's speed drifts from one to the next.
    let ratio = |of: fn(&Sample) -> f64| {
        let peer = |round| {
            samples
                .iter()
                .find(|sample| sample.datapath == Kind::LinuxBridge && sample.round == round)
        };
        median(
            own.iter()
                .filter_map(|sample| Some(of(sample) / of(peer(sample.round)?)))
                .collect(),
        )
    };
    Some(Summary {
        datapath: kind,
        gbit_per_s: figure(throughput)?,
        retransmits: own.iter().map(|sample| sample.throughput.retransmits).sum(),
        p50_us: figure(latency)?,
        p99_us: figure(|sample| sample.latency.p99_us)?,
        lost: own.iter().map(|sample| lost(sample)).sum(),
        throughput_ratio: ratio(throughput),
        latency_ratio: ratio(latency),
    })
}

fn lost(sample: &Sample) -> u64 {
    let refused = sample
        .pumps
        .iter()
        .flatten()
        .map(|pump| pump.to_host.dropped + pump.to_guest.dropped);
    sample.latency.dropped + refused.sum::<u64>()
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (
        values.get(values.len().checked_sub(1)? / 2)?,
        values.get(values.len() / 2)?,
    );
    Some(f64::midpoint(*lower, *upper))
}

fn table(rows: &[Summary]) -> String {
    let mut text = String::from(
        "datapath       Gbit/s  to bridge  retransmits   p50 µs  to bridge   p99 µs  lost\n\
         -------------  ------  ---------  -----------  -------  ---------  -------  ----\n",
    );
    let times = |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2} x"));
    for row in rows {
        let _ = writeln!(
            text,
            "{:<13}  {:6.2}  {:>9}  {:11}  {:7.1}  {:>9}  {:7.1}  {:4}",
            row.datapath.name(),
            row.gbit_per_s,
            times(row.throughput_ratio),
            row.retransmits,
            row.p50_us,
            times(row.latency_ratio),
            row.p99_us,
            row.lost,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use lab::pump;

    use super::*;
    use crate::latency::Latency;
    use crate::throughput::Throughput;

    fn sample(datapath: Kind, round: u32, gbit_per_s: f64, p50_us: f64) -> Sample {
        Sample {
            datapath,
            datapath_facts: None,
            round,
            boots: 1,
            boot_s: [0.0; 2],
            throughput: Throughput {
                gbit_per_s,
                retransmits: 1,
                streams: Vec::new(),
            },
            latency: Latency {
                average_us: p50_us,
                p50_us,
                p99_us: 2.0 * p50_us,
                p99_9_us: 3.0 * p50_us,
                max_us: 4.0 * p50_us,
                observations: 1000,
                dropped: 0,
                duplicated: 0,
                out_of_order: 0,
            },
            pumps: Some([pump::Report::default(); 2]),
            stats: None,
            stats_text: None,
        }
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn ratios_compare_within_a_round() {
        let samples = [
            sample(Kind::Tapbridge, 1, 12.0, 40.0),
            sample(Kind::LinuxBridge, 1, 10.0, 50.0),
            // The machine got slower by half; the ratio stays.
            sample(Kind::LinuxBridge, 2, 5.0, 100.0),
            sample(Kind::Tapbridge, 2, 6.0, 80.0),
        ];
        let summary = summarise(Kind::Tapbridge, &samples).unwrap();
        assert!((summary.throughput_ratio.unwrap() - 1.2).abs() < 1e-9);
        assert!((summary.latency_ratio.unwrap() - 0.8).abs() < 1e-9);
        assert_eq!(summary.retransmits, 2);
    }

    #[test]
    fn the_table_has_no_ratio_where_the_bridge_was_not_measured() {
        let summary = summarise(Kind::Tapbridge, &[sample(Kind::Tapbridge, 1, 12.0, 40.0)]).unwrap();
        let text = table(&[summary]);
        assert_eq!(
            text.lines().last().unwrap(),
            "tapbridge       12.00          -            1     40.0          -     80.0     0"
        );
    }
}
