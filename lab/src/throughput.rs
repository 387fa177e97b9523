//! Throughput: TCP streams from the first guest to the second, by iperf3.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{guest::Guest, job, settings::Settings, wait::OnSignal};

/// Five times what it took in the slowest guest on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// What the client may need beyond the measurement itself.
const MARGIN: Duration = Duration::from_secs(40);

/// What the receiver got.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throughput {
    /// Of all streams together, in Gbit/s of TCP payload.
    pub gbit_per_s: f64,
    /// TCP segments that were sent again, in all streams.
    pub retransmits: u64,
    /// Stream by stream.
    pub streams: Vec<Stream>,
}

/// One of the TCP connections.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stream {
    pub gbit_per_s: f64,
    pub retransmits: u64,
}

/// Measures, with the server in the second guest.
pub fn measure(from: &dyn Guest, to: &dyn Guest, settings: &Settings) -> Result<Throughput> {
    let address = to.seat().ipv4().to_string();
    let (time, streams) = (settings.time.to_string(), settings.streams.to_string());
    let mut server = to.start(&["iperf3", "-s", "-1", "--forceflush"])?;
    job::has_printed(&mut *server, "Server listening", START_LIMIT)?;
    // A machine's default may be another congestion control, whose pacing would be what is measured.
    let client = [
        "iperf3", "-c", &address, "-P", &streams, "-t", &time, "-C", "cubic", "-J",
    ];
    let mut client = from.start(&client)?;
    let limit = Duration::from_secs(settings.time.into()) + MARGIN;
    let output = job::finish(&mut *client, limit, OnSignal::Stop)?;
    parse(&output)
}

#[derive(Deserialize)]
struct Output {
    end: Option<End>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct End {
    streams: Vec<Ends>,
    sum_sent: Sum,
    sum_received: Sum,
}

#[derive(Deserialize)]
struct Ends {
    sender: Sum,
    receiver: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bits_per_second: f64,
    /// Only the sender knows.
    #[serde(default)]
    retransmits: u64,
}

fn parse(json: &str) -> Result<Throughput> {
    let output: Output = serde_json::from_str(json).with_context(|| format!("iperf3's JSON: {json}"))?;
    if let Some(error) = output.error {
        bail!("iperf3: {error}");
    }
    let end = output.end.context("iperf3's JSON has no end")?;
    let stream = |ends: &Ends| Stream {
        gbit_per_s: ends.receiver.bits_per_second / 1e9,
        retransmits: ends.sender.retransmits,
    };
    Ok(Throughput {
        gbit_per_s: end.sum_received.bits_per_second / 1e9,
        retransmits: end.sum_sent.retransmits,
        streams: end.streams.iter().map(stream).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of what iperf 3.12 printed for `-P 2 -t 1 -C cubic -J`.
    const SAMPLE: &str = include_str!("../tests/data/iperf3.json");

    #[test]
    fn the_rate_is_the_receivers_and_the_retransmits_are_the_senders() {
        let throughput = parse(SAMPLE).unwrap();
        assert!((throughput.gbit_per_s - 30.029_837_727).abs() < 1e-6);
        assert_eq!(throughput.retransmits, 2);
        assert_eq!(throughput.streams.len(), 2);
        assert_eq!(throughput.streams[0].retransmits, 2);
        assert!((throughput.streams[1].gbit_per_s - 14.988_771_401).abs() < 1e-6);
    }

    #[test]
    fn an_error_of_iperf3_is_passed_on() {
        let json = r#"{"start": {"connected": []}, "intervals": [],
            "error": "unable to connect to server: Connection refused"}"#;
        let error = parse(json).unwrap_err();
        assert_eq!(
            error.to_string(),
            "iperf3: unable to connect to server: Connection refused"
        );
    }
}
