//! The numbers that a run has to tell, and what it cost.

use std::borrow::Cow;

use crate::{
    results::{Part, Run},
    workload::{
        Outcome, density::Density, kind::Workload, latency::Latency, packets::Packets,
        round_trips::RoundTrips, throughput::Throughput,
    },
};

/// A number that a run has to tell.
pub struct Metric {
    /// With its unit.
    pub name: Cow<'static, str>,
    /// Behind the point, in text.
    pub decimals: usize,
    pub over_rounds: OverRounds,
    /// `None` where the run does not tell.
    pub of: fn(&Run) -> Option<f64>,
}

/// What becomes of the numbers of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverRounds {
    Median,
    /// For what went wrong: none of it is to be lost.
    Sum,
}

/// What a workload is about.
pub fn main_metric(workload: Workload) -> Metric {
    let (name, decimals, of): (_, _, fn(&Run) -> _) = match workload {
        Workload::Throughput => ("Gbit/s", 2, |run| Some(throughput(run)?.gbit_per_s)),
        Workload::Latency | Workload::LoadedLatency => ("p50 µs", 1, |run| percentile(run, 50.0)),
        Workload::Connections => ("per s", 0, |run| match &run.outcome {
            Outcome::Connections(connections) => Some(connections.per_s),
            _ => None,
        }),
        Workload::Packets(_) | Workload::Forwarding => {
            ("frames/s", 0, |run| Some(packets(run)?.received_per_s))
        }
        Workload::ForwardingLatency => ("p50 µs", 1, |run| percentile(run, 50.0)),
        Workload::Density => ("pairs", 0, |run| Some(f64::from(density(run)?.pairs))),
        Workload::Mixed => ("p99 µs", 1, |run| percentile(run, 99.0)),
    };
    median(name, decimals, of)
}

/// What else may be told of a workload. A run leaves out what is not its own.
pub const OTHER_METRICS: [Metric; 23] = [
    median("sent/s", 0, |run| Some(packets(run)?.sent_per_s)),
    median("fairness", 3, |run| Some(packets(run)?.fairness)),
    median("worst pair's share", 2, |run| Some(packets(run)?.worst_share)),
    median("answers/s", 0, |run| Some(density(run)?.answered_per_s)),
    median("p99 µs then", 1, |run| Some(density(run)?.p99_us)),
    median("p99 µs of one pair", 1, |run| Some(density(run)?.idle_p99_us)),
    median("limit µs", 1, |run| density(run)?.limit_us),
    median("p99 µs alone", 1, |run| match &run.outcome {
        Outcome::Mixed(mixed) => percentile_of(&mixed.alone.percentiles_us, 99.0),
        _ => None,
    }),
    sum("lost answers", |run| Some(number(round_trips(run)?.lost()))),
    median("load Gbit/s", 2, |run| match &run.outcome {
        Outcome::LoadedLatency { load, .. } => Some(load.gbit_per_s),
        Outcome::Mixed(mixed) => Some(mixed.bulk.gbit_per_s),
        _ => None,
    }),
    median("average µs", 1, |run| match round_trips(run) {
        Some(trips) => Some(trips.average_us),
        None => Some(latency(run)?.average_us),
    }),
    median("p50 µs", 1, |run| percentile(run, 50.0)),
    median("p99 µs", 1, |run| percentile(run, 99.0)),
    median("p99.9 µs", 1, |run| percentile(run, 99.9)),
    median("p99.99 µs", 1, |run| percentile(run, 99.99)),
    median("max µs", 1, |run| match round_trips(run) {
        Some(trips) => Some(trips.max_us),
        None => Some(latency(run)?.max_us),
    }),
    sum("dropped", |run| Some(number(latency(run)?.dropped))),
    sum("duplicated", |run| Some(number(latency(run)?.duplicated))),
    sum("out of order", |run| Some(number(latency(run)?.out_of_order))),
    sum("retransmits", |run| throughput(run)?.retransmits.map(number)),
    sum("lost datagrams", |run| {
        Some(number(throughput(run)?.datagrams.as_ref()?.lost))
    }),
    median("lost %", 2, |run| {
        if let Some(packets) = packets(run) {
            return Some(packets.lost_percent());
        }
        let datagrams = throughput(run)?.datagrams.as_ref()?;
        Some(100.0 * number(datagrams.lost) / number(datagrams.sent))
    }),
    sum("failed", |run| match &run.outcome {
        Outcome::Connections(connections) => Some(number(connections.failed)),
        _ => None,
    }),
];

