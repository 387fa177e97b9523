//! `tapbridge-lab run`: rounds of samples, and what came of them.

use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::{
    commands::{sample, settings::Settings},
    cost,
    host::{folder::Folder, interrupt, steady::Steady},
    report::{self, budget, compare::PEER},
    results::{Results, SCHEMA, Sample},
    testbed::{
        guest::{Duty, GuestBackend},
        setup::Choice,
        stale,
    },
    workload::kind::WorkloadKind,
};

/// Measures every datapath in every round, in turn.
pub fn run(settings: &Settings) -> Result<()> {
    interrupt::catch()?;
    let setup = &settings.setup;
    let machine = setup.inspect()?;
    // Now, rather than after an hour of measuring.
    if settings.check {
        let measuring = &settings.measuring;
        let workloads = measuring.workload.iter().flat_map(|kind| kind.parts(measuring));
        let datapaths = Choice::all(setup).into_iter().map(Choice::name);
        let datapaths: Vec<_> = datapaths.collect();
        budget::foresee(&workloads.collect::<Vec<_>>(), &datapaths, measuring.repeat)?;
        cost::try_sampling().context("--check goes by what the kernel's time is spent on")?;
    }
    let folder = settings.output.as_deref().map(Folder::make).transpose()?;
    stale::clean();
    let mut steady = settings.steady.then(Steady::start).transpose()?;
    let placement = steady.as_ref().map(Steady::placement).unwrap_or_default();
    let duties = settings
        .measuring
        .workload
        .iter()
        .flat_map(|kind| kind.duties(&settings.measuring));
    let stations = duties.into_iter().any(|duty| duty == Duty::Station);
    let backend = setup.backend(placement, stations)?;
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut samples = Vec::new();
    let measured = measure(settings, &*backend, steady.as_mut(), &mut samples);
    drop(steady);
    if samples.is_empty() {
        return measured;
    }
    if measured.is_err() {
        eprintln!("it ended early; what follows is of {} samples", samples.len());
    }
    let results = Results {
        schema: SCHEMA,
        started,
        revision: settings.revision.clone(),
        machine,
        guests: backend.facts().clone(),
        conditions: settings.conditions(),
        samples,
    };
    let json = serde_json::to_string_pretty(&results)?;
    if let Some(folder) = &folder {
        let path = folder.write("results.json", &json)?;
        eprintln!("wrote {}", path.display());
    }
    if settings.json {
        println!("{json}");
    } else {
        println!("{}", report::text(&results));
    }
    let checked = if settings.check && measured.is_ok() {
        budget::check(&results)
    } else {
        Ok(())
    };
    if let Some(folder) = &folder {
        report::write(&[results], folder)?;
    }
    measured.and(checked)
}

/// Takes round after round; what was taken before an error is there all the same.
fn measure(
    settings: &Settings,
    backend: &dyn GuestBackend,
    mut steady: Option<&mut Steady>,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    for round in 1..=settings.measuring.repeat {
        let mut order = Choice::all(&settings.setup);
        let limit_us = match reference(settings, &order) {
            Some(choice) => Some(
                sample::limit_us(settings, backend, choice)
                    .with_context(|| format!("density's one pair over {}, round {round}", choice.name()))?,
            ),
            None => None,
        };
        // What drifts while a round goes on then favours neither the first nor the last.
        if round % 2 == 0 {
            order.reverse();
        }
        for choice in order {
            let (sample, taken) = sample::take(settings, backend, choice, round, limit_us);
            if let Some(steady) = &mut steady {
                steady.check()?;
            }
            if taken.is_ok() || !sample.runs.is_empty() {
                samples.push(sample);
            }
            taken.with_context(|| format!("{}, round {round}", choice.name()))?;
        }
    }
    Ok(())
}

/// By which datapath one pair alone is measured at a round's beginning, where density is: what it may come to is the same
/// for all.
fn reference(settings: &Settings, choices: &[Choice]) -> Option<Choice> {
    if !settings.measuring.workload.contains(&WorkloadKind::Density) {
        return None;
    }
    let peer = choices.iter().find(|choice| choice.name() == PEER);
    peer.or(choices.first()).copied()
}
