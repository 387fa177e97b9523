//! The results for people: tables and plots.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result};

use super::{
    case::Case,
    results::{Measured, PEERS, Ratio, Results},
    site::Datapath,
};
use crate::{
    folder,
    report::{
        plot::{
            self,
            bars::{Bar, Bars, Group},
            canvas::{self, Heading},
            thousands,
        },
        table::{NOTHING, Table, cell},
    },
};

/// A row for every datapath and case.
pub fn table(results: &Results, cases: &[Case]) -> Table {
    let peers = PEERS.map(|peer| format!("× {peer}"));
    let mut table = Table::new(
        ["case", "datapath", "unit", "min", "median"]
            .map(String::from)
            .into_iter()
            .chain(peers)
            .chain(["lost".into()]),
    )
    .of_words(3);
    for case in cases {
        for measured in rows(results, case) {
            let ratio = |peer: &str| {
                let mut ratios = results.ratios.iter();
                ratios
                    .find(|ratio| {
                        (&*ratio.case, &*ratio.datapath, &*ratio.to)
                            == (&*measured.case, &*measured.datapath, peer)
                    })
                    .map_or(NOTHING.into(), |found| both(found.ratio))
            };
            let decimals = decimals(measured);
            let figures = [measured.min, measured.median].map(|value| cell(Some(value), decimals));
            let lost = if measured.lost == 0 {
                NOTHING.into()
            } else {
                format!("{} of {}", measured.lost, measured.frames)
            };
            let words = [case.text, &measured.datapath, &measured.unit].map(String::from);
            table.row(
                words
                    .into_iter()
                    .chain(figures)
                    .chain(PEERS.map(ratio))
                    .chain([lost]),
            );
        }
    }
    table.without_empty_columns()
}

/// What was measured of a case, in the order of the datapaths.
fn rows<'results>(results: &'results Results, case: &Case) -> impl Iterator<Item = &'results Measured> {
    let name = case.name;
    let datapaths = Datapath::ALL.into_iter();
    datapaths.filter_map(move |datapath| results.find(name, datapath.name()))
}

fn both(ratio: Ratio) -> String {
    format!("{:.3} {:.3}", ratio.min, ratio.median)
}

fn decimals(measured: &Measured) -> usize {
    usize::from(measured.unit == "µs")
}

const EXPLAINED: &str = "Frames are written to one tap and read from another with a VMM's system calls. All datapaths \
    are up at once and take turns, so that what drifts concerns all alike. A ratio has two numbers: of the two best \
    rounds, and the median of the ratios within each round. Less is better. `floor-xdp` and `floor-tcx` are one static \
    redirect at that hook and nothing else.";

/// The page, with plots that lie in the same folder.
fn page(results: &Results, cases: &[Case], plots: &[Drawn]) -> String {
    let mut facts = Table::new(["", ""]).of_words(2);
    facts.row(["started", &results.started]);
    facts.row(["revision", results.revision.as_deref().unwrap_or(NOTHING)]);
    facts.row(["machine", &results.machine.text()]);
    facts.row(["conditions", &conditions(results)]);
    let table = table(results, cases).markdown();
    let mut page = format!(
        "# The cost of a frame\n\n{}\n{EXPLAINED}\n\n{table}",
        facts.markdown()
    );
    for plot in plots {
        let _ = write!(page, "\n![{}]({}.svg)\n", plot.title, plot.name);
    }
    page
}

fn conditions(results: &Results) -> String {
    format!(
        "{} rounds, turns of {} ms, {:.0} s in all",
        results.rounds, results.turn_ms, results.seconds
    )
}

/// A plot, as it is drawn.
struct Drawn {
    name: String,
    title: String,
    svg: String,
}

/// One for every unit: bars of the datapaths' medians, case by case, beside the Linux bridge's.
fn draw(results: &Results, cases: &[Case]) -> Result<Vec<Drawn>> {
    canvas::load_fonts()?;
    let mut drawn = Vec::new();
    for (name, title, family) in super::case::FAMILIES {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.family == *family).collect();
        let groups = cases.iter().map(|case| group(results, case));
        let groups: Vec<Group> = groups.filter(|group| !group.bars.is_empty()).collect();
        let Some(first) = cases.iter().find_map(|case| rows(results, case).next()) else {
            continue;
        };
        let mut legend = Vec::new();
        for datapath in Datapath::ALL.map(Datapath::name) {
            if cases
                .iter()
                .any(|case| results.find(case.name, datapath).is_some())
            {
                legend.push((datapath.to_owned(), canvas::colour_of(datapath)));
            }
        }
        let bars = Bars {
            heading: Heading {
                title: (*title).into(),
                notes: vec![
                    results.machine.hardware(),
                    format!(
                        "Median and range of {} rounds; × is the ratio to linux-bridge within a round; less is better",
                        results.rounds
                    ),
                ],
            },
            unit: first.unit.clone(),
            groups,
            legend,
        };
        drawn.push(Drawn {
            name: (*name).into(),
            title: (*title).into(),
            svg: bars.draw()?,
        });
    }
    Ok(drawn)
}

fn group(results: &Results, case: &Case) -> Group {
    let bars = rows(results, case).map(|measured| {
        let value = thousands(measured.median, decimals(measured));
        let ratio = results
            .find(case.name, PEERS[0])
            .filter(|peer| peer.datapath != measured.datapath)
            .and_then(|peer| measured.ratio(peer));
        let max = measured.values.iter().copied().fold(0.0, f64::max);
        Bar {
            label: String::new(),
            text: ratio.map_or(value.clone(), |ratio| format!("{value} (×{:.2})", ratio.median)),
            parts: vec![(measured.median, canvas::colour_of(&measured.datapath))],
            whisker: Some((measured.min, max)),
        }
    });
    Group {
        label: case.name.into(),
        bars: bars.collect(),
    }
}

/// Writes page and plots into a folder.
pub fn write(results: &Results, cases: &[Case], folder: &Path) -> Result<()> {
    let plots = draw(results, cases).context("drawing the plots")?;
    for Drawn { name, svg, .. } in &plots {
        folder::write(folder, &format!("{name}.svg"), svg)?;
        folder::write(folder, &format!("{name}.png"), plot::png(svg)?)?;
    }
    folder::write(folder, "bench.md", page(results, cases, &plots))
}
