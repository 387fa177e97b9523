//! What tapbridge's path may cost beside another's, and whether it does.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{
    compare::{self, ENOUGH_ROUNDS, Ratio, Spread},
    metrics::{PATH, number},
    table::{NOTHING, Table},
};
use crate::{
    results::{Part, Profile, Results},
    workload::kind::Workload,
};

/// The repository's budgets, as they were when this was built.
const FILE: &str = include_str!("../../../budgets.toml");

/// Samples of a path below which its time is too uncertain: by statistics alone, that of 200 is known to 7 per cent.
const ENOUGH_SAMPLES: f64 = 200.0;
/// Share of the samples that may be lost: whose those are nobody knows.
const FEW_LOST: f64 = 0.05;

const NONE: &str =
    "no budget of the path is of this --workload and these datapaths: see `path` in budgets.toml";

#[derive(Debug, Deserialize)]
struct Budgets {
    path: Vec<Budget>,
}

/// What the path of one datapath may cost beside that of another: the time of a frame, in the same round.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Budget {
    /// By the name that it has in tables.
    workload: String,
    datapath: String,
    to: String,
    at_most: f64,
    /// How much more it may seem to be, as a share of that.
    margin: f64,
}

impl Budget {
    fn limit(&self) -> f64 {
        self.at_most * (1.0 + self.margin)
    }

    /// `None` where one of the two was not measured; an error where too little was.
    fn measured(&self, results: &Results) -> Result<Option<Spread>> {
        let mut workloads = compare::workloads_of([results]).into_iter();
        let Some(workload) = workloads.find(|workload| workload.name() == self.workload) else {
            return Ok(None);
        };
        let runs = |datapath| compare::runs(results, workload, datapath);
        if [&*self.datapath, &*self.to]
            .iter()
            .any(|datapath| runs(datapath).next().is_none())
        {
            return Ok(None);
        }
        let what = format!("the path of {} in {}", self.datapath, self.workload);
        let mut needed = 1.0_f64;
        for datapath in [&*self.datapath, &*self.to] {
            let profiles = runs(datapath).map(|(_, run)| run.profile.as_ref());
            let profiles = profiles.collect::<Option<Vec<_>>>();
            let profiles = profiles.with_context(|| {
                format!("{what} can't be checked without a profile: measure without --no-profile, where perf is allowed")
            })?;
            let [lost, all] = [
                |profile: &Profile| profile.lost,
                |profile: &Profile| profile.samples,
            ]
            .map(|of| number(profiles.iter().map(|profile| of(profile)).sum()));
            ensure!(
                lost <= FEW_LOST * (lost + all),
                "{what} can't be checked: {lost} of {} samples were lost; measure on a machine that is less busy",
                lost + all
            );
            let samples: f64 = profiles
                .iter()
                .map(|profile| profile.samples_of(Part::Path))
                .sum();
            needed = needed.max(ENOUGH_SAMPLES / samples.max(1.0));
        }
        let ratio = compare::ratio_to(results, workload, &self.datapath, &self.to, &PATH);
        let (time, rounds) = (
            results.conditions.measuring.time_s,
            compare::rounds(results, workload),
        );
        ensure!(
            !matches!(ratio, Ratio::TooFewRounds),
            "{what} can't be checked with {rounds} rounds: measure at least {ENOUGH_ROUNDS} (--repeat)"
        );
        ensure!(
            needed <= 1.0,
            "{what} was met too seldom to be checked: measure {:.0} s in each of {rounds} rounds (--time)",
            (f64::from(time) * needed).ceil()
        );
        Ok(ratio.spread())
    }
}

fn all() -> Result<Vec<Budget>> {
    let budgets: Budgets = toml::from_str(FILE).context("reading budgets.toml")?;
    Ok(budgets.path)
}

/// A row for every budget, and how many are exceeded.
fn compare(results: &Results, budgets: &[Budget]) -> Result<(Table, usize)> {
    let head = [
        "workload", "datapath", "beside", "verdict", "min", "median", "at most", "margin",
    ];
    let mut table = Table::new(head).of_words(4);
    let mut exceeded = 0;
    for budget in budgets {
        let ratio = budget.measured(results)?;
        let verdict = match ratio {
            None => "not measured",
            Some(ratio) if ratio.median <= budget.limit() => "kept",
            Some(_) => {
                exceeded += 1;
                "EXCEEDED"
            }
        };
        let [min, median] = [|ratio: Spread| ratio.min, |ratio: Spread| ratio.median]
            .map(|of| ratio.map_or(NOTHING.into(), |ratio| format!("{:.2}", of(ratio))));
        table.row([
            budget.workload.clone(),
            budget.datapath.clone(),
            budget.to.clone(),
            verdict.into(),
            min,
            median,
            format!("{:.2}", budget.at_most),
            format!("{:.0} %", 100.0 * budget.margin),
        ]);
    }
    Ok((table, exceeded))
}

/// An error if what is to be measured can't be held to any budget, as far as that is known before.
pub fn foresee(workloads: &[Workload], datapaths: &[String], rounds: u32) -> Result<()> {
    ensure!(
        rounds as usize >= ENOUGH_ROUNDS,
        "--check with {rounds} rounds can't tell: measure at least {ENOUGH_ROUNDS} (--repeat)"
    );
    let is_measured = |budget: &Budget| {
        workloads
            .iter()
            .any(|workload| workload.name() == budget.workload)
            && datapaths.contains(&budget.datapath)
            && datapaths.contains(&budget.to)
    };
    ensure!(all()?.iter().any(is_measured), NONE);
    Ok(())
}

