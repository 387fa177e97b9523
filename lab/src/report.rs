//! What a run has found out, for people.

use std::fmt::Write as _;

use crate::results::{Outcome, Results};

/// A line for each measurement.
pub fn text(results: &Results) -> String {
    let mut text = format!("guests: {}\n\n", results.guests.text());
    for sample in &results.samples {
        for run in &sample.runs {
            let figure = match &run.outcome {
                Outcome::Throughput(throughput) => format!("{:.2} Gbit/s", throughput.gbit_per_s),
                Outcome::Latency(latency) => {
                    format!("p50 {:.1} µs", latency.percentile(50.0).unwrap_or(f64::NAN))
                }
                Outcome::LoadedLatency { latency, load } => format!(
                    "p50 {:.1} µs beside {:.2} Gbit/s",
                    latency.percentile(50.0).unwrap_or(f64::NAN),
                    load.gbit_per_s
                ),
                Outcome::Connections(connections) => format!("{:.0} connections/s", connections.per_s),
            };
            let _ = writeln!(
                text,
                "{:<14} {:>3}  {:<14} {figure}",
                sample.datapath,
                sample.round,
                run.outcome.workload()
            );
        }
    }
    text
}
