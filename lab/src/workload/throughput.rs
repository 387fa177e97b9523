//! Throughput: streams of TCP or UDP between the guests, by iperf3.

use std::{fmt::Write as _, slice};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::{START_LIMIT, limit};
use crate::{
    host::{
        job::{self, Job, State},
        wait::OnSignal,
    },
    testbed::guest::Guest,
    workload::measuring::Measuring,
};

/// How much longer than the latency measurement a load goes on, in seconds: sockperf warms up and ends late.
const LOAD_MARGIN_S: u32 = 3;

/// What the receiver got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    pub protocol: Protocol,
    /// Whether the server sent.
    pub reverse: bool,
    /// Of all streams together, in Gbit/s of payload.
    pub gbit_per_s: f64,
    /// Payload of all streams together.
    pub bytes: u64,
    /// TCP segments that were sent again, in all streams; null for UDP.
    pub retransmits: Option<u64>,
    /// Datagrams of all streams; null for TCP.
    pub datagrams: Option<Datagrams>,
    /// Stream by stream.
    pub streams: Vec<Stream>,
    /// What iperf3's JSON says at its `end`, a line for each stream and each sum; none in results of before it was kept.
    #[serde(default)]
    pub output: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// What became of UDP datagrams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Datagrams {
    pub sent: u64,
    pub lost: u64,
    pub out_of_order: u64,
    /// The mean of the streams', as RFC 3550 defines it, in milliseconds.
    pub jitter_ms: f64,
}

/// One of the streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// The socket's number, which iperf3 calls the stream by.
    pub id: u64,
    pub seconds: f64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// What the sender sent.
    pub sent_gbit_per_s: f64,
    /// What the receiver got.
    pub gbit_per_s: f64,
    /// Null for UDP.
    pub retransmits: Option<u64>,
}

/// Measures, with the server in the second guest.
pub fn measure(client: &dyn Guest, server: &dyn Guest, settings: &Measuring) -> Result<Throughput> {
    let (time, streams) = (settings.time_s.to_string(), settings.streams.to_string());
    let size = settings.udp_size.to_string();
    let mut words = vec!["-t", &time, "-P", &streams];
    if settings.reverse {
        words.push("-R");
    }
    if settings.udp {
        words.extend(["-u", "-b", &settings.udp_rate, "-l", &size]);
    }
    let load = Load::start(client, server, &words, settings.time_s)?;
    load.finish()
}

/// Starts one TCP stream that lasts a little longer than a latency measurement.
pub fn start_load(client: &dyn Guest, server: &dyn Guest, settings: &Measuring) -> Result<Load> {
    let seconds = settings.time_s + LOAD_MARGIN_S;
    Load::start(client, server, &["-t", &seconds.to_string()], seconds)
}

/// Streams that go.
pub struct Load {
    client: Box<dyn Job>,
    _server: Box<dyn Job>,
    seconds: u32,
}

impl Load {
    fn start(client: &dyn Guest, server: &dyn Guest, words: &[&str], seconds: u32) -> Result<Self> {
        let address = server.id().ipv4().to_string();
        let mut listener = server.start(&["iperf3", "-s", "-1", "--forceflush"])?;
        job::has_printed(&mut *listener, "Server listening", START_LIMIT)?;
        let mut command = vec!["iperf3", "-c", &address, "-J"];
        if !words.contains(&"-u") {
            // A machine's default may be another congestion control, whose pacing would be what is measured.
            command.extend(["-C", "cubic"]);
        }
        command.extend(words);
        Ok(Self {
            client: client.start(&command)?,
            _server: listener,
            seconds,
        })
    }

    /// Whether they have not ended.
    pub fn goes_on(&mut self) -> Result<bool> {
        Ok(self.client.state()? == State::Running)
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Result<Throughput> {
        parse(&job::finish(
            &mut *self.client,
            limit(self.seconds),
            OnSignal::Stop,
        )?)
    }
}

#[derive(Deserialize)]
struct Output {
    start: Option<Start>,
    end: Option<End>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Start {
    test_start: Option<TestStart>,
}

#[derive(Deserialize)]
struct TestStart {
    #[serde(default)]
    reverse: u8,
}

#[derive(Deserialize)]
struct End {
    streams: Vec<Ends>,
}

/// TCP streams have two ends; of UDP streams there is one account.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ends {
    Tcp { sender: Sum, receiver: Sum },
    Udp { udp: UdpSum },
}

#[derive(Deserialize)]
struct Sum {
    socket: u64,
    seconds: f64,
    bytes: u64,
    bits_per_second: f64,
    /// Only the sender knows.
    retransmits: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename = "udp")]
struct UdpSum {
    socket: u64,
    seconds: f64,
    /// Sent, as all here but what has another name.
    bytes: u64,
    bits_per_second: f64,
    jitter_ms: f64,
    lost_packets: u64,
    packets: u64,
    #[serde(default)]
    out_of_order: u64,
}

/// A member a line, and of a list an element.
fn by_line(end: &Value) -> String {
    let mut text = String::new();
    for (name, value) in end.as_object().into_iter().flatten() {
        let values = value.as_array().map_or(slice::from_ref(value), Vec::as_slice);
        for value in values {
            let _ = writeln!(text, "{name}: {value}");
        }
    }
    text
}

