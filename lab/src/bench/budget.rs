//! What tapbridge may cost beside others, and whether it does.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{
    case::CASES,
    results::{Ratio, Results},
};
use crate::report::table::{NOTHING, Table, cell};

/// The repository's budgets, as they were when this was built.
const FILE: &str = include_str!("../../../budgets.toml");

#[derive(Debug, Deserialize)]
struct Budgets {
    frame: Vec<Budget>,
}

/// What one ratio may be.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Budget {
    pub case: String,
    pub datapath: String,
    /// Another datapath in the same case.
    to: Option<String>,
    /// Another case over the same datapath.
    to_case: Option<String>,
    /// On the processors of AMD that it was set for, and wherever nothing else is said.
    at_most: f64,
    /// On those of Intel.
    at_most_intel: Option<f64>,
    /// How much more it may seem to be, as a share of that.
    margin: f64,
}

impl Budget {
    /// On a processor.
    fn at_most(&self, processor: Option<&str>) -> f64 {
        let intel = processor.is_some_and(|model| model.contains("Intel"));
        self.at_most_intel.filter(|_| intel).unwrap_or(self.at_most)
    }

    /// What it is compared with: a case and a datapath.
    fn other(&self) -> (&str, &str) {
        let case = self.to_case.as_deref().unwrap_or(&self.case);
        (case, self.to.as_deref().unwrap_or(&self.datapath))
    }

    /// What it is compared with, for people.
    fn beside(&self) -> &str {
        let (case, datapath) = self.other();
        if self.to_case.is_some() { case } else { datapath }
    }

    /// Whether what was measured is something else: where one thread writes and reads, nothing is lost but by a mistake.
    fn is_void(&self, results: &Results) -> bool {
        let case = CASES.iter().find(|case| case.name == self.case);
        let measured = results.find(&self.case, &self.datapath);
        case.is_some_and(|case| !case.has_threads())
            && measured.is_some_and(|measured| measured.lost * 1000 > measured.frames)
    }

    /// `None` of what was not measured.
    fn measured(&self, results: &Results) -> Option<Ratio> {
        let (case, datapath) = self.other();
        let own = results.find(&self.case, &self.datapath)?;
        own.ratio(results.find(case, datapath)?)
    }
}

/// All that there are.
pub fn all() -> Result<Vec<Budget>> {
    let budgets: Budgets = toml::from_str(FILE).context("reading budgets.toml")?;
    Ok(budgets.frame)
}

/// A row for every budget of the cases that were measured, and how many are exceeded.
pub fn compare(results: &Results, budgets: &[Budget]) -> (Table, usize) {
    let head = [
        "case", "datapath", "beside", "verdict", "best", "median", "at most", "margin",
    ];
    let mut table = Table::new(head).of_words(4);
    let mut exceeded = 0;
    for budget in budgets {
        let ratio = budget.measured(results);
        let at_most = budget.at_most(results.machine.cpu_model.as_deref());
        let verdict = match ratio {
            None => "not measured",
            Some(_) if budget.is_void(results) => {
                exceeded += 1;
                "FRAMES LOST"
            }
            Some(ratio) if ratio.least() <= at_most * (1.0 + budget.margin) => "kept",
            Some(_) => {
                exceeded += 1;
                "EXCEEDED"
            }
        };
        let best = cell(ratio.and_then(|ratio| ratio.best), 3);
        let median = cell(ratio.map(|ratio| ratio.median), 3);
        table.row([
            budget.case.clone(),
            budget.datapath.clone(),
            budget.beside().into(),
            verdict.into(),
            best,
            median,
            format!("{at_most:.3}"),
            format!("{:.0} %", 100.0 * budget.margin),
        ]);
    }
    (table, exceeded)
}

