//! `tapbridge-lab run`: rounds of samples, and what came of them.

use anyhow::{Context, Result};

use crate::{interrupt, machine, report::Report, sample, settings::Settings, sweep};

/// Measures every datapath in every round, in turn.
pub fn run(settings: &Settings) -> Result<()> {
    interrupt::catch()?;
    let machine = machine::inspect(settings)?;
    sweep::sweep(settings.tapbridge.as_deref());
    let mut samples = Vec::new();
    for round in 1..=settings.repeat {
        let mut order = settings.datapath.clone();
        // What drifts while a round goes on then favours neither the first nor the last.
        if round % 2 == 0 {
            order.reverse();
        }
        for kind in order {
            let sample = sample::take(settings, kind, round);
            samples.push(sample.with_context(|| format!("{}, round {round}", kind.name()))?);
        }
    }
    let report = Report::new(&machine, settings, &samples);
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    Ok(())
}
