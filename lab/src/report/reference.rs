//! One run as the programs that measured it tell it, to lay beside their output elsewhere.

use std::fmt::Write as _;

use bridge_common::syscalls::tracepoint;

use crate::{
    results::{Role, Run},
    workload::Outcome,
};

/// What the workload's own programs have printed.
pub fn outcome(run: &Run) -> String {
    let outputs = match &run.outcome {
        Outcome::Throughput(throughput) => vec![&throughput.output],
        Outcome::Latency(latency) => vec![&latency.output],
        Outcome::LoadedLatency { latency, load } => vec![&latency.output, &load.output],
        Outcome::Connections(connections) => vec![&connections.output],
        Outcome::Mixed(mixed) => vec![&mixed.bulk.output],
        _ => {
            return format!(
                "{}\n",
                serde_json::to_string_pretty(&run.outcome).unwrap_or_default()
            );
        }
    };
    let outputs: Vec<&str> = outputs.into_iter().flatten().map(String::as_str).collect();
    if outputs.is_empty() {
        return "It was not kept.\n".into();
    }
    outputs.join("\n")
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
    fn what_both_programs_printed_is_told() {
        let run = fixture::loaded_latency(40.0);
        assert_eq!(
            outcome(&run),
            "sockperf: Summary: Latency is 40 usec\n\nsum_received: {\"bits_per_second\":1}\n"
        );
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