/// Prints how the results stand to the budgets; an error if one is exceeded.
pub fn check(results: &Results) -> Result<()> {
    let budgets = all()?;
    let (table, exceeded) = compare(results, &budgets);
    eprintln!("{}", table.text());
    if exceeded > 0 {
        bail!(
            "{exceeded} of {} budgets in budgets.toml exceeded; the load before was {}",
            budgets.len(),
            results
                .machine
                .load
                .map_or(NOTHING.into(), |load| load.to_string())
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            results::{self, tests::measured},
            testbed::Datapath,
        },
        *,
    };

    fn budget(text: &str) -> Budget {
        toml::from_str(text).unwrap()
    }

    fn verdicts(budgets: &[Budget]) -> (String, usize) {
        let measured = vec![
            measured("64", "linux-bridge", &[100.0, 200.0, 100.0]),
            measured("64", "tapbridge-xdp", &[52.0, 104.0, 52.0]),
            measured("ports-256", "tapbridge-xdp", &[52.0, 104.0, 52.0]),
        ];
        let results = results::tests::results(measured);
        let (table, exceeded) = compare(&results, budgets);
        (table.text(), exceeded)
    }

    #[test]
    fn a_budget_is_kept_up_to_its_margin() {
        let of = |at_most: f64, margin: f64| {
            budget(&format!(
                "case = '64'\ndatapath = 'tapbridge-xdp'\nto = 'linux-bridge'\nat-most = {at_most:?}\nmargin = {margin:?}"
            ))
        };
        assert_eq!(verdicts(&[of(0.53, 0.0), of(0.5, 0.05)]).1, 0);
        let (text, exceeded) = verdicts(&[of(0.5, 0.03), of(0.51, 0.0)]);
        assert_eq!(exceeded, 2, "{text}");
        assert!(text.contains("EXCEEDED"), "{text}");
    }

    #[test]
    fn processors_have_limits_of_their_own_where_there_are_some() {
        let own = "case = '64'\ndatapath = 'tapbridge-xdp'\nto = 'linux-bridge'\nat-most = 0.5\nmargin = 0.0";
        let both = budget(&format!("{own}\nat-most-intel = 0.8"));
        let limits = |budget: &Budget| {
            [None, Some("AMD EPYC"), Some("Intel(R) Xeon(R) Processor")].map(|model| budget.at_most(model))
        };
        assert!(limits(&both).into_iter().eq([0.5, 0.5, 0.8]));
        assert!(limits(&budget(own)).into_iter().eq([0.5, 0.5, 0.5]));
    }

    #[test]
    fn noise_in_one_of_the_two_numbers_is_no_failure_and_frames_that_are_lost_are() {
        let mut noisy = vec![
            measured("64", "linux-bridge", &[100.0, 100.0, 100.0]),
            measured("64", "tapbridge-xdp", &[50.0, 90.0, 90.0]),
        ];
        let budgets = [budget(
            "case = '64'\ndatapath = 'tapbridge-xdp'\nto = 'linux-bridge'\nat-most = 0.5\nmargin = 0.0",
        )];
        assert_eq!(compare(&results::tests::results(noisy.clone()), &budgets).1, 0);
        noisy[1].lost = 10;
        let (table, exceeded) = compare(&results::tests::results(noisy), &budgets);
        assert_eq!(exceeded, 1);
        assert!(table.text().contains("FRAMES LOST"));
    }

    #[test]
    fn a_budget_may_be_beside_another_case_and_what_was_not_measured_is_no_failure() {
        let rest = "datapath = 'tapbridge-xdp'\nat-most = 0.9\nmargin = 0.0";
        let other = budget(&format!("case = 'ports-256'\nto-case = '64'\n{rest}"));
        assert_eq!(verdicts(&[other]).1, 1);
        let (text, exceeded) = verdicts(&[budget(&format!("case = 'tso4'\nto = 'macvtap'\n{rest}"))]);
        assert_eq!(exceeded, 0);
        assert!(text.contains("not measured"), "{text}");
    }

    #[test]
    fn every_budget_is_of_something_that_can_be_measured() {
        for budget in all().unwrap() {
            let (other, to) = budget.other();
            assert_ne!((other, to), (&*budget.case, &*budget.datapath));
            for (name, datapath) in [(&*budget.case, &*budget.datapath), (other, to)] {
                let case = CASES.iter().find(|case| case.name == name).expect(name);
                let datapath = Datapath::ALL.into_iter().find(|other| other.name() == datapath);
                assert!(datapath.expect("a datapath").does(case), "{budget:?}");
            }
        }
    }
}
