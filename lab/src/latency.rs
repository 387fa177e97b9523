//! Latency: UDP ping-pong between the guests, by sockperf. Its figures are half a round trip.
//!
//! Nothing is pinned to a CPU: on an idle machine the wake-up of a sleeping one is much of the figure, and where the
//! scheduler puts the pumps the rest. Ratios within a round say more than the figures.

use std::{str::FromStr, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{guest::Guest, job, settings::Settings, wait::OnSignal};

/// Five times what it took in the slowest guest on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// What the client may need beyond the measurement itself; it warms up, and sorts at the end.
const MARGIN: Duration = Duration::from_secs(40);
const PORT: &str = "11111";
/// Bytes of payload.
const MESSAGE: &str = "64";

/// Half a round trip, in microseconds, and what became of the messages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    pub average_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub max_us: f64,
    /// Round trips that the figures are made of.
    pub observations: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
}

/// Measures, with the server in the second guest.
pub fn measure(from: &dyn Guest, to: &dyn Guest, settings: &Settings) -> Result<Latency> {
    let address = to.seat().ipv4().to_string();
    let time = settings.time.to_string();
    let mut server = to.start(&["sockperf", "server", "-i", &address, "-p", PORT])?;
    // The last thing it prints before it waits for messages.
    job::has_printed(&mut *server, "to block on socket", START_LIMIT)?;
    let client = [
        "sockperf",
        "ping-pong",
        "-i",
        &address,
        "-p",
        PORT,
        "-m",
        MESSAGE,
        "-t",
        &time,
    ];
    let mut client = from.start(&client)?;
    let limit = Duration::from_secs(settings.time.into()) + MARGIN;
    let output = job::finish(&mut *client, limit, OnSignal::Stop)?;
    parse(&output).with_context(|| format!("sockperf's output:\n{output}"))
}

fn parse(output: &str) -> Result<Latency> {
    Ok(Latency {
        average_us: number_after(output, "avg-latency=")?,
        p50_us: number_after(output, "percentile 50.000 =")?,
        p99_us: number_after(output, "percentile 99.000 =")?,
        p99_9_us: number_after(output, "percentile 99.900 =")?,
        max_us: number_after(output, "<MAX> observation =")?,
        observations: number_after(after(output, "[Valid Duration]")?, "ReceivedMessages=")?,
        dropped: number_after(output, "# dropped messages =")?,
        duplicated: number_after(output, "# duplicated messages =")?,
        out_of_order: number_after(output, "# out-of-order messages =")?,
    })
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
    const SAMPLE: &str = include_str!("../tests/data/sockperf.txt");

    #[test]
    fn every_figure_is_found() {
        let expected = Latency {
            average_us: 7.489,
            p50_us: 7.255,
            p99_us: 9.889,
            p99_9_us: 41.967,
            max_us: 1424.380,
            observations: 36_650,
            dropped: 0,
            duplicated: 0,
            out_of_order: 0,
        };
        assert_eq!(parse(SAMPLE).unwrap(), expected);
    }

    #[test]
    fn the_counts_of_messages_are_told_apart() {
        let output = SAMPLE
            .replace("dropped messages = 0", "dropped messages = 3")
            .replace("duplicated messages = 0", "duplicated messages = 2")
            .replace("out-of-order messages = 0", "out-of-order messages = 1");
        let latency = parse(&output).unwrap();
        assert_eq!(
            (latency.dropped, latency.duplicated, latency.out_of_order),
            (3, 2, 1)
        );
    }

    #[test]
    fn output_that_was_cut_off_is_an_error_that_names_what_is_missing() {
        let error = parse("sockperf: Starting test...\n").unwrap_err();
        assert_eq!(error.to_string(), "no 'avg-latency='");
    }
}
