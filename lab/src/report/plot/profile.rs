//! The plot of where the kernel's time went.

use anyhow::Result;

use super::{
    bars::{Bar, Bars, Group},
    canvas::{self, Colour, Heading},
    over_rounds,
    words::{LABEL, Plot, datapaths, notes, thousands},
};
use crate::{
    report::{
        compare::{self, PEER, Spread},
        label::Labelled,
        metrics::{self, PATH},
    },
    results::{Part, Results},
    workload::kind::Workload,
};

/// Those that are drawn: what other processes do says nothing of a frame.
const PARTS: [Part; 7] = [
    Part::Path,
    Part::Write,
    Part::Read,
    Part::WakeUp,
    Part::SystemCalls,
    Part::Guest,
    Part::Other,
];

/// A bar for each datapath, of what a frame cost; `None` where nobody sampled.
pub fn plot(files: &[Labelled], workload: Workload) -> Result<Option<Plot>> {
    let groups = datapaths(files, workload).map(|datapath| Group {
        label: datapath.into(),
        bars: files
            .iter()
            .filter_map(|file| bar(file, datapath, workload, files.len() > 1))
            .collect(),
    });
    let groups: Vec<_> = groups.filter(|group| !group.bars.is_empty()).collect();
    if groups.is_empty() {
        return Ok(None);
    }
    let title = format!("Host CPU in the kernel, {}", workload.text());
    let mut notes = notes(files, workload);
    let drawn = "Bars: of each part the median over the rounds. A datapath can save of the path, and XDP of both sides' buffers.";
    notes.extend(over_rounds(files, workload, drawn));
    let ratios = |file: &Labelled| {
        let others = file.results.datapaths().into_iter().filter(|&name| name != PEER);
        others
            .map(|name| compare::ratio(file.results, workload, name, &PATH))
            .any(|ratio| ratio.spread().is_some())
    };
    if files.iter().any(ratios) {
        notes.push(format!(
            "(×…) is of the path alone: the median over the rounds of its ratio to {PEER} within the same round."
        ));
    }
    let drawn = |part: &Part| {
        let bars = groups.iter().flat_map(|group| &group.bars);
        bars.flat_map(|bar| &bar.parts)
            .any(|&(length, own)| own == colour(*part) && length > 0.0)
    };
    let legend = PARTS.into_iter().filter(drawn);
    let bars = Bars {
        heading: Heading {
            title: title.clone(),
            notes,
        },
        unit: "µs of CPU time per frame: less is better".into(),
        legend: legend.map(|part| (part.text().into(), colour(part))).collect(),
        groups,
    };
    Ok(Some(Plot {
        name: format!("cpu-{}", workload.name()),
        title,
        svg: bars.draw()?,
    }))
}

fn bar(file: &Labelled, datapath: &str, workload: Workload, labelled: bool) -> Option<Bar> {
    let parts = PARTS.map(|part| Some((median(file.results, datapath, workload, part)?, colour(part))));
    let parts: Vec<_> = parts.into_iter().collect::<Option<_>>()?;
    let (path, total) = (parts[0].0, parts.iter().map(|(length, _)| length).sum());
    let ratio = compare::ratio(file.results, workload, datapath, &PATH);
    let ratio = match ratio.spread().filter(|_| datapath != PEER) {
        Some(Spread { median, min, max }) => format!(" (×{median:.2}, {min:.2} to {max:.2})"),
        None => String::new(),
    };
    let label = if labelled { &*file.label } else { "" };
    Some(Bar {
        label: canvas::fit(label, LABEL),
        text: format!("{}, path {}{ratio}", thousands(total, 1), thousands(path, 2)),
        parts,
        whisker: None,
    })
}

/// In microseconds for each frame.
fn median(results: &Results, datapath: &str, workload: Workload, part: Part) -> Option<f64> {
    let runs = compare::runs(results, workload, datapath);
    let costs = runs.filter_map(|(_, run)| metrics::us_per_frame(run, part));
    Some(Spread::of(costs)?.median)
}

fn colour(part: Part) -> Colour {
    match part {
        Part::Path => canvas::colour(5),
        Part::Write => canvas::colour(0),
        Part::Read => canvas::colour(4),
        Part::WakeUp => canvas::colour(1),
        Part::SystemCalls => canvas::colour(3),
        Part::Guest => canvas::colour(2),
        Part::Other | Part::Elsewhere => Colour::OTHERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{fixture, label, plot};

    #[test]
    fn a_bar_has_the_parts_of_a_frame_and_the_ratio_of_its_path() {
        canvas::load_fonts().unwrap();
        let samples = (1..=3).flat_map(|round| {
            [("linux-bridge", 4.0), ("tapbridge", 2.0)].map(|(datapath, path_s)| {
                let mut sample = fixture::sample(datapath, round, 1.0, 1.0);
                sample.runs[1].profile = Some(fixture::profile(path_s));
                sample
            })
        });
        let results = [fixture::results(samples.collect())];
        let files = label::label(&results);
        assert!(plot(&files, Workload::Throughput).unwrap().is_none());
        let plot = plot(&files, Workload::Latency).unwrap().unwrap();
        assert_eq!(plot.name, "cpu-latency");
        for text in [
            "12.0, path 2.00",
            "6.0, path 1.00 (×0.50, 0.50 to 0.50)",
            "write side",
            "µs of CPU time per frame: less is better",
        ] {
            assert!(plot.svg.contains(text), "{text}: {}", plot.svg);
        }
        assert!(
            !plot.svg.contains("wake-up"),
            "what was not seen has no colour to tell"
        );
        let names: Vec<_> = plot::plots(&files)
            .unwrap()
            .into_iter()
            .map(|plot| plot.name)
            .collect();
        assert_eq!(names, ["throughput", "latency", "syscalls", "cpu-latency"]);
    }
}
