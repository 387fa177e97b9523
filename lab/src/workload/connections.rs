//! Connections: short TCP connections, each with one request of HTTP and its answer, by wrk; weborf answers.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::limits::{START_LIMIT, limit};
use crate::{
    host::{
        interrupt::Interrupted,
        job::{self, Job, State},
        wait::{self, OnSignal},
    },
    testbed::guest::Guest,
    workload::measuring::Measuring,
};

const PORT: &str = "8080";

/// How many connections, and how long each took from the request to the whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    pub per_s: f64,
    /// All of them.
    pub total: u64,
    /// Open at a time.
    pub parallel: u32,
    pub seconds: f64,
    /// Ascending: which percentile, and its time.
    pub percentiles_us: Vec<(f64, f64)>,
    /// Connections that could not be opened or used, and answers that did not come in time.
    pub failed: u64,
    /// What wrk printed of it; none in results of before it was kept.
    #[serde(default)]
    pub output: Option<String>,
}

/// Measures, with the server in the second guest.
pub fn measure(client: &dyn Guest, server: &dyn Guest, settings: &Measuring) -> Result<Connections> {
    let address = server.id().ipv4().to_string();
    let folder = server.answers();
    let mut listener = server.start(&["weborf", "-b", &folder, "-p", PORT])?;
    let url = format!("http://{address}:{PORT}/answer");
    let call = |parallel: u32, time_s: u32| {
        let (parallel, time) = (parallel.to_string(), time_s.to_string());
        let close = ["-H", "Connection: close", "-t", "1"];
        let words = ["--latency", "-c", &parallel, "-d", &time, &url];
        client.start(&[&["wrk"], &close[..], &words].concat())
    };
    // It does not say when it listens: a first connection tells.
    let mut why = None;
    let answered = wait::until("weborf to answer", START_LIMIT, OnSignal::Stop, || {
        let mut probe = call(1, 1)?;
        match finish(&mut *probe, 1, 1) {
            Ok(answered) => Ok(Some(answered)),
            Err(error) if listener.state()? != State::Running || error.is::<Interrupted>() => Err(error),
            Err(error) => {
                why = Some(error);
                Ok(None)
            }
        }
    });
    answered.map_err(|error| match why {
        Some(why) => error.context(why),
        None => error,
    })?;
    let mut caller = call(settings.parallel, settings.time_s)?;
    finish(&mut *caller, settings.parallel, settings.time_s)
}

/// Waits for a wrk to end; returns what it has measured.
fn finish(wrk: &mut dyn Job, parallel: u32, time_s: u32) -> Result<Connections> {
    let output = job::finish(wrk, limit(time_s), OnSignal::Stop)?;
    parse(&output, parallel).with_context(|| format!("wrk's output:\n{output}"))
}

fn parse(output: &str, parallel: u32) -> Result<Connections> {
    let (requests, rest) = output
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .context("no count of requests")?;
    let connections: u64 = requests.trim().parse().context("the count of requests")?;
    let seconds = microseconds(rest.split(',').next().unwrap_or_default())? / 1e6;
    ensure!(connections > 0, "no connection came about");
    Ok(Connections {
        per_s: field(output, "Requests/sec:")?,
        total: connections,
        parallel,
        seconds,
        percentiles_us: percentiles(output)?,
        failed: failures(output, connections)?,
        output: Some(output.to_owned()),
    })
}

/// Lines such as "     99%    1.72ms", which come only with `--latency`.
fn percentiles(output: &str) -> Result<Vec<(f64, f64)>> {
    let lines = output
        .lines()
        .skip_while(|line| !line.contains("Latency Distribution"))
        .skip(1);
    lines
        .map_while(|line| line.trim().split_once('%'))
        .map(|(percentile, time)| Ok((percentile.parse()?, microseconds(time)?)))
        .collect()
}

/// Lines that wrk prints only if there is something to tell.
fn failures(output: &str, connections: u64) -> Result<u64> {
    let bad_answers = optional(output, "Non-2xx or 3xx responses:")?;
    if !output.contains("Socket errors:") {
        return Ok(bad_answers);
    }
    let of = |kind: &str| optional(output, kind);
    // An answer without a length ends with the connection. Each is one to wrk, and an answer all the same.
    let reading = of(" read ")?.saturating_sub(connections);
    Ok(bad_answers + of(" connect ")? + reading + of(" write ")? + of(" timeout ")?)
}

fn optional(output: &str, label: &str) -> Result<u64> {
    if output.contains(label) {
        field(output, label)
    } else {
        Ok(0)
    }
}

fn field<T: FromStr>(output: &str, label: &str) -> Result<T> {
    let (_, rest) = output
        .split_once(label)
        .with_context(|| format!("no '{label}'"))?;
    let word = rest.trim_start().split([',', '\n']).next().unwrap_or_default();
    word.trim()
        .parse()
        .ok()
        .with_context(|| format!("no number after '{label}'"))
}

/// From "603.17us", "1.05ms", "2.00s" or "1.00m".
fn microseconds(time: &str) -> Result<f64> {
    let time = time.trim();
    let split = time.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(time.len());
    let (number, unit) = time.split_at(split);
    let number: f64 = number.parse().with_context(|| format!("the time '{time}'"))?;
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        "h" => 3600e6,
        _ => anyhow::bail!("the unit of '{time}'"),
    };
    Ok(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What wrk 4.1.0 printed of weborf 0.19.
    const SAMPLE: &str = "\
Running 2s test @ http://127.0.0.1:8098/index.html
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   603.17us  358.77us   5.02ms   74.77%
    Req/Sec     7.40k   757.83     9.07k    75.00%
  Latency Distribution
     50%  533.00us
     75%  779.00us
     90%    1.05ms
     99%    1.72ms
  14717 requests in 2.00s, 1.36MB read
  Socket errors: connect 0, read 14717, write 0, timeout 0
Requests/sec:   7357.37
Transfer/sec:    696.99KB
";

    #[test]
    fn every_figure_is_found() {
        let expected = Connections {
            per_s: 7357.37,
            total: 14_717,
            parallel: 8,
            seconds: 2.0,
            percentiles_us: vec![(50.0, 533.0), (75.0, 779.0), (90.0, 1050.0), (99.0, 1720.0)],
            failed: 0,
            output: Some(SAMPLE.to_owned()),
        };
        assert_eq!(parse(SAMPLE, 8).unwrap(), expected);
    }

    #[test]
    fn what_failed_is_counted() {
        let output = SAMPLE
            .replace("connect 0, read 14717", "connect 3, read 14719")
            .replace("Requests/sec", "  Non-2xx or 3xx responses: 5\nRequests/sec");
        assert_eq!(parse(&output, 8).unwrap().failed, 3 + 2 + 5);
        let without = SAMPLE.replace("  Socket errors: connect 0, read 14717, write 0, timeout 0\n", "");
        assert_eq!(parse(&without, 8).unwrap().failed, 0);
    }

    #[test]
    fn a_server_that_does_not_answer_is_an_error() {
        let output = SAMPLE.replace("14717 requests", "0 requests");
        let error = parse(&output, 8).unwrap_err();
        assert_eq!(error.to_string(), "no connection came about");
    }
}
