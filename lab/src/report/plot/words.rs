//! What plots have in common: their words.

use super::canvas;
use crate::{
    report::{compare, label::Labelled},
    workload::kind::Workload,
};

/// A drawing and its name.
pub struct Plot {
    /// Of its files, without what follows the point.
    pub name: String,
    pub title: String,
    pub svg: String,
}

/// How wide what several files are called may get.
pub const LABEL: i32 = 340;

/// Who was measured and how, under the title. Of several files that were measured alike once.
pub fn notes(files: &[Labelled], workload: Workload) -> Vec<String> {
    let all = files.iter().map(|file| {
        let results = file.results;
        let rounds = compare::rounds(results, workload);
        [
            format!("{}; {}", results.guests.text(), results.machine.hardware()),
            results.conditions.text_of(workload, rounds),
        ]
    });
    let all: Vec<_> = all.collect();
    let alike = all.iter().all(|own| *own == all[0]);
    if alike {
        return all.into_iter().next().unwrap_or_default().into();
    }
    let named = files.iter().zip(all);
    named
        .map(|(file, own)| format!("{}: {}", file.label, own.join("; ")))
        .collect()
}

/// What a datapath is called beside those of other files.
pub fn label(name: &str, files: &[Labelled], file: &Labelled) -> String {
    match files.len() {
        1 => name.into(),
        _ => canvas::fit(&format!("{name}, {}", file.label), LABEL),
    }
}

/// Those that have measured a workload.
pub fn datapaths<'files>(
    files: &'files [Labelled<'files>],
    workload: Workload,
) -> impl Iterator<Item = &'files str> {
    let all = compare::datapaths(files.iter().map(|file| file.results)).into_iter();
    all.filter(move |datapath| {
        let mut results = files.iter().map(|file| file.results);
        results.any(|results| compare::runs(results, workload, datapath).next().is_some())
    })
}

/// With spaces between groups of three digits.
pub fn thousands(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped + rest
}
