//! The results for people: tables and plots.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::{
    case::{self, Case, FAMILIES},
    results::{Measured, PEERS, Ratio, Results},
    testbed::Datapath,
};
use crate::{
    host::folder::Folder,
    report::{
        self,
        compare::ENOUGH_ROUNDS,
        plot::{
            self, Plot,
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
    let words = ["case", "figure", "datapath", "min", "median"].map(String::from);
    let mut table = Table::new(words.into_iter().chain(peers).chain(["lost".into()])).of_words(3);
    for case in cases {
        for measured in rows(results, case) {
            let figures =
                [measured.min, measured.median].map(|value| cell(Some(value), decimals(&measured.figure)));
            let ratios = PEERS.map(|peer| ratio(results, measured, peer).map_or(NOTHING.into(), both));
            let words = [case.text, &measured.figure, &measured.datapath].map(String::from);
            let numbers = figures.into_iter().chain(ratios).chain([lost(measured)]);
            table.row(words.into_iter().chain(numbers));
        }
    }
    table.without_empty_columns()
}

/// A row for every case and figure: the Linux bridge's median, and how many times as much the others took.
fn summary(results: &Results, cases: &[Case]) -> Table {
    let [base, ..] = PEERS;
    let others = Datapath::ALL
        .map(Datapath::name)
        .into_iter()
        .filter(|&name| name != base);
    let mut table = Table::new(["case", base].into_iter().chain(others.clone()));
    for case in cases {
        for own in rows(results, case).filter(|measured| measured.datapath == base) {
            let (unit, more) = match percentile(&own.figure) {
                Some(percentile) => (" µs", format!(", {percentile}")),
                None if case::is_share(&own.figure) => ("", format!(", {}", own.figure)),
                None => (" ns", String::new()),
            };
            let median = format!("{}{unit}", thousands(own.median, decimals(&own.figure)));
            let ratios = others.clone().map(|name| {
                let mut measured = rows(results, case);
                let found = measured.find(|other| other.figure == own.figure && other.datapath == name);
                let found = found.and_then(|other| ratio(results, other, base));
                cell(found.map(|ratio| ratio.median), 2)
            });
            table.row([format!("{}{more}", case.text), median].into_iter().chain(ratios));
        }
    }
    table.without_empty_columns()
}

/// Which percentile a figure is, if it is one, such as "p50 µs".
fn percentile(figure: &str) -> Option<&str> {
    match figure.split_once(' ') {
        Some((percentile, "µs")) => Some(percentile),
        _ => None,
    }
}

/// What was measured of a case: figure by figure, in the order of the datapaths.
fn rows<'results>(results: &'results Results, case: &Case) -> impl Iterator<Item = &'results Measured> {
    let name = case.name;
    let figures = case.figures().iter();
    let rows = figures.flat_map(|&figure| Datapath::ALL.map(|datapath| (figure, datapath.name())));
    rows.filter_map(move |(figure, datapath)| {
        let mut all = results.measured.iter();
        all.find(|measured| {
            (&*measured.case, &*measured.figure, &*measured.datapath) == (name, figure, datapath)
        })
    })
}

fn ratio(results: &Results, measured: &Measured, peer: &str) -> Option<Ratio> {
    let mut ratios = results.ratios.iter();
    let wanted = (&*measured.case, &*measured.figure, &*measured.datapath, peer);
    let found = ratios.find(|ratio| (&*ratio.case, &*ratio.figure, &*ratio.datapath, &*ratio.to) == wanted);
    found.map(|found| found.ratio)
}

