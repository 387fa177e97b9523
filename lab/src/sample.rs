//! One sample: a fresh lab, one datapath, one workload after the other, and everything gone again.

use anyhow::Result;

use crate::{
    account::Account,
    datapath::Choice,
    guest::Maker,
    pair::{self, Pair, Progress},
    results::{Run, Sample},
    settings::Settings,
    workload::Workload,
};

/// Measures once. The lab is new for every sample, so that no datapath finds what another one changed.
pub fn take(settings: &Settings, maker: &dyn Maker, choice: Choice, round: u32) -> Result<Sample> {
    let progress = Progress::new(format!("{} {round}", choice.name()));
    let host = pair::host()?;
    let pair = Pair::connect(&host, maker, &settings.setup, choice, &progress)?;
    let workloads = settings.measuring.workload.iter();
    let runs = workloads.map(|&workload| measure(settings, &pair, workload, &progress));
    let runs = runs
        .collect::<Result<Vec<_>>>()
        .inspect_err(|error| pair.explain(error))?;

    progress.step("cleaning up");
    let (boot, datapath_facts) = (pair.boot, pair.attachment.facts());
    Ok(Sample {
        datapath: choice.name(),
        datapath_facts,
        round,
        boots: boot.times,
        boot_s: boot.seconds,
        runs,
        pumps: pair.end()?,
    })
}

fn measure(settings: &Settings, pair: &Pair, workload: Workload, progress: &Progress) -> Result<Run> {
    let (setup, measuring) = (&settings.setup, &settings.measuring);
    progress.step(&format!("{}, {} s", workload.text(), measuring.time_s));
    let counter = setup.tapbridge.as_deref().filter(|_| !measuring.no_syscalls);
    let account = Account::open(pair, counter)?;
    let outcome = workload.measure(&*pair.first, &*pair.second, measuring)?;
    account.close(outcome)
}
