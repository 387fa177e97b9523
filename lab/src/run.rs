//! `tapbridge-lab run`: rounds of samples, and what came of them.

use anyhow::{Context, Result};

use crate::{guest, interrupt, machine, report::Report, sample, settings::Settings, sweep};

/// Measures every datapath in every round, in turn.
pub fn run(settings: &Settings) -> Result<()> {
    interrupt::catch()?;
    let setup = &settings.setup;
    let machine = machine::inspect(setup)?;
    sweep::sweep(setup.tapbridge.as_deref());
    let maker = guest::maker(setup)?;
    let mut samples = Vec::new();
    for round in 1..=settings.repeat {
        let mut order = setup.datapath.clone();
        // What drifts while a round goes on then favours neither the first nor the last.
        if round % 2 == 0 {
            order.reverse();
        }
        for kind in order {
            let sample = sample::take(settings, &*maker, kind, round);
            samples.push(sample.with_context(|| format!("{}, round {round}", kind.name()))?);
        }
    }
    let report = Report::new(&machine, maker.facts(), settings, &samples);
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    Ok(())
}
