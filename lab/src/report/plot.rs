//! Plots: what is in each, from the results.

pub mod bars;
mod calls;
pub mod canvas;
mod curves;
mod profile;
pub mod series;
mod words;

use anyhow::Result;

pub use self::words::{Plot, thousands};
use self::{
    bars::{Bar, Bars, Group},
    canvas::{Colour, Heading},
    curves::{Curve, Curves},
    words::{LABEL, datapaths, label, notes},
};
use super::{
    compare::{self, Spread},
    label::Labelled,
    metrics,
};
use crate::{
    results::{Results, Run},
    workload::kind::{Workload, WorkloadKind},
};

/// The name of the plot of all packets.
const PACKETS: &str = "packets";
/// What latencies are of.
const HALF: &str = "half a round trip";
const WHOLE: &str = "a round trip";

/// All that there is to draw.
pub fn plots(files: &[Labelled]) -> Result<Vec<Plot>> {
    canvas::load_fonts()?;
    let mut plots = Vec::new();
    let workloads = compare::workloads_of(files.iter().map(|file| file.results));
    for &workload in &workloads {
        plots.push(match workload {
            Workload::Throughput => {
                rates(files, workload, "Throughput", "Gbit/s of payload: more is better")?
            }
            Workload::Connections => rates(
                files,
                workload,
                "Connections",
                "connections per second: more is better",
            )?,
            Workload::Latency => latencies(files, workload, "Latency", HALF)?,
            Workload::LoadedLatency => {
                latencies(files, workload, "Latency under load, beside a TCP stream", HALF)?
            }
            Workload::ForwardingLatency => {
                latencies(files, workload, "Round trips by a guest that routes", WHOLE)?
            }
            Workload::Mixed => latencies(
                files,
                workload,
                "Round trips beside bulk and broadcasts of others",
                WHOLE,
            )?,
            Workload::Density => rates(
                files,
                workload,
                "Density",
                "pairs that get their answers in time: more is better",
            )?,
            Workload::Forwarding => rates(
                files,
                workload,
                "Forwarding, by a guest that routes",
                "frames per second: more is better",
            )?,
            // One for all lengths and numbers of pairs, in the first one's place.
            Workload::Packets(_) if plots.iter().any(|plot: &Plot| plot.name == PACKETS) => continue,
            Workload::Packets(_) => packets(files)?,
        });
    }
    plots.extend(calls::plot(files)?);
    for workload in workloads {
        plots.extend(profile::plot(files, workload)?);
    }
    Ok(plots)
}

/// Turns a drawing into a picture of points, which shows the same on every machine.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    canvas::png(svg)
}

/// A bar for each datapath: the median, with a line from minimum to maximum.
fn rates(files: &[Labelled], workload: Workload, title: &str, unit: &str) -> Result<Plot> {
    let metric = metrics::main_metric(workload);
    let several = files.len() > 1;
    let bar = |datapath: &str, index: usize| {
        let colour = if several {
            canvas::colour(index)
        } else {
            canvas::colour_of(datapath)
        };
        rate(files[index].results, workload, datapath, String::new(), colour)
    };
    let groups = datapaths(files, workload).map(|datapath| Group {
        label: datapath.into(),
        bars: (0..files.len())
            .filter_map(|index| bar(datapath, index))
            .collect(),
    });
    let mut notes = notes(files, workload);
    let drawn = "Bars: the median over the rounds; lines: from the least to the greatest of the rounds.";
    notes.extend(over_rounds(files, workload, drawn));
    if files.iter().any(|file| compared(file.results, workload, &metric)) {
        notes.push(format!(
            "{} Behind it: the least and the greatest of these ratios.",
            paired(compare::PEER)
        ));
    }
    let legend = files.iter().enumerate().filter(|_| several);
    let bars = Bars {
        heading: Heading {
            title: title.into(),
            notes,
        },
        unit: unit.into(),
        groups: groups.collect(),
        legend: legend
            .map(|(index, file)| (canvas::fit(&file.label, LABEL), canvas::colour(index)))
            .collect(),
    };
    Ok(Plot {
        name: workload.file().into(),
        title: title.into(),
        svg: bars.draw()?,
    })
}

/// A bar with the ratio behind it, if there is one.
fn rate(results: &Results, workload: Workload, datapath: &str, label: String, colour: Colour) -> Option<Bar> {
    let metric = metrics::main_metric(workload);
    let spread = compare::spread(results, workload, datapath, &metric)?;
    let ratio = compare::ratio(results, workload, datapath, &metric).spread();
    let value = thousands(spread.median, metric.decimals);
    Some(Bar {
        label,
        text: match ratio.filter(|_| datapath != compare::PEER) {
            Some(Spread { median, min, max }) => {
                format!("{value} (×{median:.2}, {min:.2} to {max:.2})")
            }
            None => value,
        },
        parts: vec![(spread.median, colour)],
        whisker: Some((spread.min, spread.max)),
    })
}