fn both(ratio: Ratio) -> String {
    format!("{} {:.3}", cell(ratio.best, 3), ratio.median)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn lost(measured: &Measured) -> String {
    match measured.lost {
        0 => NOTHING.into(),
        lost => format!("{:.2} %", 100.0 * lost as f64 / measured.frames as f64),
    }
}

fn decimals(figure: &str) -> usize {
    match figure.ends_with("µs") {
        _ if case::is_share(figure) => 3,
        true => 1,
        false => 0,
    }
}

const EXPLAINED: &str = "Frames are written to one tap and read from another with a VMM's system calls. All datapaths \
    are up at once and take turns, so that what drifts concerns all alike. A ratio has two numbers: of the two best \
    rounds, and the median of the ratios within each round. Less is better, but of shares more. The `tapbridge` ones \
    are the same bridge, its ports attached; `tapbridge-auto` has chosen the hooks of its ports before the first round, in \
    each case by what that sends. `floor-xdp` and `floor-tcx` are one static redirect at that hook and nothing else; where \
    frames stay with the bridge, programs that do nothing, as many as tapbridge has. What is lost found the receiver's \
    ring full: where a writer and a reader are threads of their own, the writer does not wait.";

const SUMMARISED: &str =
    "The bridge's median, and the others' ratio to it: the median of the ratios within each round.";

/// The page, with plots that lie in the same folder.
fn page(results: &Results, cases: &[Case], plots: &[Plot]) -> String {
    let mut facts = Table::new(["", ""]).of_words(2);
    facts.row(["started", &results.started]);
    facts.row(["revision", results.revision.as_deref().unwrap_or(NOTHING)]);
    facts.row(["machine", &results.machine.text()]);
    facts.row(["conditions", &conditions(results)]);
    let mut page = format!("# The cost of a frame\n\n{}\n{EXPLAINED}\n", facts.markdown());
    let summary = summary(results, cases);
    if !summary.is_empty() {
        let summary = summary.markdown();
        let _ = write!(page, "\n## Beside the Linux bridge\n\n{SUMMARISED}\n\n{summary}");
    }
    let table = table(results, cases).markdown();
    let _ = write!(page, "\n## All figures\n\n{table}");
    if !results.not_measured.is_empty() {
        let _ = writeln!(page, "\n## Not measured\n");
        for case in &results.not_measured {
            let _ = writeln!(page, "- {}", case.text());
        }
    }
    for plot in plots {
        let _ = write!(page, "\n![{}]({}.svg)\n", plot.title, plot.name);
    }
    page
}

/// Whether there are enough rounds for a ratio.
fn enough(results: &Results) -> bool {
    results.rounds as usize >= ENOUGH_ROUNDS
}

fn conditions(results: &Results) -> String {
    let few = if enough(results) {
        ""
    } else {
        ", too few for a ratio"
    };
    format!(
        "{} rounds{few}, turns of {} ms, {:.0} s in all",
        results.rounds, results.turn_ms, results.seconds
    )
}

/// One for every unit: bars of the datapaths' medians, case by case, beside the Linux bridge's.
fn draw(results: &Results, cases: &[Case]) -> Result<Vec<Plot>> {
    canvas::load_fonts()?;
    let mut drawn = Vec::new();
    for (name, title, family) in FAMILIES {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.family == *family).collect();
        let groups: Vec<Group> = cases.iter().flat_map(|case| groups(results, case)).collect();
        let Some(case) = cases.iter().find(|case| rows(results, case).next().is_some()) else {
            continue;
        };
        let measured = |datapath| {
            let mut cases = cases.iter();
            cases.any(|case| results.find(case.name, datapath).is_some())
        };
        let legend = Datapath::ALL.map(Datapath::name).into_iter();
        let legend = legend.filter(|&datapath| measured(datapath));
        let mut notes = vec![
            results.machine.hardware(),
            format!("{}, MTU 1500 where none is named", conditions(results)),
            "Bars: the median over the rounds; lines: from the best round to the upper quartile.".into(),
        ];
        if groups
            .iter()
            .flat_map(|group| &group.bars)
            .any(|bar| bar.text.contains('×'))
        {
            notes.push(plot::paired(PEERS[0]));
        }
        let bars = Bars {
            heading: Heading {
                title: (*title).into(),
                notes,
            },
            unit: format!("{}: less is better", unit(case)),
            groups,
            legend: legend
                .map(|datapath| (datapath.to_owned(), canvas::colour_of(datapath)))
                .collect(),
        };
        drawn.push(Plot {
            name: (*name).into(),
            title: (*title).into(),
            svg: bars.draw()?,
        });
    }
    Ok(drawn)
}

