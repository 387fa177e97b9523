//! Tables for people.

use std::io::{self, Write as _};

use anyhow::Result;
use comfy_table::{CellAlignment, Table as Grid, presets};

/// Between columns.
const GAP: u16 = 2;

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
        let text = layout(&self.rows, self.left);
        let width = text.lines().map(|line| line.chars().count()).max();
        match terminal_columns() {
            Some(columns) if width > Some(columns) => self.print_upright(),
            _ => Ok(writeln!(io::stdout(), "{text}")?),
        }
    }

    fn print_upright(&self) -> Result<()> {
        let (heads, rows) = self.rows.split_first().expect("a row of heads");
        for (index, row) in rows.iter().enumerate() {
            if index != 0 {
                writeln!(io::stdout())?;
            }
            let lines = heads.iter().zip(row);
            let lines: Vec<_> = lines
                .map(|(head, cell)| vec![format!("  {}", head.trim()), cell.trim().to_owned()])
                .collect();
            writeln!(io::stdout(), "{}", layout(&lines, 2))?;
        }
        Ok(())
    }
}

/// Without lines, and never wrapped.
fn layout(rows: &[Vec<String>], left: usize) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING).add_rows(rows);
    for (index, column) in grid.column_iter_mut().enumerate() {
        column.set_padding((0, GAP));
        if index >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.trim_fmt()
}
