//! One run in the form in which iperf3, sockperf and bpftrace tell it, to lay beside their own output elsewhere.

use std::fmt::Write as _;

use bridge_common::syscalls::tracepoint;

use super::metrics::number;
use crate::{
    results::{Role, Run},
    workload::{Outcome, connections::Connections, latency::Latency, throughput::Throughput},
};

/// What the workload's own programs have to say.
pub fn outcome(run: &Run) -> String {
    match &run.outcome {
        Outcome::Throughput(throughput) => iperf3(throughput),
        Outcome::Latency(latency) => sockperf(latency),
        Outcome::LoadedLatency { latency, load } => format!("{}\n{}", sockperf(latency), iperf3(load)),
        Outcome::Connections(connections) => wrk(connections),
    }
}

/// The end of iperf3's report. As there, giga is 2³⁰ for bytes and 10⁹ for bits.
fn iperf3(throughput: &Throughput) -> String {
    let mut text = String::from("[ ID] Interval           Transfer     Bitrate         Retr\n");
    let mut line = |id: &str,
                    seconds: f64,
                    bytes: u64,
                    gbit_per_s: f64,
                    retransmits: Option<u64>,
                    who: &str| {
        let retransmits = retransmits.map_or_else(String::new, |count| count.to_string());
        let _ = writeln!(
            text,
            "[{id:>3}]   0.00-{seconds:<5.2} sec  {}Bytes  {}bits/sec  {retransmits:>4}             {who}",
            scaled(number(bytes), 1024.0),
            scaled(gbit_per_s * 1e9, 1000.0),
        );
    };
    for stream in &throughput.streams {
        let (id, seconds) = (stream.id.to_string(), stream.seconds);
        line(
            &id,
            seconds,
            stream.sent_bytes,
            stream.sent_gbit_per_s,
            stream.retransmits,
            "sender",
        );
        line(
            &id,
            seconds,
            stream.received_bytes,
            stream.gbit_per_s,
            None,
            "receiver",
        );
    }
    let streams = &throughput.streams;
    let seconds = streams.iter().map(|stream| stream.seconds).fold(0.0, f64::max);
    let sent_bytes = streams.iter().map(|stream| stream.sent_bytes).sum();
    let sent_gbit_per_s = streams.iter().map(|stream| stream.sent_gbit_per_s).sum();
    line(
        "SUM",
        seconds,
        sent_bytes,
        sent_gbit_per_s,
        throughput.retransmits,
        "sender",
    );
    line(
        "SUM",
        seconds,
        throughput.bytes,
        throughput.gbit_per_s,
        None,
        "receiver",
    );
    if let Some(datagrams) = &throughput.datagrams {
        let _ = writeln!(
            text,
            "[SUM]  {:.3} ms jitter, {}/{} datagrams lost ({:.2}%), {} out of order",
            datagrams.jitter_ms,
            datagrams.lost,
            datagrams.sent,
            100.0 * number(datagrams.lost) / number(datagrams.sent.max(1)),
            datagrams.out_of_order
        );
    }
    text
}

/// With three digits and the letter of a power of 1000 or 1024, as iperf3 does.
fn scaled(mut value: f64, step: f64) -> String {
    let mut letter = "";
    for larger in ["K", "M", "G", "T"] {
        if value < step {
            break;
        }
        value /= step;
        letter = larger;
    }
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:>4.decimals$} {letter}")
}

/// sockperf's summary.
fn sockperf(latency: &Latency) -> String {
    let mut text = format!(
        "sockperf: [Valid Duration] RunTime={:.3} sec; ReceivedMessages={}\n\
         sockperf: ====> avg-latency={:.3} (std-dev={:.3})\n\
         sockperf: # dropped messages = {}; # duplicated messages = {}; # out-of-order messages = {}\n\
         sockperf: Summary: Latency is {:.3} usec\n\
         sockperf: ---> <MAX> observation = {:8.3}\n",
        latency.seconds,
        latency.observations,
        latency.average_us,
        latency.deviation_us,
        latency.dropped,
        latency.duplicated,
        latency.out_of_order,
        latency.average_us,
        latency.max_us,
    );
    for (percentile, time) in latency.percentiles_us.iter().rev() {
        let _ = writeln!(text, "sockperf: ---> percentile {percentile:<6.3} = {time:8.3}");
    }
    let _ = writeln!(text, "sockperf: ---> <MIN> observation = {:8.3}", latency.min_us);
    text
}