/// Bars of all lengths of frames and numbers of pairs: of each a group, with a bar for each datapath.
fn packets(files: &[Labelled]) -> Result<Plot> {
    let all = compare::workloads_of(files.iter().map(|file| file.results)).into_iter();
    let all: Vec<_> = all
        .filter(|workload| workload.kind() == WorkloadKind::Packets)
        .collect();
    let mut groups = Vec::new();
    let mut heading = Vec::new();
    for &workload in &all {
        let mut bars = Vec::new();
        for datapath in datapaths(files, workload) {
            for file in files {
                let colour = canvas::colour_of(datapath);
                let label = label(datapath, files, file);
                bars.extend(rate(file.results, workload, datapath, label, colour));
            }
        }
        if let Workload::Packets(traffic) = workload {
            groups.push(Group {
                label: traffic.text(),
                bars,
            });
        }
        if heading.is_empty() {
            heading = notes(files, workload);
            let drawn =
                "Bars: the median over the rounds; lines: from the least to the greatest of the rounds.";
            heading.extend(over_rounds(files, workload, drawn));
        }
    }
    if all.iter().any(|&workload| {
        let metric = metrics::main_metric(workload);
        files.iter().any(|file| compared(file.results, workload, &metric))
    }) {
        heading.push(paired(compare::PEER));
    }
    let title = "Packets of guests that generate them";
    let bars = Bars {
        heading: Heading {
            title: title.into(),
            notes: heading,
        },
        unit: "frames per second that arrived, all pairs together: more is better".into(),
        groups,
        legend: Vec::new(),
    };
    Ok(Plot {
        name: PACKETS.into(),
        title: title.into(),
        svg: bars.draw()?,
    })
}

/// A curve for each datapath: the medians of the percentiles.
fn latencies(files: &[Labelled], workload: Workload, title: &str, of: &str) -> Result<Plot> {
    let mut curves = Vec::new();
    for (number, datapath) in datapaths(files, workload).enumerate() {
        for (index, file) in files.iter().enumerate() {
            let points = percentiles(file.results, workload, datapath);
            if !points.is_empty() {
                curves.push(Curve {
                    label: label(datapath, files, file),
                    colour: canvas::colour_of(datapath),
                    mark: number,
                    dash: index,
                    points,
                });
            }
        }
    }
    let mut notes = notes(files, workload);
    let drawn = "Lines: the median over the rounds; shaded: from the least to the greatest of the rounds.";
    notes.extend(over_rounds(files, workload, drawn));
    let curves = Curves {
        heading: Heading {
            title: title.into(),
            notes,
        },
        unit: format!("{of}, µs (logarithmic): less is better"),
        all: curves,
    };
    Ok(Plot {
        name: workload.file().into(),
        title: title.into(),
        svg: curves.draw()?,
    })
}

/// Those percentiles that at least one message of every round is beyond: the others are the maximum.
fn percentiles(results: &Results, workload: Workload, datapath: &str) -> Vec<(f64, Spread)> {
    let runs: Vec<&Run> = compare::runs(results, workload, datapath)
        .map(|(_, run)| run)
        .collect();
    let observations = runs.iter().filter_map(|run| metrics::observations(run)).min();
    let Some(observations) = observations.map(metrics::number) else {
        return Vec::new();
    };
    let beyond = |percentile: f64| observations * (1.0 - percentile / 100.0);
    let told = metrics::percentiles(runs[0])
        .iter()
        .map(|&(percentile, _)| percentile);
    told.filter(|&percentile| percentile >= 50.0 && beyond(percentile) > 0.999)
        .filter_map(|percentile| {
            let times = runs.iter().filter_map(|run| metrics::percentile(run, percentile));
            Some((percentile, Spread::of(times)?)).filter(|(_, time)| time.min > 0.0)
        })
        .collect()
}

/// What has become of the rounds, if there were several, and whether they are enough.
fn over_rounds(files: &[Labelled], workload: Workload, drawn: &str) -> Vec<String> {
    let rounds = files.iter().map(|file| compare::rounds(file.results, workload));
    let least = rounds.clone().filter(|&rounds| rounds > 0).min().unwrap_or(0);
    let mut notes = Vec::new();
    if rounds.max() > Some(1) {
        notes.push(drawn.into());
    }
    if least < compare::ENOUGH_ROUNDS {
        notes.push(format!(
            "Fewer than {} rounds are too few for a ratio.",
            compare::ENOUGH_ROUNDS
        ));
    }
    notes
}

/// What the ratio beside a bar is.
pub fn paired(peer: &str) -> String {
    format!(
        "(×…) is not the ratio of the bars, but the median over the rounds of the ratio to {peer} within the same round."
    )
}

