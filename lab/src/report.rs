//! What runs have found out, for people: tables on the terminal, a page and plots.

mod compare;
mod figures;
#[cfg(test)]
mod fixture;
mod label;
mod markdown;
mod reference;
mod table;
mod tables;

use std::{fmt::Write as _, path::Path};

use anyhow::Result;

use crate::{folder, results::Results};

/// The tables of a run for the terminal.
pub fn text(results: &Results) -> String {
    let files = label::label(std::slice::from_ref(results));
    let mut text = tables::facts(&files).text();
    for note in markdown::notes(&files) {
        let _ = write!(text, "\n{}\n", note.replace("**", ""));
    }
    for workload in markdown::workloads(&files) {
        let table = tables::comparison(&files, workload).text();
        let _ = write!(text, "\n{}\n\n{table}", workload.text());
    }
    text
}

/// The page, without pictures.
pub fn page(results: &[Results]) -> String {
    markdown::page(&label::label(results), &[])
}

/// Writes the page and its plots into a folder.
pub fn write(results: &[Results], folder: &Path) -> Result<()> {
    let page = markdown::page(&label::label(results), &[]);
    folder::write(folder, "report.md", page)
}
