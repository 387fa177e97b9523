//! Times, counted by what they are to three digits: the percentiles of many stations together need no list of all.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// Bits that are kept of a time: it is cut off by less than 1/128.
const BITS: u32 = 8;

/// How often something took how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Nanoseconds, rounded down, and how often.
    counts: BTreeMap<u64, u64>,
    /// Not rounded.
    total_ns: u64,
    max_ns: u64,
}

impl Times {
    pub fn add(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let cut = (u64::BITS - time.leading_zeros()).saturating_sub(BITS);
        *self.counts.entry(time >> cut << cut).or_default() += 1;
        self.total_ns = self.total_ns.saturating_add(time);
        self.max_ns = self.max_ns.max(time);
    }

    /// Those of another one, too.
    pub fn merge(&mut self, other: &Self) {
        for (&time, count) in &other.counts {
            *self.counts.entry(time).or_default() += count;
        }
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// In microseconds; none of nothing.
    pub fn average_us(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| microseconds(self.total_ns) / number(count))
    }

    /// In microseconds.
    pub fn max_us(&self) -> f64 {
        microseconds(self.max_ns)
    }

    /// The time that so many per cent took at most, in microseconds, of `all` of which those that are missing here took
    /// longest of all; none where it is one of these.
    pub fn percentile_us(&self, percentile: f64, all: u64) -> Option<f64> {
        // Less than a thousandth more than a whole number comes of binary fractions.
        let rank = (percentile * number(all) / 100.0 - 1e-3).ceil().max(1.0);
        let mut seen = 0;
        self.counts
            .iter()
            .find(|&(_, count)| {
                seen += count;
                number(seen) >= rank
            })
            .map(|(&time, _)| microseconds(time))
    }
}

fn microseconds(ns: u64) -> f64 {
    number(ns) / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "counts and times far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(us: impl IntoIterator<Item = u64>) -> Times {
        let mut times = Times::default();
        for time in us {
            times.add(Duration::from_micros(time));
        }
        times
    }

    fn near(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|value| value <= expected && value > expected * (1.0 - 1.0 / 128.0))
    }

    #[test]
    fn percentiles_are_ranks_cut_off_by_less_than_a_128th() {
        let times = times(1..=1000);
        for (percentile, expected) in [
            (50.0, 500.0),
            (99.0, 990.0),
            (99.9, 999.0),
            (100.0, 1000.0),
            (0.0, 1.0),
        ] {
            let value = times.percentile_us(percentile, 1000);
            assert!(near(value, expected), "{percentile}: {value:?}");
        }
        assert!((times.average_us().unwrap() - 500.5).abs() < 1e-9);
        assert!((times.max_us() - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_missing_took_longest() {
        let times = times([10; 98]);
        assert!(near(times.percentile_us(98.0, 100), 10.0));
        assert_eq!(times.percentile_us(99.0, 100), None);
        assert_eq!(Times::default().percentile_us(50.0, 0), None);
        assert_eq!(Times::default().average_us(), None);
    }

    #[test]
    fn times_of_two_are_those_of_both() {
        let mut one = times([10, 20]);
        one.merge(&times([20, 4000]));
        assert_eq!(one, times([10, 20, 20, 4000]));
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Times>(&json).unwrap(), one);
    }
}
