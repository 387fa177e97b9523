//! Latency: UDP ping-pong between the guests, by sockperf. Its figures are half a round trip.
//!
//! Without `--steady` nothing is pinned to a CPU: on an idle machine the wake-up of a sleeping one is much of the figure,
//! and where the scheduler puts the pumps the rest. Ratios within a round say more than the figures.

use std::str::FromStr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::limits::{START_LIMIT, limit};
use crate::{
    host::{job, wait::OnSignal},
    testbed::guest::Guest,
    workload::measuring::Measuring,
};

const PORT: &str = "11111";
/// What sockperf says when no message was valid: on a busy machine all of a short measurement can be warm-up.
const NOTHING_VALID: &str = "No valid observations found";

/// Half a round trip, in microseconds, and what became of the messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub average_us: f64,
    pub deviation_us: f64,
    pub min_us: f64,
    /// Ascending: which percentile, and its latency. They end below 100, which is `max_us`.
    pub percentiles_us: Vec<(f64, f64)>,
    pub max_us: f64,
    /// Round trips that the figures are made of, and how long those took together.
    pub observations: u64,
    pub seconds: f64,
    /// All messages that came back, those of the warm-up included.
    pub messages: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    /// What sockperf printed of it; none in results of before it was kept.
    #[serde(default)]
    pub output: Option<String>,
}

/// Measures, with the server in the second guest; none if no message was valid.
pub fn measure(client: &dyn Guest, server: &dyn Guest, settings: &Measuring) -> Result<Option<Latency>> {
    let address = server.id().ipv4().to_string();
    let (time, message) = (settings.time_s.to_string(), settings.message_bytes.to_string());
    let size = ["-i", &address, "-p", PORT, "-m", &message];
    let mut listener = server.start(&[&["sockperf", "server"], &size[..4]].concat())?;
    // The last thing it prints before it waits for messages.
    job::has_printed(&mut *listener, "to block on socket", START_LIMIT)?;
    let mut pinger = client.start(&[&["sockperf", "ping-pong"], &size[..], &["-t", &time]].concat())?;
    let output = job::finish(&mut *pinger, limit(settings.time_s), OnSignal::Stop)?;
    parse(&output).with_context(|| format!("sockperf's output:\n{output}"))
}

fn parse(output: &str) -> Result<Option<Latency>> {
    if output.contains(NOTHING_VALID) {
        return Ok(None);
    }
    let valid = after(output, "[Valid Duration]")?;
    Ok(Some(Latency {
        average_us: number_after(output, "avg-latency=")?,
        deviation_us: number_after(output, "std-dev=")?,
        min_us: number_after(output, "<MIN> observation =")?,
        percentiles_us: percentiles(output)?,
        max_us: number_after(output, "<MAX> observation =")?,
        observations: number_after(valid, "ReceivedMessages=")?,
        seconds: number_after(valid, "RunTime=")?,
        messages: number_after(after(output, "[Total Run]")?, "ReceivedMessages=")?,
        dropped: number_after(output, "# dropped messages =")?,
        duplicated: number_after(output, "# duplicated messages =")?,
        out_of_order: number_after(output, "# out-of-order messages =")?,
        output: Some(summary(output)),
    }))
}

/// The lines from the valid duration on, without the colours.
fn summary(output: &str) -> String {
    let lines = output
        .lines()
        .skip_while(|line| !line.contains("[Valid Duration]"));
    let mut summary = String::new();
    for line in lines {
        // An escape sequence ends with a letter (ECMA-48).
        let mut parts = line.split('\x1b');
        summary += parts.next().unwrap_or_default();
        for part in parts {
            let end = part
                .find(|c: char| c.is_ascii_alphabetic())
                .map_or(part.len(), |end| end + 1);
            summary += &part[end..];
        }
        summary.push('\n');
    }
    summary
}

fn percentiles(output: &str) -> Result<Vec<(f64, f64)>> {
    const LABEL: &str = "---> percentile ";
    let lines = output.lines().filter_map(|line| line.split_once(LABEL));
    let mut percentiles = lines
        .map(|(_, rest)| Ok((number_after(rest, "")?, number_after(rest, "=")?)))
        .collect::<Result<Vec<(f64, f64)>>>()?;
    percentiles.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    Ok(percentiles)
}

fn number_after<T: FromStr>(output: &str, label: &str) -> Result<T> {
    let rest = after(output, label)?.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    rest[..end]
        .parse()
        .ok()
        .with_context(|| format!("no number after '{label}'"))
}

fn after<'a>(output: &'a str, label: &str) -> Result<&'a str> {
    output
        .split_once(label)
        .map(|(_, rest)| rest)
        .with_context(|| format!("no '{label}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What sockperf 3.7 printed for `ping-pong -m 64 -t 1`, with its escape sequences.
    const SAMPLE: &str = include_str!("../../tests/data/sockperf.txt");

    #[test]
    fn every_figure_is_found() {
        let latency = parse(SAMPLE).unwrap().unwrap();
        let output = latency.output.as_ref().unwrap();
        assert!(output.starts_with("sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=36650;"));
        assert!(output.contains("\nsockperf: ====> avg-latency=7.489 (std-dev=10.205)\n"));
        assert!(!output.contains('\x1b'));
        let expected = Latency {
            average_us: 7.489,
            deviation_us: 10.205,
            min_us: 5.603,
            percentiles_us: vec![
                (25.0, 6.935),
                (50.0, 7.255),
                (75.0, 7.606),
                (90.0, 8.016),
                (99.0, 9.889),
                (99.9, 41.967),
                (99.99, 84.3),
                (99.999, 1424.38),
            ],
            max_us: 1424.380,
            observations: 36_650,
            seconds: 0.55,
            messages: 69_233,
            dropped: 0,
            duplicated: 0,
            out_of_order: 0,
            output: latency.output.clone(),
        };
        assert_eq!(latency, expected);
    }

    #[test]
    fn the_counts_of_messages_are_told_apart() {
        let output = SAMPLE
            .replace("dropped messages = 0", "dropped messages = 3")
            .replace("duplicated messages = 0", "duplicated messages = 2")
            .replace("out-of-order messages = 0", "out-of-order messages = 1");
        let latency = parse(&output).unwrap().unwrap();
        assert_eq!(
            (latency.dropped, latency.duplicated, latency.out_of_order),
            (3, 2, 1)
        );
    }

    #[test]
    fn a_measurement_in_which_no_message_was_valid_has_no_figures() {
        let output = "sockperf: [Total Run] RunTime=1.057 sec; Warm up time=400 msec; SentMessages=345; \
            ReceivedMessages=344\nsockperf: ========= Printing statistics for Server No: 0\n\
            sockperf: No valid observations found. Try tune parameters: --time/--mps/--reply-every\n";
        assert_eq!(parse(output).unwrap(), None);
    }

    #[test]
    fn output_that_was_cut_off_is_an_error_that_names_what_is_missing() {
        let error = parse("sockperf: Starting test...\n").unwrap_err();
        assert_eq!(error.to_string(), "no '[Valid Duration]'");
    }
}
