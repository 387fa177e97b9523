//! What `tapbridge-lab run` sets up and measures, from the command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgMatches, Args, parser::ValueSource};

use crate::{
    results::Conditions,
    testbed::setup::{Setup, Switched},
    workload::measuring::{Measuring, distinct},
};

/// Measure between guests, over each of the datapaths in turn
///
/// Where CPUs may sleep and nothing is pinned to one, identical runs differ by a fifth or more: compare datapaths by
/// their ratio within a round, over several rounds, or see --steady. With every measurement the host's CPU time and
/// tapbridge's own counters are taken, and, but for packets, forwarding, density and mixed, the system calls of the guests'
/// VMMs.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    #[command(flatten)]
    pub setup: Setup,
    #[command(flatten)]
    pub measuring: Measuring,
    /// Keep the CPUs awake, and each guest with its VMM on one CPU, those of a pair on two; the host's CPU time is not told
    /// then
    #[arg(long)]
    pub steady: bool,
    /// End with an error if the path costs more than its budgets in budgets.toml
    #[arg(long, conflicts_with = "no_profile")]
    pub check: bool,
    /// Folder for results.json, report.md and the plots; must not exist yet
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Print the results as one JSON document instead of the tables
    #[arg(short, long)]
    pub json: bool,
    /// What the results call the revision of this project
    #[arg(long, hide = true)]
    pub revision: Option<String>,
}

impl Settings {
    /// As they are meant: see [`Measuring::checked`]. The matches are of the command line that they are of.
    pub fn checked(mut self, given: &ArgMatches) -> Result<Self> {
        let given = |name: &str| given.value_source(name) == Some(ValueSource::CommandLine);
        distinct(&mut self.setup.datapath);
        distinct(&mut self.setup.hook);
        self.measuring = self.measuring.checked(self.setup.guest, self.setup.mtu, given)?;
        Ok(self)
    }

    pub fn conditions(&self) -> Conditions {
        Conditions {
            mtu: self.setup.mtu,
            offloads: self.setup.offloads == Switched::On,
            steady: self.steady,
            measuring: self.measuring.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        settings: Settings,
    }

    fn checked(words: &str) -> Result<Settings> {
        let words = ["lab"].into_iter().chain(words.split(' '));
        let matches = Arguments::command().get_matches_from(words);
        Arguments::from_arg_matches(&matches)?.settings.checked(&matches)
    }

    #[test]
    fn what_the_command_line_has_is_told_from_defaults() {
        assert!(checked("--workload latency").is_ok());
        let error = checked("--workload latency --pairs 1").unwrap_err();
        assert!(error.to_string().contains("--pairs would do nothing"), "{error}");
        let most_pairs = |words| checked(words).unwrap().measuring.most_pairs;
        assert_eq!(most_pairs("--workload density"), 96);
        assert_eq!(most_pairs("--workload density --guest qemu"), 4);
        assert_eq!(most_pairs("--workload density --guest qemu --most-pairs 96"), 96);
    }

    #[test]
    fn no_datapath_is_measured_twice_in_a_round() {
        let settings = checked("--datapath linux-bridge,macvtap,linux-bridge").unwrap();
        assert_eq!(settings.setup.datapath.len(), 2);
    }
}