/// Prints how the path stands to its budgets; an error if one is exceeded, or none was measured.
pub fn check(results: &Results) -> Result<()> {
    let budgets = all()?;
    let (table, exceeded) = compare(results, &budgets)?;
    eprintln!("{}", table.text());
    let measured = |budget: &Budget| Ok::<_, anyhow::Error>(budget.measured(results)?.is_some());
    let measured = budgets.iter().map(measured).collect::<Result<Vec<_>>>()?;
    ensure!(measured.contains(&true), NONE);
    if exceeded > 0 {
        let load = results.machine.load;
        bail!(
            "{exceeded} of {} budgets of the path in budgets.toml exceeded; the load before was {}",
            budgets.len(),
            load.map_or(NOTHING.into(), |load| load.to_string())
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use clap::ValueEnum;

    use super::*;
    use crate::{report::fixture, station::task::Size, workload::kind::WorkloadKind};

    /// Rounds of a path that took so long with and without tapbridge.
    fn measured(rounds: &[(f64, f64)]) -> Results {
        let samples = (1..).zip(rounds).flat_map(|(round, &(own, other))| {
            [("tapbridge", own), ("linux-bridge", other)].map(|(datapath, path_s)| {
                let mut sample = fixture::sample(datapath, round, 1.0, 1.0);
                for run in &mut sample.runs {
                    run.profile = Some(fixture::profile(path_s));
                }
                sample
            })
        });
        fixture::results(samples.collect())
    }

    fn budget(at_most: f64, margin: f64) -> Budget {
        let text = format!(
            "workload = 'latency'\ndatapath = 'tapbridge'\nto = 'linux-bridge'\nat-most = {at_most:?}\nmargin = {margin:?}"
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_budget_is_kept_up_to_its_margin() {
        let results = measured(&[(0.52, 1.0), (0.6, 1.0), (0.4, 1.0)]);
        let (table, exceeded) = compare(&results, &[budget(0.53, 0.0), budget(0.5, 0.05)]).unwrap();
        assert_eq!(exceeded, 0, "{}", table.text());
        let (table, exceeded) = compare(&results, &[budget(0.51, 0.0), budget(0.5, 0.03)]).unwrap();
        assert_eq!(exceeded, 2, "{}", table.text());
        assert!(table.text().contains("EXCEEDED"), "{}", table.text());
    }

    #[test]
    fn what_was_not_measured_is_no_failure_and_too_little_is_one_that_says_how_much_is_enough() {
        let (table, exceeded) = compare(&fixture::results(Vec::new()), &[budget(0.5, 0.0)]).unwrap();
        assert_eq!(exceeded, 0);
        assert!(table.text().contains("not measured"), "{}", table.text());
        let error = |results: &Results| budget(0.5, 0.0).measured(results).unwrap_err().to_string();
        // 60 samples in three rounds of ten seconds.
        let seldom = error(&measured(&[(0.02, 1.0); 3]));
        assert!(seldom.contains("measure 34 s in each of 3 rounds"), "{seldom}");
        let few = error(&measured(&[(0.5, 1.0); 2]));
        assert!(few.contains("with 2 rounds: measure at least 3"), "{few}");
        let mut blind = measured(&[(0.5, 1.0); 3]);
        blind.samples[0].runs[1].profile = None;
        assert!(error(&blind).contains("without a profile"));
        let mut lossy = measured(&[(0.5, 1.0); 3]);
        for run in &mut lossy.samples[0].runs {
            run.profile.as_mut().unwrap().lost = 600;
        }
        assert!(error(&lossy).contains("samples were lost"));
    }

    fn every_workload() -> Vec<Workload> {
        let mut measuring = fixture::results(Vec::new()).conditions.measuring;
        measuring.size = Size::value_variants().to_vec();
        measuring.pairs = vec![1, 2, 8];
        let kinds = WorkloadKind::value_variants().iter();
        kinds.flat_map(|kind| kind.parts(&measuring)).collect()
    }

    #[test]
    fn what_no_budget_is_of_is_known_before_anything_is_measured() {
        let budget = all().unwrap().remove(0);
        let both = [budget.datapath.clone(), budget.to.clone()];
        let mut workloads = every_workload();
        workloads.retain(|workload| workload.name() == budget.workload);
        assert!(foresee(&workloads, &both, 3).is_ok(), "{budget:?}");
        assert!(foresee(&workloads, &both, 2).is_err());
        assert!(foresee(&workloads, &both[..1], 3).is_err());
        assert!(foresee(&[], &both, 3).is_err());
    }

    #[test]
    fn every_budget_compares_two_datapaths() {
        let names: Vec<_> = every_workload().into_iter().map(Workload::name).collect();
        for budget in all().unwrap() {
            assert_ne!(budget.datapath, budget.to);
            assert!(budget.limit() > 0.0, "{budget:?}");
            assert!(
                names.contains(&Cow::Borrowed(&*budget.workload)),
                "{budget:?}: {names:?}"
            );
        }
        assert!(
            check(&fixture::results(Vec::new())).is_err(),
            "nothing was measured"
        );
    }
}