/// What the host spent on carrying frames, by each of what a run may have done.
pub const HOST_CPU: [Metric; 3] = [
    median("s/10⁶ frames", 2, |run| {
        per(run.switching_s(), Some(run.card_frames()), 1e6)
    }),
    median("s/GB", 3, |run| {
        per(run.switching_s(), run.outcome.work().bytes, 1e9)
    }),
    median("s/1,000 round trips", 3, |run| {
        per(run.switching_s(), run.outcome.work().round_trips, 1e3)
    }),
];

/// What the path cost of it, as the profile tells it.
pub const PATH: Metric = median("path, µs/frame", 2, |run| us_per_frame(run, Part::Path));

/// A part of what a frame cost.
pub fn us_per_frame(run: &Run, part: Part) -> Option<f64> {
    per(run.profile.as_ref()?.part_s(part), Some(run.card_frames()), 1e6)
}

fn per(seconds: f64, count: Option<u64>, unit: f64) -> Option<f64> {
    let count = count.filter(|&count| count > 0)?;
    Some(seconds / number(count) * unit)
}

/// What a run cost, by what it did.
pub fn costs(workload: Workload) -> [Metric; 11] {
    let (unit, time) = (unit(workload), time(workload).0);
    let named = |name: String, decimals, of: fn(&Run) -> Option<f64>| Metric {
        name: Cow::Owned(name),
        ..median("", decimals, of)
    };
    let decimals = usize::from(unit != "GB");
    let cpu = |what, of| named(format!("{what}, {time}/{unit}"), 2, of);
    let calls = |whose, of| named(format!("{whose} calls/{unit}"), decimals, of);
    [
        cpu("host CPU", |run| cpu_per_unit(run, run.host?.busy_s())),
        cpu("of it softirq", |run| cpu_per_unit(run, run.host?.softirq_s)),
        median("host CPU, s/10⁶ frames", 2, |run| {
            per_million_frames(run, run.host?.busy_s())
        }),
        median("of it softirq, s/10⁶ frames", 2, |run| {
            per_million_frames(run, run.host?.softirq_s)
        }),
        median("VMMs' CPU, s/10⁶ frames", 2, |run| {
            let cpu = run.roles().map(|role| role.cpu.user_s + role.cpu.system_s);
            per_million_frames(run, cpu.sum())
        }),
        median("datapath's processes, s/10⁶ frames", 2, |run| {
            let cpu = run
                .datapath
                .iter()
                .map(|helper| helper.cpu.user_s + helper.cpu.system_s);
            per_million_frames(run, cpu.sum()).filter(|_| !run.datapath.is_empty())
        }),
        cpu("client VMM CPU", |run| {
            cpu_per_unit(run, run.client.cpu.user_s + run.client.cpu.system_s)
        }),
        cpu("server VMM CPU", |run| {
            cpu_per_unit(run, run.server.cpu.user_s + run.server.cpu.system_s)
        }),
        cpu("further VMMs' CPU", |run| {
            let others = run.others.iter().map(|role| role.cpu.user_s + role.cpu.system_s);
            cpu_per_unit(run, others.sum()).filter(|_| !run.others.is_empty())
        }),
        calls("client VMM", |run| {
            Some(number(run.client.calls()?) / units(run)?)
        }),
        calls("server VMM", |run| {
            Some(number(run.server.calls()?) / units(run)?)
        }),
    ]
}

/// What the costs of a workload are told by.
pub fn unit(workload: Workload) -> &'static str {
    match workload {
        Workload::Throughput
        | Workload::LoadedLatency
        | Workload::Packets(_)
        | Workload::Forwarding
        | Workload::Mixed => "GB",
        Workload::Latency => "message",
        Workload::Connections => "connection",
        Workload::ForwardingLatency | Workload::Density => "round trip",
    }
}