/// What all figures of a case are told in.
fn unit(case: &Case) -> &'static str {
    match case.figures()[0] {
        figure if percentile(figure).is_some() => "µs",
        figure => figure,
    }
}

/// One for each figure that takes time: bars of shares would be read the wrong way round.
fn groups(results: &Results, case: &Case) -> Vec<Group> {
    let figures = case.figures();
    let group = |&figure: &&str| {
        let label = match percentile(figure) {
            Some(percentile) => format!("{}, {percentile}", case.text),
            None => case.text.into(),
        };
        let measured = rows(results, case).filter(|measured| measured.figure == figure);
        Group {
            label,
            bars: measured.map(|measured| bar(results, measured)).collect(),
        }
    };
    let groups = figures.iter().filter(|figure| !case::is_share(figure)).map(group);
    groups.filter(|group| !group.bars.is_empty()).collect()
}

fn bar(results: &Results, measured: &Measured) -> Bar {
    let value = thousands(measured.median, decimals(&measured.figure));
    // In a round in which nothing was delivered a delivered frame took for ever.
    let finite = measured.values.iter().copied().filter(|value| value.is_finite());
    let mut values: Vec<_> = finite.collect();
    values.sort_by(f64::total_cmp);
    // The worst rounds are the machine's, and would leave no room for the others.
    let upper = values
        .get(values.len() * 3 / 4)
        .copied()
        .unwrap_or(measured.median);
    let text = ratio(results, measured, PEERS[0])
        .filter(|_| enough(results))
        .map_or(value.clone(), |ratio| format!("{value} (×{:.2})", ratio.median));
    Bar {
        label: String::new(),
        text,
        parts: vec![(measured.median, canvas::colour_of(&measured.datapath))],
        whisker: Some((measured.min, upper)),
    }
}

/// Writes page and plots into a folder.
pub fn write(results: &Results, cases: &[Case], folder: &Folder) -> Result<()> {
    let plots = draw(results, cases).context("drawing the plots")?;
    report::write_page(folder, "bench.md", &page(results, cases, &plots), &plots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{case::CASES, results::tests};

    #[test]
    fn a_round_that_delivered_nothing_can_be_drawn_and_a_plot_says_what_is_in_it() {
        let results = tests::results(vec![
            tests::measured("64", "linux-bridge", &[2000.0, 4000.0, 2400.0]),
            tests::measured("64", "tapbridge-tcx", &[1000.0, 1800.0, f64::INFINITY]),
        ]);
        let plots = draw(&results, CASES).unwrap();
        assert_eq!(plots.len(), 1);
        let svg = &plots[0].svg;
        for text in [
            "64 B",
            "ns/frame: less is better",
            "is not the ratio of the bars",
            "MTU 1500",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }

    #[test]
    fn the_summary_has_the_bridges_median_and_the_others_ratios() {
        let results = tests::results(vec![
            tests::measured("64", "linux-bridge", &[2000.0, 4000.0, 2400.0]),
            tests::measured("64", "tapbridge-tcx", &[1000.0, 1000.0, 1800.0]),
            // Without the bridge there is nothing to be beside.
            tests::measured("256", "tapbridge-tcx", &[1000.0]),
        ]);
        let summary = summary(&results, CASES).markdown();
        let rows: Vec<_> = summary.lines().collect();
        assert_eq!(rows[0], "| case | linux-bridge | tapbridge-tcx |");
        assert_eq!(rows[2..], ["| 64 B | 2\u{202f}400 ns | 0.50 |"]);
    }
}
