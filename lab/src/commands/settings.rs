//! What `tapbridge-lab run` sets up and measures, from the command line.

use std::path::PathBuf;

use clap::Args;

use crate::{
    results::Conditions,
    testbed::setup::{Setup, Switched},
    workload::measuring::Measuring,
};

/// Measure between guests, over each of the datapaths in turn
///
/// Where CPUs may sleep and nothing is pinned to one, identical runs differ by a fifth or more: compare datapaths by
/// their ratio within a round, over several rounds, or see --steady. With every measurement the host's CPU time, the
/// system calls of the guests' VMMs and tapbridge's own counters are taken.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    #[command(flatten)]
    pub setup: Setup,
    #[command(flatten)]
    pub measuring: Measuring,
    /// Keep the CPUs awake, and each guest with its VMM on a CPU of its own; the host's CPU time is not told then
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
    pub fn conditions(&self) -> Conditions {
        Conditions {
            mtu: self.setup.mtu,
            offloads: self.setup.offloads == Switched::On,
            steady: self.steady,
            measuring: self.measuring.clone(),
        }
    }
}
