//! One sample: a fresh lab, one datapath, one workload after the other, and everything gone again.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::{
    commands::settings::Settings,
    cost::{CostProbe, Sampling},
    results::{HookChange, Run, Sample},
    testbed::{
        self, Progress, Testbed,
        datapath::Change,
        guest::{Duty, GuestBackend},
        setup::Choice,
    },
    workload::{
        Outcome, density,
        kind::{Workload, WorkloadKind},
    },
};

/// Measures once. The lab is new for every sample, so that no datapath finds what another one changed, and for workloads
/// that take other guests than the one before.
///
/// The limit is that of density. With an error comes what was measured before it.
pub fn take(
    settings: &Settings,
    backend: &dyn GuestBackend,
    choice: Choice,
    round: u32,
    limit_us: Option<f64>,
) -> (Sample, Result<()>) {
    let mut sample = Sample {
        datapath: choice.name(),
        datapath_facts: None,
        round,
        boots: 0,
        boot_s: Vec::new(),
        runs: Vec::new(),
        pumps: None,
    };
    for workloads in settings
        .measuring
        .workload
        .chunk_by(|one, other| one.duties(&settings.measuring) == other.duties(&settings.measuring))
    {
        let taken = take_in(&mut sample, settings, backend, choice, limit_us, workloads);
        if taken.is_err() {
            return (sample, taken);
        }
    }
    (sample, Ok(()))
}

/// What density's 99th percentile may be in a round, by one pair over a datapath.
pub fn limit_us(settings: &Settings, backend: &dyn GuestBackend, choice: Choice) -> Result<f64> {
    let progress = Progress::new(format!("{}, one pair", choice.name()));
    let host = testbed::host()?;
    let duties = [Duty::Station; 2];
    let testbed = Testbed::connect(&host, backend, &settings.setup, choice, &duties, &progress)?;
    let limit_us = density::limit_us(&testbed.guests, &settings.measuring)?;
    testbed.end()?;
    Ok(limit_us)
}

/// Measures workloads that take the same guests, and adds what came of it.
fn take_in(
    sample: &mut Sample,
    settings: &Settings,
    backend: &dyn GuestBackend,
    choice: Choice,
    limit_us: Option<f64>,
    workloads: &[WorkloadKind],
) -> Result<()> {
    let progress = Progress::new(format!("{} {}", choice.name(), sample.round));
    let measuring = &settings.measuring;
    let duties = workloads
        .first()
        .map(|kind| kind.duties(measuring))
        .unwrap_or_default();
    let host = testbed::host()?;
    let testbed = Testbed::connect(&host, backend, &settings.setup, choice, &duties, &progress);
    let mut testbed = testbed.with_context(|| match workloads {
        [WorkloadKind::Density, ..] => format!(
            "density takes {} guests at once: fewer with a lower --most-pairs",
            duties.len()
        ),
        _ => format!("connecting {} guests", duties.len()),
    })?;
    sample.boots = sample.boots.max(testbed.boot.times);
    sample.boot_s.append(&mut testbed.boot.seconds);
    sample.datapath_facts = testbed.attachment.facts();
    let parts = workloads.iter().flat_map(|kind| kind.parts(measuring));
    let runs = parts.enumerate().map(|(number, workload)| {
        if number > 0 {
            testbed.renew()?;
        }
        measure(settings, &testbed, workload, limit_us, &progress)
    });
    let (mut taken, mut failed) = (Vec::new(), Ok(()));
    for run in runs {
        match run {
            Ok(run) => taken.push(run),
            Err(error) => {
                testbed.explain(&error);
                failed = Err(error);
                break;
            }
        }
    }
    if !taken.is_empty() {
        sample
            .runs
            .extend(with_changes(taken, testbed.attachment.changes()?));
    }
    failed?;

    progress.step("cleaning up");
    let pumps = testbed.end()?;
    if !pumps.is_empty() {
        sample.pumps.get_or_insert_default().extend(pumps);
    }
    Ok(())
}

/// Returns when it started, too.
fn measure(
    settings: &Settings,
    testbed: &Testbed,
    workload: Workload,
    limit_us: Option<f64>,
    progress: &Progress,
) -> Result<(Instant, Run)> {
    let (setup, measuring) = (&settings.setup, &settings.measuring);
    progress.step(&format!("{}, {} s", workload.text(), measuring.time_s));
    workload.prepare(&testbed.guests)?;
    let counts = workload.has_calls() && !measuring.no_syscalls;
    let counter = setup.tapbridge.as_deref().filter(|_| counts);
    let sampling = if measuring.no_profile {
        Sampling::Off
    } else {
        Sampling::On
    };
    let probe = CostProbe::open(testbed, counter, sampling)?;
    let start = Instant::now();
    let outcome = workload.measure(&testbed.guests, measuring, limit_us)?;
    let mut run = probe.close(outcome)?;
    if settings.steady {
        // What the guests left of it has been used to keep the CPUs awake.
        run.host = None;
        if let Outcome::Density(density) = &mut run.outcome {
            for step in &mut density.steps {
                step.host_busy_s = None;
            }
        }
    }
    Ok((start, run))
}

/// Gives every change to the measurement that was the last to start before it.
fn with_changes(mut runs: Vec<(Instant, Run)>, changes: Vec<Change>) -> Vec<Run> {
    for change in changes {
        let run = runs.iter_mut().rfind(|(start, _)| *start <= change.at);
        // What is sent before the first one is not bulk.
        if let Some((start, run)) = run {
            run.hook_changes.push(HookChange {
                ifname: change.ifname,
                hooks: change.hooks,
                seconds: (change.at - *start).as_secs_f64(),
            });
        }
    }
    runs.into_iter().map(|(_, run)| run).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_change_is_of_the_measurement_that_was_the_last_to_start() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let runs = vec![
            (at(10), fixture::throughput(1.0, &[])),
            (at(20), fixture::latency(1.0)),
        ];
        let change = |seconds, hook: &str| Change {
            at: at(seconds),
            ifname: "vm1".into(),
            hooks: vec![hook.into()],
        };
        let runs = with_changes(
            runs,
            vec![change(9, "lost"), change(11, "tcx"), change(23, "xdp")],
        );
        let told = |run: &Run| {
            let changes = run.hook_changes.iter();
            changes
                .map(|change| (change.hooks.join("+"), change.seconds))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&runs[0]), [("tcx".into(), 1.0)]);
        assert_eq!(told(&runs[1]), [("xdp".into(), 3.0)]);
    }
}