/// wrk's summary.
fn wrk(connections: &Connections) -> String {
    let mut text = String::from("  Latency Distribution\n");
    for (percentile, time) in &connections.percentiles_us {
        let _ = writeln!(text, "  {percentile:>5}% {time:>9.2}us");
    }
    let _ = writeln!(
        text,
        "  {} requests in {:.2}s, {} connections at a time, {} failed\nRequests/sec: {:10.2}",
        connections.total, connections.seconds, connections.parallel, connections.failed, connections.per_s
    );
    text
}

/// A VMM's system calls as bpftrace prints `@total[comm, probe] = count()`; `None` if they were not counted.
pub fn bpftrace(role: &Role, architecture: &str) -> Option<String> {
    let mut calls: Vec<_> = role.syscalls.as_ref()?.iter().collect();
    calls.sort_by_key(|&(_, count)| count);
    let mut text = String::new();
    let mut others = 0;
    for (call, count) in calls {
        // Numbers without a name, and the calls of 32-bit programs, have no tracepoint.
        if call.contains(':') || call.parse::<i64>().is_ok() {
            others += count;
            continue;
        }
        let _ = writeln!(
            text,
            "@total[{}, tracepoint:syscalls:sys_enter_{}]: {count}",
            role.comm,
            tracepoint(architecture, call)
        );
    }
    if others > 0 {
        let _ = writeln!(text, "@without_tracepoint: {others}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn streams_and_their_sum_are_told_as_iperf3_does() {
        let text = outcome(&fixture::throughput(2.4, &[("writev", 7)]));
        assert_eq!(
            text,
            "[ ID] Interval           Transfer     Bitrate         Retr\n\
             [  5]   0.00-10.00 sec  1.40 GBytes  1.20 Gbits/sec     1             sender\n\
             [  5]   0.00-10.00 sec  1.40 GBytes  1.20 Gbits/sec                   receiver\n\
             [  7]   0.00-10.00 sec  1.40 GBytes  1.20 Gbits/sec     1             sender\n\
             [  7]   0.00-10.00 sec  1.40 GBytes  1.20 Gbits/sec                   receiver\n\
             [SUM]   0.00-10.00 sec  2.79 GBytes  2.40 Gbits/sec     2             sender\n\
             [SUM]   0.00-10.00 sec  2.79 GBytes  2.40 Gbits/sec                   receiver\n"
        );
    }

    #[test]
    fn three_digits_are_told() {
        assert_eq!(scaled(1_500_000.0, 1000.0), "1.50 M");
        assert_eq!(scaled(12.3e9, 1000.0), "12.3 G");
        assert_eq!(scaled(950.0 * 1024.0 * 1024.0, 1024.0), " 950 M");
        assert_eq!(scaled(0.0, 1000.0), "0.00 ");
    }

    #[test]
    fn percentiles_fall_as_in_sockperfs_summary() {
        let text = outcome(&fixture::latency(40.0));
        let at = |line: &str| text.find(line).unwrap_or_else(|| panic!("{line}: {text}"));
        assert!(at("<MAX> observation =  400.000") < at("percentile 99.900 =  120.000"));
        assert!(at("percentile 99.900") < at("percentile 50.000 =   40.000"));
        assert!(at("percentile 50.000") < at("<MIN> observation =   20.000"));
    }

    #[test]
    fn calls_are_told_by_their_tracepoints_the_most_frequent_last() {
        let calls = [
            ("writev", 554_089),
            ("fstat", 2),
            ("ppoll", 30),
            ("compat:read", 4),
            ("999", 1),
        ];
        let run = fixture::throughput(2.4, &calls);
        assert_eq!(
            bpftrace(&run.client, "x86_64").unwrap(),
            "@total[qemu-system-x86, tracepoint:syscalls:sys_enter_newfstat]: 2\n\
             @total[qemu-system-x86, tracepoint:syscalls:sys_enter_ppoll]: 30\n\
             @total[qemu-system-x86, tracepoint:syscalls:sys_enter_writev]: 554089\n\
             @without_tracepoint: 5\n"
        );
    }
}
