//! What runs have found out, for people: tables on the terminal, a page and plots.

pub mod budget;
pub mod compare;
mod counts;
#[cfg(test)]
pub mod fixture;
mod label;
mod markdown;
mod metrics;
pub mod plot;
mod reference;
pub mod table;
mod tables;

use std::fmt::Write as _;

use anyhow::{Context, Result};

use self::plot::Plot;
use crate::{host::folder::Folder, results::Results};

/// What a terminal has no room for.
const PAGE_ONLY: [&str; 4] = ["average µs", "p99.99 µs", "duplicated", "out of order"];

/// The tables of a run for the terminal.
pub fn text(results: &Results) -> String {
    let files = label::label(std::slice::from_ref(results));
    let mut text = tables::facts(&files).text();
    for note in markdown::notes(&files) {
        let _ = write!(text, "\n{}\n", note.replace("**", ""));
    }
    let _ = write!(text, "\nhost CPU\n\n{}", tables::host_cpu(&files).text());
    for workload in compare::workloads(results) {
        let profile = tables::profile(&files, workload);
        if !profile.is_empty() {
            let _ = write!(text, "\nkernel time, {}\n\n{}", workload.text(), profile.text());
        }
    }
    for workload in compare::workloads(results) {
        let table = tables::comparison(&files, workload).without(&PAGE_ONLY);
        let _ = write!(text, "\n{}\n\n{}", workload.text(), table.text());
    }
    text
}

/// The page, without pictures.
pub fn page(results: &[Results]) -> String {
    markdown::page(&label::label(results), &[])
}

/// Writes the page and its plots into a folder.
pub fn write(results: &[Results], folder: &Folder) -> Result<()> {
    let files = label::label(results);
    let plots = plot::plots(&files).context("drawing the plots")?;
    write_page(folder, "report.md", &markdown::page(&files, &plots), &plots)
}

/// Writes a page of this name, and the plots that it shows.
pub fn write_page(folder: &Folder, name: &str, page: &str, plots: &[Plot]) -> Result<()> {
    for plot in plots {
        folder.write(&format!("{}.svg", plot.name), &plot.svg)?;
        folder.write(&format!("{}.png", plot.name), plot::png(&plot.svg)?)?;
    }
    let page = folder.write(name, page)?;
    let names: Vec<_> = plots.iter().map(|plot| &*plot.name).collect();
    let (page, names) = (page.display(), names.join(", "));
    eprintln!("wrote {page} and beside it, as SVG and PNG: {names}");
    Ok(())
}
