//! `tapbridge-lab report`: results of earlier runs, for people.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{host::folder::Folder, report, results::Results};

/// Print the report of a run, or compare several runs, of this or other machines
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// What runs have written: results.json
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folder for report.md and the plots; must not exist yet [default: print the report]
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl ReportArguments {
    pub fn run(&self) -> Result<()> {
        let results = self.files.iter().map(|file| Results::read(file));
        let results: Vec<_> = results.collect::<Result<_>>()?;
        let Some(output) = &self.output else {
            print!("{}", report::page(&results));
            return Ok(());
        };
        report::write(&results, &Folder::make(output)?)
    }
}
