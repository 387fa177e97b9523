//! Round trips of requests between stations.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{measuring::Measuring, packets::routed};
use crate::{
    host::job::Job,
    station::task::{Flow, Report, Task},
    testbed::{guest::Guest, stations},
};

const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];

/// Whole round trips, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Requests per second, answered or not; null of one after the other.
    pub rate: Option<u32>,
    pub asked: u64,
    pub answered: u64,
    pub seconds: f64,
    pub average_us: f64,
    /// Ascending: which percentile, and its time, cut off by less than 1/128; without those that no answer took as long.
    pub percentiles_us: Vec<(f64, f64)>,
    pub max_us: f64,
}

impl RoundTrips {
    fn of(rate: Option<u32>, report: &Report) -> Result<Self> {
        let times = &report.times;
        let percentile = |percentile| Some((percentile, times.percentile_us(percentile, report.sent)?));
        ensure!(report.received > 0, "no answer arrived");
        Ok(Self {
            rate,
            asked: report.sent,
            answered: report.received,
            seconds: report.seconds,
            average_us: times.average_us().unwrap_or(0.0),
            percentiles_us: PERCENTILES.into_iter().filter_map(percentile).collect(),
            max_us: times.max_us(),
        })
    }

    pub fn lost(&self) -> u64 {
        self.asked.saturating_sub(self.answered)
    }
}

/// A station that answers requests, until this is dropped.
pub struct Answering {
    number: u16,
    _answerer: Box<dyn Job>,
}

impl Answering {
    /// Returns when it does.
    pub fn start(answerer: &dyn Guest) -> Result<Self> {
        let number = stations::number();
        let answerer = stations::start(answerer, &Task::Echo { number })?;
        Ok(Self {
            number,
            _answerer: answerer,
        })
    }

    /// Asks it for so many seconds, with requests of a payload of so many bytes.
    pub fn ask(
        &self,
        asker: &dyn Guest,
        flow: Flow,
        payload: u16,
        rate: Option<u32>,
        seconds: u32,
    ) -> Result<RoundTrips> {
        let mut asking = asker.perform(&Task::Ask {
            number: self.number,
            flow,
            payload,
            rate,
            time_ms: u64::from(seconds) * 1000,
        })?;
        RoundTrips::of(rate, &stations::finish(&mut *asking, seconds.into())?)
    }
}

/// Measures from the first guest to the third and back, both ways by the second.
pub fn measure_forwarding(guests: &[Box<dyn Guest>], settings: &Measuring) -> Result<RoundTrips> {
    let (from, router, to) = (&*guests[0], guests[1].id(), &*guests[2]);
    let flow = routed(from.id(), router, to.id());
    Answering::start(to)?.ask(from, flow, settings.payload(), None, settings.time_s)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_percentile_that_is_among_the_lost_ones_is_not_told() {
        let mut report = Report {
            sent: 100,
            received: 95,
            ..Report::default()
        };
        for _ in 0..95 {
            report.times.add(Duration::from_micros(128));
        }
        let trips = RoundTrips::of(Some(1000), &report).unwrap();
        assert_eq!(
            trips.percentiles_us,
            [(50.0, 128.0), (75.0, 128.0), (90.0, 128.0)]
        );
        assert_eq!(trips.lost(), 5);
        assert!(RoundTrips::of(None, &Report::default()).is_err());
    }
}
