//! What is computed from several rounds: medians, sums, ratios within a round.

use super::metrics::{Metric, OverRounds, main_metric};
use crate::{
    results::{Results, Run},
    workload::kind::Workload,
};

/// The datapath that the others are compared with: what users have without any of them.
pub const PEER: &str = "linux-bridge";

/// Rounds below which a ratio says nothing: identical runs differ by a fifth or more.
pub const ENOUGH_ROUNDS: usize = 3;

/// Numbers of several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing. What is no number is left out.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        // Of an even number the mean of the two in the middle.
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, min, max })
    }
}

/// The runs of a workload over a datapath, each with its round.
pub fn runs<'results>(
    results: &'results Results,
    workload: Workload,
    datapath: &str,
) -> impl Iterator<Item = (u32, &'results Run)> {
    let samples = results
        .samples
        .iter()
        .filter(move |sample| sample.datapath == datapath);
    let runs = samples.flat_map(|sample| sample.runs.iter().map(|run| (sample.round, run)));
    runs.filter(move |(_, run)| run.outcome.workload() == workload)
}

/// A metric over all rounds; none where a round lacks it, since what it lacks is mostly the worst: a percentile that is among
/// the lost answers.
pub fn spread(results: &Results, workload: Workload, datapath: &str, metric: &Metric) -> Option<Spread> {
    let values = runs(results, workload, datapath).map(|(_, run)| (metric.of)(run));
    Spread::of(values.collect::<Option<Vec<_>>>()?)
}

/// In how many rounds there is no such metric.
pub fn lacking(results: &Results, workload: Workload, datapath: &str, metric: &Metric) -> usize {
    let runs = runs(results, workload, datapath);
    runs.filter(|(_, run)| (metric.of)(run).is_none()).count()
}

/// A metric as one number.
pub fn value(results: &Results, workload: Workload, datapath: &str, metric: &Metric) -> Option<f64> {
    match metric.over_rounds {
        OverRounds::Median => Some(spread(results, workload, datapath, metric)?.median),
        OverRounds::Sum => runs(results, workload, datapath)
            .filter_map(|(_, run)| (metric.of)(run))
            .reduce(|sum, value| sum + value),
    }
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ratio {
    /// With nothing.
    None,
    /// From fewer rounds than [`ENOUGH_ROUNDS`].
    TooFewRounds,
    Of(Spread),
}

impl Ratio {
    /// Of the ratios of all rounds.
    pub fn of(ratios: impl IntoIterator<Item = f64>) -> Self {
        let ratios: Vec<_> = ratios.into_iter().filter(|ratio| ratio.is_finite()).collect();
        match ratios.len() {
            0 => Self::None,
            1..ENOUGH_ROUNDS => Self::TooFewRounds,
            _ => Spread::of(ratios).map_or(Self::None, Self::Of),
        }
    }

    /// If there were enough rounds.
    pub fn spread(self) -> Option<Spread> {
        match self {
            Self::Of(spread) => Some(spread),
            Self::None | Self::TooFewRounds => None,
        }
    }
}

/// A metric as a multiple of the [`PEER`]'s in the same round, since the machine's speed drifts from one to the next.
pub fn ratio(results: &Results, workload: Workload, datapath: &str, metric: &Metric) -> Ratio {
    ratio_to(results, workload, datapath, PEER, metric)
}

/// A metric as a multiple of any other datapath's in the same round.
pub fn ratio_to(results: &Results, workload: Workload, datapath: &str, peer: &str, metric: &Metric) -> Ratio {
    let pairs = runs(results, workload, datapath).filter_map(|(round, run)| {
        let (_, peer) = runs(results, workload, peer).find(|&(other, _)| other == round)?;
        Some((run, peer))
    });
    // A round that lacks it is none to leave out: see `spread`.
    let ratios = pairs.map(|(run, peer)| Some((metric.of)(run)? / (metric.of)(peer)?));
    ratios.collect::<Option<Vec<_>>>().map_or(Ratio::None, Ratio::of)
}

/// A metric as a multiple of another file's, median by median: the rounds of different files belong together in no way.
pub fn ratio_between(
    results: [&Results; 2],
    workload: Workload,
    datapath: &str,
    metric: &Metric,
) -> Option<Ratio> {
    let [own, other] = results.map(|results| value(results, workload, datapath, metric));
    let few = results.map(|results| runs(results, workload, datapath).count() < ENOUGH_ROUNDS);
    let ratio = own? / other?;
    Some(if few.contains(&true) {
        Ratio::TooFewRounds
    } else {
        Ratio::Of(Spread::of([ratio])?)
    })
}

/// How many rounds of a workload there were: those of an interrupted run may be fewer than were asked for.
pub fn rounds(results: &Results, workload: Workload) -> usize {
    let of = |datapath: &&str| runs(results, workload, datapath).count();
    results.datapaths().iter().map(of).max().unwrap_or(0)
}

/// The run whose metric is the median; of an even number the lower of the two in the middle.
pub fn median_run<'results>(
    results: &'results Results,
    workload: Workload,
    datapath: &str,
) -> Option<(u32, &'results Run)> {
    let metric = main_metric(workload);
    let runs =
        runs(results, workload, datapath).filter_map(|(round, run)| Some(((metric.of)(run)?, round, run)));
    let (_, round, run) = median_of(runs.collect(), |(metric, ..)| *metric)?;
    Some((round, run))
}

