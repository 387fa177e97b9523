//! `tapbridge-lab run`: rounds of samples, and what came of them.

use std::{fs, path::Path, time::SystemTime};

use anyhow::{Context, Result};

use crate::{
    datapath::Choice,
    guest, interrupt, machine, report,
    results::{Results, SCHEMA},
    sample,
    settings::Settings,
    sweep,
};

/// Measures every datapath in every round, in turn.
pub fn run(settings: &Settings) -> Result<()> {
    interrupt::catch()?;
    let setup = &settings.setup;
    let machine = machine::inspect(setup)?;
    // Now, rather than after an hour of measuring.
    settings.output.as_deref().map(make_folder).transpose()?;
    sweep::sweep(setup.tapbridge.as_deref());
    let maker = guest::maker(setup)?;
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut samples = Vec::new();
    for round in 1..=settings.measuring.repeat {
        let mut order = Choice::all(setup);
        // What drifts while a round goes on then favours neither the first nor the last.
        if round % 2 == 0 {
            order.reverse();
        }
        for choice in order {
            let sample = sample::take(settings, &*maker, choice, round);
            samples.push(sample.with_context(|| format!("{}, round {round}", choice.name()))?);
        }
    }
    let results = Results {
        schema: SCHEMA,
        started,
        revision: settings.revision.clone(),
        machine,
        guests: maker.facts().clone(),
        conditions: settings.conditions(),
        samples,
    };
    if let Some(folder) = &settings.output {
        write(&results, folder)?;
    }
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    } else {
        print!("{}", report::text(&results));
    }
    Ok(())
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.parent().unwrap_or(folder))
        .and_then(|()| fs::create_dir(folder))
        .with_context(|| format!("making {} for the results", folder.display()))
}

fn write(results: &Results, folder: &Path) -> Result<()> {
    let path = folder.join("results.json");
    fs::write(&path, serde_json::to_string_pretty(results)?)
        .with_context(|| format!("writing {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
