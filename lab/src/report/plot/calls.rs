//! The plot of the VMMs' system calls.

use anyhow::Result;

use super::{
    bars::{Bar, Bars, Group},
    canvas::{self, Colour, Heading},
    words::{Plot, datapaths, label, notes, thousands},
};
use crate::{
    report::{compare, counts, label::Labelled, metrics},
    workload::kind::Workload,
};

/// Calls that have a colour of their own; the rarer ones are drawn as one.
const CALLS: usize = 6;

/// A bar for each VMM, of the calls that it made; `None` where nobody counted.
pub fn plot(files: &[Labelled]) -> Result<Option<Plot>> {
    let workloads = compare::workloads_of(files.iter().map(|file| file.results));
    let throughput = workloads
        .iter()
        .find(|&&workload| workload == Workload::Throughput);
    let Some(&workload) = throughput.or(workloads.first()) else {
        return Ok(None);
    };
    let mut groups = Vec::new();
    for datapath in datapaths(files, workload) {
        let mut bars = Vec::new();
        for file in files {
            for (role, calls) in counts::calls(file.results, workload, datapath) {
                bars.push((label(role, files, file), calls));
            }
        }
        groups.push((datapath, bars));
    }
    let all = groups
        .iter()
        .flat_map(|(_, bars)| bars)
        .flat_map(|(_, calls)| calls);
    let names = counts::most(all.map(|(name, count)| (&**name, *count)), CALLS);
    if names.is_empty() {
        return Ok(None);
    }
    let bar = |label: String, calls: Vec<(String, f64)>| {
        let of = |name: &str| {
            calls
                .iter()
                .find(|(other, _)| other == name)
                .map_or(0.0, |&(_, count)| count)
        };
        let mut parts: Vec<_> = (0..)
            .zip(&names)
            .map(|(index, name)| (of(name), canvas::colour(index)))
            .collect();
        let total: f64 = calls.iter().map(|(_, count)| count).sum();
        let others = calls.iter().filter(|(name, _)| !names.contains(name));
        parts.push((others.map(|(_, count)| count).sum(), Colour::OTHERS));
        let decimals = usize::from(total < 100.0);
        Bar {
            label,
            text: thousands(total, decimals),
            parts,
            whisker: None,
        }
    };
    let groups = groups.into_iter().map(|(datapath, bars)| Group {
        label: datapath.into(),
        bars: bars.into_iter().map(|(label, calls)| bar(label, calls)).collect(),
    });
    let groups: Vec<_> = groups.filter(|group| !group.bars.is_empty()).collect();
    let mut legend: Vec<_> = (0..)
        .zip(&names)
        .map(|(index, name)| (name.clone(), canvas::colour(index)))
        .collect();
    let others = |bar: &Bar| bar.parts.last().is_some_and(|&(count, _)| count > 0.0);
    if groups.iter().flat_map(|group| &group.bars).any(others) {
        legend.push(("others".into(), Colour::OTHERS));
    }
    let title = format!("System calls of the guests' VMMs, {}", workload.text());
    let mut notes = notes(files, workload);
    notes.push("Bars: the round of each VMM in which it made the median number of calls.".into());
    let bars = Bars {
        heading: Heading {
            title: title.clone(),
            notes,
        },
        unit: format!("calls per {}: fewer are better", metrics::unit(workload)),
        groups,
        legend,
    };
    Ok(Some(Plot {
        name: "syscalls".into(),
        title,
        svg: bars.draw()?,
    }))
}
