//! The tables of a report: each has a row for every datapath, and within it one for every file.

use super::{
    compare::{self, PEER, Spread},
    counts,
    label::Labelled,
    metrics::{self, HOST_CPU, Metric, OTHER_METRICS, PATH},
    table::{NOTHING, Table, cell, ratio_cell, spread_cell},
};
use crate::{
    results::{Part, Profile, Results},
    workload::kind::Workload,
};

/// What was measured, and how it compares.
pub fn comparison(files: &[Labelled], workload: Workload) -> Table {
    let main = metrics::main_metric(workload);
    let others: Vec<_> = OTHER_METRICS
        .into_iter()
        .filter(|metric| metric.name != main.name)
        .collect();
    let ratios = [main.name.clone().into_owned(), format!("to {PEER}")];
    let between = between_files(files);
    let names = others.iter().map(|metric| metric.name.clone().into_owned());
    let mut table = table(files, ratios.into_iter().chain(between).chain(names));
    for (datapath, file) in rows(files, workload) {
        let results = file.results;
        let mut cells = names_of(files, datapath, file);
        let spread = |metric: &Metric| compare::spread(results, workload, datapath, metric);
        cells.push(spread_cell(spread(&main), main.decimals));
        cells.push(ratio_cell(compare::ratio(results, workload, datapath, &main)));
        if files.len() > 1 {
            let files = [results, files[0].results];
            let ratio = compare::ratio_between(files, workload, datapath, &main);
            cells.push(ratio_cell(ratio.unwrap_or(compare::Ratio::None)));
        }
        for metric in &others {
            cells.push(cell(
                compare::value(results, workload, datapath, metric),
                metric.decimals,
            ));
        }
        table.row(cells);
    }
    table.without_empty_columns()
}

/// What the host spent on carrying frames, and how that compares: all workloads in one table.
pub fn host_cpu(files: &[Labelled]) -> Table {
    let words: &[&str] = if files.len() > 1 {
        &["workload", "datapath", "run"]
    } else {
        &["workload", "datapath"]
    };
    let to_peer = format!("to {PEER}");
    let metrics = HOST_CPU;
    let columns = metrics.iter().flat_map(|metric| [&*metric.name, &*to_peer]);
    let mut table = Table::new(words.iter().copied().chain(columns)).of_words(words.len());
    for workload in compare::workloads_of(files.iter().map(|file| file.results)) {
        for (datapath, file) in rows(files, workload) {
            let mut cells = vec![workload.name().into_owned()];
            cells.extend(names_of(files, datapath, file));
            for metric in &metrics {
                cells.extend(compared(file.results, workload, datapath, metric));
            }
            table.row(cells);
        }
    }
    table.without_empty_columns()
}

/// Where the kernel's time went, by parts, and how the path's compares; without rows where nobody sampled.
pub fn profile(files: &[Labelled], workload: Workload) -> Table {
    let parts = Part::ALL.iter().map(|part| format!("{}, s", part.text()));
    let path = [PATH.name.clone().into_owned(), format!("to {PEER}")];
    let mut table = table(
        files,
        path.into_iter()
            .chain(parts)
            .chain(["samples".into(), "lost".into()]),
    );
    for (datapath, file) in rows(files, workload) {
        let profiles = || {
            let runs = compare::runs(file.results, workload, datapath);
            runs.filter_map(|(_, run)| run.profile.as_ref())
        };
        if profiles().next().is_none() {
            continue;
        }
        let mut cells = names_of(files, datapath, file);
        cells.extend(compared(file.results, workload, datapath, &PATH));
        for part in Part::ALL {
            let seconds = Spread::of(profiles().map(|profile| profile.part_s(part)));
            let share =
                Spread::of(profiles().map(|profile| 100.0 * profile.part_s(part) / profile.total_s()));
            cells.push(match (seconds, share) {
                (Some(seconds), _) if part == Part::Elsewhere => format!("{:.2}", seconds.median),
                (Some(seconds), Some(share)) => format!("{:.2}, {:.0} %", seconds.median, share.median),
                _ => NOTHING.into(),
            });
        }
        let sum = |of: fn(&Profile) -> u64| profiles().map(of).sum::<u64>().to_string();
        cells.extend([sum(|profile| profile.samples), sum(|profile| profile.lost)]);
        table.row(cells);
    }
    table
}

/// A metric over the rounds, and its ratio to the peer's.
fn compared(results: &Results, workload: Workload, datapath: &str, metric: &Metric) -> [String; 2] {
    [
        spread_cell(
            compare::spread(results, workload, datapath, metric),
            metric.decimals,
        ),
        ratio_cell(compare::ratio(results, workload, datapath, metric)),
    ]
}

