//! Density: pairs of guests with requests and answers at a fixed rate each, ever more of them.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::measuring::Measuring;
use crate::{
    cost,
    host::job::Job,
    station::{
        task::{Report, Task},
        times::Times,
    },
    testbed::{guest::Guest, stations},
};

/// Of a request and of its answer, behind the UDP header.
const PAYLOAD: u16 = 200;
/// Seconds that a number of pairs is measured for, unless each measurement is to be shorter.
const LONGEST_STEP: u32 = 2;
/// By how much the 99th percentile may grow.
const GROWTH: f64 = 2.0;
/// How often a number of pairs may be measured until it is too many: what else a machine does comes and goes.
const TRIES: u32 = 2;
/// How often one pair alone is measured: the least of its 99th percentiles is that of an idle machine.
const IDLE_TRIES: u32 = 3;

/// How many pairs get their answers in time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Density {
    /// Requests per second of each pair.
    pub rate: u32,
    /// The most that get them: all that there were, if it is `most_pairs`.
    pub pairs: u8,
    pub most_pairs: u8,
    /// Of one pair alone, the least of three measurements.
    pub idle_p99_us: f64,
    /// What the 99th percentile may be: the same for all datapaths of a round. Null in results of before that.
    #[serde(default)]
    pub limit_us: Option<f64>,
    /// With as many pairs as get their answers in time.
    pub p99_us: f64,
    pub answered_per_s: f64,
    /// In the order in which they were measured.
    pub steps: Vec<Step>,
}

/// So many pairs at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub pairs: u8,
    pub seconds: f64,
    pub asked: u64,
    pub answered: u64,
    /// Whole round trips, from when the request was due; null where it is one that was lost.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    /// CPU time of the whole host; null where CPUs were kept awake.
    pub host_busy_s: Option<f64>,
}

/// What the 99th percentile may be, by one pair alone.
pub fn limit_us(guests: &[Box<dyn Guest>], settings: &Measuring) -> Result<f64> {
    let (_, idle_p99_us) = idle(guests, settings)?;
    Ok(GROWTH * idle_p99_us)
}

/// One pair alone: all measurements, and the least 99th percentile.
fn idle(guests: &[Box<dyn Guest>], settings: &Measuring) -> Result<(Vec<Step>, f64)> {
    let (rate, seconds) = (settings.requests_per_s(), step_s(settings));
    let steps = (0..IDLE_TRIES).map(|_| step(guests, 1, rate, seconds));
    let steps = steps.collect::<Result<Vec<_>>>()?;
    let least = steps.iter().filter_map(|step| step.p99_us).reduce(f64::min);
    let least = least.with_context(|| {
        format!(
            "one pair alone loses more than one of a hundred answers at {rate} requests per second: try a lower --rate"
        )
    })?;
    Ok((steps, least))
}

fn step_s(settings: &Measuring) -> u32 {
    settings.time_s.min(LONGEST_STEP)
}

