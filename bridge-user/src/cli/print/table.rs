//! Tables for people.

use std::io::{self, Write as _};

use anyhow::Result;

/// Between columns.
const GAP: &str = "  ";

/// Columns of the terminal that standard output is, if it is one.
fn terminal_columns() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(columns, _)| columns.0.into())
}

/// Rows in columns as wide as their widest cell. Columns are left-aligned up to `left`, then right-aligned. On a terminal
/// that has not so many columns, each row has a line for every cell.
pub struct Table {
    rows: Vec<Vec<String>>,
    left: usize,
}

impl Table {
    pub fn new(left: usize, heads: &[&str]) -> Self {
        Self {
            rows: vec![heads.iter().map(ToString::to_string).collect()],
            left,
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has heads alone.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub fn print(&self) -> Result<()> {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let all = widths.iter().sum::<usize>() + GAP.len() * (columns - 1);
        if terminal_columns().is_some_and(|columns| columns < all) {
            return self.print_upright();
        }
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| {
                    if column < self.left {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                });
            let line = cells.collect::<Vec<_>>().join(GAP);
            writeln!(io::stdout(), "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn print_upright(&self) -> Result<()> {
        let (heads, rows) = self.rows.split_first().expect("a row of heads");
        let width = heads.iter().map(|head| head.trim().chars().count()).max();
        let width = width.unwrap_or(0);
        for (index, row) in rows.iter().enumerate() {
            if index != 0 {
                writeln!(io::stdout())?;
            }
            for (head, cell) in heads.iter().zip(row) {
                writeln!(io::stdout(), "{GAP}{:<width$}{GAP}{}", head.trim(), cell.trim())?;
            }
        }
        Ok(())
    }
}