/// Whether a datapath has a ratio to the [peer](compare::PEER).
fn compared(results: &Results, workload: Workload, metric: &metrics::Metric) -> bool {
    let others = results
        .datapaths()
        .into_iter()
        .filter(|&name| name != compare::PEER);
    others
        .map(|name| compare::ratio(results, workload, name, metric))
        .any(|ratio| ratio.spread().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{fixture, label};

    fn drawn(results: &[Results]) -> Vec<Plot> {
        plots(&label::label(results)).unwrap()
    }

    fn results() -> Results {
        fixture::results(vec![
            fixture::sample("tapbridge", 1, 12.0, 40.0),
            fixture::sample("linux-bridge", 1, 10.0, 50.0),
        ])
    }

    #[test]
    fn every_workload_and_the_calls_have_a_plot_that_names_the_datapaths() {
        let plots = drawn(&[results()]);
        let names: Vec<_> = plots.iter().map(|plot| &*plot.name).collect();
        assert_eq!(names, ["throughput", "latency", "syscalls"]);
        for Plot { name, svg, .. } in plots {
            for text in ["tapbridge", "linux-bridge", "QEMU 10.0.2 with KVM"] {
                assert!(svg.contains(text), "{name}: {text}");
            }
        }
    }

    #[test]
    fn a_plot_says_under_which_conditions_which_way_is_better_and_what_its_figures_are() {
        let shown = |results: &Results, number: usize| {
            let svg = &drawn(std::slice::from_ref(results))[number].svg;
            // A note may take several lines, each of which is an element.
            let texts = svg
                .split('>')
                .filter_map(|part| Some(part.split_once("</text")?.0.trim()));
            texts.collect::<Vec<_>>().join(" ")
        };
        let mut three = results();
        for round in [2, 3] {
            three.samples.push(fixture::sample("tapbridge", round, 6.0, 80.0));
            three
                .samples
                .push(fixture::sample("linux-bridge", round, 4.0, 90.0));
        }
        let throughput = shown(&three, 0);
        for text in [
            "3 rounds of 10 s: TCP, 2 streams, MTU 1500, offloads on",
            "more is better",
            "Bars: the median over the rounds; lines:",
            "6.00 (×1.50, 1.20 to 1.50)",
            "is not the ratio of the bars, but the median over the rounds of the ratio to linux-bridge",
        ] {
            assert!(throughput.contains(text), "{text}: {throughput}");
        }
        let latency = shown(&three, 1);
        for text in [
            "3 rounds of 10 s: messages of 64 bytes, MTU 1500, offloads on",
            "µs (logarithmic): less is better",
            "percentile (logarithmic",
            "shaded: from the least to the greatest",
        ] {
            assert!(latency.contains(text), "{text}: {latency}");
        }
        assert!(shown(&three, 2).contains("calls per GB: fewer are better"));
        let one = shown(&results(), 0);
        assert!(
            one.contains("1 round of 10 s") && one.contains("too few for a ratio"),
            "{one}"
        );
        assert!(!one.contains('×') && !one.contains("median"), "{one}");
    }

    #[test]
    fn a_picture_has_text_though_the_machine_has_no_fonts() {
        let svg = &drawn(&[results()])[0].svg;
        let without = svg.replace("tapbridge", "");
        assert_ne!(without, *svg);
        assert_ne!(png(svg).unwrap(), png(&without).unwrap());
    }

    #[test]
    fn a_percentile_that_no_message_is_beyond_is_not_drawn() {
        let mut results = results();
        let at = |results: &Results| percentiles(results, Workload::Latency, "tapbridge");
        let medians = |results: &Results| -> Vec<(f64, f64)> {
            let at = at(results).into_iter();
            at.map(|(percentile, time)| (percentile, time.median)).collect()
        };
        assert_eq!(medians(&results), [(50.0, 40.0), (99.0, 80.0)], "of 900 messages");
        let Run { outcome, .. } = &mut results.samples[0].runs[1];
        if let crate::workload::Outcome::Latency(latency) = outcome {
            latency.observations = 1000;
        }
        assert_eq!(medians(&results).last(), Some(&(99.9, 120.0)));
    }

    #[test]
    fn figures_of_nothing_can_be_drawn() {
        let mut nothing = results();
        for run in nothing.samples.iter_mut().flat_map(|sample| &mut sample.runs) {
            (run.client.syscalls, run.server.syscalls) = (None, None);
        }
        nothing.samples[0].runs[0] = fixture::throughput(0.0, &[]);
        nothing.samples[1].runs.remove(0);
        assert_eq!(drawn(&[nothing.clone(), nothing]).len(), 2);
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(thousands(1_234_567.0, 0), "1\u{202f}234\u{202f}567");
        assert_eq!(thousands(999.96, 1), "1\u{202f}000.0");
        assert_eq!(thousands(12.34, 1), "12.3");
    }
}