/// Measures, with the first of each pair of guests asking the second, up to a [limit](limit_us).
pub fn measure(guests: &[Box<dyn Guest>], settings: &Measuring, limit_us: f64) -> Result<Density> {
    let (rate, seconds) = (settings.requests_per_s(), step_s(settings));
    let most_pairs = settings.most_pairs;
    let (mut steps, idle_p99_us) = idle(guests, settings)?;
    let pairs = most(most_pairs, |pairs| {
        for _ in 0..TRIES {
            let step = step(guests, pairs, rate, seconds)?;
            let fits = step.p99_us.is_some_and(|p99| p99 <= limit_us);
            steps.push(step);
            if fits {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    let last = steps.iter().rfind(|step| step.pairs == pairs);
    Ok(Density {
        rate,
        pairs,
        most_pairs,
        idle_p99_us,
        limit_us: Some(limit_us),
        p99_us: last.and_then(|step| step.p99_us).unwrap_or(idle_p99_us),
        answered_per_s: last.map_or(0.0, Step::answered_per_s),
        steps,
    })
}

/// The greatest number up to a limit that fits, where one does: twice as many until they do not, then by halves.
fn most(limit: u8, mut fits: impl FnMut(u8) -> Result<bool>) -> Result<u8> {
    let mut fitting = 1;
    let mut too_many = None;
    while fitting < limit && too_many.is_none() {
        let next = fitting.saturating_mul(2).min(limit);
        if fits(next)? {
            fitting = next;
        } else {
            too_many = Some(next);
        }
    }
    let mut too_many = too_many.unwrap_or(fitting);
    while too_many - fitting > 1 {
        let middle = fitting + (too_many - fitting) / 2;
        if fits(middle)? {
            fitting = middle;
        } else {
            too_many = middle;
        }
    }
    Ok(fitting)
}

fn step(guests: &[Box<dyn Guest>], pairs: u8, rate: u32, seconds: u32) -> Result<Step> {
    let number = stations::number();
    let of = || guests.chunks_exact(2).take(pairs.into());
    let echo = Task::Echo { number };
    let answering = of().map(|pair| stations::start(&*pair[1], &echo));
    let _answering = answering.collect::<Result<Vec<_>>>()?;
    let before = cost::host_busy_s()?;
    let asking = of().map(|pair| {
        pair[0].perform(&Task::Ask {
            number,
            flow: stations::flow(pair[0].id(), pair[1].id()),
            payload: PAYLOAD,
            rate: Some(rate),
            time_ms: u64::from(seconds) * 1000,
        })
    });
    let mut asking = asking.collect::<Result<Vec<Box<dyn Job>>>>()?;
    let reports = asking
        .iter_mut()
        .map(|job| stations::finish(&mut **job, seconds.into()));
    let reports = reports.collect::<Result<Vec<_>>>()?;
    let host_busy_s = cost::host_busy_s()? - before;
    Ok(Step::of(pairs, seconds, &reports, host_busy_s))
}

impl Step {
    fn of(pairs: u8, seconds: u32, reports: &[Report], host_busy_s: f64) -> Self {
        let mut times = Times::default();
        for report in reports {
            times.merge(&report.times);
        }
        let asked = reports.iter().map(|report| report.sent).sum();
        Self {
            pairs,
            seconds: seconds.into(),
            asked,
            answered: reports.iter().map(|report| report.received).sum(),
            p50_us: times.percentile_us(50.0, asked),
            p99_us: times.percentile_us(99.0, asked),
            host_busy_s: Some(host_busy_s),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn answered_per_s(&self) -> f64 {
        self.answered as f64 / self.seconds
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn search(limit: u8, fitting: u8) -> (u8, Vec<u8>) {
        let mut asked = Vec::new();
        let most = most(limit, |pairs| {
            asked.push(pairs);
            Ok(pairs <= fitting)
        });
        (most.unwrap(), asked)
    }

    #[test]
    fn the_most_that_fits_is_found_by_doubling_and_by_halves() {
        assert_eq!(search(48, 11), (11, vec![2, 4, 8, 16, 12, 10, 11]));
        assert_eq!(search(48, 48), (48, vec![2, 4, 8, 16, 32, 48]));
        assert_eq!(search(48, 47).0, 47);
        assert_eq!(search(1, 1), (1, vec![]));
        assert_eq!(search(127, 1), (1, vec![2]));
        for fitting in 1..=127 {
            assert_eq!(search(127, fitting).0, fitting);
        }
    }

    #[test]
    fn percentiles_are_of_all_pairs_and_lost_answers_took_longest() {
        let report = |us: u64, lost: u64| {
            let mut times = Times::default();
            for _ in 0..100 - lost {
                times.add(Duration::from_micros(us));
            }
            Report {
                sent: 100,
                received: 100 - lost,
                times,
                ..Report::default()
            }
        };
        let step = Step::of(2, 1, &[report(64, 0), report(128, 0)], 0.5);
        assert_eq!(
            (step.p50_us, step.p99_us, step.asked),
            (Some(64.0), Some(128.0), 200)
        );
        let step = Step::of(2, 1, &[report(64, 0), report(128, 3)], 0.5);
        assert_eq!((step.p50_us, step.p99_us, step.answered), (Some(64.0), None, 197));
    }
}