/// What it cost: medians over rounds.
pub fn costs(files: &[Labelled], workload: Workload) -> Table {
    let metrics = metrics::costs(workload);
    let mut table = table(
        files,
        metrics.iter().map(|metric| metric.name.clone().into_owned()),
    );
    for (datapath, file) in rows(files, workload) {
        let value = |metric: &Metric| {
            let value = compare::value(file.results, workload, datapath, metric);
            cell(value, metric.decimals)
        };
        table.row(
            names_of(files, datapath, file)
                .into_iter()
                .chain(metrics.iter().map(value)),
        );
    }
    table.without_empty_columns()
}

/// Which ways past the bridge the frames of a datapath took, all rounds together; `None` of one that does not count.
pub fn paths(results: &Results, datapath: &str) -> Option<Table> {
    let mut table = Table::new(["workload", "path", "via", "frames", "share"]).of_words(3);
    let mut counted = false;
    for workload in compare::workloads(results) {
        let Some(paths) = counts::paths(results, workload, datapath) else {
            continue;
        };
        counted = true;
        for (path, share) in paths {
            let way = format!("{} → {}", path.from, path.to);
            let frames = path.frames.to_string();
            table.row([
                &*workload.name(),
                &way,
                &path.via,
                &frames,
                &format!("{:.1} %", 100.0 * share),
            ]);
        }
    }
    counted.then_some(table)
}

/// What was left to the bridge there, all rounds together; without rows if nothing was.
pub fn left(results: &Results, datapath: &str) -> Table {
    let mut table = Table::new(["workload", "port", "reason", "frames"]).of_words(3);
    for workload in compare::workloads(results) {
        for left in counts::left(results, workload, datapath) {
            table.row([
                &*workload.name(),
                &left.port,
                &left.reason,
                &left.frames.to_string(),
            ]);
        }
    }
    table
}

/// How the ports changed by themselves, all rounds together; without rows if none did.
pub fn hook_changes(results: &Results, datapath: &str) -> Table {
    let mut table =
        Table::new(["workload", "port", "hooks from then on", "times", "first after s"]).of_words(3);
    for workload in compare::workloads(results) {
        for change in counts::hook_changes(results, workload, datapath) {
            table.row([
                &*workload.name(),
                &change.port,
                &change.hooks.join(" + "),
                &change.count.to_string(),
                &spread_cell(change.first_s, 1),
            ]);
        }
    }
    table
}

/// What was measured, of each file a column.
pub fn facts(files: &[Labelled]) -> Table {
    let head = files.iter().map(|file| match files.len() {
        1 => String::new(),
        _ => file.label.clone(),
    });
    let mut table = Table::new([String::new()].into_iter().chain(head)).of_words(files.len() + 1);
    let mut row = |name: &str, of: fn(&Results) -> String| {
        table.row(
            [name.into()]
                .into_iter()
                .chain(files.iter().map(|file| of(file.results))),
        );
    };
    row("started", |results| results.started.clone());
    row("revision", |results| {
        let parts = [results.revision.as_deref(), results.machine.tapbridge.as_deref()];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            NOTHING.into()
        } else {
            parts.join(", ")
        }
    });
    row("machine", |results| results.machine.text());
    row("guests", |results| results.guests.text());
    row("conditions", |results| results.conditions.text());
    row("programs", |results| {
        format!("{}; {}", results.guests.iperf3, results.guests.sockperf)
    });
    table
}

fn table(files: &[Labelled], names: impl IntoIterator<Item = String>) -> Table {
    let words: &[&str] = if files.len() > 1 {
        &["datapath", "run"]
    } else {
        &["datapath"]
    };
    Table::new(words.iter().map(|&word| word.to_owned()).chain(names)).of_words(words.len())
}

fn names_of(files: &[Labelled], datapath: &str, file: &Labelled) -> Vec<String> {
    let mut names = vec![datapath.to_owned()];
    if files.len() > 1 {
        names.push(file.label.clone());
    }
    names
}

fn between_files(files: &[Labelled]) -> Option<String> {
    (files.len() > 1).then(|| format!("to {}", files[0].label))
}

/// Rows of the files' datapaths, those of one datapath side by side.
fn rows<'files>(
    files: &'files [Labelled<'files>],
    workload: Workload,
) -> impl Iterator<Item = (&'files str, &'files Labelled<'files>)> {
    let pairs = |datapath| files.iter().map(move |file| (datapath, file));
    let all = compare::datapaths(files.iter().map(|file| file.results)).into_iter();
    all.flat_map(pairs)
        .filter(move |(datapath, file)| compare::runs(file.results, workload, datapath).next().is_some())
}