/// The one in the middle; of an even number the lower of the two.
pub fn median_of<T>(mut all: Vec<T>, by: impl Fn(&T) -> f64) -> Option<T> {
    all.sort_by(|one, other| by(one).total_cmp(&by(other)));
    let middle = all.len().checked_sub(1)? / 2;
    Some(all.swap_remove(middle))
}

/// The workloads, in the order in which they were measured.
pub fn workloads(results: &Results) -> Vec<Workload> {
    workloads_of([results])
}

/// All workloads of several results.
pub fn workloads_of<'results>(results: impl IntoIterator<Item = &'results Results>) -> Vec<Workload> {
    let mut workloads = Vec::new();
    let samples = results.into_iter().flat_map(|results| &results.samples);
    for run in samples.flat_map(|sample| &sample.runs) {
        let workload = run.outcome.workload();
        if !workloads.contains(&workload) {
            workloads.push(workload);
        }
    }
    workloads
}

/// All datapaths of several results.
pub fn datapaths<'results>(results: impl IntoIterator<Item = &'results Results>) -> Vec<&'results str> {
    let mut names = Vec::new();
    for name in results.into_iter().flat_map(Results::datapaths) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{super::metrics::OTHER_METRICS, *};
    use crate::{report::fixture, workload::Outcome};

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        let median = |values: &[f64]| Spread::of(values.iter().copied()).map(|spread| spread.median);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[9.0, f64::NAN, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_compare_within_a_round() {
        let results = fixture::results(vec![
            fixture::sample("tapbridge", 1, 12.0, 40.0),
            fixture::sample(PEER, 1, 10.0, 50.0),
            // The machine got slower by half; the ratio stays.
            fixture::sample(PEER, 2, 5.0, 100.0),
            fixture::sample("tapbridge", 2, 6.0, 80.0),
            fixture::sample(PEER, 3, 1.0, 10.0),
            fixture::sample("tapbridge", 3, 1.2, 8.0),
            fixture::sample("tapbridge", 4, 100.0, 1.0),
        ]);
        let ratio = |workload| {
            let ratio = ratio(&results, workload, "tapbridge", &main_metric(workload));
            ratio.spread().unwrap()
        };
        let throughput = ratio(Workload::Throughput);
        assert!(
            near(throughput.min, 1.2) && near(throughput.max, 1.2),
            "{throughput:?}"
        );
        let latency = ratio(Workload::Latency);
        assert!(near(latency.min, 0.8) && near(latency.max, 0.8), "{latency:?}");
    }

    #[test]
    fn a_round_that_lacks_a_percentile_is_not_left_out() {
        let mut results = fixture::results(
            (1..=4)
                .flat_map(|round| ["tapbridge", PEER].map(|name| fixture::sample(name, round, 12.0, 40.0)))
                .collect(),
        );
        let metric = main_metric(Workload::Latency);
        let told = |results: &Results, datapath| {
            (
                spread(results, Workload::Latency, datapath, &metric).is_some(),
                matches!(
                    ratio(results, Workload::Latency, "tapbridge", &metric),
                    Ratio::Of(_)
                ),
                lacking(results, Workload::Latency, datapath, &metric),
            )
        };
        assert_eq!(told(&results, PEER), (true, true, 0));
        let Outcome::Latency(latency) = &mut results.samples[3].runs[1].outcome else {
            unreachable!("a sample's second run")
        };
        latency.percentiles_us.clear();
        assert_eq!(told(&results, PEER), (false, false, 1));
        assert_eq!(told(&results, "tapbridge"), (true, false, 0));
    }

    #[test]
    fn two_rounds_are_too_few_for_a_ratio_and_so_are_three_of_which_two_have_a_peer() {
        let samples = |peers: &[u32], rounds: u32| {
            let peers = peers
                .iter()
                .map(|&round| fixture::sample(PEER, round, 10.0, 50.0));
            let own = (1..=rounds).map(|round| fixture::sample("tapbridge", round, 12.0, 40.0));
            fixture::results(peers.chain(own).collect())
        };
        let metric = main_metric(Workload::Throughput);
        let of = |results: &Results| ratio(results, Workload::Throughput, "tapbridge", &metric);
        assert_eq!(of(&samples(&[], 3)), Ratio::None);
        assert_eq!(of(&samples(&[1, 2], 2)), Ratio::TooFewRounds);
        assert_eq!(of(&samples(&[1, 3], 3)), Ratio::TooFewRounds);
        let three = samples(&[1, 2, 3], 3);
        assert!(matches!(of(&three), Ratio::Of(_)));
        let between = |other: &Results| {
            ratio_between([&three, other], Workload::Throughput, "tapbridge", &metric).unwrap()
        };
        assert!(matches!(between(&three), Ratio::Of(_)));
        assert_eq!(between(&samples(&[], 2)), Ratio::TooFewRounds);
        assert_eq!(
            (
                rounds(&three, Workload::Throughput),
                rounds(&three, Workload::Connections)
            ),
            (3, 0)
        );
    }

    #[test]
    fn the_median_run_is_one_that_was() {
        let rates = [3.0, 1.0, 9.0, 2.0];
        let samples = (1..)
            .zip(rates)
            .map(|(round, rate)| fixture::sample("ovs", round, rate, 1.0));
        let mut results = fixture::results(samples.collect());
        let round =
            |results: &Results| median_run(results, Workload::Throughput, "ovs").map(|(round, _)| round);
        assert_eq!(round(&results), Some(4), "the lower of 2 and 3");
        results.samples.pop();
        assert_eq!(round(&results), Some(1));
        results.samples.clear();
        assert_eq!(round(&results), None);
    }

    #[test]
    fn what_went_wrong_is_the_sum_over_rounds() {
        let samples = [1, 2, 3].map(|round| fixture::sample("tapbridge", round, 1.0, 1.0));
        let results = fixture::results(samples.into());
        let retransmits = OTHER_METRICS
            .into_iter()
            .find(|metric| metric.name == "retransmits")
            .unwrap();
        let sum = value(&results, Workload::Throughput, "tapbridge", &retransmits);
        assert_eq!(sum, Some(6.0));
        assert_eq!(
            value(&results, Workload::Latency, "tapbridge", &retransmits),
            None
        );
    }
}