/// How often a run did that; `None` of never. A GB is 10⁹ bytes of payload.
pub fn units(run: &Run) -> Option<f64> {
    let work = run.outcome.work();
    let units = match unit(run.outcome.workload()) {
        "GB" => number(work.bytes?) / 1e9,
        _ => number(work.round_trips?),
    };
    (units > 0.0).then_some(units)
}

/// What CPU time by the unit is told in: the unit of time and how many of them a second has.
fn time(workload: Workload) -> (&'static str, f64) {
    match unit(workload) {
        "GB" => ("s", 1.0),
        _ => ("µs", 1e6),
    }
}

fn cpu_per_unit(run: &Run, seconds: f64) -> Option<f64> {
    let (_, per_second) = time(run.outcome.workload());
    Some(seconds * per_second / units(run)?)
}

/// Frames are those that the guests' cards received, as the guests count them.
fn per_million_frames(run: &Run, seconds: f64) -> Option<f64> {
    per(seconds, Some(run.card_frames()), 1e6)
}

/// Of the measurement itself, or of the load beside it.
pub fn throughput(run: &Run) -> Option<&Throughput> {
    match &run.outcome {
        Outcome::Throughput(throughput) | Outcome::LoadedLatency { load: throughput, .. } => Some(throughput),
        Outcome::Mixed(mixed) => Some(&mixed.bulk),
        _ => None,
    }
}

/// With a load beside it, or without.
pub fn latency(run: &Run) -> Option<&Latency> {
    match &run.outcome {
        Outcome::Latency(latency) | Outcome::LoadedLatency { latency, .. } => Some(latency),
        _ => None,
    }
}

/// Of generators.
pub fn packets(run: &Run) -> Option<&Packets> {
    match &run.outcome {
        Outcome::Packets(packets) | Outcome::Forwarding(packets) => Some(packets),
        _ => None,
    }
}

/// Of stations, with what others send beside it if others do.
pub fn round_trips(run: &Run) -> Option<&RoundTrips> {
    match &run.outcome {
        Outcome::ForwardingLatency(trips) => Some(trips),
        Outcome::Mixed(mixed) => Some(&mixed.beside),
        _ => None,
    }
}

pub fn density(run: &Run) -> Option<&Density> {
    match &run.outcome {
        Outcome::Density(density) => Some(density),
        _ => None,
    }
}

/// How many times there were that percentiles are of.
pub fn observations(run: &Run) -> Option<u64> {
    match round_trips(run) {
        Some(trips) => Some(trips.answered),
        None => Some(latency(run)?.observations),
    }
}

/// Times by their percentiles, whatever took them.
pub fn percentiles(run: &Run) -> &[(f64, f64)] {
    match &run.outcome {
        Outcome::Latency(latency) | Outcome::LoadedLatency { latency, .. } => &latency.percentiles_us,
        Outcome::Connections(connections) => &connections.percentiles_us,
        Outcome::ForwardingLatency(trips) => &trips.percentiles_us,
        Outcome::Mixed(mixed) => &mixed.beside.percentiles_us,
        _ => &[],
    }
}

/// One of them.
pub fn percentile(run: &Run, wanted: f64) -> Option<f64> {
    percentile_of(percentiles(run), wanted)
}

fn percentile_of(percentiles: &[(f64, f64)], wanted: f64) -> Option<f64> {
    let mut percentiles = percentiles.iter();
    let (_, time) = percentiles.find(|(percentile, _)| (percentile - wanted).abs() < 1e-6)?;
    Some(*time)
}

const fn median(name: &'static str, decimals: usize, of: fn(&Run) -> Option<f64>) -> Metric {
    Metric {
        name: Cow::Borrowed(name),
        decimals,
        over_rounds: OverRounds::Median,
        of,
    }
}

const fn sum(name: &'static str, of: fn(&Run) -> Option<f64>) -> Metric {
    Metric {
        name: Cow::Borrowed(name),
        decimals: 0,
        over_rounds: OverRounds::Sum,
        of,
    }
}