fn parse(json: &str) -> Result<Throughput> {
    let context = || format!("iperf3's JSON: {json}");
    let document: Value = serde_json::from_str(json).with_context(context)?;
    let output = by_line(&document["end"]);
    let own = Some(output).filter(|output| !output.is_empty());
    let output: Output = serde_json::from_value(document).with_context(context)?;
    if let Some(error) = output.error {
        bail!("iperf3: {error}");
    }
    let end = output.end.context("iperf3's JSON has no end")?;
    let test = output.start.and_then(|start| start.test_start);
    let streams: Vec<_> = end.streams.iter().map(Stream::of).collect();
    let datagrams = datagrams(&end.streams);
    Ok(Throughput {
        protocol: if datagrams.is_some() {
            Protocol::Udp
        } else {
            Protocol::Tcp
        },
        reverse: test.is_some_and(|test| test.reverse != 0),
        gbit_per_s: streams.iter().map(|stream| stream.gbit_per_s).sum(),
        bytes: streams.iter().map(|stream| stream.received_bytes).sum(),
        retransmits: streams.iter().map(|stream| stream.retransmits).sum(),
        datagrams,
        streams,
        output: own,
    })
}

impl Stream {
    fn of(ends: &Ends) -> Self {
        match ends {
            Ends::Tcp { sender, receiver } => Self {
                id: sender.socket,
                seconds: sender.seconds,
                sent_bytes: sender.bytes,
                received_bytes: receiver.bytes,
                sent_gbit_per_s: sender.bits_per_second / 1e9,
                gbit_per_s: receiver.bits_per_second / 1e9,
                retransmits: sender.retransmits,
            },
            Ends::Udp { udp } => {
                let sent_gbit_per_s = udp.bits_per_second / 1e9;
                let arrived = udp.packets.saturating_sub(udp.lost_packets);
                #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
                let share = arrived as f64 / udp.packets.max(1) as f64;
                Self {
                    id: udp.socket,
                    seconds: udp.seconds,
                    sent_bytes: udp.bytes,
                    // All datagrams have one length.
                    received_bytes: udp.bytes / udp.packets.max(1) * arrived,
                    sent_gbit_per_s,
                    gbit_per_s: sent_gbit_per_s * share,
                    retransmits: None,
                }
            }
        }
    }
}

fn datagrams(streams: &[Ends]) -> Option<Datagrams> {
    let udp: Vec<_> = streams
        .iter()
        .filter_map(|ends| match ends {
            Ends::Udp { udp } => Some(udp),
            Ends::Tcp { .. } => None,
        })
        .collect();
    let count = u32::try_from(udp.len()).ok().filter(|&count| count > 0)?;
    Some(Datagrams {
        sent: udp.iter().map(|udp| udp.packets).sum(),
        lost: udp.iter().map(|udp| udp.lost_packets).sum(),
        out_of_order: udp.iter().map(|udp| udp.out_of_order).sum(),
        jitter_ms: udp.iter().map(|udp| udp.jitter_ms).sum::<f64>() / f64::from(count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of what iperf 3.12 printed for `-P 2 -t 1 -C cubic -J`.
    const SAMPLE: &str = include_str!("../../tests/data/iperf3.json");

    #[test]
    fn the_rate_is_the_receivers_and_the_retransmits_are_the_senders() {
        let throughput = parse(SAMPLE).unwrap();
        assert!((throughput.gbit_per_s - 30.029_837_727).abs() < 1e-6);
        assert_eq!(throughput.retransmits, Some(2));
        assert_eq!(throughput.streams.len(), 2);
        assert_eq!(throughput.streams[0].retransmits, Some(2));
        assert!((throughput.streams[1].gbit_per_s - 14.988_771_401).abs() < 1e-6);
        let output = throughput.output.unwrap();
        assert_eq!(output.matches("streams: {\"receiver\":{").count(), 2, "{output}");
        assert_eq!(output.matches("\nsum_received: {").count(), 1, "{output}");
    }

    /// What iperf3 printed with `-u -b 100M -P 2 -t 1 -J`, with the counts of losses changed.
    const UDP_SAMPLE: &str = include_str!("../../tests/data/iperf3-udp.json");

    #[test]
    fn lost_datagrams_are_not_throughput() {
        let throughput = parse(UDP_SAMPLE).unwrap();
        assert_eq!(throughput.protocol, Protocol::Udp);
        assert_eq!(throughput.retransmits, None);
        let datagrams = throughput.datagrams.unwrap();
        let of = |stream: &Stream| stream.gbit_per_s / stream.sent_gbit_per_s;
        assert!((of(&throughput.streams[0]) - 0.5).abs() < 1e-3);
        assert!((of(&throughput.streams[1]) - 1.0).abs() < 1e-9);
        assert_eq!(
            throughput.streams[0].received_bytes * 2,
            throughput.streams[0].sent_bytes
        );
        assert_eq!(datagrams.lost * 4, datagrams.sent);
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