/// A count as what is divided and drawn.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_hosts_time_is_told_by_all_that_was_done() {
        let told = |run: &Run| HOST_CPU.map(|metric| (metric.of)(run).map(|value| format!("{value:.3}")));
        let some = |value: &str| Some(value.to_owned());
        // Twice 2 s in the VMMs and half a second of softirqs, for 2 million frames and 2 GB or a thousand messages.
        let mut run = fixture::throughput(1.6, &[]);
        assert_eq!(told(&run), [some("2.250"), some("2.250"), None]);
        run.host = None;
        assert_eq!(told(&run), [some("2.250"), some("2.250"), None]);
        run.softirqs_s = None;
        assert_eq!(told(&run), [some("2.000"), some("2.000"), None]);
        // A switch in user space, with a second there and another in the kernel.
        run.datapath.push(fixture::helper());
        assert_eq!(told(&run), [some("3.000"), some("3.000"), None]);
        assert_eq!(
            told(&fixture::latency(40.0)),
            [some("2.250"), None, some("4.500")]
        );
        (run.client.card.rx_frames, run.server.card.rx_frames) = (0, 0);
        assert_eq!(told(&run)[0], None);
    }

    #[test]
    fn a_part_is_told_by_the_frame_where_there_is_a_profile() {
        let mut run = fixture::latency(40.0);
        assert_eq!((PATH.of)(&run), None);
        run.profile = Some(fixture::profile(1.0));
        let told = Part::ALL.map(|part| format!("{:.1}", us_per_frame(&run, part).unwrap()));
        assert_eq!(told, ["0.5", "1.0", "1.5", "0.0", "0.0", "0.0", "0.0", "0.0"]);
    }

    fn told(run: &Run) -> Vec<(String, String)> {
        let metrics = costs(run.outcome.workload()).into_iter();
        metrics
            .filter_map(|metric| Some((metric.name.to_string(), format!("{:.3}", (metric.of)(run)?))))
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|&(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn throughput_costs_by_the_gigabyte() {
        // 2 GB, and 2 million frames.
        let run = fixture::throughput(1.6, &[("read", 200), ("writev", 400)]);
        let expected = [
            ("host CPU, s/GB", "3.000"),
            ("of it softirq, s/GB", "0.250"),
            ("host CPU, s/10⁶ frames", "3.000"),
            ("of it softirq, s/10⁶ frames", "0.250"),
            ("VMMs' CPU, s/10⁶ frames", "3.000"),
            ("client VMM CPU, s/GB", "1.500"),
            ("server VMM CPU, s/GB", "1.500"),
            ("client VMM calls/GB", "300.000"),
            ("server VMM calls/GB", "300.000"),
        ];
        assert_eq!(told(&run), pairs(&expected));
    }

    #[test]
    fn latency_costs_by_the_message_and_uncounted_calls_are_not_told() {
        let mut run = fixture::latency(40.0);
        run.server.syscalls = None;
        let expected = [
            ("host CPU, µs/message", "6000.000"),
            ("of it softirq, µs/message", "500.000"),
            ("host CPU, s/10⁶ frames", "3.000"),
            ("of it softirq, s/10⁶ frames", "0.250"),
            ("VMMs' CPU, s/10⁶ frames", "3.000"),
            ("client VMM CPU, µs/message", "3000.000"),
            ("server VMM CPU, µs/message", "3000.000"),
            ("client VMM calls/message", "2.000"),
        ];
        assert_eq!(told(&run), pairs(&expected));
    }

    #[test]
    fn without_the_hosts_cpu_time_that_of_the_vmms_is_told() {
        let mut run = fixture::latency(40.0);
        run.host = None;
        let told = told(&run);
        assert!(
            !told
                .iter()
                .any(|(name, _)| name.contains("host") || name.contains("softirq"))
        );
        let vmm = ("client VMM CPU, µs/message".into(), "3000.000".into());
        assert!(told.contains(&vmm), "{told:?}");
    }

    #[test]
    fn nothing_done_has_no_cost() {
        let mut run = fixture::throughput(0.0, &[]);
        assert_eq!(units(&run), None);
        (run.client.card.rx_frames, run.server.card.rx_frames) = (0, 0);
        assert_eq!(told(&run), []);
    }
}
